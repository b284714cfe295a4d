"""Ledger files into SQLite, each line once: the files, the databases and the kills are real."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.storage import ledger_ingest
from proxy.storage.ledger_ingest import TABLES, Ingested, ingest, is_locked

KEEP_ALL = 2**60
START = 1764041226123
AT = 1764041226.5


def name_of(number: int = 1, worker: int = 0, start: int = START) -> str:
    return f"{start}-{worker:03}-{number:06}.jsonl"


def line(**members: object) -> bytes:
    record = {"id": "req_1", "t": AT, "key": "key_a", "model": "m", "provider": "p"}
    record |= {"status": 200, "input": 1}
    return orjson.dumps(record | members) + b"\n"


def nothing() -> None:
    pass


def opened(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.executescript(TABLES)
    return database


@pytest.fixture
def database(tmp_path):
    with contextlib.closing(opened(tmp_path / "t.db")) as database:
        yield database


@pytest.fixture
def ledger(tmp_path):
    directory = tmp_path / "ledger"
    directory.mkdir()
    return directory


@pytest.fixture
def other(tmp_path, database):
    """The same as another process has it."""
    with contextlib.closing(opened(tmp_path / "t.db")) as other:
        yield other


def ingested(
    database: sqlite3.Connection, ledger: Path, keep_bytes: int = KEEP_ALL, **more: object
) -> Ingested:
    return ingest(database, ledger, keep_bytes, **({"pause": nothing} | more))


def requests(database: sqlite3.Connection) -> int:
    return database.execute("SELECT COALESCE(SUM(requests), 0) FROM usage").fetchone()[0]


def offsets(database: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    return {name: (offset, torn) for name, offset, torn in database.execute("SELECT * FROM ledger_files")}


def append(path: Path, *data: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(data))


def two_files(ledger: Path) -> None:
    """A line in each; only to the second may somebody still write."""
    for number in (1, 2):
        append(ledger / name_of(number), line())


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the disk fail where a file of this name is read."""
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(name):
            raise OSError(5, "Input/output error")
        return real(descriptor)

    monkeypatch.setattr(os, "fstat", fstat)


def aged(ledger: Path, *names: str) -> None:
    """As if they had been written to in that order."""
    for age, name in enumerate(names):
        os.utime(ledger / name, (AT + age, AT + age))


def test_lines_become_totals_and_are_not_counted_again(database, ledger):
    one = {"input": 10, "cached": 4, "cache_write": 3, "output": 5, "reasoning": 2, "nusd": 7}
    append(ledger / name_of(), line(**one), line(**one, status=500, t=AT + 1, source="estimated"))
    append(ledger / name_of(worker=1), line(key=None, model=None, provider=None, status=404, input=0))
    size = sum(path.stat().st_size for path in ledger.iterdir())
    assert ingested(database, ledger) == Ingested(lines=3, torn=0, deleted=0, kept_bytes=size)
    expected = [
        (20417, "", "", "", "", "", "", 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, AT, 0),
        (20417, "key_a", "", "m", "p", "", "", 0, 2, 1, 20, 8, 6, 10, 4, 14, 1, AT + 1, 0),
    ]
    assert list(database.execute("SELECT * FROM usage")) == expected
    assert ingested(database, ledger) == Ingested(lines=0, torn=0, deleted=0, kept_bytes=size)
    assert list(database.execute("SELECT * FROM usage")) == expected
    append(ledger / name_of(), line())
    assert ingested(database, ledger).lines == 1
    assert requests(database) == 4


def test_no_directory_and_an_empty_one_and_the_usual_pause(database, ledger):
    assert ingested(database, ledger / "none") == Ingested(0, 0, 0, 0)
    assert ingested(database, ledger) == Ingested(0, 0, 0, 0)
    append(ledger / name_of(), line())
    assert ingest(database, ledger, KEEP_ALL).lines == 1


def test_other_files_are_left_alone(database, ledger):
    for name in ("notes.txt", name_of() + ".bak", "x" + name_of(), name_of().replace("1", "١")):
        append(ledger / name, line())
    (ledger / name_of(2)).mkdir()
    os.mkfifo(ledger / name_of(3))
    (ledger / name_of(4)).symlink_to(ledger / "notes.txt")
    assert ingested(database, ledger, 0) == Ingested(0, 0, 0, 0)
    assert len(list(ledger.iterdir())) == 7


