"""The split strategy: an alias with shares, sticky or drawn for each request.

Weighted rendezvous hashing: each share draws a number, from the caller where the split is sticky, else at
random, and the lowest ``-ln(number) / weight`` takes the request. So the shares are exact, every replica and
worker agrees about a caller without talking, and when a member is out only its own callers move.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from math import log
from random import Random
from typing import Final

from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool

# Up to this many, looking through all is as quick as a set.
_FEW: Final = 8


def members_of_share(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> Sequence[int]:
    """The members of the share that takes the request; all, where the members with a share are out."""
    there = able if len(able) <= _FEW else frozenset(able)
    groups = [(name, weight, [i for i in behind if i in there]) for name, weight, behind in pool.shares]
    groups = [group for group in groups if group[2]]
    if not groups:
        return able

    def drawn(group: tuple[str, int, list[int]]) -> float:
        return -log(_draw(pool.name, group[0], facts.caller, rng)) / group[1]

    return min(groups, key=drawn)[2]


def _draw(alias: str, share: str, caller: bytes, rng: Random) -> float:
    """A number in (0, 1]: of the caller's own, or at random without a caller."""
    if not caller:
        return 1.0 - rng.random()
    key = b"\0".join((alias.encode(), share.encode(), caller))
    return (int.from_bytes(blake2b(key, digest_size=8).digest(), "big") + 1) / 2.0**64


def split_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """The share of each member, of those that are there; members behind one name have it together."""
    there = frozenset(able)
    total = sum(weight for _, weight, behind in pool.shares if not there.isdisjoint(behind))
    shares = dict.fromkeys(able, 0.0)
    for _, weight, behind in pool.shares:
        for index in behind:
            if index in shares:
                shares[index] += weight / total
    return list(shares.values())
