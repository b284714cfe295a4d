"""Further kinds of scenarios, in two halves: strategies are tuned on the first and only looked at on the
second.

Each kind of the one half has a kin in the other that it differs from in more than its figures. Frozen; see
the package's text.
"""

from __future__ import annotations

from random import Random

from routing.scenarios import hosted, jitter, with_changes
from routing.trace import Cell, Limit, Member, Phase, Plan, Scenario

# Prompts of coding agents and documents: a median of 6 kB, one in a hundred above 200 kB.
_LONG = (6000.0, 1.5)
_PART_S = 575.0  # before a fault, and within; after it twice as long
_FAULT = Cell(3.0, 1, 4.0 * _PART_S)
_SLOW_FAULT = Cell(0.05, 1, 4.0 * 10_800.0)  # 3 a minute
_STEADY = Cell(2.0, 1, 2400.0)
_SIDECAR = Cell(0.01, 1, 200_000.0)  # a request every 100 s


def _faulty(cell: Cell, rng: Random, part_s: float | None = None, **behaviour: float) -> Plan:
    """Three hosted members; the best one misbehaves for a quarter of the time, or for ``part_s``."""
    begin_s = 0.25 * cell.end_s
    end_s = begin_s + (begin_s if part_s is None else part_s)
    members = hosted(rng, best=0.4, second=0.6, third=0.9)
    members["best"] = with_changes(members["best"], phases=(Phase(begin_s, **behaviour), Phase(end_s)))
    return Plan(tuple(members.values()), "best", fault=(begin_s, end_s))


def _always(cell: Cell, rng: Random, **behaviour: float) -> Plan:
    """The best one misbehaves all the time."""
    members = hosted(rng, best=0.4, second=0.6, third=0.9)
    members["best"] = with_changes(members["best"], phases=(Phase(0.0, **behaviour),))
    return Plan(tuple(members.values()), "best")


def _sloped(cell: Cell, rng: Random, slopes: dict[str, tuple[float, float]], **changes: object) -> Plan:
    """By name: the median of an empty prompt, and seconds a kilobyte."""
    members = [
        with_changes(Member(name, median_s * jitter(rng)), s_per_kb=slope * jitter(rng), **changes)
        for name, (median_s, slope) in slopes.items()
    ]
    return Plan(tuple(members), next(iter(slopes)), prompts=_LONG)


def slope(cell: Cell, rng: Random) -> Plan:
    """Who is quickest depends on the prompt: one answers short ones at once and reads slowly."""
    return _sloped(cell, rng, {"brisk": (0.25, 0.045), "reader": (0.7, 0.006), "even": (0.55, 0.03)})


def slope_brownout(cell: Cell, rng: Random) -> Plan:
    """Sizes matter, and the one that reads well becomes six times slower for a while."""
    plan = _sloped(cell, rng, {"reader": (0.5, 0.008), "brisk": (0.3, 0.03), "third": (0.8, 0.02)})
    phases = (Phase(0.25 * cell.end_s, slow=6.0), Phase(0.5 * cell.end_s))
    members = tuple(with_changes(m, phases=phases) if m.name == "reader" else m for m in plan.members)
    return plan._replace(members=members, fault=(0.25 * cell.end_s, 0.5 * cell.end_s))


def slope_same(cell: Cell, rng: Random) -> Plan:
    """All read at the same pace, one is quicker: nothing is gained by looking at the size, only lost."""
    return _sloped(cell, rng, {"best": (0.4, 0.02), "second": (0.6, 0.02), "third": (0.9, 0.02)})


def cached(cell: Cell, rng: Random) -> Plan:
    """Long prompts are conversations, cached but for a tenth: the time hardly depends on their size."""
    slopes = {"brisk": (0.3, 0.03), "reader": (0.5, 0.015), "third": (0.8, 0.02)}
    return _sloped(cell, rng, slopes, cached_from_bytes=10_000)