def test_a_line_without_its_end_waits(database, ledger, caplog):
    whole = line(input=5)
    append(ledger / name_of(), line(), whole[:20])
    assert ingested(database, ledger).lines == 1
    assert ingested(database, ledger).lines == 0
    append(ledger / name_of(), whole[20:-1])
    assert ingested(database, ledger).lines == 0
    append(ledger / name_of(), b"\n", line())
    assert ingested(database, ledger).lines == 2
    assert database.execute("SELECT SUM(input_tokens) FROM usage").fetchone() == (7,)
    assert not caplog.text


@pytest.mark.parametrize("successor", [name_of(2), name_of(start=START + 1)], ids=["rotated", "restarted"])
def test_a_torn_end_is_skipped_once_nobody_writes_any_more(database, ledger, caplog, successor):
    path = ledger / name_of()
    append(path, line(), line()[:-1])
    assert ingested(database, ledger).torn == 0
    append(ledger / successor, line())
    result = ingested(database, ledger)
    assert (result.lines, result.torn) == (1, 1)
    assert ingested(database, ledger).torn == 0
    assert offsets(database)[path.name] == (path.stat().st_size, 1)
    assert requests(database) == 2
    assert caplog.text.count("torn lines") == 1


def test_torn_lines_are_said_once_per_file(database, ledger, caplog):
    for worker in (0, 1):
        append(ledger / name_of(worker=worker), line(), b"{torn\n", line(input="x"), line())
        ingested(database, ledger)
        append(ledger / name_of(worker=worker), line(), b"\n", line())
        assert ingested(database, ledger).torn == 1
    assert requests(database) == 8
    assert [torn for _, torn in offsets(database).values()] == [3, 3]
    assert caplog.text.count("torn lines") == 2


def test_what_never_ends_is_passed_over(database, ledger, monkeypatch):
    monkeypatch.setattr(ledger_ingest, "SLICE_BYTES", 400)
    path = ledger / name_of()
    append(path, line(), b"x" * 5000, b"\n", line())
    result = ingested(database, ledger)
    assert result.lines == 2
    assert result.torn > 0
    assert offsets(database)[path.name][0] == path.stat().st_size


def test_a_slice_is_a_transaction_and_pauses_are_between(database, ledger, monkeypatch):
    monkeypatch.setattr(ledger_ingest, "SLICE_BYTES", 50 * len(line()) + 10)
    monkeypatch.setattr(ledger_ingest, "LINES_AT_ONCE", 20)
    append(ledger / name_of(), line() * 120)
    seen = []

    def pause() -> None:
        assert not database.in_transaction
        seen.append(requests(database))

    assert ingested(database, ledger, pause=pause).lines == 120
    assert seen == [0, 0, 0, 50, 50, 50, 100]


class Killed(BaseException):
    pass


def test_a_stop_in_between_loses_nothing(database, ledger, monkeypatch):
    monkeypatch.setattr(ledger_ingest, "SLICE_BYTES", 10 * len(line()))
    monkeypatch.setattr(ledger_ingest, "LINES_AT_ONCE", 4)
    append(ledger / name_of(), line() * 95)
    for steps in range(1, 40):
        try:
            ingested(database, ledger, pause=Mock(side_effect=[None] * steps + [Killed]))
        except Killed:
            assert not database.in_transaction
            assert requests(database) % 10 == 0
    assert requests(database) == 95


# Two at once: the pause is where another process can be faster.


def once(work: Callable[[], Ingested | None]) -> tuple[Callable[[], None], list[Ingested | None]]:
    """A pause in which another process works, the first time; and what it said."""
    begun: list[bool] = []
    said: list[Ingested | None] = []

    def pause() -> None:
        if not begun:
            begun.append(True)
            said.append(work())

    return pause, said


