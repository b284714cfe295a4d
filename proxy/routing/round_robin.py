"""The round-robin strategy: turns by weight."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool


def _turn_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    return [pool.turns[index] + pool.members[index].weight for index in able]


def _pick_turn(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> int:
    turns, members = pool.turns, pool.members
    paid = 0
    best = able[0]
    for index in able:
        weight = members[index].weight
        paid += weight
        turns[index] += weight
        if turns[index] > turns[best]:
            best = index
    turns[best] -= paid
    return best
