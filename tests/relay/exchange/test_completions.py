"""Answers at their end: accounted for, then sent; together where they end together."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.relay.exchange.completions import Completions
from proxy.storage import ledger_files as ledger_module
from tests.support.fakes import Call, RawClient, ScriptedProvider, until
from tests.support.keys import BODY, CONFIG, admin, bearer, make
from tests.support.scripts import answer, says

ANSWER = json.dumps({"usage": {"prompt_tokens": 4, "completion_tokens": 6}}).encode()


class Fakes:
    """Responses that are complete, and a ledger; what is done to them is noted in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.callbacks: list[Any] = []
        self.completions = Completions(self, self.callbacks.append)  # type: ignore[arg-type]

    def write(self, lines: bytes) -> None:
        self.done.append(f"write {lines.decode().split()}")

    def ending(self, name: str, broken: str = "") -> Any:
        def note(what: str) -> bytes:
            if what == broken:
                raise RuntimeError(what)
            self.done.append(f"{what} {name}")
            return f"{name}\n".encode()

        return SimpleNamespace(
            settle=lambda: note("settle"), send_end=lambda: note("send"), cut_off=lambda: note("cut")
        )

    def end(self, name: str, at: float, broken: str = "") -> None:
        self.completions.hold(self.ending(name, broken), at)


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


def test_one_that_ends_alone_is_not_held(fakes):
    fakes.end("a", 1.0)
    assert fakes.done == ["settle a", "write ['a']", "send a"]
    fakes.end("b", 1.001)
    assert fakes.done[3:] == ["settle b", "write ['b']", "send b"]
    assert not fakes.callbacks


def test_those_that_end_together_share_a_write(fakes):
    fakes.end("a", 1.0)
    fakes.done.clear()
    for number, name in enumerate("bcd"):
        fakes.end(name, 1.00001 + number / 1000)  # in a long turn; what is held already waits for its end
    assert fakes.done == []
    [call] = fakes.callbacks
    call()
    assert fakes.done == [
        *("settle b", "settle c", "settle d"), "write ['b', 'c', 'd']", *("send b", "send c", "send d"),
    ]  # fmt: skip
    assert list(fakes.completions.recent) == [b"d", b"c", b"b", b"a"]
    fakes.end("e", 1.00202)
    assert len(fakes.callbacks) == 2


def test_an_empty_turn_writes_nothing(fakes):
    fakes.completions.flush()
    assert fakes.done == []


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("settle", ["settle c", "cut b", "write ['c']", "send c"]),
        ("send", ["settle b", "settle c", "write ['b', 'c']", "cut b", "send c"]),
    ],
)
def test_a_fault_with_one_keeps_no_other_waiting(fakes, caplog, broken, expected):
    fakes.end("a", 1.0)
    fakes.done.clear()
    fakes.end("b", 1.00001, broken)
    fakes.end("c", 1.00002)
    fakes.callbacks[0]()
    assert sorted(fakes.done) == sorted(expected)
    assert [each for each in fakes.done if "b" not in each.split()] == [
        each for each in expected if "b" not in each.split()
    ]
    assert "internal error" in caplog.text


def config(provider: ScriptedProvider, folder: Path) -> str:
    return CONFIG.format(url=provider.url, more="") + f'[state]\npath = "{folder / "t.db"}"\n'


@pytest.mark.virtual_time  # on a busy machine they come one by one, and each is written at once
@pytest.mark.interpreted
async def test_answers_of_one_turn(start, tmp_path, provider, monkeypatch):
    """Many requests at once: fewer writes than lines, and each line there before its answer is."""
    asked, everybody = 0, asyncio.Event()

    async def script(call: Call) -> None:
        nonlocal asked
        while True:
            await call.request()
            asked += 1
            if asked % 20 == 0:
                everybody.set()
            await everybody.wait()
            await call.answer(ANSWER)

    provider.script = script
    server = await start(config(provider, tmp_path))
    _, secret = await make(server, concurrency=100)
    writes: list[int] = []
    real_write = ledger_module.os.write

    def write(descriptor: int, data: bytes) -> int:
        if descriptor == server.gateway.ledger._file:
            writes.append(data.count(b"\n"))
        return real_write(descriptor, data)

    monkeypatch.setattr(ledger_module.os, "write", write)
    clients = [await RawClient.connect(server) for _ in range(20)]
    for client in clients:
        await client.post(BODY, extra=bearer(secret))
    for client in clients:
        status, fields, body = await client.response()
        assert (status, body) == (200, ANSWER)
        files = (tmp_path / "t.db-ledger").glob("*.jsonl")
        assert fields[b"x-inferoute-request-id"] in b"".join(file.read_bytes() for file in files)
    assert sum(writes) == 20
    assert len(writes) < 20
    for client in clients:  # the connections are of use again
        await client.post(BODY, extra=bearer(secret))
        assert (await client.response())[0] == 200
        client.close()


class Held:
    """A gateway that holds the end of an answer until it is told to let go."""

    async def begin(self, start: Any, provider: ScriptedProvider, folder: Path) -> None:
        provider.script = says(answer(ANSWER))
        self.folder = folder
        self.server = await start(config(provider, folder))
        _, self.secret = await make(self.server, concurrency=1)
        self.completions = self.server.gateway.completions
        callbacks: list[Any] = []
        turn = self.completions._turn
        turn._soon, turn._last_at = callbacks.append, float("inf")
        self.client = await self.ask()
        await until(lambda: callbacks)
        [self.flush] = callbacks
        turn._soon = None

    async def ask(self) -> RawClient:
        client = await RawClient.connect(self.server)
        await client.post(BODY, extra=bearer(self.secret))
        return client

    def statuses(self) -> list[int]:
        files = (self.folder / "t.db-ledger").glob("*.jsonl")
        return [json.loads(line)["status"] for file in files for line in file.read_bytes().splitlines()]


@pytest.fixture
async def held(start, provider, tmp_path) -> Held:
    made = Held()
    await made.begin(start, provider, tmp_path)
    return made


async def test_a_client_that_leaves_while_its_answer_is_held(held):
    held.client.close()
    await until(lambda: not held.server.gateway.connections)
    assert held.statuses() == []
    held.flush()
    assert held.statuses() == [200]
    [row] = (await admin(held.server, "GET", "/keys"))[1]["data"]
    assert row["month"]["tokens"] == 10
    client = await held.ask()  # what it held of the key's limits is free
    assert (await client.response())[0] == 200


async def test_what_is_held_when_the_gateway_stops_is_accounted_for(held):
    await held.server.close()
    assert held.statuses() == [200]
    held.flush()
    assert held.statuses() == [200]
