"""The version of the state's file, and the move of an earlier version to this one.

Only programs that write to a file move it, and never without a copy of it as it was: an earlier version of
TokenHub refuses what a later one has written, so the copy is the way back. Commands that only read leave the
file as it is.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Callable
from urllib.parse import quote

from proxy.storage import group_table, key_table
from proxy.storage.ledger_ingest import MOVE_FROM_3
from proxy.storage.transaction import transaction

VERSION = 4
# How long a writer waits for another process. Three may wait one after the other: the ledger's totals, what
# was learned, and who has asked at the admin API, whose commands wait for 10 s.
BUSY_MS = 2500


class StateError(Exception):
    """The state can't be used. The text and ``way_out`` are parts of a sentence; a ``way_out`` of "" means
    that the usual one applies."""

    def __init__(self, text: str, way_out: str = "") -> None:
        super().__init__(text)
        self.way_out = way_out


class OtherVersion(StateError):
    """A later version of TokenHub has written the file."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"it has version {version}, of a later TokenHub; this one knows versions up to {VERSION}",
            "run the later TokenHub again, or put the copy back that it made when it moved the file "
            "(the file's name with '.v' and a version)",
        )


def version_in(path: str) -> int:
    """The version of a file; 0: it does not exist, or is empty. Nothing is changed.

    :raises StateError: it is no database, it is damaged, or a later version has written it.
    """
    if not os.path.lexists(path):
        return 0
    try:
        with contextlib.closing(open_as_it_is(path)) as database:
            return version_of(database)
    except sqlite3.Error as error:
        raise StateError(str(error)) from None


def check_file(path: str) -> int:
    """Check that the file is whole, and its keys and groups can be read. Returns its version. Nothing is
    changed.

    :raises StateError: as :func:`version_in`; or what is in the file is damaged.
    """
    version = version_in(path)
    if not version:
        return 0
    try:
        with contextlib.closing(open_as_it_is(path)) as database:
            [found] = database.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StateError(f"it is damaged: {' '.join(found.split())}")
            if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'keys'").fetchone():
                key_table.load_keys(database)
            if database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'key_groups'").fetchone():
                group_table.load_groups(database)
    except (sqlite3.Error, ValueError) as error:
        raise StateError(str(error)) from None
    return version


def open_as_it_is(path: str) -> sqlite3.Connection:
    """A connection that changes nothing in the file."""
    # Without a log beside it, no process has the file open: "immutable" makes neither a log nor locks then.
    mode = "mode=ro" if os.path.exists(path + "-wal") else "mode=ro&immutable=1"
    database = sqlite3.connect(f"file:{quote(os.path.abspath(path))}?{mode}", uri=True, isolation_level=None)
    database.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return database


def version_of(database: sqlite3.Connection) -> int:
    """The version in the file; 0: the file is empty. :raises OtherVersion: a later version."""
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise OtherVersion(version)
    return version


def move(database: sqlite3.Connection, path: str, say: Callable[[str], object]) -> None:
    """Bring a file of an earlier version to this one, after a copy of it was made. Tables that it lacks are
    the caller's to make.

    :param say: gets one line with both versions, and the path of the copy.
    :raises StateError: no copy can be made: nothing was changed. :raises sqlite3.Error: it can't be written.
    """
    with transaction(database):  # no other process writes from here on, so the copy is of what is moved
        version = version_of(database)
        if version == VERSION:  # another process was as quick
            return
        try:
            kept = _keep_copy(path, version)
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StateError(
                f"it has version {version}, and no copy of it can be made before it is moved to version "
                f"{VERSION} ({reason})",
                "make room for the copy beside it",
            ) from None
        bring_up(database)
        database.execute(f"PRAGMA user_version = {VERSION}")
    say(f"the state database {path} was moved from version {version} to version {VERSION}; {kept} is a copy "
        "of it as it was")  # fmt: skip


def bring_up(database: sqlite3.Connection) -> None:
    """Bring the tables of an earlier version to this one, within a transaction or in memory."""
    columns = [column[1] for column in database.execute("PRAGMA table_info(usage)")]
    if columns and "tags" not in columns:
        for statement in re.sub("--.*", "", MOVE_FROM_3).split(";"):  # executescript() would commit
            database.execute(statement)


def _keep_copy(path: str, version: int) -> str:
    """A copy of the file as it is, which is on the disk before this returns; its path.

    One that is there from before stays. :raises OSError, sqlite3.Error: it can't be made.
    """
    part = f"{path}.v{version}.part"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)  # of a process that was killed at it
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(part)) as target,
        ):
            source.backup(target)
        kept, number = f"{path}.v{version}", 1
        while os.path.lexists(kept):
            number += 1
            kept = f"{path}.v{version}-{number}"
        os.rename(part, kept)
    except BaseException:
        os.unlink(part)
        raise
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return kept
