"""What governs: here what it keeps for the next start. Its admin API, its reloads and its start are in
tests/control and test_single.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
import time
from collections.abc import Generator
from itertools import count
from typing import Any

import pytest
from aiohttp import web

from proxy import __version__
from proxy.config.settings import AlertsConfig
from proxy.control.alerts import Alert, Watch
from proxy.deployments.row_snapshot import dump
from proxy.errors import StartError
from proxy.server import control_plane
from tests.support.fakes import RawClient, until
from tests.support.fakes import answers as answering_with
from tests.support.keys import ask as ask_with
from tests.support.keys import make

TEXT = """
[state]
path = "{path}"
[providers.a]
base_url = "{url}"
auth = "none"
[models."a/m"]
input_price = 1
output_price = 1
{more}
"""
USAGE = b'{"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}'


@pytest.fixture
def text(provider, tmp_path):
    provider.script = answering_with(USAGE)
    return lambda more="": TEXT.format(path=tmp_path / "t.db", url=provider.url, more=more)


async def ask(server, times: int = 5) -> None:
    client = await RawClient.connect(server)
    body = b'{"model":"a/m","messages":[{"role":"user","content":"hi"}]}'
    for _ in range(times):
        await client.post(body, extra=b"x-sim-latency-ms: 0\r\n")
        assert (await client.response())[0] == 200


def row(server):
    return server.gateway.catalog.deployments["a/m"].row("chat", False)


async def test_a_restart_is_warm(start, text, caplog):
    server = await start(text())
    await ask(server)
    before = dump(row(server))
    await server.close()
    with caplog.at_level("INFO"):
        server = await start(text())
    assert "restored the last run's live figures; models: 1" in caplog.text
    after = dump(row(server))
    for part in ("speed", "charges", "success"):
        for name, value in before[part].items():
            if name not in ("stamp_s", "_stamp_s", "changed_s", "ratios"):
                assert after[part][name] == pytest.approx(value), (part, name)
    assert after["own"]["used_s"] == pytest.approx(before["own"]["used_s"], abs=0.1)
    await ask(server)
    assert row(server).snapshot(0.0)["finished"] == 10


async def test_it_is_written_while_it_runs(start, text, monkeypatch):
    monkeypatch.setattr(control_plane, "SAVE_S", 0.01)
    await ask(await start(text()))
    for _ in range(200):  # as after a kill: the first was not closed
        second = await start(text())
        if row(second).speed.count == 5.0:
            break
        await second.close()
    assert row(second).speed.count == 5.0


async def learned(start, text: str, times: int = 0) -> float:
    """What a start knows of answers; it gets ``times`` more, and ends."""
    server = await start(text)
    found = row(server).speed.count
    await ask(server, times)
    await server.close()
    return found


async def test_made_up_answers_teach_nothing_of_real_ones(start, text):
    simulated = text('[simulator]\nmode = "always"')
    assert await learned(start, simulated, 5) == 0.0
    assert await learned(start, simulated) == 0.0  # they are not kept either
    assert await learned(start, text(), 2) == 0.0
    assert await learned(start, simulated) == 0.0
    assert await learned(start, text()) == 2.0
    assert await learned(start, text('upstream = "another"')) == 0.0  # a model that moved


async def test_a_start_that_fails_writes_nothing(start, text):
    server = await start(text())
    await ask(server, 1)
    [address] = server.addresses
    with pytest.raises(StartError):
        await start(f'[server]\nlisten = ["127.0.0.1:{address.port}"]\n' + text())
    await ask(server, 2)
    await server.close()
    assert await learned(start, text()) == 3.0


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda folder: (folder / "t.db").mkdir(), "t.db can't be used: "),
    (lambda folder: (folder / "t.db").write_bytes(b"nonsense" * 1000), "t.db can't be used: "),
    (lambda folder: folder.rename(folder.with_name("unmounted")), "does not exist.*mount"),
    (lambda folder: (folder / "t.db-ledger").write_text("x"), "t.db-ledger is not a directory"),
])  # fmt: skip
async def test_nothing_is_served_while_keys_cant_be_read(start, text, tmp_path, spoil, said):
    """There may be some, and without them everybody on this machine would be let in."""
    spoil(tmp_path)
    with pytest.raises(StartError, match=said) as caught:
        await start(text())
    assert "There may be keys in it" in str(caught.value)
    assert ":memory:" in str(caught.value)


# ---------------------------------------------------------------------- alerts
class Receiver:
    """A webhook's receiver: what it got, by event."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        assert request.headers["Content-Type"] == "application/json"
        self.got.append(await request.json())
        return web.Response(status=204)

    def events(self) -> list[str]:
        return [alert["event"] for alert in self.got]


