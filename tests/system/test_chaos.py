"""Providers that fail at random in every way, clients that leave at random: what holds whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import ssl
from pathlib import Path
from random import Random

import pytest
import trustme

from tests.support.fakes import EVENT_STREAM, Call, RawClient, ScriptedProvider, chunk, until
from tests.support.two_providers import close_idle, config, rows

REQUESTS = 400
AT_ONCE = 20
MORE = """
hedged = { models = ["a/m", "b/m", "b/n"], strategy = "round-robin", hedge = "4ms", peek = true }
all = { models = ["two", "n"], strategy = "latency", peek = true }
"""
TABLES = """
[routing]
retry_budget = 1
replay_limit = "4KiB"
[routing.eject]
base = "20ms"
[timeouts]
connect = "200ms"
"""


class Chaos:
    """A provider's script: each request meets another fate. All answers name who gave them, and to what."""

    def __init__(self, name: str, rng: Random) -> None:
        self.name = name
        self.rng = rng

    async def __call__(self, call: Call) -> None:
        while True:
            fate = self.rng.choice(FATES)
            if fate == "early":
                await call.head()
                await call.answer(b'{"error":{"message":"early"}}', b"503 Busy")
                await call.gone()
                return
            body = json.loads((await call.request())[1])
            if fate in STATUSES:
                await call.answer(
                    self.said(body), STATUSES[fate], b"retry-after-ms: 20\r\n" * (fate == "busy")
                )
            else:
                await getattr(self, fate)(call, body)

    def said(self, body: dict) -> bytes:
        return json.dumps({"by": self.name, "to": body["id"]}).encode()

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.random() * 0.01)

    async def good(self, call: Call, body: dict) -> None:
        await self.pause()
        if not body.get("stream"):
            await call.answer(self.said(body))
            return
        await call.send(EVENT_STREAM)
        for _ in range(self.rng.randrange(1, 5)):
            whole = chunk(b"data: %b\n\n" % self.said(body))
            cut = self.rng.randrange(len(whole))
            await call.send(whole[:cut])
            await self.pause()
            await call.send(whole[cut:])
        await call.send(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    async def closes(self, call: Call, body: dict) -> None:
        raise ConnectionError

    async def resets(self, call: Call, body: dict) -> None:
        call.reset()
        raise ConnectionError

    async def talks_nonsense(self, call: Call, body: dict) -> None:
        await call.send(b"nonsense\r\n\r\n")
        raise ConnectionError

    async def hangs(self, call: Call, body: dict) -> None:
        await call.gone()
        raise ConnectionError

    async def is_disguised(self, call: Call, body: dict) -> None:
        await call.stream(b'data: {"error":{"message":"overloaded"}}\n\n')

    async def breaks_off(self, call: Call, body: dict) -> None:
        event = chunk(b"data: %b\n\n" % self.said(body))
        whole = EVENT_STREAM + event * 2
        await call.send(whole[: self.rng.choice([self.rng.randrange(len(whole)), -len(event)])])
        await self.pause()
        if self.rng.random() < 0.5:
            call.reset()
        raise ConnectionError

    async def goes_stale(self, call: Call, body: dict) -> None:
        await self.good(call, body)
        if self.rng.random() < 0.5:
            await call.head()
        raise ConnectionError

    async def says_too_much(self, call: Call, body: dict) -> None:
        await self.good(call, body)
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


STATUSES = {"fails": b"500 Oops", "busy": b"429 Slow", "blames the client": b"404 None"}
FATES = [
    "early",
    "good",
    *STATUSES,
    *(name for name in vars(Chaos) if name not in ("pause", "said") and name[0] != "_"),
]


async def one(server, number: int, rng: Random) -> str:
    """One request of a client; what became of it."""
    stream = rng.random() < 0.5
    sent = {"id": number, "stream": stream, "model": rng.choice(["two", "a/m", "b/n", "hedged", "all", "m"])}
    if rng.random() < 0.2:
        sent["a"] = "x" * rng.randrange(8000)
    body = json.dumps(sent).encode()
    extra = b"X-Inferoute-Timeout: 0.05\r\n"
    if rng.random() < 0.4:
        extra += b"X-Inferoute-Fallback: %b\r\n" % rng.choice([b"b/m", b"a/n, b/n", b"hedged", b"two, n"])
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n%b" % extra
    if rng.random() < 0.3:
        chunks = (chunk(body[at : at + 900]) for at in range(0, len(body), 900))
        pieces = [head + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]
    else:
        cut = rng.randrange(len(body))
        pieces = [head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:cut], body[cut:]]
    client = await RawClient.connect(server)
    leaves_after = rng.random() * 0.03 if rng.random() < 0.3 else 5.0
    try:
        async with asyncio.timeout(leaves_after):
            for piece in pieces:
                await client.send(piece)
                await asyncio.sleep(rng.random() * 0.003 if rng.random() < 0.3 else 0)
            return judge(number, *await client.response())
    except TimeoutError:
        assert leaves_after < 5, (number, sent)
        return "left"
    except (asyncio.IncompleteReadError, ConnectionError):
        return "cut"  # of a whole answer that looks whole, judge() would have said so
    finally:
        client.close()


