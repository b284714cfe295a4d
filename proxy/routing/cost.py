"""The cost strategy: the lowest plausible price of this request.

**Expected**, what ``explain`` shows: ``n_in * p_in - cached * n_in * (p_in - p_cached) + n_out * p_out``.
Tokens per byte, cached share and output tokens are as observed, drawn towards the pool's mean, so that an
unknown member is neither favoured nor shunned. A member without a price counts as dearer than all others: no
price means unknown, not free (a free model says 0). It is picked only where no priced one is left.

**In time.** The cheapest may take 20 s to begin, or hang. Members whose expected first output is above
``max_first_token`` of the alias (by default ten times the quickest member's, at least 10 s) are left aside
while another is below it, and so are members that are silent. They are probed as slow ones are by
``latency``.

**Plausible.** Models differ in how much they write, at times by a factor of four, so the lowest list price
may be the dearest answer, and only asking tells. A member that is known less than the pool's average is
believed to cost as little as it well may, and asked while that is less than what the others cost: only where
it may be the cheapest for this very request, and most at the beginning, when knowledge is of use for longest.
Of what is in doubt, the output and half of what caching could still save, the share ``1 - exp(-width)`` is
taken off::

    width = sqrt(2 * ln(mean_n / n) / n)        n: requests that it was asked, faded, and the prior's two

That is the bonus of MOSS (Audibert, Bubeck: "Minimax Policies for Adversarial and Stochastic Bandits", COLT
2009) for the logarithm of a response's length, whose variance from one request to the next is about 1. What a
prompt costs is known beforehand, so that a model whose input alone costs more than a response elsewhere is
not asked. Nor is one 40 times as dear: that would take a ``mean_n`` of a million, and 500 requests a second
add up to 4,650. ``n`` counts what was asked, not what was learned: who tells no usage, or answers 400, is not
asked without end. As knowledge fades (:class:`proxy.deployments.cost_estimate.CostEstimate`), members are
asked again: half a day later one request is of more use than all that was known.

Regret over the oracle, and what lost against this (``benchmarks/routing``, eight seeds: verbose at
0.05, 0.5 and 50 requests/s, the last over 64 replicas that each learn alone; price: mean of its four rates):

=======================================  ======  ======  ======  =====
this                                      2.1 %   0.9 %   4.5 %  0.9 %
nothing asked to learn                   33.4 %  34.0 %  33.8 %  0.0 %
Thompson sampling                         4.0 %   1.1 %   5.1 %  1.0 %
the sum of all ``n`` instead of a mean    3.4 %   1.5 %   5.4 %  1.3 %
exponential fade, half-life 10 minutes    6.3 %   2.1 %   4.9 %  1.6 %
exponential fade, half-life 8 hours       1.3 %   0.8 %   4.6 %  1.1 %
=======================================  ======  ======  ======  =====

The last one follows too slowly: a member that began to write four times as much after three hours at 5
requests/s had 7,370 more of them, and 56 so.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from random import Random
from typing import Final

from proxy.deployments.cost_estimate import PRIOR_REQUESTS
from proxy.deployments.deployment import Deployment
from proxy.deployments.row import Row
from proxy.endpoints import WRITING
from proxy.routing.candidates import Facts
from proxy.routing.latency import PROBED, latency_scores, lowest, nearest_or_probe
from proxy.routing.pool import Pool
from proxy.usage.response_usage import TOKENS_PER_BYTE, USUAL_OUTPUT_TOKENS

UNPRICED: Final = float("inf")
# A hedge of its own accord costs no more than this multiple of the first attempt, nor than this in USD.
_DEAR_TIMES: Final = 3.0
_DEAR_USD: Final = 0.05
# The share of what caching could still save that may come true: not all of a prompt was sent before.
_CACHE_DOUBT: Final = 0.5
# The default of ``max_first_token``: this multiple of the quickest member's first output, and at least 10 s.
_TIMES_QUICKEST: Final = 10.0
_LEAST_BOUND_S: Final = 10.0
# Silence of more than five usual first outputs: price is no reason to wait, nor is chance one to pay.
_SILENT_TIMES: Final = 5.0
# The reason for a request that is made to learn what one costs.
LEARNS: Final = "asked to learn what it costs"


def cost_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """Expected USD of this request; infinite without a price."""
    return [cost_pusd * 1e-12 for cost_pusd in _estimates(pool, able, facts)[0]]


def too_dear_beside(pool: Pool, first: Deployment, facts: Facts) -> list[Deployment]:
    """The members that are not asked beside a silent one by themselves: both may be paid, and the second's
    expected price is above three times the first's, or above 0.05 USD. Without a price one is dear."""
    costs = cost_scores(pool, pool.indices, facts)
    known = [cost for member, cost in zip(pool.members, costs, strict=True) if member is first]
    of_first = known[0] if known else UNPRICED
    return [
        member
        for member, cost in zip(pool.members, costs, strict=True)
        if cost > _DEAR_TIMES * of_first or (cost > _DEAR_USD and cost != UNPRICED)
    ]


