"""Load on a gateway in this process, in front of a scripted provider."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from random import Random

import pytest

from proxy.cli.bench_load import Load, Plan
from proxy.cli.data_client import session_of
from proxy.cli.parser import CommandError
from proxy.config.parse import parse
from proxy.config.settings import Config
from tests.support.chats import ANSWER, USAGE, answer, config, delta, event, plan_of, saying, stream_of
from tests.support.chats import END as LAST
from tests.support.fakes import Call, until


@asynccontextmanager
async def loading(plan: Plan, key: str = ""):
    async with session_of(plan.target, key, None, plan.concurrency) as session:
        yield Load(plan, session, Random(1), lambda: None), asyncio.get_running_loop().create_future()


async def loaded(plan: Plan, config: Config | None = None, key: str = "") -> dict:
    """The summary of a load that has run."""
    async with loading(plan, key) as (load, stop):
        await load.check()
        await load.run(stop)
        return await load.summary(config)


def held(event: asyncio.Event, before: int = 0):
    """A provider of which an answer waits for ``event``, behind so many that don't."""

    async def script(call: Call) -> None:
        for _ in range(before):
            await call.request()
            await call.answer(ANSWER)
        await call.request()
        await event.wait()
        await call.answer(ANSWER)
        await answer(call)

    return script


async def late_s(load: Load, stop: asyncio.Future, release: asyncio.Event) -> None:
    """Run a load whose first answer comes after 110 ms."""
    running = asyncio.create_task(load.run(stop))
    await until(lambda: load.begun and time.monotonic() - load.begun > 0.11)
    release.set()
    await asyncio.wait_for(running, 5)


@pytest.fixture
async def server(provider, start):
    provider.script = answer
    return await start(config(provider))


async def test_so_many_requests(provider, start):
    provider.script = answer
    text = config(provider).replace("[server]", "[server]\nserver_timing = true")
    found = await loaded(plan_of(await start(text)), parse(text))
    assert provider.connections <= 3
    assert (found["requests"], found["failed"], found["failures"], found["cut_off"]) == (10, 0, [], 0)
    assert found["tokens"] == {"input": 10_000, "cached": 6000, "output": 5000, "reasoning": 0}
    assert (found["providers"], found["failed_over"], found["simulated"]) == ({"mock": 10}, 0, 0)
    assert 0 < found["latency_ms"]["p50"] <= found["latency_ms"]["max"] < 10_000
    assert 0 < found["gateway_ms"]["p50"] < found["latency_ms"]["max"]
    assert (found["ttft_ms"], found["gap_ms"]) == (None, None)
    assert (found["usd"], found["usd_is_most"]) == (0.02, False)
    assert found["requests_per_s"] == pytest.approx(10 / found["elapsed_s"], rel=0.2)
    assert found["client_cpu"] > 0
    told = {"model": "mock/m", "endpoint": "chat", "concurrency": 3, "rate": None}
    assert found.items() >= told.items()


async def test_prices_that_only_the_gateway_knows(provider, server, start):
    """Of cached tokens it tells none."""
    found = await loaded(plan_of(server, requests=1))
    assert (found["usd"], found["usd_is_most"]) == (0.002, True)
    free = await start(config(provider, prices=""))
    assert (await loaded(plan_of(free, requests=1)))["usd"] is None


async def test_streams(provider, start):
    more = [asyncio.Event() for _ in range(2)]

    async def script(call: Call) -> None:
        await call.request()
        await call.send(stream_of(delta(""), end=b""))
        await more[0].wait()
        await call.send(event(delta("a")))
        await more[1].wait()
        await call.send(
            event(delta("b")) + event({"choices": [], "usage": USAGE}) + event(b"[DONE]") + b"0\r\n\r\n"
        )
        await call.gone()

    provider.script = script
    server = await start(config(provider))
    async with loading(plan_of(server, requests=1, is_stream=True)) as (load, stop):
        running = asyncio.create_task(load.run(stop))
        await until(lambda: provider.seen)
        seen = time.monotonic()
        await until(lambda: time.monotonic() - seen > 0.05)
        more[0].set()
        await until(lambda: time.monotonic() - seen > 0.1)
        more[1].set()
        await asyncio.wait_for(running, 5)
        found = await load.summary(None)
    assert found["failed"] == 0
    assert found["ttft_ms"]["max"] >= 50  # the empty first event is no text
    assert found["gap_ms"]["max"] > 0
    assert found["ttft_ms"]["max"] + found["gap_ms"]["max"] <= found["latency_ms"]["max"] + 0.001
    assert found["tokens"]["output"] == 500


BAD = b'{"error":{"code":"bad","message":"why"}}'


