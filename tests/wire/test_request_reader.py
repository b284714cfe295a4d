"""Requests in pieces: heads, bodies with a length and in chunks, pipelining, and what is dropped."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.relay.exchange.head_cache import HeadCache
from proxy.wire.framing import CHUNKED_SLICE_BYTES, FramingError
from proxy.wire.header_lines import MAX_HEAD_BYTES
from proxy.wire.request_reader import RequestReader

HEAD = b"POST /x HTTP/1.1\r\nHost: g\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def made() -> RequestReader:
    return RequestReader(HeadCache().recall)


def with_length(body: bytes) -> bytes:
    return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def in_chunks(body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def read_all(reader: RequestReader, pieces: list[bytes]) -> list[bytes]:
    """The bodies of the requests that come in these pieces, read as a connection does."""
    bodies: list[bytes] = []
    begun: bytes | None = None
    for piece in pieces:
        data: bytes | None = piece
        while data is not None:
            if begun is None:
                if not reader.read_head(data):
                    break
                body = reader.whole_body()
                if body is not None:
                    bodies.append(body)
                    reader.end()
                    data = b"" if reader.unread else None
                    continue
                begun, data = b"", reader.begin_body()
            begun += reader.read_body(data)
            data = None
            assert reader.body is not None
            if reader.body.done:
                bodies.append(begun)
                begun = None
                reader.end()
                data = b"" if reader.unread else None
            elif reader.unread:  # more than a turn may cost
                data, reader.unread = reader.unread, b""
    return bodies


@given(
    bodies=st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 9)), min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    every_byte=st.booleans(),
)
def test_requests_arrive_whole_at_any_split(bodies, cuts, every_byte):
    wire = b"".join(in_chunks(body, size) if size else with_length(body) for body, size in bodies)
    marks = (
        list(range(len(wire) + 1))
        if every_byte
        else sorted({0, *(min(cut, len(wire)) for cut in cuts), len(wire)})
    )
    pieces = [wire[begin:end] for begin, end in pairwise(marks)]
    reader = made()
    assert read_all(reader, pieces) == [body for body, _ in bodies]
    assert (reader.head, reader.body, reader.unread, reader.seen) == (None, None, b"", 0)


@pytest.mark.parametrize(
    ("data", "length", "rest", "seen"),
    [
        (with_length(b"ab"), 2, b"ab", 0),
        (CHUNKED, None, b"", 0),
        (HEAD + b"\r\n" + b"GET /", None, b"GET /", 0),
        (b"\r\n" + with_length(b"ab"), 2, b"ab", 0),
        (HEAD, None, None, len(HEAD)),
        (b"\r\n", None, None, 0),  # of no head yet: the longer limit still counts
        (b"\r", None, None, 0),  # nor this
        (b"", None, None, 0),
    ],
)
def test_a_head(data, length, rest, seen):
    reader = made()
    assert reader.read_head(data) == (rest is not None)
    assert (reader.length, reader.seen) == (length, seen)
    if rest is not None:
        assert reader.raw_head() + rest == data.removeprefix(b"\r\n")
        assert reader.begin_body() == rest


def test_a_head_that_is_read_again_is_read_whole():
    """What waits for something is read from its beginning, with what came meanwhile."""
    reader = made()
    assert not reader.read_head(HEAD)
    assert reader.read_head(b"Content-Length: 2\r\n\r\na")
    reader.unread += b"b"
    assert reader.read_head(b"")
    assert reader.whole_body() == b"ab"


@pytest.mark.parametrize("begun", [b"", b"GET /models HTTP/1.1\r\n"])
def test_a_head_that_is_too_long(begun):
    reader = made()
    reader.read_head(begun)
    with pytest.raises(BadRequest) as refused:
        reader.read_head(b"x" * (MAX_HEAD_BYTES - len(begun)))
    assert (refused.value.status, refused.value.close) == (431, True)
    assert reader.unread.startswith(begun + b"x")
    one_less = made()
    assert not one_less.read_head(b"x" * (MAX_HEAD_BYTES - 1))


def test_a_head_that_is_no_head():
    reader = made()
    with pytest.raises(BadRequest) as refused:
        reader.read_head(b"nonsense\r\n\r\nmore")
    assert (refused.value.status, refused.value.close, reader.head) == (400, True, None)
    assert reader.unread == b"nonsense\r\n\r\nmore"  # it tells the path, and whether it is TLS


def test_the_same_head_again_is_the_same_object():
    reader = made()
    heads = []
    for body in (b"ab", b"abcdefghijkl", b"a"):
        assert reader.read_head(with_length(body))
        heads.append(reader.head)
        assert reader.whole_body() == body
        reader.end()
    assert heads[0] is heads[1] is heads[2]


@pytest.mark.parametrize("broken", [b"zz\r\n", b"2\r\nabc\r\n", b"2 \r\nab\r\n"])
def test_broken_framing(broken):
    reader = made()
    assert reader.read_head(CHUNKED)
    assert reader.begin_body() == b""
    with pytest.raises(FramingError):
        reader.read_body(broken)


def test_what_is_too_much_for_a_turn_stays_unread():
    reader, body = made(), b"x" * 100_000
    assert reader.read_head(in_chunks(body, 50_000) + b"GET /")
    pieces = [reader.read_body(reader.begin_body())]
    assert len(pieces[0]) < CHUNKED_SLICE_BYTES < len(reader.unread) + CHUNKED_SLICE_BYTES
    data, reader.unread = reader.unread, b""
    pieces.append(reader.read_body(data))
    assert (b"".join(pieces), reader.unread) == (body, b"GET /")


@pytest.mark.parametrize(
    ("extra", "came", "is_all", "can_drain", "rest"),
    [
        (b"", b"GET /", True, True, b"GET /"),
        (b"Content-Length: 3\r\n", b"abcGET /", True, True, b"GET /"),
        (b"Content-Length: 3\r\n", b"ab", False, True, b""),
        (b"Content-Length: 65537\r\n", b"a", False, True, b""),
        (b"Content-Length: 65538\r\n", b"a", False, False, b""),
        (b"Content-Length: 3\r\nExpect: 100-continue\r\n", b"", False, False, b""),
        (b"Content-Length: 3\r\nExpect: 100-continue\r\n", b"abc", True, False, b""),
        (b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", False, False, b""),
    ],
)
def test_what_is_dropped_of_a_body(extra, came, is_all, can_drain, rest):
    reader = made()
    assert reader.read_head(HEAD + extra + b"\r\n" + came)
    assert (reader.drop_body(), reader.can_drain(), reader.unread) == (is_all, can_drain, rest)


def test_the_rest_of_a_dropped_body_is_drained():
    reader = made()
    assert not reader.drain(b"x")  # there is none
    assert reader.read_head(HEAD + b"Content-Length: 5\r\n\r\na")
    assert not reader.drop_body()
    assert not reader.drain(b"bc")
    assert reader.drain(b"deGET /")
    assert (reader.head, reader.body, reader.unread) == (None, None, b"GET /")
