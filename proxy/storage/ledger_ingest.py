"""The reading half of the ledger: new lines of its files become totals in SQLite, each exactly once.

Each worker process appends a line per finished request to a file of its own, ``<start>-<worker>-<n>.jsonl``:
Unix milliseconds at which it started, its number, and how often it has begun a new file. A file is never
taken up again by another process, so its name and an offset say which lines have been counted. Offset and
totals change in one transaction: a process that is killed at any instant has either counted a slice or not.

The order in which things happen is what makes it exact:

1. A slice is read and summed outside of any transaction, from the offset that was last known.
2. In the transaction, the offset must still be that one. If another process was faster, the sums are thrown
   away, and reading goes on from where that one is.
3. A file goes only once all of it is counted, nobody writes to it, and the totals are on the disk. Its offset
   goes after it: a row without a file is harmless, a file without its row would be counted again. That is why
   rows of files that an operator has taken away stay, too: the files may come back.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from proxy.config.settings import UsageConfig
from proxy.storage import tag_table
from proxy.storage.transaction import transaction
from proxy.usage.pricing import Prices
from proxy.usage.tally import Group, Totals, add, cut

log = logging.getLogger("tokenhub.ledger")

TABLES = f"""
CREATE TABLE IF NOT EXISTS ledger_files (
    name TEXT PRIMARY KEY,
    offset INTEGER NOT NULL,            -- bytes that have been counted
    torn INTEGER NOT NULL DEFAULT 0     -- lines that were skipped
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    day INTEGER NOT NULL,               -- since 1970-01-01, UTC
    key TEXT NOT NULL,                  -- its id; '': none
    key_group TEXT NOT NULL,            -- its name; '': none, or counted by an earlier version
    model TEXT NOT NULL,                -- '': the request got to none
    provider TEXT NOT NULL,
    alias TEXT NOT NULL,                -- '': the request named none, or as above
    endpoint TEXT NOT NULL,             -- '': as above
    tags INTEGER NOT NULL,              -- of tag_sets; {tag_table.NO_SET}: none
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,            -- status 400 and above
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    nusd INTEGER NOT NULL,              -- 1e-9 USD
    estimated INTEGER NOT NULL,         -- requests whose tokens no provider told; attempts that lost a hedge
    last_at REAL NOT NULL,              -- Unix seconds
    saved_nusd INTEGER NOT NULL,        -- that cached tokens cost less than others
    PRIMARY KEY (day, key, key_group, model, provider, alias, endpoint, tags)
) WITHOUT ROWID;
{tag_table.TABLES}
"""
# Totals of version 3 and before, which were by day, key, model and provider.
MOVE_FROM_3 = f"""
ALTER TABLE usage RENAME TO usage_3;
{TABLES}
INSERT INTO usage SELECT day, key, '', model, provider, '', '', {tag_table.NO_SET}, requests, errors,
    input_tokens, cached_tokens, cache_write_tokens, output_tokens, reasoning_tokens, nusd, estimated,
    last_at, 0 FROM usage_3;
DROP TABLE usage_3;
"""  # noqa: S608 - of what stands above

# What a transaction takes: large enough that its price vanishes (some 3,000 lines), small enough that neither
# the memory nor what is read again after a kill matters.
SLICE_BYTES = 1024 * 1024
# Lines between two pauses. In the one-process case the event loop waits for the interpreter's lock as long as
# they take: under half a millisecond. Left to itself, the interpreter would switch only every 5 ms.
LINES_AT_ONCE = 200
# A pause of no length would give the lock back and take it again before the loop's thread has woken up.
PAUSE_S = 0.0005
_NAME = re.compile(r"([0-9]{13})-([0-9]{3,})-([0-9]{6,})\.jsonl")


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of one call of :func:`ingest`."""

    lines: int  # counted
    torn: int  # skipped
    deleted: int  # files
    kept_bytes: int  # size of the files that are left


class _File(NamedTuple):
    writer: tuple[int, int]  # its start, and the worker's number
    number: int
    path: Path
    size: int
    written_ns: int


def pause(seconds: float = PAUSE_S) -> None:
    """Let the other threads have the interpreter."""
    time.sleep(seconds)


def is_locked(path: Path) -> bool:
    """Check whether the writer of a file runs: writers hold ``flock(LOCK_EX)`` on their file, which ends with
    the process.

    Not ``lockf``: that kind is lost as soon as the same process closes another descriptor of the file, which
    is what ingesting in a thread does.
    """
    try:
        with path.open("rb") as file:
            # Shared, so that two checks at the same time don't take each other for the writer.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held, or unknown: the file is spared either way
        return True
    return False