def pick_cost(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> tuple[int, str]:
    """Pick the candidate with the lowest plausible cost of those that answer in time. The caller counts a
    request that is made to learn (``LEARNS``)."""
    able, probe = _in_time(pool, able, facts)
    if probe >= 0:
        return probe, PROBED
    if len(able) == 1:
        return able[0], "the only one that answers in time"
    costs, doubts, known = _estimates(pool, able, facts)
    least = min(costs)
    mean_known = sum(known) / len(known)
    lows = costs
    for position, requests in enumerate(known):
        if requests < mean_known and costs[position] - doubts[position] < least:
            if lows is costs:
                lows = costs.copy()
            width = sqrt(2.0 * log(mean_known / requests) / requests)
            lows[position] -= doubts[position] * (1.0 - exp(-width))
    picked = lowest(able, lows, rng)
    if lows is not costs:
        position = able.index(picked)
        if lows[position] < costs[position]:
            return picked, LEARNS
    return picked, ""


def _in_time(pool: Pool, able: Sequence[int], facts: Facts) -> tuple[Sequence[int], int]:
    """Leave aside the members whose expected first output is above the bound, and those that are silent,
    while another is left. Returns the others, and one of those aside that is due for a probe, or -1."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    bound_s = pool.alias.max_first_token_s if pool.alias is not None and facts.streamed else None
    for index in able:
        if _may_be_late(rows[index], _LEAST_BOUND_S if bound_s is None else bound_s):
            break
    else:
        return able, -1
    scores = latency_scores(pool, able, facts)
    least = min(scores)
    if bound_s is None:
        bound_s = max(_TIMES_QUICKEST * least, _LEAST_BOUND_S)
    now = facts.now
    kept = []
    for position, index in enumerate(able):
        row = rows[index]
        is_asked = row.waiting or row.elsewhere.awaiting
        is_silent = is_asked and row.silent_s(now) > _SILENT_TIMES * row.speed.mean_s
        if scores[position] <= bound_s and not is_silent:
            kept.append(index)
    if not kept or len(kept) == len(able):
        return able, -1
    probe = nearest_or_probe(pool, able, facts, scores)[1]
    return kept, -1 if probe in kept else probe


def _may_be_late(row: Row, bound_s: float) -> bool:
    """False where nothing can lift the expected first output above the bound."""
    speed, success = row.speed, row.success
    return (
        not 0.0 < speed.mean_s <= bound_s  # one that never answered may have been left again and again
        or bool(row.waiting or row.elsewhere.awaiting or row.size.slope or speed.slope)
        or success.total != success.weight
    )


def _estimates(pool: Pool, able: Sequence[int], facts: Facts) -> tuple[list[float], list[float], list[float]]:
    """By candidate: expected pico-USD, how much of that is in doubt (nothing without a price), and how many
    requests told so.
    """
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    means = priors(rows, able)
    text_bytes = facts.body_bytes - facts.data_url_bytes
    is_writing = pool.endpoint in WRITING  # there no output price means an unknown one
    costs, doubts, known = [], [], []
    for index in able:
        input_pusd, cached_pusd, output_pusd, _ = pool.members[index].prices
        if input_pusd is None or cached_pusd is None or (is_writing and output_pusd is None):
            costs.append(UNPRICED)
            doubts.append(0.0)
            known.append(PRIOR_REQUESTS)
            continue
        per_byte, share, output, requests = rows[index].charges.estimate(now, means)
        known.append(requests)
        tokens = text_bytes * per_byte
        saving_pusd = tokens * (input_pusd - cached_pusd)
        written_pusd = output * output_pusd if output_pusd else 0.0
        costs.append(tokens * input_pusd - share * saving_pusd + written_pusd)
        doubts.append(written_pusd + _CACHE_DOUBT * (1.0 - share) * saving_pusd)
    return costs, doubts, known


def priors(rows: Sequence[Row], able: Sequence[int]) -> tuple[float, float, float]:
    """The pool's mean tokens per byte, cached share and output tokens, over the members that were seen."""
    per_byte = cached_share = output = 0.0
    seen = 0
    for index in able:
        ratios = rows[index].charges.ratios
        if ratios is not None:
            per_byte += ratios[0]
            cached_share += ratios[1]
            output += ratios[2]
            seen += 1
    if not seen:
        return TOKENS_PER_BYTE, 0.0, USUAL_OUTPUT_TOKENS
    return per_byte / seen, cached_share / seen, output / seen
