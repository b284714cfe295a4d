"""What the members are really like at this moment. The engine asks it for outcomes, the oracle for means.

One object serves all replicas of a run: limits and slots are the members' own, whoever sends.
"""

from __future__ import annotations

from collections import deque
from math import exp, inf, sqrt
from typing import NamedTuple

from routing.trace import LENGTH_SIGMA, MUTE_S, TIMEOUT_S, Member, Phase, Trace

_HEALTHY = Phase(0.0)
# How much the oracle heeds the queueing it adds for others; see World._good_s.
_HEEDED = 0.1


class Spent(NamedTuple):
    """What one answer took: tokens and USD."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    usd: float


class World:
    """The members of a trace as the clock passes. Call :meth:`advance` before anything else at a time."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.members = trace.members
        self.phases = [_HEALTHY for _ in self.members]
        self.running = [0 for _ in self.members]
        self.queues: list[deque[object]] = [deque() for _ in self.members]
        self.waiting = [0 for _ in self.members]  # live entries of the queues
        self._tokens = [(member.limit.burst if member.limit else inf) for member in self.members]
        self._tokens_s = [0.0 for _ in self.members]
        self._changes = sorted(
            (phase.from_s, index, phase)
            for index, member in enumerate(self.members)
            for phase in member.phases
        )
        self._changes.reverse()
        self.next_change_s = self._changes[-1][0] if self._changes else inf
        self.has_load = any(member.limit or member.server for member in self.members)
        self._has_sizes = any(
            member.s_per_kb or any(phase.from_bytes for phase in member.phases) for member in self.members
        )
        self._draw_factors = [
            exp(0.5 * m.sigma**2) * (1.0 + m.outlier_rate * (m.outlier_factor - 1.0)) for m in self.members
        ]
        self._stream_means = [self._mean_stream_s(m) for m in self.members]
        self._best_known: int | None = None

    def advance(self, now: float) -> bool:
        """Let the phases that begin by ``now`` begin; True if a price changed."""
        repriced = False
        while self.next_change_s <= now:
            _, index, phase = self._changes.pop()
            repriced = repriced or phase.price != self.phases[index].price
            self.phases[index] = phase
            self.next_change_s = self._changes[-1][0] if self._changes else inf
            self._best_known = None
        return repriced

    def list_prices(self) -> list[tuple[float, float, float]]:
        """USD per million tokens now, by member: input, cached input, output. Everybody may know them."""
        result = []
        for member, phase in zip(self.members, self.phases, strict=True):
            factor = phase.price
            result.append((member.input_usd * factor, member.cached_usd * factor, member.output_usd * factor))
        return result

    # --- what happens to an attempt ---

    def admits(self, index: int, number: int, now: float) -> bool:
        """Whether the member's limit of rate leaves room; takes it if so."""
        needed = self._needed(index, number)
        if self._tokens_at(index, now) < needed:
            return False
        self._tokens[index] -= needed
        return True

    def _needed(self, index: int, number: int) -> float:
        member = self.members[index]
        if member.limit is None or not member.limit.of_tokens:
            return 1.0
        return min(self.trace.body_bytes[number] * member.tokens_per_byte, member.limit.burst)

    def _phase(self, index: int, number: int) -> Phase:
        """The phase as this request meets it."""
        phase = self.phases[index]
        return phase if self.trace.body_bytes[number] >= phase.from_bytes else _HEALTHY

    def fault(self, index: int, number: int) -> str | None:
        """ "hang", "mute", "error", "empty", "break" or None (healthy): what befalls the request now."""
        phase = self._phase(index, number)
        u = self.trace.luck[index].fault[number]
        for kind, rate in (
            ("hang", phase.hang_rate), ("mute", phase.mute_rate), ("error", phase.error_rate),
            ("empty", phase.empty_rate), ("break", phase.break_rate),
        ):  # fmt: skip
            if u < rate:
                return kind
            u -= rate
        return None

    def _median_s(self, index: int, number: int) -> float:
        """The median time to the first byte for this prompt."""
        member = self.members[index]
        body_bytes = self.trace.body_bytes[number]
        fresh_bytes = 0.1 * body_bytes if body_bytes > member.cached_from_bytes else body_bytes
        return (member.median_s + member.s_per_kb * 1e-3 * fresh_bytes) * self._phase(index, number).slow

    def first_byte_s(self, index: int, number: int) -> float:
        """Seconds from the start of the work to the first byte. The attempt counts as running already."""
        member, luck = self.members[index], self.trace.luck[index]
        seconds = self._median_s(index, number) * exp(member.sigma * luck.first_byte[number])
        if luck.outlier[number] < member.outlier_rate:
            seconds *= member.outlier_factor
        if member.server:
            seconds *= 1.0 + member.server.slow_when_full * self.running[index] / member.server.slots
        return seconds

    def stream_s(self, index: int, number: int) -> float:
        """Seconds from the first byte to the last."""
        member = self.members[index]
        if member.tokens_per_s:
            return self._output_tokens(index, number) / (
                member.tokens_per_s * self._phase(index, number).pace
            )
        return member.stream_s * exp(LENGTH_SIGMA * self.trace.lengths[number])

    def _output_tokens(self, index: int, number: int) -> int:
        member = self.members[index]
        spread = LENGTH_SIGMA * self.trace.lengths[number]
        spread += member.output_sigma * self.trace.luck[index].output[number]
        return max(1, int(member.output_tokens * exp(spread)))

    def _mean_stream_s(self, member: Member, pace: float = 1.0) -> float:
        if member.tokens_per_s:
            tokens = member.output_tokens * exp(0.5 * (LENGTH_SIGMA**2 + member.output_sigma**2))
            return tokens / (member.tokens_per_s * pace)
        return member.stream_s * exp(0.5 * LENGTH_SIGMA**2)

    def spent(self, index: int, number: int) -> Spent:
        """What the answer takes, at the prices of now."""
        member, luck = self.members[index], self.trace.luck[index]
        factor = self.phases[index].price
        inputs = max(1, int(self.trace.body_bytes[number] * member.tokens_per_byte))
        cached = int(inputs * 2.0 * member.cached_share * luck.cached[number])
        if self.trace.body_bytes[number] > member.cached_from_bytes:
            cached = int(0.9 * inputs)
        outputs = self._output_tokens(index, number)
        usd = (
            (inputs - cached) * member.input_usd + cached * member.cached_usd + outputs * member.output_usd
        ) * (factor * 1e-6)
        return Spent(inputs, cached, outputs, usd)

    # --- what is expected of an attempt: for the oracle ---

    def best(self, number: int, now: float, tried: tuple[int, ...] = ()) -> int | None:
        """The member with the least expected time or cost for this request; None if all were tried.

        It knows all means, faults, limits and queues of this moment, but neither the future nor a draw.
        """
        left = [index for index in range(len(self.members)) if index not in tried]
        if not left:
            return None
        if self.trace.strategy == "cost":
            worth = self.trace.second_usd
            times = self._times(left, number, now) if worth else [0.0] * len(left)
            prices = [self.expected_usd(index, number) for index in left]
            values = [usd + worth * seconds for usd, seconds in zip(prices, times, strict=True)]
            return left[values.index(min(values))]
        if self.has_load or tried or self._has_sizes:
            return self._best_time(left, number, now)
        if self._best_known is None:
            self._best_known = self._best_time(left, number, now)
        return self._best_known

    def _best_time(self, left: list[int], number: int, now: float) -> int:
        values = self._times(left, number, now)
        return left[values.index(min(values))]

    def _times(self, left: list[int], number: int, now: float) -> list[float]:
        """With failover: one that fails costs its failing and then the best of the others. No hedging."""
        good_s = {index: self._good_s(index, number) for index in left}
        values = []
        for index in left:
            phase, member = self._phase(index, number), self.members[index]
            others = [good_s[other] for other in left if other != index]
            next_s = min(others) if others else TIMEOUT_S
            if member.limit and self._tokens_at(index, now) < self._needed(index, number):
                values.append(member.limit.error_s + next_s)
                continue
            bad, hung, mute = phase.error_rate + phase.empty_rate, phase.hang_rate, phase.mute_rate
            broken = phase.break_rate
            values.append(
                (1.0 - bad - hung - mute - broken) * good_s[index]
                + bad * (phase.error_s + next_s)
                + hung * (TIMEOUT_S + next_s)
                + mute * MUTE_S
                + broken * TIMEOUT_S
            )
        return values

    def _good_s(self, index: int, number: int) -> float:
        """Mean seconds to the first byte of a good answer, for one more request now.

        At a server with slots, including what it takes from those who come while it runs, or the oracle would
        be beaten by policies that spread more. In balance as many come in that time as are running (Little's
        law), and each is slower by ``mean * slow_when_full / slots``. What it adds to their waiting is the
        derivative of arrivals times mean wait by arrivals, with Sakasegawa's wait in a queue with c slots
        (1977), ``hold / c * rho ** (k - 1) / (1 - rho)`` where ``k = sqrt(2 * (c + 1))``; a tenth of it, as
        those who come see the slots as well and go elsewhere (the least time of the oracle itself).
        """
        mean_s = self._draw_factors[index] * self._median_s(index, number)
        if self.trace.strategy == "throughput":
            mean_s += self._mean_stream_s(self.members[index], self._phase(index, number).pace)
        server = self.members[index].server
        if server is None:
            return mean_s
        running, slots = self.running[index], server.slots
        slower = server.slow_when_full / slots
        own_s = mean_s * (1.0 + slower * min(running + 1, slots))
        hold_s = own_s + self._stream_means[index]
        if running >= slots:  # they come free at slots / hold a second, and those who wait go first
            own_s += (self.waiting[index] + 1) * hold_s / slots
        rho, k = running / (slots + 1), sqrt(2.0 * (slots + 1))
        queueing = rho ** (k - 1.0) / (1.0 - rho) * (k + rho / (1.0 - rho))
        return own_s + mean_s * slower * running + _HEEDED * hold_s / slots * queueing

    def expected_usd(self, index: int, number: int) -> float:
        """Mean USD of this request, knowing its size and nothing of its answer."""
        member = self.members[index]
        inputs = self.trace.body_bytes[number] * member.tokens_per_byte
        outputs = member.output_tokens * exp(0.5 * (LENGTH_SIGMA**2 + member.output_sigma**2))
        share = 0.9 if self.trace.body_bytes[number] > member.cached_from_bytes else member.cached_share
        usd = inputs * (member.input_usd - share * (member.input_usd - member.cached_usd))
        return (usd + outputs * member.output_usd) * self.phases[index].price * 1e-6

    def _tokens_at(self, index: int, now: float) -> float:
        limit = self.members[index].limit
        if limit is not None:
            gained = (now - self._tokens_s[index]) * limit.per_s
            self._tokens[index] = min(limit.burst, self._tokens[index] + gained)
            self._tokens_s[index] = now
        return self._tokens[index]
