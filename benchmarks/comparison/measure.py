"""One measurement of one target."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import time
from typing import Any

from comparison import proc
from comparison.figures import Run, complete
from comparison.paths import BIN, HARNESS
from comparison.scenarios import SCENARIOS, Scenario
from comparison.targets import Target
from comparison.upstream import Mock, locked, tls_port

DIRECT_FIRST_S = 2
SAMPLE_S = 0.25
SETTLE_S = 12  # at most


def command(target: Target, name: str, secs: float, direct: bool = False) -> tuple[list[str], dict[str, str]]:
    """The load generator's command line and environment.

    :param direct: to the mock instead, with the same body and without the target's headers.
    """
    scenario, args = SCENARIOS[name], target.args
    port = args.upstream_port if direct else target.port
    path = "/v1/chat/completions" if direct else target.path
    body = str(target.dir / scenario.body_file(name))
    pinned = ["taskset", "-c", str(args.load_cpu)]
    if scenario.kind == "closed":
        scheme = "http"
        if target.direct and scenario.on_request:  # the line to the TLS front
            scheme, port = "https", tls_port(args)
        headers = "/dev/null" if direct else str(target.dir / "headers")
        env = {**os.environ, "WRK_BODY": body, "WRK_HEADERS": headers}
        size = ["-t1", f"-c{scenario.connections}", f"-d{int(secs)}s", "--timeout", "30s", "--latency"]
        url = f"{scheme}://127.0.0.1:{port}{path}"
        return [*pinned, "wrk", *size, "-s", str(HARNESS / "native/post.lua"), url], env
    what = ["-p", str(port), "-u", path, "-b", body, "-c", str(scenario.connections), "-d", str(secs)]
    what += ["-w", str(scenario.warm_s)]
    if not direct:
        what += [x for k, v in target.headers.items() for x in ("-H", f"{k}: {v}")]
    if scenario.kind == "open":
        return [*pinned, str(BIN / "openload"), *what, "-r", str(scenario.rate)], dict(os.environ)
    pace = ["-r", str(scenario.ramp_ms), "-n", str(scenario.chunks)]
    return [*pinned, str(BIN / "sseload"), *what, *pace], dict(os.environ)


def load(command: tuple[list[str], dict[str, str]], pids: list[int]) -> tuple[Run, float, list[float]]:
    """Runs a load generator: its figures, its CPU seconds, and the target's RSS every quarter of a second."""
    line, env = command
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    samples: list[float] = []
    while True:
        try:
            out, err = process.communicate(timeout=SAMPLE_S)
            break
        except subprocess.TimeoutExpired:
            samples.append(proc.rss_mb(pids))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"^(?:JSON )?(\{.*\})$", out, re.M)
    if process.returncode or not found:
        raise RuntimeError(f"{line[3]} failed: {err[-500:]}{out[-200:]}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(found[1]), spent, samples


def spin(cpu: int) -> float | None:
    """ms of CPU time that a fixed piece of work takes on this CPU now."""
    try:
        pinned = ["taskset", "-c", str(cpu), str(BIN / "spin")]
        return float(subprocess.run(pinned, check=False, capture_output=True, text=True).stdout)
    except (OSError, ValueError):
        return None


def settle(target: Target) -> float:
    """Waits until the target has done with what a load left behind: streams cut off, unread answers."""
    begun = time.monotonic()
    while target.proc and time.monotonic() - begun < SETTLE_S:
        spent = proc.cpu_s(target.pids())
        time.sleep(0.3)
        if proc.cpu_s(target.pids()) - spent < 0.025:
            break
    return round(time.monotonic() - begun, 1)


def warm_up(target: Target, name: str) -> None:
    """Not measured, under a lock of its own."""
    with locked(target.args):
        load(command(target, name, target.spec.get("warmup_s", 2)), [])
        settle(target)


def measure(target: Target, mock: Mock, name: str, secs: float) -> Run:
    scenario, args = SCENARIOS[name], target.args
    run: Run = {}
    with locked(args):
        if scenario.direct_first:
            first, _, _ = load(command(target, name, DIRECT_FIRST_S, direct=True), [])
            run |= {f"direct_{key}": first[key] for key in ("p50_us", "p99_us")}
        pids = target.pids()
        if target.proc and not pids:
            raise RuntimeError(f"ended with {target.proc.returncode}: {target.tail()}")
        spins = [spin(args.proxy_cpu)]
        before = Reading(pids, mock)
        figures, load_cpu_s, samples = load(command(target, name, secs + scenario.extra_s), pids)
        after = Reading(pids, mock)
        run["settle_s"] = settle(target)
        spins.append(spin(args.proxy_cpu))
    run |= figures
    if all(spins):
        run["spin_ms"] = round(statistics.mean(spins), 1)
    run |= used(before, after, load_cpu_s, args)
    if not target.direct:
        run |= memory(target, scenario, samples)
    complete(run, scenario, args.spin_ref)
    return run


class Reading:
    """Counters at a moment."""

    def __init__(self, pids: list[int], mock: Mock) -> None:
        self.mock = mock.stats()
        self.proxy_cpu_s, self.mock_cpu_s = proc.cpu_s(pids), mock.cpu_s()
        self.cpus, self.at_s = proc.cpu_lines(), time.monotonic()


def used(before: Reading, after: Reading, load_cpu_s: float, args: argparse.Namespace) -> Run:
    wall_s, proxy_cpu_s = after.at_s - before.at_s, after.proxy_cpu_s - before.proxy_cpu_s
    run: dict[str, Any] = {
        "wall_s": round(wall_s, 2),
        "proxy_cpu_s": round(proxy_cpu_s, 2),
        "proxy_cpu_pct": round(100 * proxy_cpu_s / wall_s, 1),
        "mock_cpu_s": round(after.mock_cpu_s - before.mock_cpu_s, 2),
        "load_cpu_s": round(load_cpu_s, 2),
        "upstream_requests": after.mock["requests"] - before.mock["requests"],
        "upstream_new_conns": after.mock["accepted"] - before.mock["accepted"] - 1,  # one is the reading's
    }
    own_s = {"proxy": proxy_cpu_s, "load": run["mock_cpu_s"] + load_cpu_s}
    for side, cpu in (("proxy", args.proxy_cpu), ("load", args.load_cpu)):
        busy, steal = proc.cpu_use(before.cpus, after.cpus, cpu)
        own = round(100 * own_s[side] / wall_s, 1)
        # The kernel's figure is sampled, and blind to work that keeps step with its clock.
        run |= {f"cpu_{side}_busy": max(busy, own), f"cpu_{side}_steal": steal}
        run[f"cpu_{side}_other"] = round(max(0.0, busy - steal - own), 1)
    return run


def memory(target: Target, scenario: Scenario, samples: list[float]) -> Run:
    run: Run = {"rss_mb": proc.rss_mb(target.pids())}
    run["rss_peak_mb"] = max([*samples, run["rss_mb"]])
    if scenario.restart and samples:
        # In the second half all streams are open.
        run["rss_open_mb"] = round(statistics.median(samples[len(samples) // 2 :]), 1)
        run["rss_start_mb"] = target.info["rss_idle_mb"]
    return run
