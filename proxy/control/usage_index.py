"""Adds up the ledger beside a running gateway, and answers queries for usage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from proxy.access.permits import Month
from proxy.config.settings import Config
from proxy.control.periodic import Periodic
from proxy.storage.database import Database, make_ledger
from proxy.storage.ledger_files import directory_of
from proxy.storage.ledger_ingest import PAUSE_S, ingest, pause
from proxy.storage.ledger_search import REST_S, find_line
from proxy.storage.recount import known_tags, recounted_rows
from proxy.storage.tag_table import known_values
from proxy.storage.usage_totals import UsageQuery, add_forecast, read_query, usage_rows
from proxy.storage.window_totals import used_by_groups, used_by_keys

log = logging.getLogger("tokenhub.ledger")

# How often lines are added up. A query for totals does it at once.
INGEST_S = 1.0


# Larger than any ledger.
_KEEP_ALL = 2**60


class UsedBefore(NamedTuple):
    """What was used in this month and on this day before the process began: by keys, by their ids, and by
    groups, by their names."""

    keys: Mapping[str, Month] = {}
    groups: Mapping[str, Month] = {}


def _used_before(database: sqlite3.Connection, unix_s: float) -> UsedBefore:
    return UsedBefore(used_by_keys(database, unix_s), used_by_groups(database, unix_s))


class _Interrupted(Exception):
    """Another task waits for the database."""


class UsageIndex:
    """The totals of the ledger, kept up to date.

    :param database: holds the totals.
    :param config: says how much of the ledger stays when it has been added up, and which tags there are.
    """

    def __init__(self, database: Database, config: Config) -> None:
        self.directory: Path | None = None  # of the ledger's files
        self.config = config
        self._database = database
        self._is_temporary = False
        self._job: Periodic | None = None
        # One task ingests at a time: each gives way to others that wait for the database, so two would give
        # way to each other for ever.
        self._ingesting = asyncio.Lock()
        self._recounting = asyncio.Lock()
        self._is_closing = False
        self._is_faulty = False
        self._said: set[tuple[str, str]] = set()  # trouble of files that was logged

    async def open(self) -> UsedBefore:
        """Find the place for the ledger, and add up what is there; what keys and groups have used.

        :raises sqlite3.Error: the totals can't be read. :raises StateError: there is no place for the ledger.
        """
        if self._database.is_kept:
            await asyncio.to_thread(make_ledger, self._database.path)
            self.directory = directory_of(self._database.path)
        else:
            with contextlib.suppress(OSError):
                self.directory = Path(tempfile.mkdtemp(prefix="tokenhub-"))
                self._is_temporary = True
        if self.directory is None:
            log.warning("no directory for a ledger can be made: usage is not counted")
        is_whole = await self.catch_up()
        work = _used_before if is_whole else self._used_by_a_copy
        return await self._database.run(work, datetime.now(UTC).timestamp())

    def _used_by_a_copy(self, database: sqlite3.Connection, unix_s: float) -> UsedBefore:
        """The same from a copy in memory, where totals can't be written: limits go by what was used."""
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            database.backup(copy)
            if self.directory is not None:
                with contextlib.suppress(OSError):  # which is logged already
                    ingest(copy, self.directory, _KEEP_ALL, said=set(self._said))
            return _used_before(copy, unix_s)

    def start(self) -> None:
        """Add up from now on."""
        self._job = Periodic(self.catch_up, INGEST_S, "adding up the ledger", log)
        self._job.start()

    async def catch_up(self) -> bool:
        """Add up all lines that are there. Returns False if that failed, which is logged and tried again."""
        if self.directory is None:
            return True
        keep_bytes = 0 if self._is_temporary else self.config.state.ledger_keep_bytes
        try:
            async with self._ingesting:
                while not await self._database.run(self._ingest, self.directory, keep_bytes):
                    pass
            self._is_faulty = False
        except (sqlite3.Error, OSError) as error:
            if not self._is_faulty:
                log.error("the ledger can't be added up (%s); its lines stay, and it is tried again", error)
            self._is_faulty = True
        return not self._is_faulty

    def _ingest(self, database: sqlite3.Connection, directory: Path, keep_bytes: int) -> bool:
        """Add up, in a thread. Returns False if it stopped for others that wait for the database."""

        def pause_or_stop() -> None:
            if self._database.waiting:
                raise _Interrupted
            pause()

        try:
            tag_values = self.config.usage.tag_values
            said = self._said
            ingest(database, directory, keep_bytes, pause=pause_or_stop, said=said, tag_values=tag_values)
        except _Interrupted:
            return False
        return True

    async def usage(
        self, query: Mapping[str, str], names: Mapping[str, str], most: int | None = None
    ) -> tuple[UsageQuery, list[dict[str, Any]]]:
        """Answer a query: what was asked, and the totals.

        :param names: of the keys, by id. :param most: rows that there may be.
        :raises QueryError: the query can't be read. :raises sqlite3.Error: the totals can't be read.
        """
        now = datetime.now(UTC)
        asked = read_query(query, now.date(), dict(self.config.usage.tags))
        if asked.reprices:
            return asked, await self._recounted(asked, names)
        if not await self.catch_up():
            raise sqlite3.OperationalError("the ledger can't be added up, the log says why")
        rows = await self._database.run(usage_rows, asked, names, most)
        if asked.forecast:
            add_forecast(rows, asked, now.timestamp())
        return asked, rows

    def _pause(self, seconds: float = PAUSE_S) -> None:
        if self._is_closing:
            raise sqlite3.OperationalError("the gateway is shutting down")
        pause(seconds)

    async def line(self, id: str, key: str) -> bytes | None:
        """Find the ledger line of a key's request: see :func:`proxy.storage.ledger_search.find_line`."""
        if self.directory is None:
            return None
        return await asyncio.to_thread(find_line, self.directory, id, key, partial(self._pause, REST_S))

    async def _recounted(self, asked: UsageQuery, names: Mapping[str, str]) -> list[dict[str, Any]]:
        if self.directory is None:
            raise sqlite3.OperationalError("there is no ledger")
        async with self._recounting:  # one reads all lines there are
            tags = await self._database.run(known_tags)
            work = partial(recounted_rows, self.directory, self.config, tags, asked, names, self._pause)
            try:
                return await asyncio.to_thread(work)
            except OSError as error:
                raise sqlite3.OperationalError(f"the ledger can't be read: {error}") from None

    async def tag_values(self) -> dict[str, list[str]]:
        """The values of each tag that totals have. :raises sqlite3.Error: they can't be read."""
        return await self._database.run(known_values)

    async def close(self) -> None:
        """Add up what is left, and end."""
        self._is_closing = True
        if self._job is not None:
            await self._job.stop()
        if self.directory is None:
            return
        if self._is_temporary:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)
        else:
            await self.catch_up()
