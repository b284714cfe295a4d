"""The scripted provider of the measurement, and the answers that are made to be slow to read.

A request says which it wants by ``case:NAME`` in the first 64 KiB of its body.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import zlib
from collections.abc import Callable, Iterator

_NAME = re.compile(rb"case:([a-z0-9-]+)")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")
_USAGE = b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}'
_PLAIN = (
    b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"}}],%b}' % _USAGE
)
_MIB = 1 << 20


def _answer(body: bytes, *lines: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Type: " + kind, *lines))
    return head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _chunked(
    chunks: Iterator[bytes] | list[bytes], kind: bytes = b"text/event-stream", *lines: bytes
) -> bytes:
    head = b"\r\n".join((b"HTTP/1.1 200 OK", b"Content-Type: " + kind, *lines))
    head += b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def _events(count: int, event: bytes) -> bytes:
    return b"data: %b\n\n" % event * count + b"data: [DONE]\n\n"


def _gzip_of(body: bytes) -> bytes:
    return gzip.compress(body, 9)


def _zeros(size: int) -> bytes:
    """So many zeros, compressed in one member."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(_MIB)) for _ in range(size >> 20)) + packer.flush()


def _vectors(size: int) -> bytes:
    """An answer with embeddings: what an honest large one is made of."""
    number = b"-0.012345678,0.023456789,-0.034567891,0.045678912,"
    rows = b'{"object":"embedding","index":0,"embedding":[%b0.1]},' % (number * 700)
    data = rows * (size // len(rows))
    return b'{"object":"list","data":[%b],%b}' % (data[:-1], _USAGE)


def _deltas(count: int) -> bytes:
    """Events with different texts, so that they do not shrink to nothing."""
    made = (
        b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"%x"}}],"usage":null}\n\n'
        % (at * 2654435761)
        for at in range(count)
    )
    return b"".join(made) + b"data: [DONE]\n\n"


_EMPTY = gzip.compress(b"")
_ONE = gzip.compress(b"x")
_BLOCKS = zlib.compressobj(0, zlib.DEFLATED, 31)  # stored


