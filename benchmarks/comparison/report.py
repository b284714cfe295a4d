"""results.md: tables of the medians, and what did not run."""

from __future__ import annotations

import statistics
from typing import Any

from comparison.cells import NONE, Cell, View
from comparison.figures import DIRECT, Run
from comparison.tables import BESIDE, BESIDE_ANOTHER, BESIDE_NGINX, NGINX, START, TABLES

LEGEND = (
    "ᴸ the load side's CPU was full before the proxy's: the proxy can do more than this figure. ᴮ both "
    "were full. ᴺ neither was. No mark: the proxy's CPU alone was full. CPU per request is user and "
    "system time of the proxy's processes over the requests answered: it does not depend on which side "
    "was full. In [ ] the same brought to the speed of a quiet CPU by a fixed piece of work timed just "
    "before and after each run."
)
DISTURBED = 20.0  # percent of a CPU; what is below may be the sampling's mistake


def table(view: View, names: list[str], columns: list[tuple[str, Cell]]) -> list[str]:
    """Lines of a table; a column that would be empty is left out."""
    rows = [[cell(view, name) for _, cell in columns] for name in names]
    shown = [i for i in range(len(columns)) if any(row[i] != NONE for row in rows)]
    lines = ["| target | " + " | ".join(columns[i][0] for i in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(row[i] for i in shown) + " |"
        for name, row in zip(names, rows, strict=True)
    ]
    return [*lines, ""]


def heading(meta: dict[str, Any]) -> list[str]:
    state = {True: " with changes not committed", False: "", None: ""}[meta.get("dirty")]
    where = meta["proxy_cpu"], meta["load_cpu"]
    turns = "in turns, run by run" if meta.get("interleaved") else "one target after the other"
    lines = [
        f"{meta['cpu']}, {meta['ncpu']} CPUs, Linux {meta['kernel']}; proxy alone on CPU {where[0]}, mock "
        f"upstream and load generator on CPU {where[1]}. Median of {meta['runs']} runs of {meta['secs']} s "
        f"or more, {turns}. {meta['date']}.",
    ]
    if meta.get("commit"):
        lines += ["", f"TokenHub {meta['commit'][:12]}{state}, {meta['python']}."]
    return ["# LLM gateways as reverse proxies", "", *lines, "", LEGEND, ""]


def failures(view: View) -> list[str]:
    bad = {name: entry["failed"] for name, entry in view.targets.items() if entry.get("failed")}
    for name, entry in view.targets.items():
        bad |= {f"{name} ({scenario})": why for scenario, why in entry.get("scenario_errors", {}).items()}
        bad |= {f"{name}, a body of {key[5:]}": why for key, why in entry.items() if key.startswith("body_")}
    lines = [f"- **{name}**: {' '.join(why.split())}" for name, why in bad.items()]
    lines += [
        f"- **{step}** was not installed (logs/{step}.log)" for step in view.meta.get("not_installed", [])
    ]
    return ["## Did not run", "", *lines, ""] if lines else []


def disturbance(view: View) -> list[str]:
    """What the host, and other processes of this machine, took of the two CPUs."""
    cells = [
        (f"{n} ({s})", cell["runs"]) for n in view.names for s, cell in view.targets[n]["scenarios"].items()
    ]
    shares = [run[key] for _, runs in cells for run in runs for key in ("cpu_proxy_steal", "cpu_load_steal")]
    if not shares:
        return []
    most, mean = max(shares), statistics.mean(shares)
    text = f"Steal (time the host took from these CPUs) in a run: {most}% at most, {mean:.2f}% on average."
    disturbed = [name for name, runs in cells if any(map(is_disturbed, runs))]
    if disturbed:
        text += f" Other processes took over {DISTURBED:.0f}% of a CPU in a run of: {', '.join(disturbed)}."
    return [text, ""]


def is_disturbed(run: Run) -> bool:
    return max(run.get("cpu_proxy_other", 0), run.get("cpu_load_other", 0)) > DISTURBED


def report(results: dict[str, Any]) -> str:
    view = View(results)
    lines = heading(view.meta)

    def section(title: str, text: str, names: list[str], columns: list[tuple[str, Cell]]) -> None:
        if names:
            lines.extend([f"## {title}", "", *([text, ""] if text else []), *table(view, names, columns)])

    for title, text, scenarios, columns in TABLES:
        section(title, text, [n for n in view.names if any(view.median(n, s) for s in scenarios)], columns)
    gateways = [n for n in view.names if n != DIRECT]
    many = [n for n in gateways if any(view.median(n, s) for s in "abcdefg")]
    if "nginx" in many:
        section("Beside nginx and the direct line", NGINX, many, BESIDE_NGINX)
    pairs = [n for n in many if view.targets[n].get("beside") in many]
    section("Beside another target", BESIDE, pairs, BESIDE_ANOTHER)
    section("Start and memory", "", gateways, START)
    return "\n".join([*lines, *failures(view), *disturbance(view)])
