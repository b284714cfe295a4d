"""The scenarios: what LLM providers do, told in figures. Frozen; see the package's text.

Hosted chat models mostly send their first byte within 0.3 to 1.2 s, spread log-normally; the same model at
two providers differs by a third to threefold. They are faulty for minutes, not seconds: error storms,
overload that multiplies times, connections that accept and never answer, rate limits per organisation. Which
is why the faults here last minutes.

All medians move a little with the seed (``JITTER``), never enough to change who is best.
"""

from __future__ import annotations

from math import exp, sqrt
from random import Random

from routing.trace import JITTER, Cell, Limit, Member, Phase, Plan, Scenario, Server

# (before, fault, after) in seconds, by rate: long enough for some hundred requests in each part, and short
# enough for a run of all to end.
_PARTS = {0.5: (600.0, 600.0, 1200.0), 5.0: (300.0, 300.0, 600.0), 10.0: (120.0, 180.0, 300.0)}
_PARTS_FAST = (60.0, 120.0, 180.0)
# Scores, tables and limits of rate have seen enough by then.
_SETTLED_S = 0.25  # of the run


def jitter(rng: Random) -> float:
    return JITTER ** rng.uniform(-1.0, 1.0)


def hosted(rng: Random, *, sigma: float = 0.5, **medians_s: float) -> dict[str, Member]:
    return {name: Member(name, median * jitter(rng), sigma) for name, median in medians_s.items()}


def with_changes(member: Member, **changes: object) -> Member:
    return Member(**{**member.__dict__, **changes})


def _fault_cell(rate: float, replicas: int) -> Cell:
    return Cell(rate, replicas, sum(_PARTS.get(rate, _PARTS_FAST)))


def _fault(cell: Cell, rng: Random, **behaviour: float) -> Plan:
    """Three hosted members; the best one misbehaves for a while."""
    before, during, _ = _PARTS.get(cell.rate, _PARTS_FAST)
    members = hosted(rng, best=0.35, second=0.55, third=0.9)
    phases = (Phase(before, **behaviour), Phase(before + during))
    members["best"] = with_changes(members["best"], phases=phases)
    return Plan(tuple(members.values()), "best", fault=(before, before + during))


def steady(cell: Cell, rng: Random) -> Plan:
    members = hosted(rng, best=0.35, second=0.5, third=0.8, fourth=1.2)
    return Plan(tuple(members.values()), "best", settled_s=_SETTLED_S * cell.end_s)


def alike(cell: Cell, rng: Random) -> Plan:
    """Two that are nearly as fast, and one that is a little slower; no jitter, so that the order stays."""
    members = (Member("best", 0.5), Member("second", 0.53), Member("third", 0.62))
    return Plan(members, "best", settled_s=_SETTLED_S * cell.end_s)


def tails(cell: Cell, rng: Random) -> Plan:
    members = hosted(rng, sigma=1.1, best=0.4, second=0.7, third=1.0)
    tailed = [with_changes(member, outlier_rate=0.01) for member in members.values()]
    return Plan(tuple(tailed), "best", settled_s=_SETTLED_S * cell.end_s)


def drift(cell: Cell, rng: Random) -> Plan:
    """Each member's speed wanders on its own: an Ornstein-Uhlenbeck process of its logarithm."""
    deviation, step_s = 0.4, cell.end_s / 720.0
    memory_s = min(1200.0, cell.end_s / 5.0)
    keep = exp(-step_s / memory_s)
    members = []
    for member in hosted(rng, best=0.45, second=0.55, third=0.65).values():
        level, phases = rng.gauss(0.0, deviation), []
        for step in range(720):
            phases.append(Phase(step * step_s, slow=exp(level)))
            level = keep * level + sqrt(1.0 - keep * keep) * rng.gauss(0.0, deviation)
        members.append(with_changes(member, phases=tuple(phases)))
    return Plan(tuple(members), "best")


def brownout(cell: Cell, rng: Random) -> Plan:
    return _fault(cell, rng, slow=10.0)


def outage(cell: Cell, rng: Random) -> Plan:
    return _fault(cell, rng, error_rate=1.0)