def _empty_blocks(size: int) -> bytes:
    """Deflate blocks that hold nothing, five bytes each."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    begin = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH)
    return begin + b"\0\0\0\xff\xff" * (size // 5)


# What makes them is called when they are first asked for.
ANSWERS: dict[str, Callable[[], bytes]] = {
    "plain": lambda: _answer(_PLAIN),
    # compressed
    "members-empty": lambda: _answer(_EMPTY * (8 * _MIB // 20), b"Content-Encoding: gzip"),
    "members-one": lambda: _answer(_ONE * (8 * _MIB // 21), b"Content-Encoding: gzip"),
    "members-zeros": lambda: _answer((_ONE + bytes(2000)) * 4000, b"Content-Encoding: gzip"),
    "zeros": lambda: _answer(_zeros(200 * _MIB), b"Content-Encoding: gzip"),
    "blocks": lambda: _answer(_empty_blocks(8 * _MIB), b"Content-Encoding: deflate"),
    "vectors-gzip": lambda: _answer(_gzip_of(_vectors(32 * _MIB)), b"Content-Encoding: gzip"),
    "deltas-gzip": lambda: _answer(
        _gzip_of(_deltas(200_000)), b"Content-Encoding: gzip", kind=b"text/event-stream"
    ),
    # usage
    "vectors": lambda: _answer(_vectors(64 * _MIB)),
    "usages": lambda: _answer(b'{"a":[' + b'"usage",' * (4 * _MIB // 8) + b"0]}"),
    "usage-objects": lambda: _answer(b'{"a":[' + b'{"usage":{"a":1}},' * (4 * _MIB // 18) + b"0]}"),
    "nested": lambda: _answer(b'{"a":' + b"[" * (2 * _MIB) + b"]" * (2 * _MIB) + b',"usage":{}}'),
    "nested-usage": lambda: _answer(
        b'{"usage":{"a":' + b"[" * 500 + b"]" * 500 + b'},"a":"' + b"x" * 2 * _MIB + b'"}'
    ),
    "event-large": lambda: _chunked([b'data: {"a":"' + b"x" * (8 * _MIB) + b'"}\n\n', b"data: [DONE]\n\n"]),
    "event-large-usage": lambda: _chunked([b'data: {"a":"' + b'\\"usage\\",' * (_MIB // 11) + b'"}\n\n'] * 8),
    "event-brackets": lambda: _chunked([b'data: {"usage":' + b"[" * (1000 << 10) + b"}\n\n"] * 8),
    "event-broken": lambda: _chunked(
        [b'data: {"a":"\\ud800","usage":null,' + b'"b":1,' * 170_000 + b'"c":1}\n\n'] * 8
    ),
    "event-lines": lambda: _chunked([b'data: {"usage":1}\ndata:\n' + b"data: 1\n" * 120_000 + b"\n"] * 8),
    "events-tiny": lambda: _chunked([b"data: 1\n\n" * (4 * _MIB // 9)]),
    "events-usage": lambda: _chunked([_events(4 * _MIB // 40, b'{"choices":[{}],"usage":null}')]),
    "chunks-tiny": lambda: _chunked([b"x"] * (4 * _MIB // 6)),
    "chunks-tiny-plain": lambda: _chunked([b"x"] * (4 * _MIB // 6), b"application/json"),
    "chunks-tiny-gzip": lambda: _chunked(
        [bytes([byte]) for byte in _gzip_of(_deltas(20_000))], b"application/json", b"Content-Encoding: gzip"
    ),
    "chunks-odd": lambda: _chunked([b"x" * (1 + at % 5000) for at in range(4000)]),
    "empty-lines": lambda: _chunked([b"\n" * (4 * _MIB)]),
    "empty-lines-cr": lambda: _chunked([b"\r" * (4 * _MIB)]),
    # heads
    "head-lines": lambda: _answer(_PLAIN, *[b"X-A%d: %b" % (at, b"v" * 140) for at in range(195)]),
    "head-thousands": lambda: _answer(_PLAIN, *[b"a%x:" % at for at in range(4500)]),
    "head-options": lambda: _answer(_PLAIN, b"Connection: " + b"a," * 15_900),
    "head-options-lines": lambda: _answer(
        _PLAIN,
        b"Connection: " + b",".join(b"x%d" % at for at in range(3000)),
        *[b"x%d: 1" % at for at in range(190)],
    ),
    "head-encodings": lambda: _answer(_PLAIN, *[b"Content-Encoding: " + b"gzip," * 30] * 190),
    "head-retry-after": lambda: (
        b"HTTP/1.1 503 No\r\nRetry-After: " + b"1" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n"
    ),
    "head-retry-date": lambda: (
        b"HTTP/1.1 503 No\r\nRetry-After: "
        + b"(" * 15_000
        + b" Mon, 1 " * 1800
        + b"\r\nContent-Length: 0\r\n\r\n"
    ),
    "head-retry-commas": lambda: (
        b"HTTP/1.1 503 No\r\nRetry-After: " + b", -" * 10_000 + b"\r\nContent-Length: 0\r\n\r\n"
    ),
    "head-interim": lambda: (
        b"".join(b"HTTP/1.1 103 x\r\nLink: %b\r\n\r\n" % (b"a" * 30_000) for _ in range(8)) + _answer(_PLAIN)
    ),
    "head-drip": lambda: b"HTTP/1.1 200 OK\r\nX: " + b"a" * 31_000,
    "head-limits": lambda: _answer(_PLAIN, *[b"x-ratelimit-reset-tokens: " + b"1h" * 70 for _ in range(190)]),
    "trailers": lambda: _chunked([b"x"])[:-2] + b"A: b\r\n" * 2700 + b"\r\n",
    "extensions": lambda: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"1;" + b"a;" * 120 + b"a\r\nx\r\n") * 15_000
        + b"0\r\n\r\n"
    ),
}


class _Provider(asyncio.Protocol):
    def __init__(self) -> None:
        self._begin = bytearray()  # of the request, up to 64 KiB of its body
        self._left = -1  # of it; -1: its head is not whole

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._begin += data
            end = self._begin.find(b"\r\n\r\n")
            if end < 0:
                return
            length = _LENGTH.search(self._begin, 0, end)
            body = len(self._begin) - end - 4
            if length:
                self._left = int(length[1]) - body
            else:  # chunked: the last chunk tells
                self._left = 0 if self._begin.endswith(b"0\r\n\r\n") else 1 << 40
        else:
            if len(self._begin) < 65536:
                self._begin += data
            self._left = 0 if self._left > 1 << 39 and data.endswith(b"0\r\n\r\n") else self._left - len(data)
        if not self._left:
            found = _NAME.search(self._begin)
            name = "plain" if found is None else found[1].decode()
            del found  # of what is now cleared
            self._begin.clear()
            self._left = -1
            self._transport.write(_made(name))


_ready: dict[str, bytes] = {}


def _made(name: str) -> bytes:
    if name not in _ready:
        _ready.clear()
        _ready["plain"] = ANSWERS["plain"]()
        _ready[name] = ANSWERS[name]()
    return _ready[name]


async def serve_provider(say: Callable[[int], None]) -> None:
    """Serve until cancelled; ``say`` is told the port."""
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", 0)
    say(server.sockets[0].getsockname()[1])
    await server.serve_forever()
