"""The choice of a pool's member for one request, and its explanation; one row per strategy.

Members that can't take the request are skipped first (:mod:`proxy.routing.candidates`); the pool's strategy
then picks among the rest. Pools are small, so all candidates are scored each time. Each strategy is a module
beside this one: ``latency``, ``cost``, ``availability``, ``round_robin``, ``order`` and ``split``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from proxy.deployments.deployment import Deployment
from proxy.routing.availability import availability_scores, pick_availability
from proxy.routing.candidates import Facts, candidates, is_one_due, why_not
from proxy.routing.cost import LEARNS, UNPRICED, cost_scores, pick_cost
from proxy.routing.latency import latency_scores, pick_latency
from proxy.routing.order import order_scores, pick_order
from proxy.routing.pool import Pool
from proxy.routing.round_robin import pick_turn, take_turn, turn_scores
from proxy.routing.split import members_of_share, split_scores
from proxy.routing.throughput import pick_throughput, throughput_scores

# Returns the index of a candidate, and the reason where it is not the strategy's own. Changes nothing that
# another choice depends on but for what it keeps to be quick.
Picker = Callable[[Pool, Sequence[int], Facts, Random], tuple[int, str]]


class Strategy(NamedTuple):
    """One way of choosing among the candidates of a pool.

    ``name``: as settings and ``X-Inferoute-Strategy`` have it. ``pick``: returns the index of a candidate;
    None where the strategy is not picked by name: ``split`` hands on to another, ``pinned`` has one member.
    ``scores``: one number a candidate, in ``unit`` (None: no number says anything). ``why``: the reason for
    the best candidate, for people.
    """

    name: str
    pick: Picker | None
    scores: Callable[[Pool, Sequence[int], Facts], list[float]]
    unit: str | None
    higher_is_better: bool
    why: str


class Candidate(NamedTuple):
    """A member with its score (None: it has none), or with the reason it was skipped (None: it was not)."""

    deployment: Deployment
    score: float | None
    skipped: str | None


class Explanation(NamedTuple):
    """The result of :func:`choose` with its reason; ``choice`` is None where no member can be asked."""

    choice: Deployment | None
    why: str
    candidates: list[Candidate]


def choose(pool: Pool, facts: Facts, rng: Random, tried: Sequence[Deployment] = ()) -> Deployment | None:
    """Choose the member this request goes to; None where no member is left to ask.

    :param tried: members it was sent to already; a further attempt takes no turn of round-robin.
    """
    members = pool.members
    if pool.kind == "pinned":  # always sent, whatever its state
        return None if members[0] in tried else members[0]
    able = candidates(pool, facts, tried)
    if len(able) <= 1:
        return members[able[0]] if able else None
    strategy = pool.strategy
    if strategy == "split":
        able, strategy = members_of_share(pool, able, facts, rng), pool.inner
        if len(able) == 1:
            return members[able[0]]
    pick = _PICKS[strategy]
    if tried and pick is pick_turn:
        return members[able[int(rng.random() * len(able))]]
    picked, why = pick(pool, able, facts, rng)
    if pick is pick_turn:
        take_turn(pool, able, picked)
    elif why == LEARNS:
        rows = pool.streamed_rows if facts.streamed else pool.plain_rows
        rows[picked].probed(facts.now)
    return members[picked]


def explain(
    pool: Pool, facts: Facts, tried: Sequence[Deployment] = (), rng: Random | None = None
) -> Explanation:
    """Explain what :func:`choose` would do. Changes nothing.

    Members that the pool left out follow at the end. The score is None for a pinned member, and where the
    price is unknown.

    :param rng: what :func:`choose` would draw ties from. None: a draw of its own, and of a split with shares
        the largest one.
    """
    strategy = BY_NAME[pool.strategy]
    # Where no member has a key, a request goes to one all the same, which says so.
    has_key = any(member.usable for member in pool.members)
    able: Sequence[int] = ()
    if has_key:
        able = (0,) if pool.kind == "pinned" else candidates(pool, facts, tried)
    values = dict(zip(able, strategy.scores(pool, able, facts), strict=True))
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
        return Explanation(None, "all members are rate limited", listed)
    best, why = _picked(pool, able, facts, rng, values)
    if len(able) == 1:
        why = (
            "a trial: its ejection is over"
            if is_due and pool.kind != "pinned"
            else "the only one that can take it"
        )
    return Explanation(pool.members[best], why or _why(pool, able, facts), listed)


def _picked(
    pool: Pool, able: Sequence[int], facts: Facts, rng: Random | None, values: dict[int, float]
) -> tuple[int, str]:
    """What :func:`choose` would pick, and its reason where it is not the strategy's own."""
    if len(able) == 1:
        return able[0], ""
    strategy, draws = pool.strategy, Random(0) if rng is None else rng
    if strategy == "split":
        if rng is None:
            return max(able, key=values.__getitem__), ""
        able, strategy = members_of_share(pool, able, facts, rng), pool.inner
        if len(able) == 1:
            return able[0], ""
    return _PICKS[strategy](pool, able, facts, draws)


def _why(pool: Pool, able: Sequence[int], facts: Facts) -> str:
    """The strategy's own reason."""
    why = BY_NAME[pool.strategy].why
    if pool.strategy in _BY_SIZE and facts.streamed and any(pool.streamed_rows[i].size.slope for i in able):
        return f"{why}, for a prompt of this size"
    return why


def _pinned_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    return [UNPRICED for _ in able]


_ROWS: Final = (
    Strategy("cost", pick_cost, cost_scores, "USD", False, "the lowest expected price"),
    Strategy(
        "latency", pick_latency, latency_scores, "s", False,
        "the lowest expected time to the first output",
    ),
    Strategy(
        "throughput", pick_throughput, throughput_scores, "s", False,
        "the lowest expected time to the whole answer",
    ),
    Strategy(
        "availability", pick_availability, availability_scores, "ratio", True,
        "the highest share of successes",
    ),
    Strategy("round-robin", pick_turn, turn_scores, "turns", True, "its turn"),
    Strategy("order", pick_order, order_scores, "place", False, "the first that is healthy"),
    Strategy("split", None, split_scores, "share", True, "by weight"),
    Strategy("pinned", None, _pinned_scores, None, False, "named by the request"),
)  # fmt: skip
BY_NAME: Final[dict[str, Strategy]] = {row.name: row for row in _ROWS}
# By these the prompt's size counts.
_BY_SIZE: Final = ("latency", "throughput")
# Apart, as it is looked up for every request.
_PICKS: Final[dict[str, Picker]] = {row.name: row.pick for row in _ROWS if row.pick is not None}
