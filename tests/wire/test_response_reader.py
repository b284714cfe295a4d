"""Heads of responses in pieces, interim ones, and how bodies are framed: by byte tables."""

from __future__ import annotations

import pytest

from proxy.wire.framing import ChunkedBody, CloseBody, LengthBody
from proxy.wire.header_lines import MAX_HEAD_BYTES, HeadError
from proxy.wire.response_reader import HeadTooLong, ResponseReader

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def read(*pieces: bytes) -> tuple[ResponseReader, bytes | None]:
    reader, rest = ResponseReader(), None
    reader.begin()
    for piece in pieces:
        rest = piece if reader.body is not None else reader.read_head(piece)
    return reader, rest


@pytest.mark.parametrize(("head", "status", "framing"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, LengthBody),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, ChunkedBody),
    (b"HTTP/1.1 200 OK\r\n\r\n", 200, CloseBody),
    (b"HTTP/1.1 204 No\r\n\r\n", 204, LengthBody),
    (b"HTTP/1.1 304 No\r\nTransfer-Encoding: chunked\r\n\r\n", 304, LengthBody),
    (CONTINUE + b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n", 500, LengthBody),
    (CONTINUE * 8 + b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n", 200, LengthBody),
])  # fmt: skip
def test_a_head_at_any_split(head, status, framing):
    for at in range(len(head) + 1):
        reader, rest = read(head[:at], head[at:] + b"ok") if at < len(head) else read(head, b"ok")
        assert reader.head is not None
        assert (reader.head.status, type(reader.body), rest) == (status, framing, b"ok")
    reader, rest = read(*(bytes([byte]) for byte in head))
    assert (type(reader.body), rest) == (framing, b"")


def test_a_body_to_the_close_ends_the_connection():
    reader, _ = read(b"HTTP/1.1 200 OK\r\n\r\n")
    assert reader.head is not None
    assert not reader.head.keep_alive


def test_the_next_response_begins_anew():
    reader, _ = read(CONTINUE * 8 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    reader.begin()
    assert (reader.head, reader.body) == (None, None)
    assert reader.read_head(CONTINUE * 8) is None  # they are counted for each response


@pytest.mark.parametrize("data", [
    b"HTTP/1.1 101 Switching\r\n\r\n", CONTINUE * 9,
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", b"nonsense\r\n\r\n",
])  # fmt: skip
def test_what_is_refused(data):
    with pytest.raises(HeadError):
        read(data)


@pytest.mark.parametrize(("status", "is_success"), [(b"200", True), (b"299", True), (b"404", False)])
def test_a_head_has_its_limit_however_it_comes(status, is_success):
    data = b"HTTP/1.1 %b X\r\nA: " % status + b"x" * MAX_HEAD_BYTES
    for pieces in ([data], [data[:100], data[100:]], [data[:-1], data[-1:]]):
        with pytest.raises(HeadTooLong) as raised:
            read(*pieces)
        assert raised.value.is_success is is_success
