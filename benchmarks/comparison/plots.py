"""Pictures of the medians, as SVG. Logarithmic axes: the slowest takes a hundred times the fastest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from comparison.cells import View, human, is_behind, number, without_chunk
from comparison.figures import DIRECT

_OURS = "tokenhub"
_COLOURS = {True: "#c8402c", False: "#8a94a3"}
_PALE = {True: "#eab5ab", False: "#d0d5dc"}
_BAR_IN = 0.27


@dataclass(frozen=True)
class Panel:
    """Bars of one figure. :param behind: a second, paler one behind each, on the same axis."""

    title: str
    scenario: str
    figure: str
    behind: str = ""


@dataclass(frozen=True)
class Picture:
    name: str
    title: str
    unit: str
    panels: tuple[Panel, ...]
    direct: bool = False


_PICTURES = (
    Picture(
        "cpu_per_request",
        "CPU time per request, by size of its body",
        "µs",
        (
            Panel("1 KB, 64 connections", "a", "cpu_us_per_req"),
            Panel("100 KB, 32 connections", "c", "cpu_us_per_req"),
            Panel("2 MB, 8 connections", "d", "cpu_us_per_req"),
        ),
    ),
    Picture(
        "cpu_per_chunk",
        "CPU time per streamed chunk",
        "µs",
        (
            Panel("64 streams without pause", "e", "cpu_us_per_chunk"),
            Panel("500 streams, 20 ms between chunks", "f", "cpu_us_per_chunk"),
            Panel("2,000 streams, 200 ms between", "s2000", "cpu_us_per_chunk"),
        ),
    ),
    Picture(
        "first_chunk",
        "Time to the first chunk, 99th percentile (pale: the median)",
        "µs",
        (
            Panel("500 streams, 20 ms between chunks", "f", "ttfb_p99_us", "ttfb_p50_us"),
            Panel("2,000 streams, 200 ms between", "s2000", "ttfb_p99_us", "ttfb_p50_us"),
        ),
        direct=True,
    ),
    Picture(
        "latency_at_rate",
        "Latency at a fixed rate of 1 KB requests, 99th percentile (pale: the median)",
        "µs",
        (
            Panel("500 requests/s", "r500", "p99_us", "p50_us"),
            Panel("2,000 requests/s", "r2000", "p99_us", "p50_us"),
        ),
        direct=True,
    ),
    Picture(
        "memory",
        "Resident memory with 2,000 streams open (pale: after the start)",
        "MB",
        (Panel("", "s2000", "rss_open_mb", "rss_start_mb"),),
    ),
)


def draw(results: dict[str, Any], folder: Path) -> list[Path]:
    """An SVG for each picture that there are figures for."""
    folder.mkdir(parents=True, exist_ok=True)
    view = View(results)
    # The same results give the same bytes.
    settings = {"svg.hashsalt": "comparison", "svg.fonttype": "none", "font.size": 9, "axes.titlesize": 9}
    with mpl.rc_context(settings):
        return [path for picture in _PICTURES if (path := _draw(view, picture, folder))]


def _draw(view: View, picture: Picture, folder: Path) -> Path | None:
    panels = [p for p in picture.panels if _values(view, picture, p)]
    if not panels:
        return None
    names = {name for panel in panels for name in _values(view, picture, panel)}
    last = {name: _values(view, picture, panels[0]).get(name, 0) for name in names}
    order = sorted(names, key=lambda name: (last[name] == 0, last[name]))
    size = (3.1 * len(panels) + 1.6 if len(panels) > 1 else 6.5, _BAR_IN * len(order) + 1.0)
    figure, axes = plt.subplots(
        1, len(panels), sharey=True, squeeze=False, figsize=size, layout="constrained"
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        _bars(axis, view, picture, panel, order)
    figure.suptitle(picture.title, fontsize=11, x=0.01, ha="left")
    path = folder / f"{picture.name}.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _values(view: View, picture: Picture, panel: Panel) -> dict[str, float]:
    found = {}
    for name in view.names:
        run = view.median(name, panel.scenario)
        if run and run.get(panel.figure) and (picture.direct or name != DIRECT):
            found[name] = run[panel.figure]
    return found


def _remark(run: dict[str, Any], panel: Panel) -> str:
    """What a latency does not say: of which requests or streams there is none."""
    if is_behind(run):
        return f" (at {run['rps']:,.0f}/s)"
    if panel.figure.startswith("ttfb") and (none := without_chunk(run)):
        return f" ({none:,.0f} got none)"
    return ""


def _bars(axis: Axes, view: View, picture: Picture, panel: Panel, order: list[str]) -> None:
    values = _values(view, picture, panel)
    names = [name for name in order if name in values]
    rows = [order.index(name) for name in names]
    ours = [name.startswith(_OURS) for name in names]
    lengths = [values[name] for name in names]
    inner = [(view.median(name, panel.scenario) or {}).get(panel.behind) or 0 for name in names]
    axis.barh(rows, lengths, 0.72, color=[_COLOURS[our] for our in ours])
    if panel.behind:
        axis.barh(rows, inner, 0.72, color=[_PALE[our] for our in ours])
    for name, row, length in zip(names, rows, lengths, strict=True):
        text = human(length) if picture.unit == "µs" else f"{number(length)} {picture.unit}"
        text += _remark(view.median(name, panel.scenario) or {}, panel)
        axis.annotate(text, (length, row), (3, 0), textcoords="offset points", va="center", fontsize=8)
    for row, name in enumerate(order):
        if name not in values and view.median(name, panel.scenario):
            axis.text(0.01, row, "none", transform=axis.get_yaxis_transform(), va="center", fontsize=8)
    least = min(x for x in (*lengths, *inner) if x)
    axis.set_xscale("log")
    # Room below the shortest bar, and for the text behind the longest.
    axis.set_xlim(least / 2, max(lengths) * (max(lengths) / least * 2) ** 0.4)
    axis.set_yticks(range(len(order)), order)
    axis.set_ylim(len(order) - 0.4, -0.6)
    axis.set_title(panel.title)
    axis.set_xlabel(f"{picture.unit}, logarithmic")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
