"""Reading on for a client that has left, over real sockets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.relay.exchange import detached_client
from tests.support.fakes import Call, RawClient, chunk, until
from tests.support.keys import bearer, make
from tests.support.scripts import LAST, Plays, begun, says
from tests.support.two_providers import rows

TEXT = """
[timeouts]
idle = "{idle}"
[providers.a]
base_url = "{url}"
auth = "none"
[models."a/m"]
input_price = 1
output_price = 2
[aliases]
patient = {{ models = ["a/m"], on_disconnect = "drain" }}
hasty = {{ models = ["a/m"], on_disconnect = "cancel" }}
"""
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}\n\n'
DONE = b"data: [DONE]\n\n"


class Slow:
    """A provider that goes on with its answer when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.was_left = asyncio.Event()

    async def stream(self, call: Call) -> None:
        await call.request()
        await call.stream(EVENT, end=False)
        waiting = asyncio.ensure_future(self.go_on.wait())
        left = asyncio.ensure_future(call.reader.read())
        await asyncio.wait((waiting, left), return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            self.was_left.set()
            waiting.cancel()
            return
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        await call.send(b"".join(map(chunk, (EVENT, USAGE, DONE))) + LAST)
        await call.gone()

    async def think(self, call: Call) -> None:
        await call.request()
        await self.go_on.wait()
        await call.answer(b'{"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}')
        await call.gone()


@pytest.fixture
def slow():
    return Slow()


def text(provider, idle: str = "60s") -> str:
    return TEXT.format(url=provider.url, idle=idle)


@pytest.fixture(name="server")
async def _server(provider, start):
    return await start(text(provider))


async def leave(
    server, model: bytes = b"patient", *, seen: bytes = EVENT, more: bytes = b"", extra: bytes = b""
):
    """A client that asks for a stream and leaves once it has seen an event."""
    client = await RawClient.connect(server)
    await client.post(b'{"model":"%b","stream":true%b}' % (model, more), extra=extra)
    await client.reader.readuntil(seen)
    client.close()
    await client.writer.wait_closed()


async def leave_waiting(server, provider) -> None:
    """A client that leaves before the first byte."""
    client = await RawClient.connect(server)
    await client.post(b'{"model":"patient"}')
    await until(lambda: provider.seen)
    client.close()
    await is_detached(server)


async def is_detached(server) -> None:
    await until(lambda: server.gateway.detached == 1)


async def finished(server, count: int = 1) -> dict[str, Any]:
    """The row of the latest request, when so many are over."""
    await until(lambda: len(rows(server)) == count)
    return rows(server)[-1]


async def test_the_providers_own_usage_is_read_to_the_end(provider, server, slow):
    provider.script = slow.stream
    await leave(server)
    await is_detached(server)
    assert not rows(server)
    slow.go_on.set()
    row = await finished(server)
    assert server.gateway.detached == 0
    assert not server.gateway.connections
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (100, 50, "provider")
    assert row["usd"] == 0.0002


@pytest.mark.parametrize("model", [b"hasty", b"a/m"])
async def test_else_the_provider_is_left_at_once_and_an_estimate_charged(provider, server, slow, model):
    provider.script = slow.stream
    await leave(server, model)
    await asyncio.wait_for(slow.was_left.wait(), 5)
    row = await finished(server)
    assert (row["usage_source"], row["output_tokens"] >= 1, row["usd"] > 0) == ("estimated", True, True)


@pytest.mark.parametrize("wish", [None, "cancel"])
async def test_a_prompt_of_unknown_size_is_charged_by_the_providers_usage(provider, server, slow, wish):
    """Unless the key says that nobody waits for it: then it is charged as it was reserved."""
    provider.script = slow.stream
    _, secret = await make(server, monthly_usd=1, on_disconnect=wish)
    await leave(server, b"a/m", more=b',"messages":[{"file":{"file_id":"file-1"}}]', extra=bearer(secret))
    if wish is None:
        await is_detached(server)
    slow.go_on.set()
    row = await finished(server)
    used = row["usage_source"], row["input_tokens"]
    assert used == (("provider", 100) if wish is None else ("estimated", 16_384))


@pytest.mark.parametrize("last", [DONE, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'])
async def test_a_stream_that_has_said_its_end_is_finished(provider, server, last):
    """The client that closes then has not left, and the provider that keeps silent is not waited for."""
    provider.script = Plays(begun(EVENT, USAGE, last))
    await leave(server, seen=last)
    row = await finished(server)
    assert (row["status"], row["attempts"], row["output_tokens"]) == (200, 1, 50)
    assert row["usage_source"] == "provider"
    assert server.gateway.detached == 0
    live = server.gateway.catalog.deployments["a/m"].row("chat", True)
    assert (live.success.mean(), live.in_flight) == (1.0, 0)
    await until(lambda: not server.gateway.connections)


async def test_what_breaks_off_then_is_charged_by_an_estimate(provider, server, slow):
    provider.script = says(begun(EVENT), slow.go_on)
    await leave(server)
    await is_detached(server)
    slow.go_on.set()
    row = await finished(server)
    assert (row["usage_source"], row["output_tokens"] > 0, row["usd"] > 0) == ("estimated", True, True)


async def test_before_the_first_byte_too(provider, server, slow):
    provider.script = slow.think
    await leave_waiting(server, provider)
    slow.go_on.set()
    row = await finished(server)
    assert (row["status"], row["input_tokens"], row["usage_source"]) == (200, 7, "provider")


async def test_what_fails_then_is_not_asked_again_elsewhere(provider, server, slow):
    provider.script = Plays(slow.go_on, then="resets")
    await leave_waiting(server, provider)
    slow.go_on.set()
    assert (await finished(server))["usd"] is None
    assert server.gateway.detached == 0
    assert len(provider.seen) == 1


async def test_no_more_than_so_many(provider, server, slow, monkeypatch):
    monkeypatch.setattr(detached_client, "MAX_DETACHED", 1)
    provider.script = slow.stream
    await leave(server)
    await is_detached(server)
    await leave(server)
    assert (await finished(server))["usage_source"] == "estimated"
    assert server.gateway.detached == 1
    slow.go_on.set()
    await finished(server, 2)


async def test_no_longer_than_so_long(provider, server, slow, monkeypatch):
    monkeypatch.setattr(detached_client, "DETACHED_S", 0.05)
    provider.script = slow.stream
    await leave(server)
    assert (await finished(server))["usage_source"] == "estimated"
    assert server.gateway.detached == 0
    await asyncio.wait_for(slow.was_left.wait(), 5)


async def test_a_provider_that_falls_silent_ends_it(provider, start, slow):
    provider.script = slow.stream
    server = await start(text(provider, idle="200ms"))
    await leave(server)
    await finished(server)
    assert server.gateway.detached == 0
    assert not server.gateway.connections


async def test_a_gateway_that_stops_waits_for_it(provider, server, slow):
    provider.script = slow.stream
    await leave(server)
    await is_detached(server)
    draining = asyncio.get_running_loop().create_task(server.drain())
    await asyncio.sleep(0.1)
    assert not draining.done()
    slow.go_on.set()
    await asyncio.wait_for(draining, 5)
    assert rows(server)[0]["usage_source"] == "provider"


async def test_a_client_that_reads_nothing_counts_as_one_that_left(provider, start):
    big = b'data: {"x":"' + b"y" * 60_000 + b'"}\n\n'
    provider.script = Plays(begun(*[big] * 100, USAGE, DONE) + LAST)
    server = await start(text(provider).replace("[timeouts]", '[timeouts]\nclient_write = "300ms"'))
    client = await RawClient.connect(server)
    client.writer.transport.pause_reading()
    await client.post(b'{"model":"patient","stream":true}')
    assert (await finished(server))["usage_source"] == "provider"
    assert server.gateway.detached == 0
