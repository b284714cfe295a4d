"""A picture per scenario: the watched member's share of first picks, and the mean time or cost, over time."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image  # matplotlib needs it itself

from routing.bars import OURS
from routing.measures import BINS, ORACLE, CellResult

_BASELINES_SHOWN = 3
_COLOURS = {
    OURS: "#d62728",
    ORACLE: "#222222",
    "random": "#aaaaaa",
    "round-robin": "#8c564b",
    "least-out": "#bcbd22",
    "mean": "#1f77b4",
    "peak-ewma": "#2ca02c",
    "peak-ewma-all": "#98df8a",
    "ewma-random": "#17becf",
    "last-ten": "#aec7e8",
    "prequal": "#9467bd",
    "cheapest-list": "#ff7f0e",
}


def draw(results: list[CellResult], folder: Path) -> list[Path]:
    """One PNG per scenario, of its cell with the second lowest rate (the only one, if there is one)."""
    folder.mkdir(parents=True, exist_ok=True)
    by_scenario: dict[str, list[CellResult]] = {}
    for result in results:
        by_scenario.setdefault(result.scenario, []).append(result)
    paths = []
    for name, cells in by_scenario.items():
        cells.sort(key=lambda result: (result.cell.rate, result.cell.replicas))
        path = folder / f"{name}.png"
        _picture(cells[min(1, len(cells) - 1)], path)
        paths.append(path)
    return paths


def _shown(result: CellResult) -> list[str]:
    """The best baselines, the oracle and ours; what matters most is drawn last, so on top."""
    baselines = sorted(
        (name for name in result.figures if name not in (OURS, ORACLE)),
        key=lambda name: result.figures[name].mean,
    )
    names = [*reversed(baselines[:_BASELINES_SHOWN]), ORACLE, OURS]
    return [name for name in names if name in result.figures]


def _picture(result: CellResult, path: Path) -> None:
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(8.0, 5.2), layout="constrained")
    scale = 1.0 if result.strategy != "cost" else 1e3
    width_s = result.cell.end_s / BINS
    times = [(index + 0.5) * width_s for index in range(BINS)]
    for name in _shown(result):
        mine = result.figures[name]
        style = {"color": _COLOURS.get(name), "linewidth": 2.0 if name in (OURS, ORACLE) else 1.2}
        style["linestyle"] = "--" if name == ORACLE else "-"
        upper.plot(times, [None if s is None else 100.0 * s for s in mine.shares], label=name, **style)
        lower.plot(times, [None if v is None else scale * v for v in mine.values], label=name, **style)
    replicas = "one replica" if result.cell.replicas == 1 else f"{result.cell.replicas} replicas"
    upper.set_title(f"{result.scenario}: {result.cell.rate:g} requests/s, {replicas}, {result.seeds} seeds")
    upper.set_ylabel(f"first picks at “{result.watched}”, %")
    upper.set_ylim(-4.0, 104.0)
    lower.set_ylabel("mean time, s" if result.strategy != "cost" else "mean cost, USD per 1000")
    if result.strategy != "cost":
        lower.set_yscale("log")
        # Most pictures span less than a decade.
        lower.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
        lower.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        lower.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    lower.set_xlabel("seconds")
    for axes in (upper, lower):
        _dress(axes, result)
    # On top of the panels, never over a line.
    figure.legend(*upper.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    _save(figure, path)
    plt.close(figure)


def _save(figure: Figure, path: Path) -> None:
    """With a palette: a third of the size, and no eye sees it."""
    drawn = BytesIO()
    figure.savefig(drawn, dpi=85)
    Image.open(drawn).convert("RGB").quantize(64).save(path, optimize=True)


def _dress(axes: Axes, result: CellResult) -> None:
    axes.grid(alpha=0.25)
    axes.set_xlim(0.0, result.cell.end_s)
    if result.fault:
        axes.axvspan(*result.fault, color="#d62728", alpha=0.07, linewidth=0)
