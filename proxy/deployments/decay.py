"""A sum whose past fades, and a mean made of two: success ratios, the retry budget, figures for people.

What choices by latency and cost go by fades otherwise: :mod:`proxy.deployments.latency_estimate`,
:class:`proxy.deployments.cost_estimate.CostEstimate`.

Why this and not a plain EWMA per sample: requests come at any pace, so the weight of the past has to depend
on time and not on how many samples followed. And why the mean has a prior: as the weights fade, what is read
drifts back to what the caller believes without samples, which covers cold start, long idleness and recovery
in one formula (DESIGN section 4).

    on a sample x at now:   S <- S * exp(-(now - t) / tau) + x;   t <- now
    read at now:            (S * f + k * prior) / (W * f + k)     with f = exp(-(now - t) / tau)

Reading never writes: a table may be read by anyone at any time. A clock that steps back a little (samples of
several readers of one loop iteration) counts as no time passed; the stamp never goes back.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

_LN2: Final = log(2.0)
# Below a millisecond a half-life means "forget everything at once", and dividing by it could overflow.
_MIN_HALF_LIFE_S: Final = 1e-3


def tau_from(half_life_s: float) -> float:
    """The time constant in seconds of exp(-t/tau) for a half-life in seconds."""
    return max(half_life_s, _MIN_HALF_LIFE_S) / _LN2


class DecayedSum:
    """A sum whose terms lose half their weight every half-life.

    :param tau_s: time constant in seconds (see :func:`tau_from`), above 0.
    """

    __slots__ = ("stamp_s", "tau_s", "value")

    def __init__(self, tau_s: float) -> None:
        self.value = 0.0
        self.stamp_s = 0.0
        self.tau_s = tau_s

    def add(self, x: float, now: float) -> None:
        """Add ``x`` at ``now`` (monotonic seconds)."""
        age = now - self.stamp_s
        if age > 0.0:
            self.value = self.value * exp(-age / self.tau_s) + x
            self.stamp_s = now
        else:
            self.value += x

    def read(self, now: float) -> float:
        """The sum as it has faded by ``now``."""
        age = now - self.stamp_s
        return self.value * exp(-age / self.tau_s) if age > 0.0 else self.value

    def __repr__(self) -> str:
        return f"<DecayedSum {self.value:.6g} at {self.stamp_s:.3f} tau {self.tau_s:.1f}>"


class DecayedMean:
    """A decayed sum of values over a decayed sum of weights: a mean, or a ratio of sums.

    For a plain mean each sample has weight 1. For a quantity per token or byte the value is the numerator and
    the weight the denominator (``add(seconds, now, tokens)``), so that long answers count for what they are:
    a ratio of sums and not a mean of ratios.

    :param tau_s: time constant in seconds (see :func:`tau_from`), above 0.
    """

    __slots__ = ("stamp_s", "tau_s", "total", "weight")

    def __init__(self, tau_s: float) -> None:
        self.total = 0.0
        self.weight = 0.0
        self.stamp_s = 0.0
        self.tau_s = tau_s

    def add(self, value: float, now: float, weight: float = 1.0) -> None:
        """Count a sample at ``now`` (monotonic seconds); one without weight says nothing and is left out."""
        if weight <= 0.0:
            return
        age = now - self.stamp_s
        if age > 0.0:
            fade = exp(-age / self.tau_s)
            self.total = self.total * fade + value
            self.weight = self.weight * fade + weight
            self.stamp_s = now
        else:
            self.total += value
            self.weight += weight

    def read(self, now: float, prior: float, k: float = 1.0) -> float:
        """The mean at ``now``, drawn towards ``prior`` as if that had been seen with weight ``k`` > 0."""
        age = now - self.stamp_s
        fade = exp(-age / self.tau_s) if age > 0.0 else 1.0
        return (self.total * fade + k * prior) / (self.weight * fade + k)

    def weight_at(self, now: float) -> float:
        """Return the weight of the samples at ``now``, to be compared with the prior's ``k``."""
        age = now - self.stamp_s
        return self.weight * exp(-age / self.tau_s) if age > 0.0 else self.weight

    def mean(self) -> float | None:
        """The mean of the samples alone, None before the first. Fading cancels out, so it needs no clock."""
        return self.total / self.weight if self.weight else None

    def __repr__(self) -> str:
        return f"<DecayedMean {self.total:.6g}/{self.weight:.6g} at {self.stamp_s:.3f} tau {self.tau_s:.1f}>"
