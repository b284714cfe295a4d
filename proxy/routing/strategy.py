"""Which member of a pool a request goes to.

Members that can't take the request are skipped first (:mod:`proxy.routing.candidates`); a strategy then
scores the rest (lower is better for ``latency``, in seconds, and ``cost``, in USD; higher for
``availability``, a ratio, ``round-robin``, turns due, and ``split``, a share). Pools are small, so all
members are scored each time.

**latency**: :mod:`proxy.routing.latency`. **cost**: :mod:`proxy.routing.cost`.

**availability.** Success ratio with a prior of 10 successes; ties by latency.

**round-robin.** Smooth and weighted, as in nginx: each turn every candidate gains its weight, the highest
goes and pays the sum, so that weights 3 and 1 go A A B A and not A A A B.

**split** (an alias with shares). Weighted rendezvous hashing: each share draws a number, from the caller
where the split is sticky, else at random, and the lowest ``-ln(number) / weight`` takes the request. So the
shares are exact, every replica and worker agrees about a caller without talking, and when a member is out
only its own callers move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from proxy.deployments.deployment import Deployment
from proxy.routing.availability import _availability_scores, _pick_availability
from proxy.routing.candidates import Facts, candidates, is_one_due, why_not
from proxy.routing.cost import UNPRICED, cost_scores, pick_cost
from proxy.routing.latency import latency_scores, pick_latency
from proxy.routing.pool import Pool
from proxy.routing.round_robin import _pick_turn, _turn_scores
from proxy.routing.split import _behind, _split_scores


class Candidate(NamedTuple):
    """A member as people see it: what it scores (None: nothing), or why it was skipped (None: it was not)."""

    deployment: Deployment
    score: float | None
    skipped: str | None


class Explanation(NamedTuple):
    """What :func:`choose` would do: ``choice`` is None where nothing could be asked; ``why`` says so."""

    choice: Deployment | None
    why: str
    candidates: list[Candidate]


def choose(pool: Pool, facts: Facts, rng: Random, tried: Sequence[Deployment] = ()) -> Deployment | None:
    """The member this request goes to; None where there is nobody (left) to ask.

    :param tried: where it has been already; a further attempt takes no turn of round-robin.
    """
    members = pool.members
    if pool.kind == "pinned":  # always sent, whatever its state
        return None if members[0] in tried else members[0]
    able = candidates(pool, facts, tried)
    if len(able) <= 1:
        return members[able[0]] if able else None
    strategy = pool.strategy
    if strategy == "split":
        able, strategy = _behind(pool, able, facts, rng), pool.inner
        if len(able) == 1:
            return members[able[0]]
    pick = _PICKS[strategy]
    if tried and pick is _pick_turn:
        return members[able[int(rng.random() * len(able))]]
    return members[pick(pool, able, facts, rng)]


def explain(pool: Pool, facts: Facts, tried: Sequence[Deployment] = ()) -> Explanation:
    """What :func:`choose` would go by, for people. Changes nothing.

    Members that the pool left out follow at the end. Units of a score: see the module's text; None for a
    pinned member, and where the price is unknown.
    """
    # Where nobody has a key, a request goes to one all the same, which says so.
    has_key = any(member.usable for member in pool.members)
    able: Sequence[int] = ()
    if has_key:
        able = (0,) if pool.kind == "pinned" else candidates(pool, facts, tried)
    values = dict(zip(able, _SCORES[pool.strategy](pool, able, facts), strict=True))
    listed = []
    is_due = is_one_due(pool, facts.now)
    for index, member in enumerate(pool.members):
        if index in values:
            score = values[index]
            listed.append(Candidate(member, None if score == UNPRICED else score, None))
        else:
            listed.append(Candidate(member, None, why_not(pool, index, facts, is_due)))
    listed.extend(Candidate(member, None, reason) for member, reason in pool.left_out)
    if not has_key:
        why = (
            "no provider of its members has a key" if len(pool.members) > 1 else pool.members[0].why_unusable
        )
        return Explanation(None, why, listed)
    if not able:
        return Explanation(None, "every member asked for patience", listed)
    best = (max if pool.strategy in _HIGHER_IS_BETTER else min)(able, key=values.__getitem__)
    why = "the only one that can take it" if len(able) == 1 else _WHY[pool.strategy]
    return Explanation(pool.members[best], why, listed)


def _pinned_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    return [UNPRICED for _ in able]


_PICKS: Final[dict[str, Callable[[Pool, Sequence[int], Facts, Random], int]]] = {
    "latency": pick_latency,
    "cost": pick_cost,
    "availability": _pick_availability,
    "round-robin": _pick_turn,
}
_SCORES: Final[dict[str, Callable[[Pool, Sequence[int], Facts], list[float]]]] = {
    "latency": latency_scores,
    "cost": cost_scores,
    "availability": _availability_scores,
    "round-robin": _turn_scores,
    "pinned": _pinned_scores,
    "split": _split_scores,
}
_HIGHER_IS_BETTER: Final = frozenset({"availability", "round-robin", "split"})
_WHY: Final = {
    "latency": "the lowest expected time to the first byte",
    "cost": "the lowest expected price",
    "availability": "the highest share of successes",
    "round-robin": "its turn",
    "split": "by share",
    "pinned": "named by the request",
}
