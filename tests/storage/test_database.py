"""The file that outlives the process; every database is real."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import pytest

from proxy.deployments.row import Row
from proxy.deployments.row_snapshot import dump, restore
from proxy.storage import database as state_module
from proxy.storage.database import Database, check_ledger, check_place, connect, explain, make_ledger
from proxy.storage.ledger_files import directory_of
from proxy.storage.schema_version import VERSION, StateError


def learned() -> dict:
    row = Row(30.0)
    row.sent(9.5)
    row.asked("x", 9.5)
    row.first_byte("x", 10.0, 0)
    row.finished(10.0, True)
    return dump(row, 1e9)


async def saved(path: str, rows: dict) -> None:
    state = Database(path)
    await state.open()
    await state.save(rows)
    await state.close()


async def test_what_is_saved_is_there_at_the_next_start(tmp_path):
    path = str(tmp_path / "t.db")
    await saved(path, {1: learned(), 2**64 - 1: learned()})
    state = Database(path)
    await state.open()
    found = await state.rows()
    assert state.is_kept
    assert set(found) == {1, 2**64 - 1}
    restore(Row(30.0), found[1], -1e9)
    await state.save({1: {"newer": 1}})
    await state.close()
    assert not state.is_kept
    state = Database(path)
    await state.open()
    assert (await state.rows())[1] == {"newer": 1}
    await state.close()


async def test_memory_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = Database(":memory:")
    await state.open()
    assert await state.rows() == {}
    assert not state.is_kept
    await state.save({1: {}})
    assert await state.rows() == {}
    await state.close()
    assert list(tmp_path.iterdir()) == []


async def test_what_nobody_used_for_a_month_goes(tmp_path, monkeypatch):
    path = str(tmp_path / "t.db")
    await saved(path, {1: {}})
    month_s = state_module._KEPT_S
    monkeypatch.setattr(state_module, "_KEPT_S", -5.0)  # as if it were later by that
    state = Database(path)
    await state.open()
    assert await state.rows() == {}
    await state.save({2: {}})
    monkeypatch.setattr(state_module, "_KEPT_S", month_s)
    assert await state.rows() == {2: {}}  # the other one is not there any more
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


@pytest.mark.parametrize("spoil", [broken, of_a_later_version, a_directory])
async def test_a_file_that_cant_be_used_is_refused_and_left_alone(tmp_path, spoil):
    """It may hold keys: nobody is to be let in for want of them."""
    path = tmp_path / "t.db"
    await asyncio.to_thread(spoil, path)
    before = path.read_bytes() if path.is_file() else None
    state = Database(str(path))
    with pytest.raises(StateError):
        await state.open()
    assert not state.is_kept
    await state.close()
    if before is not None:
        assert path.read_bytes() == before


async def test_rows_that_cant_be_read_are_said_and_done_without(tmp_path, caplog):
    path = tmp_path / "t.db"
    await asyncio.to_thread(no_json, path)
    state = Database(str(path))
    await state.open()
    assert await state.rows() == {}
    assert "can't be read" in caplog.text
    await state.save({1: {"a": 1}})
    assert await state.rows() == {1: {"a": 1}}
    await state.close()


@contextlib.contextmanager
def as_nobody():
    """As a user whom permissions hold for; where the tests are another's than root's, they do already."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that every user may use, and enter by its path."""
    path = Path(tempfile.mkdtemp(prefix="tokenhub-test-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
        yield path
    finally:
        for folder, _, _ in os.walk(path):
            os.chmod(folder, 0o700)
        shutil.rmtree(path)


def make_as_nobody(path: Path) -> None:
    path.parent.mkdir()
    connect(str(path)).close()


def unmounted(path: Path) -> None:
    """The disk is not there: nor is its directory."""


def a_file_instead(path: Path) -> None:
    path.parent.write_text("x")


def not_to_be_entered(path: Path) -> None:
    make_as_nobody(path)
    path.parent.chmod(0)


def hidden_further_up(path: Path) -> None:
    make_as_nobody(path)
    path.parent.parent.chmod(0)


def not_to_be_written(path: Path) -> None:
    make_as_nobody(path)
    path.parent.chmod(0o555)


def not_to_be_written_yet_empty(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o555)


def a_file_of_others(path: Path) -> None:
    make_as_nobody(path)
    path.chmod(0o444)


def a_link_to_nowhere(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.parent.parent / "volume" / "t.db")


@pytest.mark.parametrize(
    ("spoil", "why", "way_out"),
    [
        (unmounted, "state does not exist", "mkdir -p"),
        (a_file_instead, "state is no directory", "remove or rename"),
        (not_to_be_entered, "may not enter its directory", "chown"),
        (hidden_further_up, "may not enter its directory", "chown"),
        (not_to_be_written, "may not write to its directory", "chown"),
        (not_to_be_written_yet_empty, "may not write to its directory", "chown"),
        (a_file_of_others, "may not read and write it", "chown"),
        (a_link_to_nowhere, "volume does not exist", "mount"),
    ],
)
def test_a_place_that_cant_be_used_is_an_error_with_a_way_out(open_folder, spoil, why, way_out):
    """There may be keys in it. Nothing is made there, and nothing is kept elsewhere."""
    path = open_folder / "state" / "t.db"
    with as_nobody():
        spoil(path)
        for look in (connect, check_place):
            with pytest.raises(StateError) as caught:
                look(str(path))
            said = explain(str(path), caught.value)
            assert said.startswith(f"[state] path {path} can't be used: ")
            assert why in said and way_out in said and 'path = ":memory:" keeps nothing' in said
    assert not (open_folder / "volume").exists()


def test_a_ledger_that_cant_be_written_is_as_bad_as_the_file(open_folder):
    path = str(open_folder / "t.db")
    with as_nobody():
        check_ledger(path)
        make_ledger(path)
        make_ledger(path)
        check_ledger(path)
        directory_of(path).chmod(0o500)
        for look in (make_ledger, check_ledger):
            with pytest.raises(StateError, match="may not write to the ledger's directory"):
                look(path)
        directory_of(path).rmdir()
        directory_of(path).write_text("x")
        with pytest.raises(StateError, match="is no directory"):
            make_ledger(path)


def test_a_full_disk_has_no_room_for_the_ledgers_directory_and_does_not_stop_the_start(
    tmp_path, monkeypatch, caplog
):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    make_ledger(str(tmp_path / "t.db"))
    assert "No space left on device" in caplog.text


async def test_others_may_not_read_it(tmp_path):
    state = Database(str(tmp_path / "t.db"))
    await state.open()
    assert (tmp_path / "t.db").stat().st_mode & 0o777 == 0o600
    await state.close()


async def test_work_that_nobody_waits_for_any_more_is_still_the_only_one(tmp_path):
    state = Database(str(tmp_path / "t.db"))
    await state.open()
    begun, go_on = threading.Event(), threading.Event()

    def slow(database):
        begun.set()
        assert go_on.wait(10)

    task = asyncio.get_running_loop().create_task(state.run(slow))
    await asyncio.to_thread(begun.wait, 10)
    task.cancel()
    closing = asyncio.get_running_loop().create_task(state.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_locked_file_is_said_and_tried_again(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(state_module, "BUSY_MS", 10)
    path = str(tmp_path / "t.db")
    state = Database(path)
    await state.open()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert await state.rows() == {}  # what is read needs nobody's leave
    begun = time.monotonic()
    await state.save({1: {"a": 1}})
    assert time.monotonic() - begun < 2.0
    assert "can't be written" in caplog.text
    assert "can't be read" not in caplog.text
    other.execute("ROLLBACK")
    other.close()
    await state.save({1: {"a": 2}})
    await state.close()
    state = Database(path)
    await state.open()
    assert await state.rows() == {1: {"a": 2}}
    await state.close()


async def test_saves_at_the_same_time_take_turns(tmp_path):
    state = Database(str(tmp_path / "t.db"))
    await state.open()
    await asyncio.gather(*(state.save({1: {"n": number}}) for number in range(20)), state.close())
    state = Database(str(tmp_path / "t.db"))
    await state.open()
    assert set(await state.rows()) <= {1}
    await state.close()


def test_a_file_that_is_there_is_opened_without_writing_to_it(tmp_path):
    """A full disk takes nothing, and must not keep a gateway with all its keys from starting."""
    path = str(tmp_path / "t.db")
    connect(path).close()
    before = (tmp_path / "t.db").read_bytes()
    with contextlib.closing(connect(path)) as database:
        assert database.total_changes == 0
        log = tmp_path / "t.db-wal"
        assert not log.exists() or log.stat().st_size == 0
    assert (tmp_path / "t.db").read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
@pytest.mark.parametrize("kind", ["file", "link", "-wal", "-ledger"])
def test_what_somebody_else_put_where_everybody_writes_is_not_used(tmp_path, kind):
    """It may hold keys of his own, or lead to a file that he wants written to."""
    path = tmp_path / "t.db"
    other = tmp_path / "target"
    if kind == "file":
        connect(str(path)).close()
        os.chown(path, 65534, 65534)
    elif kind == "link":
        path.symlink_to(other)
        os.chown(path, 65534, 65534, follow_symlinks=False)
    else:
        beside = tmp_path / f"t.db{kind}"
        beside.mkdir() if kind == "-ledger" else beside.write_bytes(b"x" * 32)
        os.chown(beside, 65534, 65534)
    tmp_path.chmod(0o1777)
    with pytest.raises(StateError, match="somebody else"):
        connect(str(path))
    assert not other.exists()
    if kind != "-wal":
        tmp_path.chmod(0o700)  # here nobody else can have put it
        connect(str(path)).close()


def test_a_file_of_ours_is_used_wherever_it_is(tmp_path):
    tmp_path.chmod(0o1777)
    for _ in range(2):
        connect(str(tmp_path / "t.db")).close()