def ingest(
    database: sqlite3.Connection,
    directory: Path,
    keep_bytes: int,
    is_alive: Callable[[Path], bool] = is_locked,
    pause: Callable[[], object] = pause,
    said: set[tuple[str, str]] | None = None,
    tag_values: int = UsageConfig().tag_values,
    prices: Mapping[str, Prices] | None = None,
) -> Ingested:
    """Count what the files have beyond their offsets, then delete the oldest down to ``keep_bytes``.

    :param database: with :data:`TABLES`; a connection in autocommit mode that nobody else uses meanwhile.
    :param keep_bytes: files beyond it are deleted, oldest first, but only those that are counted to the end
        and have no writer any more.
    :param is_alive: asked about the newest file of a writer after whom another of the same number has
        started: may it still write? A writer without a successor is taken to run.
    :param pause: called every :data:`LINES_AT_ONCE` lines. What it raises ends the call; nothing is lost.
    :param said: trouble of files that was logged and should not be again; the caller keeps it.
    :param tag_values: values of a tag that are told apart.
    :param prices: as of :func:`proxy.usage.tally.add`; then the totals have ``charged_nusd``, too.
    :raises sqlite3.Error: locked, full, broken: what is not yet counted will be by a later call.
    :raises OSError: the directory can't be listed.
    """
    assert database.isolation_level is None
    said = set() if said is None else said
    files = _listed(directory)
    said &= {(file.path.name, what) for file in files for what in _TROUBLES}
    over = _over(files, is_alive)
    offsets: dict[str, int] = dict(database.execute("SELECT name, offset FROM ledger_files"))
    lines = torn = 0
    counted: list[_File] = []
    for file in files:
        name = file.path.name
        counting = _Counting(database, pause, tag_values, prices)
        reading = _Reading(counting, file.path, offsets.get(name, 0), name in over)
        try:
            size = reading.run()
        except FileNotFoundError:  # another process has counted and deleted it, or an operator has
            continue
        except OSError as error:
            _say(said, name, "read", "%s can't be read, its lines are not counted: %s", file.path, error)
            continue
        finally:
            lines += reading.lines
            torn += reading.torn
        if reading.offset > size:
            text = "%s has become shorter than what was counted of it: %d bytes of %d"
            _say(said, name, "read", text, file.path, size, reading.offset)
        else:
            said.discard((name, "read"))
        if name in over and reading.offset >= size:
            counted.append(file)
    too_many = sum(file.size for file in files) - keep_bytes
    deleted = _delete(database, directory, _oldest(counted, too_many), said)
    kept_bytes = sum(file.size for file in files if file not in deleted)
    return Ingested(lines, torn, len(deleted), kept_bytes)


def _listed(directory: Path) -> list[_File]:
    files = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = _NAME.fullmatch(entry.name)
                if match is None:
                    continue
                try:
                    facts = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # it went meanwhile
                    continue
                if stat.S_ISREG(facts.st_mode):  # to open a pipe would wait for ever
                    start, worker, number = map(int, match.groups())
                    path = Path(entry.path)
                    files.append(_File((start, worker), number, path, facts.st_size, facts.st_mtime_ns))
    except FileNotFoundError:  # nothing was written yet
        return []
    return sorted(files)


def _over(files: list[_File], is_alive: Callable[[Path], bool]) -> set[str]:
    """Names of finished files: the writer has a newer one, or is gone.

    To be asked before a file's size is: what is found in it then is all there will be.
    """
    newest: dict[tuple[int, int], int] = {}
    youngest: dict[int, int] = {}
    for file in files:
        start, worker = file.writer
        newest[file.writer] = max(newest.get(file.writer, 0), file.number)
        youngest[worker] = max(youngest.get(worker, 0), start)
    over = set()
    for file in files:
        start, worker = file.writer
        has_newer = file.number < newest[file.writer]
        if has_newer or (start < youngest[worker] and not is_alive(file.path)):
            over.add(file.path.name)
    return over


class _Counting(NamedTuple):
    """How lines are counted: see :func:`ingest`."""

    database: sqlite3.Connection
    pause: Callable[[], object]
    tag_values: int
    prices: Mapping[str, Prices] | None

    def values(self, item: tuple[Group, list[Any]]) -> tuple[Any, ...]:
        """The row of a total, within a transaction."""
        (day, key, group, model, provider, alias, endpoint, tags), total = item
        set_id = tag_table.set_id(self.database, tags, key or "", int(day), self.tag_values)
        names = [name or "" for name in (key, group, model, provider, alias, endpoint)]
        return (int(day), *names, set_id, *(total[:-1] if self.prices is None else total))


