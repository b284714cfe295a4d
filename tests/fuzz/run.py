#!/usr/bin/env python3
"""Fuzzes targets with atheris, and keeps the inputs that reach something new.

    python -m tests.fuzz.run all                       ten minutes each, one after the other
    python -m tests.fuzz.run outline --seconds 60
    python -m tests.fuzz.run all --seconds 300 --jobs 2
    python -m tests.fuzz.run all --runs 2000           as CI does: bounded by inputs, nothing kept

An input at which a target fails is written to ``tests/fuzz/crashes/TARGET``; the tests run it from then on.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

from tests.fuzz.source import HERE, TARGETS, corpus_of, keep, load

ROOT = HERE.parents[1]
# A corpus is read by people, and run by every test: the smallest inputs are kept.
MOST_INPUTS = 150
MOST_BYTES = 30_000
MAX_INPUT_BYTES = 2048
# Twenty times what the slowest input takes on a busy machine.
TIMEOUT_S = 30


class Report(NamedTuple):
    """What a run of a target came to. ``coverage``: edges. ``crash``: its output's end, "" for none."""

    name: str
    executions: int
    coverage: int
    features: int
    kept: int
    crash: str


def child(name: str, again: str, arguments: list[str]) -> None:
    """In a process of its own, which atheris ends by itself. ``again``: the program that starts another."""
    import atheris

    with atheris.instrument_imports(include=["proxy"], enable_loader_override=False):
        target = load(name)
    atheris.Setup([again, *arguments], target.test_one)
    atheris.Fuzz()


def fuzz(name: str, seconds: int, runs: int) -> Report:
    """Run a target for so long, or so many inputs, from its corpus and seeds on."""
    crashes = HERE / "crashes" / name
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(temporary)
        corpus, merged, found = (folder / part for part in ("corpus", "merged", "found"))
        for made in (corpus, merged, found):
            made.mkdir()
        for data in [*load(name).SEEDS, *corpus_of(name)]:
            (corpus / sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
        # Bounded by inputs it is a test, the same each time.
        bound = (f"-runs={runs}", "-seed=1") if runs else (f"-max_total_time={seconds}",)
        output = _run(name, folder, *bound, f"-artifact_prefix={found}/", "-print_final_stats=1", str(corpus))
        artifacts = sorted(found.iterdir())
        if artifacts:
            crashes.mkdir(parents=True, exist_ok=True)
            for path in artifacts:
                (crashes / path.name).write_bytes(path.read_bytes())
        kept = 0
        if not runs:
            _run(name, folder, "-merge=1", str(merged), str(corpus))
            kept = _keep(name, [path.read_bytes() for path in merged.iterdir()])
    failed = artifacts or "Done " not in output
    return Report(
        name, *(_last(pattern, output) for pattern in (r"^#(\d+)", r"cov: (\d+)", r"ft: (\d+)")), kept,
        output[-6000:] if failed else "",
    )  # fmt: skip


def _run(name: str, folder: Path, *arguments: str) -> str:
    limits = (f"-max_len={MAX_INPUT_BYTES}", f"-timeout={TIMEOUT_S}", "-rss_limit_mb=4096")
    again = folder / "again"  # merging starts the program anew, by its name and with arguments of its own
    command = [sys.executable, "-m", "tests.fuzz.run", "--child", name, str(again)]
    again.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    again.chmod(0o700)
    done = subprocess.run(
        [*command, *limits, *arguments], capture_output=True, text=True, errors="replace", cwd=ROOT,
        check=False,
    )  # fmt: skip
    return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


def _keep(name: str, inputs: list[bytes]) -> int:
    kept: list[bytes] = []
    size = 0
    for data in sorted(inputs, key=len):
        size += 2 * len(data)  # about what it takes as text
        if len(kept) < MOST_INPUTS and size <= MOST_BYTES:
            kept.append(data)
    keep(name, kept)
    return len(kept)


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target, in place of seconds")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    given = parser.parse_args()
    names = TARGETS if given.target == "all" else [given.target]
    with ThreadPoolExecutor(given.jobs) as threads:
        reports = list(threads.map(lambda name: fuzz(name, given.seconds, given.runs), names))
    for report in reports:
        print(
            f"{report.name:14} {report.executions:9,} executions, {report.coverage:5} edges, "
            f"{report.features:6} features, {report.kept:3} kept{', FAILED' if report.crash else ''}"
        )
        if report.crash:
            print(report.crash)
    sys.exit(any(report.crash for report in reports))


if __name__ == "__main__":
    main()
