"""What is made over turns, and who waits for it. With real lists and clients: test_own_responses.py."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.errors import Fault, GatewayError
from proxy.relay.downstream import sliced_jobs
from proxy.relay.downstream.sliced_jobs import SlicedJobs


class Client:
    def __init__(self) -> None:
        self.told: list[GatewayError | None] = []

    def ask_again(self, error: GatewayError | None) -> None:
        self.told.append(error)


class Work:
    """Of so many steps; ``breaks``: the step that fails."""

    def __init__(self, count: int, breaks: int = -1) -> None:
        self.count, self.breaks = count, breaks
        self.taken = 0
        self.is_there = False

    def steps(self) -> Iterator[None]:
        for step in range(self.count):
            if step == self.breaks:
                raise ValueError("no")
            self.taken += 1
            yield
        self.is_there = True

    def run(self, jobs: SlicedJobs, client: Any) -> bool:
        return jobs.run(self, lambda: self.is_there, self.steps(), client.ask_again)


@pytest.fixture
def a_few_a_turn(monkeypatch):
    """The clock moves on by half a millisecond each time it is looked at."""
    clock = iter(range(1_000_000))
    monkeypatch.setattr(sliced_jobs, "monotonic", lambda: next(clock) / 2000)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_small_is_done_at_once():
    jobs, work, client = SlicedJobs(), Work(3), Client()
    assert work.run(jobs, client)
    assert (work.taken, work.is_there, client.told) == (3, True, [])
    assert repr(jobs) == "<SlicedJobs []>"


async def test_what_is_large_takes_turns_and_is_done_once(a_few_a_turn):
    jobs, work, clients = SlicedJobs(), Work(20), [Client() for _ in range(3)]
    assert not any(work.run(jobs, client) for client in clients)
    assert work.taken < 5
    await turns(4)
    assert not work.is_there
    assert repr(jobs) == "<SlicedJobs [3]>"
    await turns(60)
    assert (work.taken, [client.told for client in clients]) == (20, [[None]] * 3)
    assert repr(jobs) == "<SlicedJobs []>"


async def test_one_after_the_other(a_few_a_turn):
    jobs, first, second, one, two = SlicedJobs(), Work(10), Work(1), Client(), Client()
    assert not first.run(jobs, one)
    assert not second.run(jobs, two)  # however small: who came first is first
    while not one.told:
        assert second.taken == 0
        await turns(1)
    await turns(20)
    assert (second.is_there, two.told) == (True, [None])


async def test_what_was_done_meanwhile_is_not_done_again(a_few_a_turn):
    jobs, work, client = SlicedJobs(), Work(10), Client()
    assert not work.run(jobs, client)
    taken, work.is_there = work.taken, True
    await turns(5)
    assert (work.taken, client.told) == (taken, [None])


async def test_a_fault_is_told_to_who_waits_and_stops_nobody_else(a_few_a_turn, caplog):
    jobs, broken, work, one, two = SlicedJobs(), Work(10, breaks=8), Work(10), Client(), Client()
    assert not broken.run(jobs, one)
    assert not work.run(jobs, two)
    await turns(60)
    [told] = one.told
    assert isinstance(told, Fault)
    assert two.told == [None]
    assert "internal error in a job that requests wait for" in caplog.messages


async def test_a_fault_in_what_is_small_is_the_callers():
    with pytest.raises(ValueError, match="no"):
        Work(3, breaks=1).run(SlicedJobs(), Client())
