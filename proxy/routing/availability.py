"""The availability strategy: the highest share of successes over the last several hundred requests, ties by
latency.

A failed request is one that got no whole answer from the member, so streams that broke off count: no failover
heals them. Shares that chance explains are a tie (:mod:`proxy.deployments.reliability`): a member is as good
as its failures less one standard deviation say. One request in 50 asks one of the others, or a fault that is
over would be held against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from proxy.routing.candidates import Facts
from proxy.routing.latency import PROBED, pick_latency
from proxy.routing.pool import Pool

# Members whose shares differ by less are a tie: one request in 500, as many as are remembered.
_NEAR_SHARE: Final = 0.002
# Requests for each that asks a member which fails more.
_PROBE_EVERY: Final = 50.0


def availability_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """The share of successes of each candidate, from 0 to 1."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    return [1.0 - rows[index].reliability.share(facts.now) for index in able]


def pick_availability(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> tuple[int, str]:
    """The candidate with the highest share of successes; among near ones the one with the lowest latency."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    shares = [rows[index].reliability.least_share(facts.now) for index in able]
    most = min(shares) + _NEAR_SHARE
    near = [index for index, share in zip(able, shares, strict=True) if share <= most]
    if len(near) < len(able):
        success = rows[near[0]].success
        pace = max(success.weight, 1.0) / success.tau_s * len(near)
        for index in able:
            row = rows[index]
            if index not in near and not row.waiting and (facts.now - row.used_s) * pace > _PROBE_EVERY:
                return index, PROBED
    if len(near) == 1:
        return near[0], ""
    picked, why = pick_latency(pool, able if len(near) == len(able) else near, facts, rng)
    return picked, why or "the lowest latency of those that fail least"
