"""The time after which a silent request has a second member asked beside it (``hedge = "auto"``).

    exp(mean + 3 sd) of the logarithms of the member's last 100 answered times, at least 0.5 s

Times to the first output are spread log-normally, so that one answer in 700 is later by chance: such a
hedge costs next to nothing where all is well, and a client of a member that hangs waits seconds and not until
the time-out. Only answers count. The times of attempts that were left for a quicker one would raise the
threshold with each hedge, until the waits are back at a minute (seen in a prototype).

A member that is believed to answer later than that, while another is quicker, is asked to see whether it is
back: then it answers as before, and within ``exp(mean + 1 sd)`` five times out of six. Such a probe of a
brown-out costs its client half a second and not two: regret in brown-outs 2.2 to 5.3 % against 3.6 to 7.2.

With fewer than ten answers of a member the pool's together count; with fewer than ten of these 10 s. Times
are those of a prompt of the usual size, and a long prompt is given more
(:mod:`proxy.deployments.size_effect`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Final, Protocol

from proxy.deployments.latency_estimate import LatencyEstimate
from proxy.deployments.size_effect import SizeEffect

_KEPT: Final = 100
_ENOUGH: Final = 10
_DEVIATIONS: Final = 3.0
_DEVIATIONS_OF_LATE: Final = 1.0
# 99 % of a normal distribution are below. ``first_token = "p99"`` is three times that, at least two seconds.
_DEVIATIONS_OF_99: Final = 2.33
_MOST_TIMES: Final = 3.0
_LEAST_MOST_S: Final = 2.0
LEAST_S: Final = 0.5
UNKNOWN_S: Final = 10.0
_MIN_S: Final = 1e-4


class AnsweredTimes:
    """The logarithms of the latest answered times, with their sums, so that reading takes no loop."""

    __slots__ = ("_latest", "squares", "total")

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self.total = 0.0
        self.squares = 0.0

    @property
    def count(self) -> int:
        """Times kept."""
        return len(self._latest)

    def add(self, seconds: float) -> None:
        """A first output came, after ``seconds`` at the usual size of prompt."""
        x = log(seconds) if seconds > _MIN_S else log(_MIN_S)
        latest = self._latest
        latest.append(x)
        self.total += x
        self.squares += x * x
        if len(latest) > _KEPT:
            old = latest.popleft()
            self.total -= old
            self.squares -= old * old

    def __repr__(self) -> str:
        return f"<AnsweredTimes {threshold_s(self.count, self.total, self.squares):.3g} s of {self.count}>"


class Answering(Protocol):
    """What is needed of a row."""

    @property
    def answered(self) -> AnsweredTimes: ...

    @property
    def size(self) -> SizeEffect: ...

    @property
    def speed(self) -> LatencyEstimate: ...


def escape_s(row: Answering, prompt_bytes: int, others: Sequence[Answering] = ()) -> float:
    """Return after how many seconds without output a second member should be asked.

    :param row: of the member that is asked.
    :param prompt_bytes: as of :class:`proxy.deployments.record.Record`; 0: unknown.
    :param others: the rows of its pool, used while the member's own answers are too few.
    """
    seconds = _within_s(row, prompt_bytes, others, _DEVIATIONS)
    expected_s, size = row.speed.mean_s, row.size
    if size.slope and prompt_bytes:
        expected_s *= size.factor(prompt_bytes)
    if expected_s > seconds and any(0.0 < other.speed.mean_s < row.speed.mean_s for other in others):
        seconds = _within_s(row, prompt_bytes, others, _DEVIATIONS_OF_LATE)
    return max(seconds, LEAST_S)


def usual_most_s(row: Answering, prompt_bytes: int, others: Sequence[Answering] = ()) -> float:
    """Return three times the seconds in which 99 % of the member's answers showed output, at least 2 s; the
    parameters are those of :func:`escape_s`."""
    return max(_MOST_TIMES * _within_s(row, prompt_bytes, others, _DEVIATIONS_OF_99), _LEAST_MOST_S)


def _within_s(row: Answering, prompt_bytes: int, others: Sequence[Answering], deviations: float) -> float:
    own = row.answered
    if own.count >= _ENOUGH:
        seconds = threshold_s(own.count, own.total, own.squares, deviations)
        size = row.size
        return seconds * size.factor(prompt_bytes) if prompt_bytes and size.slope else seconds
    count, total, squares = 0, 0.0, 0.0
    for other in others:
        answered = other.answered
        count += answered.count
        total += answered.total
        squares += answered.squares
    return threshold_s(count, total, squares, deviations) if count >= _ENOUGH else UNKNOWN_S


def threshold_s(count: int, total: float, squares: float, deviations: float = _DEVIATIONS) -> float:
    """Return the time that chance explains, of ``count`` logarithms with their sums."""
    if not count:
        return UNKNOWN_S
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    return exp(mean + deviations * sqrt(variance))