def test_another_process_was_faster(database, other, ledger, monkeypatch):
    monkeypatch.setattr(ledger_ingest, "SLICE_BYTES", 10 * len(line()))
    path = ledger / name_of()
    append(path, line() * 25)
    # It gets further than what we wanted to read.
    pause, results = once(lambda: append(path, line() * 3) or ingested(other, ledger))
    result = ingested(database, ledger, pause=pause)
    assert (result.lines, results[0].lines) == (0, 28)
    assert requests(database) == 28
    assert ingested(database, ledger).lines == 0


def test_another_process_was_a_bit_faster(database, other, ledger, monkeypatch):
    monkeypatch.setattr(ledger_ingest, "SLICE_BYTES", 10 * len(line()))
    append(ledger / name_of(), line() * 25)

    def work() -> None:
        with contextlib.suppress(Killed):
            ingested(other, ledger, pause=Mock(side_effect=[None, None, Killed]))

    assert ingested(database, ledger, pause=once(work)[0]).lines == 5
    assert requests(database) == 25


def test_another_process_has_counted_and_deleted_what_is_being_read(database, other, ledger):
    two_files(ledger)
    pause, results = once(lambda: ingested(other, ledger, 0))
    said: set[tuple[str, str]] = set()
    assert ingested(database, ledger, 0, pause=pause, said=said).lines == 0
    assert (results[0].lines, results[0].deleted) == (2, 1)
    assert requests(database) == 2
    assert list(offsets(database)) == [name_of(2)]
    assert not said


# What is deleted


def test_the_oldest_go_until_the_rest_fits(database, ledger):
    names = [name_of(3), name_of(1, worker=1), name_of(1), name_of(2), name_of(4), name_of(2, worker=1)]
    for name in names:
        append(ledger / name, line() * 10)
    aged(ledger, *names)
    size = 10 * len(line())
    assert ingested(database, ledger, 4 * size) == Ingested(60, 0, 2, 4 * size)
    assert sorted(path.name for path in ledger.iterdir()) == sorted(names[2:])
    assert sorted(offsets(database)) == sorted(names[2:])
    assert ingested(database, ledger, 4 * size - 1) == Ingested(0, 0, 1, 3 * size)
    assert ingested(database, ledger, 0) == Ingested(0, 0, 1, 2 * size)
    assert sorted(path.name for path in ledger.iterdir()) == [name_of(4), name_of(2, worker=1)]
    assert requests(database) == 60


def test_a_writers_newest_file_stays_until_it_has_a_successor(database, ledger):
    append(ledger / name_of(), line())
    append(ledger / name_of(worker=1), line())
    assert ingested(database, ledger, 0).deleted == 0
    append(ledger / name_of(start=START + 1), line())
    with (ledger / name_of()).open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)  # it finishes its streams while the next one is there already
        assert ingested(database, ledger, 0).deleted == 0
        append(ledger / name_of(), line())
        assert ingested(database, ledger, 0).lines == 1
    assert ingested(database, ledger, 0).deleted == 1
    assert not (ledger / name_of()).exists()
    assert requests(database) == 4


def test_who_is_alive_can_be_told(database, ledger):
    asked = []

    def is_alive(path: Path) -> bool:
        asked.append(path.name)
        return True

    for number, start in ((1, START), (2, START), (1, START + 1)):
        append(ledger / name_of(number, start=start), line())
    assert ingested(database, ledger, 0, is_alive=is_alive).deleted == 1
    assert asked == [name_of(2)]
    assert ingested(database, ledger, 0, is_alive=lambda path: False).deleted == 1
    assert [path.name for path in ledger.iterdir()] == [name_of(start=START + 1)]


def test_locks(ledger):
    path = ledger / name_of()
    assert is_locked(path)  # not to be known
    append(path, line())
    assert not is_locked(path)
    with path.open("ab") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert is_locked(path)
        assert is_locked(path)
    assert not is_locked(path)


def test_nothing_uncounted_is_deleted(database, ledger, monkeypatch):
    two_files(ledger)
    fail_at(monkeypatch, name_of(1))
    assert ingested(database, ledger, 0).deleted == 0
    monkeypatch.undo()
    assert ingested(database, ledger, 0).deleted == 1


def test_totals_that_are_not_on_the_disk_keep_their_files(database, other, ledger):
    two_files(ledger)
    other.execute("BEGIN")
    assert requests(other) == 0  # from here on it sees, and so holds, what was then
    assert ingested(database, ledger, 0) == Ingested(2, 0, 0, 2 * len(line()))
    assert requests(other) == 0
    other.execute("COMMIT")
    assert ingested(database, ledger, 0).deleted == 1