class _Reading:
    """The reading of one file, from an offset to the end that it had at the beginning."""

    def __init__(self, counting: _Counting, path: Path, offset: int, is_over: bool) -> None:
        self._counting = counting
        self._database = counting.database
        self._path = path
        self._is_over = is_over
        self.offset = offset
        self.lines = 0
        self.torn = 0

    def run(self) -> int:
        """Count the lines. Returns the file's size. ``offset``, ``lines`` and ``torn`` hold after a
        failure too."""
        with self._path.open("rb", buffering=0) as source:
            size = os.fstat(source.fileno()).st_size
            while self.offset < size:
                source.seek(self.offset)
                data = source.read(min(SLICE_BYTES, size - self.offset))
                is_end = self._is_over and self.offset + len(data) >= size
                lines, taken, torn = cut(data, len(data) == SLICE_BYTES, is_end)
                if not taken:
                    break
                totals: Totals = {}
                for at in range(0, len(lines), LINES_AT_ONCE):
                    torn += add(lines[at : at + LINES_AT_ONCE], totals, self._counting.prices)
                    self._counting.pause()
                if not self._commit(taken, torn, totals):
                    continue
                self.torn += torn
                self.lines += sum(total[0] for total in totals.values())
        return size

    def _commit(self, taken: int, torn: int, totals: Totals) -> bool:
        """Write the counts. Returns False if another process was faster; ``offset`` is then how far that
        came."""
        name = self._path.name
        with transaction(self._database):
            row = self._database.execute(_FILE, (name,)).fetchone()
            if row is None and not self._path.exists():
                # Another process has counted it, and deleted the file and then the row.
                raise FileNotFoundError(f"{self._path} went while it was read")
            offset, torn_before = row or (0, 0)
            if offset != self.offset:
                self.offset = offset
                return False
            self._database.execute(_COUNTED, (name, offset + taken, torn))
            # Sets of tags are made on the way, so the rows are there before they are written.
            rows = [*map(self._counting.values, totals.items())]
            self._database.executemany(_ADD if self._counting.prices is None else _ADD_CHARGED, rows)
        if torn and not torn_before:  # so that it is logged once per file
            log.warning("%s has torn lines from byte %d on: they are not counted", self._path, offset)
        self.offset += taken
        return True


_FILE = "SELECT offset, torn FROM ledger_files WHERE name = ?"
_COUNTED = """
INSERT INTO ledger_files VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET offset = excluded.offset, torn = torn + excluded.torn
"""
_SUMS = (
    *("requests", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "nusd", "estimated", "saved_nusd"),
)


def _adding(more: tuple[str, ...] = ()) -> str:
    return f"""
INSERT INTO usage VALUES ({", ".join("?" * (19 + len(more)))})
ON CONFLICT (day, key, key_group, model, provider, alias, endpoint, tags) DO UPDATE SET
{", ".join(f"{name} = {name} + excluded.{name}" for name in (*_SUMS, *more))},
last_at = max(last_at, excluded.last_at)
"""  # noqa: S608 - of names that stand above


_ADD, _ADD_CHARGED = _adding(), _adding(("charged_nusd",))


def _oldest(files: list[_File], too_many_bytes: int) -> list[_File]:
    """The least recently written files. By name, all of one worker would go before those of the next."""
    goners = []
    for file in sorted(files, key=lambda file: (file.written_ns, file)):
        if too_many_bytes <= 0:
            break
        goners.append(file)
        too_many_bytes -= file.size
    return goners


def _delete(
    database: sqlite3.Connection, directory: Path, files: list[_File], said: set[tuple[str, str]]
) -> Collection[_File]:
    """Delete files and their rows. Returns those that were deleted."""
    if not files:
        return ()
    # A commit alone is not on the disk yet. If others read or write just now, it is done at a later call.
    is_busy, frames, copied = database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    if is_busy or copied < frames:
        return ()
    deleted = []
    for file in files:
        try:
            file.path.unlink(missing_ok=True)
        except OSError as error:
            _say(said, file.path.name, "delete", "%s can't be deleted: %s", file.path, error)
        else:
            deleted.append(file)
    if not deleted:
        return ()
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # gone for good, before it is forgotten that they were counted
    finally:
        os.close(descriptor)
    with transaction(database):
        names = [(file.path.name,) for file in deleted]
        database.executemany("DELETE FROM ledger_files WHERE name = ?", names)
    return deleted


_TROUBLES = ("read", "delete")


def _say(said: set[tuple[str, str]], name: str, what: str, text: str, *values: object) -> None:
    if (name, what) not in said:
        said.add((name, what))
        log.warning(text, *values)
