"""Answers on their way to clients of both HTTP versions, with every framing, at every split."""

from __future__ import annotations

import json
import re
import zlib
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import ProviderError
from proxy.usage.response_usage import read_events, read_plain
from proxy.usage.tokens import Usage
from proxy.wire import response as module
from proxy.wire.framing import Body, ChunkedBody, CloseBody, FramingError, LengthBody
from proxy.wire.outline import BROKEN, LONGEST_KEY_BYTES
from proxy.wire.response import _GATHERED_BYTES, AS_IT_CAME, REWRAPPED, TAIL_BYTES, UNWRAPPED, Response
from proxy.wire.response_head import ResponseHead, read_response_head
from proxy.wire.stream_errors import last_event
from tests.support.json_texts import bytewise, pieces_of
from tests.support.oracles import Llhttp
from tests.support.usages import CASES

OURS = b"X-Inferoute-Request-Id: r1\r\nX-Inferoute-Provider: openai"
ERROR = ProviderError("The provider 'a' broke\noff.", status=502, code="provider_broke_off")
ERROR_EVENT = last_event(ERROR, "chat", b"req_1", b"", b"")


def client(data: bytes) -> Llhttp:
    """A client with llhttp, strict, of an HTTP/1.1 connection."""
    reader = Llhttp(httptools.HttpResponseParser, data)
    assert not reader.error
    return reader


def events_of(stream: bytes) -> list[bytes]:
    """The data of every complete event, as the WHATWG's algorithm has it; comments are no events."""
    assert not stream.startswith(b"\xef\xbb\xbf")
    events, data = [], []
    for line in re.split(rb"\r\n|\n|\r", stream)[:-1]:
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif not line and data:
            events.append(b"\n".join(data))
            data = []
    return events


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)


def feed(answer: Response, data: bytes) -> bytes:
    """As :meth:`proxy.relay.upstream.connection.ProviderConnection.data_received` does it."""
    body = answer.body
    body.feed(data)
    return answer.pass_on(data if body.passed == len(data) else data[: body.passed])


CHUNKED, LENGTH, CLOSE = b"Transfer-Encoding: chunked", b"Content-Length: %d", b""


def begin(framing: bytes, minor: int, *lines: bytes, size: int = 0, status: bytes = b"200 OK") -> Response:
    framing = framing % size if b"%" in framing else framing
    head = read_response_head(b"\r\n".join((b"HTTP/1.1 " + status, *lines, *([framing] if framing else []))))
    return Response(head, body_of(head), minor)


def fed(answer: Response, data: bytes, size: int) -> Response:
    """An answer that has got a body in parts of a size; in chunks, each part is one."""
    for at in range(0, len(data), size):
        part = data[at : at + size]
        feed(answer, chunked([part]) if isinstance(answer.body, ChunkedBody) else part)
    return answer


def body_of(head: ResponseHead) -> Body:
    if head.status == 204:
        return LengthBody(0)
    if head.chunked:
        return ChunkedBody()
    return CloseBody() if head.length is None else LengthBody(head.length)


def finish(answer: Response) -> bytes:
    """The provider closes, where that is the end."""
    if not isinstance(answer.body, CloseBody):
        return b""
    answer.body.done = True
    return answer.pass_on(b"")


MODES = [
    (CHUNKED, 1, AS_IT_CAME), (LENGTH, 1, AS_IT_CAME), (CLOSE, 1, REWRAPPED), (CHUNKED, 0, UNWRAPPED),
    (LENGTH, 0, AS_IT_CAME), (CLOSE, 0, UNWRAPPED),
]  # fmt: skip


# ------------------------------------------------------------------ heads


