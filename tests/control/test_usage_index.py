"""The ledger's lines on their way into totals, beside a running gateway."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest

from proxy.access.permits import Month
from proxy.config.parse import parse
from proxy.control import usage_index as usage_index_module
from proxy.control.usage_index import UsageIndex
from proxy.storage.database import Database
from proxy.storage.ledger_files import Ledger
from proxy.storage.schema_version import StateError
from tests.support.config import BASE
from tests.support.fakes import until

CONFIG = parse(f'{BASE}[state]\nledger_keep = "0MiB"\n[usage]\ntags = ["team"]\n')
NOW = datetime.now(UTC)
AT = NOW.timestamp()
NAMES = {"key_1": "prod"}
Make = Callable[..., Awaitable["Kept"]]


@contextlib.asynccontextmanager
async def full(made: Kept) -> AsyncIterator[None]:
    """Nothing can be written meanwhile."""
    await made.database.run(lambda database: database.execute("PRAGMA query_only = ON"))
    yield
    await made.database.run(lambda database: database.execute("PRAGMA query_only = OFF"))


def stored(made: Kept) -> int:
    """The requests that were added up."""
    with contextlib.closing(sqlite3.connect(made.database.path)) as database:
        return database.execute("SELECT COALESCE(SUM(requests), 0) FROM usage").fetchone()[0]


class Kept:
    """UsageIndex on a file, and a writer of the ledger."""

    def __init__(self, path: str) -> None:
        self.database = Database(path)
        self.usage_index = UsageIndex(self.database, CONFIG)
        self.ledger: Ledger

    async def open(self, started_ms: int = 1) -> dict[str, Month]:
        await self.database.open()
        used = await self.usage_index.open()
        self.ledger = Ledger(self.usage_index.directory, 0, started_ms)
        return used

    def write(self, **members: object) -> None:
        record = {"t": AT, "key": "key_1", "model": "a/m", "provider": "a", "status": 200, "input": 3,
                  "output": 4, "nusd": 5}  # fmt: skip
        self.ledger.write(orjson.dumps(record | members, option=orjson.OPT_APPEND_NEWLINE))

    async def requests(self, **query: str) -> int:
        _, rows = await self.usage_index.usage(query, NAMES)
        return sum(row["requests"] for row in rows)

    async def close(self) -> None:
        self.ledger.close()
        await self.usage_index.close()
        await self.database.close()


@pytest.fixture
async def kept(tmp_path) -> AsyncIterator[Make]:
    made: list[Kept] = []

    async def make(path: str = "", started_ms: int = 1) -> Kept:
        one = Kept(path or str(tmp_path / "t.db"))
        made.append(one)
        await one.open(started_ms)
        return one

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def made(kept):
    return await kept()


async def test_where_the_ledger_is_and_a_relative_path_stays_where_it_was(kept, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = await kept("t.db")
    assert made.usage_index.directory == tmp_path / "t.db-ledger"
    assert made.usage_index.directory.stat().st_mode & 0o777 == 0o700
    monkeypatch.chdir("/")
    made.write()
    assert await made.requests() == 1
    assert list((tmp_path / "t.db-ledger").iterdir())


async def test_whoever_asks_has_all_that_is_written(made):
    for number in range(1, 4):
        made.write()
        assert await made.requests() == number
    asked, rows = await made.usage_index.usage({"by": "key,model"}, NAMES)
    assert asked.by == ("key", "model")
    assert rows == [{
        "key": "prod", "key_id": "key_1", "model": "a/m", "requests": 3, "errors": 0, "input_tokens": 9,
        "cached_tokens": 0, "cache_write_tokens": 0, "output_tokens": 12, "reasoning_tokens": 0, "usd": 15e-9,
        "saved_usd": 0.0, "estimated": 0,
    }]  # fmt: skip


async def test_it_is_added_up_meanwhile_and_at_the_end(kept, monkeypatch):
    monkeypatch.setattr(usage_index_module, "INGEST_S", 0.01)
    made = await kept()
    made.usage_index.start()
    for count in (1, 2):
        made.write()
        await until(lambda count=count: stored(made) == count)
    monkeypatch.setattr(usage_index_module, "INGEST_S", 3600.0)
    other = await kept(started_ms=2)
    other.usage_index.start()
    other.write()
    await other.close()
    assert stored(made) == 3


async def test_what_was_used_is_known_at_the_next_start(made, tmp_path):
    made.write()
    made.write(status=500, input=0, output=0, nusd=None)
    made.write(key=None)
    made.write(key="key_2", t=AT - 62 * 86400.0)  # of another month
    await made.close()
    again = Kept(str(tmp_path / "t.db"))
    used = await again.open(2)
    assert used.groups == {}
    assert {id: month[:3] for id, month in used.keys.items()} == {
        "key_1": (7, 5, AT), "key_2": (0, 0, AT - 62 * 86400.0),
    }  # fmt: skip
    await again.close()


async def test_what_a_killed_process_had_written_counts_at_the_next_start(made, kept, tmp_path):
    for _ in range(3):
        made.write()  # and nobody adds it up
    await made.database.close()
    again = await kept(started_ms=2)
    assert await again.requests() == 3
    again.write()
    assert await again.requests() == 4


async def test_nothing_is_counted_twice_by_a_second_process(kept, tmp_path):
    one, two = await kept(), await kept(started_ms=2)
    for made in (one, two) * 5:
        made.write()
        await asyncio.gather(one.usage_index.catch_up(), two.usage_index.catch_up())
    assert await one.requests() == await two.requests() == 10


async def test_files_that_were_added_up_go(kept, monkeypatch):
    monkeypatch.setattr("proxy.storage.ledger_files.FILE_BYTES", 300)
    made = await kept()
    state = dataclasses.replace(CONFIG.state, ledger_keep_bytes=700)
    made.usage_index.config = dataclasses.replace(CONFIG, state=state)
    for _ in range(20):
        made.write()
    files = made.usage_index.directory.glob
    assert len(list(files("*.jsonl"))) > 4
    assert await made.requests() == 20
    await made.usage_index.catch_up()
    left = list(files("*.jsonl"))
    assert 1 <= len(left) < 4
    assert sum(file.stat().st_size for file in left) <= 700
    assert await made.requests() == 20


async def test_without_a_file_the_ledger_is_only_for_a_while(kept, monkeypatch):
    monkeypatch.setattr("proxy.storage.ledger_files.FILE_BYTES", 300)
    made = await kept(":memory:")
    directory = made.usage_index.directory
    assert directory.parent == Path(tempfile.gettempdir())
    assert directory.stat().st_mode & 0o777 == 0o700
    for _ in range(20):
        made.write()
    assert await made.requests() == 20
    await made.usage_index.catch_up()
    assert len(list(directory.glob("*.jsonl"))) <= 1  # what was added up is not kept
    await made.close()
    assert not directory.exists()


no_room = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))


async def test_no_room_not_even_for_a_while(kept, monkeypatch, caplog):
    monkeypatch.setattr(tempfile, "mkdtemp", no_room)
    made = await kept(":memory:")
    assert made.usage_index.directory is None
    assert "usage is not counted" in caplog.text
    made.write()
    assert await made.requests() == 0


async def test_a_directory_that_a_full_disk_has_no_room_for_is_said(kept, caplog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", no_room)
        made = await kept()
        assert "t.db-ledger can't be made" in caplog.text
        made.write()
        assert made.ledger.waiting == 1
    made.ledger.tick(5.0)
    assert await made.requests() == 1


async def test_a_directory_that_cant_be_made_stops_the_start(tmp_path):
    (tmp_path / "t.db-ledger").write_text("a file")
    state = Database(str(tmp_path / "t.db"))
    await state.open()
    with pytest.raises(StateError, match="ledger is not a directory"):
        await UsageIndex(state, CONFIG).open()
    await state.close()


async def test_trouble_is_said_once_and_nothing_is_lost(made, caplog):
    made.write()
    async with full(made):
        for _ in range(3):
            await made.usage_index.catch_up()
        assert caplog.text.count("can't be added up") == 1
        assert "its lines stay" in caplog.text
        # No figures rather than old ones.
        with pytest.raises(sqlite3.OperationalError, match="can't be added up"):
            await made.requests()
    assert await made.requests() == 1
    async with full(made):
        made.write()
        await made.usage_index.catch_up()
        assert caplog.text.count("can't be added up") == 2  # new trouble


async def test_a_torn_line_is_said_once(kept, caplog):
    caplog.set_level(logging.WARNING)
    made = await kept()
    made.write()
    (made.usage_index.directory / "0000000000009-001-000000.jsonl").write_bytes(b'{"t":1,"inp\n')
    made.write()
    for _ in range(3):
        assert await made.requests() == 2
    assert caplog.text.count("has torn lines") == 1


async def test_where_totals_cant_be_written_a_month_is_still_whole(made, caplog):
    """What keys may use goes by it: a full disk must not give them their month anew."""
    made.write()
    await made.requests()
    for _ in range(5):
        made.write()
    made.ledger.close()
    await made.database.close()
    again = Kept(made.database.path)
    await again.database.open()
    async with full(again):
        used = await again.usage_index.open()
    assert used.keys["key_1"][:2] == (6 * 7, 6 * 5)
    assert "the ledger can't be added up" in caplog.text
    assert await again.requests() == 6
    await again.usage_index.close()
    await again.database.close()


async def test_two_who_ask_at_once_do_not_give_way_to_each_other_for_ever(made):
    for _ in range(10):
        made.write()
    async with asyncio.timeout(10):
        assert await asyncio.gather(made.requests(), made.requests(by="day")) == [10, 10]


async def test_what_reads_the_whole_ledger_ends_with_the_gateway(made):
    made.ledger.write(b'{"id":"req_1","t":%.1f,"key":"key_1","nusd":5}\n' % AT)
    [row] = (await made.usage_index.usage({"reprice": "true"}, NAMES))[1]
    assert (row["requests"], row["usd"], row["charged_usd"]) == (1, 5e-9, 5e-9)
    line = await made.usage_index.line("req_1", "key_1")
    assert line is not None and orjson.loads(line)["key"] == "key_1"
    assert await made.usage_index.line("req_1", "key_2") is None
    made.usage_index._is_closing = True
    for work in (made.usage_index.usage({"reprice": "true"}, NAMES), made.usage_index.line("req_0", "key_1")):
        with pytest.raises(sqlite3.OperationalError, match="shutting down"):
            await work
