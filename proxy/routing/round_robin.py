"""The round-robin strategy: turns by weight.

Smooth and weighted, as in nginx: each turn every candidate gains its weight, the highest goes and pays the
sum, so that weights 3 and 1 go A A B A and not A A A B.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool


def turn_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """The turns due to each candidate, by weight."""
    return [pool.turns[index] + pool.members[index].weight for index in able]


def pick_turn(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> tuple[int, str]:
    """The candidate whose turn it is. It pays with :func:`take_turn`."""
    turns, members = pool.turns, pool.members
    best, most = able[0], turns[able[0]] + members[able[0]].weight
    for index in able:
        due = turns[index] + members[index].weight
        if due > most:
            best, most = index, due
    return best, ""


def take_turn(pool: Pool, able: Sequence[int], taken: int) -> None:
    """Every candidate gains its weight, and the one whose turn it was pays the sum."""
    turns, members = pool.turns, pool.members
    paid = 0
    for index in able:
        weight = members[index].weight
        paid += weight
        turns[index] += weight
    turns[taken] -= paid