@pytest.mark.parametrize(("framing", "minor", "mode"), MODES)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_head_bytes(framing, minor, mode, keep_alive):
    answer = begin(framing, minor, b"A: 1", b"Connection: close", b"a:2", size=5)
    assert answer.mode == mode
    assert answer.is_self_delimiting() is (mode != UNWRAPPED)
    lines_before = list(answer.head.lines)
    sent = answer.head_bytes(OURS, keep_alive, minor)
    head, end, rest = sent.partition(b"\r\n\r\n")
    assert (end, rest) == (b"\r\n\r\n", b"")
    status, *lines = head.split(b"\r\n")
    assert status == b"HTTP/1.1 200 OK"
    framing_line = {AS_IT_CAME: [framing.replace(b"%d", b"5")], REWRAPPED: [CHUNKED], UNWRAPPED: []}[mode]
    connection = [b"Connection: close"] if not keep_alive else [] if minor else [b"Connection: keep-alive"]
    assert lines == [b"A: 1", b"a:2", *framing_line, *OURS.split(b"\r\n"), *connection]
    assert answer.head.lines == lines_before


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("framing", [CHUNKED, LENGTH, CLOSE])
def test_an_answer_without_a_body_has_no_framing(framing, minor):
    answer = begin(framing, minor, size=5, status=b"204 No Content")
    sent = answer.head_bytes(OURS, True, minor)
    assert b"Content-Length" not in sent
    assert b"Transfer-Encoding" not in sent
    assert sent.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert answer.is_self_delimiting()
    assert answer.pass_on(b"") == b""
    assert client(sent).end is not None
    assert b"Content-Length: 0" in begin(LENGTH, minor).head_bytes(OURS, True, minor)


def test_reason_phrases_pass():
    for status, line in ((b"418 I'm a caf\xe9", b"HTTP/1.1 418 I'm a caf"), (b"529", b"HTTP/1.1 529 \r\n")):
        assert begin(LENGTH, 1, status=status).head_bytes(OURS, True, 1).startswith(line)


# ------------------------------------------------------------------ bodies


def deliver(answer: Response, minor: int, wire: list[bytes]) -> bytes:
    """All that a client receives."""
    sent = answer.head_bytes(OURS, answer.is_self_delimiting(), minor)
    for piece in wire:
        if answer.body.done:
            break
        sent += feed(answer, piece)
    return sent + finish(answer)


SIZES = [(TAIL_BYTES, _GATHERED_BYTES, module._HEAD_BYTES), (16, 32, 8), (8, 64, 20), (1, 2, 1)]
cut_places = st.lists(st.integers(0, 1 << 12), max_size=8)


def keep_at_most(patch: pytest.MonkeyPatch, *sizes: int) -> None:
    for name, value in zip(("TAIL_BYTES", "_GATHERED_BYTES", "_HEAD_BYTES"), sizes, strict=False):
        patch.setattr(module, name, value)


def check_kept(answer: Response, payload: bytes, sizes: tuple[int, int, int]) -> None:
    """The end of the payload, and its beginning: in full, in one of the two."""
    tail_bytes, gathered_bytes, head_bytes = sizes
    tail = answer.tail()
    assert payload.endswith(tail)
    assert min(len(payload), tail_bytes) <= len(tail) <= max(gathered_bytes, tail_bytes)
    assert (answer.first or tail)[:head_bytes] == payload[:head_bytes]


payloads = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
trailers = st.sampled_from([b"", b"X-Sum: 1\r\n", b"A:\r\nB: c\r\n"])


