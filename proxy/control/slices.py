"""Long work of the control plane in slices, between which the event loop serves its other connections.

With one worker the admin API shares its event loop with the requests of clients. A list of 5,000 rows takes
20 to 60 ms; in slices no turn of the loop takes much longer than :data:`SLICE_S`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable
from time import monotonic
from typing import Any, TypeVar

import orjson

SLICE_S = 0.002

_T = TypeVar("_T")


class Slices:
    """Tells when a slice has lasted long enough. Monotonic seconds."""

    def __init__(self) -> None:
        self._until_s = monotonic() + SLICE_S

    async def step(self) -> None:
        """To be called between two small pieces of work: lets the event loop go on where it is time."""
        if monotonic() >= self._until_s:
            await asyncio.sleep(0)
            self._until_s = monotonic() + SLICE_S


async def stepped(work: Generator[None, None, _T]) -> _T:
    """As :func:`proxy.control.steps.done`, in slices."""
    slices = Slices()
    try:
        while True:
            next(work)
            await slices.step()
    except StopIteration as end:
        result: _T = end.value
        return result


async def sliced(work: Iterable[_T]) -> list[_T]:
    """All that an iterator makes, made in slices. What it goes through must not be changed meanwhile."""
    found = []
    slices = Slices()
    for one in work:
        found.append(one)
        await slices.step()
    return found


async def json_rows(rows: Iterable[Any]) -> list[bytes]:
    """``{"data": […]}`` of rows, each made and written in its turn; in pieces, as it may be megabytes."""
    slices, pieces = Slices(), [b'{"data":[']
    for row in rows:
        pieces.append((b"," if len(pieces) > 1 else b"") + orjson.dumps(row))
        await slices.step()
    return [*pieces, b"]}"]
