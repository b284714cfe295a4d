"""What outlives the process, in SQLite: so far what the live rows have learned.

Trouble with the disk is said in the log and never stops the gateway: it then goes without.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from typing import Any

import orjson

log = logging.getLogger("tokenhub.state")

# Of the tables below. A file of a later version is left alone.
VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS live_rows (
    key TEXT PRIMARY KEY,       -- of proxy.deployment.Deployment.key_of, in hex
    saved_at REAL NOT NULL,     -- Unix seconds
    state TEXT NOT NULL         -- JSON of proxy.rowstate.dump
) WITHOUT ROWID;
"""
# A row that nobody has used for so long is of a model that has gone.
_KEPT_S = 30 * 24 * 3600.0
_BUSY_MS = 2000


class State:
    """See the module's text.

    :param path: of the file; ``:memory:``: nothing is kept.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._database: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()

    @property
    def is_kept(self) -> bool:
        """There is a file, and it can be used."""
        return self._database is not None

    async def open(self) -> dict[int, dict[str, Any]]:
        """Open the file, or make it; what was saved, by key, with Unix seconds."""
        if self._path == ":memory:":
            return {}
        try:
            self._database, rows = await asyncio.to_thread(_open, self._path)
        except (sqlite3.Error, OSError, ValueError) as error:
            log.warning("[state] path %s can't be used (%s): nothing is kept", self._path, error)
            return {}
        return rows

    async def save(self, rows: dict[int, dict[str, Any]]) -> None:
        """Keep what the rows have learned; it replaces what is there of them."""
        database = self._database
        if database is None:
            return
        async with self._lock:
            try:
                await asyncio.to_thread(_save, database, rows, time.time())
            except sqlite3.Error as error:
                log.warning("what was learned can't be written to %s: %s", self._path, error)

    async def close(self) -> None:
        """Close the file."""
        async with self._lock:
            database, self._database = self._database, None
            if database is not None:
                await asyncio.to_thread(database.close)


def _open(path: str) -> tuple[sqlite3.Connection, dict[int, dict[str, Any]]]:
    # Used by one thread at a time, though not always by the same.
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    try:
        database.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        [version] = database.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ValueError("it was written by a later version of TokenHub")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_TABLES)
        database.execute(f"PRAGMA user_version = {VERSION}")
        database.execute("DELETE FROM live_rows WHERE saved_at < ?", (time.time() - _KEPT_S,))
        rows = {int(key, 16): orjson.loads(state) for key, state in database.execute(_ALL)}
    except BaseException:
        database.close()
        raise
    return database, rows


_ALL = "SELECT key, state FROM live_rows"


def _save(database: sqlite3.Connection, rows: dict[int, dict[str, Any]], now: float) -> None:
    values = [(f"{key:016x}", now, orjson.dumps(state).decode()) for key, state in rows.items()]
    database.execute("BEGIN IMMEDIATE")
    try:
        database.executemany("INSERT OR REPLACE INTO live_rows VALUES (?, ?, ?)", values)
        database.execute("COMMIT")
    except BaseException:
        database.execute("ROLLBACK")
        raise
