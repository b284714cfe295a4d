"""Events and their fields; errors in disguise: the first event, at every split and with every line end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.sse import data_of, is_error, read_event, split_events

ENDS = [b"\n", b"\r\n", b"\r"]

CASES = [
    # OpenAI, Anthropic, and what is made after them
    (b'data: {"error":{"message":"overloaded"}}\n\n', True), (b'data: {"error":"overloaded"}\n\n', True),
    (b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n', True),
    (b"event: error\ndata: busy\n\n", True), (b"event:error\ndata:busy\n\n", True),
    (b'data: {"type":"error","error":{"message":"x"}}\n\n', True),
    (b'data: {"type":"error","message":"\\"error\\""}\n\n', True),
    (b'id: 1\nretry: 5\nevent: error\ndata: {}\n\n', True),
    (b'data: {"error":\ndata: {"code":500}}\n\n', True), (b'data:{"error":{"code":500}}\n\n', True),
    # no errors
    (b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n', False),
    (b'data: {"choices":[],"error":null}\n\n', False), (b'data: {"choices":[],"error":{}}\n\n', False),
    (b'data: {"choices":[{"delta":{"content":"an \\"error\\" and {\\"error\\": 1}"}}]}\n\n', False),
    (b'data: {"choices":[{"error":{"message":"deeper"}}]}\n\n', False),
    (b'data: the word "error" in a text\n\n', False), (b'data: ["error"]\n\n', False),
    (b'data: "error"\n\n', False), (b'event: message_start\ndata: {"type":"message_start"}\n\n', False),
    (b"event: errors\ndata: {}\n\n", False), (b"data: [DONE]\n\n", False), (b"data: error\n\n", False),
    # comments, and events that are none, come first
    (b": hello\n\n: again\n\nevent: error\ndata: {}\n\n", True),
    (b': event: error\n\ndata: {"id":1}\n\n', False),
    (b"id: 5\n\nretry: 10\n\nevent: error\ndata: {}\n\n", True), (b'\n\n\n\ndata: {"error":1}\n\n', True),
    (b': x\ndata: {"error":1}\n\n', True),
    # only the first event counts
    (b'data: {"id":1}\n\ndata: {"error":{}}\n\nevent: error\ndata: {}\n\n', False),
]  # fmt: skip


@pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("stream", "verdict"), CASES)
def test_the_first_event_at_every_split(stream, verdict, end):
    """Undecided until the event is complete; from then on the same, whatever follows."""
    stream = stream.replace(b"\n", end)
    verdicts = [is_error(stream[:at]) for at in range(len(stream) + 1)]
    decided = verdicts.index(verdict)
    assert verdicts == [None] * decided + [verdict] * (len(stream) + 1 - decided)
    assert stream[:decided].endswith(end * 2)
    assert is_error(stream + b"event: error" + end) is verdict


@pytest.mark.parametrize(
    "stream", [b"", b"\n", b": comment\n\n", b'data: {"error":1}\n', b"event: error\ndata: {}", b"id: 1\n\n"]
)
def test_what_is_not_complete_is_not_judged(stream):
    assert is_error(stream) is None


@given(st.binary(max_size=200))
def test_whatever_comes_it_never_raises(stream):
    assert is_error(stream) in (None, True, False)


@given(
    st.lists(st.sampled_from([case for case, _ in CASES] + [b"junk", b"\r", b"\n"]), max_size=5).map(
        b"".join
    ),
    st.integers(0, 400),
)
def test_a_verdict_stands(stream, at):
    early = is_error(stream[:at])
    assert early is None or is_error(stream) is early


@pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("event", "name", "data"), [
    (b"data: 1", b"", b"1"), (b"data:1", b"", b"1"), (b"event: a\ndata: 1", b"a", b"1"),
    (b"data: 1\nevent: a", b"a", b"1"), (b"data: 1\ndata: 2", b"", b"1\n2"),
    (b"id: data:\ndata: 1\n: data: 2", b"", b"1"), (b": data: 1", b"", b""), (b"event: a", b"a", b""),
    (b"xdata: 1", b"", b""), (b"", b"", b""),
])  # fmt: skip
def test_the_fields_of_an_event(event: bytes, name: bytes, data: bytes, end: bytes):
    event = event.replace(b"\n", end)
    assert read_event(event) == (name, data)
    assert data_of(event).strip() == data


@given(st.lists(st.sampled_from([b"data: 1", b"event: a", b": c", b"data", b"id:2"]), max_size=4))
def test_data_is_the_same_on_the_short_way(lines: list[bytes]):
    event = b"\n".join(lines)
    assert data_of(event).strip() == read_event(event)[1].strip()


@pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])
def test_a_stream_is_split_whatever_its_line_ends(end: bytes):
    stream = b"data: 1\n\nevent: a\ndata: 2\n\nhalf"
    assert split_events(stream.replace(b"\n", end)) == [b"data: 1", b"event: a\ndata: 2", b"half"]
