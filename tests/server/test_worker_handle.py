"""A worker as the supervisor sees it, over a real socket pair; the process is a stand-in that sleeps."""

from __future__ import annotations

import asyncio
import signal
import socket

import pytest

from proxy.relay.downstream.own_figures import Told
from proxy.server import worker_handle as handle_module
from proxy.server.messages import Answer, Channel, Count, Drain, Question, Reply
from proxy.server.worker_handle import WorkerHandle
from proxy.usage.counters import Counted


async def told(kind: str, key: str, query: object) -> Told:
    return Told(f"{kind} {key} {query}".encode())


@pytest.fixture
async def pair():
    """The handle, and the worker's end of its channel."""
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec("sleep", "60")
    handle = WorkerHandle(0, process, await Channel.open(ours), told)
    worker = await Channel.open(theirs)
    yield handle, worker
    worker.close()
    handle.signal(signal.SIGKILL)
    await process.wait()
    await handle.close()


async def test_answers_come_in_the_order_of_the_orders_and_death_is_one_too(pair):
    handle, worker = pair
    first, second = asyncio.create_task(handle.call(Drain())), asyncio.create_task(handle.call(Count(True)))
    assert isinstance(await worker.receive(), Drain)
    assert (await worker.receive()).brief
    await worker.send(Reply(1))
    await worker.send(Reply(2))
    assert ((await first).value, (await second).value) == (1, 2)
    asked = asyncio.create_task(handle.call(Drain()))
    await worker.receive()
    worker.close()
    assert (await asked).error == "it has died"
    assert (await handle.call(Drain())).error == "it has died"


async def test_its_questions_are_answered_between_its_replies(pair):
    handle, worker = pair
    first = asyncio.create_task(handle.call(Drain()))
    assert isinstance(await worker.receive(), Drain)
    await worker.send(Question(7, "usage", "key_1", {}))
    assert await worker.receive() == Answer(7, Told(b"usage key_1 {}"))
    await worker.send(Reply(1))
    assert (await first).value == 1


async def test_what_it_counted_is_kept_while_it_is_silent(pair, monkeypatch):
    handle, worker = pair
    counted = Counted({("all",): (1, 0, 0, 0, 0)}, {})
    counting = asyncio.create_task(handle.count(True))
    assert (await worker.receive()).brief
    await worker.send(Reply(counted))
    await counting
    assert handle.counted[True] == counted
    assert handle.counted[False] == Counted({}, {})
    monkeypatch.setattr(handle_module, "_COUNT_S", 0.01)
    await handle.count(True)
    assert handle.counted[True] == counted
    # Its answer to that comes late, and is not taken for the answer to the next order.
    next_one = asyncio.create_task(handle.call(Drain()))
    await worker.receive()
    await worker.receive()
    await worker.send(Reply(Counted({}, {})))
    await worker.send(Reply("drained"))
    assert (await next_one).value == "drained"


async def test_one_that_is_stuck_is_not_asked_for_ever(pair, monkeypatch):
    handle, worker = pair
    monkeypatch.setattr(handle_module, "_COUNT_S", 0.001)
    for _ in range(50):
        await handle.count(True)
    for _ in range(handle_module._MAX_WAITING):
        assert isinstance(await worker.receive(), Count)
        await worker.send(Reply(Counted({}, {})))
    asked = asyncio.create_task(handle.call(Drain()))
    assert isinstance(await worker.receive(), Drain)  # there were no more
    await worker.send(Reply())
    await asked


async def test_a_signal_to_one_that_has_ended(pair):
    handle, _ = pair
    handle.signal(signal.SIGTERM)
    assert await handle.process.wait() == -signal.SIGTERM
    handle.signal(signal.SIGTERM)
