"""``serve`` itself: signals and exit codes, here with the parts put in its place; the whole program is in
tests/e2e.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from proxy.config.parse import parse
from proxy.errors import StartError
from proxy.server import run
from tests.support.fakes import until

TEXT = '[server]\nworkers = {workers}\n[providers.a]\nbase_url = "http://a/v1"\n[models."a/m"]'


class Part:
    """Server and supervisor in one, that only notes what it is told."""

    said: list[str]
    start_s = drain_s = 0.0
    fails = ""

    def __init__(self, *_: object) -> None:
        self.addresses: list[object] = []
        self.admin_address = None

    async def start(self) -> None:
        self.said.append("start")
        await asyncio.sleep(self.start_s)
        if self.fails:
            raise StartError(self.fails)

    async def reload(self, why: str) -> None:
        self.said.append(f"reload {why}")

    async def drain(self) -> None:
        self.said.append("drain")
        await asyncio.sleep(self.drain_s)
        self.said.append("drained")

    async def close(self) -> None:
        self.said.append("close")


class Supervising(Part):
    """… of several workers."""

    last: Supervising

    def __init__(self, *given: object) -> None:
        super().__init__()
        Supervising.last = self
        self.said.append(f"{given[3]} workers")
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()


@pytest.fixture
def said(monkeypatch):
    Part.said = []
    monkeypatch.setattr(Part, "start_s", 0.0)
    monkeypatch.setattr(run, "Server", Part)
    monkeypatch.setattr(run, "Supervisor", Supervising)
    told: list[str] = []
    monkeypatch.setattr(run.systemd, "notify", lambda state: told.append(state.split("\n")[0]))
    Part.told = told
    return Part.said


async def serving(workers: int = 1) -> asyncio.Task[int]:
    task = asyncio.get_running_loop().create_task(run._serve(parse(TEXT.format(workers=workers)), None))
    await until(lambda: "start" in Part.said)
    await asyncio.sleep(0.01)
    return task


async def ended(task: asyncio.Task[int], *signals: signal.Signals) -> int:
    """Its result, after these signals."""
    for number in signals:
        os.kill(os.getpid(), number)
    return await asyncio.wait_for(task, 5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(said, number):
    assert await ended(await serving(), number) == 0
    assert (said, Part.told) == (["start", "drain", "drained", "close"], ["READY=1", "STOPPING=1"])


async def test_a_second_signal_ends_at_once(said, monkeypatch):
    monkeypatch.setattr(Part, "drain_s", 3600.0)
    task = await serving()
    os.kill(os.getpid(), signal.SIGTERM)
    await until(lambda: "drain" in said)
    assert await ended(task, signal.SIGTERM) == 0
    assert said == ["start", "drain", "close"]


async def test_hangup_reloads_and_systemd_hears_of_it(said):
    task = await serving()
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: "reload SIGHUP" in said)
    assert await ended(task, signal.SIGTERM) == 0
    assert Part.told == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]


async def test_a_signal_while_it_starts_ends_it(said, monkeypatch):
    monkeypatch.setattr(Part, "start_s", 3600.0)
    # When it is hung up the file has just been read.
    assert await ended(await serving(), signal.SIGHUP, signal.SIGTERM) == 0
    assert (said, Part.told) == (["start", "close"], [])


async def test_a_start_that_fails_is_told_and_undone(said, monkeypatch):
    monkeypatch.setattr(Part, "fails", "no room")
    with pytest.raises(StartError, match="no room"):
        await run._serve(parse(TEXT.format(workers=1)), None)
    assert said == ["start", "close"]


@pytest.mark.parametrize(
    ("workers", "cores", "first"), [(3, 8, "3 workers"), (0, 4, "4 workers"), (0, 1, "start")]
)
async def test_how_many_workers(said, monkeypatch, workers, cores, first):
    monkeypatch.setattr(run, "usable_cores", lambda: cores)
    assert await ended(await serving(workers), signal.SIGTERM) == 0
    assert said[0] == first


async def test_workers_that_cant_go_on_end_it(said, caplog):
    task = await serving(2)
    Supervising.last.failed.set_result("all died")
    assert await ended(task) == 1
    assert "giving up: all died" in caplog.text
    assert said == ["2 workers", "start", "close"]
