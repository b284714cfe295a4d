"""From runs to figures, all seeds of a cell together.

**Regret**: mean over all seeds, seconds or USD, over the oracle's, minus 1; its spread is the standard
deviation of the seeds' own regrets. With the same luck for all, differences are far less noisy than means.

**Time to leave** and **to return**: from the begin (end) of the fault to the first window in which the
watched member gets under 5 % of first picks (at least half the oracle's share). Windows look ahead, pool all
seeds and hold about 40 requests. Leaving is asked for only where the oracle leaves, returning where it
returns.

**Swing**: how much shares move while nothing changes. First picks are counted in windows of 1 s or 50
requests, a straight line is taken out (learning is no oscillation), and from the variance of what is left
that of independent draws, p(1 - p)/n. The root of the rest, in percentage points, of the member where it is
largest. Random choice has about 0, however many replicas; all replicas going to and fro together have up to
50. Where members have limits or slots, the oracle swings too: compare. With one replica it shows probes and
changes of mind, with many only what they do together.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from math import exp, log, sqrt
from statistics import fmean, stdev

from routing.engine import Run
from routing.trace import Cell

ORACLE = "oracle"
GONE, FAIR = 0.05, 0.5
# A hung member must be left by then: the bar's seconds.
GRACE_S = 3.0
BINS = 60
_WINDOW_REQUESTS, _LEAST_WINDOW_S = 40.0, 2.0
_SWING_REQUESTS, _SWING_WINDOW_S = 50.0, 1.0


@dataclass
class Figures:
    """One policy at one cell. ``mean``: seconds or USD. None: does not apply, or never (see ``never_*``)."""

    mean: float
    regret: float = 0.0
    spread: float = 0.0
    failed: int = 0
    p99_s: float = 0.0
    requests: int = 0
    attempts: float = 0.0
    best_share: float = 0.0
    leave_s: float | None = None
    return_s: float | None = None
    never_left: bool = False
    never_returned: bool = False
    faulty_share: float | None = (
        None  # of requests that asked the watched member later than GRACE_S in a fault
    )
    swing: float | None = None
    hung_s: float = 0.0  # the longest that a request was left with a member that hangs
    shares: list[float | None] = field(default_factory=list)  # of first picks, the watched member's, by bin
    values: list[float | None] = field(default_factory=list)  # mean by bin


@dataclass
class CellResult:
    """All policies at one cell."""

    scenario: str
    strategy: str
    cell: Cell
    watched: str
    fault: tuple[float, float] | None
    seeds: int
    figures: dict[str, Figures]
    half: str = "tuned"

    def best_baseline(self) -> tuple[str, Figures] | None:
        """The baseline with the lowest mean."""
        others = [(name, f) for name, f in self.figures.items() if name not in (ORACLE, "tokenhub")]
        return min(others, key=lambda item: item[1].mean) if others else None


def measure(scenario: str, runs: dict[str, list[Run]], half: str = "tuned") -> CellResult:
    """The figures of a cell; ``runs`` by policy, one per seed, the oracle among them."""
    trace = runs[ORACLE][0].trace
    figures = {name: _figures(of_policy, trace.strategy) for name, of_policy in runs.items()}
    picks = {name: _Picks(of_policy) for name, of_policy in runs.items()}
    oracle_means = [_mean(run, trace.strategy) for run in runs[ORACLE]]
    for name, of_policy in runs.items():
        mine = figures[name]
        mine.regret = mine.mean / figures[ORACLE].mean - 1.0
        seeds = [
            _mean(run, trace.strategy) / best - 1.0 for run, best in zip(of_policy, oracle_means, strict=True)
        ]
        mine.spread = stdev(seeds) if len(seeds) > 1 else 0.0
        if trace.plan.fault:
            _fault_figures(mine, picks[name], picks[ORACLE], of_policy, trace.cell)
        if trace.plan.settled_s is not None:
            mine.swing = _swing(of_policy, trace.plan.settled_s)
    plan, seeds_run = trace.plan, len(runs[ORACLE])
    return CellResult(
        scenario, trace.strategy, trace.cell, plan.watched, plan.fault, seeds_run, figures, half
    )


def over_set(regrets: list[float]) -> float:
    """The regret over a set of cells: the geometric mean of (1 + regret), less 1."""
    return exp(fmean(log(1.0 + regret) for regret in regrets)) - 1.0


def _values(run: Run, strategy: str) -> list[float]:
    """By request. A failed one has a time but no cost: nobody charges for it."""
    if strategy != "cost":
        return list(run.time_s)
    worth = run.trace.second_usd
    if not worth:
        return list(run.usd)
    return [usd + worth * seconds for usd, seconds in zip(run.usd, run.time_s, strict=True)]


def _mean(run: Run, strategy: str) -> float:
    return fmean(_values(run, strategy))


def _figures(runs: list[Run], strategy: str) -> Figures:
    requests = sum(len(run.first) for run in runs)
    result = Figures(mean=sum(sum(_values(run, strategy)) for run in runs) / requests, requests=requests)
    result.failed = sum(sum(run.is_failed) for run in runs)
    result.attempts = sum(sum(run.attempts) for run in runs) / requests
    times = sorted(seconds for run in runs for seconds in run.time_s)
    result.hung_s = max(run.hung_s for run in runs)
    result.p99_s = times[int(0.99 * len(times))]
    hits = sum(a == b for run in runs for a, b in zip(run.first, run.best, strict=True))
    result.best_share = hits / requests
    width_s = runs[0].trace.cell.end_s / BINS
    counts, picks, sums = [0] * BINS, [0] * BINS, [0.0] * BINS
    for run in runs:
        watched = run.trace.watched
        for at_s, pick, value in zip(run.trace.arrivals_s, run.first, _values(run, strategy), strict=True):
            index = min(BINS - 1, int(at_s / width_s))
            counts[index] += 1
            picks[index] += pick == watched
            sums[index] += value
    result.shares = [p / n if n else None for p, n in zip(picks, counts, strict=True)]
    result.values = [s / n if n else None for s, n in zip(sums, counts, strict=True)]
    return result


class _Picks:
    """First picks of all seeds on one time line, with the watched member's counted up."""

    def __init__(self, runs: list[Run]) -> None:
        events = sorted(
            (at_s, pick == run.trace.watched)
            for run in runs
            for at_s, pick in zip(run.trace.arrivals_s, run.first, strict=True)
        )
        self.times = [at_s for at_s, _ in events]
        self.counts = [0]
        for _, is_watched in events:
            self.counts.append(self.counts[-1] + is_watched)

    def share(self, from_s: float, to_s: float) -> float | None:
        low, high = bisect_left(self.times, from_s), bisect_left(self.times, to_s)
        return (self.counts[high] - self.counts[low]) / (high - low) if high > low else None


