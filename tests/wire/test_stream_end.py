"""The end of a stream by its own word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.stream_end import BEGIN_BYTES, ERROR, UNENDED, begin_of_last, how_ended, is_ended
from proxy.wire.stream_end import WHOLE as WHOLE_END

DELTA = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"hi"}\n\n'


def completed(kind: str = "completed", size: int = 0, *, name: bool = True) -> bytes:
    line = b"event: response.%b\n" % kind.encode() if name else b""
    return line + b'data: {"type":"response.%b","response":{"x":"%b"}}\n\n' % (kind.encode(), b"y" * size)


BEDROCK = (
    b'event: message_stop\ndata: {"type":"message_stop","amazon-bedrock-invocationMetrics":'
    b'{"inputTokenCount":9,"outputTokenCount":2}}\n\n'
)
WHOLE = [
    b"data: [DONE]\n\n", b"data:[DONE]", b"data: [DONE]\n", b'data: {"type":"message_stop"}\n\n',
    b'event: message_stop\ndata: {"type": "message_stop"   }\n\n', b'data: {"x":1,"type":"message_stop"}',
    BEDROCK, b"event: done\ndata: {}\n\n", b"event: done\ndata: [DONE]\n\n",
    *(completed(kind, size, name=name) for kind in ("completed", "incomplete", "failed")
      for size in (0, 9000, 70_000) for name in (True, False)),
]  # fmt: skip
NOT_WHOLE = [
    b"", b"\n\n", b": a comment\n\n", DELTA, b"data: [DON", b'data: {"content":"data: [DONE]"}\n\n',
    b'data: {"text":"event: response.completed"}\n\n', b"data: [DONE]\n\ndata: {}\n\n",
    b"event: response.completed\n", b'event: response.completed\ndata: {"type":"response.completed","resp',
    b'event: response.completed\ndata: {"type":"response.completed","resp\n',
    b'event: response.created\ndata: {"type":"response.created"}\n\n',
    b'data: {"x":{"type":"message_stop"}}\n\n', b'data: {"type":"done"}\n\n',
    b'event: error\ndata: {"type":"error"}\n\n', completed() + DELTA, completed(size=70_000)[:-3],
    completed(size=70_000) + DELTA,
]  # fmt: skip


def as_kept(stream: bytes, keep: int = 8192, gather: int = 16384) -> tuple[bytes, bytes]:
    """What :class:`proxy.wire.response.Response` keeps of a stream that comes in pieces of 1,000 bytes."""
    kept, begin, is_first = b"", b"", True
    for at in range(0, len(stream), 1000):
        kept += stream[at : at + 1000]
        if len(kept) > gather:
            begin, _ = begin_of_last(kept, keep, begin, is_first=is_first)
            kept, is_first = kept[-keep:], False
    return kept, begin


@pytest.mark.parametrize("before", [b"", DELTA * 3, DELTA * 400])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("stream", [*WHOLE, *NOT_WHOLE])
def test_the_last_event(before, line_end, stream):
    text = (before + stream).replace(b"\n", line_end)
    assert is_ended(*as_kept(text)) is (stream in WHOLE)


@pytest.mark.parametrize("stream", [one for one in WHOLE[:1] + WHOLE[3:5] + WHOLE[6:] if len(one) < 8000])
def test_comments_behind_the_end_change_nothing(stream):
    comment = b": keep-alive\n\n"
    for behind, is_end in ((comment * 3, True), (comment * 9, False), (comment + DELTA, False)):
        assert is_ended(stream + behind) is is_end


@given(st.sampled_from(WHOLE + NOT_WHOLE), st.integers(0, 300), st.integers(10, 9000), st.integers(1, 9000))
def test_however_much_is_kept_the_answer_is_the_same_or_less(stream, deltas, keep, more):
    """Never an end where there is none."""
    kept, begin = as_kept(DELTA * deltas + stream, keep, keep + more)
    assert not is_ended(kept, begin) or stream in WHOLE
    assert len(begin) <= BEGIN_BYTES


@given(st.binary(max_size=300), st.binary(max_size=60))
def test_nothing_breaks_it(tail, begin):
    is_ended(tail, begin)
    begin_of_last(tail, 40, begin, is_first=False)


CHOICE = b'data: {"choices":[{"index":%d,"delta":{"content":"x"},"finish_reason":%b}]}\n\n'
OPEN, STOP = CHOICE % (0, b"null"), CHOICE % (0, b'"stop"')
STOPPED = b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
OWN_ERROR = b'data: {"error":{"message":"no"}}\n\n'
HOW = [
    ("chat", OPEN, UNENDED), ("chat", OPEN + STOP, WHOLE_END),
    ("completions", b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n', WHOLE_END),
    ("chat", STOP + b'data: {"choices":[],"usage":{}}\n\n', WHOLE_END),
    ("chat", STOP + CHOICE % (1, b"null"), UNENDED),
    ("chat", STOP + CHOICE % (1, b"null") + CHOICE % (1, b'"stop"'), WHOLE_END),
    ("chat", STOP + OPEN, WHOLE_END),  # some say more of a choice behind its end
    ("chat", CHOICE % (0, b'""'), UNENDED), ("chat", STOP.rstrip(b"\n"), WHOLE_END),
    ("chat", STOP[:-4], UNENDED), ("chat", STOP + b"data: {", UNENDED),
    ("chat", STOP + b"event: x\n", UNENDED), ("chat", STOP + b"da", UNENDED),
    ("chat", STOP + b": comment", WHOLE_END), ("chat", STOP.replace(b'"x"', b"NaN"), WHOLE_END),
    ("chat", OPEN.replace(b'"x"', b'"\\"finish_reason\\":\\"stop\\""'), UNENDED),
    ("chat", OPEN.replace(b'"x"', b'NaN,"y":"\\"finish_reason\\":\\"stop\\""'), UNENDED),
    ("chat", b'data: {"choices":7}\n\ndata: [1]\n\ndata: {"choices":[7]}\n\n', UNENDED),
    ("chat", b'data: {"choices":[{"index":[],"finish_reason":{}}],"type":[]}\n\n', UNENDED),
    ("chat", STOPPED, UNENDED), ("messages", STOPPED, WHOLE_END),
    ("messages", STOPPED.replace(b'"end_turn"', b"null"), UNENDED), ("messages", STOP, UNENDED),
    ("responses", STOP, UNENDED), ("chat", OPEN + OWN_ERROR, ERROR), ("chat", OWN_ERROR + OPEN, UNENDED),
    ("chat", OWN_ERROR + b": comment\n\n", ERROR), ("chat", OWN_ERROR[:-6], UNENDED),
    ("messages", b'event: error\ndata: {"type":"error","error":{}}\n\n', ERROR),
    ("responses", b'event: error\ndata: {"type":"error","message":"%b"}\n\n' % (b"y" * 20_000), ERROR),
    # An error at which the SDKs of an endpoint do not raise needs one behind it at which they do.
    ("messages", b'data: {"type":"error","error":{"message":"no"}}\n\n', UNENDED),
    ("chat", b'event: error\ndata: {"message":"no"}\n\n', UNENDED),
    ("chat", b'event: error\ndata: {"error":"no"}\n\n', ERROR),
    ("completions", b'data: {"type":"error","error":null}\n\n', UNENDED), ("responses", OWN_ERROR, ERROR),
    ("responses", completed("failed"), WHOLE_END), ("chat", b"", UNENDED),
    ("chat", b": comment\n\n", UNENDED),
]  # fmt: skip


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("endpoint", "stream", "ending"), HOW)
def test_how_a_stream_ended(line_end, endpoint, stream, ending):
    stream = stream.replace(b"\n", line_end)
    assert how_ended(*as_kept(stream), endpoint) == ending
    before = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":null}]}\n\n'.replace(b"\n", line_end)
    if b"index" not in stream or b'"index":0' in stream:
        assert how_ended(*as_kept(before * 500 + stream), endpoint) == ending


@given(st.binary(max_size=300), st.binary(max_size=60), st.sampled_from(["chat", "messages", "responses"]))
def test_nothing_breaks_how_it_ended(tail, begin, endpoint):
    assert how_ended(tail, begin, endpoint) in (UNENDED, WHOLE_END, ERROR)
