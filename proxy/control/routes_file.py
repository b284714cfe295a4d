"""routes.toml on disk: read, watched, and replaced whole.

Nothing here keeps the event loop waiting for long, but reading, parsing and replacing belong in a thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from proxy.config.parse import parse
from proxy.config.settings import Config


class Unreadable(Exception):
    """The file can't be read; the text is one line that says why."""


class Irreplaceable(Exception):
    """The file can't be replaced, or not without losing somebody's change; the text says why."""


# Of a file as `stat` sees it through symbolic links: time of change in ns, size, inode; None: not there.
Stamp = tuple[int, int, int] | None


class Reading(NamedTuple):
    text: str
    stamp: Stamp


def stamp_of(path: str | Path) -> Stamp:
    """The stamp that differs for a changed file. Follows symbolic links: a Kubernetes ConfigMap swaps one."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return _stamp(found)


def _stamp(found: os.stat_result) -> Stamp:
    return found.st_mtime_ns, found.st_size, found.st_ino


class RoutesFile:
    """The file a running gateway was started from.

    ``text`` is what runs. ``seen`` is what was read last, be it good or bad: mistakes are not logged again
    until the file changes.

    :param server: settings of ``[server]`` that the command line overrides.
    """

    def __init__(self, path: Path, server: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.text = ""
        self.seen: dict[str, Stamp] = {}
        self._glimpsed: dict[str, Stamp] = {}
        self._server = dict(server or {})

    def read(self) -> Reading:
        """:raises Unreadable: it can't be read."""
        stamp = stamp_of(self.path)  # before the text: what changes in between is seen at the next look
        try:
            # newline="": an edit has to keep the ends of lines.
            with self.path.open(encoding="utf-8", newline="") as file:
                return Reading(file.read(), stamp)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise Unreadable(f"can't read {self.path}: {reason}") from None

    def parse(self, text: str) -> Config:
        """The configuration, with what the command line overrides.

        :raises ConfigError: it holds mistakes.
        """
        config = parse(text.replace("\r\n", "\n"), str(self.path))
        return dataclasses.replace(config, server=dataclasses.replace(config.server, **self._server))

    def load(self) -> Config:
        """Read and parse for the first time. :raises Unreadable: … :raises ConfigError: …"""
        reading = self.read()
        config = self.parse(reading.text)
        self.text = reading.text
        self.saw(reading.stamp, files_beside(config))
        return config

    def has_changed(self, others: Iterable[str] = ()) -> bool:
        """Check whether this file or one of the others has changed and then stayed the same for a call: a
        file that is being written may well read like a whole one. A change is reported once."""
        now = {path: stamp_of(path) for path in (str(self.path), *others)}
        before, self._glimpsed = self._glimpsed, now
        if before != now:
            return False
        # A file that is watched for the first time has not changed.
        is_changed = any(self.seen.get(path, stamp) != stamp for path, stamp in now.items())
        self.seen = now
        return is_changed

    def saw(self, stamp: Stamp, others: Iterable[str] = ()) -> None:
        """This file has been read and had this stamp; the others are read after this call."""
        self.seen = {path: stamp_of(path) for path in others} | {str(self.path): stamp}

    def replace(self, text: str) -> Stamp:
        """Put a new text in the place of the one that runs, at once or not at all.

        Mode and, where that is allowed, owner and group stay. Where the path is a symbolic link, its target
        is replaced.

        :raises Irreplaceable: it can't be, or what is on disk is not what runs.
        """
        self._expect_what_runs()
        real = Path(os.path.realpath(self.path))
        try:
            # A rename asks nobody but the directory: a file that its owner protected is to stay as it is.
            if not os.access(real, os.W_OK):
                raise PermissionError(13, "it is read-only")
            return _replace(real, text, self._expect_what_runs)
        except OSError as error:
            raise Irreplaceable(f"{self.path} can't be replaced: {error.strerror or error}") from None

    def _expect_what_runs(self) -> None:
        """:raises Irreplaceable: something else is on disk."""
        try:
            on_disk = self.read().text
        except Unreadable as error:
            raise Irreplaceable(str(error)) from None
        if on_disk != self.text:
            raise Irreplaceable(f"{self.path} was changed meanwhile: reload it first")


def files_beside(config: Config) -> list[str]:
    """The files that are read with this one: those with keys for providers and whom to trust there, and the
    certificate's."""
    providers = config.providers.values()
    theirs = [path for provider in providers for path in (provider.api_key_file, provider.ca_file)]
    return [path for path in (*theirs, config.server.tls_cert, config.server.tls_key) if path]


def is_open_to_all(path: str) -> bool:
    """Every user of this machine can read it."""
    try:
        real = Path(path).resolve()
        return bool(real.stat().st_mode & stat.S_IROTH) and all(
            folder.stat().st_mode & stat.S_IXOTH for folder in real.parents
        )
    except OSError:  # who reads it says so
        return False


def _replace(real: Path, text: str, check: Callable[[], None]) -> Stamp:
    before = os.stat(real)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as file:
            os.fchmod(file.fileno(), _own_as(file.fileno(), before))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            stamp = _stamp(os.fstat(file.fileno()))  # the rename changes none of it
        check()  # again: bringing the text to the disk takes its time, in which somebody may have written
        os.replace(temporary, real)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    with contextlib.suppress(OSError):  # it is replaced; this only hastens the rename to the disk
        folder = os.open(real.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return stamp


def _own_as(descriptor: int, before: os.stat_result) -> int:
    """Give a file owner and group of another, as far as that is allowed; the mode it may then have."""
    mode = stat.S_IMODE(before.st_mode)
    try:
        os.fchown(descriptor, before.st_uid, before.st_gid)
    except OSError:  # only root may give files away
        try:
            os.fchown(descriptor, -1, before.st_gid)
        except OSError:  # what its group might do was not meant for ours
            mode &= ~stat.S_IRWXG
    return mode
