"""Cells as tasks of several processes: what one runs, and all of them in their order."""

from __future__ import annotations

import runpy
import sys
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

from routing.baselines import LATENCY_BASELINES, Baseline, CheapestList, Oracle
from routing.engine import Engine, Factory
from routing.families import FAMILIES
from routing.measures import ORACLE, CellResult, measure
from routing.ours import Ours
from routing.scenarios import SCENARIOS
from routing.trace import Scenario, build

_TIMED: list[type[Baseline] | type[Ours]] = [Oracle, *LATENCY_BASELINES, Ours]
FACTORIES: dict[str, list[type[Baseline] | type[Ours]]] = {
    "latency": _TIMED,
    "throughput": _TIMED,
    "availability": _TIMED,
    "cost": [Oracle, *LATENCY_BASELINES, CheapestList, Ours],
}


class Task(NamedTuple):
    """A cell with all its seeds and policies: what one process does at a time."""

    file: str | None
    scenario: str
    cell: int
    seeds: range
    policies: tuple[str, ...]  # empty: all


@cache
def load(file: str | None) -> dict[str, Scenario]:
    """The scenarios by name: ours, or those of a file."""
    found = [*SCENARIOS, *FAMILIES] if file is None else runpy.run_path(file)["SCENARIOS"]
    return {scenario.name: scenario for scenario in found}


def work(task: Task) -> CellResult:
    """Run a cell."""
    scenario = load(task.file)[task.scenario]
    factories: dict[str, Factory] = {
        policy.name: policy
        for policy in FACTORIES[scenario.strategy]
        if not task.policies or policy.name in (*task.policies, ORACLE)
    }
    runs = {name: [] for name in factories}
    for seed in task.seeds:
        trace = build(scenario, scenario.cells[task.cell], seed)
        for name, factory in factories.items():
            runs[name].append(Engine(trace, factory).run())
    return measure(scenario.name, runs, scenario.half)


def run_all(tasks: list[Task], jobs: int) -> list[CellResult]:
    """All cells, in the order given; the longest begin first, so that none is left for the end."""

    def requests(task: Task) -> float:
        cell = load(task.file)[task.scenario].cells[task.cell]
        return cell.rate * cell.end_s

    longest_first = sorted(range(len(tasks)), key=lambda index: -requests(tasks[index]))
    results: dict[int, CellResult] = {}
    with get_context("spawn").Pool(jobs, maxtasksperchild=8) as pool:
        done = pool.imap(work, [tasks[index] for index in longest_first])
        for index, result in zip(longest_first, done, strict=True):
            results[index] = result
            print(f"{len(results)}/{len(tasks)} {result.scenario} {result.cell.label}", file=sys.stderr)
    return [results[index] for index in range(len(tasks))]
