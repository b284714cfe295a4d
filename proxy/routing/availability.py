"""The availability strategy: the highest share of successes, ties by latency.

The share has a prior of 10 successes.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from proxy.routing.candidates import Facts
from proxy.routing.latency import NEAR, pick_latency
from proxy.routing.pool import Pool


def availability_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """The share of successes of each candidate, from 0 to 1."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    result = []
    for index in able:
        success = rows[index].success
        result.append(1.0 if success.total == success.weight else rows[index].read_success(now))
    return result


def pick_availability(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> int:
    """The candidate with the highest share of successes; among near ones the one with the lowest latency."""
    ratios = availability_scores(pool, able, facts)
    least = max(ratios) * (1.0 - NEAR)
    near = [index for index, ratio in zip(able, ratios, strict=True) if ratio >= least]
    return near[0] if len(near) == 1 else pick_latency(pool, near, facts, rng)