def hang(cell: Cell, rng: Random) -> Plan:
    return _fault(cell, rng, hang_rate=1.0)


def flaky(cell: Cell, rng: Random) -> Plan:
    """The best one refuses a third of its requests, and is worth the try all the same: refusing is quick."""
    return _fault(cell, rng, error_rate=0.33, error_s=0.2)


def improves(cell: Cell, rng: Random) -> Plan:
    """The slowest member becomes the fastest and stays so; "fault" names the time before."""
    before, during, _ = _PARTS.get(cell.rate, _PARTS_FAST)
    members = hosted(rng, first=0.5, second=0.7, riser=1.2)
    members["riser"] = with_changes(members["riser"], phases=(Phase(before + during, slow=0.2),))
    return Plan(tuple(members.values()), "riser", fault=(0.0, before + during))


def limit(cell: Cell, rng: Random) -> Plan:
    """The best one takes 40 % of the traffic, averaged over ten seconds."""
    members = hosted(rng, best=0.35, second=0.55, third=0.9)
    allowed = Limit(0.4 * cell.rate, max(1.0, 4.0 * cell.rate))
    members["best"] = with_changes(members["best"], limit=allowed)
    return Plan(tuple(members.values()), "best", settled_s=_SETTLED_S * cell.end_s)


def saturating(cell: Cell, rng: Random) -> Plan:
    """Three servers of one's own at three quarters of what they can take together; no one can take all."""
    members = hosted(rng, best=0.3, second=0.4, third=0.6)
    for name, slots in (("best", 2.9), ("second", 2.5), ("third", 2.0)):
        server = Server(max(1, round(slots * cell.rate)), slow_when_full=1.0)
        members[name] = with_changes(members[name], server=server)
    return Plan(tuple(members.values()), "best", settled_s=_SETTLED_S * cell.end_s)


def small_local(cell: Cell, rng: Random) -> Plan:
    """A quick server of one's own that can take a quarter of the traffic, beside two hosted models."""
    members = hosted(rng, local=0.15, hosted=0.5, slower=0.8)
    server = Server(max(1, round(1.0 * cell.rate)), slow_when_full=0.5)
    members["local"] = with_changes(members["local"], server=server, stream_s=3.2)
    return Plan(tuple(members.values()), "local", settled_s=_SETTLED_S * cell.end_s)


def cold(cell: Cell, rng: Random) -> Plan:
    """Nothing is known, and the first half second brings four seconds' worth of requests, or twenty."""
    members = hosted(rng, best=0.4, second=0.8, third=1.5, fourth=3.0)
    return Plan(tuple(members.values()), "best", burst=max(20, int(4.0 * cell.rate)))


def price(cell: Cell, rng: Random) -> Plan:
    """After a third of the time the cheapest is three times dearer, after two the dearest costs a tenth."""
    third_s = cell.end_s / 3.0
    cheap = Member("cheap", 0.5 * jitter(rng), input_usd=0.5, cached_usd=0.25, output_usd=1.5)
    caching = Member(
        "caching", 0.6 * jitter(rng), input_usd=0.8, cached_usd=0.08, output_usd=2.0, cached_share=0.4
    )
    dear = Member("dear", 0.7 * jitter(rng), input_usd=2.5, cached_usd=1.25, output_usd=10.0)
    cheap = with_changes(cheap, phases=(Phase(third_s, price=3.0),))
    dear = with_changes(dear, phases=(Phase(2.0 * third_s, price=0.1),))
    return Plan((cheap, caching, dear), "cheap", fault=(third_s, cell.end_s))


def verbose(cell: Cell, rng: Random) -> Plan:
    """The one with the lowest list price writes four times as much and counts more tokens in the same text.

    For long prompts it is the cheapest all the same, so the right choice differs by request.
    """
    wordy = Member(
        "wordy", 0.5 * jitter(rng), input_usd=0.4, cached_usd=0.2, output_usd=1.2,
        tokens_per_byte=0.3, output_tokens=1000.0,
    )  # fmt: skip
    terse = Member("terse", 0.5 * jitter(rng), input_usd=0.6, cached_usd=0.3, output_usd=2.4)
    dear = Member("dear", 0.4 * jitter(rng), input_usd=1.0, cached_usd=0.5, output_usd=4.0)
    return Plan((wordy, terse, dear), "wordy")


