"""Opening connections: what an attempt hears of it, and that nothing is left of those that failed."""

from __future__ import annotations

import asyncio
import gc

import pytest

from proxy.relay.upstream.connection import ProviderConnection
from proxy.relay.upstream.resolve import Addresses
from tests.support.fakes import Call, dead_url, no_descriptors, until
from tests.support.receiver import Attempt, pool_of


async def test_a_dial_to_nobody_says_why():
    pool, attempt = pool_of(dead_url()), Attempt()
    await pool.dial(attempt)
    assert "refused" in attempt.failed.lower()
    assert not any(pool.snapshot().values())


async def test_a_dial_for_which_there_is_no_descriptor(provider, pool):
    attempt, other = Attempt(), Attempt()
    with no_descriptors():
        await pool.dial(attempt)
    assert (attempt.failed, attempt.is_ours) == ("Too many open files", True)
    await pool.dial(other)
    assert other.connection is not None
    other.connection.transport.abort()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b.invalid", "x" * 64 + ".invalid"])
async def test_a_dial_to_a_name_that_is_none(host):
    pool = pool_of("http://127.0.0.1:1/v1")
    pool._addresses = Addresses(host, 1)
    attempt = Attempt()
    await pool.dial(attempt)
    assert attempt.failed
    assert not any(pool.snapshot().values())


async def never_shakes_hands(call: Call) -> None:
    await call.gone()


@pytest.fixture
def silent(provider):
    """Makes pools to a provider that never answers a handshake."""
    provider.script = never_shakes_hands
    return lambda **more: pool_of(provider.url.replace("http:", "https:"), **more)


async def test_a_dial_that_takes_too_long(silent):
    pool, attempt = silent(connect_s=0.1), Attempt()
    await pool.dial(attempt)
    assert attempt.failed == "no connection within 0.1 s"
    await until(lambda: not any(pool.snapshot().values()))


async def test_a_handshake_that_is_not_answered_but_closed(provider):
    async def script(call: Call) -> None:
        await call.reader.read(65536)

    provider.script = script
    attempt = Attempt()
    await pool_of(provider.url.replace("http:", "https:")).dial(attempt)
    assert attempt.failed == "the connection was closed"


@pytest.mark.parametrize("steps", range(6))
async def test_a_handshake_that_is_left_is_not_held_for_long(silent, steps):
    """The loop keeps some until their own time is up, which is a minute unless it is told."""
    pool = silent(connect_s=0.1)
    gc.freeze()  # so that only what is made from here on is looked through
    try:
        task = pool.dial(Attempt())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        del task
        await until(lambda: not any(isinstance(one, ProviderConnection) for one in _objects()))
    finally:
        gc.unfreeze()


def _objects() -> list[object]:
    gc.collect()
    return gc.get_objects()


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancelled_dial_leaves_nothing(pool, steps):
    """Cancelled at every point of its way: what was opened is either told of, or closed."""
    attempt = Attempt()
    task = pool.dial(attempt)
    assert pool.snapshot()["dialling"] == 1
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    if attempt.connection is not None:
        attempt.connection.transport.abort()
    await until(lambda: pool.snapshot() == {"open": 0, "idle": 0, "dialling": 0}, 1)
    assert attempt.failed is None


async def test_close_ends_dials_too(provider, silent):
    pool, attempt = silent(), Attempt()
    task = pool.dial(attempt)
    await until(lambda: provider.connections)
    await pool.close()
    assert task.cancelled()
    await until(lambda: not any(pool.snapshot().values()))
    assert (attempt.connection, attempt.failed) == (None, None)
