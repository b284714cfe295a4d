"""Between slices the event loop goes on, and what is made is the same as in one go."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from proxy.control import slices
from proxy.control.slices import json_rows, sliced, stepped
from tests.control.test_steps import work

T = TypeVar("T")


class Turns:
    """The turns of the event loop while a piece of work is awaited."""

    def __init__(self) -> None:
        self.count = 0

    async def of(self, work: Awaitable[T]) -> T:
        loop = asyncio.get_running_loop()
        running = True

        def turn() -> None:
            if running:
                self.count += 1
                loop.call_soon(turn)

        self.count = -1  # the one in which this is
        turn()
        result = await work
        running = False
        return result


@pytest.fixture
def turns(monkeypatch) -> Turns:
    """Each step is a slice."""
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    return Turns()


async def test_the_loop_turns_between_steps_and_between_rows_and_a_fault_comes_out(turns):
    log: list[int] = []
    assert await turns.of(stepped(work(log))) == "result"
    assert (log, turns.count) == ([0, 1, 2], 3)
    assert await turns.of(sliced(iter(range(5)))) == [0, 1, 2, 3, 4]
    assert turns.count == 5
    rows = ({"id": number} for number in range(4))
    assert json.loads(b"".join(await turns.of(json_rows(rows)))) == {"data": [{"id": id} for id in range(4)]}
    assert turns.count == 4
    assert b"".join(await json_rows([])) == b'{"data":[]}'
    with pytest.raises(ValueError, match="no"):
        await stepped(work([], fault=True))


async def test_a_slice_takes_as_much_as_there_is_time_for(monkeypatch, turns):
    monkeypatch.setattr(slices, "SLICE_S", 3600.0)
    assert len(await turns.of(sliced(iter(range(1000))))) == 1000
    assert turns.count == 0
