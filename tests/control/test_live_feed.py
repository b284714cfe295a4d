"""The samples of each second; the gateway is a real one, time is not waited for."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from proxy.control import live_feed as live_module
from proxy.control.live_feed import KEPT, LiveFeed
from proxy.control.steps import done
from proxy.usage.counters import Counted
from tests.support.fakes import RawClient, until
from tests.support.keys import BODY, CONFIG


@pytest.fixture
async def watched(provider, start, monkeypatch):
    """A gateway without samples of its own, and samples that are taken when the test says so."""
    server = await start(CONFIG.format(url=provider.url, more="") + '[admin]\nlisten = ""\n')
    return server, LiveFeed(server.gateway, server._control.usage_index, server.count)


async def post(server, body: bytes = BODY) -> None:
    client = await RawClient.connect(server)
    await client.post(body)
    await client.response()


async def test_the_first_look_is_only_a_beginning(watched):
    server, live = watched
    await post(server)
    await live.take()
    assert not live.samples
    await post(server)
    await live.take()
    [kept] = live.samples
    sample = json.loads(kept.json())
    assert sample["requests_per_s"] > 0
    assert (sample["workers"], sample["connections"]) == (1, 2)
    assert sample["ready"] is True
    assert sample["simulated"] is False
    assert sample["ttft_ms"]["p50"] > 0
    assert [row["id"] for row in sample["routes"]] == ["mock/m", "mock/n"]


async def test_what_the_day_costs(watched):
    """What was before the start is looked up, and what is new is counted at once."""
    server, live = watched
    await post(server)
    await live.take()
    await live.take()
    first = live.samples[-1].figures["usd_today"]
    assert first == pytest.approx(done(server.gateway.count(True)).totals["all",][4] / 1e9)
    assert first > 0
    await post(server)
    await live.take()
    assert live.samples[-1].figures["usd_today"] == pytest.approx(2 * first)


async def test_older_samples_keep_every_fifth_table(watched):
    _, live = watched
    for _ in range(12):
        await live.take()
    have = [bool(json.loads(sample.json())["routes"]) for sample in live.samples]
    assert (have, live.samples.maxlen) == ([True, *[False] * 4, True, *[False] * 4, True], KEPT)


async def test_who_watches_gets_each_sample_until_the_end(watched):
    _, live = watched
    await live.take()
    seen = []

    async def watch() -> None:
        async for sample in live.watch():
            seen.append(sample)

    watching = [asyncio.create_task(watch()) for _ in range(2)]
    await asyncio.sleep(0)
    await live.take()
    await until(lambda: len(seen) == 2)
    await live.take()
    await until(lambda: len(seen) == 4)
    assert seen[0] is seen[1]
    live.close()
    await asyncio.gather(*watching)
    assert [sample async for sample in live.watch()] == []


async def test_a_fault_is_said_and_the_next_sample_is_taken(watched, monkeypatch, caplog):
    server, _ = watched
    calls = []

    async def count(brief: bool) -> Counted:
        calls.append(brief)
        if len(calls) == 1:
            raise ZeroDivisionError
        return done(server.gateway.count(brief))

    monkeypatch.setattr(live_module, "SAMPLE_S", 0.0)
    live = LiveFeed(server.gateway, server._control.usage_index, count)
    with caplog.at_level(logging.ERROR):
        live.sampling.start()
        await until(lambda: live.samples)
    await live.sampling.stop()
    assert "internal error while sampling for the dashboard" in caplog.messages
    assert all(calls)  # in brief
