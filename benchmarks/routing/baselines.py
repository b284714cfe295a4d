"""What others do, and the oracle. Written from the papers and systems named here, with none of their code.

All learn from good first bytes (from whole answers, where these count), and from a time-out as an answer that
took that long. All eject as Envoy does (outlier detection's ``consecutive_5xx``: five failures in a row, 30 s
times the ejections so far) and heed ``Retry-After``, with nobody left they fail open, and a failed request
goes on to another member. A 200 without output is a success to them. Ties are drawn at random. Each replica
has its own object.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import exp
from random import Random
from statistics import median

from routing.engine import Attempt, Request
from routing.trace import TIMEOUT_S, Trace
from routing.world import Spent, World

# A request as everybody imagines it before the first: a page of prompt, a short answer.
_TYPICAL_INPUT, _TYPICAL_OUTPUT = 1000.0, 300.0
# Envoy's defaults: failures in a row, seconds of the first ejection, the most.
_EJECT_AFTER, _EJECT_S, _EJECT_MAX_S = 5, 30.0, 300.0


class Baseline:
    """Random, and what the others share: books of who is awaited, in flight, and out."""

    name = "random"
    sees_output = False

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        self.count = len(trace.members)
        self.rng = Random(f"{self.name}/{trace.seed}/{replica}")
        self.awaiting = [0] * self.count
        self.in_flight = [0] * self.count
        self._is_whole = trace.strategy == "throughput"
        self._out_until = [0.0] * self.count
        self._failures = [0] * self.count  # in a row
        self._ejections = [0] * self.count

    def pick(self, request: Request, now: float) -> int | None:
        tried = request.tried
        left = [index for index in range(self.count) if index not in tried]
        if not left:
            return None
        left = [index for index in left if self._out_until[index] <= now] or left
        return left[0] if len(left) == 1 else self.among(left, now)

    def among(self, left: Sequence[int], now: float) -> int:
        """One of two or more."""
        return left[int(self.rng.random() * len(left))]

    def lowest(self, left: Sequence[int], values: Sequence[float]) -> int:
        least = min(values)
        near = [index for index, value in zip(left, values, strict=True) if value == least]
        return near[0] if len(near) == 1 else near[int(self.rng.random() * len(near))]

    def learn(self, member: int, seconds: float, now: float) -> None:
        """A first byte came after ``seconds``, or the time-out."""

    def begun(self, attempt: Attempt, now: float) -> None:
        self.awaiting[attempt.member] += 1
        self.in_flight[attempt.member] += 1

    def first_byte(self, attempt: Attempt, now: float) -> None:
        self.awaiting[attempt.member] -= 1
        self._failures[attempt.member] = 0
        if not self._is_whole:
            self.learn(attempt.member, now - attempt.begun_s, now)

    def finished(self, attempt: Attempt, spent: Spent, now: float) -> None:
        member = attempt.member
        self.in_flight[member] -= 1
        self._ejections[member] = 0
        if self._is_whole:
            self.learn(member, now - attempt.begun_s, now)

    def failed(self, attempt: Attempt, kind: str, retry_after_s: float | None, now: float) -> None:
        member = attempt.member
        self.in_flight[member] -= 1
        if kind != "reset":
            self.awaiting[member] -= 1
        if kind == "empty":
            self.learn(member, now - attempt.begun_s, now)
            self._failures[member] = 0
            return
        if kind == "timeout":
            self.learn(member, TIMEOUT_S, now)
        if retry_after_s is not None:
            self._out_until[member] = max(self._out_until[member], now + retry_after_s)
            return
        self._failures[member] += 1
        if self._failures[member] >= _EJECT_AFTER:
            self._failures[member] = 0
            self._ejections[member] += 1
            self._out_until[member] = now + min(_EJECT_S * self._ejections[member], _EJECT_MAX_S)

    def left(self, attempt: Attempt, now: float) -> None:
        raise AssertionError("none of these hedges")

    def progressed(self, attempt: Attempt, tokens: float, now: float) -> None:
        pass

    def hedge_s(self, attempt: Attempt, now: float) -> float | None:
        return None

    def repriced(self, prices: list[tuple[float, float, float]], now: float) -> None:
        pass


class RoundRobin(Baseline):
    """Turns, from a random start."""

    name = "round-robin"

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._turn = self.rng.randrange(self.count)

    def among(self, left: Sequence[int], now: float) -> int:
        while True:
            self._turn = (self._turn + 1) % self.count
            if self._turn in left:
                return self._turn


class LeastOutstanding(Baseline):
    """Fewest requests in flight, until their last byte: nginx's least_conn, Envoy's least request."""

    name = "least-out"

    def among(self, left: Sequence[int], now: float) -> int:
        return self.lowest(left, [self.in_flight[index] for index in left])


class PlainMean(Baseline):
    """Lowest mean of all first-byte times so far; who was never asked goes first, once."""

    name = "mean"

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._sums = [0.0] * self.count
        self._counts = [0] * self.count
        self._asked = [False] * self.count

    def among(self, left: Sequence[int], now: float) -> int:
        fresh = [index for index in left if not self._asked[index]]
        if fresh:
            return super().among(fresh, now)
        # Asked and not answered yet: nothing to go by, and no reason to send more.
        values = [
            self._sums[index] / self._counts[index] if self._counts[index] else TIMEOUT_S for index in left
        ]
        return self.lowest(left, values)

    def begun(self, attempt: Attempt, now: float) -> None:
        super().begun(attempt, now)
        self._asked[attempt.member] = True

    def learn(self, member: int, seconds: float, now: float) -> None:
        self._sums[member] += seconds
        self._counts[member] += 1


class PeakEwma(Baseline):
    """Peak EWMA with power of two choices, as in Finagle (``PeakEwma``), linkerd and tower (``load``).

    The estimate jumps to any time above it and else decays towards the samples by their distance in time
    (10 s, Finagle's default); while nothing comes it decays towards zero. The load is the estimate times
    (awaiting + 1); a member never seen that is being waited for is taken only if both are so.
    """

    name = "peak-ewma"
    TAU_S = 10.0
    PENALTY = 1e9

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._costs = [0.0] * self.count
        self._stamps = [0.0] * self.count

    def among(self, left: Sequence[int], now: float) -> int:
        pair = left if len(left) == 2 else self.rng.sample(left, 2)
        return self.lowest(pair, [self._load(index, now) for index in pair])

    def _load(self, index: int, now: float) -> float:
        cost, awaiting = self._costs[index], self.awaiting[index]
        if cost == 0.0 and awaiting:
            return self.PENALTY + awaiting
        return cost * exp((self._stamps[index] - now) / self.TAU_S) * (awaiting + 1)

    def learn(self, member: int, seconds: float, now: float) -> None:
        keep = exp((self._stamps[member] - now) / self.TAU_S)
        cost = self._costs[member]
        self._costs[member] = seconds if seconds > cost else cost * keep + seconds * (1.0 - keep)
        self._stamps[member] = now


class PeakEwmaAll(PeakEwma):
    """The same over all members, with a time constant of ten minutes."""

    name = "peak-ewma-all"
    TAU_S = 600.0

    def among(self, left: Sequence[int], now: float) -> int:
        return self.lowest(left, [self._load(index, now) for index in left])


class EwmaRandom(Baseline):
    """The simplest bandit: the lowest average of about 60 s, and 3 % of the requests anywhere."""

    name = "ewma-random"
    TAU_S, SHARE = 60.0, 0.03

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._means = [0.0] * self.count
        self._stamps = [0.0] * self.count

    def among(self, left: Sequence[int], now: float) -> int:
        if self.rng.random() < self.SHARE:
            return super().among(left, now)
        return self.lowest(left, [self._means[index] for index in left])

    def learn(self, member: int, seconds: float, now: float) -> None:
        keep = exp((self._stamps[member] - now) / self.TAU_S) if self._means[member] else 0.0
        # One sample a second or so has to count for something, however soon it follows.
        keep = min(keep, 0.95)
        self._means[member] = self._means[member] * keep + seconds * (1.0 - keep)
        self._stamps[member] = now


class LastTen(PlainMean):
    """Lowest mean of the last ten, and 3 % of the requests anywhere, or it would never look again."""

    name = "last-ten"
    COUNT, SHARE = 10, 0.03

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._latest: list[deque[float]] = [deque(maxlen=self.COUNT) for _ in range(self.count)]

    def among(self, left: Sequence[int], now: float) -> int:
        if self.rng.random() < self.SHARE:
            return Baseline.among(self, left, now)
        return super().among(left, now)

    def learn(self, member: int, seconds: float, now: float) -> None:
        latest = self._latest[member]
        latest.append(seconds)
        self._sums[member], self._counts[member] = sum(latest), len(latest)


class Prequal(Baseline):
    """Prequal's hot-cold lexicographic rule.

    Wydrowski, Kleinberg, Rumble, Archer: "Load is not what you should balance: Introducing Prequal", NSDI
    2024. Among the probes kept, those whose requests in flight are above a quantile (2^-0.25) of the recent
    ones are hot. The cold one with the lowest latency is picked, or if all are hot the one with the fewest in
    flight. Adapted, as a hosted model takes no probes and reports no load: each good answer carries one (the
    replica's own requests in flight there, the median of its last answers from there), and a probe serves
    three times and 60 s instead of 1 s. The paper picks at random with fewer than two probes; here they must
    be of two members, or the first one answered would be the only one ever asked.
    """

    name = "prequal"
    QUANTILE = 2.0**-0.25
    POOL, USES, AGE_S, ANSWERS, LOADS = 16, 3, 60.0, 8, 64

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._times: list[deque[float]] = [deque(maxlen=self.ANSWERS) for _ in range(self.count)]
        self._loads: deque[int] = deque(maxlen=self.LOADS)
        # [member, in flight, latency, when, uses left], oldest first
        self._probes: list[list[float]] = []

    def among(self, left: Sequence[int], now: float) -> int:
        self._probes = [probe for probe in self._probes if probe[3] > now - self.AGE_S]
        probes = [probe for probe in self._probes if int(probe[0]) in left]
        if len({probe[0] for probe in probes}) < 2:
            return super().among(left, now)
        loads = sorted(self._loads)
        threshold = loads[min(len(loads) - 1, int(self.QUANTILE * len(loads)))]
        cold = [probe for probe in probes if probe[1] <= threshold]
        best = min(cold, key=lambda probe: probe[2]) if cold else min(probes, key=lambda probe: probe[1])
        best[4] -= 1
        if best[4] <= 0:
            self._probes.remove(best)
        member = int(best[0])
        for probe in self._probes:  # the paper's compensation: what was just sent counts in the probes too
            if probe[0] == member:
                probe[1] += 1
        return member

    def learn(self, member: int, seconds: float, now: float) -> None:
        self._times[member].append(seconds)
        self._loads.append(self.in_flight[member])
        if len(self._probes) >= self.POOL:
            del self._probes[0]
        latency_s = median(self._times[member])
        self._probes.append([member, self.in_flight[member], latency_s, now, self.USES])


class CheapestList(Baseline):
    """The lowest list price for a typical request, whatever is really charged."""

    name = "cheapest-list"

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._typical: list[float] = []
        self.repriced(world.list_prices(), 0.0)

    def among(self, left: Sequence[int], now: float) -> int:
        return self.lowest(left, [self._typical[index] for index in left])

    def repriced(self, prices: list[tuple[float, float, float]], now: float) -> None:
        self._typical = [_TYPICAL_INPUT * given + _TYPICAL_OUTPUT * out for given, _, out in prices]


class Oracle(Baseline):
    """See :meth:`routing.world.World.best`."""

    name = "oracle"
    sees_output = True

    def __init__(self, trace: Trace, world: World, replica: int) -> None:
        super().__init__(trace, world, replica)
        self._world = world

    def pick(self, request: Request, now: float) -> int | None:
        return self._world.best(request.number, now, request.tried)


LATENCY_BASELINES = (
    Baseline, RoundRobin, LeastOutstanding, PlainMean, LastTen, EwmaRandom, PeakEwma, PeakEwmaAll, Prequal,
)  # fmt: skip
