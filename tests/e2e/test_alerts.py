"""Alerts of the installed program: the webhook is a real server, the provider is scripted."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from aiohttp import web

from tests.e2e import Gateway
from tests.e2e.asking import wait_for
from tests.e2e.background import application, in_thread
from tests.e2e.one_provider import ANSWER, TEXT, asking, keys, provider_of
from tests.support.fakes import Call

MORE = '[routing.eject]\nbase = "100ms"\n[alerts]\nwebhook_url = "{hook}"\n'


class World:
    """A provider whose answers can be changed, and a webhook."""

    url = hook = ""

    def __init__(self) -> None:
        self.status = b"200 OK"
        self.got: list[dict[str, Any]] = []
        self.paths: list[str] = []

    async def answer(self, call: Call) -> None:
        while True:
            await call.request()
            await call.answer(ANSWER, self.status)

    async def take(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        self.got.append(await request.json())
        return web.Response()

    def told(self, event: str) -> list[dict[str, Any]]:
        return [alert for alert in self.got if alert["event"] == event]


@pytest.fixture
def world():
    made, app = World(), web.Application()
    app.router.add_post("/hook/{secret}", made.take)
    with provider_of(made.answer) as made.url, in_thread(application(app)) as address:
        made.hook = f"{address}/hook/S3CRET"
        yield made


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_happens_at_any_worker_is_told(tmp_path, world, workers):
    text = (TEXT + MORE).format(url=world.url, hook=world.hook)
    with Gateway(tmp_path, text, "--workers", workers) as gateway:
        key = keys(gateway, "create", "--name", "any")

        def is_told(event: str, status: bytes) -> bool:
            world.status = status
            asking(gateway, key)
            return bool(world.told(event))

        wait_for(lambda: is_told("deployment_ejected", b"500 Broken"))
        [ejected] = world.told("deployment_ejected")
        assert (ejected["model"], ejected["reason"]) == ("p/m", "500: answered 500")
        wait_for(lambda: is_told("deployment_back", b"200 OK"))
        small = keys(gateway, "create", "--name", "small", "--monthly-tokens", "1000")
        for count, percent in ((6, 80), (1, 100)):  # of 150 tokens each
            assert [asking(gateway, small).status for _ in range(count)] == [200] * count
            wait_for(lambda percent=percent: percent in [told.get("percent") for told in world.got])
        assert asking(gateway, small).status == 402
        told = [(told["key"], told["percent"], told["used"]) for told in world.told("key_limit")]
        assert told == [("small", 80, 900), ("small", 100, 1050)]
        assert set(world.paths) == {"/hook/S3CRET"}
        # Another address takes effect without a restart.
        written = gateway.config.read_text()
        gateway.config.write_text(written.replace("S3CRET", "S4CRET"))
        gateway.signal(signal.SIGHUP)
        wait_for(lambda: "changed: alerts.webhook_url changed" in gateway.log)
    assert "CRET" not in gateway.log
    assert "alerts go to 127.0.0.1" in gateway.log
