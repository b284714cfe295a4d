"""The ledger's files: one write a line, disks that are full, directories that go."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.storage import ledger_files as ledger_module
from proxy.storage.ledger_files import Ledger
from proxy.storage.ledger_ingest import TABLES, Ingested, ingest, is_locked

AT = 1764041226.5
START = 1764041226123


def line(number: int, size: int = 0) -> bytes:
    return orjson.dumps({"id": number, "t": AT, "key": f"key_{number}", "input": 1, "x": "x" * size}) + b"\n"


def write(ledger: Ledger, *numbers: int) -> None:
    for number in numbers:
        ledger.write(line(number))


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


def whole_lines(directory: Path) -> list[bytes]:
    """All that end, in order; what a file ends with besides is torn."""
    return [each + b"\n" for file in files(directory) for each in file.read_bytes().split(b"\n")[:-1]]


def ingested(directory: Path) -> tuple[Ingested, dict[str, int]]:
    """What ingesting makes of the files, and how often it counted each line."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(TABLES)
        found = ingest(database, directory, 2**60, pause=lambda: None)
        return found, dict(database.execute("SELECT key, requests FROM usage"))


class Disk:
    """Lets so many bytes of the ledger be written, and then no more."""

    def __init__(self, ledger: Ledger, write: Callable[[int, bytes], int] = os.write) -> None:
        self.ledger = ledger
        self.room: int | None = None  # None: any number
        self.writes = 0
        self._write = write

    def write(self, descriptor: int, data: bytes) -> int:
        if descriptor != self.ledger._file:
            return self._write(descriptor, data)
        self.writes += 1
        if self.room is None:
            return self._write(descriptor, data)
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.fixture
def directory(tmp_path) -> Path:
    return tmp_path / "state" / "t.db-ledger"


@pytest.fixture
def ledger(directory) -> Iterator[Ledger]:
    made = Ledger(directory, 3, START)
    yield made
    made.close()


@pytest.fixture
def disk(ledger, monkeypatch) -> Disk:
    made = Disk(ledger)
    monkeypatch.setattr(ledger_module.os, "write", made.write)
    return made


# ---------------------------------------------------------------------- writing


def test_one_write_a_line_or_for_lines_together(ledger, directory, disk):
    for number in range(10):
        ledger.write(line(number))
        assert disk.writes == number + 1
        assert whole_lines(directory)[-1] == line(number)  # at once, whatever becomes of the process
    ledger.write(b"".join(map(line, range(10, 18))))
    assert disk.writes == 11
    assert whole_lines(directory) == [line(number) for number in range(18)]
    [file] = files(directory)
    assert file.name == f"{START}-003-000000.jsonl"
    assert file.stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    assert is_locked(file)  # somebody may still write to it
    ledger.close()
    assert not is_locked(file)


