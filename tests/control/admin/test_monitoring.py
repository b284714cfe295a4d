"""What those get who watch: the admin listener's /metrics and /admin/v1/live."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy import __version__
from proxy.control.admin import monitoring as monitor_module
from tests.support.admin_api import Watcher, ask
from tests.support.fakes import RawClient, until
from tests.support.keys import BODY, CONFIG, make

NEVER_S = 3600.0


@pytest.fixture
async def server(provider, start, monkeypatch):
    """A gateway that takes many samples."""
    monkeypatch.setattr("proxy.control.live_feed.SAMPLE_S", 0.01)
    return await start(CONFIG.format(url=provider.url, more=""))


async def metrics(server) -> tuple[int, dict[bytes, bytes], str]:
    status, fields, body = await ask(server, "GET", "/metrics")
    return status, fields, body.decode()


async def test_metrics(provider, start):
    server = await start(CONFIG.format(url=provider.url, more=""))
    id, secret = await make(server, name="prod", monthly_usd=5)
    client = await RawClient.connect(server)
    await client.post(BODY, extra=b"Authorization: Bearer %b\r\n" % secret)
    assert (await client.response())[0] == 200
    status, fields, text = await metrics(server)
    assert (status, fields[b"content-type"]) == (200, b"text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    [request] = families["tokenhub_requests"].samples
    who = {"key": "prod", "key_id": id}
    assert request.labels == {"provider": "mock", "model": "mock/m", **who, "status": "200"}
    assert (request.value, families["tokenhub_key_month_usd_limit"].samples[0].value) == (1, 5)
    assert families["tokenhub_workers"].samples[0].value == 1
    [build] = families["tokenhub_build_info"].samples
    assert build.labels["version"] == __version__


async def test_live(server):
    watcher = await Watcher.of(server)
    head = (await watcher.head()).lower()
    assert b"content-type: text/event-stream" in head
    assert b"cache-control: no-store" in head
    name, history = await watcher.event()
    assert name == "history"
    assert isinstance(history["samples"], list)
    name, sample = await watcher.event()
    assert (name, sample["workers"], sample["requests_per_s"]) == ("sample", 1, 0)
    late = await Watcher.of(server)
    await late.head()
    _, history = await late.event()
    assert history["samples"][0].keys() == sample.keys()


async def test_who_leaves_makes_room(server, monkeypatch, caplog):
    monkeypatch.setattr(monitor_module, "MAX_WATCHERS", 1)
    first = await Watcher.of(server)
    await first.head()
    await first.event()
    second = await RawClient.to(server.admin_address)
    await second.send(b"GET /admin/v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    status, _, body = await second.response()
    assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_watchers")
    first.leave()

    async def is_let_in() -> bool:
        watcher = await Watcher.of(server)
        head = await watcher.head()
        watcher.leave()
        return b" 200 " in head

    async with asyncio.timeout(5):
        while not await is_let_in():
            await asyncio.sleep(0.01)
    assert "fault" not in caplog.text


async def test_who_takes_nothing_makes_room_too(server, monkeypatch):
    """It reads nothing, and what is sent is more than fits between the two."""
    monkeypatch.setattr(monitor_module, "WRITE_S", 0.1)
    rows = [{"in_flight": 0, "id": "x" * (1 << 20)}]
    monkeypatch.setattr("proxy.control.live_feed.live_rows", lambda *_: rows)
    listener = server._control._runner.server
    watcher = await Watcher.of(server)
    await watcher.head()
    assert listener.connections
    await until(lambda: not listener.connections, 10)
    watcher.leave()


async def test_the_end_of_the_gateway_ends_the_stream(provider, start, monkeypatch):
    monkeypatch.setattr("proxy.control.live_feed.SAMPLE_S", NEVER_S)
    server = await start(CONFIG.format(url=provider.url, more=""))
    watcher = await Watcher.of(server)
    await watcher.head()
    await watcher.event()
    begun = asyncio.get_running_loop().time()
    closing = asyncio.create_task(server.close())
    assert await watcher.end() == b"0\r\n\r\n"
    await closing
    assert asyncio.get_running_loop().time() - begun < monitor_module.MAX_WATCHERS
    await until(lambda: not server.gateway.connections)
