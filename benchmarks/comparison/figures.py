"""Arithmetic on results: what follows from one measurement, and from several."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from comparison.scenarios import Scenario

Run = dict[str, Any]
Targets = dict[str, dict[str, Any]]
DIRECT = "direct"
_ERRORS = {
    "closed": ("err_connect", "err_read", "err_write", "err_timeout", "err_status"),
    "open": ("bad_status", "unanswered", "conn_errors", "short_reads"),
    "stream": ("bad_status", "bad_marks", "no_done", "conn_errors", "short_reads", "order_errors"),
}


def complete(run: Run, scenario: Scenario, spin_ref_ms: float) -> None:
    """Adds to a measurement what follows from it."""
    forget_empty(run)
    run["errors"] = sum(run[key] for key in _ERRORS[scenario.kind])
    spent_us = 1e6 * run["proxy_cpu_s"]
    if scenario.kind == "stream":
        run["cpu_us_per_chunk"] = per(spent_us, run["chunks"], 2)
        run["cpu_us_per_stream"] = per(spent_us, run["streams_completed"], 1)
        if scenario.delay_ms:
            run["offered_chunks_per_s"] = scenario.connections * 1000 / scenario.delay_ms
        if "rss_start_mb" in run:
            run["kib_per_stream"] = per(
                1e6 / 1024 * (run["rss_open_mb"] - run["rss_start_mb"]), scenario.connections, 1
            )
    else:
        if scenario.kind == "closed":
            run["ok"] = run["requests"] - run["err_status"]
            run["rps"] = round(run["ok"] / run["duration_s"], 1)
        else:
            run["rps"] = run["answered_per_s"]
        run["cpu_us_per_req"] = per(spent_us, run["ok"], 1)
    for quantile in ("p50_us", "p99_us"):
        if f"direct_{quantile}" in run and run[quantile] is not None:
            run[f"added_{quantile}"] = round(run[quantile] - run[f"direct_{quantile}"], 1)
    for key in ("cpu_us_per_req", "cpu_us_per_chunk"):  # as it would be on this machine when quiet
        if run.get(key) and run.get("spin_ms"):
            run[f"{key}_ref"] = round(run[key] * spin_ref_ms / run["spin_ms"], 2)
    run["bound"] = bound(run)


def forget_empty(run: Run) -> None:
    """A time that nothing was measured of is None: the load generators print 0."""
    counts = {f"{stem}_": f"{stem}_n" for stem in ("ttfb", "transit", "gap_excess", "stream")}
    counts |= {"p": "requests", "m": "requests"}  # p50_us, mean_us
    for stem, count in counts.items():
        if run.get(count) == 0:
            run |= {key: None for key in run if key.startswith(stem) and key.endswith("_us")}


def per(amount: float, count: float, digits: int) -> float | None:
    return round(amount / count, digits) if count else None


def bound(run: Run) -> str:
    """Which side was full."""
    proxy, load_side = run["proxy_cpu_pct"] >= 90, run["cpu_load_busy"] >= 93
    return "both" if proxy and load_side else "proxy" if proxy else "load side" if load_side else "neither"


def median(runs: list[Run]) -> Run:
    """Figure by figure; of texts the first that is not empty, of what bound it the most frequent."""
    result: Run = {}
    for key, first in runs[0].items():
        values = [run.get(key) for run in runs]
        if key == "bound":
            result[key] = statistics.mode(values)
        elif all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            middle = statistics.median(values)
            result[key] = round(middle, 3) if isinstance(middle, float) else middle
        elif isinstance(first, str):
            result[key] = next((v for v in values if v), first)
    return result


def by_round(
    targets: Targets,
    names: tuple[str, str],
    scenario: str,
    figure: str,
    combine: Callable[[float, float], float],
) -> float | None:
    """A figure of two targets combined round by round (seconds apart), and of that the median."""
    mine, other = (
        {run.get("round", i): run.get(figure) for i, run in enumerate(runs_of(targets, name, scenario))}
        for name in names
    )
    found = [combine(mine[k], other[k]) for k in mine if mine[k] is not None and other.get(k) is not None]
    return statistics.median(found) if found else None


def runs_of(targets: Targets, name: str, scenario: str) -> list[Run]:
    return targets.get(name, {}).get("scenarios", {}).get(scenario, {}).get("runs", [])


def ratio(targets: Targets, name: str, scenario: str, figure: str, base: str = "nginx") -> float | None:
    """A figure over that of another target."""
    return by_round(targets, (name, base), scenario, figure, lambda x, y: x / y if y else float("nan"))


def added(targets: Targets, name: str, scenario: str, figure: str) -> float | None:
    """A figure less that of the direct line."""
    return by_round(targets, (name, DIRECT), scenario, figure, lambda x, y: x - y)
