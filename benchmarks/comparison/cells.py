"""Cells of the report: a figure of a target's results as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from comparison.figures import DIRECT, Run, added, bound, ratio

NONE = "–"
MARKS = {"proxy": "", "both": " ᴮ", "load side": " ᴸ", "neither": " ᴺ"}
KEPT_UP = 0.98  # of the offered rate
WAITING = 0.05  # of the open streams: so many may be about to get their first chunk

Cell = Callable[["View", str], str]


def human(us: float | None) -> str:
    if us is None:
        return NONE
    sign, us = ("−" if us < 0 else ""), abs(us)
    if us < 1000:
        return f"{sign}{us:.0f} µs"
    if us < 1e6:
        return f"{sign}{us / 1000:.2f} ms" if us < 1e5 else f"{sign}{us / 1000:.0f} ms"
    return f"{sign}{us / 1e6:.2f} s"


def number(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def times(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.2f}"


def is_behind(run: Run) -> bool:
    """Whether less was answered than was offered, at a fixed rate."""
    return "rate" in run and run["rps"] < KEPT_UP * run["rate"]


def without_chunk(run: Run) -> float:
    """How many streams never got a first chunk; 0 if they are no more than those that just began."""
    none = run.get("no_first_chunk_at_end", 0)
    return none if none > WAITING * run.get("in_flight_at_end", 0) else 0


class View:
    """Read access to results."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.meta, self.targets = results["meta"], results["targets"]
        self.names = [name for name, entry in self.targets.items() if entry.get("scenarios")]

    def median(self, name: str, scenario: str) -> Run | None:
        return self.targets.get(name, {}).get("scenarios", {}).get(scenario, {}).get("median")


def of(scenario: str, show: Callable[[Run], str], direct: bool = True) -> Cell:
    """A cell from a scenario's median. :param direct: the direct line has such a figure too."""

    def cell(view: View, name: str) -> str:
        run = view.median(name, scenario)
        return show(run) if run and (direct or name != DIRECT) else NONE

    return cell


def rate_of(scenario: str, figure: str) -> Cell:
    def show(run: Run) -> str:
        failed = f" (**{run['errors']:.0f} errors**)" if run.get("errors") else ""
        return f"{run[figure]:,.0f}{MARKS[bound(run)]}{failed}"

    return of(scenario, show)


def cpu_of(scenario: str, figure: str) -> Cell:
    def show(run: Run) -> str:
        ref = f" [{number(run[figure + '_ref'])}]" if run.get(figure + "_ref") else ""
        return number(run.get(figure)) + ref

    return of(scenario, show, direct=False)


def pair_of(scenario: str, stem: str = "") -> Cell:
    return of(scenario, lambda run: f"{human(run.get(stem + 'p50_us'))} / {human(run.get(stem + 'p99_us'))}")


def first_chunk_of(scenario: str) -> Cell:
    """Time to the first chunk; where many streams got none, of those it says nothing."""

    def show(run: Run) -> str:
        none = without_chunk(run)
        rest = f" (**{none:,.0f} got none**)" if none else ""
        return f"{human(run.get('ttfb_p50_us'))} / {human(run.get('ttfb_p99_us'))}{rest}"

    return of(scenario, show)


def human_of(scenario: str, figure: str) -> Cell:
    return of(scenario, lambda run: human(run.get(figure)))


def plain_of(scenario: str, figure: str, form: str = "{:.0f}") -> Cell:
    return of(
        scenario, lambda run: form.format(run[figure]) if run.get(figure) is not None else NONE, direct=False
    )


def added_of(scenario: str, *figures: str) -> Cell:
    def cell(view: View, name: str) -> str:
        if name == DIRECT or not view.median(name, scenario):
            return NONE
        return " / ".join(human(added(view.targets, name, scenario, figure)) for figure in figures)

    return cell


def ratio_of(scenario: str, figure: str, base: str = "nginx") -> Cell:
    return lambda view, name: (
        NONE if name == DIRECT else times(ratio(view.targets, name, scenario, figure, base))
    )


def beside_of(scenario: str, figure: str) -> Cell:
    def cell(view: View, name: str) -> str:
        return times(ratio(view.targets, name, scenario, figure, view.targets[name]["beside"]))

    return cell


def info(key: str, form: str = "{}") -> Cell:
    def cell(view: View, name: str) -> str:
        value = view.targets[name].get(key)
        return NONE if value is None else form.format(value)

    return cell


def kept_up(scenario: str) -> Cell:
    def show(run: Run) -> str:
        failed = f" (**{run['errors']:.0f} errors**)" if run["errors"] else ""
        return f"**{run['rps']:,.0f}/s**" if is_behind(run) else f"yes{failed}"

    return of(scenario, show)


def chunks_per_read(view: View, name: str) -> str:
    run = view.median(name, "e")
    return f"{run['chunks'] / run['reads']:.1f}" if run and run["reads"] else NONE


def single(view: View, name: str) -> str:
    """(b): what is added; of the direct line the whole."""
    run = view.median(name, "b")
    if not run:
        return NONE
    if name == DIRECT:
        return f"{human(run['p50_us'])} / {human(run['p99_us'])} (whole)"
    return f"{human(run.get('added_p50_us'))} / {human(run.get('added_p99_us'))}"


def plain_counterpart(view: View, name: str) -> str:
    """What TLS to the upstream costs: the CPU in (tls) over that of the counterpart in (a)."""
    counterpart = view.targets[name].get("beside")
    plain, tls = view.median(counterpart or "", "a"), view.median(name, "tls")
    if not plain or not tls:
        return NONE
    return (
        f"{number(plain['cpu_us_per_req'])} ({times(tls['cpu_us_per_req'] / plain['cpu_us_per_req'])} times)"
    )
