"""The deployment that is asked after one that failed, and when a request may fail over at all.

The rules, which docs/failover.md has for users:

- The commit point is the first body byte sent to the client. Before it an attempt may be replaced, after it
  never: no second provider is spliced into a started answer.
- Each attempt goes to another member, as long as there is one. A pool gives at most ``max_attempts``; each
  pool named by ``X-Inferoute-Fallback`` is a pool of its own. A pinned name has only the latter.
- Each attempt has the time limits of its member; ``deadline`` bounds the whole chain. Where ``total`` passed
  at a member, the response was being generated, and nothing follows.
- An attempt at a member that is failing needs the retry budget. So do a hedge, and what follows a client's
  own time limit. Going on to a healthy member does not.
- A request makes at most ``max_attempts`` + 2 sends in all, redials included, and one more for each fallback.
- Where nobody else is left, the member that has just failed may be asked once more, after a pause
  (:func:`pause_s`); that needs the retry budget, and counts as an attempt.
- A kept connection that closed as it was used again is dialled anew: that is part of the attempt, and told
  before it.
- What failed with a response of its own, and is followed by nothing, passes that answer on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Final, NamedTuple

from proxy.deployments.deployment import Deployment
from proxy.deployments.row import Row
from proxy.errors import AttemptFailed
from proxy.routing.candidates import Facts, is_out
from proxy.routing.pool import Pool
from proxy.routing.retry_budget import RetryBudget, Share
from proxy.routing.strategy import choose

# Sends of a request beyond ``max_attempts``.
_BEYOND_LIMIT: Final = 2
# What passes by itself, often at once: a provider that restarts, or has one bad replica.
_PASSING: Final = frozenset(("500", "502", "503", "529"))
# It has to have failed soon, and to want no longer pause.
_SOON_S: Final = 2.0
_SHORTEST_PAUSE_S: Final = 0.2
_MORE_PAUSE_S: Final = 0.4


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


def refusal_part(provider: str) -> bytes:
    """The part of the story for an attempt that the retry budget did not allow."""
    return b"%b:budget:0ms" % provider.encode()


def pause_s(failure: AttemptFailed, took_s: float, rng: Random) -> float:
    """Return the seconds after which the member that failed so may be asked once more; below 0: it may not.

    Between 0.2 and 0.6 s, so that those who failed together don't come back together, and not before
    ``Retry-After``. A member that is rate limited has to say when; one that timed out is never asked again.

    :param took_s: from the attempt's begin to its failure.
    """
    outcome, wait_s = failure.outcome, failure.wait_s
    passes = failure.is_closed or outcome in _PASSING or (outcome == "429" and wait_s is not None)
    if not passes or took_s > _SOON_S or (wait_s is not None and wait_s > _SOON_S):
        return -1.0
    return max(_SHORTEST_PAUSE_S + _MORE_PAUSE_S * rng.random(), wait_s or 0.0)


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

    ``again``: the member that is asked once more when the exchange's pause ends, with its pool.
    """

    __slots__ = (
        "_fallbacks", "_in_pool", "_limit", "_most", "_repeats", "_sends", "_share", "_tried", "again",
        "again_at", "deadline_s", "doubts", "failures", "pool", "refused", "too_small",
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
        if first is None and pool.kind == "pinned":  # it was passed over, for want of better it comes last
            self._fallbacks.append(pool)
        self._limit = limit
        self._most = limit + _BEYOND_LIMIT + len(self._fallbacks)
        self._sends = 0 if first is None else 1
        self._repeats = 0
        self.again: tuple[Deployment, Pool] | None = None
        self.again_at = 0.0  # monotonic seconds
        self.refused = ""  # the provider of an attempt that the retry budget did not allow
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
        barred: Sequence[Deployment] = (),
        is_clients: bool = False,
    ) -> Deployment | None:
        """The member for a further attempt, which counts as begun; None if there is to be none.

        A provider that gets the client's own credentials stays alone: nothing follows it, and nothing else
        leads to it.

        :param stay: not from another pool, however it ends. :param barred: and none of these of this one.
        :param is_clients: the client's own time limit ended the attempt before.
        """
        self.refused = ""
        if now >= self.deadline_s or self._sends >= self._most:
            return None
        if any(deployment.passes_credentials for deployment in self._tried):
            return None
        needs_budget = stay or is_clients
        has_budget = budget.is_left(now, self._share, is_clients=is_clients)
        if needs_budget and not has_budget:
            return None
        found = self._in(self.pool, facts_for, rng, barred) if self._may_stay() else None
        found = self._allowed(found, has_budget, now)
        while found is None and self._fallbacks and not stay:
            # A pinned name whose member is out comes last.
            in_turn = [index for index, pool in enumerate(self._fallbacks) if not is_out(pool, now)]
            self.pool = self._fallbacks.pop(in_turn[0] if in_turn else 0)
            self._in_pool = 0
            found = self._allowed(self._in(self.pool, facts_for, rng), has_budget, now)
        if found is not None:
            if self._tried and (needs_budget or found.is_failing(now)):
                budget.take(now, self._share, is_clients=is_clients)
            self._sends += 1
            self._tried.append(found)
            self._in_pool += 1
        return found

    def repeat(
        self, deployment: Deployment, pool: Pool, budget: RetryBudget, now: float, after_s: float, most: int
    ) -> bool:
        """Plan to ask the member that has just failed once more, which counts as begun; False: no more.

        :param after_s: seconds, of :func:`pause_s`; below 0: not at all. :param most: times in all.
        """
        if (
            after_s < 0.0
            or self._repeats >= most
            or self._in_pool >= self._limit
            or self._sends >= self._most
            or now + after_s >= self.deadline_s
        ):
            return False
        if not budget.take(now, self._share):
            self.refused = deployment.provider.name
            return False
        self.again, self.again_at = (deployment, pool), now + after_s
        self.pool = pool
        self._repeats += 1
        self._sends += 1
        self._in_pool += 1
        return True

    def is_only(self, failed: int) -> bool:
        """Return whether all of ``failed`` attempts were at one member."""
        return failed - self._repeats == 1

    def note(self, provider: str, outcome: str, what: str, took_s: float, redial_s: float = -1.0) -> None:
        """An attempt failed, or was slower than its rival; see :class:`Failure`."""
        if redial_s >= 0.0:
            self._sends += 1
        self.failures.append(Failure(provider, outcome, what, took_s, redial_s))

    def story(self) -> bytes:
        """The failed attempts for ``X-Inferoute-Attempts``, and what the budget did not allow."""
        told = story(self.failures)
        if not self.refused:
            return told
        part = refusal_part(self.refused)
        return told + b", " + part if told else part

    def _may_stay(self) -> bool:
        return self.pool.can_fail_over and self._in_pool < self._limit

    def _allowed(self, found: Deployment | None, has_budget: bool, now: float) -> Deployment | None:
        """What was found, if it is healthy, or the budget allows it, or nothing was sent yet."""
        if found is None or has_budget or not self._tried or not found.is_failing(now):
            return found
        self.refused = found.provider.name
        return None

    def _in(
        self, pool: Pool, facts_for: Callable[[Pool], Facts], rng: Random, barred: Sequence[Deployment] = ()
    ) -> Deployment | None:
        facts = facts_for(pool)
        unable = [
            member
            for member in pool.members
            if member.passes_credentials or not member.usable or self._is_too_small(member, facts.now)
        ]
        return choose(pool, facts, rng, [*self._tried, *unable, *barred])

    def _is_too_small(self, member: Deployment, now: float) -> bool:
        window = member.window.tokens(now) if self.too_small else None
        return window is not None and window <= self.too_small

    def message(self) -> str:
        """All failures, as one sentence for the client."""
        listed = "; ".join(f"{failure.provider} {failure.what}" for failure in self.failures)
        return f"All {len(self.failures)} attempts failed: {listed}."
