"""Machine instructions of a case, counted by valgrind and held against those on record.

A time moves by half on a shared machine, and a test that fails for it teaches people to run it again. Counted
instructions repeat, whatever else the machine does, so they can fail a change that makes a request dearer.
``instructions.json`` has what each case of ``KEPT`` took and the environment it was counted in. The figures
hold for that environment alone, as another interpreter or compiler makes other code: in any other the
comparison is printed, and nothing fails.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

RECORD = Path(__file__).with_name("instructions.json")
# Whole requests and chunks, and the reading of usage, which is most of what is done beside them.
KEPT = ("pinned", "routed", "limited", "limited-100k", "stream", "chunk", "usage", "usage-events")
# Each case is counted in two runs; what a call takes is the difference, so that start and warm-up drop out.
CALLS = (200, 1200)
FEW_CALLS = (20, 120)
# valgrind shows a program one of three processors, by whether the real one has these, and the C library
# chooses its code by it. The real one's name does not matter.
CPU_FLAGS = ("avx2", "avx", "sse4_2")
# Clocks are read and caches refilled a different number of times in each run: counts of the same build, on a
# machine with six times the work it has cores for, differed by up to 0.3 %; those of two builds of nearly the
# same source by up to 1.2 %, either way.
TOLERANCE = 0.03
HOW = "python benchmarks/stages.py --record"


class Row(NamedTuple):
    """A case as it was recorded and as it is. None: not recorded."""

    name: str
    old: int | None
    new: int

    @property
    def change(self) -> float:
        """The part by which it is dearer; below zero: cheaper."""
        return self.new / self.old - 1 if self.old else 0.0


# ------------------------------------------------------------------ counting


def count_all(names: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Each case with the instructions of one call, as they are counted: a case per core at a time."""
    names = list(names)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as threads:
        yield from zip(names, threads.map(lambda name: count(name, Path(folder)), names), strict=True)


def count(name: str, folder: Path) -> int:
    """Machine instructions of one call."""
    few, many = FEW_CALLS if "2m" in name or "100k" in name else CALLS
    return round((collected(name, many, folder) - collected(name, few, folder)) / (many - few))


def collected(name: str, calls: int, folder: Path) -> int:
    """Machine instructions of a process that makes so many calls."""
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder / f'{name}-{calls}'}"]
    stages = str(Path(__file__).with_name("stages.py"))
    command += [sys.executable, stages, "--case", name, "--only-run", str(calls)]
    # Without these two, dict order and the interpreter's own writes differ from run to run.
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environ)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        raise SystemExit(f"valgrind failed at {name}: {done.stderr[-800:]}")
    return int(found[1])


# ------------------------------------------------------------------ the environment


def environment() -> dict[str, str]:
    """What the figures depend on, and no change to this repository decides."""
    valgrind = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python's options": options_of(sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "python's compiler": platform.python_compiler(),
        "compiler": compiler_of(_compiled_file().read_bytes()),
        "C library": " ".join(platform.libc_ver()),
        "valgrind": valgrind.strip().removeprefix("valgrind-"),
        "processor": f"{platform.machine()} {processor(Path('/proc/cpuinfo').read_text())}",
    }


def options_of(configured: str) -> str:
    """What an interpreter was built with, but for places: the same version may be optimized or not."""
    return " ".join(sorted(set(re.findall(r"--(?:enable|with|without)-[\w-]+", configured)))) or "none"


def is_compiled() -> bool:
    """Whether this is a compiled build."""
    return _compiled_file().suffix == ".so"


def _compiled_file() -> Path:
    import proxy.wire.model_scanner

    return Path(proxy.wire.model_scanner.__file__)


def compiler_of(module: bytes) -> str:
    """The compiler of a compiled module, as it signs."""
    found = re.search(rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+", module)
    return found[0].decode() if found else "unknown"


def processor(cpuinfo: str) -> str:
    """The first of ``CPU_FLAGS`` that the processor has."""
    flags = re.search(r"^flags\s*:(.*)$", cpuinfo, re.M)
    has = flags[1].split() if flags else []
    return next((flag for flag in CPU_FLAGS if flag in has), "")


def packages() -> dict[str, str]:
    """What else the figures depend on. One of these that got dearer is worth a look: it excuses nothing."""
    from importlib.metadata import version  # a tenth of what each counted run would take to start

    return {name: version(name) for name in ("mypy", "orjson")}


# ------------------------------------------------------------------ the record


class Record(NamedTuple):
    """The instructions of each case, and what they were counted in and with."""

    environment: dict[str, str]
    packages: dict[str, str]
    instructions: dict[str, int]

    def write(self) -> None:
        """Put this on record in place of what was."""
        RECORD.write_text(json.dumps(self._asdict(), indent=2) + "\n")


def read_record() -> Record:
    """What is on record."""
    return Record(**json.loads(RECORD.read_text()))


def compare(old: dict[str, int], new: dict[str, int]) -> list[Row]:
    """Each case that was counted, beside its record."""
    return [Row(name, old.get(name), count) for name, count in new.items()]


def table(rows: Iterable[Row]) -> str:
    """The comparison, for a person."""
    lines = [f"{'case':14} {'recorded':>12} {'now':>12} {'change':>8}"]
    for row in rows:
        old, change = ("-", "") if row.old is None else (f"{row.old:,}", f"{row.change:+.2%}")
        lines.append(f"{row.name:14} {old:>12} {row.new:12,} {change:>8}".rstrip())
    return "\n".join(lines)


def verdict(rows: list[Row], old: Record, new: Record) -> tuple[bool, str]:
    """Whether this passes, and the sentence that says why, and what to do."""
    if others := differences(old.environment, new.environment):
        return True, (
            f"Nothing is judged: the record was counted in another environment ({others}). To judge here, "
            f"put the commit before the change on record: {HOW}"
        )
    if missing := [row.name for row in rows if row.old is None]:
        return False, f"Not on record: {', '.join(missing)}. Put them there: {HOW}"
    if dearer := [row for row in rows if row.change > TOLERANCE]:
        updated = differences(old.packages, new.packages)
        return False, (
            f"Dearer than on record by more than {TOLERANCE:.1%}: {_named(dearer)}. "
            f"{f'Other packages than then: {updated}. ' if updated else ''}"
            "Measure what it is (--profile; --instructions with and without the change). If it is worth "
            f"that, say in the commit what it costs and what for, and put it on record: {HOW}"
        )
    if cheaper := [row for row in rows if row.change < -TOLERANCE]:
        return True, f"Cheaper than on record: {_named(cheaper)}. So that it stays so, record it: {HOW}"
    return True, f"All within {TOLERANCE:.1%} of the record."


def differences(old: dict[str, str], new: dict[str, str]) -> str:
    """Where two differ, in words; empty: nowhere."""
    return ", ".join(
        f"{name} {new.get(name, 'none')} instead of {old.get(name, 'none')}"
        for name in dict.fromkeys([*old, *new])
        if old.get(name) != new.get(name)
    )


def _named(rows: Iterable[Row]) -> str:
    return ", ".join(f"{row.name} {row.change:+.1%}" for row in rows)
