"""A transaction in SQLite, for connections in autocommit mode."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(database: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """Write all of it or nothing. From its first statement on, nobody else writes.

    :param kind: ``DEFERRED``: only read, all as it was at one moment; others may write meanwhile.
    """
    database.execute(f"BEGIN {kind}")
    try:
        yield
        database.execute("COMMIT")
    finally:
        if database.in_transaction:  # SQLite itself rolls back after some errors, such as a full disk
            database.execute("ROLLBACK")
