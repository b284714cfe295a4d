"""The latest finished requests, for people: what a request was and what became of it, without its content."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

# How many are kept: a few minutes of a busy gateway, below a megabyte.
KEPT: Final = 1000


class RecentRequests:
    """Their lines, in the blocks in which they came."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[bytes, int]] = deque()
        self._count = 0

    def add(self, block: bytes, count: int) -> None:
        """Add ``count`` lines, each with its LF."""
        blocks = self._blocks
        blocks.append((block, count))
        self._count += count
        while self._count - blocks[0][1] >= KEPT:
            self._count -= blocks.popleft()[1]

    def find(self, needle: bytes) -> bytes | None:
        """Return the line that begins so, without its LF; None: there is none."""
        for block, _ in reversed(self._blocks):
            at = block.find(needle)
            if at >= 0:
                return block[at : block.find(b"\n", at)]
        return None

    def __len__(self) -> int:
        return min(self._count, KEPT)

    def __iter__(self) -> Iterator[bytes]:
        """The newest first."""
        lines = (line for block, _ in reversed(self._blocks) for line in reversed(block.splitlines()))
        return islice(lines, KEPT)
