"""The budget of attempts at what fails: a share of live traffic, so that an outage can't multiply the load.

Going on to a healthy member needs none: that is what it is there for. A retry or a fallback at a member that
is failing, and a hedge, is allowed while ``R + 1 <= FLOOR + share * D``, with R the further attempts
and D the requests of about the last ten seconds (decayed sums). The floor lets a burst of failures through
that comes out of quiet. Finagle's RetryBudget and Envoy's retry budgets are the same idea; theirs are a token
bucket and a share of the requests in flight.

What follows a client's own time limit has a budget of its own, of the same size: a client that gives every
attempt a hundredth of a second must not use up what others need in an outage.

**Keys.** Some bodies make every member answer 500, so a key could use up the budget alone. A key may take
what its own requests brought, and half of what is left of the rest (the floor, and what the others' requests
brought, without what those have taken):

    r + 1 <= share * d + (FLOOR + share * (D - d) - (R - r)) / 2

with ``r`` and ``d`` the key's own of ``R`` and ``D``. So in an outage keys share what there is, by their
traffic, and a key for itself can never take it all. While nobody else asks, nobody can be hurt, and all of it
is that key's. Requests without a key count as others, and have no bound of their own.
"""

from __future__ import annotations

from typing import Final

from proxy.deployments.decay import DecayedSum

TAU_S: Final = 10.0
FLOOR: Final = 10.0
# Below it, others' requests of late are no traffic.
_QUIET: Final = 0.5


class Share:
    """The deposits and withdrawals of one key."""

    __slots__ = ("of_clients", "requests", "retries")

    def __init__(self) -> None:
        self.requests = DecayedSum(TAU_S)
        self.retries = DecayedSum(TAU_S)
        self.of_clients = DecayedSum(TAU_S)

    def taken(self, is_clients: bool) -> DecayedSum:
        """The further attempts, those after a client's own time limit or the others."""
        return self.of_clients if is_clients else self.retries

    def __repr__(self) -> str:
        return f"<Share {self.requests!r} {self.retries!r} {self.of_clients!r}>"


class RetryBudget:
    """The budget of all requests of this process.

    :param share: further attempts per request, such as 0.2.
    """

    __slots__ = ("_all", "_told_at", "share")

    def __init__(self, share: float) -> None:
        self.share = share
        self._all = Share()
        self._told_at = float("-inf")

    def count_request(self, now: float, own: Share | None = None) -> None:
        """A request came. ``now``: monotonic seconds. ``own``: of its key; None: it has none."""
        self._all.requests.add(1.0, now)
        if own is not None:
            own.requests.add(1.0, now)

    def is_left(self, now: float, own: Share | None = None, *, is_clients: bool = False) -> bool:
        """Return whether one more attempt is within the budget.

        :param own: of the request's key; None: it has none.
        :param is_clients: it follows a client's own time limit.
        """
        share, requests = self.share, self._all.requests.read(now)
        taken = self._all.taken(is_clients).read(now)
        if taken + 1.0 > FLOOR + share * requests:
            return False
        if own is None:
            return True
        brought = own.requests.read(now)
        others = requests - brought
        if others < _QUIET:
            return True
        own_taken = own.taken(is_clients).read(now)
        rest = FLOOR + share * others - max(taken - own_taken, 0.0)
        return own_taken + 1.0 <= share * brought + rest / 2.0

    def tells(self, now: float) -> bool:
        """Return whether a refusal is to be logged: one in as long as the budget looks back."""
        if now - self._told_at < TAU_S:
            return False
        self._told_at = now
        return True

    def take(self, now: float, own: Share | None = None, *, is_clients: bool = False) -> bool:
        """Spend one further attempt; False if the budget is used up."""
        if not self.is_left(now, own, is_clients=is_clients):
            return False
        self._all.taken(is_clients).add(1.0, now)
        if own is not None:
            own.taken(is_clients).add(1.0, now)
        return True

    def __repr__(self) -> str:
        return f"<RetryBudget share={self.share} {self._all!r}>"
