"""Versions of the state's file: who moves it, what is kept of it, and that all others leave it alone."""

from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from unittest.mock import Mock

import pytest

from proxy.access.group import Group
from proxy.storage import schema_version
from proxy.storage.database import Database, connect, connect_to_read
from proxy.storage.group_table import store_group
from proxy.storage.key_table import change_key, load_keys
from proxy.storage.schema_version import VERSION, OtherVersion, StateError, check_file, version_in
from tests.support.keys import key_of, write_old


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.db"


def version(path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA user_version").fetchone()[0]


def names(path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [key.name for key in load_keys(database)]


def folder(path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}


def write_first(path) -> None:
    """A database of version 1, which knew no keys."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("CREATE TABLE live_rows (key TEXT PRIMARY KEY, saved_at REAL, state TEXT)")
        database.execute("PRAGMA user_version = 1")


# ---------------------------------------------------------------------- moved


def test_it_is_moved_once_and_a_copy_is_kept(path):
    write_old(path, key_of(name="a"))
    said: list[str] = []
    for _ in range(2):
        connect(str(path), said.append).close()
    kept = path.with_name("t.db.v2")
    where = f"the state database {path} was moved from version 2 to version 4"
    assert said == [f"{where}; {kept} is a copy of it as it was"]
    assert (version(path), version(kept)) == (4, 2)
    assert names(kept) == names(path) == ["a"]
    assert os.stat(kept).st_mode & 0o777 == 0o600


async def test_a_start_says_it_in_the_log(path, caplog):
    write_old(path)
    state = Database(str(path))
    await state.open()
    await state.close()
    [record] = caplog.records
    assert "from version 2 to version 4" in record.getMessage()
    assert f"{path}.v2" in record.getMessage()


def test_what_is_still_in_the_log_is_in_the_copy_too(path):
    """An earlier version may have been killed, or run on."""
    write_old(path, key_of(name="a"))
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_autocheckpoint = 0")
        other.execute("INSERT INTO live_rows VALUES ('1', 1.0, '{}')")
        other.commit()
        connect(str(path), [].append).close()
        with closing(sqlite3.connect(path.with_name("t.db.v2"))) as copy:
            assert copy.execute("SELECT key FROM live_rows").fetchall() == [("1",)]


def test_a_copy_of_before_stays(path):
    path.with_name("t.db.v2").write_text("of the last time")
    path.with_name("t.db.v2.part").write_text("of who was killed at it")
    write_old(path)
    said: list[str] = []
    connect(str(path), said.append).close()
    assert path.with_name("t.db.v2").read_text() == "of the last time"
    assert version(path.with_name("t.db.v2-2")) == 2
    assert "t.db.v2-2 is a copy" in said[0]
    assert not path.with_name("t.db.v2.part").exists()


def test_the_first_version_gets_the_tables_that_it_lacks(path):
    write_first(path)
    connect(str(path), [].append).close()
    assert (names(path), version(path), version(path.with_name("t.db.v1"))) == ([], 4, 1)


def test_keys_of_the_version_before_groups_are_read_on_and_get_them(path):
    write_old(path, key_of(rpm=5, monthly_nusd=7), version=3)
    with closing(connect(str(path), [].append)) as database:
        [key] = load_keys(database)
        assert (key.rpm, key.monthly_nusd, key.daily_nusd, key.soft, key.group) == (5, 7, None, False, None)
        store_group(database, Group(name="g", created=1))
        change_key(database, key.id, {"group": "g", "daily_tokens": 3}, 1.0)
    assert (version(path), version(path.with_name("t.db.v3"))) == (4, 3)
    assert check_file(str(path)) == VERSION


def test_several_that_move_it_at_once_make_one_copy(path):
    write_old(path)
    said: list[str] = []
    starts = threading.Barrier(4)

    def run(_: int) -> None:
        starts.wait()
        connect(str(path), said.append).close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert len(said) == 1
    assert sorted(name for name in folder(path) if ".v" in name) == ["t.db.v2"]


def test_without_a_copy_nothing_is_moved(path, monkeypatch):
    write_old(path, key_of(name="a"))
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(schema_version.os, "rename", full)
    with pytest.raises(StateError, match=r"version 2, and no copy .* version 4 \(No space left") as caught:
        connect(str(path), [].append)
    assert "make room" in caught.value.way_out
    assert version(path) == 2
    assert set(folder(path)) == {"t.db"}


def test_a_new_file_and_one_of_this_version_need_no_copy(path):
    said: list[str] = []
    for _ in range(2):
        connect(str(path), said.append).close()
    assert said == []
    assert set(folder(path)) == {"t.db"}
    assert version_in(str(path)) == VERSION


def test_totals_are_moved_whole_and_lines_are_not_counted_again(path):
    write_old(path, key_of("key_1"), key_of("key_2", b"th-" + b"x" * 43))
    kinds = (lambda: connect_to_read(str(path))[0], lambda: connect(str(path), [].append))
    for opened in kinds:
        with closing(opened()) as database:
            assert database.execute("SELECT * FROM usage").fetchall() == [
                (20_600, key, "", "m", "p", "", "", 0, 2, 1, 10, 4, 3, 5, 2, 7, 1, 9.5, 0)
                for key in ("key_1", "key_2")
            ]
            assert database.execute("SELECT * FROM ledger_files").fetchall() == [
                ("1700000000000-000-000001.jsonl", 1000, 0)
            ]
    with closing(sqlite3.connect(path.with_name("t.db.v2"))) as copy:
        assert len(copy.execute("SELECT * FROM usage").fetchone()) == 14


# ---------------------------------------------------------------------- only read


@pytest.mark.parametrize("write", [lambda path: write_old(path, key_of(name="a")), write_first])
def test_who_only_reads_gets_all_of_it_and_changes_nothing(path, write):
    write(path)
    before = folder(path)
    database, found = connect_to_read(str(path))
    with closing(database):
        assert found < VERSION
        assert len(load_keys(database)) == (found == 2)
        database.execute("DELETE FROM keys")
    assert check_file(str(path)) == version_in(str(path)) == found
    assert folder(path) == before


def test_who_only_reads_sees_what_one_that_runs_has_written(path):
    write_old(path, key_of("key_1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as running:
        running.execute("PRAGMA wal_autocheckpoint = 0")
        running.execute("INSERT INTO keys SELECT 'key_2', x'02', created, settings FROM keys")
        database, _ = connect_to_read(str(path))
        with closing(database):
            assert {key.id for key in load_keys(database)} == {"key_1", "key_2"}


def test_a_later_version_is_an_error_that_names_both(path):
    connect(str(path)).close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 7")
    before = folder(path)
    for open_it in (connect, connect_to_read, version_in, check_file):
        with pytest.raises(OtherVersion, match=r"version 7\b.*up to 4$"):
            open_it(str(path))
    assert folder(path) == before


# ---------------------------------------------------------------------- looked at


def test_nothing_there_or_in_it_is_no_damage(path):
    assert check_file(str(path)) == 0
    assert not path.exists()
    path.touch()
    assert check_file(str(path)) == 0
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StateError, match="not a database"):
        check_file(str(path))


def test_damage_is_found_without_changing_anything(path):
    connect(str(path)).close()
    with closing(sqlite3.connect(path)) as database:
        rows = [(str(n), "x" * 500) for n in range(99)]
        database.executemany("INSERT INTO live_rows VALUES (?, 1.0, ?)", rows)
        database.commit()
        [size] = database.execute("PRAGMA page_size").fetchone()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(path.read_bytes())
    data[-3 * size :] = os.urandom(8) * (3 * size // 8)
    path.write_bytes(data)
    before = folder(path)
    assert version_in(str(path)) == VERSION
    with pytest.raises(StateError):
        check_file(str(path))
    assert folder(path) == before


def test_a_key_or_a_group_that_cant_be_read_is_said(path):
    with closing(connect(str(path))) as database:
        database.execute("INSERT INTO keys VALUES ('key_1', 'x', 1, '{\"colour\": 1}')")
    with pytest.raises(StateError, match="key_1"):
        check_file(str(path))
    with closing(connect(str(path))) as database:
        database.execute("DELETE FROM keys")
        database.execute("INSERT INTO key_groups VALUES ('g', 1, '{\"colour\": 1}')")
    with pytest.raises(StateError, match="the group g can't be read"):
        check_file(str(path))
