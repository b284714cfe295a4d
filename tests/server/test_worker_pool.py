"""Worker processes: replaced when they die, reaped, given up; real processes, real signals."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time

import pytest

from proxy.config.parse import parse
from proxy.errors import StartError
from proxy.server import worker_pool as pool_module
from proxy.server.worker_pool import worker_environment
from tests.support.fakes import until
from tests.support.supervised import Running, children


async def test_a_worker_ended_by_hand_is_replaced_and_close_ends_what_doesnt_want_to_end(running):
    old = running.pids[1]
    os.kill(old, signal.SIGTERM)
    await until(lambda: len(running.pids) == 2 and old not in running.pids, 15)
    assert not running.supervisor.pool._is_stopping
    os.kill(running.pids[0], signal.SIGSTOP)
    await asyncio.wait_for(running.supervisor.close(), 10)
    assert not children()


async def test_workers_that_cant_start_stop_the_start(provider, other, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    made = Running(tmp_path, provider.url, other.url)
    with pytest.raises(StartError, match="a worker can't start: it has died"):
        await made.supervisor.start()
    await made.supervisor.close()
    assert not children()


async def test_it_gives_up_when_no_worker_starts_any_more(running, monkeypatch, caplog):
    monkeypatch.setattr(pool_module, "_PAUSE_S", 0.01)
    monkeypatch.setattr(pool_module, "_MAX_PAUSE_S", 0.02)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for pid in running.pids:
        os.kill(pid, signal.SIGKILL)
    why = await asyncio.wait_for(running.supervisor.failed, 15)
    assert re.search(r"\d workers in a row died at their start: it has died", why)
    assert "restarting in" in caplog.text


@pytest.mark.parametrize("when", ["start", "later"])
async def test_processes_that_cant_be_made(provider, other, tmp_path, monkeypatch, when):
    made = Running(tmp_path, provider.url, other.url)
    if when == "later":
        await made.supervisor.start()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "none"))
        if when == "start":
            with pytest.raises(StartError, match=r"a worker can't start: .*No such file"):
                await made.supervisor.start()
        else:
            os.kill(made.pids[0], signal.SIGKILL)
            await until(lambda: len(made.pids) == 1)
            await asyncio.sleep(0.3)
    if when == "later":  # it is tried again
        await until(lambda: len(made.pids) == 2, 15)
    await made.supervisor.close()
    assert not children()


async def test_pauses_between_failures_grow(running, monkeypatch, caplog):
    monkeypatch.setattr(pool_module, "_PAUSE_S", 0.02)
    monkeypatch.setattr(pool_module, "MAX_FAILURES", 10**9)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    begun = time.monotonic()
    os.kill(running.pids[0], signal.SIGKILL)
    await until(lambda: "restarting in 0.16 s" in caplog.text, 15)
    assert time.monotonic() - begun >= 0.02 + 0.04 + 0.08
    pauses = [float(pause) for pause in re.findall(r"restarting in ([\d.]+) s", caplog.text)]
    assert pauses[:4] == [0.02, 0.04, 0.08, 0.16]


def test_a_worker_gets_no_secrets_by_its_environment(monkeypatch):
    text = '[admin]\ntoken_env = "ADMIN"\n[providers.a]\nbase_url = "http://a/v1"\napi_key_env = "A_KEY"\n'
    for name in ("ADMIN", "A_KEY", "OTHER"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    made = worker_environment(parse(text + '[models."a/m"]'))
    assert ("ADMIN" in made, "A_KEY" in made, made["OTHER"]) == (False, False, "x")
    assert made["PYTHONPATH"].endswith(":/elsewhere")  # this program comes first
