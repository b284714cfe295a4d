"""What the strategies are held to. Each bar is checked at every cell it speaks of; one miss is a miss."""

from __future__ import annotations

from typing import NamedTuple

from routing.measures import GRACE_S, ORACLE, CellResult, Figures, over_set

OURS = "tokenhub"
STEADY = ("steady", "alike", "tails")
MAX_STEADY_REGRET = 0.10
MAX_OF_BEST_REGRET = 0.5
MAX_WORSE = 0.05
MAX_FAULTY_SHARE = 0.02
MAX_RETURN_S = 60.0
# Percentage points above the oracle's own swing that no eye would call an oscillation.
MAX_SWING = 5.0

# Of the further kinds (``families``). Faults: half of the best baseline's regret, or so little that half of
# it would mean nothing.
FAULTS = (
    "hang-3", "hang-low", "gray-hang", "empty-200", "brownout-3", "bursts", "three-nines", "cheap-hangs",
    "slope-brownout", "stall", "pace-drops", "hang-short", "hang-cold", "head-then-hang", "flap-hang",
    "gray-hang-2", "empty-some", "outage-slow", "bursts-hang", "nines-turn", "cheap-slow", "cheap-turns-slow",
)  # fmt: skip
SMALL_REGRET = 0.03
# What a policy can do little about: no worse than the best baseline. So are limits, or as little as where
# nothing changes.
HARD = ("brownout-long", "errors-long", "sidecar", "sidecar-swap")
LIMITED = ("tpm", "tpm-tight", "all-limited", "all-limited-told", "limit")
SLOPES, MAX_SLOPE_REGRET = ("slope", "slope-same", "slope-brownout", "cached"), 0.08
BAD_200, MAX_BAD_200 = ("empty-200", "empty-some"), 0.01
CALM, MAX_FURTHER = ("steady", "alike", "drift", "slope", "slope-same", "cached", "pace"), 0.03
MAX_HUNG_S = 5.0
MAX_SET_REGRET = 0.12


class Verdict(NamedTuple):
    """One bar at one cell; ``value`` says what was measured."""

    bar: str
    where: str
    is_met: bool
    value: str


def verdicts(results: list[CellResult]) -> list[Verdict]:
    """All bars at all cells where they apply; nothing without our own policy."""
    found: list[Verdict] = []
    for result in results:
        ours = result.figures.get(OURS)
        if ours is not None:
            where = f"{result.scenario} {result.cell.label}"
            of_cell = [*_of_cell(result, ours), *_of_kind(result, ours)]
            found.extend(Verdict(bar, where, met, value) for bar, met, value in of_cell)
    for name in STEADY:
        regrets = [r.figures[OURS].regret for r in results if r.scenario == name and OURS in r.figures]
        if regrets:
            mean = sum(regrets) / len(regrets)
            bar = f"mean regret at most {MAX_STEADY_REGRET:.0%} where nothing changes"
            found.append(
                Verdict(bar, name, mean <= MAX_STEADY_REGRET, f"{mean:.1%}, worst {max(regrets):.1%}")
            )
    for half in ("tuned", "held-out"):
        regrets = [r.figures[OURS].regret for r in results if r.half == half and OURS in r.figures]
        if regrets:
            bar, regret = f"regret of a set at most {MAX_SET_REGRET:.0%}", over_set(regrets)
            found.append(Verdict(bar, half, regret <= MAX_SET_REGRET, f"{regret:.1%}"))
    return sorted(found, key=lambda verdict: verdict.bar)


def _of_kind(result: CellResult, ours: Figures) -> list[tuple[str, bool, str]]:
    """The bars that go by what kind of scenario it is."""
    found, name, regret = [], result.scenario, ours.regret
    best = result.best_baseline()
    if best is not None:
        other, beside = best[1].regret, f"{regret:.1%} against {best[1].regret:.1%} of {best[0]}"
        if name in FAULTS:
            met = regret <= max(MAX_OF_BEST_REGRET * other, SMALL_REGRET)
            found.append(("faults: half the best baseline's regret, or 3 %", met, beside))
        if name in HARD:
            found.append(("long prompts' faults and sidecars: the best baseline's", regret <= other, beside))
        if name in LIMITED:
            met = regret <= max(other, MAX_STEADY_REGRET)
            found.append(("limits: the best baseline's regret, or 10 %", met, beside))
    if name in SLOPES:
        found.append(("sizes of prompts: regret under 8 %", regret < MAX_SLOPE_REGRET, f"{regret:.1%}"))
    if name in BAD_200:
        share = ours.failed / ours.requests
        found.append(("bad 200s: failures of clients under 1 %", share < MAX_BAD_200, f"{share:.2%}"))
    if name in CALM:
        further = ours.attempts - 1.0
        bar = "calm: at most 3 % further attempts"
        found.append((bar, further <= MAX_FURTHER, f"{further:.2%}"))
    if ours.hung_s:
        bar = f"left with a member that hangs for at most {MAX_HUNG_S:g} s"
        found.append((bar, ours.hung_s <= MAX_HUNG_S, f"{ours.hung_s:.1f} s"))
    return found


def _of_cell(result: CellResult, ours: Figures) -> list[tuple[str, bool, str]]:
    found = []
    best = result.best_baseline()
    if best is not None:
        name, other = best
        ratio = ours.mean / other.mean - 1.0
        bar = f"never more than {MAX_WORSE:.0%} worse than the best baseline"
        found.append((bar, ratio <= MAX_WORSE, f"{ratio:+.1%} against {name}"))
        if result.scenario in ("brownout", "outage"):
            bar = "at most half the best baseline's regret in brown-outs and outages"
            met = ours.regret <= MAX_OF_BEST_REGRET * other.regret
            found.append((bar, met, f"{ours.regret:.1%} against {other.regret:.1%} of {name}"))
    if result.scenario in ("hang", "outage") and result.cell.rate == 10.0 and ours.faulty_share is not None:
        bar = f"under {MAX_FAULTY_SHARE:.0%} of requests at a member that fails, after {GRACE_S:g} s, at 10/s"
        found.append((bar, ours.faulty_share < MAX_FAULTY_SHARE, f"{ours.faulty_share:.2%}"))
    if result.scenario in ("brownout", "outage", "hang") and result.cell.rate == 0.5:
        bar = f"a recovered member has its fair share within {MAX_RETURN_S:g} s, at 0.5/s"
        met = ours.return_s is not None and ours.return_s <= MAX_RETURN_S
        found.append((bar, met, "never" if ours.return_s is None else f"{ours.return_s:.0f} s"))
    if result.cell.replicas == 64 and ours.swing is not None:
        oracle = result.figures[ORACLE].swing or 0.0
        bar = f"no oscillation: swing at most {MAX_SWING:g} points above the oracle's, 64 replicas"
        found.append((bar, ours.swing <= oracle + MAX_SWING, f"{ours.swing:.1f}, oracle {oracle:.1f}"))
    return found
