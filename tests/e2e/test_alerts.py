"""Alerts of the installed program: the webhook is a real server, the provider is scripted."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any, Self

import pytest
from aiohttp import web

from tests.e2e import Gateway
from tests.e2e.test_installed import wait_for
from tests.e2e.test_keys import asking, keys
from tests.support.fakes import Call, ScriptedProvider

ANSWER = b'{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}'
TEXT = """
[state]
path = "t.db"
[providers.p]
base_url = "{url}"
auth = "none"
[models."p/m"]
input_price = 1
output_price = 2
[routing.eject]
base = "100ms"
[alerts]
webhook_url = "{hook}"
"""


class World:
    """A provider whose answers can be changed, and a webhook, in a thread of their own."""

    def __init__(self) -> None:
        self.status = b"200 OK"
        self.got: list[dict[str, Any]] = []
        self.paths: list[str] = []

    def __enter__(self) -> Self:
        self._started, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(10)
        return self

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/hook/{secret}", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        async with ScriptedProvider() as scripted:
            scripted.script = self._answer
            self.url = scripted.url
            self.hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook/S3CRET"
            self._started.set()
            await asyncio.to_thread(self._ended.wait)
        await runner.cleanup()

    async def _answer(self, call: Call) -> None:
        while True:
            await call.request()
            await call.answer(ANSWER, self.status)

    async def _take(self, request: web.Request) -> web.Response:
        self.paths.append(request.path)
        self.got.append(await request.json())
        return web.Response()

    def told(self, event: str) -> list[dict[str, Any]]:
        return [alert for alert in self.got if alert["event"] == event]

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20)


@pytest.fixture
def world():
    with World() as made:
        yield made


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_happens_at_any_worker_is_told(tmp_path, world, workers):
    text = TEXT.format(url=world.url, hook=world.hook)
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


def test_what_waits_at_the_end_still_goes_out(tmp_path, world):
    """The key is over its limit before the start, which is told once; then the end comes at once."""
    text = TEXT.format(url=world.url, hook=world.hook)
    with Gateway(tmp_path, text.replace(world.hook, "")) as gateway:
        key = keys(gateway, "create", "--name", "prod", "--monthly-tokens", "150")
        assert asking(gateway, key).status == 200
    with Gateway(tmp_path, text) as gateway:
        pass
    assert [(told["event"], told["percent"]) for told in world.got] == [("key_limit", 100)]
