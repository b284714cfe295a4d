"""The expected latency of a member: first-byte times as a level that drifts, jumps and rises under load.

Three rules, each on logarithms of seconds, because these times are spread log-normally and what happens to
them multiplies them:

**Drift.** A Kalman filter of one number (Kalman 1960): the level wanders by ``DRIFT`` of variance a half-life
and a sample is off by ``noise``. So the filter weighs a new sample by what it is worth at this pace: at ten a
second it averages over seconds, at three a minute over minutes, and an unseen member grows uncertain and is
not forgotten. A mean with a fixed half-life of 30 s forgets nearly everything between two requests at 0.05 a
second.

**Jumps.** A sample that the level can't explain begins a run, with the odds that the member has changed since
the sample before; each further one multiplies them by its likelihood under the run's own level over that
under the old one. That is Page's test (1954) with Bayes' odds as its threshold: over 1, the old history is
dropped for the run's. Some answers are simply slow (``SLOW_OUTLIERS``), so one never condemns; hardly any is
fast by accident, so that a single one brings a member back that was seen to slow down. A mean alone takes
tens of samples.

**Load.** Whether times grow with the requests in flight is learned from the samples: a regression, used only
while it is significant, so that a hosted member, which doesn't slow down, is not spared. In flight and not
awaiting, as streams that run slow a server down too: regret with servers of one's own 9.2 % against 15.6 %
at 5 requests a second, 11.3 % against 13.0 % at 50, 8.6 % against 9.5 % at 500 (two seeds, all else equal).
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Final

# Variance by which the logarithm wanders in a half-life: a tenth of the speed, up or down.
DRIFT: Final = 0.01
# What one doesn't know of a member that was long unseen: a factor of e. Members differ by no more.
MAX_DOUBT: Final = 1.0
# Spread of single answers before it was seen (a factor of 1.8), and what that weighs, in samples.
_START_NOISE: Final = 0.35
_NOISE_PRIOR: Final = 10.0
_NOISE_SAMPLES: Final = 100.0
_MIN_NOISE: Final = 0.05
# The most variances that a sample counts as, so that an outlier doesn't move the level by itself.
_MAX_SQUARE: Final = 6.0
# Below that, a sample is no reason to ask whether something changed.
_SUSPICIOUS: Final = 4.0
# Shares of answers that are slow (fast) for no reason, and the variance of such.
SLOW_OUTLIERS: Final = 0.02
FAST_OUTLIERS: Final = 0.005
_OUTLIER_VAR: Final = 4.0
# Variance of a jump: as that of an outlier, so that the odds of the two do not depend on how far it goes.
_JUMP_VAR: Final = 4.0
# If this many samples don't prove a jump, drift follows whatever there is.
_MAX_RUN: Final = 4
# The best member changes every other day: 5,760 half-lives of 30 s. (Six hours cost 14.6 % regret against
# 9.9 % at 0.05 requests a second where nothing changed.) Faults begin every few hours, 720 half-lives.
STABLE_HALF_LIVES: Final = 5760.0
_FAULT_HALF_LIVES: Final = 720.0
# One that has just changed is likelier to change again: the time to come is about that gone by (Gott 1993),
# at first a minute; and half of it for a fault, which somebody mends.
_RESTLESS_HALF_LIVES: Final = 2.0
_FAULT_SHARE: Final = 0.5
# Several samples may come at one instant.
_MIN_AGE_S: Final = 0.01
_MIN_S: Final = 1e-4
# Samples in the regression: a queue fills and empties within fewer.
_LOAD_SAMPLES: Final = 500.0
_LOAD_SEEN: Final = 10.0
# It counts from two standard errors on.
_SIGNIFICANT: Final = 4.0
# An idle server is not trusted to be faster than it ever was: extrapolation ends here.
_LEAST_SHARE: Final = 0.3
_WILD: Final = 8.0


class LatencyEstimate:
    """The filter of one row. ``mean_s``: expected first byte, at the usual load; 0 before the first sample.

    ``count``: samples; ``changed_s``: since when it is as it is; ``slope``: relative slowdown per request in
    flight, 0 where none is proven; ``usual_level``: the mean of requests in flight.

    :param half_life_s: how fast changes are believed, in seconds.
    """

    __slots__ = (
        "_covariance", "_half_life_s", "_level_var", "_odds", "_run", "_run_count", "_stamp_s", "_time_s",
        "_time_var", "changed_s", "count", "doubt", "drift", "level", "mean_s", "noise", "slope",
        "usual_level",
    )  # fmt: skip

    def __init__(self, half_life_s: float) -> None:
        self.retune(half_life_s)
        self.count = 0.0
        self.mean_s = 0.0
        self.level = 0.0
        self.noise = _START_NOISE
        self.doubt = MAX_DOUBT
        self.changed_s = 0.0
        self._stamp_s = 0.0
        self._odds = 0.0
        self._run = self._run_count = 0.0
        self.slope = 0.0
        self.usual_level = self._level_var = self._time_s = self._time_var = self._covariance = 0.0

    def retune(self, half_life_s: float) -> None:
        """Follow a changed ``half_life``; what was learned stays."""
        self._half_life_s = max(half_life_s, 1e-3)
        self.drift = DRIFT / self._half_life_s

    def add(self, seconds: float, now: float, in_flight: int | None = None) -> None:
        """A first byte came after ``seconds``, at ``now``.

        :param in_flight: others in flight when it was asked; None: the load teaches nothing here (it was not
            answered).
        """
        self.count += 1.0
        if in_flight is not None:
            factor = self.load_factor(in_flight) if self.slope else 1.0
            self._learn_load(in_flight, seconds)
            seconds /= factor
        x = log(seconds) if seconds > _MIN_S else log(_MIN_S)
        noise = self.noise
        if not self.mean_s:
            self.level, self.doubt, self._stamp_s = x, noise, now
            self.changed_s = now - STABLE_HALF_LIVES * self._half_life_s
            self.mean_s = exp(x + 0.5 * noise)
            return
        age = now - self._stamp_s
        doubt = self.doubt
        if age > 0.0:
            doubt = min(doubt + self.drift * age, MAX_DOUBT)
            self._stamp_s = now
        off = x - self.level
        var = doubt + noise
        square = off * off
        if (self._odds or square > _SUSPICIOUS * var) and self._has_jumped(x, square, var, age, now):
            return
        if square > _MAX_SQUARE * var:
            off *= sqrt(_MAX_SQUARE * var / square)
            square = _MAX_SQUARE * var
        gain = doubt / var
        self.level += gain * off
        self.doubt = doubt - gain * doubt
        samples = min(self.count + _NOISE_PRIOR, _NOISE_SAMPLES)
        self.noise = noise = max(_MIN_NOISE, noise + (square - var) / samples)
        self.mean_s = exp(self.level + 0.5 * noise)

    def scale(self, factor: float) -> None:
        """Expect ``factor`` times as much from now on: what is expected has been defined anew."""
        if self.mean_s and factor > 0.0:
            self.level += log(factor)
            self.mean_s *= factor

    def typical_s(self) -> float | None:
        """For people: the median of the first-byte times, at the usual load; None before the first."""
        return exp(self.level) if self.mean_s else None

    def doubt_at(self, now: float) -> float:
        """Variance of the level as known at ``now``."""
        doubt = self.doubt + self.drift * (now - self._stamp_s)
        return doubt if doubt < MAX_DOUBT else MAX_DOUBT

    def lasts_s(self, now: float) -> float:
        """For how many seconds it probably stays as it is."""
        since_s = now - self.changed_s
        is_fault = since_s < STABLE_HALF_LIVES * self._half_life_s
        return _FAULT_SHARE * since_s if is_fault else since_s

    def load_factor(self, in_flight: int) -> float:
        """Return the factor by which others in flight slow a response down."""
        factor = 1.0 + self.slope * (in_flight - self.usual_level)
        return factor if factor > _LEAST_SHARE else _LEAST_SHARE

    def is_overdue(self, seconds: float, unanswered: int) -> bool:
        """Return whether ``seconds`` without a response, to that many requests in a row, are no accident.

        One must be three deviations late; with more of them less is enough. Two thirds, as the later ones
        have waited less. Before the first response, one of a second is taken to be the usual.
        """
        if seconds <= self.mean_s:
            return False
        late = log(seconds) - self.level
        return late > 0.0 and late * late * max(1.0, 0.67 * unanswered) > 9.0 * self.noise

    def _has_jumped(self, x: float, square: float, var: float, age: float, now: float) -> bool:
        odds, noise = self._odds, self.noise
        wild_var = _OUTLIER_VAR + var
        wild = (SLOW_OUTLIERS if x > self.level else FAST_OUTLIERS) * exp(-0.5 * square / wild_var)
        wild /= sqrt(wild_var)
        as_before = exp(-0.5 * square / var) / sqrt(var) + wild
        if odds:
            off = x - self._run / self._run_count
            run_var = noise * (1.0 + 1.0 / self._run_count)
            as_run = exp(-0.5 * off * off / run_var) / sqrt(run_var) + wild
        else:
            self._run = self._run_count = 0.0
            half_life_s = self._half_life_s
            since_s = min(now - self.changed_s, _FAULT_HALF_LIVES * half_life_s)
            odds = (max(age, 0.0) + _MIN_AGE_S) / (since_s + _RESTLESS_HALF_LIVES * half_life_s)
            run_var = _JUMP_VAR + noise
            as_run = exp(-0.5 * square / run_var) / sqrt(run_var)
        odds *= as_run / as_before
        self._run += x
        self._run_count += 1.0
        if odds <= 1.0:
            self._odds = odds if odds > 1e-5 and self._run_count < _MAX_RUN else 0.0
            return False
        self.level = self._run / self._run_count
        self.doubt = noise / self._run_count
        self.changed_s = now
        self._odds = 0.0
        self.mean_s = exp(self.level + 0.5 * noise)
        return True

    def _learn_load(self, in_flight: int, seconds: float) -> None:
        count = min(self.count, _LOAD_SAMPLES)
        share = 1.0 / count
        keep = 1.0 - share
        if self.mean_s and seconds > _WILD * self.mean_s:
            seconds = _WILD * self.mean_s
        off = in_flight - self.usual_level
        late_s = seconds - self._time_s
        self.usual_level += share * off
        self._time_s += share * late_s
        self._level_var = level_var = keep * (self._level_var + share * off * off)
        self._time_var = keep * (self._time_var + share * late_s * late_s)
        self._covariance = both = keep * (self._covariance + share * off * late_s)
        is_proven = (
            both > 0.0
            and count > _LOAD_SEEN
            and both * both * min(self.count, 2.0 * _LOAD_SAMPLES) > _SIGNIFICANT * level_var * self._time_var
        )
        self.slope = both / (level_var * self._time_s) if is_proven else 0.0

    def __repr__(self) -> str:
        known = f"noise {self.noise:.3f} doubt {self.doubt:.3f} slope {self.slope:.3g}"
        return f"<LatencyEstimate {self.mean_s:.6g} s {known}>"
