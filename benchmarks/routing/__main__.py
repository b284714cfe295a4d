"""How well routing chooses: the real strategies on seeded traces and a simulated clock.

They are compared with an oracle, which knows every member's true mean at each moment, and with what other
load balancers do. docs/routing.md explains the scenarios and how to read the tables.

    python benchmarks/routing                every scenario, eight seeds, two processes
    ... --quick                              small cells and two seeds: under a minute
    ... --scenario outage,hang --policy tokenhub,peak-ewma
    ... --plots docs/routing --json results.json
    ... --scenarios mine.py                  scenarios of your own; see routing/trace.py
    ... --check                              exit 1 if a bar is missed

Same seeds, same figures, on any machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # the folder was started: its modules are a package's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from routing.bars import verdicts
from routing.cells import FACTORIES, Task, load, run_all
from routing.report import bar_table, set_table, tables

SEEDS, QUICK_SEEDS = 8, 2
QUICK_REQUESTS = 7000  # cells above are left out of a quick run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/routing",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenario", default="", help="names, with commas between")
    parser.add_argument("--half", choices=("tuned", "held-out"), help="only scenarios of that half")
    parser.add_argument("--policy", default="", help="names, with commas between; the oracle always runs")
    parser.add_argument("--seeds", type=int, help=f"default {SEEDS}")
    parser.add_argument("--first-seed", type=int, default=1, help="default 1; others were never tuned on")
    parser.add_argument("--jobs", type=int, default=2, help="processes; default 2")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--scenarios", metavar="FILE", help="a Python file with a list SCENARIOS")
    parser.add_argument("--plots", metavar="DIR", type=Path, help="draw a picture per scenario (matplotlib)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    parser.add_argument("--list", action="store_true", help="list scenarios and policies")
    return parser.parse_args()


def plan(args: argparse.Namespace) -> list[Task]:
    """The cells that were asked for."""
    known = load(args.scenarios)
    names = args.scenario.split(",") if args.scenario else list(known)
    if args.half and not args.scenario:
        names = [name for name in names if known[name].half == args.half]
    policies = tuple(args.policy.split(",")) if args.policy else ()
    every = {policy.name for of_strategy in FACTORIES.values() for policy in of_strategy}
    for kind, asked, allowed in (("scenario", names, set(known)), ("policy", policies, every)):
        unknown = set(asked) - allowed
        if unknown:
            sys.exit(f"no such {kind}: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(allowed))}")
    count = args.seeds or (QUICK_SEEDS if args.quick else SEEDS)
    seeds = range(args.first_seed, args.first_seed + count)
    return [
        Task(args.scenarios, name, index, seeds, policies)
        for name in names
        for index, cell in enumerate(known[name].cells)
        if not args.quick or cell.rate * cell.end_s <= QUICK_REQUESTS
    ]


def main() -> int:
    args = parse_arguments()
    if args.list:
        for scenario in load(args.scenarios).values():
            print(f"{scenario.name:12} {scenario.strategy:8} {scenario.about}")
            print(f"{'':22}{', '.join(cell.label for cell in scenario.cells)}")
        print("policies:", ", ".join(policy.name for policy in FACTORIES["cost"]))
        return 0
    started = time.monotonic()
    results = run_all(plan(args), max(1, args.jobs))
    found = verdicts(results)
    print(tables(results))
    print(set_table(results))
    print(bar_table(found))
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    if args.plots:
        from routing.plots import draw  # matplotlib is needed for this alone

        for path in draw(results, args.plots):
            print(path, file=sys.stderr)
    return 1 if args.check and not all(verdict.is_met for verdict in found) else 0


if __name__ == "__main__":
    sys.exit(main())
