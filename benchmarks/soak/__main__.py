"""Hours of mixed traffic against the installed program: does anything leak, get lost, or mix?

    python benchmarks/soak --minutes 60 --streams 2000

Starts ``tokenhub serve`` with a configuration and a state of its own, and a provider that fails at random
in every way (plans.py says how each request ends, by its number alone). So many streams are held open;
beside them come requests of every kind, good and bad, clients that leave, edits of the configuration,
signals, keys that come and go, watchers and scrapes. Each answer is judged, each request is looked for in
the ledger, and the memory, descriptors and sockets of all processes are followed. Exits with 1 if a bar is
not met, and says which; or if something does not come to its end, and says what was waited for, and where.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import uvloop

if __name__ == "__main__":  # the folder was started: its modules are a package's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from soak.run import BEYOND_STREAMS, Soak


def raise_limit(streams: int) -> None:
    """Of descriptors: the gateway needs two for each stream, and has the limit of this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * streams + BEYOND_STREAMS
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SystemExit(
            f"{streams} streams need {needed} descriptors: say ulimit -Hn {needed}, or fewer --streams"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def show(report: dict[str, Any]) -> None:
    print(f"\n{report['requests']:,} requests, {report['cpu']:.0%} of a core")
    for name in ("became", "wrong", "late", "governed", "lag_ms"):
        print(f"{name}: " + ", ".join(f"{what} {count:,}" for what, count in report[name].items()))
    ledger = report["ledger"]
    print(
        "ledger: "
        + ", ".join(f"{what} {count:,}" for what, count in ledger.items() if isinstance(count, int))
    )
    for process in report["processes"]:
        print(", ".join(f"{what} {value}" for what, value in process.items()))
    for example in report["examples"]:
        print(f"  {example}")
    for bar in report["failed"]:
        print(f"FAILED {bar}")


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python benchmarks/soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="default: %(default)g")
    parser.add_argument(
        "--streams", type=int, default=2000, help="that are open at any time; default: %(default)s"
    )
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument(
        "--rate", type=float, default=150.0, help="requests a second beside; default: %(default)g"
    )
    parser.add_argument(
        "--key-every",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="a key is made, used and revoked so often; with its counters it stays in memory; "
        "default: %(default)g",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tls", action="store_true", help="clients come by HTTPS")
    parser.add_argument("--json", metavar="FILE", help="the report, for programs")
    parser.add_argument("--keep", metavar="FOLDER", help="an empty or a new one, for the gateway's files")
    args = parser.parse_args()
    raise_limit(args.streams)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        kept = Path(args.keep or folder)
        kept.mkdir(parents=True, exist_ok=True)
        soak = Soak(args, kept)
        with soak.watch.running(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            is_well = runner.run(soak.run())
    show(soak.report)
    if args.json:
        Path(args.json).write_bytes(orjson.dumps(soak.report, option=orjson.OPT_INDENT_2))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
