"""Hold the tests to 60 mutants of the compiled modules: small faults, each of which should fail a test.

    python -m tests.support.mutants --check                 those recorded as killed still are
    python -m tests.support.mutants --check --only 'proxy/wire/*' --jobs 2
    python -m tests.support.mutants --record                run all of them and write tests/mutants.json
    python -m tests.support.mutants --redraw                draw again after edits, run what is new

The nearest tests run first: the file of the module, the folder of its package, then tests/system and
tests/relay. A test that fails is run again with that mutant, and in the end without any. A record takes
about an hour on two cores that others use too; a check takes three minutes where they are idle.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from tests.support.mutant_places import ROOT, SEED, Mutant, draw, mutants_of
from tests.support.mutant_runs import STEPS, Runs, Verdict, failing, groups, hunt, hunt_on

RECORD = ROOT / "tests" / "mutants.json"
REDRAW = "python -m tests.support.mutants --redraw"
UNKNOWN = Verdict("unfinished", "", None)


def load() -> dict[Mutant, Verdict]:
    """Return the record; an empty one where none was made."""
    if not RECORD.exists():
        return {}
    return {
        Mutant(**{name: entry[name] for name in Mutant._fields}): Verdict(
            **{name: entry[name] for name in Verdict._fields}
        )
        for entry in json.loads(RECORD.read_text())["mutants"]
    }


def save(record: dict[Mutant, Verdict]) -> None:
    entries = [mutant._asdict() | verdict._asdict() for mutant, verdict in sorted(record.items())]
    RECORD.write_text(json.dumps({"seed": SEED, "mutants": entries}, indent=1, ensure_ascii=False) + "\n")


def lost(mutants: list[Mutant]) -> list[Mutant]:
    """Return those that the source does not have any more."""
    there: set[Mutant] = set()
    for path in {mutant.path for mutant in mutants}:
        if (ROOT / path).exists():
            there.update(mutants_of(path, (ROOT / path).read_text()))
    return [mutant for mutant in mutants if mutant not in there]


def described(mutant: Mutant) -> str:
    number = f" ({mutant.occurrence})" if mutant.occurrence > 1 else ""
    return f"{mutant.path}, {mutant.function}: {mutant.before} -> {mutant.after}{number}"


def report(mutant: Mutant, verdict: Verdict) -> None:
    by = f" by {verdict.killed_by}" if verdict.killed_by else ""
    print(f"{described(mutant)}: {verdict.how}, step {verdict.step}{by}", flush=True)


def record_all(runs: Runs, record: dict[Mutant, Verdict], mutants: list[Mutant]) -> int:
    """Run mutants step by step, those that survive one step in the next; returns the exit code."""
    for step in STEPS:
        left = [mutant for mutant in mutants if record[mutant].is_due(step)]
        print(f"step {step}: {len(left)} mutants", flush=True)
        together = [[mutant] for mutant in left] if step == "module" else groups(left, step)
        for verdicts in runs.each(together, partial(hunt, step=step)):
            record |= verdicts
            save(record)
            for mutant, verdict in verdicts.items():
                report(mutant, verdict)
    tests = sorted({test for mutant in mutants if (test := record[mutant].killed_by)})
    broken = set().union(*runs.each([tests] if tests else [], failing))
    for mutant in mutants:
        if record[mutant].killed_by in broken:
            record[mutant] = UNKNOWN
    save(record)
    for test in sorted(broken):
        print(f"{test} fails without a mutant, so it shows nothing: mend it, and record again")
    killed = sum(record[mutant].is_killed for mutant in mutants)
    print(f"{killed} of {len(mutants)} mutants are killed")
    return bool(broken)


def check(runs: Runs, record: dict[Mutant, Verdict], mutants: list[Mutant]) -> int:
    """Run what was killed; returns the exit code."""
    gone = lost(mutants)
    killed = [mutant for mutant in mutants if record[mutant].is_killed and mutant not in gone]
    survivors = []
    verdicts = runs.each(killed, lambda tree, mutant: hunt_on(tree, mutant, record[mutant]))
    for mutant, verdict in zip(killed, verdicts, strict=True):
        report(mutant, verdict)
        if not verdict.is_killed:
            survivors.append(mutant)
    for mutant in gone:
        print(f"NOT FOUND in the source of today: {described(mutant)}")
    if gone:
        print(f"Edits removed what these change ({len(gone)} in all). Draw others: {REDRAW}")
    for mutant in survivors:
        print(f"SURVIVES now, and was killed by {record[mutant].killed_by}: {described(mutant)}")
    print(f"{len(killed) - len(survivors)} of {len(killed)} mutants are killed as before")
    return bool(gone or survivors)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="fail if a mutant that was killed survives")
    action.add_argument("--record", action="store_true", help="draw, run all, and write the record")
    action.add_argument(
        "--redraw", action="store_true", help="draw, and run what the record does not have, or not to the end"
    )
    parser.add_argument("--only", default="*", metavar="GLOB", help="of the modules' paths")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants at a time")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as the keyboard's: tests and copies go
    record = load()
    if not given.check:
        record = {mutant: record.get(mutant, UNKNOWN) for mutant in draw()}
    mutants = [mutant for mutant in record if fnmatch(mutant.path, given.only)]
    if not mutants:
        parser.error(f"no mutant of {given.only!r} is recorded")
    if given.record:
        record |= dict.fromkeys(mutants, UNKNOWN)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        runs = Runs(Path(folder), given.jobs)
        return check(runs, record, mutants) if given.check else record_all(runs, record, mutants)


if __name__ == "__main__":
    sys.exit(main())
