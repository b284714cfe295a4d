"""How many further attempts live traffic may cause: a share of it, so that an outage can't multiply the load.

A retry, a fallback or a hedge is allowed while ``R + 1 <= FLOOR + share * D``, with R the further attempts
and D the requests of about the last ten seconds (decayed sums). The floor lets a burst of failures through
that comes out of quiet. Finagle's RetryBudget and Envoy's retry budgets are the same idea; theirs are a token
bucket and a share of the requests in flight.

What follows a client's own time limit has a budget of its own, of the same size: a client that gives every
attempt a hundredth of a second must not use up what others need in an outage.
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

    __slots__ = ("_of_clients", "_requests", "_retries", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._requests = DecayedSum(TAU_S)
        self._retries = DecayedSum(TAU_S)
        self._of_clients = DecayedSum(TAU_S)  # further attempts after a client's own limit

    def count_request(self, now: float) -> None:
        """A request came. ``now``: monotonic seconds."""
        self._requests.add(1.0, now)

    def is_left(self, now: float, *, is_clients: bool = False) -> bool:
        """Whether one more attempt is within the budget.

        :param is_clients: it follows a client's own time limit.
        """
        taken = self._of_clients if is_clients else self._retries
        return taken.read(now) + 1.0 <= FLOOR + self.share * self._requests.read(now)

    def take(self, now: float, *, is_clients: bool = False) -> bool:
        """Spend one further attempt; False if there is none left."""
        if not self.is_left(now, is_clients=is_clients):
            return False
        (self._of_clients if is_clients else self._retries).add(1.0, now)
        return True

    def __repr__(self) -> str:
        return (
            f"<RetryBudget share={self.share} requests={self._requests!r} retries={self._retries!r} "
            f"of_clients={self._of_clients!r}>"
        )
