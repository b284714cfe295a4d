"""The log: to standard error, as text at a terminal, else as one JSON object a line.

A thread writes the lines, so that no caller waits: the reader of a pipe may stop reading, and that must not
stop the gateway. Lines wait in memory then, up to a limit. Above it they are lost, and their number is logged
when the reader goes on.

Names and texts from outside can't make lines of their own, or control a terminal: unprintable characters are
escaped. What looks like a key is masked, though no key should get here.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from typing import Any

import orjson

from proxy.config.settings import LogConfig

# Lines waiting for a reader; and the part of a single message or traceback that is kept.
MAX_WAITING_BYTES = 2 << 20
MAX_CHARS = 16_384
# How long the end of the process waits for lines that are not written yet.
FLUSH_S = 1.0
_LOST = "%d log lines are lost: the reader was too slow"

# The gateway's own keys, and what stands behind "Bearer" in whatever is quoted.
_SECRETS = re.compile(r"th-[A-Za-z0-9_-]{43}|(?<=bearer )[^\s'\",]+", re.IGNORECASE)
_COLOURS = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
# What a record has by itself; anything else came with the call, as `extra`.
_USUAL = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def clean(text: str, kept: str = "") -> str:
    """Escape and mask a text from outside, but for the characters in ``kept``."""
    text = _SECRETS.sub("***", text)
    if len(text) > MAX_CHARS:
        text = f"{text[:MAX_CHARS]}…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text)


class JsonLines(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``, and where there is one ``worker``
    and ``exception``; then what else the call says.

    :param worker: its number; None: the only process.
    """

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        date = datetime.fromtimestamp(record.created, UTC)
        fields: dict[str, Any] = {
            "time": f"{date:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": clean(record.getMessage()),
        }
        if self._worker is not None:
            fields["worker"] = self._worker
        if record.exc_info:
            fields["exception"] = clean(self.formatException(record.exc_info), "\n")
        for name in record.__dict__.keys() - _USUAL:
            value = record.__dict__[name]
            fields[name] = value if isinstance(value, int | float | None) else clean(str(value))
        return orjson.dumps(fields).decode()


class TextLines(logging.Formatter):
    """Lines for people: date, level, logger, message; a traceback is indented."""

    def __init__(self, worker: int | None, *, coloured: bool) -> None:
        super().__init__()
        self._who = "" if worker is None else f"worker {worker}: "
        self._coloured = coloured

    def format(self, record: logging.LogRecord) -> str:
        """The line, or lines, without the last one's end."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname:7}"
        if self._coloured and record.levelname in _COLOURS:
            level = f"\033[{_COLOURS[record.levelname]}m{level}\033[0m"
        message = clean(record.getMessage())
        text = f"{when}.{int(record.msecs):03d} {level} {record.name}: {self._who}{message}"
        if record.exc_info:
            trace = clean(self.formatException(record.exc_info), "\n")
            text += "".join(f"\n    {line}" for line in trace.split("\n"))
        return text


class Output(logging.Handler):
    """Writes lines to a descriptor in a thread, which :meth:`close` ends.

    :param worker: which of several processes this is.
    """

    def __init__(self, descriptor: int, worker: int | None = None) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._worker = worker
        self._levels: dict[str, str] = {}  # of loggers with one of their own
        self._lines: deque[bytes] = deque()
        self._size = self._lost = 0
        self._is_idle, self._is_closed = True, False
        self._changed = threading.Condition()
        self._show_as("auto")
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def use(self, settings: LogConfig) -> None:
        """Follow these settings from now on. A logger that has lost its own level follows the rest."""
        self._show_as(settings.format)
        before, self._levels = self._levels, dict(settings.levels)
        logging.getLogger().setLevel(settings.level.upper())
        for name in before.keys() | self._levels.keys():
            logging.getLogger(name).setLevel(self._levels.get(name, "notset").upper())

    def _show_as(self, how: str) -> None:
        is_terminal = os.isatty(self._descriptor)
        if how == "json" or (how == "auto" and not is_terminal):
            self.setFormatter(JsonLines(self._worker))
        else:
            plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
            self.setFormatter(TextLines(self._worker, coloured=is_terminal and not plain))

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line. It never waits."""
        try:
            text = self.format(record)
        except Exception as error:  # a call whose arguments don't fit its text
            text = self.format(_own("a line of %s could not be made: %s", record.name, type(error).__name__))
        line = text.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._size + len(line) > MAX_WAITING_BYTES:
                self._lost += 1
                return
            self._size += len(line)
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all lines are written, up to :data:`FLUSH_S`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_idle and not self._lines, FLUSH_S)

    def close(self) -> None:
        """End the thread once it has written its lines. One that can't write any more ends with the
        process."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        super().close()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._is_idle = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if not self._lines:
                    return
                data = b"".join(self._lines)
                self._lines.clear()
                self._size, self._is_idle = 0, False
            self._write(data)
            with self._changed:
                lost, self._lost = self._lost, 0
            if lost:
                self.emit(_own(_LOST, lost))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:  # another process that shares the descriptor has made it so
                select.select([], [self._descriptor], [], FLUSH_S)
            except OSError:  # the reader has gone: there is nowhere to log that
                return


def _own(text: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("tokenhub.server", logging.ERROR, "", 0, text, args, None)


def set_up_logging(worker: int | None = None) -> None:
    """Log to standard error, unless logging is set up already. ``worker``: which of several."""
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(Output(sys.stderr.fileno(), worker))
        root.setLevel(logging.INFO)


def configure(settings: LogConfig) -> None:
    """Follow ``[log]`` from now on, where :func:`set_up_logging` has been called."""
    for output in _outputs():
        output.use(settings)


def flush() -> None:
    """Write what was logged so far, before other output or the end of the process."""
    for output in _outputs():
        output.flush()


def _outputs() -> list[Output]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, Output)]