@pytest.fixture
async def receiver(aiohttp_server, monkeypatch):
    monkeypatch.setattr(control_plane, "ALERT_S", 0.01)
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook/{secret}", made.take)
    server = await aiohttp_server(app)
    made.url = str(server.make_url("/hook/S3CRET"))
    return made


@pytest.fixture
async def alerted(start, text, receiver):
    """A gateway that sends alerts."""
    return await start(text(f'[alerts]\nwebhook_url = "{receiver.url}"\n[routing.eject]\nbase = "50ms"\n'))


NUMBERS = count()  # what fails only for one body is not blamed on the provider


async def status(server) -> int:
    client = await RawClient.connect(server)
    await client.post(b'{"model":"a/m","user":"%d"}' % next(NUMBERS))
    return (await client.response())[0]


async def test_an_ejection_and_the_way_back_are_told(alerted, provider, receiver, caplog):
    caplog.set_level("INFO")
    provider.script = answering_with(status=b"500 Broken", extra=b"Connection: close\r\n")
    for _ in range(5):
        assert await status(alerted) == 500
    await until(lambda: receiver.got)
    provider.script = answering_with(USAGE)
    deployment = alerted.gateway.catalog.deployments["a/m"]
    await until(lambda: deployment.free_at(time.monotonic()) <= time.monotonic())
    assert await status(alerted) == 200
    await until(lambda: len(receiver.got) == 2)
    ejected, back = receiver.got
    assert (ejected["event"], back["event"]) == ("deployment_ejected", "deployment_back")
    assert (ejected["model"], ejected["provider"], ejected["reason"]) == ("a/m", "a", "500: answered 500")
    assert ejected["gateway"] == {"host": socket.gethostname(), "version": __version__}
    assert f"alert: {back['text']}" in caplog.messages
    said = [record.getMessage() for record in caplog.records if record.name != "aiohttp.access"]
    assert not any("S3CRET" in text for text in said)


async def test_a_refused_key_is_told(alerted, provider, receiver):
    provider.script = answering_with(status=b"401 Unauthorized")
    assert await status(alerted) == 502
    await until(lambda: receiver.got)
    assert (receiver.got[0]["event"], receiver.got[0]["provider"]) == ("provider_key_refused", "a")


async def test_a_key_near_its_limit_is_told_and_a_restart_gives_it_nothing_back(
    alerted, start, text, receiver
):
    _, secret = await make(alerted, monthly_tokens=1000)

    async def used(server, times: int = 1) -> list[int]:  # of 150 tokens each
        client = await RawClient.connect(server)
        return [(await ask_with(client, secret, b'{"model":"a/m"}'))[0] for _ in range(times)]

    assert await used(alerted, 6) == [200] * 6
    await until(lambda: receiver.got)
    [told] = receiver.got
    expected = {
        "event": "key_limit", "key": "k", "limit": "monthly_tokens", "percent": 80, "used": 900, "of": 1000,
    }  # fmt: skip
    assert told.items() >= expected.items()
    assert await used(alerted) == [200]
    await until(lambda: len(receiver.got) == 2)
    assert receiver.got[1]["percent"] == 100
    assert await used(alerted) == [402]
    await alerted.close()
    assert await used(await start(text())) == [402]


async def test_a_webhook_that_is_set_while_it_runs_takes_effect(start, text, provider, receiver):
    server = await start(text())
    provider.script = answering_with(status=b"401 Unauthorized")
    await status(server)
    gateway = server.gateway
    config = dataclasses.replace(gateway.config, alerts=AlertsConfig(receiver.url))
    gateway.adopt(config, gateway.catalog, gateway.providers)
    await until(lambda: receiver.events() == ["provider_key_refused"])  # it is refused still
    gateway.adopt(dataclasses.replace(config, alerts=AlertsConfig()), gateway.catalog, gateway.providers)
    await until(lambda: not server._control._webhook.url)
    await status(server)
    gateway.adopt(config, gateway.catalog, gateway.providers)
    await until(lambda: len(receiver.got) == 2)


async def test_a_fault_in_the_looks_is_said_once_and_they_go_on(start, text, receiver, monkeypatch, caplog):
    looks = itertools.count()

    def steps(*_: object) -> Generator[None, None, list[Alert]]:
        if next(looks) % 4:
            raise RuntimeError("no")
        yield
        return []

    monkeypatch.setattr(Watch, "steps", steps)
    await start(text(f'[alerts]\nwebhook_url = "{receiver.url}"\n'))
    await until(lambda: next(looks) > 20)
    faults = [m for m in caplog.messages if m == "internal error while checking for alerts"]
    assert 2 <= len(faults) <= 7
