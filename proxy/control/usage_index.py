"""The ledger's lines on their way into totals, beside a running gateway, and the questions to these."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy.access.permits import Month
from proxy.control.periodic import Periodic
from proxy.storage.database import State, make_ledger
from proxy.storage.ledger_files import directory_of
from proxy.storage.ledger_ingest import fold, pause
from proxy.storage.usage_totals import last_used, month_sums, read_query, usage_rows

log = logging.getLogger("tokenhub.ledger")

# How often lines are added up. Who asks for totals has it done at once.
FOLD_S = 1.0


# Larger than any ledger.
_KEEP_ALL = 2**60
_Months = tuple[Mapping[str, tuple[int, int, float]], Mapping[str, float]]


def _months(database: sqlite3.Connection, date: datetime) -> _Months:
    return month_sums(database, date.year, date.month), last_used(database)


class _Interrupted(Exception):
    """Somebody else waits for the database."""


class Books:
    """See the module's text.

    :param state: where the totals are.
    :param keep_bytes: so much of the ledger stays when it has been added up.
    """

    def __init__(self, state: State, keep_bytes: int) -> None:
        self.directory: Path | None = None  # of the ledger's files
        self.keep_bytes = keep_bytes
        self._state = state
        self._is_temporary = False
        self._job: Periodic | None = None
        # Of those who want it added up: each gives way to whoever waits for the database, so that two at a
        # time would give way to each other for ever.
        self._folding = asyncio.Lock()
        self._is_faulty = False
        self._said: set[tuple[str, str]] = set()  # files that were complained of

    async def open(self) -> dict[str, Month]:
        """Find the place for the ledger, and add up what is there; what keys have used in this month.

        :raises sqlite3.Error: the totals can't be read. :raises StateError: there is no place for the ledger.
        """
        if self._state.is_kept:
            await asyncio.to_thread(make_ledger, self._state.path)
            self.directory = directory_of(self._state.path)
        else:
            with contextlib.suppress(OSError):
                self.directory = Path(tempfile.mkdtemp(prefix="tokenhub-"))
                self._is_temporary = True
        if self.directory is None:
            log.warning("there is no room for a ledger, not even for a while: what is used is not counted")
        is_whole = await self.catch_up()
        month, last = await self._state.run(
            _months if is_whole else self._months_by_a_copy, datetime.now(UTC)
        )
        nothing = (0, 0, 0.0)
        return {
            id: Month(*month.get(id, nothing)[:2], last.get(id, 0.0)) for id in month.keys() | last.keys()
        }

    def _months_by_a_copy(self, database: sqlite3.Connection, date: datetime) -> _Months:
        """As if everything had been added up, where that can't be written: limits go by what was used."""
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
            database.backup(copy)
            if self.directory is not None:
                with contextlib.suppress(OSError):  # of which was told before
                    fold(copy, self.directory, _KEEP_ALL, said=set(self._said))
            return _months(copy, date)

    def start(self) -> None:
        """Add up from now on."""
        self._job = Periodic(self.catch_up, FOLD_S, "adding up the ledger", log)
        self._job.start()

    async def catch_up(self) -> bool:
        """Add up all that is there by now; False: that failed, which is said, and tried again."""
        if self.directory is None:
            return True
        keep_bytes = 0 if self._is_temporary else self.keep_bytes
        try:
            async with self._folding:
                while not await self._state.run(self._fold, self.directory, keep_bytes):
                    pass
            self._is_faulty = False
        except (sqlite3.Error, OSError) as error:
            if not self._is_faulty:
                log.error("the ledger can't be added up (%s); its lines stay, and it is tried again", error)
            self._is_faulty = True
        return not self._is_faulty

    def _fold(self, database: sqlite3.Connection, directory: Path, keep_bytes: int) -> bool:
        """Add up, in a thread; False: others want the database meanwhile, and it has to be gone on with."""

        def pause_or_stop() -> None:
            if self._state.waiting:
                raise _Interrupted
            pause()

        try:
            fold(database, directory, keep_bytes, pause=pause_or_stop, said=self._said)
        except _Interrupted:
            return False
        return True

    async def usage(
        self, query: Mapping[str, str], names: Mapping[str, str]
    ) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
        """The dimensions and the totals that a query asks for.

        :param names: of the keys, by id.
        :raises QueryError: it is none. :raises sqlite3.Error: they can't be read.
        """
        by, since, until = read_query(query, datetime.now(UTC).date())
        if not await self.catch_up():
            raise sqlite3.OperationalError("the ledger can't be added up, the log says why")
        return by, await self._state.run(usage_rows, by, since, until, names)

    async def close(self) -> None:
        """Add up what is there, and end."""
        if self._job is not None:
            await self._job.stop()
        if self.directory is None:
            return
        if self._is_temporary:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)
        else:
            await self.catch_up()
