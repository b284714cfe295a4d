"""A transaction: all or nothing, alone from its beginning, and over once it has failed."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest

from proxy.storage.transaction import transaction


@pytest.fixture
def database(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as opened:
        opened.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
        yield opened


def rows(database: sqlite3.Connection) -> list[int]:
    return [number for (number,) in database.execute("SELECT n FROM t ORDER BY n")]


def test_all_is_written(database):
    with transaction(database):
        database.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
        assert database.in_transaction
    assert (rows(database), database.in_transaction) == ([1, 2], False)


@pytest.mark.parametrize("way", ["INSERT", "INSERT OR ROLLBACK"])  # which has SQLite roll back by itself
def test_nothing_is_written_after_an_error(database, way):
    with pytest.raises(sqlite3.IntegrityError), transaction(database):
        database.executemany(f"{way} INTO t VALUES (?)", [(1,), (1,)])
    assert (rows(database), database.in_transaction) == ([], False)
    with transaction(database):  # and the next one goes well
        database.execute("INSERT INTO t VALUES (3)")
    assert rows(database) == [3]


def test_leaving_early_writes(database):
    def leave() -> None:
        with transaction(database):
            database.execute("INSERT INTO t VALUES (1)")
            return

    leave()
    assert (rows(database), database.in_transaction) == ([1], False)


def test_nobody_writes_beside(database, tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db", timeout=0, isolation_level=None)) as other:
        with transaction(database), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("INSERT INTO t VALUES (9)")
        other.execute("INSERT INTO t VALUES (4)")
    assert rows(database) == [4]


def test_one_that_only_reads_sees_one_moment_and_lets_others_write(database, tmp_path):
    database.execute("PRAGMA journal_mode = WAL")
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as other:
        with transaction(database, "DEFERRED"):
            assert rows(database) == []
            with transaction(other):
                other.execute("INSERT INTO t VALUES (1)")
            assert rows(database) == []
        assert rows(database) == [1]