@pytest.mark.parametrize(("step", "is_left"), [("unlink", True), ("fsync", False)])
def test_a_crash_while_deleting(database, ledger, monkeypatch, step, is_left):
    two_files(ledger)
    monkeypatch.setattr(Path if step == "unlink" else os, step, Mock(side_effect=Killed))
    with pytest.raises(Killed):
        ingested(database, ledger, 0)
    monkeypatch.undo()
    assert (ledger / name_of(1)).exists() == is_left
    assert set(offsets(database)) == {name_of(1), name_of(2)}
    assert ingested(database, ledger, 0) == Ingested(0, 0, int(is_left), len(line()))
    assert requests(database) == 2


def test_what_cant_be_deleted_is_said_once_and_not_counted_again(database, ledger, monkeypatch, caplog):
    two_files(ledger)
    said: set[tuple[str, str]] = set()
    monkeypatch.setattr(Path, "unlink", Mock(side_effect=PermissionError(13, "read-only")))
    for _ in range(3):
        assert ingested(database, ledger, 0, said=said).deleted == 0
    assert caplog.text.count("can't be deleted") == 1
    monkeypatch.undo()
    assert ingested(database, ledger, 0, said=said).deleted == 1
    assert requests(database) == 2
    assert set(offsets(database)) == {name_of(2)}


# What operators do


def test_a_file_taken_away_and_brought_back_is_not_counted_again(database, ledger, tmp_path):
    two_files(ledger)
    ingested(database, ledger)
    (ledger / name_of(1)).rename(tmp_path / "away")
    ingested(database, ledger)
    (tmp_path / "away").rename(ledger / name_of(1))
    assert ingested(database, ledger).lines == 0
    assert requests(database) == 2


def test_a_file_that_became_shorter_or_was_replaced_is_said_and_left(database, ledger, caplog):
    path = ledger / name_of()
    append(path, line() * 3)
    ingested(database, ledger)
    os.truncate(path, len(line()))
    said: set[tuple[str, str]] = set()
    for _ in range(3):
        assert ingested(database, ledger, said=said).lines == 0
    assert caplog.text.count("has become shorter") == 1
    assert offsets(database)[path.name] == (3 * len(line()), 0)
    append(path, line() * 3)  # replaced by a longer one: what is beyond is counted
    assert ingested(database, ledger, said=said).lines == 1
    assert not said
    path.write_bytes(line(key="key_longer") * 10)  # replaced by other lines
    result = ingested(database, ledger)
    assert result.torn == 1  # the offset is in the middle of one
    assert result.lines in (5, 6)


def test_a_file_that_cant_be_read_is_said_and_the_others_go_on(database, ledger, monkeypatch, caplog):
    for worker in range(3):
        append(ledger / name_of(worker=worker), line())
    said: set[tuple[str, str]] = set()
    fail_at(monkeypatch, name_of(worker=1))
    for _ in range(3):
        ingested(database, ledger, said=said)
    assert requests(database) == 2
    assert caplog.text.count("can't be read") == 1
    monkeypatch.undo()
    ingested(database, ledger, said=said)
    assert requests(database) == 3
    assert not said
    ingested(database, ledger.parent / "none", said=said)


def test_a_file_that_goes_while_files_are_listed(database, ledger, monkeypatch):
    append(ledger / name_of(), line())
    listed = ledger_ingest._listed(ledger)
    (ledger / name_of()).unlink()
    monkeypatch.setattr(ledger_ingest, "_listed", lambda directory: listed)
    assert ingested(database, ledger).lines == 0
    assert listed


# What the database does


def test_a_locked_database_is_raised_and_nothing_is_lost(database, other, ledger):
    append(ledger / name_of(), line())
    database.execute("PRAGMA busy_timeout = 0")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        ingested(database, ledger)
    assert not database.in_transaction
    other.execute("ROLLBACK")
    assert ingested(database, ledger).lines == 1
    assert requests(database) == 1


