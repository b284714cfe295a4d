"""The order strategy: the first member of the list that is healthy; the others are its backups.

Silence counts: a member that leaves requests unanswered for longer than chance explains gets no more of them
until it answered or the wait ended, though its breaker is still closed. Where all are silent, the first is
asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool


def order_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """The places of the candidates in the list, from 1; a silent one stands behind all that are not."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now, behind = facts.now, len(pool.members)
    return [float(index + 1 + (behind if rows[index].silent_s(now) else 0)) for index in able]


def pick_order(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> tuple[int, str]:
    """The first candidate that is not silent."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    for index in able:
        if not rows[index].silent_s(now):
            return index, ""
    return able[0], ""
