"""Follows the framing of a message body and says where the message ends (RFC 9112 sections 6 and 7).

The bytes themselves are passed on as they were received. What runs beside them is one of three small objects
with the same face:

``feed(data) -> int``
    How many leading bytes of ``data`` belong to this message. Fewer than ``len(data)`` only when it is done.
``done``
    The message is complete.
``passed``
    After ``feed``: how many leading bytes of ``data`` may be passed on as they are. Less than what was
    consumed only where trailers are dropped; ``closing`` is then what ends the message in their place.
``payload``
    If set to a list, ``feed`` appends the pieces of the body without their framing.
``slice_bytes``
    The most that should be fed in one turn of the event loop, where others share it.

Strict on purpose: a line end is CRLF, a chunk size is hexadecimal digits and nothing else. What two parsers
could read differently is an error here, for the provider's side as for the client's.
"""

from __future__ import annotations

import re
from typing import Final

# A chunk-size line holds up to 16 digits, and extensions that no program uses; longer ones are an attack on
# memory.
MAX_SIZE_LINE_BYTES: Final = 256
MAX_SIZE_DIGITS: Final = 15
# Of chunks of one byte this takes 2 ms.
CHUNKED_SLICE_BYTES: Final = 64 << 10
# Of what is only counted.
_ANY: Final = 1 << 30
# Trailers are read only to be dropped.
MAX_TRAILER_BYTES: Final = 16 << 10

_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
# RFC 9112 7.1.1, without the white space it calls bad: the line is passed on as it is, and strict parsers
# (llhttp, the one in Node and aiohttp) refuse that white space.
_EXTENSIONS: Final = re.compile(
    rb"(?:;[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
    rb"(?:=(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)+"
)
# A trailer is dropped, but a line that is not one may be the head of a smuggled message.
_TRAILER_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t -~\x80-\xff]*\r\n")
_FORBIDDEN_TRAILERS: Final = frozenset((b"content-length", b"transfer-encoding"))  # RFC 9110 6.5.1
# Providers send the same few chunk sizes over and over; a look-up is four times as fast as a strict parse.
_SIZES: Final[dict[bytes, int]] = {}
_MAX_CACHED_SIZES: Final = 4096


class FramingError(ValueError):
    """The body's framing is broken; where the message ends can't be known any more."""


class LengthBody:
    """A body of ``Content-Length`` bytes."""

    __slots__ = ("closing", "done", "passed", "payload", "remaining", "slice_bytes")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.passed = 0
        self.closing = b""
        self.payload: list[bytes] | None = None
        self.slice_bytes = _ANY

    def feed(self, data: bytes) -> int:
        """Consume the bytes that belong to this body."""
        taken = len(data)
        if taken >= self.remaining:
            taken = self.remaining
            self.done = True
        self.remaining -= taken
        self.passed = taken
        if self.payload is not None and taken:
            self.payload.append(data if taken == len(data) else data[:taken])
        return taken

    @property
    def at_boundary(self) -> bool:
        """Return whether something may be put between what came and what follows: never inside a counted
        body."""
        return False


class CloseBody:
    """A body that ends where the provider closes (HTTP/1.0, or neither length nor chunks)."""

    __slots__ = ("closing", "done", "passed", "payload", "slice_bytes")

    def __init__(self) -> None:
        self.done = False
        self.passed = 0
        self.closing = b""
        self.payload: list[bytes] | None = None
        self.slice_bytes = _ANY

    def feed(self, data: bytes) -> int:
        """Take all bytes: everything belongs to this body."""
        self.passed = len(data)
        if self.payload is not None and data:
            self.payload.append(data)
        return len(data)

    @property
    def at_boundary(self) -> bool:
        """There are no chunks to cut through."""
        return True


_SIZE: Final = 0
_DATA: Final = 1
_DATA_END: Final = 2
_TRAILER: Final = 3
_BROKEN: Final = 4