def test_a_full_disk_is_raised_and_nothing_is_lost(database, ledger, monkeypatch):
    monkeypatch.setattr(ledger_ingest, "SLICE_BYTES", 4000)
    append(ledger / name_of(1), *(line(key=f"key_{number}") for number in range(2000)))
    append(ledger / name_of(2), line())
    [pages] = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        ingested(database, ledger, 0)
    assert not database.in_transaction
    before = requests(database)
    assert 0 < before < 2000
    database.execute("PRAGMA max_page_count = 100000")
    result = ingested(database, ledger, 0)
    assert (result.lines, result.deleted) == (2001 - before, 1)
    assert requests(database) == 2001


def test_a_broken_database_is_raised(ledger, tmp_path):
    two_files(ledger)
    (tmp_path / "broken.db").write_bytes(b"no database at all, whatever its name may say" * 100)
    database = sqlite3.connect(tmp_path / "broken.db", isolation_level=None)
    with contextlib.closing(database), pytest.raises(sqlite3.DatabaseError):
        ingested(database, ledger, 0)
    assert len(list(ledger.iterdir())) == 2


# Whatever is written in whatever steps

COUNT = st.integers(0, 10**6)
RECORD = st.fixed_dictionaries(
    {"id": st.just("req_1"), "t": st.floats(AT, AT + 3 * 86400)},
    optional={
        **{"key": st.sampled_from([None, "a", "b"]), "model": st.sampled_from([None, "m", "n"])},
        **{"provider": st.sampled_from([None, "p"]), "status": st.sampled_from([200, 399, 400, 503])},
        **{"input": COUNT, "cached": COUNT, "cache_write": COUNT, "output": COUNT, "reasoning": COUNT},
        **{"nusd": COUNT | st.none(), "source": st.sampled_from(["provider", "estimated", None])},
        **{"saved": COUNT, "group": st.sampled_from(["g", None]), "alias": st.sampled_from(["x", None])},
        **{"tags": st.fixed_dictionaries({"team": st.sampled_from("ab")}), "endpoint": st.sampled_from("ce")},
        "client_tags": st.fixed_dictionaries({}, optional={"app": st.sampled_from("xyz")}),
        "hedged": st.lists(
            st.fixed_dictionaries(
                {"model": st.sampled_from(["m", "n"]), "provider": st.just("p")},
                optional={"input": COUNT, "output": COUNT, "nusd": COUNT | st.none()},
            ),
            max_size=2,
        ),
    },
)
TORN = st.sampled_from([b"", b"{", b'{"id":"req_1","t":1764041226.5,"inp', b'{"t":1764041226.5,"input":"1"}'])
WRITE = st.just("write"), st.integers(0, 2), st.lists(RECORD | TORN, max_size=5), st.integers(0, 80)
ROTATE = st.just("rotate"), st.integers(0, 2), st.booleans(), st.just(0)
INGEST = st.just("ingest"), st.sampled_from([0, 2000, KEEP_ALL]), st.integers(600, 3000), st.just(0)
STEPS = st.lists(st.one_of(st.tuples(*WRITE), st.tuples(*ROTATE), st.tuples(*INGEST)), max_size=12)


def row_has_parts(record: dict) -> bool:
    return any(record.get(name) for name in ("cached", "cache_write", "reasoning"))


