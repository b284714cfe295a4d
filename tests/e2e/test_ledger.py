"""The ledger of the installed program, whose processes are killed under load: no finished request is missing,
and none is counted twice.

How often is set by TOKENHUB_KILLS: a few times, so that the suite is run; 300 after changes of the ledger.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e import Gateway, run
from tests.e2e.test_installed import wait_for
from tests.e2e.test_workers import workers_of
from tests.support.fakes import Script, ScriptedProvider, answers

KILLS = int(os.environ.get("TOKENHUB_KILLS", "8"))
CLIENTS = 6
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150}}'
USD = 0.0002  # 100 tokens at 1, and 50 at 2 USD per million
TEXT = """
[state]
path = "t.db"
[providers.p]
base_url = "{url}"
auth = "none"
[models."p/m"]
input_price = 1
output_price = 2
"""


class Provider:
    """A provider in a thread, which answers at once, unless its script says otherwise."""

    def __init__(self, script: Script | None = None) -> None:
        self._script = script or answers(ANSWER)

    def __enter__(self) -> str:
        self._started, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._started.wait(10)
        return self.url

    async def _serve(self) -> None:
        async with ScriptedProvider() as scripted:
            scripted.script = self._script
            self.url = scripted.url
            self._started.set()
            await asyncio.to_thread(self._ended.wait)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(20)


class Clients:
    """They ask without a pause, and note the id of each answer that came whole."""

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self.finished: list[str] = []
        self.others: Counter[int] = Counter()
        self._address = address
        self._headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CLIENTS)]

    def _ask(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._stop.is_set():
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(*self._address, timeout=10)
                connection.request("POST", "/v1/chat/completions", '{"model":"p/m"}', self._headers)
                response = connection.getresponse()
                response.read()
                if response.status == 200:
                    self.finished.append(response.headers["X-Inferoute-Request-Id"])
                else:
                    self.others[response.status] += 1
            except (OSError, http.client.HTTPException):
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(0.002)
        if connection is not None:
            connection.close()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()


def lines(folder: Path) -> list[dict]:
    found = []
    for file in sorted((folder / "t.db-ledger").glob("*.jsonl")):
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found.append(json.loads(line))
    return found


def check(folder: Path, finished: list[str]) -> int:
    """Every answer has its line, no line is there twice, and the totals are the sum of the lines."""
    written = lines(folder)
    ids = [line["id"] for line in written]
    assert len(ids) == len(set(ids))
    assert set(finished) <= set(ids)
    good = [line for line in written if line["status"] == 200 and line.get("source") == "provider"]
    [total] = told(folder, "usage", "--by", "")
    assert total["requests"] == len(written)
    assert total["input_tokens"] == sum(line.get("input", 0) for line in written)
    assert total["output_tokens"] == sum(line.get("output", 0) for line in written)
    assert round(total["usd"] * 1e9) == sum(line.get("nusd") or 0 for line in written)
    assert len(good) * USD <= total["usd"] + 1e-9
    [key] = told(folder, "keys", "list")
    assert key["month"]["tokens"] == total["input_tokens"] + total["output_tokens"]
    assert round(key["month"]["usd"], 9) == round(total["usd"], 9)
    return len(written)


def told(folder: Path, *command: str) -> list[dict]:
    return json.loads(run(*command, "--config", "gateway.toml", "--json", cwd=folder).stdout)["data"]


@pytest.fixture
def folder(tmp_path):
    with Provider() as url:
        (tmp_path / "gateway.toml").write_text(TEXT.format(url=url) + '[admin]\nlisten = "127.0.0.1:0"\n')
        yield tmp_path


def make_key(folder: Path) -> str:
    created = run("keys", "create", "--config", "gateway.toml", "--name", "k", "--rpm", "1000000000",
                  "--monthly-tokens", "1000000000000", cwd=folder)  # fmt: skip
    assert created.returncode == 0, created.stderr
    return created.stdout.strip()


def test_a_gateway_that_is_killed_again_and_again(folder):
    key, text, rng = make_key(folder), (folder / "gateway.toml").read_text(), random.Random(7)
    finished: list[str] = []
    for _ in range(KILLS):
        gateway = Gateway(folder, text).__enter__()
        with Clients(gateway.host_and_port, key) as clients:
            wait_for(lambda clients=clients: len(clients.finished) > CLIENTS)
            time.sleep(rng.random() * 0.2)
            gateway.signal(signal.SIGKILL)
            gateway.wait()
        assert gateway.process.stderr is not None
        gateway.process.stderr.close()
        assert not clients.others
        finished += clients.finished
    count = check(folder, finished)
    print(f"{KILLS} kills of the gateway, {len(finished)} answers, {count} lines")


def test_workers_that_are_killed_again_and_again(folder):
    key, text, rng = make_key(folder), (folder / "gateway.toml").read_text(), random.Random(8)
    with Gateway(folder, text, "--workers", "2") as gateway, Clients(gateway.host_and_port, key) as clients:
        for _ in range(KILLS):
            before = len(clients.finished)
            wait_for(lambda before=before: len(clients.finished) > before + CLIENTS)
            wait_for(lambda: len(workers_of(gateway.process.pid)) == 2, 40)
            time.sleep(rng.random() * 0.1)
            os.kill(rng.choice(workers_of(gateway.process.pid)), signal.SIGKILL)
    assert not clients.others
    count = check(folder, clients.finished)
    print(f"{KILLS} kills of workers, {len(clients.finished)} answers, {count} lines")
