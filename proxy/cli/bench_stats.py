"""The results of a load: counts, and times by percentile. Pure: times and chance are arguments.

Memory is bounded: of more than :data:`MAX_KEPT` times a random part is kept, of which percentiles are then
taken; up to that many they are exact, and the longest always is.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Sequence
from operator import add
from random import Random
from typing import Any, NamedTuple

from proxy.usage.tokens import Usage

MAX_KEPT = 1_000_000  # 8 MB each of three or four; a percentile of a thousandth is still of a thousand
PERCENTILES = (50.0, 90.0, 95.0, 99.0)
_GLANCE = 4000  # times from which a percentile is read between two requests without delaying the next
_MAX_REASONS = 50  # different ones: a message with a number in it may be as many as there are requests


class Durations:
    """Seconds of one kind."""

    __slots__ = ("_rng", "count", "kept", "most_s", "total_s")

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.kept = array("d")
        self.count = 0
        self.total_s = 0.0
        self.most_s = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.total_s += seconds
        self.most_s = max(self.most_s, seconds)
        if len(self.kept) < MAX_KEPT:
            self.kept.append(seconds)
        elif (place := self._rng.randrange(self.count)) < MAX_KEPT:  # Vitter's algorithm R
            self.kept[place] = seconds

    def glance(self, percent: float) -> float | None:
        """A percentile in little time, of a part of the times where they are many."""
        step = -(-len(self.kept) // _GLANCE) or 1
        return percentile(sorted(self.kept[::step]), percent)

    def summary_ms(self) -> dict[str, float] | None:
        """Percentiles, mean and longest; None: no time was taken."""
        if not self.count:
            return None
        ordered = sorted(self.kept)
        found = {f"p{percent:g}": percentile(ordered, percent) or 0.0 for percent in PERCENTILES}
        found |= {"max": self.most_s, "mean": self.total_s / self.count}
        return {name: round(seconds * 1000, 3) for name, seconds in found.items()}


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """A percentile by nearest rank: a time that was seen, with this share of all at or below it."""
    if not ordered:
        return None
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


class Outcome(NamedTuple):
    """The outcome of a request. ``took_s``: since it was due. ``reason``: of its failure, in a word or
    two; None: it succeeded. ``message``: the error's text."""

    took_s: float
    reason: str | None = None
    message: str = ""
    provider: str = ""
    model: str = ""
    first_s: float | None = None
    gateway_s: float | None = None  # what the gateway itself added, as it says
    usage: Usage | None = None
    is_simulated: bool = False
    has_failed_over: bool = False


class Results:
    """All outcomes so far."""

    def __init__(self, rng: Random) -> None:
        self.took, self.first, self.gaps, self.gateway = (Durations(rng) for _ in range(4))
        self.done = 0
        self.failed = 0
        self.simulated = 0
        self.failed_over = 0
        self.reasons: Counter[str] = Counter()
        self.messages: dict[str, str] = {}  # the first of each reason
        self.providers: Counter[str] = Counter()
        self.models: dict[str, Usage] = {}

    def add(self, outcome: Outcome) -> None:
        """Failed requests count as such, and their times nowhere: an error is mostly quick."""
        self.done += 1
        self.simulated += outcome.is_simulated
        self.failed_over += outcome.has_failed_over
        if outcome.provider:
            self.providers[outcome.provider] += 1
        if outcome.reason is not None:
            self._failed(outcome.reason, outcome.message)
            return
        self.took.add(outcome.took_s)
        if outcome.first_s is not None:
            self.first.add(outcome.first_s)
        if outcome.gateway_s is not None:
            self.gateway.add(outcome.gateway_s)
        if outcome.usage is not None:
            self.models[outcome.model] = _sum(self.models.get(outcome.model, Usage()), outcome.usage)

    def _failed(self, reason: str, message: str) -> None:
        self.failed += 1
        if reason not in self.reasons and len(self.reasons) >= _MAX_REASONS:
            reason = "others"
        self.reasons[reason] += 1
        self.messages.setdefault(reason, message)

    def tokens(self) -> dict[str, int] | None:
        """The sum over all models; None: no response reported tokens."""
        if not self.models:
            return None
        total = Usage()
        for usage in self.models.values():
            total = _sum(total, usage)
        return {
            "input": total.input_tokens,
            "cached": total.cached_tokens,
            "output": total.output_tokens,
            "reasoning": total.reasoning_tokens,
        }

    def summary(self, elapsed_s: float) -> dict[str, Any]:
        """As a JSON value; times in milliseconds."""
        return {
            "requests": self.done,
            "failed": self.failed,
            "failures": [
                {"reason": reason, "count": count, "message": self.messages[reason]}
                for reason, count in self.reasons.most_common()
            ],
            "elapsed_s": round(elapsed_s, 3),
            "requests_per_s": round(self.done / elapsed_s, 3) if elapsed_s > 0 else 0.0,
            "latency_ms": self.took.summary_ms(),
            "ttft_ms": self.first.summary_ms(),
            "gap_ms": self.gaps.summary_ms(),
            "gateway_ms": self.gateway.summary_ms(),
            "tokens": self.tokens(),
            "providers": dict(self.providers.most_common()),
            "failed_over": self.failed_over,
            "simulated": self.simulated,
        }


def _sum(one: Usage, other: Usage) -> Usage:
    before, cached, written, output, reasoning, _, heard, spoken = map(add, one.counts(), other.counts())
    is_estimated = one.estimated or other.estimated
    return Usage(before, cached, written, output, reasoning, is_estimated, heard, spoken)