class ChunkedBody:
    """A chunked body. Raises :exc:`FramingError` where it is not exactly as RFC 9112 section 7.1 says."""

    __slots__ = (
        "_left",
        "_line",
        "_state",
        "_trailer_bytes",
        "closing",
        "done",
        "last_at",
        "passed",
        "payload",
        "slice_bytes",
    )

    def __init__(self) -> None:
        self._state = _SIZE
        self._left = 0
        self._line = b""  # a size line, chunk end or trailer line that a read cut in two
        self._trailer_bytes = 0
        # Once it is done: where the last chunk, the one of no bytes, began in what was fed; -1: before that.
        self.last_at = -1
        self.done = False
        self.passed = 0
        self.closing = b""
        self.payload: list[bytes] | None = None
        self.slice_bytes = CHUNKED_SLICE_BYTES

    def feed(self, data: bytes) -> int:  # noqa: PLR0912 (calls would cost more than they explain)
        """Consume the bytes that belong to this body.

        :raises FramingError: the framing is broken; nothing of ``data`` may be passed on, though pieces of it
            may be in ``payload``. ``at_boundary`` still says where the bytes that were passed on stand.
        """
        end = len(data)
        pos = 0
        payload = self.payload
        begun, begun_line = self._state, self._line
        try:
            while pos < end:
                state = self._state
                if state == _SIZE and not self._line:
                    eol = data.find(b"\r\n", pos, pos + MAX_SIZE_LINE_BYTES)
                    if eol < 0:
                        pos = self._partial_size(data, pos)
                        continue
                    size = _SIZES.get(data[pos:eol])
                    if size is None:
                        size = _parse_size(data[pos:eol])
                    begin = eol + 2
                    stop = begin + size
                    if size and stop + 2 <= end:  # a whole chunk in one read: the common case
                        if data[stop] != 13 or data[stop + 1] != 10:
                            raise FramingError("a chunk does not end where its size says")
                        if payload is not None:
                            payload.append(data[begin:stop])
                        pos = stop + 2
                        continue
                    if not size:
                        self.last_at = pos
                    self._start_chunk(size)
                    pos = begin
                elif state == _SIZE:
                    pos = self._partial_size(data, pos)
                elif state == _DATA:
                    taken = min(self._left, end - pos)
                    if payload is not None:
                        payload.append(data[pos : pos + taken])
                    pos += taken
                    self._left -= taken
                    if not self._left:
                        self._state = _DATA_END
                elif state == _DATA_END:
                    pos = self._chunk_end(data, pos)
                else:
                    return self._trailers(data, pos)
        except FramingError:
            self._state = begun if begun == _SIZE and not begun_line else _BROKEN
            self._line = b""
            raise
        self.passed = pos
        return pos

    @property
    def at_boundary(self) -> bool:
        """Return whether a chunk of ours may be put between what came and what follows."""
        return self._state == _SIZE and not self._line and not self.done

    def _start_chunk(self, size: int) -> None:
        self._left = size
        self._state = _DATA if size else _TRAILER

    def _partial_size(self, data: bytes, pos: int) -> int:
        """A size line cut by the end of a read: keep its beginning, or complete the one that was kept."""
        eol = data.find(b"\n", pos)
        stop = len(data) if eol < 0 else eol + 1
        self._line += data[pos:stop]
        if len(self._line) > MAX_SIZE_LINE_BYTES:
            raise FramingError("a chunk-size line is too long")
        if eol >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise FramingError("a chunk-size line does not end with CRLF")
            self._start_chunk(_parse_size(line[:-2]))
        return stop

    def _chunk_end(self, data: bytes, pos: int) -> int:
        stop = min(pos + 2 - len(self._line), len(data))
        self._line += data[pos:stop]
        if not b"\r\n".startswith(self._line):
            raise FramingError("a chunk does not end where its size says")
        if len(self._line) == 2:
            self._line = b""
            self._state = _SIZE
        return stop

    def _trailers(self, data: bytes, pos: int) -> int:
        """Behind the last chunk: trailer lines, all dropped, and the empty line that ends the message."""
        self.passed = pos
        if not pos:
            self.last_at = -1
        if self.done:
            return pos
        if self._state == _BROKEN:
            raise FramingError("the framing broke before")
        while pos < len(data):
            eol = data.find(b"\n", pos)
            stop = len(data) if eol < 0 else eol + 1
            self._line += data[pos:stop]
            self._trailer_bytes += stop - pos
            if self._trailer_bytes > MAX_TRAILER_BYTES:
                raise FramingError("the trailers are too long")
            pos = stop
            if eol < 0:
                break
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise FramingError("a trailer line does not end with CRLF")
            if line == b"\r\n":
                self.done = True
                self.closing = b"\r\n"
                break
            match = _TRAILER_LINE.fullmatch(line)
            if not match or match[1].lower() in _FORBIDDEN_TRAILERS:
                raise FramingError("a trailer line is not a header field, or frames a message")
        # The usual end has no trailers and came whole: it passes as it is.
        if self.done and self._trailer_bytes == 2 and pos - self.passed == 2:
            self.passed = pos
            self.closing = b""
        return pos


def _parse_size(line: bytes) -> int:
    """The size in a chunk-size line (without its CRLF).

    :raises FramingError: anything but hexadecimal digits, optionally followed by extensions.
    """
    digits, semicolon, _ = line.partition(b";")
    if semicolon and not _EXTENSIONS.fullmatch(line, len(digits)):
        raise FramingError("a chunk extension is malformed")
    if not digits or len(digits) > MAX_SIZE_DIGITS or not _HEX.issuperset(digits):
        raise FramingError(f"{bytes(line[:32])!r} is not a chunk size")
    size = int(digits, 16)
    if not semicolon:
        if len(_SIZES) >= _MAX_CACHED_SIZES:
            _SIZES.clear()
        _SIZES[line] = size
    return size


def wrap_chunk(data: bytes, last: bool) -> bytes:
    """``data`` as a chunk, and the end of the body behind it if it is the last. Empty data makes no chunk."""
    begin, end = chunk_around(len(data), last)
    return b"%b%b%b" % (begin, data, end)


def chunk_around(size: int, last: bool) -> tuple[bytes, bytes]:
    """Return the bytes that go before and behind ``size`` bytes to make a chunk of them, with the end of the
    body behind the last. Nothing makes no chunk."""
    end = b"0\r\n\r\n" if last else b""
    return (b"%x\r\n" % size, b"\r\n" + end) if size else (b"", end)


def framed(
    head: bytes, body: list[bytes | memoryview], length: int | None, done: bool
) -> list[bytes | memoryview]:
    """A request in pieces: ``head``, the line that frames its body, and as much of the body as there is.

    :param length: of the whole body, in bytes; None: it goes in chunks. :param done: all of it is there.
    """
    if length is not None:
        return [head, b"Content-Length: %d\r\n\r\n" % length, *body]
    begin, end = chunk_around(sum(map(len, body)), done)
    return [head, b"Transfer-Encoding: chunked\r\n\r\n", begin, *body, end]


Body = LengthBody | ChunkedBody | CloseBody
