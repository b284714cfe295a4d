"""What a soak adds up: ledger lines against requests, and whether what is measured grows."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import orjson

PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Samples are no strangers to each other: what one has allocated is there at the next. So the error of a slope
# is taken from the means of so many spans of the run, which nearly are.
BLOCKS = 24


class Slope(NamedTuple):
    """Growth a minute, and its standard error."""

    per_min: float
    error: float

    def __str__(self) -> str:
        return f"{self.per_min:+.1f} ± {self.error:.1f}"

    def is_flat(self, bound: float) -> bool:
        """Whether it can't be told from nothing, or is below what matters."""
        return abs(self.per_min) < 2 * self.error or self.per_min < bound


def slope(samples: Sequence[tuple[float, float]]) -> Slope | None:
    """Least squares through (seconds, value); None where there are too few."""
    if len(samples) < 6:
        return None
    size = max(1, len(samples) // BLOCKS)
    blocks = [samples[at : at + size] for at in range(0, len(samples) - size + 1, size)]
    points = [(sum(x for x, _ in b) / len(b) / 60, sum(y for _, y in b) / len(b)) for b in blocks]
    count = len(points)
    mean_x, mean_y = sum(x for x, _ in points) / count, sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    per_min = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - per_min * (x - mean_x)) ** 2 for x, y in points)
    return Slope(per_min, math.sqrt(rest / (count - 2) / spread))


# ---------------------------------------------------------------------- /proc


class Sample(NamedTuple):
    """Of a process at a moment."""

    at_s: float  # since the start of the soak
    rss_kib: float
    fds: int
    sockets: int
    cpu_s: float


def sample(pid: int, at_s: float) -> Sample | None:
    """None: it has gone."""
    folder = Path(f"/proc/{pid}")
    try:
        rss_kib = int((folder / "statm").read_text().split()[1]) * PAGE_KIB
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        names = os.listdir(folder / "fd")
    except OSError:
        return None
    sockets = 0
    for name in names:
        with suppress(OSError):
            sockets += os.readlink(folder / "fd" / name).startswith("socket:")
    return Sample(at_s, rss_kib, len(names), sockets, (int(fields[11]) + int(fields[12])) / TICKS_PER_S)


