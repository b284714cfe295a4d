"""The ledger: a line for each finished request, written before the client sees the end of its answer.

Each worker writes files of its own, a line with one call of the system, so that what is written survives the
process. Where a line can't be written (the disk is full, the directory has gone), it waits in memory, and the
gateway serves on; when there is room again, what waits is written first, so that nothing is lost but what
there is no memory for. :mod:`proxy.storage.ledger_ingest` adds the lines up.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections import deque
from itertools import islice
from pathlib import Path
from typing import Final

log = logging.getLogger("tokenhub.ledger")

# A file of some hundred thousand requests. Finished ones can be deleted when they have been added up.
FILE_BYTES: Final = 64 << 20
# What may wait for a disk: some hundred thousand requests too.
WAITING_BYTES: Final = 64 << 20
_RETRY_S: Final = 1.0
# Of those that wait, so many are written together: one by one, some ten thousand would hold the loop up.
_LINES_AT_ONCE: Final = 1000
# How often it is said that lines still wait.
_REMIND_S: Final = 60.0


def directory_of(path: str) -> Path:
    """Where the ledger is that belongs to a state's file."""
    return Path(f"{path}-ledger").absolute()


class Ledger:
    """See the module's text. All times are monotonic seconds.

    :param directory: where the files are; None: nothing is written at all.
    :param worker: which worker writes.
    :param started_ms: Unix milliseconds of its start: no two that write have both the same.
    """

    def __init__(self, directory: Path | None, worker: int = 0, started_ms: int = 0) -> None:
        self._directory = directory
        self._prefix = f"{started_ms:013d}-{worker:03d}"
        self._number = 0
        self._file = -1
        self._size = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._written = 0  # of the first that waits: so much of it is in the file already
        self._lost = 0
        self._retry_at = 0.0
        self._remind_at = 0.0

    @property
    def waiting(self) -> int:
        """Lines that could not be written yet."""
        return len(self._waiting)

    def write(self, lines: bytes) -> None:
        """Write one or more lines, each with its LF."""
        if self._waiting or self._file < 0:
            self._write_later(lines)
            return
        try:
            written = os.write(self._file, lines)
        except OSError as error:
            self._wait(lines, 0, error.strerror)
            return
        if written < len(lines):
            self._wait(lines, written, "it takes no more")
            return
        self._size += written
        if self._size >= FILE_BYTES:
            self._close_file()

    def _write_later(self, lines: bytes) -> None:
        """Behind those that wait; or at once, as the first of a new file."""
        if self._directory is None:
            return
        if self._waiting:
            self._wait(lines, 0, "")
            return
        try:
            self._open_file()
        except OSError as error:
            self._wait(lines, 0, error.strerror)
        else:
            self.write(lines)

    def _open_file(self) -> None:
        assert self._directory is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        path = self._directory / f"{self._prefix}-{self._number:06d}.jsonl"
        self._number += 1  # whatever comes of it: a name that is taken stays taken
        try:
            self._file = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True)
            self._file = os.open(path, flags, 0o600)
        self._size = 0
        # Tells those who add up that somebody may still write to it; it ends with the process.
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._written = 0  # what was begun in it is no line, and is written whole into the next

    def _wait(self, lines: bytes, written: int, why: str | None) -> None:
        """Keep lines for later, of which the first ``written`` bytes are in the file."""
        if not self._waiting:
            log.error(
                "the ledger can't be written (%s): lines wait in memory, and are written when it can", why
            )
        for line in lines.splitlines(keepends=True):
            if self._waiting_bytes + len(line) > WAITING_BYTES:
                self._lost += 1
            else:
                self._waiting.append(line)
                self._waiting_bytes += len(line)
        self._drop_written(written)

    def _drop_written(self, written: int) -> None:
        """So many more bytes of what waits, from its beginning on, are in the file."""
        waiting = self._waiting
        written += self._written
        while waiting and written >= len(waiting[0]):
            line = waiting.popleft()
            self._waiting_bytes -= len(line)
            self._size += len(line)
            written -= len(line)
        self._written = written

    def tick(self, now: float) -> None:
        """Called every 100 ms. Each second what waits is tried again; a file that has gone is replaced."""
        if now < self._retry_at:
            return
        self._retry_at = now + _RETRY_S
        if self._file >= 0 and os.fstat(self._file).st_nlink == 0:
            log.error("the ledger's file was deleted while it was written to: another one is begun")
            self._close_file()
        if self._waiting:
            self._write_waiting(now)

    def _write_waiting(self, now: float) -> None:
        count, why = len(self._waiting), self._try_waiting()
        if why is None:
            log.info("the ledger can be written again: %d lines that waited are in it", count)
            if self._lost:
                log.error("%d lines of the ledger are lost: there was no memory for more to wait", self._lost)
                self._lost = 0
        elif now >= self._remind_at:
            self._remind_at = now + _REMIND_S
            log.error("%d lines wait for the ledger (%s), %d are lost", len(self._waiting), why, self._lost)

    def _try_waiting(self) -> str | None:
        """Why not all of them could be written; None: they are."""
        waiting = self._waiting
        try:
            if self._file < 0:
                self._open_file()
            while waiting:
                block = b"".join(islice(waiting, _LINES_AT_ONCE))[self._written :]
                written = os.write(self._file, block)
                self._drop_written(written)
                if written < len(block):
                    return "it takes no more"
        except OSError as error:
            return error.strerror
        if self._size >= FILE_BYTES:
            self._close_file()
        return None

    def close(self) -> None:
        """Write what still waits, if that is possible, and say so if not."""
        why = self._try_waiting() if self._waiting else None
        lost = self._lost + len(self._waiting)
        if lost:
            log.error("%d lines of the ledger are lost: it can't be written (%s)", lost, why or "for a while")
        self._close_file()
