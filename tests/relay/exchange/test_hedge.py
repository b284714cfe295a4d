"""Hedging: when a second member is asked, and what becomes of both.

Who wins where one of two fails or is silent, and clients that leave, are in tests/system/test_matrix.py.
"""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from proxy.relay.exchange.timers import look_at
from proxy.routing.retry_budget import RetryBudget
from tests.support.fakes import (
    DONE,
    HELLO,
    Call,
    RawClient,
    ScriptedProvider,
    answers,
    blackhole,
    hangs,
    streams,
    until,
)
from tests.support.two_providers import (
    SENT,
    Reply,
    ask,
    body,
    close_idle,
    config,
    deployment,
    exchange,
    rows,
    sending,
    strikes,
)

OK = answers(b'{"ok":1}')
SOON = 'hedge = "20ms"'
LATE = 'hedge = "1h"'


class Waiting:
    """A script that reads a request, answers when it is told to, and notes that the gateway closed."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self.go = asyncio.Event()
        self.closed = asyncio.Event()
        self.status = b"200 OK"
        provider.script = self

    async def __call__(self, call: Call) -> None:
        await call.request()
        leaving = asyncio.ensure_future(call.gone())
        told = asyncio.ensure_future(self.go.wait())
        await asyncio.wait((leaving, told), return_when=asyncio.FIRST_COMPLETED)
        if told.done():
            await call.answer(b"%d" % call.number, self.status)
        await leaving
        told.cancel()
        self.closed.set()


async def closed(*waiting: Waiting) -> None:
    async with asyncio.timeout(5):
        for one in waiting:
            await one.closed.wait()


@pytest.fixture
def two(provider, other) -> tuple[Waiting, Waiting]:
    return Waiting(provider), Waiting(other)


async def both_asked(server, other, *headers: str, more: bytes = b"") -> asyncio.Future[Reply]:
    """A request that both are asked for by now."""
    asking = asyncio.ensure_future(ask(server, "two", *headers, more=more))
    await until(lambda: other.seen)
    return asking


async def not_hedged(server, name: str = "two", *headers: str) -> asyncio.Future[Reply]:
    """A request whose hedge was due, and not made."""
    asking = asyncio.ensure_future(ask(server, name, *headers))
    await sending(server)
    running = exchange(server)
    await until(lambda: running.hedge_timer is None)
    assert running.hedged_attempt is None
    return asking


async def test_the_second_is_faster(provider, other, start):
    first, other.script = Waiting(provider), OK
    server = await start(config(provider, other, alias=SOON))
    reply = await ask(server)
    assert (reply.status, reply.body, reply.story) == (200, b'{"ok":1}', "a:hedged, b:200")
    # The loop counts in whole milliseconds: a timer may be early by a part of one.
    assert int(reply.fields[b"x-inferoute-attempts"].split(b":")[2].split(b"ms")[0]) >= 19
    await closed(first)
    assert [sent for _, sent in provider.seen + other.seen] == [SENT, SENT]
    assert strikes(server) == [0, 0]
    row = deployment(server).row("chat", False)
    assert (row.in_flight, row.awaiting, row.success.mean()) == (0, 0, None)
    (seen,) = rows(server)
    assert (seen["attempts"], seen["provider"], seen["status"]) == (2, "b", 200)


async def test_the_first_is_fast_and_no_second_is_asked(provider, other, start):
    server = await start(config(provider, other, alias=LATE))
    reply = await ask(server)
    assert reply.story == "a:200"
    client = await RawClient.connect(server)
    provider.script = hangs
    await close_idle(server)
    await client.post(body())
    await sending(server)
    running = exchange(server)
    assert running.hedge_timer is not None
    client.close()
    await until(lambda: len(server.gateway.completions.recent) == 2)
    assert running.hedge_timer is None  # nothing of it is left behind
    assert other.connections == 0


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_both_fail(provider, other, start, two, order):
    members = dict(zip("ab", two, strict=True))
    server = await start(config(provider, other, alias=SOON))
    asking = await both_asked(server, other)
    for name in order:
        assert not asking.done()  # the other is waited for
        members[name].status = b"502 Bad"
        members[name].go.set()
        await closed(members[name])
    reply = await asking
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story == f"{order[0]}:502, {order[1]}:502"
    assert strikes(server) == [1, 1]


@pytest.mark.parametrize("own", ["off", "2h"])
async def test_each_attempt_is_hedged_as_its_own_pool_says(provider, other, start, own):
    """And from its own begin on."""

    async def script(call: Call) -> None:
        _, sent = await call.request()
        await (call.gone() if b'"n"' in sent else call.answer(b"{}", b"500 Oops"))

    provider.script = other.script = script
    more = 'late = { models = ["a/n", "b/n"], strategy = "order", hedge = "' + own + '" }'
    server = await start(config(provider, other, alias='hedge = "1h", fallback = ["late"]', more=more))
    client = await RawClient.connect(server)
    await client.post(body())
    await until(lambda: len(provider.seen) == 2)
    running = exchange(server)
    timer = running.hedge_timer
    assert (timer is not None) == (own == "2h")
    assert timer is None or timer.when() - asyncio.get_running_loop().time() > 7000
    client.close()


async def test_both_fail_and_a_third_answers(provider, other, start):
    async def script(call: Call) -> None:
        while True:
            _, sent = await call.request()
            if b'"n"' in sent:
                await call.answer(b"third")
            else:
                await until(lambda: other.seen)
                await call.answer(b"{}", b"500 Oops")

    provider.script, other.script = script, answers(b"{}", b"500 Oops")
    more = f'three = {{ models = ["a/m", "b/m", "a/n"], strategy = "cost", {SOON} }}'
    server = await start(config(provider, other, more=more))
    reply = await ask(server, "three")
    assert (reply.status, reply.body) == (200, b"third")
    assert reply.story in ("a:500, b:500, a:200", "b:500, a:500, a:200")


async def test_both_are_late(provider, other, start, two):
    server = await start(config(provider, other, alias=SOON))
    asking = await both_asked(server, other)
    running = exchange(server)
    server.gateway.tick(running.hedged_attempt.deadline_at)
    await closed(two[0])
    assert not asking.done()
    server.gateway.tick(running.attempt.deadline_at)
    reply = await asking
    assert (reply.kind[2], reply.story) == ("all_attempts_failed", "a:timeout, b:timeout")
    await closed(two[1])


async def test_both_are_late_at_the_same_look(provider, other, start, two):
    server = await start(config(provider, other, alias=SOON))
    asking = await both_asked(server, other, "X-Inferoute-Fallback: b/n", more=b',"stream":true')
    other.script = streams(HELLO, DONE)
    server.gateway.tick(monotonic() + 61)
    reply = await asking
    assert (reply.status, reply.story) == (200, "a:timeout, b:timeout, b:200")
    await closed(*two)


async def test_a_body_beyond_the_replay_limit_is_not_hedged(other, start):
    """Also where the first is not connected yet: once it is, nothing is kept for the second."""
    other.script = OK
    with blackhole() as url:
        tables = '[timeouts]\nconnect = "200ms"\n[routing]\nreplay_limit = "1KiB"'
        server = await start(config(url, other, alias=SOON, tables=tables))
        more = b',"a":"' + b"x" * 5000 + b'"'
        reply = await ask(server, more=more)
        assert reply.story == "a:connect, b:200"
        assert (await ask(server)).story == "a:hedged, b:200"


async def test_p95_needs_twenty_samples(provider, other, start):
    held = asyncio.Event()

    async def script(call: Call) -> None:
        while True:
            _, sent = await call.request()
            if b"hold" in sent:
                await held.wait()
                held.clear()
            await call.answer(b'{"ok":1}')

    provider.script, other.script = script, OK
    server = await start(config(provider, other, alias='hedge = "p95"'))
    for _ in range(19):
        assert (await ask(server)).story == "a:200"
    asking = asyncio.ensure_future(ask(server, more=b',"hold":1'))
    await until(lambda: len(provider.seen) == 20)
    assert exchange(server).hedge_timer is None
    held.set()
    assert (await asking).story == "a:200"
    assert len(deployment(server).row("chat", False).latest_s) == 20
    assert (await ask(server, more=b',"hold":1')).story == "a:hedged, b:200"
    held.set()


async def test_the_retry_budget_is_for_hedges_too(provider, other, start, two):
    server = await start(config(provider, other, alias=SOON))
    while server.gateway.budget.take(monotonic()):
        pass
    asking = await not_hedged(server)
    assert other.connections == 0
    running = exchange(server)
    again_at = running.hedge_at
    assert look_at(running, again_at) > again_at  # it is asked for anew, as long as nothing is left
    assert other.connections == 0
    server.gateway.budget = RetryBudget(0.2)
    two[1].go.set()
    look_at(running, running.hedge_at)
    assert (await asking).story == "a:hedged, b:200"


@pytest.mark.parametrize("tables", ["failover = false", "max_attempts = 1"])
async def test_where_nothing_may_follow_nothing_is_hedged(provider, other, start, two, tables):
    server = await start(config(provider, other, alias=SOON, tables=f"[routing]\n{tables}"))
    asking = await not_hedged(server)
    two[0].go.set()
    assert (await asking).story == "a:200"
    assert other.connections == 0


async def test_a_hedge_stays_in_its_pool(provider, other, start, two):
    more = f'one = {{ models = ["a/m"], {SOON} }}'
    server = await start(config(provider, other, more=more))
    asking = await not_hedged(server, "one", "X-Inferoute-Fallback: b/m")
    assert exchange(server).attempt.deployment.id == "a/m"
    two[0].status = b"500 Oops"
    two[1].go.set()
    two[0].go.set()
    assert (await asking).story == "a:500, b:200"


async def test_a_failure_before_the_hedge_is_a_failover(provider, other, start):
    provider.script, other.script = answers(b"{}", b"500 Oops"), OK
    server = await start(config(provider, other, alias=LATE))
    assert (await ask(server)).story == "a:500, b:200"