def children(pid: int) -> list[int]:
    """The processes that one has started, the oldest first."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


# ---------------------------------------------------------------------- /metrics

Families = dict[str, dict[str, float]]


def read_metrics(text: str) -> Families:
    """Names to labels, as they are written, to numbers."""
    found: Families = {}
    for line in text.splitlines():
        if line and line[0] != "#":
            what, _, number = line.rpartition(" ")
            name, _, labels = what.partition("{")
            found.setdefault(name, {})[labels.rstrip("}")] = float(number)
    return found


def percentile(buckets: dict[str, float], share: float) -> float:
    """The bound below which that share of a histogram lies: ``buckets`` are cumulative, by their ``le``."""
    bounds = sorted((float(label.partition('le="')[2].rstrip('"')), n) for label, n in buckets.items())
    total = bounds[-1][1] if bounds else 0.0
    return next((bound for bound, n in bounds if total and n >= share * total), 0.0)


# ---------------------------------------------------------------------- the ledger


class Expected(NamedTuple):
    """What the line of a request has to say. ``tokens``: in and out, of a whole answer; None: an estimate."""

    number: int
    status: int
    tokens: tuple[int, int] | None
    key: str | None


class Books:
    """Requests as clients saw them against lines, as both come in. Of what matched only a mark is kept."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.offsets: dict[str, int] = {}
        self.pieces: dict[str, bytes] = {}  # of files: a line that is not whole yet
        self.open: dict[bytes, Expected] = {}  # answered, and no line seen
        self.early: dict[bytes, dict[str, object]] = {}  # lines of requests that are not known to be over
        self.seen: dict[bytes, bytearray] = {}  # by the beginning of an id: how often its number came
        self.none: list[bytes] = []  # ids that may have no line
        self.lines = 0
        self.faults: list[str] = []
        self.fault_count = self.doubled = 0
        self.totals: Counter[tuple[str | None, str | None, str | None, str]] = Counter()
        self.left: dict[int, None] = {}  # numbers whose client left before it knew an id
        self.provided = [0, 0, 0]  # whole answers, and the tokens in and out that they told

    def fault(self, text: str) -> None:
        self.fault_count += 1
        if len(self.faults) < 50:
            self.faults.append(text)

    def expect(self, id: bytes, expected: Expected) -> None:
        """A request that was sent to a provider is over."""
        if expected.tokens is not None:
            self.provided[0] += 1
            self.provided[1] += expected.tokens[0]
            self.provided[2] += expected.tokens[1]
        line = self.early.pop(id, None)
        if line is not None:
            self._compare(id, expected, line)
        elif id in self.open:
            self.fault(f"{id.decode()}: two answers have this id")
        else:
            self.open[id] = expected

    def expect_none(self, id: bytes) -> None:
        """A request that was refused has no line."""
        self.none.append(id)

    def expect_maybe(self, number: int) -> None:
        """A client left before it had an id."""
        self.left[number] = None

    def read(self) -> None:
        """Take in what the files have got."""
        if not self.directory.is_dir():
            return
        for entry in sorted(os.scandir(self.directory), key=lambda entry: entry.name):
            if entry.name.endswith(".jsonl"):
                with open(entry.path, "rb") as file:
                    file.seek(self.offsets.get(entry.name, 0))
                    while data := file.read(1 << 20):
                        self.offsets[entry.name] = file.tell()
                        lines = (self.pieces.get(entry.name, b"") + data).split(b"\n")
                        self.pieces[entry.name] = lines.pop()
                        for line in lines:
                            self.take(line)

    def take(self, line: bytes) -> None:
        """One line of the ledger."""
        self.lines += 1
        try:
            told = orjson.loads(line)
            id = told["id"].encode()
            begin, number = id[:-8], int(id[-8:], 16)
        except (orjson.JSONDecodeError, KeyError, ValueError):
            self.fault(f"no line: {line[:200]!r}")
            return
        marks = self.seen.setdefault(begin, bytearray())
        if number >= len(marks):
            marks.extend(bytes(number + 1024 - len(marks)))
        marks[number] = min(marks[number] + 1, 255)
        self._add(told)
        if marks[number] > 1:
            self.doubled += 1
            self.fault(f"{id.decode()}: doubled")
        elif (expected := self.open.pop(id, None)) is not None:
            self._compare(id, expected, told)
        else:
            self.early[id] = told

    def _add(self, told: dict[str, object]) -> None:
        rows: Iterable[dict[str, object]] = (told, *(told.get("hedged") or ()))  # type: ignore[misc]
        for row in rows:
            who = told["key"], row.get("model"), row.get("provider")
            self.totals[(*who, "input_tokens")] += row.get("input") or 0  # type: ignore[index, operator]
            self.totals[(*who, "output_tokens")] += row.get("output") or 0  # type: ignore[index, operator]
            self.totals[(*who, "nusd")] += row.get("nusd") or 0  # type: ignore[index, operator]
        who = told["key"], told.get("model"), told.get("provider")
        self.totals[(*who, "requests")] += 1  # type: ignore[index]
        self.totals[(*who, "errors")] += told["status"] >= 400  # type: ignore[index, operator]

    def _compare(self, id: bytes, expected: Expected, told: dict[str, object]) -> None:
        found = told.get("status"), told.get("key")
        if found != (expected.status, expected.key):
            self.fault(f"{id.decode()}: status and key {found} instead of {expected[1], expected[3]}")
        if expected.tokens is not None:
            tokens = told.get("input"), told.get("output")
            if told.get("source") != "provider" or tokens != expected.tokens:
                self.fault(f"{id.decode()}: tokens {tokens} ({told.get('source')}) for {expected.tokens}")

    def was_seen(self, id: bytes) -> bool:
        marks, number = self.seen.get(id[:-8], b""), int(id[-8:], 16)
        return number < len(marks) and marks[number] > 0

    def close(self, arrived: set[int]) -> tuple[int, int]:
        """At the end: how many lines are lost, and how many are there that may not be.

        Whoever left before the answer's head knows no id. If the provider had read such a request there is a
        line for it; if not, there may be one. So of lines that nobody knows there are at least as many as of
        the former, and at most as many as of both.

        :param arrived: numbers of all requests that the provider read to their end.
        """
        lost, unknown = len(self.open), len(self.early)
        for id, expected in list(self.open.items())[:20]:
            self.fault(f"{id.decode()}: no line (request {expected.number}, status {expected.status})")
        least = sum(number in arrived for number in self.left)
        if unknown < least:
            lost += least - unknown
            self.fault(f"{unknown} lines of clients that left early, though the provider read {least}")
        surplus = max(0, unknown - len(self.left))
        if surplus:
            ids = [id.decode() for id in list(self.early)[:20]]
            self.fault(f"{unknown} lines that no client knows, and only {len(self.left)} left early: {ids}")
        for id in self.none:
            if self.was_seen(id):
                surplus += 1
                self.fault(f"{id.decode()}: a line, though the request was refused")
        for name, piece in self.pieces.items():
            if piece:
                self.fault(f"{name}: half a line at its end: {piece[:100]!r}")
        return lost, surplus
