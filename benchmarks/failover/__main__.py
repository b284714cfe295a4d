"""Failing over, live: what clients of the installed program see when providers fail.

    python -m benchmarks.failover                  all kinds, about eight minutes
    ... --only 6-hang --only waits                 rows whose name holds a word, and those after the table
    ... --workers 1                                half of the columns

Starts the gateway with the default settings and with a tuned file, with one and with two workers, before
scripted providers on loopback. For each row it prints how the response ended, by the bad or the good member
(b, g) and after how many tokens, how often both were asked, and the time to the first output. Each response,
the attempts at the providers, the ledger and the totals are held to what is wanted. Then come the longest
waits at a member that hangs, and the extra attempts in calm weather. Exits with 1 where something is not as
wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import uvloop

if __name__ == "__main__":  # the folder was started: its modules are a package's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from failover.cell import Cell
from failover.kinds import KINDS
from failover.provider import Provider
from failover.waits import Pool

# No run takes longer.
LIMIT_S = 1500.0
# Under which a member hangs.
STRATEGIES = ("latency", "order", "round-robin")


def how_run() -> str:
    """Whether the gateway that is started is compiled."""
    code = "from proxy.relay.exchange import exchange; print(exchange.__file__)"
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=True
        )
    return "interpreted" if done.stdout.strip().endswith(".py") else "compiled"


def show(cells: list[Cell], pools: list[Pool]) -> int:
    """Print the table; returns the number of faults."""
    titles = [cell.title for cell in cells]
    if cells:
        print(f"\n| kind | row | {' | '.join(titles)} |\n|{' --- |' * (2 + len(titles))}")
    faults = []
    for results in zip(*(cell.results for cell in cells), strict=True):
        row = results[0].row
        way = ", ".join((row.fault, row.way, row.how, *([] if row.endpoint == "chat" else [row.endpoint])))
        print(f"| {row.kind} {KINDS[row.kind - 1]} | {way} | {' | '.join(one.text() for one in results)} |")
        for title, result in zip(titles, results, strict=True):
            faults += [f"{title}: {row.name}: {fault}" for fault in result.wrong]
    for cell in cells:
        faults += [f"{cell.title}: {fault}" for fault in cell.wrong]
    print()
    for text, is_well in (pool.result() for pool in pools):
        print(text)
        faults += [] if is_well else [text]
    print(f"\n{sum(len(cell.results) for cell in cells) + len(pools)} rows, {len(faults)} faults")
    for fault in faults:
        print(f"WRONG {fault}")
    return len(faults)


async def run(args: argparse.Namespace, folder: Path) -> int:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(64))  # SDKs may wait for minutes
    provider = Provider()
    await provider.start()
    cells: list[Cell] = []
    hung: list[Pool] = []
    calm: list[Pool] = []
    has_waits = not args.only or "waits" in args.only
    for count in [args.workers] if args.workers else [1, 2]:
        cells += [Cell(provider, folder / f"{t}{count}", count, args.only, tuned=t) for t in (False, True)]
        for name in STRATEGIES if has_waits else ():
            short, rare = name[:2], int(3 * args.minutes)
            hung.append(Pool(provider, folder / f"quick{short}{count}", count, name, 1 / 3, 180))
            hung.append(Pool(provider, folder / f"rare{short}{count}", count, name, 20.0, rare))
        if has_waits:
            calm.append(Pool(provider, folder / f"calm{count}", count, "", 1 / 20, args.requests))
    cells = sorted((cell for cell in cells if cell.results), key=lambda cell: cell.title)
    pools = [*hung, *calm]
    try:
        async with asyncio.timeout(LIMIT_S):
            for group in (cells, pools):
                for one in group:
                    await one.gateway.start()
                await asyncio.gather(*(one.play() for one in group))
    finally:
        for one in (*cells, *pools):
            if hasattr(one.gateway, "process"):
                await one.gateway.stop()
    return show(cells, pools)


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.failover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="WORD", help="rows whose name holds it"
    )
    parser.add_argument("--workers", type=int, default=0, help="default: one gateway with 1 and one with 2")
    parser.add_argument(
        "--minutes", type=float, default=4.0, help="at 3 requests a minute; default: %(default)g"
    )
    parser.add_argument("--requests", type=int, default=2000, help="in calm weather; default: %(default)s")
    parser.add_argument("--keep", metavar="FOLDER", help="a new one, for the gateways' files and logs")
    args = parser.parse_args()
    print(f"{how_run()}, Python {sys.version.split()[0]}, {os.cpu_count()} CPUs", flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="failover-") as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return 1 if runner.run(run(args, Path(args.keep or folder))) else 0


if __name__ == "__main__":
    sys.exit(main())
