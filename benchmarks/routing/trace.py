"""What a trace is: members, arrivals, and the luck of each request at each member. All of it is data.

To write scenarios of your own, build :class:`Scenario` objects in a file and name the file with
``python benchmarks/routing --scenarios FILE``; it must hold a list ``SCENARIOS``. The smallest one::

    from routing.trace import Cell, Member, Phase, Plan, Scenario

    def slow_morning(cell, rng):
        fast = Member("fast", median_s=0.4, phases=(Phase(600.0, slow=5.0), Phase(1200.0)))
        return Plan((fast, Member("other", median_s=0.6)), watched="fast", fault=(600.0, 1200.0))

    SCENARIOS = [Scenario("slow-morning", slow_morning, (Cell(0.5, 1, 3600.0),))]

Common random numbers: what a request would draw at a member is fixed by (scenario, cell, seed, request
number, member's name) and by nothing else, so all policies meet the same luck, whatever they picked before.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

TIMEOUT_S = 60.0
MAX_ATTEMPTS = 3
# A stream whose head has come is waited for this long, and nothing follows it (unless it was hedged before).
MUTE_S = 120.0
# Medians are moved by up to this factor per seed, so that nothing can be tuned to their exact values.
JITTER = 1.08
# Spread of what one request is like, the same at all members: prompt size and length of the answer.
BODY_MEDIAN_BYTES, BODY_SIGMA = 4000.0, 1.0
LENGTH_SIGMA = 0.6


class Phase(NamedTuple):
    """How a member behaves from ``from_s`` on, until its next phase. The default is healthy.

    :param slow: factor on first-byte times.
    :param error_rate: share of attempts that end in ``error_s`` with a 500.
    :param hang_rate: share of attempts that get no byte until the time-out.
    :param price: factor on the list prices; every policy is told when it changes.
    :param empty_rate: share of attempts that end in ``error_s`` with a 200 and no output.
    :param mute_rate: share of attempts whose head comes at once, and nothing else until ``MUTE_S``.
    :param break_rate: share of answers that break off after their first output: no failover heals that.
    :param pace: factor on the tokens a second.
    :param from_bytes: only prompts at least so large meet the faults and the slowness.

    What befalls an attempt is decided when it begins: one that began before an outage still succeeds.
    """

    from_s: float
    slow: float = 1.0
    error_rate: float = 0.0
    error_s: float = 0.02
    hang_rate: float = 0.0
    price: float = 1.0
    empty_rate: float = 0.0
    mute_rate: float = 0.0
    break_rate: float = 0.0
    pace: float = 1.0
    from_bytes: int = 0


class Limit(NamedTuple):
    """A bucket over all replicas: ``per_s`` requests, ``burst`` at once, else 429 in ``error_s``.

    :param of_tokens: the bucket holds prompt tokens, and a request takes as many as it has.
    :param retry_after_s: None: the 429 says nothing of it.
    """

    per_s: float
    burst: float
    retry_after_s: float | None = 5.0
    error_s: float = 0.05
    of_tokens: bool = False


class Server(NamedTuple):
    """A self-hosted member: ``slots`` requests at once, from their start to their last byte, the rest queue.

    :param slow_when_full: first-byte times grow linearly with the slots in use, by this share when all are
        (prompts are processed in one batch with the running answers).
    """

    slots: int
    slow_when_full: float = 0.0


@dataclass(frozen=True)
class Member:
    """A deployment. First-byte times are log-normal around ``median_s``; so is the rest of the stream.

    ``s_per_kb`` adds to the median for each kilobyte of the prompt that is not cached. With ``tokens_per_s``
    the stream takes what its output tokens take, else ``stream_s``. Of prompts longer than
    ``cached_from_bytes`` nine tenths are cached. Prices are USD per million tokens; ``output_tokens`` is a
    median, like ``stream_s``.
    """

    name: str
    median_s: float
    sigma: float = 0.5
    outlier_rate: float = 0.0
    outlier_factor: float = 20.0
    stream_s: float = 4.0
    phases: tuple[Phase, ...] = ()
    limit: Limit | None = None
    server: Server | None = None
    input_usd: float = 1.0
    cached_usd: float = 0.5
    output_usd: float = 4.0
    tokens_per_byte: float = 0.25
    cached_share: float = 0.0  # at most 0.5
    output_tokens: float = 250.0
    output_sigma: float = 0.4
    s_per_kb: float = 0.0
    tokens_per_s: float = 0.0
    cached_from_bytes: int = 1 << 30


class Cell(NamedTuple):
    """One rate of a scenario. ``rate`` is the total in requests per second, over all ``replicas``."""

    rate: float
    replicas: int
    end_s: float

    @property
    def label(self) -> str:
        return f"{self.rate:g}/s ×{self.replicas}"


class Plan(NamedTuple):
    """What a scenario is made of at one cell and seed.

    :param watched: the member whose share is reported and plotted.
    :param fault: when the watched member is bad: (begins, ends); None: it never is.
    :param burst: so many requests come within the first half second, besides the others.
    :param settled_s: from then on (and until the fault) nothing changes, so shares should not swing either;
        None where something always changes.
    :param prompts: median and sigma of the prompts' bytes.
    :param gap_spread: standard deviation of the gaps between arrivals over their mean; 1: Poisson.
    """

    members: tuple[Member, ...]
    watched: str
    fault: tuple[float, float] | None = None
    burst: int = 0
    settled_s: float | None = None
    prompts: tuple[float, float] = (BODY_MEDIAN_BYTES, BODY_SIGMA)
    gap_spread: float = 1.0


class Scenario(NamedTuple):
    """``plan(cell, rng)`` says what happens; ``rng`` is seeded, and new for each seed.

    :param strategy: ``latency`` and ``availability`` (the figure is seconds to the first byte),
        ``throughput`` (to the last) or ``cost`` (USD a request).
    :param second_usd: with ``cost``: what a second of waiting for the first byte is worth besides.
    :param half: ``tuned``: strategies are tuned on it; ``held-out``: it is only looked at, at the end.
    """

    name: str
    plan: Callable[[Cell, Random], Plan]
    cells: tuple[Cell, ...]
    strategy: str = "latency"
    about: str = ""
    half: str = "tuned"
    second_usd: float = 0.0


class Luck(NamedTuple):
    """What each request would draw at one member, by request number."""

    first_byte: array[float]  # standard normal
    fault: array[float]  # uniform: does it hang, fail
    outlier: array[float]  # uniform
    output: array[float]  # standard normal
    cached: array[float]  # uniform


@dataclass(frozen=True)
class Trace:
    """All that happens to everybody. Requests are numbered from 0 in the order of ``arrivals_s``."""

    seed: int
    strategy: str
    second_usd: float
    cell: Cell
    plan: Plan
    arrivals_s: array[float]
    replicas: array[int]
    body_bytes: array[int]
    lengths: array[float]  # standard normal: how long the answer to this request is
    luck: tuple[Luck, ...]  # by member

    @property
    def members(self) -> tuple[Member, ...]:
        return self.plan.members

    @property
    def watched(self) -> int:
        return next(index for index, member in enumerate(self.members) if member.name == self.plan.watched)


def build(scenario: Scenario, cell: Cell, seed: int) -> Trace:
    """The trace of a seed. The members' order is drawn too: being first in a list must not help."""
    key = f"{scenario.name}/{cell.rate:g}/{cell.replicas}/{seed}"
    rng = Random(f"{key}/plan")
    plan = scenario.plan(cell, rng)
    members = list(plan.members)
    rng.shuffle(members)
    plan = plan._replace(members=tuple(members))
    rng = Random(f"{key}/requests")
    arrivals = _arrivals(cell, plan, rng)
    count = len(arrivals)
    return Trace(
        seed=seed,
        strategy=scenario.strategy,
        second_usd=scenario.second_usd,
        cell=cell,
        plan=plan,
        arrivals_s=arrivals,
        replicas=array("i", [rng.randrange(cell.replicas) for _ in range(count)]),
        body_bytes=array("i", [_body_bytes(rng, *plan.prompts) for _ in range(count)]),
        lengths=array("d", [rng.gauss(0.0, 1.0) for _ in range(count)]),
        luck=tuple(_luck(Random(f"{key}/member/{member.name}"), count) for member in members),
    )


def _arrivals(cell: Cell, plan: Plan, rng: Random) -> array[float]:
    """A renewal process (Poisson's, where the gaps spread as much as their mean), and the first burst."""
    times = [0.5 * rng.random() for _ in range(plan.burst)]
    shape = plan.gap_spread**-2.0

    def gap_s() -> float:
        return (
            rng.expovariate(cell.rate) if shape == 1.0 else rng.gammavariate(shape, 1.0 / shape / cell.rate)
        )

    now = gap_s()
    while now < cell.end_s:
        times.append(now)
        now += gap_s()
    return array("d", sorted(times))


def _body_bytes(rng: Random, median_bytes: float, sigma: float) -> int:
    return max(200, min(400_000, int(median_bytes * rng.lognormvariate(0.0, sigma))))


def _luck(rng: Random, count: int) -> Luck:
    normal, uniform = rng.gauss, rng.random
    return Luck(
        first_byte=array("d", [normal(0.0, 1.0) for _ in range(count)]),
        fault=array("d", [uniform() for _ in range(count)]),
        outlier=array("d", [uniform() for _ in range(count)]),
        output=array("d", [normal(0.0, 1.0) for _ in range(count)]),
        cached=array("d", [uniform() for _ in range(count)]),
    )
