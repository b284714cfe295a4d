"""The tables, as Markdown."""

from __future__ import annotations

from routing.bars import OURS, Verdict
from routing.measures import ORACLE, CellResult, Figures, over_set

_HEAD = (
    "| policy | mean | regret | p99 | failed | attempts | at best | asked in fault "
    "| leaves | returns | hung | swing |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def tables(results: list[CellResult]) -> str:
    """One table per cell."""
    parts = []
    for result in results:
        requests = next(iter(result.figures.values())).requests
        parts.append(f"### {result.scenario} {result.cell.label}\n")
        parts.append(f"{result.seeds} seeds, {requests} requests; watched: {result.watched}\n")
        parts.append(_HEAD)
        by_mean = sorted(result.figures.items(), key=lambda item: item[1].mean)
        parts.extend(_row(name, figures, result.strategy) for name, figures in by_mean)
        parts.append("")
    return "\n".join(parts)


def _row(name: str, f: Figures, strategy: str) -> str:
    mean = f"{f.mean:.3f} s" if strategy != "cost" else f"{1e3 * f.mean:.4f} mUSD"
    cells = [
        name,
        mean,
        f"{100 * f.regret:.1f} ± {100 * f.spread:.1f} %",
        f"{f.p99_s:.1f} s",
        str(f.failed),
        f"{f.attempts:.3f}",
        f"{100 * f.best_share:.0f} %",
        "" if f.faulty_share is None else f"{100 * f.faulty_share:.2f} %",
        "never" if f.never_left else _seconds(f.leave_s),
        "never" if f.never_returned else _seconds(f.return_s),
        f"{f.hung_s:.1f} s" if f.hung_s else "",
        "" if f.swing is None else f"{f.swing:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def set_table(results: list[CellResult]) -> str:
    """Regret over the sets: a half, or all cells of it that have a fault."""
    names = list(dict.fromkeys(name for result in results for name in result.figures if name != ORACLE))
    rows = ["## Sets\n", f"| half | cells | {' | '.join(names)} | best of each cell |"]
    rows.append("|---|--:|" + "--:|" * (len(names) + 1))
    for half in ("tuned", "held-out"):
        cells = [result for result in results if result.half == half and OURS in result.figures]
        if not cells:
            continue
        own = [[result.figures[name].regret for result in cells if name in result.figures] for name in names]
        shown = [f"{over_set(regrets):.1%}" if regrets else "" for regrets in own]
        best = [found[1].regret for result in cells if (found := result.best_baseline()) is not None]
        shown.append(f"{over_set(best):.1%}" if best else "")
        rows.append(f"| {half} | {len(cells)} | {' | '.join(shown)} |")
    return "\n".join([*rows, ""])


def bar_table(found: list[Verdict]) -> str:
    """Every verdict; those missed say so in capitals."""
    rows = ["## Bars\n", "| bar | where | met | measured |", "|---|---|---|---|"]
    rows += [f"| {v.bar} | {v.where} | {'yes' if v.is_met else 'NO'} | {v.value} |" for v in found]
    missed = sum(not verdict.is_met for verdict in found)
    rows.append(f"\n{len(found) - missed} of {len(found)} met.")
    return "\n".join(rows)