@given(room=st.integers(0, 700), more=st.integers(0, 3))
@settings(max_examples=60)
def test_a_disk_that_fills_up_within_lines_together(room, more):
    """Wherever it ends: each line is there once when there is room again, in order."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        ledger = Ledger(Path(folder), 0, START)
        disk = Disk(ledger)
        patch.setattr(ledger_module.os, "write", disk.write)
        ledger.write(line(0))
        size = len(line(0))
        disk.room = room
        ledger.write(b"".join(map(line, range(1, 6))))
        assert ledger.waiting == max(0, 5 - room // size)
        write(ledger, *range(6, 6 + more))
        disk.room = None
        ledger.tick(10.0)
        assert ledger.waiting == 0
        assert whole_lines(Path(folder)) == [line(number) for number in range(6 + more)]
        assert ledger._size == (6 + more) * size
        ledger.close()


def test_nothing_is_made_before_the_first_line_or_without_a_directory(
    ledger, directory, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    ledger.tick(0.0)
    none = Ledger(None)
    none.write(line(1))
    none.tick(0.0)
    none.close()
    assert none.waiting == 0
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_is_followed_by_another(ledger, directory, monkeypatch):
    monkeypatch.setattr(ledger_module, "FILE_BYTES", 200)
    for number in range(10):
        ledger.write(line(number, 50))
    sizes = [file.stat().st_size for file in files(directory)]
    assert len(sizes) == 5
    assert all(200 <= size < 400 for size in sizes)
    assert [file.name[-12:-6] for file in files(directory)] == [f"00000{number}" for number in range(5)]
    assert whole_lines(directory) == [line(number, 50) for number in range(10)]
    assert not any(is_locked(file) for file in files(directory))
    assert ingested(directory)[0].lines == 10


def test_two_of_one_name_dont_write_to_one_file(ledger, directory, caplog):
    ledger.write(line(1))
    twin = Ledger(directory, 3, START)
    twin.write(line(2))
    assert whole_lines(directory) == [line(1)]
    assert twin.waiting == 1
    assert "File exists" in caplog.text
    twin.tick(1.0)  # by another name
    assert twin.waiting == 0
    twin.close()
    assert [file.read_bytes() for file in files(directory)] == [line(1), line(2)]


# ---------------------------------------------------------------------- disks that are full


@pytest.mark.parametrize("room", [0, 1, 20, len(line(2)) - 1])
def test_a_full_disk(ledger, directory, disk, room, caplog):
    caplog.set_level(logging.INFO, "tokenhub.ledger")
    ledger.write(line(1))
    disk.room = room
    write(ledger, 2, 3, 4)
    assert ledger.waiting == 3
    assert caplog.text.count("lines wait in memory and are written later") == 1
    assert ("No space left" in caplog.text) == (room == 0)
    writes = disk.writes
    ledger.tick(10.0)
    ledger.tick(10.5)  # once a second is enough
    assert disk.writes == writes + 1
    assert "(No space left on device): 3 lines wait, 0 are lost" in caplog.text
    disk.room = None
    ledger.write(line(5))  # behind those that wait
    assert ledger.waiting == 4
    ledger.tick(11.0)
    assert ledger.waiting == 0
    assert "the ledger can be written again: 4 waiting lines are written" in caplog.text
    ledger.write(line(6))
    assert whole_lines(directory) == [line(number) for number in range(1, 7)]
    assert len(files(directory)) == 1
    size = sum(file.stat().st_size for file in files(directory))
    assert ingested(directory) == (Ingested(6, 0, 0, size), {f"key_{number}": 1 for number in range(1, 7)})


def test_room_that_comes_byte_by_byte(ledger, directory, disk):
    disk.room = 0
    write(ledger, 0, 1, 2)
    now = 0.0
    while ledger.waiting:
        disk.room += 7
        now += 1.0
        ledger.tick(now)
    disk.room = None
    ledger.write(line(3))
    assert whole_lines(directory) == [line(number) for number in range(4)]


def test_a_reminder_comes_once_a_minute(ledger, disk, caplog):
    disk.room = 0
    ledger.write(line(1))
    for second in range(1, 150):
        ledger.tick(float(second))
    assert caplog.text.count(": 1 lines wait, ") == 3


def test_memory_for_what_waits_has_an_end(ledger, directory, disk, monkeypatch, caplog):
    monkeypatch.setattr(ledger_module, "WAITING_BYTES", 3 * len(line(1)))
    disk.room = 0
    write(ledger, *range(8))
    assert ledger.waiting == 3
    ledger.tick(1.0)
    assert "(No space left on device): 3 lines wait, 5 are lost" in caplog.text
    disk.room = None
    ledger.tick(2.0)
    assert "5 lines of the ledger are lost: the buffer for them was full" in caplog.text
    ledger.write(line(8))
    assert whole_lines(directory) == [line(number) for number in (0, 1, 2, 8)]
    caplog.clear()
    disk.room = 0
    ledger.write(line(9))
    disk.room = None
    ledger.tick(10.0)
    assert "are lost" not in caplog.text  # that was said


@pytest.mark.parametrize(("room", "kept"), [(len(line(0)) + 5, 1), (None, 3)])
def test_an_end_while_lines_wait(ledger, directory, disk, caplog, room, kept):
    disk.room = 0
    write(ledger, 0, 1, 2)
    disk.room = room
    caplog.clear()
    ledger.close()
    assert whole_lines(directory) == [line(number) for number in range(kept)]
    lost = f"{3 - kept} lines of the ledger are lost: it can't be written"
    assert lost in caplog.text if kept < 3 else caplog.text == ""
    assert ingested(directory)[1] == {f"key_{number}": 1 for number in range(kept)}


def test_what_was_begun_in_a_file_that_went_is_written_whole_into_the_next(ledger, directory, disk):
    ledger.write(line(1))
    disk.room = 10
    ledger.write(line(2))
    files(directory)[0].unlink()
    disk.room = None
    ledger.tick(1.0)
    assert whole_lines(directory) == [line(2)]


# ---------------------------------------------------------------------- directories that go


def test_a_directory_that_was_removed_is_made_again(ledger, directory, caplog):
    ledger.write(line(1))
    shutil.rmtree(directory.parent)
    ledger.tick(1.0)
    assert "was deleted while in use" in caplog.text
    ledger.write(line(2))
    assert [file.name[-12:-6] for file in files(directory)] == ["000001"]
    assert whole_lines(directory) == [line(2)]


def test_a_directory_that_cant_be_made(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    ledger = Ledger(tmp_path / "file" / "ledger", 0, START)
    ledger.write(line(1))
    assert ledger.waiting == 1
    assert "Not a directory" in caplog.text
    (tmp_path / "file").unlink()
    ledger.tick(1.0)
    assert ledger.waiting == 0
    ledger.close()
    assert whole_lines(tmp_path / "file" / "ledger") == [line(1)]


# ---------------------------------------------------------------------- whatever happens


_WRITE = st.tuples(st.just("write"), st.integers(0, 60))
_ROOM = st.tuples(st.just("room"), st.none() | st.integers(0, 150))
_TICK = st.tuples(st.just("tick"), st.floats(0, 3))
_EVENTS = st.lists(st.one_of(_WRITE, _WRITE, _ROOM, _TICK), max_size=40)


@settings(max_examples=150)
@given(_EVENTS, st.sampled_from([100, 300, 10_000]))
def test_every_line_once_and_in_order(events, file_bytes):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        directory = Path(folder) / "ledger"
        ledger = Ledger(directory, 0, START)
        disk = Disk(ledger)
        patch.setattr(ledger_module.os, "write", disk.write)
        patch.setattr(ledger_module, "FILE_BYTES", file_bytes)
        patch.setattr(ledger_module.log, "disabled", True)
        now, wrote = 0.0, []
        for what, value in events:
            if what == "write":
                wrote.append(line(len(wrote), value))
                ledger.write(wrote[-1])
            elif what == "room":
                disk.room = value
            else:
                now += value
                ledger.tick(now)
        disk.room = None
        ledger.close()
        assert ledger.waiting == 0
        assert whole_lines(directory) == wrote
        if wrote:
            found, counts = ingested(directory)
            assert (found.lines, found.torn) == (len(wrote), 0)
            assert counts == {f"key_{number}": 1 for number in range(len(wrote))}


# ---------------------------------------------------------------------- in a process of its own

KILLED = """
import os, sys
from pathlib import Path
from proxy.storage.ledger_files import Ledger
ledger = Ledger(Path(sys.argv[1]), 0, 1764041226123)
number = 0
while True:
    ledger.write(b'{"t":1764041226.5,"key":"key_%d","input":1}\\n' % number)
    os.write(1, b"%d\\n" % number)  # said only when it is in the ledger
    number += 1
"""


@pytest.mark.parametrize("limit", [0, 1, 300, 333, 1000])
def test_a_file_that_the_system_lets_grow_no_further(ledger, directory, limit):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        write(ledger, *range(20))
        assert ledger.waiting, "it was not full"
        ledger.tick(1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    waiting = ledger.waiting
    write(ledger, 20)
    assert ledger.waiting == waiting + 1
    ledger.tick(2.0)
    assert not ledger.waiting
    write(ledger, 21)
    found, counts = ingested(directory)
    assert (found.lines, found.torn) == (22, 0)
    assert counts == {f"key_{number}": 1 for number in range(22)}


def test_a_process_that_is_killed_has_written_what_it_said(directory):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(directory)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(500):
        process.stdout.readline()
    process.kill()
    said = 500 + len(process.stdout.read().split(b"\n")) - 1
    process.wait()
    process.stdout.close()
    lines = whole_lines(directory)
    assert said <= len(lines) <= said + 1
    assert not is_locked(files(directory)[0])
    assert ingested(directory)[0].lines == len(lines)
