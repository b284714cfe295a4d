"""The state in SQLite: the keys, the ledger's totals, and what the live rows have learned.

If the file can't be made, read or written, the gateway doesn't start: there may be keys in it (on a disk that
is not mounted, in a directory that may not be entered), and missing keys must not mean open access. Only
:data:`IN_MEMORY` keeps nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shlex
import sqlite3
import stat
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar

import orjson

from proxy.storage import key_table, ledger_ingest
from proxy.storage.ledger_files import directory_of
from proxy.storage.schema_version import (
    BUSY_MS,
    VERSION,
    StateError,
    bring_up,
    move,
    open_as_it_is,
    version_in,
    version_of,
)
from proxy.storage.transaction import transaction

log = logging.getLogger("tokenhub.state")

IN_MEMORY = ":memory:"
_TABLES = """
CREATE TABLE IF NOT EXISTS live_rows (
    key TEXT PRIMARY KEY,       -- of proxy.deployments.deployment.Deployment.key_of, in hex
    saved_at REAL NOT NULL,     -- Unix seconds
    state TEXT NOT NULL         -- JSON of proxy.deployments.row_snapshot.dump
) WITHOUT ROWID;
"""
# What SQLite and the ledger keep beside the file.
_BESIDE = ("-wal", "-shm", "-journal", "-ledger")
# A row that was not used for this long is of a model that was removed.
_KEPT_S = 30 * 24 * 3600.0

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Database:
    """The state's file, used by one thread at a time.

    :param path: of the file; ``:memory:``: nothing is kept.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_kept = False  # the file is open
        self.waiting = 0  # tasks that wait for their turn
        self._connection: sqlite3.Connection | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Open the file, or make it. :raises StateError: it can't be used."""
        self._connection = await asyncio.to_thread(connect, self.path)
        self.is_kept = self.path != IN_MEMORY

    async def run(
        self, work: Callable[Concatenate[sqlite3.Connection, _P], _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Do ``work`` with the database, in a thread; one at a time.

        :raises sqlite3.Error: what it raises.
        """
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        try:
            database = self._connection
            if database is None:
                raise sqlite3.ProgrammingError("the state is closed")
            done = asyncio.get_running_loop().run_in_executor(None, partial(work, database, *args, **kwargs))
            try:
                return await asyncio.shield(done)
            finally:  # even if the caller is gone, the next must not begin before this has ended
                if not done.done():
                    await asyncio.wait((done,))
        finally:
            self._lock.release()

    async def rows(self) -> dict[int, dict[str, Any]]:
        """Return what was learned, by the row's key, with Unix seconds."""
        try:
            return await self.run(_rows)
        except (sqlite3.Error, ValueError) as error:
            log.warning("learned figures can't be read from %s: %s", self.path, error)
            return {}

    async def save(self, rows: dict[int, dict[str, Any]]) -> None:
        """Write what the rows have learned, in place of what is stored of them."""
        if not self.is_kept:
            return
        try:
            await self.run(_save, rows, time.time())
        except sqlite3.Error as error:
            log.warning("learned figures can't be written to %s: %s", self.path, error)

    async def close(self) -> None:
        """Close the file."""
        self.is_kept = False
        async with self._lock:
            database, self._connection = self._connection, None
            if database is not None:
                await asyncio.to_thread(database.close)


def connect(path: str, say: Callable[[str], object] = log.warning) -> sqlite3.Connection:
    """Open the file for writing, with its tables. Make it if it does not exist.

    A file of an earlier version is moved to this one, and a copy of it as it was is kept beside it.

    :param say: gets one line if the file was moved.
    :raises StateError: it can't be used.
    """
    try:
        if path != IN_MEMORY:
            check_place(path)
            if not os.path.lexists(path):  # other users must not read it
                with contextlib.suppress(FileExistsError):  # another process was as quick
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        # Used by one thread at a time, though not always by the same.
        database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise StateError(getattr(error, "strerror", None) or str(error)) from None
    try:
        database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        if 0 < version_of(database) < VERSION:
            move(database, path, say)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.executescript(_TABLES + key_table.TABLES + ledger_ingest.TABLES)
        if version_of(database) != VERSION:  # it is written even if it is the same: a full disk refuses that
            database.execute(f"PRAGMA user_version = {VERSION}")
    except sqlite3.Error as error:
        database.close()
        raise StateError(str(error)) from None
    except BaseException:
        database.close()
        raise
    return database


def connect_to_read(path: str) -> tuple[sqlite3.Connection, int]:
    """Open the file for a command that only reads; and the version that it has.

    Of a file of an earlier version, a copy in memory is opened, which has this version's tables: the file
    itself stays as it is.

    :raises StateError: it can't be used.
    """
    version = version_in(path)
    if not 0 < version < VERSION:
        return connect(path), VERSION
    database = sqlite3.connect(IN_MEMORY, isolation_level=None)
    try:
        with contextlib.closing(open_as_it_is(path)) as source:
            source.backup(database)
        bring_up(database)
        database.executescript(_TABLES + key_table.TABLES + ledger_ingest.TABLES)
    except sqlite3.Error as error:
        database.close()
        raise StateError(str(error)) from None
    return database, version


def check_place(path: str) -> None:
    """Check that the file can be made, read and written. Nothing is changed.

    :raises StateError: it can't.
    """
    for place in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):  # it may be a link
        _check_folder(os.path.dirname(place), "its directory")
    _check_owner(path)
    if os.path.isfile(path) and not _may(path, os.R_OK | os.W_OK):
        raise StateError(f"{_user()} may not read and write it", "give it to that user (chown, chmod)")


def check_ledger(path: str) -> None:
    """Check that the ledger's directory beside the file, if it exists, can be used.

    :raises StateError: it can't.
    """
    ledger = directory_of(path)
    if os.path.lexists(ledger):
        _check_folder(str(ledger), "the ledger's directory")


def make_ledger(path: str) -> None:
    """Make the ledger's directory beside the file.

    :raises StateError: it can't be made or used; a full disk is only logged, as it may have room again.
    """
    check_ledger(path)
    ledger = directory_of(path)
    try:
        ledger.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise StateError(f"the ledger's directory {ledger} can't be made ({error.strerror})") from None
        log.error("the ledger's directory %s can't be made: %s", ledger, error.strerror)


def _check_folder(folder: str, what: str) -> None:
    try:
        mode = os.stat(folder).st_mode
    except (FileNotFoundError, NotADirectoryError):
        way_out = f"make it ('mkdir -p {shlex.quote(folder)}'), or mount the disk it is on"
        raise StateError(f"{what} {folder} does not exist", way_out) from None
    except OSError as error:
        text = f"{_user()} may not enter {what} {folder} ({error.strerror})"
        raise StateError(text, "let that user in (chown, chmod) on each directory of the path") from None
    if not stat.S_ISDIR(mode):
        raise StateError(f"{what} {folder} is not a directory", "remove or rename what has its name")
    if not _may(folder, os.X_OK):
        raise StateError(f"{_user()} may not enter {what} {folder}", "let that user in (chown, chmod)")
    if not _may(folder, os.W_OK | os.R_OK):
        way_out = "give it to that user (chown, chmod), or mount its disk for writing"
        raise StateError(f"{_user()} may not write to {what} {folder}", way_out)


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _user() -> str:
    return f"the user with the id {os.geteuid()}"


def _check_owner(path: str) -> None:
    """Refuse files of other users in a directory where everybody may write, such as /tmp: they may have put a
    link there, or keys of their own. The rule is that of Linux's fs.protected_regular, which is not on
    everywhere.

    :raises StateError: a file belongs neither to us nor to the directory's owner. :raises OSError: …
    """
    folder = os.stat(os.path.dirname(os.path.abspath(path)))
    if not folder.st_mode & stat.S_IWOTH:
        return
    for name in (path, *(path + ending for ending in _BESIDE)):
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(name).st_uid not in (os.geteuid(), folder.st_uid):
                text = f"{name} belongs to somebody else, in a directory where everybody can write"
                raise StateError(text)


def explain(path: str, error: Exception) -> str:
    """Explain in two sentences what is wrong with [state] path, and the way out."""
    memory = f'path = "{IN_MEMORY}" keeps nothing'
    if isinstance(error, StateError) and error.way_out:
        way_out = f"{error.way_out}; or name another path ({memory})"
    elif "locked" in str(error):  # the file is whole: to remove it would lose keys for nothing
        way_out = f"end what keeps it so ('fuser {shlex.quote(path)}' tells), and start again"
    else:
        way_out = f"repair or remove it, or name another file ({memory})"
    return (
        f"[state] path {path} can't be used: {error}. There may be keys in it, so nothing is served without "
        f"it: {way_out}."
    )


def _rows(database: sqlite3.Connection) -> dict[int, dict[str, Any]]:
    """Read without writing, which works while another process has the file locked."""
    found = database.execute("SELECT key, state FROM live_rows WHERE saved_at >= ?", (time.time() - _KEPT_S,))
    return {int(key, 16): orjson.loads(state) for key, state in found}


def _save(database: sqlite3.Connection, rows: dict[int, dict[str, Any]], now: float) -> None:
    values = [(f"{key:016x}", now, orjson.dumps(state).decode()) for key, state in rows.items()]
    with transaction(database):
        database.execute("DELETE FROM live_rows WHERE saved_at < ?", (now - _KEPT_S,))
        database.executemany("INSERT OR REPLACE INTO live_rows VALUES (?, ?, ?)", values)