@given(
    st.sampled_from(MODES), payloads, trailers, cut_places, st.booleans(),
    st.sampled_from([*SIZES, (30, 31, 9)]),
)  # fmt: skip
@settings(max_examples=800)
def test_every_payload_arrives_whole_at_any_split(case, pieces, trailer, cuts, every_byte, limits):
    framing, minor, mode = case
    payload = b"".join(pieces)
    wire = chunked(pieces) + b"0\r\n" + trailer + b"\r\n" if framing == CHUNKED else payload
    behind = b"" if framing == CLOSE else b"HTTP/1.1 200 OK\r\n"
    split = bytewise(wire + behind) if every_byte else pieces_of(wire + behind, cuts)
    with pytest.MonkeyPatch.context() as patch:
        keep_at_most(patch, *limits)
        answer = begin(framing, minor, size=len(payload))
        assert answer.mode == mode
        sent = deliver(answer, minor, split)
    check_kept(answer, payload, limits)
    assert bool(answer.first) == (len(answer.tail()) < len(payload))
    assert len(answer.first) <= limits[2]
    if mode == UNWRAPPED:
        assert sent.partition(b"\r\n\r\n")[2] == payload
    else:
        reader = client(sent)
        assert (reader.end, reader.body) == (len(sent), payload)


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=5), st.sampled_from(MODES))
@settings(max_examples=60)
def test_what_is_kept_of_a_long_answer_is_bounded_at_every_moment(sizes, case):
    framing, minor, mode = case
    pieces = [bytes([i + 65]) * size for i, size in enumerate(sizes)]
    payload = b"".join(pieces)
    answer = begin(framing, minor, size=len(payload))
    sent = b""
    for piece in [chunked([piece]) for piece in pieces] if framing == CHUNKED else pieces:
        sent += feed(answer, piece)
        assert len(answer.tail()) <= _GATHERED_BYTES
    assert payload.endswith(answer.tail())
    assert len(answer.tail()) >= min(len(payload), TAIL_BYTES)
    if len(payload) > _GATHERED_BYTES:
        assert answer.first == payload[: module._HEAD_BYTES]
    if mode == UNWRAPPED:
        assert sent == payload


def test_small_chunks_cut_back_early_lose_neither_beginning_nor_end():
    """Framing counts towards what gathers: the first cut finds less payload than a tail holds."""
    answer = begin(CHUNKED, 1)
    payload = b""
    for i in range(6000):
        letter = bytes([97 + i % 26])
        payload += letter
        feed(answer, b"1\r\n" + letter + b"\r\n")
        assert (answer.first or answer.tail())[: module._HEAD_BYTES] == payload[: module._HEAD_BYTES]
        assert answer.tail()[-TAIL_BYTES:] == payload[-TAIL_BYTES:]


def test_bytes_are_passed_on_uncopied_where_framing_is_the_same():
    answer = begin(CHUNKED, 1)
    data = chunked([b"x" * 100])
    answer.body.feed(data)
    assert answer.pass_on(data) is data


# ------------------------------------------------------------------ between events

EVENTS = [b'data: {"a":1}\n\n', b": comment\n\n", b"event: x\ndata: b\ndata: c\n\n", b"data: [DONE]\n\n"]
STREAM_TYPE = b"Content-Type: text/event-stream; charset=utf-8"


def line_ends(end: bytes) -> list[bytes]:
    return [event.replace(b"\n", end) for event in EVENTS]


def ragged(event: bytes, number: int) -> bytes:
    """Chunks that end anywhere: now inside an event, now between its last two bytes, now at its end."""
    at = (len(event) - 1, 3, len(event) - 2, len(event))[number % 4]
    return chunked([event[:at], event[at:]])