@pytest.mark.parametrize(("data", "reason", "message"), [
    (b"HTTP/1.1 400 No\r\nContent-Length: 39\r\n\r\n" + BAD[:39], "400", ""),
    (b"HTTP/1.1 429 No\r\nContent-Length: 40\r\n\r\n" + BAD, "429 bad", "why"),
    (b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\n<html", "500", "<html"),
    (stream_of(delta("a"), {"error": {"message": "over"}}), "error event", "over"),
    (stream_of(delta("a"), b"{broken", b"[DONE]"), None, ""),
    (stream_of(b"{broken"), "error event", "none of the chat API"),
    (stream_of(b"[7]"), "error event", "none of the chat API"),
    (stream_of({"error": None, "choices": []}, b"[DONE]"), None, ""),
    (stream_of(delta("a"), end=b"5\r\nda"), "broke off", ""),
    (stream_of(delta("a"), end=b""), "error event", ""),  # the gateway tells that the provider went away
])  # fmt: skip
async def test_failures(provider, server, data, reason, message):
    provider.script = saying(data, stays=data.endswith(LAST) or not data.startswith(b"HTTP/1.1 200"))
    found = await loaded(plan_of(server, requests=1))
    if reason is None:
        assert found["failures"] == []
        return
    [failure] = found["failures"]
    assert (found["requests"], found["failed"], failure["reason"], failure["count"]) == (1, 1, reason, 1)
    assert message in failure["message"]
    assert found["latency_ms"] is None


async def test_no_end_in_time(provider, server):
    provider.script = saying(stream_of(delta("a"), end=b""))
    [failure] = (await loaded(plan_of(server, requests=1, timeout_s=0.05)))["failures"]
    assert failure == {"reason": "timeout", "count": 1, "message": "no end of the answer within 0.05 s"}


async def test_a_gateway_that_leaves(server):
    plan = plan_of(server)
    await server.close()
    async with loading(plan) as (load, stop):
        with pytest.raises(CommandError, match="no gateway at http"):
            await load.check()
        await asyncio.wait_for(load.run(stop), 10)
        [failure] = (await load.summary(None))["failures"]
    assert (failure["reason"], failure["count"]) == ("connect", 10)


async def test_at_a_rate_latency_counts_from_when_a_request_was_due(provider, server):
    """One connection, which the first request holds for 100 ms: those behind it were due all that time."""
    provider.script = held(release := asyncio.Event())
    async with loading(plan_of(server, requests=5, concurrency=1, rate=100.0)) as (load, stop):
        await late_s(load, stop, release)
    assert load.results.done == 5
    for number, took_s in enumerate(load.results.took.kept):
        assert took_s > 0.1 - number / 100


async def test_a_rate_is_held(server):
    async with loading(plan_of(server, requests=20, rate=200.0)) as (load, stop):
        await load.run(stop)
    assert load.elapsed_s > 19 / 200 - 0.002  # the last one is due then; a timer may be a little early
    assert load.unsent == 0


async def test_so_long(provider, server):
    """What was due in that time and found no connection is told, and not sent afterwards."""
    provider.script = held(release := asyncio.Event())
    plan = plan_of(server, requests=None, duration_s=0.1, concurrency=1, rate=100.0)
    async with loading(plan) as (load, stop):
        await late_s(load, stop, release)
        found = await load.summary(None)
    assert (found["requests"], found["unsent"], found["cut_off"]) == (1, 9, 0)
    assert load.results.took.most_s > 0.1


async def test_ended_early(provider, server):
    provider.script = held(asyncio.Event(), before=1)
    async with loading(plan_of(server, requests=100, concurrency=2)) as (load, stop):
        running = asyncio.create_task(load.run(stop))
        await until(lambda: load.results.done == 2 and load.started == 4)
        stop.set_result(None)
        await asyncio.wait_for(running, 5)
        found = await load.summary(None)
    assert (found["requests"], found["failed"], found["cut_off"]) == (2, 0, 2)


async def test_a_fault_of_ours_is_not_hidden(server, monkeypatch):
    async with loading(plan_of(server)) as (load, stop):
        monkeypatch.setattr(load.results, "add", lambda outcome: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await load.run(stop)


async def test_embeddings_and_the_simulator(provider, start):
    more = '[models."mock/e"]\ncapabilities = ["embeddings"]\n[simulator]\nmode = "always"\n'
    server = await start(config(provider) + more)
    body = b'{"model":"mock/e","input":"x"}'
    found = await loaded(plan_of(server, path="/v1/embeddings", endpoint="embeddings", body=body, requests=2))
    assert (found["requests"], found["failed"], found["simulated"], found["usd"]) == (2, 0, 2, 0.0)
    assert found["tokens"]["input"] > 0


async def test_a_key_is_sent(provider, start):
    provider.script = answer
    server = await start(config(provider).replace('auth = "none"', 'auth = "passthrough"'))
    await loaded(plan_of(server, requests=1), key="sk-1")
    assert b"authorization: bearer sk-1\r\n" in provider.seen[0][0].lower()


@pytest.mark.parametrize(("more", "text"), [
    ({}, "10 requests, 3 at a time,"),
    ({"rate": 0.5}, "10 requests, 0.5 a second,"),
    ({"requests": None, "duration_s": 2.0}, "2 s of requests, 3 at a time,"),
])  # fmt: skip
async def test_amounts(server, more, text):
    assert plan_of(server, **more).amount == text
