"""The ledger: a line for each finished request, written before the client sees the end of its response.

Each worker writes files of its own, a line with one call of the system, so that what is written survives the
process. A line that can't be written (the disk is full, the directory has gone) waits in memory, and the
gateway goes on serving. When there is room again, waiting lines are written first, so that nothing is lost
but what exceeds :data:`WAITING_BYTES`. :mod:`proxy.storage.ledger_ingest` adds the lines up.
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
# How many waiting lines are written together: one by one, some ten thousand would block the event loop.
_LINES_AT_ONCE: Final = 1000
# How often it is logged that lines still wait.
_REMIND_S: Final = 60.0


def directory_of(path: str) -> Path:
    """The directory of the ledger that belongs to a state's file."""
    return Path(f"{path}-ledger").absolute()


class Ledger:
    """Writes the lines of one worker. All times are monotonic seconds.

    :param directory: of the files; None: nothing is written at all.
    :param worker: the worker's number.
    :param started_ms: Unix milliseconds of its start; two writers never have the same number and start.
    """

    def __init__(self, directory: Path | None, worker: int = 0, started_ms: int = 0) -> None:
        self._directory = directory
        self._prefix = f"{started_ms:013d}-{worker:03d}"
        self._number = 0
        self._file = -1
        self._size = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._written = 0  # bytes of the first waiting line that are in the file already
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
        """Write behind the waiting lines; or at once, as the first of a new file."""
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
        self._number += 1  # even if it fails: a name that is taken stays taken
        try:
            self._file = os.open(path, flags, 0o600)
        except FileNotFoundError:
            self._directory.mkdir(mode=0o700, parents=True)
            self._file = os.open(path, flags, 0o600)
        self._size = 0
        # The lock says that a writer may still add lines; it ends with the process.
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._written = 0  # a line that was begun is written whole into the next file

    def _wait(self, lines: bytes, written: int, why: str | None) -> None:
        """Keep lines for later. Their first ``written`` bytes are in the file already."""
        if not self._waiting:
            log.error("the ledger can't be written (%s): lines wait in memory and are written later", why)
        for line in lines.splitlines(keepends=True):
            if self._waiting_bytes + len(line) > WAITING_BYTES:
                self._lost += 1
            else:
                self._waiting.append(line)
                self._waiting_bytes += len(line)
        self._drop_written(written)

    def _drop_written(self, written: int) -> None:
        """Drop the first ``written`` bytes of the waiting lines, which are in the file now."""
        waiting = self._waiting
        written += self._written
        while waiting and written >= len(waiting[0]):
            line = waiting.popleft()
            self._waiting_bytes -= len(line)
            self._size += len(line)
            written -= len(line)
        self._written = written

    def tick(self, now: float) -> None:
        """Try waiting lines again each second, and replace a file that was deleted. Called every 100 ms."""
        if now < self._retry_at:
            return
        self._retry_at = now + _RETRY_S
        if self._file >= 0 and os.fstat(self._file).st_nlink == 0:
            log.error("the ledger's file was deleted while in use: starting another one")
            self._close_file()
        if self._waiting:
            self._write_waiting(now)

    def _write_waiting(self, now: float) -> None:
        count, why = len(self._waiting), self._try_waiting()
        if why is None:
            log.info("the ledger can be written again: %d waiting lines are written", count)
            if self._lost:
                log.error("%d lines of the ledger are lost: the buffer for them was full", self._lost)
                self._lost = 0
        elif now >= self._remind_at:
            self._remind_at = now + _REMIND_S
            log.error(
                "the ledger still can't be written (%s): %d lines wait, %d are lost",
                why,
                len(self._waiting),
                self._lost,
            )

    def _try_waiting(self) -> str | None:
        """Write waiting lines. Returns why that failed, or None."""
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
        """Write waiting lines if possible, and log the lost ones."""
        why = self._try_waiting() if self._waiting else None
        lost = self._lost + len(self._waiting)
        if lost:
            log.error("%d lines of the ledger are lost: it can't be written (%s)", lost, why or "for a while")
        self._close_file()
