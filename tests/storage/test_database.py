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
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import Mock

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


@contextlib.asynccontextmanager
async def opened(path: Path | str) -> AsyncIterator[Database]:
    state = Database(str(path))
    await state.open()
    try:
        yield state
    finally:
        await state.close()


async def saved(path: Path, rows: dict) -> None:
    async with opened(path) as state:
        await state.save(rows)


async def rows_of(path: Path) -> dict:
    """As the next start finds them."""
    async with opened(path) as state:
        return await state.rows()


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "t.db"


async def test_what_is_saved_is_there_at_the_next_start(path):
    await saved(path, {1: learned(), 2**64 - 1: learned()})
    async with opened(path) as state:
        found = await state.rows()
        assert state.is_kept
        assert set(found) == {1, 2**64 - 1}
        restore(Row(30.0), found[1], -1e9)
        await state.save({1: {"newer": 1}})
    assert not state.is_kept
    assert (await rows_of(path))[1] == {"newer": 1}
    assert path.stat().st_mode & 0o777 == 0o600  # others may not read it


async def test_memory_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with opened(":memory:") as state:
        assert await state.rows() == {}
        assert not state.is_kept
        await state.save({1: {}})
        assert await state.rows() == {}
    assert list(tmp_path.iterdir()) == []


async def test_what_nobody_used_for_a_month_goes(path, monkeypatch):
    await saved(path, {1: {}})
    month_s = state_module._KEPT_S
    monkeypatch.setattr(state_module, "_KEPT_S", -5.0)  # as if it were later by that
    async with opened(path) as state:
        assert await state.rows() == {}
        await state.save({2: {}})
        monkeypatch.setattr(state_module, "_KEPT_S", month_s)
        assert await state.rows() == {2: {}}  # the other one is not there any more
    assert month_s > 24 * 3600


def execute(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no database at all, whatever its name may say" * 100),
        lambda path: execute(path, f"PRAGMA user_version = {VERSION + 1}"),
        Path.mkdir,
        lambda path: (connect(str(path)).close(), os.truncate(path, path.stat().st_size // 2 + 100)),
    ],
    ids=["broken", "of a later version", "a directory", "truncated"],
)
async def test_a_file_that_cant_be_used_is_refused_and_left_alone(path, spoil):
    """It may hold keys: nobody is to be let in for want of them."""
    spoil(path)
    before = path.read_bytes() if path.is_file() else None
    state = Database(str(path))
    with pytest.raises(StateError):
        await state.open()
    assert not state.is_kept
    await state.close()
    if before is not None:
        assert path.read_bytes() == before


async def test_rows_that_cant_be_read_are_said_and_done_without(path, caplog):
    await saved(path, {1: {}})
    execute(path, "UPDATE live_rows SET state = 'x'")  # no JSON
    async with opened(path) as state:
        assert await state.rows() == {}
        assert "can't be read" in caplog.text
        await state.save({1: {"a": 1}})
        assert await state.rows() == {1: {"a": 1}}


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


def a_link_to_nowhere(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.parent.parent / "volume" / "t.db")


def of_mode(mode: int, of: Callable[[Path], Path]) -> Callable[[Path], None]:
    """A database was made there; then the mode of the path that ``of`` gives is changed."""

    def spoil(path: Path) -> None:
        make_as_nobody(path)
        of(path).chmod(mode)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "why", "way_out"),
    [
        (lambda path: None, "state does not exist", "mkdir -p"),  # such as a disk that is not mounted
        (lambda path: path.parent.write_text("x"), "state is not a directory", "remove or rename"),
        (of_mode(0, lambda path: path.parent), "may not enter its directory", "chown"),
        (of_mode(0, lambda path: path.parent.parent), "may not enter its directory", "chown"),
        (of_mode(0o555, lambda path: path.parent), "may not write to its directory", "chown"),
        (lambda path: path.parent.mkdir(0o555), "may not write to its directory", "chown"),
        (of_mode(0o444, lambda path: path), "may not read and write it", "chown"),
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
        with pytest.raises(StateError, match="is not a directory"):
            make_ledger(path)


def test_a_full_disk_has_no_room_for_the_ledgers_directory_and_does_not_stop_the_start(
    path, monkeypatch, caplog
):
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(Path, "mkdir", full)
    make_ledger(str(path))
    assert "No space left on device" in caplog.text


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


async def test_a_locked_file_is_said_and_tried_again(path, caplog, monkeypatch):
    monkeypatch.setattr(state_module, "BUSY_MS", 10)
    async with opened(path) as state:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert await state.rows() == {}  # what is read needs nobody's leave
            begun = time.monotonic()
            await state.save({1: {"a": 1}})
            assert time.monotonic() - begun < 2.0
            assert "can't be written" in caplog.text
            assert "can't be read" not in caplog.text
            other.execute("ROLLBACK")
        await state.save({1: {"a": 2}})
    assert await rows_of(path) == {1: {"a": 2}}


async def test_saves_at_the_same_time_take_turns(path):
    state = Database(str(path))
    await state.open()
    await asyncio.gather(*(state.save({1: {"n": number}}) for number in range(20)), state.close())
    assert set(await rows_of(path)) <= {1}


def test_a_file_that_is_there_is_opened_without_writing_to_it(path):
    """A full disk takes nothing, and must not keep a gateway with all its keys from starting."""
    connect(str(path)).close()
    before = path.read_bytes()
    with contextlib.closing(connect(str(path))) as database:
        assert database.total_changes == 0
        log = path.with_name("t.db-wal")
        assert not log.exists() or log.stat().st_size == 0
    assert path.read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
@pytest.mark.parametrize("kind", ["file", "link", "-wal", "-ledger"])
def test_what_somebody_else_put_where_everybody_writes_is_not_used(tmp_path, path, kind):
    """It may hold keys of his own, or lead to a file that he wants written to."""
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


def test_a_file_of_ours_is_used_wherever_it_is(tmp_path, path):
    tmp_path.chmod(0o1777)
    for _ in range(2):
        connect(str(path)).close()
