"""Framing against llhttp, at every split, with another message behind, and with hostile bytes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from httptools import HttpResponseParser
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import framing
from proxy.wire.framing import ChunkedBody, CloseBody, FramingError, LengthBody
from tests.support.header_sets import NO_CHUNKS
from tests.support.json_texts import bytewise, pieces_of
from tests.support.oracles import Llhttp

NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"  # the message behind
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Followed:
    """What a body said of the bytes it was fed with."""

    taken: int
    sent: bytes  # passed bytes and closing: what a client would have
    payload: bytes
    done: bool


def follow(body: framing.Body, pieces: list[bytes]) -> Followed:
    body.payload = []
    taken, sent = 0, b""
    for piece in pieces:
        if body.done:
            break
        count = body.feed(piece)
        taken += count
        assert body.passed <= count <= len(piece)
        assert count == len(piece) or body.done
        assert body.done or not body.closing
        sent += piece[: body.passed] + body.closing
    return Followed(taken, sent, b"".join(body.payload), body.done)


def assert_plain_chunked_message(sent: bytes, payload: bytes) -> None:
    """What a client was sent is a whole chunked message, without trailers, and nothing behind it."""
    reader = Llhttp(HttpResponseParser, HEAD + sent)
    assert (reader.error, reader.end) == ("", len(HEAD) + len(sent))
    assert (reader.body, reader.trailers) == (payload, [])


# ------------------------------------------------------------------ length and close


@given(st.binary(max_size=50), st.binary(max_size=20), st.lists(st.integers(0, 100), max_size=6))
def test_length_body_takes_its_bytes_and_no_more(payload, behind, cuts):
    wire = payload + behind
    for pieces in ([wire], bytewise(wire), pieces_of(wire, cuts)):
        body = LengthBody(len(payload))
        assert body.done == (not payload)
        assert follow(body, pieces) == Followed(len(payload), payload, payload, True)
        assert body.remaining == 0
        assert not body.at_boundary


def test_length_body_counts_down_and_stays_done():
    body = LengthBody(5)
    for data, taken, remaining in ((b"abc", 3, 2), (b"", 0, 2), (b"defg", 2, 0), (b"more", 0, 0)):
        assert body.feed(data) == body.passed == taken
        assert (body.remaining, body.done, body.closing) == (remaining, not remaining, b"")


def test_a_whole_piece_is_not_copied():
    piece = b"x" * 100
    for body in (LengthBody(200), LengthBody(100), CloseBody()):
        body.payload = []
        body.feed(piece)
        assert body.payload[0] is piece


@given(st.binary(max_size=50), st.lists(st.integers(0, 100), max_size=6))
def test_close_body_takes_everything_until_its_owner_says_so(data, cuts):
    for pieces in ([data], bytewise(data), pieces_of(data, cuts)):
        body = CloseBody()
        assert follow(body, pieces) == Followed(len(data), data, data, False)
        assert body.at_boundary


@pytest.mark.parametrize(("body", "wire"), [
    (LengthBody(3), b"abc"), (CloseBody(), b"abc"), (ChunkedBody(), b"1\r\na\r\n"),
])  # fmt: skip
def test_works_without_collecting_the_payload(body, wire):
    assert body.feed(wire) == body.passed == len(wire)
    assert body.payload is None


# ------------------------------------------------------------------ chunks

WHOLE = [
    (b"0\r\n\r\n", b""), (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", b"hello world"),
    (b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    (b"000000000000005\r\nhello\r\n0\r\n\r\n", b"hello"), (b"5;a\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    (b'5;a=b;c="d \\" \xe9;\t";e\r\nhello\r\n0\r\n\r\n', b"hello"),
    (b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),  # data that looks like an end
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n"), (b"1\r\n\x00\r\n0\r\n\r\n", b"\x00"),
    (b"5\r\nhello\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n", b"hello"), (b"0\r\nX-A: \xff\t b\r\n\r\n", b""),
    (b"100\r\n" + b"x" * 256 + b"\r\n0\r\n\r\n", b"x" * 256),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "payload"), WHOLE)
@pytest.mark.parametrize("behind", [b"", NEXT, b"\r\n", b"0\r\n\r\n", b"\x00"])
def test_chunked_whole_byte_by_byte_and_with_trailing_data(wire, payload, behind):
    data = wire + behind
    halves = [[data[:i], data[i:]] for i in range(len(data))]
    for split in ([data], bytewise(data), [b"", *bytewise(data)], *halves):
        seen = follow(ChunkedBody(), split)
        assert (seen.taken, seen.payload, seen.done) == (len(wire), payload, True)
        assert_plain_chunked_message(seen.sent, payload)
        if b"X-A" not in wire:
            assert seen.sent == wire


def test_what_passes_at_the_end_of_a_message():
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n0\r\n\r\nHTTP") == body.passed == 11
    assert body.closing == b""
    body = ChunkedBody()
    assert body.feed(b"1\r\na\r\n0\r\nX: y\r\n\r\nHTTP") == 17
    assert (body.passed, body.closing, body.done) == (9, b"\r\n", True)
    body = ChunkedBody()
    assert body.feed(b"0\r\n\r") == 4
    assert (body.passed, body.closing, body.done) == (3, b"", False)
    assert body.feed(b"\nHTTP") == 1
    assert (body.passed, body.closing, body.done) == (0, b"\r\n", True)
    assert body.feed(b"HTTP") == body.passed == 0  # done is done


tokens = st.sampled_from(["a", "x-y", "0", "!#$%&'*+-.^_`|~"])
quoted = st.sampled_from(['""', '"b c"', '"\\""', '"\\\\;"', '"\t"', '"\\\t"'])
extensions = st.lists(
    st.one_of(tokens, st.builds("{}={}".format, tokens, st.one_of(tokens, quoted))).map(";".__add__),
    max_size=2,
).map("".join)
sizes = st.sampled_from(["%x", "%X", "%05x", "%015X"])
trailer_lines = st.lists(
    st.sampled_from(
        [b"X-Sum: 1\r\n", b"a:\r\n", b"Server-Timing: a;dur=1\r\n", b"B:\t\xff \r\n", b"Expires: 0\r\n"]
    ),
    max_size=3,
)


@st.composite
def messages(draw):
    """A chunked body on the wire, its payload, and the offsets at which a chunk may be put in."""
    wire, payload, boundaries = b"", b"", {0}
    for piece in draw(st.lists(st.binary(min_size=1, max_size=30), max_size=5)):
        wire += (draw(sizes) % len(piece) + draw(extensions)).encode() + b"\r\n" + piece + b"\r\n"
        payload += piece
        boundaries.add(len(wire))
    wire += draw(st.sampled_from([b"0", b"000"])) + draw(extensions).encode() + b"\r\n"
    return wire + b"".join(draw(trailer_lines)) + b"\r\n", payload, boundaries


@given(messages(), st.binary(max_size=10), st.lists(st.integers(0, 1 << 12), max_size=8))
@settings(max_examples=300)
def test_any_chunking_at_any_split(message, behind, cuts):
    wire, payload, _ = message
    for pieces in ([wire + behind], bytewise(wire + behind), pieces_of(wire + behind, cuts)):
        seen = follow(ChunkedBody(), pieces)
        assert (seen.taken, seen.payload, seen.done) == (len(wire), payload, True)
        assert_plain_chunked_message(seen.sent, payload)
    reader = Llhttp(HttpResponseParser, HEAD + wire)
    assert (reader.end, reader.body) == (len(HEAD) + len(wire), payload)


@given(messages(), st.lists(st.integers(0, 1 << 12), max_size=8))
@settings(max_examples=200)
def test_at_boundary_is_between_chunks_and_nowhere_else(message, cuts):
    wire, _, boundaries = message
    for pieces in (bytewise(wire), pieces_of(wire, cuts)):
        body, at = ChunkedBody(), 0
        for piece in pieces:
            assert body.at_boundary == (at in boundaries)
            at += body.feed(piece)
        assert not body.at_boundary


nasty = st.one_of(
    st.sampled_from([
        b"\r", b"\n", b"\r\n", b"\n\n", b"\r\r\n", b" ", b"\t", b";", b"+", b"-", b"0x", b"_", b",", b"0",
        b"1", b"f", b"g", b"\x00", b"\x7f", b"\xff", b'"', b"\\", b"=", b":", b"0\r\n", b"0\r\n\r\n",
        b"X: y\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: gzip\r\n", b"\r\n ",
    ]),
    st.binary(min_size=1, max_size=2),
)  # fmt: skip


@st.composite
def mutations(draw, source):
    """Bytes from ``source`` with up to three small harms done to them."""
    data = draw(source)
    for _ in range(draw(st.integers(1, 3))):
        at, harm = draw(st.integers(0, len(data))), draw(nasty)
        data = data[:at] + draw(st.sampled_from([harm, b""])) + data[at + draw(st.integers(0, 3)) :]
    return data


@given(mutations(messages().map(lambda message: message[0])), st.lists(st.integers(0, 1 << 12), max_size=8))
@settings(max_examples=1000)
def test_never_laxer_than_llhttp(wire, cuts):
    reader = Llhttp(HttpResponseParser, HEAD + wire)
    verdicts = []
    for pieces in ([wire], bytewise(wire), pieces_of(wire, cuts)):
        body = ChunkedBody()
        try:
            seen = follow(body, pieces)
            if reader.error and not seen.done:
                body.feed(b"\r\n")  # we look at lines when they are complete: complete the one it stumbled on
                pytest.fail("llhttp refuses this")
        except FramingError:
            verdicts.append(None)
            continue
        verdicts.append(seen)
        assert not reader.error
        assert seen.done == (reader.end is not None)
        assert seen.payload == reader.body
        if seen.done:
            assert seen.taken == reader.end - len(HEAD)
            assert_plain_chunked_message(seen.sent, seen.payload)
    first = verdicts[0]
    for verdict in verdicts[1:]:  # the same answer at any split
        if first is None or verdict is None or first.done:
            assert (first and (first.taken, first.payload)) == (verdict and (verdict.taken, verdict.payload))


@pytest.mark.parametrize("wire", NO_CHUNKS, ids=lambda wire: repr(wire[:30]))
def test_malformed(wire):
    good = b"2\r\nok\r\n"
    for pieces in ([wire], [wire + NEXT], bytewise(wire + b"\r\n"), [good + wire], [good, wire]):
        with pytest.raises(FramingError):
            follow(ChunkedBody(), pieces)


@pytest.mark.parametrize("begin", [b"1", b"1;a", b"0\r\n", b"0\r\nX: "])
def test_a_line_end_is_not_awaited_for_ever(begin):
    for pieces in ([begin + b"1" * (1 << 20)], [begin, *[b"1"] * (framing.MAX_TRAILER_BYTES + 1)]):
        with pytest.raises(FramingError, match="too long"):
            follow(ChunkedBody(), pieces)


def test_limits_are_exact():
    longest = b"5;" + b"a" * (framing.MAX_SIZE_LINE_BYTES - 4) + b"\r\n"
    rest = b"hello\r\n0\r\n\r\n"
    for split in (lambda wire: [wire], bytewise):
        assert follow(ChunkedBody(), split(longest + rest)).payload == b"hello"
        with pytest.raises(FramingError):
            follow(ChunkedBody(), split(longest.replace(b"a", b"aa", 1) + rest))


# ------------------------------------------------------------------ broken framing


@pytest.mark.parametrize(("before", "data", "boundary"), [
    (b"", b"zz\r\n", True), (b"2\r\nok\r\n", b"zz\r\n", True),
    (b"2\r\nok\r\n", b"2\r\nok\r\nzz\r\n", True),  # the good chunk in front is not passed on either
    (b"2\r\nok\r\n", b"2\r\nok!!", True), (b"2\r\nok\r\n", b"0\r\n\n", True),
    (b"2", b"\r\nok\r\nzz\r\n", False), (b"2\r", b"\nok\r\nzz\r\n", False),
    (b"2\r\n", b"ok\r\nzz\r\n", False), (b"2\r\no", b"k\r\nzz\r\n", False),
    (b"2\r\nok", b"\r\nzz\r\n", False), (b"2\r\nok\r", b"\nzz\r\n", False), (b"0\r\n", b"\n", False),
    (b"0\r\nX", b"\r\n", False),
])  # fmt: skip
def test_at_boundary_after_broken_framing_tells_of_the_bytes_passed_on(before, data, boundary):
    body = ChunkedBody()
    assert body.feed(before) == len(before)
    with pytest.raises(FramingError):
        body.feed(data)
    assert body.at_boundary is boundary
    assert not body.done
    with pytest.raises(FramingError):  # and nothing mends it
        body.feed(data if boundary else b"0\r\n\r\n")


def test_sizes_are_remembered_within_a_bound_and_a_flood_changes_nothing():
    for size in range(1, framing._MAX_CACHED_SIZES + 100):
        ChunkedBody().feed(b"%x\r\n" % size)
        assert len(framing._SIZES) <= framing._MAX_CACHED_SIZES
    assert follow(ChunkedBody(), [b"5\r\nhello\r\n0\r\n\r\n"]).payload == b"hello"
    assert follow(ChunkedBody(), [b"5\r\nhello\r\n0\r\n\r\n"]).payload == b"hello"
    for line in (b"+5", b"5 ", b"5;a", b"5;"):
        with pytest.raises(FramingError):
            ChunkedBody().feed(line + b"\r\nhello!!")
        assert line not in framing._SIZES