def pace(cell: Cell, rng: Random) -> Plan:
    """Whole answers count; the first to begin is the slowest writer."""
    members = [
        Member(name, median_s * jitter(rng), tokens_per_s=tokens_per_s * jitter(rng))
        for name, median_s, tokens_per_s in (
            ("early", 0.3, 25.0),
            ("writer", 0.6, 90.0),
            ("third", 0.5, 50.0),
        )
    ]
    return Plan(tuple(members), "writer")


def stall(cell: Cell, rng: Random) -> Plan:
    """The best writer goes on at 8 % of its pace for a while; its first bytes are as quick as ever."""
    plan = pace(cell, rng)
    begin_s, end_s = 0.25 * cell.end_s, 0.5 * cell.end_s
    phases = (Phase(begin_s, pace=0.08), Phase(end_s))
    members = tuple(with_changes(m, phases=phases) if m.name == "writer" else m for m in plan.members)
    return plan._replace(members=members, fault=(begin_s, end_s))


def pace_drops(cell: Cell, rng: Random) -> Plan:
    """A milder stall: a third of the pace."""
    plan = stall(cell, rng)
    members = tuple(
        with_changes(
            m, phases=tuple(phase._replace(pace=1.0 if phase.pace == 1.0 else 0.33) for phase in m.phases)
        )
        for m in plan.members
    )
    return plan._replace(members=members)


def _limited(rng: Random, cell: Cell, shares: tuple[float, ...], retry_after_s: float | None) -> Plan:
    """Limits of tokens a minute, as shares of the whole traffic's; above them 429."""
    members = hosted(rng, best=0.4, second=0.6, third=0.9)
    tokens = cell.rate * 4000.0 * 1.65 * 0.25  # a second: of the mean prompt
    found = []
    for member, share in zip(members.values(), shares, strict=True):
        limit = Limit(share * tokens, share * tokens * 30.0, retry_after_s, of_tokens=True) if share else None
        found.append(with_changes(member, limit=limit))
    return Plan(tuple(found), "best")


def tpm(cell: Cell, rng: Random) -> Plan:
    return _limited(rng, cell, (0.6, 0.0, 0.0), None)


def tpm_tight(cell: Cell, rng: Random) -> Plan:
    return _limited(rng, cell, (0.25, 0.5, 0.0), None)


def all_limited(cell: Cell, rng: Random) -> Plan:
    """All three have limits, and together a quarter more than is needed."""
    return _limited(rng, cell, (0.5, 0.4, 0.35), None)


def all_limited_told(cell: Cell, rng: Random) -> Plan:
    return _limited(rng, cell, (0.5, 0.4, 0.35), 5.0)


def hang(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, hang_rate=1.0)


def hang_short(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, 20.0, hang_rate=1.0)


def hang_cold(cell: Cell, rng: Random) -> Plan:
    """It hangs from the first request on, so nothing was ever known of it, and works later."""
    members = hosted(rng, best=0.4, second=0.6, third=0.9)
    end_s = 0.25 * cell.end_s
    members["best"] = with_changes(members["best"], phases=(Phase(0.0, hang_rate=1.0), Phase(end_s)))
    return Plan(tuple(members.values()), "best", fault=(0.0, end_s))


def gray_hang(cell: Cell, rng: Random) -> Plan:
    return _always(cell, rng, hang_rate=0.1)


def gray_hang_2(cell: Cell, rng: Random) -> Plan:
    return _always(cell, rng, hang_rate=0.02)


def head_then_hang(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, mute_rate=1.0)


def flap_hang(cell: Cell, rng: Random) -> Plan:
    """It hangs for 30 s every two minutes."""
    members = hosted(rng, best=0.4, second=0.6, third=0.9)
    phases = []
    for begin_s in range(300, int(cell.end_s), 120):
        phases += [Phase(float(begin_s), hang_rate=1.0), Phase(begin_s + 30.0)]
    members["best"] = with_changes(members["best"], phases=tuple(phases))
    return Plan(tuple(members.values()), "best")


def empty_200(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, empty_rate=1.0, error_s=0.03)


