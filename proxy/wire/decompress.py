"""Decodes a compressed answer beside its way to the client, so that the usage in it can be read.

The client gets the bytes as they came. What is decoded here is only looked at, so giving up is always an
option: of broken data, of encodings that the standard library doesn't know (br, and zstd in Python 3.11), of
a few bytes that unfold to a flood, and of many that unfold to nothing.
"""

from __future__ import annotations

import zlib
from typing import Final

# What is taken of an encoded answer in one turn of the event loop (proxy.relay.upstream.connection). The
# slowest data there are, blocks of ten bytes that hold a table of codes each and nothing else, take 90 ns a
# byte: 3 ms.
SLICE_BYTES: Final = 32 << 10
# The most that a piece of data may become: of a slice 32 times its size, where JSON text shrinks to a
# quarter, seldom to a tenth. It takes 3 ms. Deflate reaches 1:1032 on zeros.
MAX_PIECE_BYTES: Final = 1 << 20
# The largest honest answers are 2,048 vectors of 3,072 numbers, about 100 MB of JSON. What pieces below the
# limit above may cost in all is half a second.
MAX_DECODED_BYTES: Final = 256 << 20
# An encoder adds a few bytes where it can't shrink anything. What grows by more is made to keep readers busy.
_MAX_GROWN_BYTES: Final = 64 << 10
# Members of gzip in one piece of data: each makes a window of its own, and a copy of what follows it. Servers
# send one; those that write in blocks have 64 KiB of text in each.
_MAX_MEMBERS: Final = 16

_READABLE: Final = frozenset((b"gzip", b"x-gzip", b"deflate", b"identity"))
# zlib's own numbers
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class Decoder:
    """Decodes one answer, piece by piece. About 40 KiB, zlib's window, as long as it lives.

    ``failed``: it has given up, and returns nothing any more.

    :param is_gzip: else deflate, which is in a zlib wrapper (RFC 9110 8.4.1.2), or bare from servers that
        take its name at its word; the first two bytes tell.
    """

    __slots__ = ("_begun", "_grown", "_inflater", "_is_empty", "_is_gzip", "_left", "failed")

    def __init__(self, *, is_gzip: bool) -> None:
        self._is_gzip = is_gzip
        self._inflater = zlib.decompressobj(_GZIP) if is_gzip else None
        self._begun = b""  # of deflate, where its first byte came alone
        self._left = MAX_DECODED_BYTES
        self._grown = 0  # bytes that came, less those that were in them
        self._is_empty = True  # the member that is being read, so far
        self.failed = False

    def feed(self, data: bytes) -> bytes:
        """Decode ``data``, the next piece of the encoded payload. Never raises."""
        if self.failed:
            return b""
        try:
            return self._decode(data)
        except (zlib.error, ValueError):
            self._begun, self._inflater, self.failed = b"", None, True
            return b""

    def _decode(self, data: bytes) -> bytes:
        """:raises zlib.error: the data is broken. :raises ValueError: it is too much, or behind the end."""
        inflater = self._inflater
        if inflater is None:
            data = self._begun + data
            if len(data) < 2:
                self._begun = data
                return b""
            inflater = self._inflater = zlib.decompressobj(_ZLIB if _is_zlib(data) else _RAW)
        limit = min(MAX_PIECE_BYTES, self._left)
        out: list[bytes] = []
        size, members, came = 0, 0, len(data)
        while data:
            if inflater.eof:
                # Zeros pad the end of some files and pipes; what else follows a member of gzip is the next.
                data = data.lstrip(b"\0")
                if not data:
                    break
                members += 1
                if not self._is_gzip or self._is_empty or members >= _MAX_MEMBERS:
                    raise ValueError("data behind the end, or too many members")
                inflater = self._inflater = zlib.decompressobj(_GZIP)
                self._is_empty = True
            piece = inflater.decompress(data, limit - size + 1)  # one more shows that there is more
            size += len(piece)
            if size > limit:
                raise ValueError("too much")
            if piece:
                self._is_empty = False
                out.append(piece)
            data = inflater.unused_data
        self._left -= size
        self._grown += came - size
        if self._grown > _MAX_GROWN_BYTES:
            raise ValueError("it holds less than it is")
        return out[0] if len(out) == 1 else b"".join(out)


def decoder_for(encoding: bytes) -> Decoder | None:
    """A decoder for a ``Content-Encoding`` (lower case); None for others: br, zstd, two in a row."""
    if encoding in (b"gzip", b"x-gzip"):  # the same (RFC 9110 8.4.1.3)
        return Decoder(is_gzip=True)
    return Decoder(is_gzip=False) if encoding == b"deflate" else None


def readable(accepted: bytes) -> bytes:
    """Return the part of an ``Accept-Encoding`` that may go to a provider: a response in another coding could
    not be read."""
    parts = [part.strip(b" \t") for part in accepted.split(b",")]
    kept = [part for part in parts if part.partition(b";")[0].rstrip(b" \t").lower() in _READABLE]
    return b", ".join(kept) or b"identity"


def _is_zlib(begin: bytes) -> bool:
    """RFC 1950 2.2: method 8, a window of at most 32 KiB, and a multiple of 31.

    As bare deflate the same bits would be a stored block with padding that no encoder writes.
    """
    return begin[0] & 0x8F == 8 and (begin[0] << 8 | begin[1]) % 31 == 0
