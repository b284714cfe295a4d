"""The deployment that is asked after one that failed, and when a request may fail over at all.

The rules, which docs/failover.md has for users:

- The commit point is the first body byte sent to the client. Before it an attempt may be replaced, after it
  never: no second provider is spliced into a started answer.
- Each attempt goes to another member. A pool gives at most ``max_attempts``; each pool named by
  ``X-Inferoute-Fallback`` is a pool of its own. A pinned name has only the latter.
- The whole chain has ``max_attempts`` times the limit of one attempt (as often as pools are named, where
  that is more), and every attempt but the first needs the retry budget.
- A kept connection that closed as it was used again is dialled anew: that is part of the attempt, and told
  before it.
- What failed with a response of its own, and is followed by nothing, passes that answer on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import NamedTuple

from proxy.deployments.deployment import Deployment
from proxy.deployments.row import Row
from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool
from proxy.routing.retry_budget import RetryBudget, Share
from proxy.routing.strategy import choose


class Failure(NamedTuple):
    """A failed attempt, for people: ``outcome`` is a status or a word, ``took_s`` seconds from its start;
    ``redial_s``: seconds after which a kept connection had closed and was dialled anew; below 0: none did.
    """

    provider: str
    outcome: str
    what: str
    took_s: float
    redial_s: float = -1.0


def story(failures: Iterable[Failure]) -> bytes:
    """Describe the failed attempts for ``X-Inferoute-Attempts``."""
    parts = []
    for failure in failures:
        name = failure.provider.encode()
        if failure.redial_s >= 0.0:
            parts.append(redial_part(name, failure.redial_s))
        parts.append(b"%b:%b:%dms" % (name, failure.outcome.encode(), failure.took_s * 1000))
    return b", ".join(parts)


def redial_part(provider: bytes, after_s: float) -> bytes:
    """The part of the story for a kept connection that closed unanswered, ``after_s`` seconds after it was
    used again, and was dialled anew."""
    return b"%b:redial:%dms" % (provider, after_s * 1000)


class Doubt(NamedTuple):
    """A refusal that may be the request's own fault, until another member answers the same request.

    ``mark``: of the request, as in :mod:`proxy.deployments.strikes`; ``outcome``: the status.
    """

    deployment: Deployment
    row: Row
    mark: int
    outcome: str


class Failover:
    """The attempts of a request after the first: where it was, what came of it, where it may go next.

    Made when the first attempt fails, or is hedged: nearly all requests do without.

    :param pool: where the request went first. :param fallbacks: the pools named after it, in order.
    :param first: the deployment of the first attempt; None: no member of the pool could be asked.
    :param limit: attempts in one pool.
    :param deadline_s: monotonic seconds; nothing is begun after it.
    :param share: of the request's key of the retry budget; None: it has no key.
    """

    __slots__ = (
        "_fallbacks", "_in_pool", "_limit", "_share", "_tried", "deadline_s", "doubts", "failures", "pool",
        "too_small",
    )  # fmt: skip

    def __init__(
        self,
        pool: Pool,
        fallbacks: Sequence[Pool],
        first: Deployment | None,
        limit: int,
        deadline_s: float,
        share: Share | None = None,
    ) -> None:
        self.pool = pool
        self._share = share
        self.deadline_s = deadline_s
        self.failures: list[Failure] = []
        self.doubts: list[Doubt] = []
        self.too_small = 0  # a context window that the prompt did not fit in, in tokens; 0: none was met
        self._fallbacks = list(fallbacks)
        self._limit = limit
        self._tried = [] if first is None else [first]
        self._in_pool = len(self._tried)

    def next(
        self,
        facts_for: Callable[[Pool], Facts],
        budget: RetryBudget,
        rng: Random,
        now: float,
        *,
        stay: bool = False,
        is_clients: bool = False,
    ) -> Deployment | None:
        """The member for a further attempt, which counts as begun; None if there is to be none.

        A provider that gets the client's own credentials stays alone: nothing follows it, and nothing else
        leads to it.

        :param stay: not from another pool, however it ends.
        :param is_clients: the client's own time limit ended the attempt before.
        """
        if now >= self.deadline_s or not budget.is_left(now, self._share, is_clients=is_clients):
            return None
        if any(deployment.passes_credentials for deployment in self._tried):
            return None
        found = self._in(self.pool, facts_for, rng) if self._may_stay() else None
        while found is None and self._fallbacks and not stay:
            self.pool = self._fallbacks.pop(0)
            self._in_pool = 0
            found = self._in(self.pool, facts_for, rng)
        if found is not None:
            budget.take(now, self._share, is_clients=is_clients)
            self._tried.append(found)
            self._in_pool += 1
        return found

    def note(self, provider: str, outcome: str, what: str, took_s: float, redial_s: float = -1.0) -> None:
        """An attempt failed, or was slower than its rival; see :class:`Failure`."""
        self.failures.append(Failure(provider, outcome, what, took_s, redial_s))

    def _may_stay(self) -> bool:
        return self.pool.can_fail_over and self._in_pool < self._limit

    def _in(self, pool: Pool, facts_for: Callable[[Pool], Facts], rng: Random) -> Deployment | None:
        barred = [
            member
            for member in pool.members
            if member.passes_credentials
            or not member.usable
            or (member.context_window is not None and member.context_window <= self.too_small)
        ]
        return choose(pool, facts_for(pool), rng, self._tried + barred)

    def message(self) -> str:
        """All failures, as one sentence for the client."""
        listed = "; ".join(f"{failure.provider} {failure.what}" for failure in self.failures)
        return f"All {len(self.failures)} attempts failed: {listed}."
