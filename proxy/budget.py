"""How many further attempts live traffic may cause: a share of it, so that an outage can't multiply the load.

A retry, a fallback or a hedge is allowed while ``R + 1 <= FLOOR + share * D``, with R the further attempts
and D the requests of about the last ten seconds (decayed sums). The floor lets a burst of failures through
that comes out of quiet. Finagle's RetryBudget and Envoy's retry budgets are the same idea; theirs are a token
bucket and a share of the requests in flight.
"""

from __future__ import annotations

from typing import Final

from proxy.decay import DecayedSum

TAU_S: Final = 10.0
FLOOR: Final = 10.0


class RetryBudget:
    """See the module's text.

    :param share: further attempts per request, such as 0.2.
    """

    __slots__ = ("_requests", "_retries", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._requests = DecayedSum(TAU_S)
        self._retries = DecayedSum(TAU_S)

    def count_request(self, now: float) -> None:
        """A request came. ``now``: monotonic seconds."""
        self._requests.add(1.0, now)

    def is_left(self, now: float) -> bool:
        """Whether one more attempt is within the budget."""
        return self._retries.read(now) + 1.0 <= FLOOR + self.share * self._requests.read(now)

    def take(self, now: float) -> bool:
        """Spend one further attempt; False if there is none left."""
        if not self.is_left(now):
            return False
        self._retries.add(1.0, now)
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget share={self.share} requests={self._requests!r} retries={self._retries!r}>"
