"""The share of failures over the last several hundred requests: for telling 99.9 from 98 %.

A memory in seconds can't: at one request a second 43 s hold no more than one failure of a member that fails
with one in fifty. This one is in requests, and besides fades within an hour or so of quiet, so that a member
that was left for its failures is asked again in the end. And it ends at once when as many requests in a row
succeed as the share of failures can't explain: a fault is over, while a member that is a little worse stays
known for it.
"""

from __future__ import annotations

from math import exp, sqrt
from typing import Final

# Requests that are remembered, as a time constant.
REQUESTS: Final = 500.0
# Half-lives after which what was seen has faded: an hour, at 30 s.
HALF_LIVES: Final = 120.0
# As if that many requests had succeeded before.
PRIOR: Final = 10.0
# Failures that would have been expected within a run of successes, for the fault to be over: chance leaves
# out four with 2 %.
_OVER: Final = 4.0
# Fading is worked out no more often than this share of its time constant.
_STEP: Final = 0.001


class Reliability:
    """Failures and requests of one row, both fading.

    :param tau_s: time constant of what fades in quiet, in seconds.
    """

    __slots__ = ("failures", "requests", "run", "stamp_s", "tau_s")

    def __init__(self, tau_s: float) -> None:
        self.failures = 0.0
        self.requests = 0.0
        self.run = 0.0  # of successes
        self.stamp_s = 0.0
        self.tau_s = tau_s

    def add(self, failures: float, requests: float, now: float) -> None:
        """Count ``requests`` that ended, ``failures`` of them badly, at ``now``."""
        keep = 1.0 - requests / REQUESTS if requests < 0.5 * REQUESTS else 0.5
        age = now - self.stamp_s
        if age > _STEP * self.tau_s:
            keep *= exp(-age / self.tau_s)
            self.stamp_s = now
        self.failures = self.failures * keep + failures
        self.requests = self.requests * keep + requests
        if failures:
            self.run = 0.0
        elif self.failures:
            self.run += requests
            if self.failures * self.run > _OVER * (self.requests + PRIOR):
                self.failures, self.requests = 0.0, self.run

    def share(self, now: float) -> float:
        """The share of requests that fail, drawn towards none."""
        fade = self._fade(now)
        return self.failures * fade / (self.requests * fade + PRIOR)

    def least_share(self, now: float) -> float:
        """The same less one standard deviation: what it may well be."""
        if not self.failures:
            return 0.0
        fade = self._fade(now)
        requests = self.requests * fade + PRIOR
        share = self.failures * fade / requests
        least = share - sqrt(share / requests)
        return least if least > 0.0 else 0.0

    def _fade(self, now: float) -> float:
        age = now - self.stamp_s
        return exp(-age / self.tau_s) if age > 0.0 else 1.0

    def __repr__(self) -> str:
        return f"<Reliability {self.failures:.3g} of {self.requests:.4g} failed>"