# How an event is framed, of which number.
SHAPES = [(CHUNKED, lambda event, _: chunked([event])), (CHUNKED, ragged), (CLOSE, lambda event, _: event)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("framing", "shape"), SHAPES)
@pytest.mark.parametrize("minor", [0, 1])
def test_is_between_events_at_every_position_and_what_is_put_there_is_well_formed(end, framing, shape, minor):
    events = line_ends(end)
    wire, places, stream = b"", {0}, b"".join(events)
    for number, event in enumerate(events):
        wire += shape(event, number)
        places.add(len(wire))  # where our own chunk fits in
    for at in range(len(wire) + 1):
        for pieces in ([wire[:at]], bytewise(wire[:at]), [wire[: at // 2], wire[at // 2 : at]]):
            answer = begin(framing, minor, STREAM_TYPE)
            sent = answer.head_bytes(OURS, answer.is_self_delimiting(), minor)
            sent += b"".join(feed(answer, piece) for piece in pieces)
            assert answer.is_between_events() == (at in places), wire[:at]
            if at not in places:
                continue
            *before, last = events_of(assert_whole(answer, sent + answer.wrap_event(ERROR_EVENT, last=True)))
            assert before == events_of(stream)[: len(before)]
            assert json.loads(last) == json.loads(ERROR.envelope())
            # and a comment, behind which the stream goes on
            sent += answer.wrap_event(module.KEEP_ALIVE_EVENT, last=False)
            sent += b"".join(feed(answer, byte) for byte in bytewise(wire[at:]))
            sent += feed(answer, b"0\r\n\r\n") if framing == CHUNKED else finish(answer)
            assert events_of(assert_whole(answer, sent)) == events_of(stream)


def assert_whole(answer: Response, sent: bytes) -> bytes:
    """The client takes it for a complete message; returns its body."""
    if not answer.is_self_delimiting():
        return sent.partition(b"\r\n\r\n")[2]
    reader = client(sent)
    assert reader.end == len(sent)
    return reader.body


@given(
    st.lists(st.sampled_from(EVENTS + line_ends(b"\r\n")), max_size=6),
    st.lists(st.integers(0, 500), max_size=6), st.lists(st.integers(0, 500), max_size=6),
)  # fmt: skip
@settings(max_examples=200)
def test_is_between_events_with_any_chunking_at_any_split(events, chunk_cuts, cuts):
    stream = b"".join(events)
    wire = chunked(pieces_of(stream, chunk_cuts))
    answer = begin(CHUNKED, 1, STREAM_TYPE)
    sent = answer.head_bytes(OURS, True, 1)
    for piece in pieces_of(wire, cuts):
        sent += feed(answer, piece)
        body = client(sent).body
        if answer.is_between_events():
            assert not body or body.endswith((b"\n\n", b"\r\n\r\n"))
            broken = client(sent + answer.wrap_event(ERROR_EVENT, last=True)).body
            assert events_of(broken)[:-1] == events_of(body)
    assert answer.is_between_events() or not stream.endswith((b"\n\n", b"\r\n\r\n"))


def test_only_plain_event_streams_with_room_for_an_event():
    assert begin(CHUNKED, 1, STREAM_TYPE).is_between_events()
    assert not begin(CHUNKED, 1, b"Content-Type: application/json").is_between_events()
    assert not begin(CHUNKED, 1, STREAM_TYPE, b"Content-Encoding: gzip").is_between_events()
    assert not begin(LENGTH, 1, STREAM_TYPE, size=100).is_between_events()
    done = begin(CHUNKED, 1, STREAM_TYPE)
    feed(done, chunked([b"data: 1\n\n"]) + b"0\r\n\r\n")
    assert not done.is_between_events()


def test_between_events_also_right_after_a_cut_back():
    answer = begin(CHUNKED, 1, STREAM_TYPE)
    event = b"data: " + b"x" * 1000 + b"\n\n"
    for _ in range(40):
        for part, is_between in ((event, True), (event[:-1], False), (event[-1:], True)):
            feed(answer, chunked([part]))
            assert answer.is_between_events() is is_between


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("minor", [0, 1])
def test_broken_framing_is_judged_by_what_the_client_has(end, minor):
    """What a broken read would have completed was not passed on, and counts for nothing."""
    event = b"data: 1" + end
    wire = chunked([event, event])
    for at in range(len(wire) + 1):
        answer = begin(CHUNKED, minor, STREAM_TYPE)
        sent = answer.head_bytes(OURS, minor == 1, minor)
        if at:
            sent += feed(answer, wire[:at])
        before = answer.is_between_events()
        assert before == (at in (0, len(wire) // 2, len(wire)))
        with pytest.raises(FramingError):
            answer.body.feed(wire[at:] + b"garbage\r\n")
        assert answer.is_between_events() == before
        if before:
            body = assert_whole(answer, sent + answer.wrap_event(ERROR_EVENT, last=True))
            assert len(events_of(body)) == at // (len(wire) // 2) + 1
    # a broken read whose good part is not the end of an event
    answer = begin(CHUNKED, minor, STREAM_TYPE)
    feed(answer, chunked([event]))
    with pytest.raises(FramingError):
        answer.body.feed(chunked([b"data: half"]) + b"garbage\r\n")
    assert answer.is_between_events()


LAST = [
    (b"data: [DONE]\n\n", True),
    (b"data: [DONE]\r\n\r\n", True),
    (b"data: [DONE]", True),  # the blank line may come with the end of the message
    (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
    (b'event: message_stop\ndata: {"type": "message_stop"}\n\n', True),
    # bug: Anthropic pads its events with spaces of random number
    (b'event: message_stop\ndata: {"type":"message_stop"       }\n\n', True),
    # bug: the space behind the colon is optional (WHATWG), and some servers leave it out
    (b"data:[DONE]\n\n", True),
    (b"data: [DON", False),
    (b'data: {"content":"data: [DONE]"}\n\n', False),
    (b'data: {"type":"message_delta"}\n\n', False),
    (b"data: [DONE]\n\ndata: {}\n\n", False),
    # The last event of a Responses stream repeats the whole answer: it is longer than what is kept.
    *(
        (b'event: response.%b\ndata: {"type":"response.%b","x":"%b"}\n\n' % (kind, kind, text), True)
        for kind in (b"completed", b"incomplete", b"failed")
        for text in (b"", b"y" * (_GATHERED_BYTES - 100), b"y" * 3 * _GATHERED_BYTES)
    ),
    (b'event: response.failed\ndata: {"type":"response.failed","x":"%b' % (b"y" * _GATHERED_BYTES), False),
    (b'data: {"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":9}}\n\n', True),
    (b"event: done\ndata: {}\n\n", True),
]


@pytest.mark.parametrize(("events", "is_last"), LAST)
@pytest.mark.parametrize("framing", [CHUNKED, CLOSE])
def test_the_last_event_is_known_before_the_message_ends(events, is_last, framing):
    stream = b'data: {"a":1}\n\n' + events
    splits = [[stream], pieces_of(stream, [7, 999, 8000, 20_000])]
    if len(stream) < 1000:
        splits.append(bytewise(stream))
    for pieces in splits:
        answer = begin(framing, 1, STREAM_TYPE)
        assert not answer.is_said_to_end()
        for piece in pieces:
            feed(answer, chunked([piece]) if framing == CHUNKED else piece)
        assert answer.is_said_to_end() is is_last


def test_only_a_stream_that_can_be_read_is_said_to_end():
    for line in (b"Content-Type: text/plain", STREAM_TYPE + b"\r\nContent-Encoding: gzip"):
        answer = begin(CHUNKED, 1, *line.split(b"\r\n"))
        feed(answer, chunked([b"data: [DONE]\n\n"]))
        assert not answer.is_said_to_end()


# ------------------------------------------------------------------ the usage that is no longer in the tail

FORGED = b'{"type":"tool_use","input":{"usage":{"input_tokens":1,"output_tokens":1}}}'
TOLD = b'"usage":{"input_tokens":1000,"output_tokens":50}'
SPACED = b'"usage" : {"input_tokens":1000,"output_tokens":50}'
LETTERS = b'"' + b'\\"usage\\":{' * 900 + b'"'
WHOLE = Usage(1000, 0, 0, 50)


def pad(size: int) -> bytes:
    return b'"%b"' % (b"x" * size)


@pytest.mark.parametrize("told", [TOLD, SPACED])
@pytest.mark.parametrize("before", [0, 100, 5_000, 16_350, 40_000, 200_000])
@pytest.mark.parametrize("behind", [0, 100, 8_100, 8_200, 30_000, 200_000])
def test_a_usage_is_found_wherever_it_stands_and_no_other_is_taken(told, before, behind):
    """A tool's input is an object that the model filled: no usage, whether before or behind the true one."""
    members = [
        b'"a":%b' % pad(before), b'"content":[%b,%b]' % (FORGED, LETTERS), told,
        b'"content2":[%b,{"usage":{"input_tokens":7}}]' % FORGED, b'"z":%b' % pad(behind),
    ]  # fmt: skip
    for body, usage in (
        (b"{%b}" % b",".join(members), WHOLE),
        (b"{%b}" % b",".join(members[:2] + members[3:]), None),
    ):
        for size in (len(body), 65_536, 16_000, 4_099):
            answer = fed(begin(LENGTH, 1, size=len(body)), body, size)
            assert len(answer.tail()) <= max(_GATHERED_BYTES, TAIL_BYTES + LONGEST_KEY_BYTES)
            assert read_plain(answer.tail(), "messages", answer.aside) == usage, (size, answer.aside)


@given(
    st.lists(
        st.sampled_from([FORGED, b'"usage"', b'"\\"usage\\":{"', b"1", b'{"usage":[]}', b'[{"meta":{}}]']),
        max_size=6,
    ),
    st.integers(0, 6), st.sampled_from([TOLD, SPACED]), cut_places, st.booleans(),
    st.sampled_from([(64, 65), (64, 128), (100, 200), (90, 1000)]),
)  # fmt: skip
@settings(max_examples=300)
def test_a_usage_is_found_at_any_split(values, at, told, cuts, every_byte, limits):
    """And it is the same however the answer was cut, and however much of it is kept."""
    members = [b'"k%d" : %b' % (i, value) for i, value in enumerate(values)]
    members[at:at] = [told]
    body = b"{" + b" ,".join(members) + b"} "
    with pytest.MonkeyPatch.context() as patch:
        keep_at_most(patch, *limits)
        answer = begin(LENGTH, 1, size=len(body))
        for piece in bytewise(body) if every_byte else pieces_of(body, cuts):
            feed(answer, piece)
    assert read_plain(answer.tail(), "messages", answer.aside) == WHOLE


@pytest.mark.parametrize("instead", [
    b'"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":10}}',  # Cohere's vectors
    b'"usageMetadata":{"promptTokenCount":10}',  # Gemini's
])  # fmt: skip
@pytest.mark.parametrize("behind", [0, 9_000])
def test_what_stands_in_place_of_a_usage_is_found_too(instead, behind):
    body = b'{"embeddings":[[%b0]],%b,"z":%b}' % (b"0.125," * 20_000, instead, pad(behind))
    answer = fed(begin(LENGTH, 1, size=len(body)), body, 10_000)
    assert read_plain(answer.tail(), "embeddings", answer.aside) == Usage(10)


META, GEMINIS, NULL = b'"meta":{"a":1}', b'"usageMetadata":{"promptTokenCount":1}', b'"usage":null'


@pytest.mark.parametrize(("members", "between", "behind"), [
    *(((TOLD, other), 0, 40_000) for other in (META, GEMINIS)),
    *(((other, TOLD), 0, 40_000) for other in (META, GEMINIS)),
    # The last of several that say something counts, as for parsers.
    *((members, 20_000, 20_000) for members in (
        (NULL, TOLD), (TOLD, NULL), (b'"usage":{"input_tokens":1}', TOLD),
    )),
])  # fmt: skip
def test_neither_what_may_stand_in_place_of_a_usage_nor_one_that_says_nothing_hides_it(
    members, between, behind
):
    middle = b'"a":%b,' % pad(between) if between else b""
    body = b'{%b,%b%b,"z":%b}' % (members[0], middle, members[1], pad(behind))
    answer = fed(begin(LENGTH, 1, size=len(body)), body, 5_000)
    assert read_plain(answer.tail(), "messages", answer.aside) == WHOLE


def test_what_is_no_json_is_not_gone_through():
    for begins in (b"\xff" * 20_000, b'{"%b' % (b"u" * 40_000), b"{}" + b" " * 20_000 + b"{" * 20_000):
        answer = begin(LENGTH, 1, size=100_000)
        feed(answer, begins)
        feed(answer, (TOLD + b",") * 500)
        assert answer._mode == BROKEN
        assert answer.aside == b""


def completed(behind: dict[str, str], tools: int = 0, instructions: int = 0) -> bytes:
    """The last event of a stream of Responses: it repeats what the client said of itself, and its tools."""
    fake = {"usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
    response = {
        "id": "resp_1", "instructions": "i" * instructions, "output": [{"text": json.dumps(fake) * 40}],
        "tools": [{"parameters": fake}] * tools,
        "usage": {"input_tokens": 3000, "output_tokens": 70, "total_tokens": 3070}, "user": None,
        "metadata": behind,
    }  # fmt: skip
    event = {"type": "response.completed", "sequence_number": 9, "response": response}
    return b"event: response.completed\ndata: %b\n\n" % json.dumps(event).encode()


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [700, 4_000, 60_000])
@pytest.mark.parametrize("behind", [
    {},
    {f"k{number}": "\1" * 512 for number in range(16)},
    {f"k{number}": "x" * 512 for number in range(16)},
    {"usage" if not number else f"k{number}": "usage" for number in range(16)},
    {f'"usage":{{{number}': '"usage":{"input_tokens":1,"output_tokens":1}' for number in range(16)},
])  # fmt: skip
@pytest.mark.parametrize(("tools", "instructions"), [(0, 0), (200, 0), (3, 20_000)])
def test_what_a_client_has_repeated_hides_no_usage(behind, tools, instructions, size, line_end):
    delta = b'data: {"type":"response.output_text.delta","delta":"hi"}\n\n'
    stream = (delta * 200 + completed(behind, tools, instructions)).replace(b"\n", line_end)
    answer = fed(begin(CHUNKED, 1, STREAM_TYPE), stream, size)
    feed(answer, b"0\r\n\r\n")
    assert read_events(answer.tail(), "responses", answer.first, answer.aside) == Usage(3000, 0, 0, 70)


def test_only_the_last_long_event_counts():
    """One before it has no usage yet, or an older one; a delta that looks like a response is none."""
    early = completed({}, 5).replace(b"response.completed", b"response.in_progress")
    fake = b'data: {"type":"x","delta":"\\"response\\":{\\"usage\\":{\\"input_tokens\\":1}%b"}\n\n'
    fake %= b"y" * 30_000
    stream = early.replace(b"3000", b"1") + fake + completed({"a": "\1" * 2_000})
    answer = fed(begin(CHUNKED, 1, STREAM_TYPE), stream, 3_000)
    assert read_events(answer.tail(), "responses", answer.first, answer.aside) == Usage(3000, 0, 0, 70)


def as_stream(events: list[Any]) -> bytes:
    data = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return b"".join(b"data: %b\n\n" % one.encode() for one in data)


@given(
    st.sampled_from([case for case in CASES.values() if isinstance(case.answer, list) and case.usage]),
    cut_places, st.booleans(), st.integers(0, 200),
)  # fmt: skip
@settings(max_examples=200)
def test_a_stream_has_the_same_figures_at_any_split(case, cuts, every_byte, before):
    """Each vendor's, with ever so many events before its last ones; at messages the first is kept."""
    delta = {"choices": [{"index": 0, "delta": {"content": "x" * 60}}], "type": "content_block_delta"}
    first = int(case.endpoint == "messages")
    payload = as_stream([*case.answer[:first], *[delta] * before, *case.answer[first:]])
    answer = begin(CHUNKED, 1, STREAM_TYPE)
    for piece in bytewise(payload) if every_byte and before < 20 else pieces_of(payload, cuts):
        if piece:
            feed(answer, chunked([piece]))
    feed(answer, b"0\r\n\r\n")
    assert read_events(answer.tail(), case.endpoint, answer.first) == case.usage


# ------------------------------------------------------------------ compressed

GZIP = b"Content-Encoding: gzip"


def packed(pieces: list[bytes], level: int = 6) -> list[bytes]:
    """Each piece gzip'd so that it can be decoded at once."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 31)
    out = [packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) for piece in pieces]
    return [*out, packer.flush()]


@given(st.sampled_from(MODES), payloads, cut_places, st.booleans(), st.sampled_from(SIZES))
@settings(max_examples=300)
def test_a_compressed_payload_passes_as_it_is_and_is_kept_decoded(case, pieces, cuts, every_byte, limits):
    framing, minor, mode = case
    payload, encoded = b"".join(pieces), packed(pieces)
    wire = chunked(encoded) + b"0\r\n\r\n" if framing == CHUNKED else b"".join(encoded)
    split = bytewise(wire) if every_byte else pieces_of(wire, cuts)
    with pytest.MonkeyPatch.context() as patch:
        keep_at_most(patch, *limits)
        answer = begin(framing, minor, GZIP, size=len(b"".join(encoded)))
        assert answer.mode == mode
        sent = deliver(answer, minor, split)
    if mode == UNWRAPPED:
        assert sent.partition(b"\r\n\r\n")[2] == b"".join(encoded)
    else:
        reader = client(sent)
        assert (reader.end, reader.body) == (len(sent), b"".join(encoded))
    assert answer.is_readable
    assert answer.passed_bytes == len(payload)
    check_kept(answer, payload, limits)


@given(st.sampled_from(MODES), payloads, cut_places)
@settings(max_examples=100)
def test_passed_bytes_are_the_payloads(case, pieces, cuts):
    framing, minor, _ = case
    payload = b"".join(pieces) * 40
    wire = chunked(pieces * 40) + b"0\r\n\r\n" if framing == CHUNKED else payload
    answer = begin(framing, minor, size=len(payload))
    assert (answer.passed_bytes, answer.is_readable) == (0, True)
    deliver(answer, minor, pieces_of(wire, cuts))
    assert answer.passed_bytes == len(payload)


def test_what_cannot_be_decoded_is_counted_as_it_came():
    for line in (b"Content-Encoding: br", b"Content-Encoding: gzip, br", GZIP):
        answer = begin(CHUNKED, 1, line)
        assert answer.is_readable is (line == GZIP)
        data = chunked([b"no gzip"])
        assert feed(answer, data) is data
        feed(answer, data)
        assert not answer.is_readable
        assert answer.passed_bytes == 14
    assert answer.tail() == b""  # nothing of it was ever readable


def test_what_was_decoded_until_it_broke_is_counted_so():
    answer = begin(CHUNKED, 1, GZIP)
    feed(answer, chunked([packed([b"x" * 1000])[0]]))
    assert (answer.is_readable, answer.passed_bytes) == (True, 1000)
    feed(answer, chunked([b"\xff" * 10]))
    assert (answer.is_readable, answer.passed_bytes) == (False, 1010)


def test_broken_framing_leaves_nothing_undecoded_in_the_tail():
    answer = begin(CHUNKED, 1, GZIP)
    first, second, _ = packed([b"data: 1\n\n", b"data: 2\n\n"])
    feed(answer, chunked([first]))
    with pytest.raises(FramingError):
        answer.body.feed(chunked([second]) + b"garbage\r\n")
    assert (answer.tail(), answer.passed_bytes) == (b"data: 1\n\n", 9)


def test_a_flood_of_few_bytes_is_not_kept():
    bomb = b"".join(packed([bytes(32 << 20)], 9))
    answer = begin(CHUNKED, 1, GZIP)
    data = chunked([bomb])
    assert feed(answer, data) is data
    assert not answer.is_readable
    assert (answer.tail(), answer.passed_bytes) == (b"", len(bomb))


def test_no_event_of_ours_goes_into_a_compressed_stream():
    answer = begin(CHUNKED, 1, STREAM_TYPE, GZIP)
    for piece in packed([b"data: 1\n\n", b"data: [DONE]\n\n"]):
        assert not answer.is_between_events()
        feed(answer, chunked([piece]))
    assert answer.tail().endswith(b"data: [DONE]\n\n")
    assert not answer.is_between_events()
    assert not answer.is_said_to_end()


def test_wrap_event():
    args: dict[str, Any] = {"last": False}
    assert begin(CHUNKED, 1).wrap_event(module.KEEP_ALIVE_EVENT, **args) == b"e\r\n: keep-alive\n\n\r\n"
    assert begin(CLOSE, 1).wrap_event(b"x", last=True) == b"1\r\nx\r\n0\r\n\r\n"
    assert begin(CHUNKED, 0).wrap_event(b"x", last=True) == b"x"
    assert begin(CLOSE, 0).wrap_event(ERROR_EVENT, last=True) == b"data: " + ERROR.envelope() + b"\n\n"