def _fault_figures(mine: Figures, own: _Picks, oracle: _Picks, runs: list[Run], cell: Cell) -> None:
    assert runs[0].trace.plan.fault is not None
    begin_s, end_s = runs[0].trace.plan.fault
    window_s = max(_LEAST_WINDOW_S, _WINDOW_REQUESTS / (cell.rate * len(runs)))
    if begin_s > 0.0:
        if (oracle.share(begin_s, end_s) or 0.0) < GONE:
            mine.leave_s = _first(own, oracle, begin_s, end_s, window_s, is_back=False)
            mine.never_left = mine.leave_s is None
        mine.faulty_share = _asked_share(runs, begin_s + GRACE_S, end_s)
    if (oracle.share(end_s, cell.end_s) or 0.0) >= FAIR:
        mine.return_s = _first(own, oracle, end_s, cell.end_s, window_s, is_back=True)
        mine.never_returned = mine.return_s is None


def _first(
    own: _Picks, oracle: _Picks, from_s: float, to_s: float, window_s: float, *, is_back: bool
) -> float | None:
    """Seconds from ``from_s`` to the first window in which the share is small (or fair again)."""
    at_s = from_s
    while at_s + window_s <= to_s:
        share, fair = own.share(at_s, at_s + window_s), oracle.share(at_s, at_s + window_s)
        if share is not None and fair is not None:
            if is_back and share >= FAIR * fair > 0.0:
                return at_s - from_s
            if not is_back and share < GONE:
                return at_s - from_s
        at_s += 0.25 * window_s
    return None


def _asked_share(runs: list[Run], from_s: float, to_s: float) -> float:
    """The share of the requests that arrive in between of which any attempt was at the watched member."""
    asked = total = 0
    for run in runs:
        low = bisect_left(run.trace.arrivals_s, from_s)
        high = bisect_left(run.trace.arrivals_s, to_s)
        asked += sum(run.asked_watched[low:high])
        total += high - low
    return asked / total if total else 0.0


def _swing(runs: list[Run], settled_s: float) -> float:
    """See the module's text; percentage points."""
    members = range(len(runs[0].trace.members))
    names = [member.name for member in runs[0].trace.members]
    excess = {name: [] for name in names}
    for run in runs:
        cell, fault = run.trace.cell, run.trace.plan.fault
        end_s = fault[0] if fault else cell.end_s
        width_s = max(_SWING_WINDOW_S, _SWING_REQUESTS / cell.rate)
        windows = int((end_s - settled_s) / width_s)
        if windows < 4:
            return 0.0
        counts = [[0] * windows for _ in members]
        for at_s, pick in zip(run.trace.arrivals_s, run.first, strict=True):
            index = int((at_s - settled_s) // width_s)
            if 0 <= index < windows and pick >= 0:
                counts[pick][index] += 1
        totals = [sum(column) for column in zip(*counts, strict=True)]
        for index in members:
            excess[run.trace.members[index].name].append(_excess_variance(counts[index], totals))
    return 100.0 * sqrt(max(0.0, *(fmean(variances) for variances in excess.values())))


def _excess_variance(counts: list[int], totals: list[int]) -> float:
    """Variance of the shares around a straight line, less that of independent draws."""
    shares = [(index, c / n, n) for index, (c, n) in enumerate(zip(counts, totals, strict=True)) if n]
    if len(shares) < 4:
        return 0.0
    mean_x, mean_y = fmean(x for x, _, _ in shares), fmean(y for _, y, _ in shares)
    slope = sum((x - mean_x) * (y - mean_y) for x, y, _ in shares) / sum(
        (x - mean_x) ** 2 for x, _, _ in shares
    )
    squares = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y, _ in shares)
    noise = mean_y * (1.0 - mean_y) * fmean(1.0 / n for _, _, n in shares)
    return squares / (len(shares) - 2) - noise