def judge(number: int, status: int, fields: dict[bytes, bytes], body: bytes) -> str:
    """A whole answer is one provider's to this request, or an error of the gateway's own."""
    story = fields.get(b"x-inferoute-attempts", b"").decode()
    if b"x-should-retry" in fields:
        error = json.loads(body)["error"]
        assert error["type"] in ("provider_error", "rate_limit_error"), error
        assert error["message"]
        return "told"
    assert re.fullmatch(r"(\w+:[\w-]+:\d+ms, )*[ab]:\d{3}:\d+ms", story), story
    by = fields[b"x-inferoute-provider"].decode()
    assert story.rpartition(", ")[2].startswith(f"{by}:{status}:")
    mine = json.dumps({"by": by, "to": number}).encode()
    if fields[b"content-type"] == b"application/json":
        assert body in (mine, b'{"error":{"message":"early"}}')
        return "whole"
    events = body.split(b"\n\n")
    assert events.pop() == b""
    last = events.pop()
    assert set(events) <= {b"data: " + mine}
    if b"provider_broke_off" in last:
        return "broken off"
    assert last in (b"data: [DONE]", b'data: {"error":{"message":"overloaded"}}')
    return "whole"


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """For a provider, and the keys of its table that have it trusted."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    return tls, f'ca_file = "{folder / "ca.pem"}"'


@pytest.mark.parametrize(("seed", "secured"), [(0, False), (1, False), (2, True)])
async def test_whatever_happens(start, caplog, tmp_path, seed, secured):
    loop, faults = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    rng = Random(seed)
    tls, more = certificate(tmp_path) if secured else (None, "")
    async with ScriptedProvider(tls) as a, ScriptedProvider(tls) as b:
        a.script, b.script = Chaos("a", Random(seed + 100)), Chaos("b", Random(seed + 200))
        text = config(a, b, tables=TABLES, more=MORE)
        server = await start(re.sub(r"(\[providers\.[ab]\])", rf"\1\n{more}", text))
        numbers = iter(range(REQUESTS))
        became: list[str] = []

        async def worker() -> None:
            for number in numbers:
                became.append(await one(server, number, Random(rng.random())))

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        await until(lambda: not server.gateway.connections)
        # What becomes of each is a matter of how busy the machine is: neither clients nor their limits wait.
        assert len(became) == REQUESTS
        # One row for each whose body came far enough to be a request, and nothing left running.
        assert REQUESTS - became.count("left") <= len(rows(server)) <= REQUESTS
        for deployment in server.gateway.catalog.deployments.values():
            assert not deployment.breaker.on_trial
            for row in deployment.rows().values():
                assert (row.in_flight, row.awaiting) == (0, 0), deployment
        idle = [provider.pool.snapshot() for provider in server.gateway.providers.values()]
        assert all(pool["open"] == pool["idle"] and not pool["dialling"] for pool in idle), idle
        await close_idle(server)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
    assert faults == []
    assert [record for record in caplog.records if record.levelno > logging.ERROR or record.exc_info] == []
