"""Request heads seen before, with what was worked out for them: options, grant, and what providers get of it.

A client's requests mostly have the same head to the letter, but for the length. A head that comes again is
neither read nor prepared again. It counts with its bytes, its lines, and all that is prepared of it for
providers; the oldest go where the sum is too much.
"""

from __future__ import annotations

from typing import Final

from proxy.relay.upstream.known_head import KnownHead, read_known_head
from proxy.wire.header_lines import is_length

MAX_BYTES: Final = 16 << 20
MAX_HEADS: Final = 2048
# A longer head is one of a kind.
_MAX_HEAD_BYTES: Final = 4096
# What Python adds to a head, and to a line or anything else of bytes.
_HEAD_BYTES: Final = 1024
_PIECE_BYTES: Final = 64


class HeadCache:
    """The heads that are remembered. ``size``: bytes of all of them."""

    __slots__ = ("_heads", "size")

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}  # by their bytes without the digits of the length
        self.size = 0

    def __len__(self) -> int:
        return len(self._heads)

    def recall(self, head: bytes) -> tuple[KnownHead, int | None]:
        """:func:`proxy.wire.request_head.read_request_head`, and the Content-Length.

        The result is shared by all requests with the same head, and not to be changed.

        :raises BadRequest: as that.
        """
        at = head.find(b"-Length: ")
        if at < 0:
            at = head.find(b"-length: ")
        begin = 0
        if at < 0:
            request = self._heads.get(head)
            if request is not None:
                return request, None
            key = head
        else:
            begin = at + 9
            stop = head.find(b"\r\n", begin)
            if stop < 0:
                stop = len(head)
            digits = head[begin:stop]
            key = head[:begin] + head[stop:]
            request = self._heads.get(key)
            if request is not None and is_length(digits):
                return request, int(digits)
        request = read_known_head(head)
        # Only where what was cut out is the length: with any other header, or a length that was written in a
        # way not looked for, the key would stand for heads that differ.
        name = head[head.rfind(b"\n", 0, max(at, 0)) + 1 : at + 7].lower()
        is_cut = name == b"content-length" if at >= 0 else request.length is None
        if request.repeats and is_cut and len(key) <= _MAX_HEAD_BYTES:
            if at >= 0:
                request.begin, request.end = key[:begin], key[begin:] + b"\r\n\r\n"
            self._remember(key, request)
        return request, request.length

    def _remember(self, key: bytes, request: KnownHead) -> None:
        before = self._heads.pop(key, None)
        if before is not None:
            self._drop(before)
        request.weight = _HEAD_BYTES + 3 * len(key) + _PIECE_BYTES * len(request.lines)
        self.size += request.weight
        self._heads[key] = request
        self._make_room()

    def count(self, head: KnownHead, prepared: bytes) -> None:
        """Count a head that was prepared for a provider, and is kept with that from now on."""
        if head.weight:
            weight = len(prepared) + _PIECE_BYTES
            head.weight += weight
            self.size += weight
            self._make_room()

    def _make_room(self) -> None:
        heads = self._heads
        while self.size > MAX_BYTES or len(heads) > MAX_HEADS:
            oldest = heads.pop(next(iter(heads)))
            self._drop(oldest)

    def _drop(self, head: KnownHead) -> None:
        """A connection that still has it reads the next one anew."""
        self.size -= head.weight
        head.weight = 0
        head.begin = b""

    def forget(self) -> None:
        """Forget everything: what was worked out no longer holds."""
        for head in self._heads.values():
            self._drop(head)
        self._heads = {}
