"""The latest finished requests, for people: what a request was and what became of it, without its content."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

import orjson

# How many are kept: a few minutes of a busy gateway, below a megabyte.
KEPT: Final = 1000


class Latest:
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

    def __len__(self) -> int:
        return min(self._count, KEPT)

    def __iter__(self) -> Iterator[bytes]:
        """The newest first."""
        lines = (line for block, _ in reversed(self._blocks) for line in reversed(block.splitlines()))
        return islice(lines, KEPT)


def row(line: bytes, name_of: Callable[[str], str | None]) -> dict[str, Any]:
    """The row of ``/admin/v1/requests``.

    :param line: as :mod:`proxy.relay.exchange.closing` writes it.
    :param name_of: the name of the key with an id.
    """
    told = orjson.loads(line)
    get = told.get
    costs = [one.get("nusd") for one in (told, *get("hedged", ()))]
    costs = [cost for cost in costs if cost is not None]
    has_usage = "input" in told
    return {
        "id": told["id"],
        "time": round(told["t"], 3),
        "key": None if told["key"] is None else name_of(told["key"]),
        "key_id": told["key"],
        "endpoint": told["endpoint"],
        "stream": told["stream"],
        "model_requested": told["asked"],
        "model": get("model"),
        "provider": get("provider"),
        "status": told["status"],
        "attempts": told["attempts"],
        "failed_attempts": get("failed", ""),
        "ttft_ms": _rounded(get("ttft_ms"), 3),
        "total_ms": _rounded(told["ms"], 3),
        "overhead_us": _rounded(get("overhead_us"), None),
        "input_tokens": get("input"),
        "cached_tokens": get("cached", 0) if has_usage else None,
        "output_tokens": get("output"),
        "usd": sum(costs) / 1e9 if costs else None,
        "usage_source": get("source"),
    }


def _rounded(value: float | None, digits: int | None) -> float | None:
    return None if value is None else round(value, digits)