SCENARIOS = [
    Scenario(
        "steady", steady,
        (Cell(0.05, 1, 36_000.0), Cell(0.5, 1, 7200.0), Cell(5.0, 1, 1800.0), Cell(50.0, 4, 300.0),
         Cell(500.0, 64, 40.0)),
        about="four members, 0.35 to 1.2 s, nothing changes",
    ),
    Scenario(
        "alike", alike, (Cell(0.5, 1, 7200.0), Cell(50.0, 64, 300.0)),
        about="three members within a quarter of each other",
    ),
    Scenario(
        "tails", tails, (Cell(0.5, 1, 7200.0), Cell(5.0, 4, 1800.0), Cell(50.0, 64, 300.0)),
        about="heavy tails: sigma 1.1, and one request in a hundred takes 20 times as long",
    ),
    Scenario(
        "drift", drift,
        (Cell(0.05, 1, 36_000.0), Cell(0.5, 1, 7200.0), Cell(5.0, 4, 3600.0), Cell(50.0, 64, 400.0)),
        about="speeds wander, who is best changes every few minutes",
    ),
    Scenario(
        "brownout", brownout,
        (_fault_cell(0.5, 1), _fault_cell(5.0, 4), _fault_cell(10.0, 1), _fault_cell(50.0, 64)),
        about="the best member is ten times slower for a while",
    ),
    Scenario(
        "outage", outage,
        (_fault_cell(0.5, 1), _fault_cell(10.0, 1), _fault_cell(50.0, 4), _fault_cell(50.0, 64)),
        about="the best member answers 500 within 20 ms for a while",
    ),
    Scenario(
        "hang", hang, (_fault_cell(0.5, 1), _fault_cell(10.0, 1), _fault_cell(50.0, 64)),
        about="the best member accepts requests and answers none for a while; the time-out is 60 s",
    ),
    Scenario(
        "flaky", flaky, (_fault_cell(0.5, 1), _fault_cell(5.0, 4)),
        about="the best member refuses a third of its requests for a while",
    ),
    Scenario(
        "improves", improves, (_fault_cell(0.5, 1), _fault_cell(5.0, 4), _fault_cell(50.0, 64)),
        about="the slowest member becomes the fastest",
    ),
    Scenario(
        "limit", limit, (Cell(5.0, 1, 1200.0), Cell(50.0, 4, 300.0), Cell(500.0, 64, 40.0)),
        about="the best member answers 429 above two fifths of the rate",
    ),
    Scenario(
        "saturating", saturating, (Cell(5.0, 1, 1800.0), Cell(50.0, 4, 300.0), Cell(500.0, 64, 40.0)),
        about="three self-hosted members with slots and a queue, at three quarters of their capacity",
    ),
    Scenario(
        "small-local", small_local, (Cell(5.0, 1, 1800.0), Cell(50.0, 4, 300.0)),
        about="a quick self-hosted member for a quarter of the traffic, beside two hosted ones",
    ),
    Scenario(
        "cold", cold,
        (Cell(0.05, 1, 3600.0), Cell(0.5, 1, 300.0), Cell(5.0, 4, 60.0), Cell(50.0, 64, 60.0),
         Cell(500.0, 64, 20.0)),
        about="nothing is known, and it begins with a burst",
    ),
    Scenario(
        "price", price,
        (Cell(0.05, 1, 36_000.0), Cell(0.5, 1, 7200.0), Cell(5.0, 4, 1800.0), Cell(50.0, 64, 300.0)),
        strategy="cost",
        about="list prices change twice; one member caches prompts",
    ),
    Scenario(
        "verbose", verbose, (Cell(0.05, 1, 36_000.0), Cell(0.5, 1, 7200.0), Cell(50.0, 64, 300.0)),
        strategy="cost",
        about="the lowest list price has the longest answers",
    ),
]  # fmt: skip