def empty_some(cell: Cell, rng: Random) -> Plan:
    """A full server that says so with a 200: a third of its answers."""
    return _always(cell, rng, empty_rate=0.33, error_s=0.03)


def brownout(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, slow=8.0)


def brownout_long(cell: Cell, rng: Random) -> Plan:
    """Slow for long prompts only: a fifth of them."""
    return _faulty(cell, rng, slow=10.0, from_bytes=9000)


def errors_long(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, error_rate=1.0, error_s=0.3, from_bytes=9000)


def outage_slow(cell: Cell, rng: Random) -> Plan:
    """500s that take three seconds."""
    return _faulty(cell, rng, error_rate=1.0, error_s=3.0)


def bursts(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, slow=8.0)._replace(gap_spread=4.0)


def bursts_hang(cell: Cell, rng: Random) -> Plan:
    return _faulty(cell, rng, hang_rate=1.0)._replace(gap_spread=4.0)


def sidecar(cell: Cell, rng: Random) -> Plan:
    """Hardly any traffic, and the best one is five times slower for a quarter of the time."""
    return _faulty(cell, rng, slow=5.0)


def sidecar_swap(cell: Cell, rng: Random) -> Plan:
    """Hardly any traffic, and the slowest becomes the fastest."""
    members = hosted(rng, first=0.5, second=0.8, riser=1.3)
    members["riser"] = with_changes(members["riser"], phases=(Phase(0.4 * cell.end_s, slow=0.2),))
    return Plan(tuple(members.values()), "riser")


def three_nines(cell: Cell, rng: Random) -> Plan:
    """The quick one breaks off one answer in fifty, the other one in a thousand."""
    members = hosted(rng, quick=0.4, sound=0.8, middling=0.6)
    for name, rate in (("quick", 0.02), ("sound", 0.001), ("middling", 0.01)):
        members[name] = with_changes(members[name], phases=(Phase(0.0, break_rate=rate),))
    return Plan(tuple(members.values()), "sound")


def nines_turn(cell: Cell, rng: Random) -> Plan:
    """The soundest begins to break off one in twenty, half way."""
    members = hosted(rng, quick=0.4, sound=0.8)
    members["quick"] = with_changes(members["quick"], phases=(Phase(0.0, break_rate=0.01),))
    phases = (Phase(0.0, break_rate=0.001), Phase(0.5 * cell.end_s, break_rate=0.05))
    members["sound"] = with_changes(members["sound"], phases=phases)
    return Plan(tuple(members.values()), "quick")


def _priced(rng: Random, cheap: Member, cheap_usd: float) -> Plan:
    """A cheap member beside two good ones."""
    good = Member("good", 0.6 * jitter(rng))
    dear = Member("dear", 0.4 * jitter(rng), input_usd=2.0, cached_usd=1.0, output_usd=8.0)
    cheap = with_changes(cheap, input_usd=cheap_usd, cached_usd=0.5 * cheap_usd, output_usd=4.0 * cheap_usd)
    return Plan((cheap, good, dear), "good")


def cheap_hangs(cell: Cell, rng: Random) -> Plan:
    return _priced(rng, Member("cheap", 0.5 * jitter(rng), phases=(Phase(0.0, hang_rate=0.1),)), 0.9)


def cheap_slow(cell: Cell, rng: Random) -> Plan:
    return _priced(rng, Member("cheap", 20.0 * jitter(rng)), 0.97)


def cheap_turns_slow(cell: Cell, rng: Random) -> Plan:
    phases = (Phase(0.25 * cell.end_s, slow=40.0), Phase(0.5 * cell.end_s))
    return _priced(rng, Member("cheap", 0.6 * jitter(rng), phases=phases), 0.9)


# A second of waiting is worth as much as one answer or so: a bound of taste, not a price.
_SECOND_USD = 0.0005

