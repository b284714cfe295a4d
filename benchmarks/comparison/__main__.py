"""Measures LLM gateways as reverse proxies in front of one mock upstream.

    python benchmarks/comparison --everything          all targets and scenarios, with plots
    ... --everything --skip litellm-tuned,vllm-router-cache-aware --runs 1
    ... --target direct,nginx,tokenhub --interleave --fresh     all scenarios, 3 runs each
    ... --target nginx,tokenhub --interleave --scenario a,e --runs 1 --secs 3
    ... --target mine --targets-file mine.toml
    ... --list | --report | --report --plots docs/speed

The target is pinned to one CPU (--proxy-cpu 0), the mock, the load generators and
this script to another (--load-cpu 1). Every measurement holds flock(--lock) for its
own few seconds and lets go between. Servers are on 127.0.0.1 only: a target found
listening elsewhere is stopped at once. Results are merged into results.json and
results.md in the work folder ($BENCH_ROOT, else benchmarks/.work).
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
from pathlib import Path

if __name__ == "__main__":  # the folder was started: its modules are a package's
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from comparison.meta import machine, not_installed, software
from comparison.paths import BIN, LOCK, ROOT, RUN
from comparison.report import report
from comparison.rounds import Results, Rounds, say
from comparison.scenarios import DEFAULT, SCENARIOS
from comparison.specs import Spec, load_specs

FILES = 65536  # 2,000 streams need two in the target and one in each of the others
TOOLS = ("mock", "sseload", "openload", "spin")


def arguments() -> argparse.ArgumentParser:
    assert __doc__
    ap = argparse.ArgumentParser(
        prog="python benchmarks/comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ap.add_argument(
        "--everything", action="store_true", help="--interleave --fresh --plots, with every target"
    )
    ap.add_argument("--target", action="append", default=[], help="may be given several times, or a,b,c")
    ap.add_argument("--skip", default="", help="targets to leave out")
    ap.add_argument(
        "--targets-file", action="append", default=[], help="more targets (TOML, as targets.toml)"
    )
    ap.add_argument("--scenario", default=",".join(DEFAULT), help="default: %(default)s")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--secs", type=int, default=5, help="of a run; some scenarios take longer by a few")
    ap.add_argument("--proxy-cpu", type=int, default=0)
    ap.add_argument("--load-cpu", type=int, default=1)
    ap.add_argument("--upstream-port", type=int, default=19000, help="and the one above, for TLS")
    ap.add_argument("--base-port", type=int, default=19100, help="ten for each target from here on")
    ap.add_argument("--lock", default=LOCK, help="file to lock while measuring; '' for none")
    ap.add_argument(
        "--spin-ref",
        type=float,
        default=40.0,
        help="ms the spin takes on a quiet machine, for the *_ref figures",
    )
    ap.add_argument(
        "--interleave",
        action="store_true",
        help="start all targets, go round them run by run; those not measured are stopped with SIGSTOP",
    )
    ap.add_argument("--out", type=Path, default=ROOT, help="folder of results.json and results.md")
    ap.add_argument("--fresh", action="store_true", help="forget earlier results")
    ap.add_argument(
        "--plots", type=Path, nargs="?", const=Path(), metavar="FOLDER", help="SVG; default: plots in --out"
    )
    ap.add_argument("--list", action="store_true", help="name the targets and scenarios")
    ap.add_argument("--report", action="store_true", help="only write results.md (and --plots) anew")
    return ap


def print_names(specs: dict[str, Spec]) -> None:
    for name, spec in specs.items():
        print(f"{name:24} {spec.get('note', '')}")
    print()
    for name, scenario in SCENARIOS.items():
        print(f"{name:24} {scenario.title}{'' if name in DEFAULT else ' (only by --scenario)'}")


def prepare(ap: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    for number in (args.proxy_cpu, args.load_cpu):
        if number not in os.sched_getaffinity(0):
            ap.error(f"CPU {number} is not one of ours (--proxy-cpu, --load-cpu)")
    missing = [tool for tool in TOOLS if not (BIN / tool).exists()]
    if missing:
        ap.error(f"{', '.join(missing)} not in {BIN}: run benchmarks/comparison/setup.sh first")
    os.sched_setaffinity(0, {args.load_cpu})
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard < FILES else FILES, hard))
    RUN.mkdir(parents=True, exist_ok=True)
    # Else the targets would live on, stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def chosen(ap: argparse.ArgumentParser, args: argparse.Namespace, specs: dict[str, Spec]) -> list[str]:
    names = [name for given in args.target for name in given.split(",")]
    if args.everything and not names:
        names = list(specs)
    skipped = args.skip.split(",") if args.skip else []
    if unknown := [n for n in (*names, *skipped) if n not in specs]:
        ap.error(f"no such target: {', '.join(unknown)} (--list names them)")
    if unknown := [s for s in args.scenario.split(",") if s not in SCENARIOS]:
        ap.error(f"no such scenario: {', '.join(unknown)} (--list names them)")
    names = [n for n in dict.fromkeys(names) if n not in skipped]
    if not names:
        ap.error("give at least one --target, or --everything")
    return names


def finish(results: Results, args: argparse.Namespace) -> None:
    results.save()
    print(report(results.all))
    if args.plots is None:
        return
    try:
        from comparison.plots import draw
    except ImportError as error:
        say(f"no plots: {error} (pip install -e '.[bench]')")
        return
    folder = args.out / "plots" if args.plots == Path() else args.plots
    for path in draw(results.all, folder):
        say("drawn:", path)


def main() -> int:
    ap = arguments()
    args = ap.parse_args()
    try:
        specs = load_specs(args.targets_file)
    except (OSError, ValueError) as error:
        ap.error(str(error))
    if args.list:
        print_names(specs)
        return 0
    if args.everything and not args.report:
        args.interleave = args.fresh = True
        args.plots = Path() if args.plots is None else args.plots
    results = Results(args.out, args.fresh and not args.report)
    if args.report:
        if not results.all["targets"]:
            ap.error(f"there are no results in {args.out} yet")
        finish(results, args)
        return 0
    names = chosen(ap, args, specs)
    prepare(ap, args)
    results.all["meta"] = {
        **machine(),
        **software(),
        "proxy_cpu": args.proxy_cpu,
        "load_cpu": args.load_cpu,
        "runs": args.runs,
        "secs": args.secs,
        "interleaved": args.interleave,
        "options": sys.argv[1:],
        "not_installed": not_installed(),
    }
    failures = Rounds(args, specs, names, args.scenario.split(","), results).run()
    finish(results, args)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
