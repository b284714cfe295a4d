"""The file that outlives the process; every database is real."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest

from proxy import state as state_module
from proxy.meters import Row
from proxy.rowstate import dump, restore
from proxy.state import VERSION, State


def learned() -> dict:
    row = Row(30.0)
    row.sent(9.5)
    row.asked("x", 9.5)
    row.first_byte("x", 10.0, 0)
    row.finished(10.0, True)
    return dump(row, 1e9)


async def saved(path: str, rows: dict) -> None:
    state = State(path)
    await state.open()
    await state.save(rows)
    await state.close()


async def test_what_is_saved_is_there_at_the_next_start(tmp_path):
    path = str(tmp_path / "t.db")
    await saved(path, {1: learned(), 2**64 - 1: learned()})
    state = State(path)
    found = await state.open()
    assert state.is_kept
    assert set(found) == {1, 2**64 - 1}
    restore(Row(30.0), found[1], -1e9)
    await state.save({1: {"newer": 1}})
    await state.close()
    assert not state.is_kept
    state = State(path)
    assert (await state.open())[1] == {"newer": 1}
    await state.close()


async def test_memory_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = State(":memory:")
    assert await state.open() == {}
    assert not state.is_kept
    await state.save({1: {}})
    await state.close()
    assert list(tmp_path.iterdir()) == []


async def test_what_nobody_used_for_a_month_goes(tmp_path, monkeypatch):
    path = str(tmp_path / "t.db")
    await saved(path, {1: {}})
    month_s = state_module._KEPT_S
    monkeypatch.setattr(state_module, "_KEPT_S", -5.0)  # as if it were later by that
    state = State(path)
    assert await state.open() == {}
    await state.close()
    assert month_s > 24 * 3600


def broken(path) -> None:
    path.write_bytes(b"no database at all, whatever its name may say" * 100)


def of_a_later_version(path) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    database.close()


def no_json(path) -> None:
    asyncio.run(saved(str(path), {1: {}}))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE live_rows SET state = 'x'")
    database.close()


def a_directory(path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [broken, of_a_later_version, no_json, a_directory])
async def test_a_file_that_cant_be_used_is_said_and_left_alone(tmp_path, caplog, spoil):
    path = tmp_path / "t.db"
    await asyncio.to_thread(spoil, path)
    before = path.read_bytes() if path.is_file() else None
    state = State(str(path))
    assert await state.open() == {}
    assert not state.is_kept
    await state.save({1: {}})
    await state.close()
    assert "nothing is kept" in caplog.text
    if before is not None and spoil is not no_json:
        assert path.read_bytes() == before


async def test_a_locked_file_is_said_and_tried_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(state_module, "_BUSY_MS", 10)
    path = str(tmp_path / "t.db")
    state = State(path)
    await state.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    await state.save({1: {"a": 1}})
    assert time.monotonic() - begun < 2.0
    assert "can't be written" in caplog.text
    other.execute("ROLLBACK")
    other.close()
    await state.save({1: {"a": 2}})
    await state.close()
    state = State(path)
    assert await state.open() == {1: {"a": 2}}
    await state.close()


async def test_saves_at_the_same_time_take_turns(tmp_path):
    state = State(str(tmp_path / "t.db"))
    await state.open()
    await asyncio.gather(*(state.save({1: {"n": number}}) for number in range(20)), state.close())
    state = State(str(tmp_path / "t.db"))
    assert set(await state.open()) <= {1}
    await state.close()