def plain_sum(records: list[dict]) -> dict[tuple, list]:
    sums: dict[tuple, list] = {}

    def at(record: dict, part: dict) -> list:
        named = record.get("key"), record.get("group"), part.get("model")
        group = (int(record["t"] // 86400), *(each or "" for each in named))
        tags = record.get("tags", {}) | record.get("client_tags", {})
        names = (part.get("provider") or "", record.get("alias") or "", record.get("endpoint") or "")
        found = sums.setdefault((*group, *names, tuple(sorted(tags.items()))), [0] * 11)
        found[9] = max(found[9], record["t"])
        return found

    for record in records:
        row = at(record, record)
        row[0] += 1
        row[1] += record.get("status", 0) >= 400
        for place, name in enumerate(("input", "cached", "cache_write", "output", "reasoning", "nusd"), 2):
            row[place] += record.get(name) or 0
        row[8] += record.get("source") == "estimated"
        row[10] += record.get("saved", 0) if row_has_parts(record) else 0
        for lost in record.get("hedged", []):
            row = at(record, lost)
            for place, name in ((2, "input"), (5, "output"), (7, "nusd")):
                row[place] += lost.get(name) or 0
            row[8] += 1
    return sums


@settings(max_examples=60)
@given(STEPS)
def test_any_lines_in_any_steps_give_the_plain_sum(steps):
    records: list[dict] = []
    torn = found_torn = found_lines = 0
    with (
        tempfile.TemporaryDirectory() as directory,
        contextlib.closing(opened(":memory:")) as database,
        pytest.MonkeyPatch.context() as patch,
    ):
        ledger = Path(directory)
        numbers, starts, held = Counter(), Counter(), {0: b"", 1: b"", 2: b""}

        def path(worker: int) -> Path:
            return ledger / name_of(numbers[worker], worker, START + starts[worker])

        for what, worker, these, rest in [*steps, ("ingest", KEEP_ALL, 600, 0)]:
            if what == "write":
                data = held[worker]
                for record in these:
                    is_torn = isinstance(record, bytes)
                    data += (record if is_torn else orjson.dumps(record)) + b"\n"
                    torn += is_torn
                    records += [] if is_torn else [record]
                cut_at = max(len(data) - rest, 0)  # the rest comes with what is written next
                append(path(worker), data[:cut_at])
                held[worker] = data[cut_at:]
            elif what == "rotate":
                append(path(worker), held[worker])
                held[worker] = b""
                numbers[worker] += 1
                if these:
                    starts[worker] += 1
                append(path(worker))
            else:
                if these == 600:
                    for other in held:
                        append(path(other), held[other])
                        held[other] = b""
                patch.setattr(ledger_ingest, "SLICE_BYTES", these)
                result = ingested(database, ledger, worker)
                found_lines += result.lines
                found_torn += result.torn
        sets = dict(database.execute("SELECT id, tags FROM tag_sets")) | {0: "{}"}
        rows = {
            (*row[:7], tuple(orjson.loads(sets[row[7]]).items())): list(row[8:])
            for row in database.execute("SELECT * FROM usage")
        }
    assert rows == plain_sum(records)
    assert (found_lines, found_torn) == (len(records), torn)


# Real processes

CHILDREN = """
import json, logging, os, random, signal, sys, time
from collections import Counter
from functools import partial
from pathlib import Path
from proxy.storage import ledger_files, ledger_ingest
from tests.storage import test_ledger_ingest as here

logging.disable()
ledger_files.FILE_BYTES = 20_000
directory, seed = Path(sys.argv[1]), int(sys.argv[3])
rng = random.Random(seed)
opened = partial(here.opened, sys.argv[2])

def ingest(database, keep_bytes):
    return here.ingested(database, directory, keep_bytes)

def forked(work):
    # A process that does the work; and how to wait until it is there, or what it says.
    readable, writable = os.pipe()
    child = os.fork()
    if child:
        os.close(writable)
        return child, readable
    try:
        os.close(readable)
        work(lambda text: os.write(writable, text))
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(3)

def ended(child, readable):
    os.close(readable)
    return os.waitpid(child, 0)[1]

expected = Counter()

class Writer:
    starts = 1764041226123

    def __init__(self, worker):
        Writer.starts += 1
        self.worker, self.ledger = worker, ledger_files.Ledger(directory, worker, Writer.starts)

    def write(self):
        key, tokens, nusd = f"key_{rng.randrange(5)}", rng.randrange(1000), rng.randrange(10**9)
        team = rng.choice("ab")
        record = {"id": "req_1", "t": 1764041226.5, "key": key, "model": "m", "provider": "p", "status": 200,
                  "input": tokens, "nusd": nusd, "cached": 1, "saved": nusd, "alias": "premium",
                  "client_tags": {"team": team, "app": f"app {rng.randrange(20)}"}}
        line = json.dumps(record).encode() + b"\\n"
        if rng.random() < 0.005 and self.ledger._file >= 0:  # a full disk, say
            os.write(self.ledger._file, line[: rng.randrange(1, len(line))])
            self.ledger.close()
            self.__init__(self.worker)
            return
        self.ledger.write(line)
        expected.update({f"{key} requests": 1, f"{key} tokens": tokens, f"{key} nusd": nusd,
                         f"{key} {team} saved": nusd})

def found(database):
    sums = Counter()
    for key, *values in database.execute(
        "SELECT key, SUM(requests), SUM(input_tokens), SUM(nusd) FROM usage GROUP BY key"
    ):
        sums.update(dict(zip((f"{key} requests", f"{key} tokens", f"{key} nusd"), values)))
    for key, team, saved in database.execute(
        "SELECT usage.key, json_extract(tag_sets.tags, '$.team'), SUM(saved_nusd) FROM usage "
        "JOIN tag_sets ON tag_sets.id = usage.tags GROUP BY 1, 2"
    ):
        sums[f"{key} {team} saved"] += saved
    return sums
"""

KILLS = """
ledger_ingest.SLICE_BYTES = 600  # some four lines: most of the time somebody is in the middle of something
KILLS, KEEP_BYTES = 220, 60_000

def work(say):
    database = opened()
    say(b"x")
    while True:
        ingest(database, KEEP_BYTES)

opened().close()
writers = [Writer(worker) for worker in range(3)]
kills = early = 0
while kills < KILLS:
    child, readable = forked(work)
    if rng.random() < 0.9:
        os.read(readable, 1)
    else:
        early += 1  # killed while it opens the database, and takes up what the last one left
    most = rng.choice((20, 100, 300))  # few: it gets as far as deleting
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(3)
        for _ in range(rng.randrange(1, most)):
            writers[place].write()
        if rng.random() < 0.02:
            writers[place].ledger.close()
            writers[place] = Writer(place)
        time.sleep(rng.random() * 0.003)
    os.kill(child, signal.SIGKILL)
    status = ended(child, readable)
    assert os.WIFSIGNALED(status), status
    kills += 1
for writer in writers:
    writer.ledger.close()
database = opened()
before = found(database)
last = ingest(database, KEEP_BYTES)
print(json.dumps({"expected": expected, "found": found(database), "before": before, "last": last.lines,
                  "kept": last.kept_bytes, "kills": kills, "early": early,
                  "ok": database.execute("PRAGMA integrity_check").fetchone()[0]}))
database.close()
"""

AT_ONCE = """
ledger_ingest.SLICE_BYTES = 2000
opened().close()
writers = [Writer(worker) for worker in range(3)]
for _ in range(6000):
    writers[rng.randrange(3)].write()

def work(say):
    database = opened()
    result = ingest(database, 0)
    say(f"{result.lines} {result.deleted}".encode())

children = [forked(work) for _ in range(3)]
says = [os.read(readable, 100).split() for _, readable in children]
assert [ended(*child) for child in children] == [0, 0, 0]
database = opened()
last = ingest(database, 0)
print(json.dumps({"expected": expected, "found": found(database), "lines": sum(int(each[0]) for each in says),
                  "last": last.lines, "left": len(list(directory.iterdir()))}))
database.close()
"""


def in_processes(program: str, ledger: Path, tmp_path: Path, seed: int) -> dict:
    """A process of its own: forking one with the threads and loops of a test run would be asking for it."""
    command = [sys.executable, "-c", CHILDREN + program, str(ledger), str(tmp_path / "t.db"), str(seed)]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr.decode()
    return orjson.loads(done.stdout)


def test_killed_at_any_instant_every_line_counts_once(ledger, tmp_path):
    result = in_processes(KILLS, ledger, tmp_path, seed=1)
    assert result["kills"] >= 200
    assert result["found"] == result["expected"]
    assert result["ok"] == "ok"
    lines = sum(count for name, count in result["expected"].items() if name.endswith("requests"))
    assert 0 < sum(count for name, count in result["before"].items() if name.endswith("requests")) <= lines
    assert result["kept"] < 60_000 + 3 * 21_000


def test_several_processes_fold_at_once(ledger, tmp_path):
    result = in_processes(AT_ONCE, ledger, tmp_path, seed=2)
    assert result["found"] == result["expected"]
    lines = sum(count for name, count in result["expected"].items() if name.endswith("requests"))
    assert result["lines"] + result["last"] == lines
    assert result["left"] == 3
