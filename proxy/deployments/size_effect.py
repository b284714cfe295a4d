"""The effect of a prompt's size on the time to the first output: a line through relative times.

A provider reads the prompt before it writes, so a long one takes longer, at each member by a slope of its
own. One number a member takes that for slowness of the member: 25 to 29 % regret where slopes differ, and a
long prompt counts as silence.

A regression of the time, relative to what the level explains, on the bytes of the prompt. Spread is in
proportion to the time, so a sample weighs ``1 / factor ** 2`` (weighted least squares), or the few longest
prompts would say everything. It counts from three standard errors on: below, a slope is noise, and one of
noise hurts where it is extrapolated to, at the longest prompts. Where most of a prompt comes from a cache,
its size says little, and the slope of those few that do not would be taken for all: nothing is learned
there.

The level itself is learned from the same samples. While it is young, times relative to it say what the first
prompts happened to be, so the first hundred samples are compared with each other. And as the level is that of
the usual size, it moves when that does.
"""

from __future__ import annotations

from typing import Final

# Samples that the line remembers, and from how many on it counts.
_SAMPLES: Final = 500.0
_SEEN: Final = 20.0
# From this many samples on the level is old enough to compare with.
_OWN_LEVEL: Final = 100.0
# Nine: three standard errors.
_SIGNIFICANT: Final = 9.0
# No prompt is trusted to be quicker than this share of the usual one's time.
_LEAST_FACTOR: Final = 0.1
# A time that is longer than expected by more than this factor counts as this one.
_WILD: Final = 6.0
# With more of the prompts cached, size says nothing.
MOSTLY_CACHED: Final = 0.3


class SizeEffect:
    """The line of one row. ``slope``: of the relative time, per byte; 0 where none is proven.

    ``usual_bytes``: the size at which the factor is 1.
    """

    __slots__ = ("_both", "_bytes_var", "_mean", "_time_var", "_weight", "count", "slope", "usual_bytes")

    def __init__(self) -> None:
        self.count = 0.0
        self.slope = 0.0
        self.usual_bytes = 0.0
        self._weight = self._mean = self._bytes_var = self._time_var = self._both = 0.0

    def factor(self, prompt_bytes: int) -> float:
        """Return the time of a prompt of that size over that of a usual one."""
        factor = 1.0 + self.slope * (prompt_bytes - self.usual_bytes)
        return factor if factor > _LEAST_FACTOR else _LEAST_FACTOR

    def least_factor(self, prompt_bytes: int) -> float:
        """The least that a short prompt's time may be over a usual one's: in proportion to the size, while no
        slope could show yet."""
        usual = self.usual_bytes
        if self.slope or self.count > _SEEN or prompt_bytes >= usual:
            return 1.0
        share = prompt_bytes / usual
        return share if share > _LEAST_FACTOR else _LEAST_FACTOR

    def add(self, seconds: float, expected_s: float, prompt_bytes: int) -> float:
        """A first output came after ``seconds``, where ``expected_s`` are expected at the usual size.

        :returns: the factor by which more is expected from now on, as the usual size has moved.
        """
        self.count += 1.0
        if self.count == _OWN_LEVEL and self._mean:
            self._both /= self._mean
            self._time_var /= self._mean * self._mean
            self._mean = 1.0
        factor, before = self.factor(prompt_bytes), self.usual_bytes
        relative = seconds if self.count < _OWN_LEVEL else seconds / expected_s
        if self._mean:
            relative = min(relative, _WILD * factor * self._mean)
        weight = 1.0 / (factor * factor)
        keep = 1.0 - 1.0 / min(self.count, _SAMPLES)
        self._weight = keep * self._weight + weight
        share = weight / self._weight
        rest = 1.0 - share
        off, late = prompt_bytes - before, relative - self._mean
        self.usual_bytes = before + share * off
        moved = max(1.0 + self.slope * share * off, _LEAST_FACTOR)
        self._mean += share * late
        self._bytes_var = bytes_var = rest * (self._bytes_var + share * off * off)
        self._time_var = time_var = rest * (self._time_var + share * late * late)
        self._both = both = rest * (self._both + share * off * late)
        left_var = time_var * bytes_var - both * both  # what the line leaves of the variance
        is_proven = (
            both > 0.0
            and self.count > _SEEN
            and both * both * min(self.count, _SAMPLES) > _SIGNIFICANT * left_var
        )
        self.slope = both / (bytes_var * self._mean) if is_proven else 0.0
        return moved

    def __repr__(self) -> str:
        return f"<SizeEffect {self.slope:.3g} a byte from {self.usual_bytes:.0f} bytes>"
