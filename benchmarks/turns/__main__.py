"""Measures for how long single requests, connections and answers hold the gateway's event loop.

Starts the installed gateway with 5,000 models and 500 keys before a scripted provider, plays hostile and
large requests at both listeners, and prints for each the longest turn of the event loop in CPU time of its
thread, and what a second client, who sends small requests meanwhile, sees of it.

    python benchmarks/turns                  all cases
    ... --check                              exit status 1 where a turn took more than 10 ms
    ... --only decode                        cases whose name holds the word
    ... --list
    ... --models 500 --keys 20 --json report.json

The figures hold for the compiled program: run it with the Python that has TokenHub installed, from outside of
the checkout or with PYTHONPATH unset. Everything is on loopback. --pin gives the gateway a core of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # the folder was started: its modules are a package's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from turns.cases import CASES, Case
from turns.processes import Gateway, Victim, provider_process
from turns.setup import Setup

LIMIT_MS = 10.0


def main() -> int:
    """Play the cases; returns the exit status."""
    options = _options()
    cases = [case for case in CASES if options.only in case.name]
    if options.list:
        print("\n".join(f"{case.name:44} {case.what}" for case in cases))
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="turns-") as name, provider_process() as provider_port:
        setup = Setup(Path(name), provider_port, options.models, options.keys)
        with Gateway(setup, pin=options.pin) as gateway, Victim(setup, pin=options.pin) as victim:
            print(
                f"{'compiled' if gateway.is_compiled else 'NOT COMPILED'}, {options.models} models, "
                f"{options.keys} keys, made ready in {gateway.ready_s:.1f} s\n\n{_HEADER}"
            )
            for case in cases:
                row = _play(case, setup, gateway, victim, options.rounds)
                rows.append(row)
                print(_line(row), flush=True)
                if not gateway.is_alive():
                    print("the gateway has died", file=sys.stderr)
                    return 2
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    over = [str(row["case"]) for row in rows if _is_over(row)]
    if over:
        print(f"\n{len(over)} of {len(rows)} cases hold the event loop for more than {LIMIT_MS:g} ms")
    return 1 if over and options.check else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/turns",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="exit status 1 above the limit")
    parser.add_argument("--only", default="", metavar="WORD", help="only cases whose name holds it")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--models", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="of each case; the least of the longest turns")
    parser.add_argument("--json", metavar="FILE", help="write the rows there too")
    parser.add_argument("--pin", action="store_true", help="gateway on CPU 0, the others on CPU 1")
    return parser.parse_args()


def _play(
    case: Case, setup: Setup, gateway: Gateway, victim: Victim, rounds: int
) -> dict[str, str | float | None]:
    """Each round is measured by itself: what another process of the machine adds is not in all of them.

    The longest turn of a round is a fact of that round. The least over rounds is what the case costs."""
    turns, totals, waits, said = [], [], [], ""
    for _ in range(rounds):
        victim.start()
        gateway.begin()
        said = case.play(setup)
        turn_ms, total_ms = gateway.end()
        waits += victim.stop()
        turns.append(turn_ms)
        totals.append(total_ms)
    waits.sort()
    return {
        "case": case.name,
        "turn_ms": round(min(turns), 2),
        "cpu_ms": round(min(totals), 1),
        "p50_ms": round(waits[len(waits) // 2], 2) if waits else None,
        "p99_ms": round(waits[len(waits) * 99 // 100], 2) if waits else None,
        "answer": said,
    }


def _is_over(row: dict[str, str | float | None]) -> bool:
    return isinstance(row["turn_ms"], float) and row["turn_ms"] > LIMIT_MS


_HEADER = f"{'case':44} {'turn ms':>8} {'CPU ms':>8} {'p50 ms':>7} {'p99 ms':>7}  verdict  answer"


def _line(row: dict[str, str | float | None]) -> str:
    p50, p99 = (f"{row[name]:.2f}" if row[name] is not None else "-" for name in ("p50_ms", "p99_ms"))
    verdict = "OVER" if _is_over(row) else "ok"
    return (
        f"{row['case']:44} {row['turn_ms']:8.2f} {row['cpu_ms']:8.1f} {p50:>7} {p99:>7}  {verdict:7}  "
        f"{row['answer']}"
    )


if __name__ == "__main__":
    sys.exit(main())
