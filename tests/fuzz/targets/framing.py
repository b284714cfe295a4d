"""Message bodies: any split the same answer, llhttp and h11 find the same payload and the same end."""

from __future__ import annotations

import httptools

from proxy.wire.framing import ChunkedBody, CloseBody, FramingError, LengthBody
from tests.fuzz.source import pieces
from tests.support.oracles import H11, Llhttp

SEEDS = [
    b"\x00\x00hello", b"\x05\x01hello more", b"\x80\x005\r\nhello\r\n0\r\n\r\n",
    b"\x80\x015\r\nhello\r\na;x=y\r\n0123456789\r\n0\r\nX-A: b\r\n\r\nGET / HTTP/1.1\r\n",
    b'\x80\x02001;a="\\"b"\r\nx\r\n00\r\n\r\n', b"\x80\x035\r\nhelloX\r\n", b"\x80\x035\r\nhelloX\n0\r\n\r\n",
    b"\x80\x035\r\nhello\rX0\r\n\r\n", b"\x80\x860\r\nContent-Length: 5\r\n\r\n",
    b"\x80\x83fffffffffffffff\r\nx", b"\xff\x01until it closes",
]  # fmt: skip
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_one(data: bytes) -> None:
    if len(data) < 2:
        return
    kind, how, wire = data[0], data[1], data[2:]
    whole = follow(made(kind), [wire])
    split = follow(made(kind), pieces(wire, how))
    is_broken, end, payload, passed, is_done = whole
    assert split[0] == is_broken
    if is_broken:
        return
    assert split == whole
    if kind < 0x80:
        assert (end, payload, passed) == (min(kind, len(wire)), wire[:kind], wire[:kind])
        assert is_done == (len(wire) >= kind)
    elif kind >= 0xC0:
        assert (end, payload, passed, is_done) == (len(wire), wire, wire, False)
    else:
        check_chunked(wire, end, payload, passed, is_done)


def made(kind: int) -> LengthBody | ChunkedBody | CloseBody:
    return LengthBody(kind) if kind < 0x80 else ChunkedBody() if kind < 0xC0 else CloseBody()


def follow(
    body: LengthBody | ChunkedBody | CloseBody, reads: list[bytes]
) -> tuple[bool, int, bytes, bytes, bool]:
    """Whether it broke, how much belongs to it, its payload, what would be passed on, whether it is done."""
    body.payload = []
    end, passed = 0, b""
    for piece in reads:
        try:
            taken = body.feed(piece)
        except FramingError:
            return True, end, b"", passed, False
        assert 0 <= body.passed <= taken <= len(piece)
        assert taken == len(piece) or body.done
        end += taken
        passed += piece[: body.passed]
        if body.done:
            break
    return False, end, b"".join(body.payload), passed + body.closing, body.done


def check_chunked(wire: bytes, end: int, payload: bytes, passed: bytes, is_done: bool) -> None:
    llhttp = Llhttp(httptools.HttpResponseParser, HEAD + wire)
    if llhttp.error:  # within a line that we look at when it has ended
        assert not is_done
        assert follow(ChunkedBody(), [wire + b"\r\n\r\n"])[0], llhttp.error
    assert llhttp.body == payload
    assert llhttp.end == (len(HEAD) + end if is_done else None)
    reader = H11(HEAD + wire, answers_to="POST", most=1)
    [[_, other, is_complete, _]] = reader.messages
    assert not (reader.error and is_done), reader.error
    assert (other, is_complete) == (payload, is_done)
    if is_done:
        assert wire == wire[:end] + reader.left
        # What the client gets: nothing but that, and no trailers.
        sent = Llhttp(httptools.HttpResponseParser, HEAD + passed)
        assert (sent.error, sent.body, sent.end) == ("", payload, len(HEAD) + len(passed))
        assert not sent.trailers