FAMILIES = [
    Scenario("slope", slope, (_STEADY,), about="first output grows with the prompt, at each its own way"),
    Scenario("slope-same", slope_same, (_STEADY,), about="it grows at all alike"),
    Scenario("pace", pace, (_STEADY,), "throughput", "whole answers; the first to begin writes slowest"),
    Scenario("tpm", tpm, (_FAULT,), about="429 above a limit of tokens, without Retry-After"),
    Scenario("all-limited", all_limited, (_FAULT,), about="so at all members"),
    Scenario("hang-3", hang, (_FAULT,), about="the best one hangs, at 3 requests a second"),
    Scenario("hang-low", hang, (_SLOW_FAULT,), about="the best one hangs, at 3 a minute"),
    Scenario("gray-hang", gray_hang, (_STEADY,), about="the best one hangs with one request in ten"),
    Scenario("empty-200", empty_200, (_FAULT,), about="the best one answers 200 and nothing else"),
    Scenario("brownout-3", brownout, (_FAULT,), about="the best one is eight times slower"),
    Scenario("brownout-long", brownout_long, (_FAULT,), about="it is slow for long prompts only"),
    Scenario("bursts", bursts, (_FAULT,), about="a brown-out, and requests come in bursts"),
    Scenario("sidecar", sidecar, (_SIDECAR,), about="a request every 100 s, and a brown-out"),
    Scenario("three-nines", three_nines, (_STEADY,), "availability", "99.9 against 98 % of whole answers"),
    Scenario("cheap-hangs", cheap_hangs, (_STEADY,), "cost", "the cheapest hangs with one in ten",
             second_usd=_SECOND_USD),
    Scenario("slope-brownout", slope_brownout, (_FAULT,), about="sizes matter, and a brown-out",
             half="held-out"),
    Scenario("cached", cached, (_STEADY,), about="long prompts are cached", half="held-out"),
    Scenario("stall", stall, (_FAULT,), "throughput", "a writer at 8 % of its pace", half="held-out"),
    Scenario("pace-drops", pace_drops, (_FAULT,), "throughput", "a writer at a third of its pace",
             half="held-out"),
    Scenario("tpm-tight", tpm_tight, (_FAULT,), about="two of three have tight limits", half="held-out"),
    Scenario("all-limited-told", all_limited_told, (_FAULT,), about="all have limits, with Retry-After",
             half="held-out"),
    Scenario("hang-short", hang_short, (_FAULT,), about="the best one hangs for 20 s", half="held-out"),
    Scenario("hang-cold", hang_cold, (_FAULT,), about="it hangs from the beginning", half="held-out"),
    Scenario("head-then-hang", head_then_hang, (_FAULT,), about="its heads come and nothing else",
             half="held-out"),
    Scenario("flap-hang", flap_hang, (_FAULT,), about="it hangs for 30 s every two minutes", half="held-out"),
    Scenario("gray-hang-2", gray_hang_2, (_STEADY,), about="it hangs with one in fifty", half="held-out"),
    Scenario("empty-some", empty_some, (_FAULT,), about="a third of its answers are empty", half="held-out"),
    Scenario("errors-long", errors_long, (_FAULT,), about="500 for long prompts only", half="held-out"),
    Scenario("outage-slow", outage_slow, (_FAULT,), about="500 after three seconds", half="held-out"),
    Scenario("bursts-hang", bursts_hang, (_FAULT,), about="a hang, and bursts", half="held-out"),
    Scenario("sidecar-swap", sidecar_swap, (_SIDECAR,), about="a request every 100 s, and the slowest rises",
             half="held-out"),
    Scenario("nines-turn", nines_turn, (_STEADY,), "availability", "the soundest breaks off one in twenty",
             half="held-out"),
    Scenario("cheap-slow", cheap_slow, (_STEADY,), "cost", "the cheapest takes 20 s", half="held-out",
             second_usd=_SECOND_USD),
    Scenario("cheap-turns-slow", cheap_turns_slow, (_STEADY,), "cost", "the cheapest slows down for a while",
             half="held-out", second_usd=_SECOND_USD),
]  # fmt: skip
