"""A provider's bytes through the real connections: the client gets HTTP that h11 and llhttp read alike."""

from __future__ import annotations

import httptools

from tests.fuzz.source import pieces
from tests.fuzz.wire import Wire, sent_on
from tests.support.oracles import H11, Llhttp

# Byte 0: 1: HTTP/1.0; 2: a stream, whose usage is asked for where the provider is b; 4: keep-alive said;
# 8, 16: which model; 32: the provider resets in place of closing. Byte 1: how what follows is cut.
MODELS = (b"a/m", b"b/m", b"two", b"two")
_EVENT = b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
_LAST = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_WHOLE = _STREAM + _chunk(_EVENT) + _chunk(_LAST) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
_OURS = b'data: {"error":{"message":"The provider '
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
SEEDS = [
    b"\x00\x00" + _JSON,
    b"\x0a\x05" + _WHOLE,
    b"\x02\x00" + _STREAM + _chunk(_EVENT),
    b"\x0b\x90" + _WHOLE,
    b"\x30\x00HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 1\r\n\r\nx" + _JSON,
    b"\x12\x01" + _STREAM + _chunk(b'data: {"error":{"message":"x"}}\n\n') + _WHOLE,
    b"\x05\x00HTTP/1.0 200 OK\r\n\r\nuntil it closes",
    b"\x00\x00HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    b"\x00\x07HTTP/1.1 100 Continue\r\n\r\n" + _JSON + b"more",
    b"\x00\x00HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: x-a, close\r\nX-A: b\r\n\r\n",
    b"\x12\x02" + _STREAM + _chunk(b": hello\n\n") + b"zz\r\n",
    b"\x20\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    b"3;a=b\r\n\x1f\x8b\x08\r\n0\r\nX-T: 1\r\n\r\n",
    b"\x00\x00HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    b"\x02\x00" + _STREAM + b"10\r\ndata: [DONE]\n\nxx\r\n",
]


def test_one(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, how, answer = data[0], data[1], data[2:]
    with Wire() as wire:
        exchange(wire, flags, how, answer)
        body, is_whole = check(wire)
        if flags & 10 != 10 and len(wire.asked) == 1:  # no usage was taken out, and nobody else was asked
            check_passed(wire, body, is_whole, answer)
        wire.end()


def exchange(wire: Wire, flags: int, how: int, answer: bytes) -> None:
    """One request, and what the provider says to it, until it leaves."""
    body = b'{"model":"%b","stream":%b}' % (MODELS[flags >> 3 & 3], b"true" if flags & 2 else b"false")
    minor = b"0" if flags & 1 else b"1"
    kept = b"Connection: keep-alive\r\n" if flags & 4 else b""
    wire.send(b"POST /v1/chat/completions HTTP/1.%b\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (
        minor, kept, len(body), body,
    ))  # fmt: skip
    for piece in pieces(answer, how):
        connection = wire.busy()
        if connection is None:
            break
        connection.data_received(piece)
        wire.end_turn()
    while (connection := wire.busy()) is not None:
        close(connection, bool(flags & 32))
        wire.end_turn()


def close(connection: object, is_reset: bool) -> None:
    """The provider leaves, as the event loop tells it."""
    if not is_reset and not connection.eof_received() and connection.receiver is None:  # type: ignore[attr-defined]
        return
    error = ConnectionResetError() if is_reset else None
    connection.connection_lost(error)  # type: ignore[attr-defined]


def check_passed(wire: Wire, body: bytes, is_whole: bool, answer: bytes) -> None:
    """The body is the provider's. An event of ours may be behind what it broke off, or ended too early;
    in the middle of an event the client gets no end."""
    if b"\r\nx-should-retry: " in wire.out.written.partition(b"\r\n\r\n")[0]:
        return  # an error of ours
    theirs = H11(answer, answers_to="POST", is_closed=True, most=1)
    head, meant, is_complete, _ = theirs.messages[0]
    # What h11 reads and llhttp doesn't need not pass.
    is_lax = bool(Llhttp(httptools.HttpResponseParser, answer, at_once=True).error)
    is_stream = b"text/event-stream" in dict(head.headers).get(b"content-type", b"")
    # Of a read with broken framing nothing passes: then the event is all there is.
    ours = body if body.startswith(_OURS) else body.removeprefix(meant)
    if len(body) > len(meant):
        assert ours.startswith(b'data: {"error":') and ours.endswith(b"}\n\n"), ours
    elif is_complete and (is_whole or not (is_stream or is_lax)):
        assert body == meant
    else:
        assert meant.startswith(body)


def check(wire: Wire) -> tuple[bytes, bool]:
    """What the client got is well-formed; returns the body, and whether it is whole."""
    out = wire.out
    got = out.written
    is_closed = out.is_over or out.is_half_closed
    assert got, "no answer at all"
    reader = H11(got, answers_to="POST", is_closed=is_closed and not out.is_cut, most=1)
    llhttp = Llhttp(httptools.HttpResponseParser, got, at_once=True)
    assert llhttp.has_head, (llhttp.error, got)
    head = reader.messages[0][0]
    _, body, is_complete, trailers = reader.messages[0]
    assert not trailers and not llhttp.trailers
    assert body == llhttp.body
    names = [name for name, _ in head.headers]
    assert names.count(b"x-inferoute-request-id") == 1
    assert not {b"keep-alive", b"proxy-authenticate", b"te", b"trailer", b"upgrade"}.intersection(names)
    # Nothing stands behind the end, and what is not whole can't be taken for it.
    if is_complete:
        assert not reader.left, reader.left
        assert not out.is_cut or b"content-length" in names or b"transfer-encoding" in names
        if b"connection" in names and dict(head.headers)[b"connection"] == b"close":
            assert is_closed
        elif not is_closed:
            assert (
                b"content-length" in names or b"transfer-encoding" in names or head.status_code in (204, 304)
            )
    else:
        assert out.is_over, "a client waits for the rest for ever"
        has_framing = b"content-length" in names or b"transfer-encoding" in names
        assert out.is_cut or has_framing, "the client takes it for the whole"
    if reader.error or llhttp.error:  # that the end is missing, or in a line that was broken when it ended
        assert not is_complete and is_closed, (reader.error, llhttp.error)
    for connection in wire.asked:
        asked = H11(sent_on(connection))
        assert not asked.error
        assert all(message[2] for message in asked.messages)
    return bytes(body), is_complete
