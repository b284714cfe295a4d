"""Which connections are used again, kept or closed."""

from __future__ import annotations

import asyncio
from time import monotonic

from proxy.relay.upstream.dial import MAX_AGE_S
from proxy.relay.upstream.pool import IDLE_EXPIRY_S
from tests.support.fakes import until
from tests.support.receiver import PLAIN, answering, ask, dial


async def test_the_newest_idle_connection_is_taken_first(pool):
    first, second, third = [await dial(pool) for _ in range(3)]
    for now, connection in enumerate((first, second, third)):
        pool.put(connection, float(now))
    assert pool.snapshot() == {"open": 3, "idle": 3, "dialling": 0}
    assert [pool.take() for _ in range(4)] == [third, second, first, None]
    assert pool.snapshot() == {"open": 3, "idle": 0, "dialling": 0}


async def test_idle_connections_expire_the_oldest_first(pool):
    old, young = await dial(pool), await dial(pool)
    pool.put(old, 100.0)
    pool.put(young, 110.0)
    pool.expire(100.0 + IDLE_EXPIRY_S)
    assert pool.snapshot()["idle"] == 2
    pool.expire(100.1 + IDLE_EXPIRY_S)
    await until(lambda: pool.snapshot() == {"open": 1, "idle": 1, "dialling": 0})
    assert pool.take() is young


async def test_a_connection_that_is_old_takes_no_further_request(pool):
    young, old = await dial(pool), await dial(pool)
    now = monotonic()
    assert 0.8 * MAX_AGE_S - 60 < young.kept_until - now < 1.2 * MAX_AGE_S
    pool.put(young, young.kept_until)
    pool.put(old, old.kept_until + 0.001)
    await until(lambda: pool.snapshot() == {"open": 1, "idle": 1, "dialling": 0})
    assert pool.take() is young


async def test_a_connection_that_closes_while_idle_is_forgotten(pool, provider):
    close = asyncio.Event()
    provider.script = lambda call: close.wait()
    pool.put(await dial(pool), 0.0)
    close.set()
    await until(lambda: pool.snapshot() == {"open": 0, "idle": 0, "dialling": 0})
    assert pool.take() is None


async def test_a_closing_connection_is_not_taken(pool):
    good, closing = await dial(pool), await dial(pool)
    pool.put(good, 0.0)
    pool.put(closing, 1.0)
    closing.transport.abort()
    assert pool.take() is good


async def test_release_keeps_what_ended_cleanly(pool, provider):
    provider.script = answering(PLAIN)
    connection = await dial(pool)
    for served in range(3):
        assert connection.served == served
        assert (await ask(connection)).data == b"ok"
        connection.release(True, float(served))
        assert pool.take() is connection
    await ask(connection)
    connection.release(False, 9.0)
    await until(lambda: pool.snapshot()["open"] == 0)
