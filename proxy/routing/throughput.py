"""The throughput strategy: the lowest expected time to the whole answer.

    first output (as of the latency strategy) + expected output tokens * seconds per token

both by what the member itself does: one that writes twice as many tokens is twice as late. Output tokens are
drawn towards the pool's mean as for ``cost``; the pace is learned while streams run
(:mod:`proxy.deployments.pace`). Of plain responses the first byte comes when all of it is ready, so there it
is the latency strategy. Probes go by the same rule as there, with the doubt about either part.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from proxy.deployments.row import Row
from proxy.routing.candidates import Facts
from proxy.routing.cost import priors
from proxy.routing.latency import NEVER_ASKED, PROBED, latency_scores, nearest_or_probe, unasked
from proxy.routing.pool import Pool

# Seconds per token where no member of the pool has ended a stream: 50 tokens a second.
_USUAL_S: Final = 0.02


def throughput_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """Return the expected seconds to the last byte of a good response."""
    scores = latency_scores(pool, able, facts)
    if not facts.streamed:
        return scores
    rows, now = pool.streamed_rows, facts.now
    means = priors(rows, able)
    usual_s = _usual_s(rows, able)
    for position, index in enumerate(able):
        row = rows[index]
        tokens = row.charges.estimate(now, means)[2]
        spent_s = tokens * (row.writing.estimate.mean_s or usual_s)
        success = row.success
        if success.total != success.weight:
            spent_s /= row.read_success(now)
        scores[position] += spent_s
    return scores


def pick_throughput(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> tuple[int, str]:
    """The candidate with the lowest expected time, or one that is due to be asked again."""
    never = unasked(pool, able, facts, rng)
    if never >= 0:
        return never, NEVER_ASKED
    scores = throughput_scores(pool, able, facts)
    near, probe = nearest_or_probe(pool, able, facts, scores, with_pace=facts.streamed)
    if probe >= 0:
        return probe, PROBED
    return near[0] if len(near) == 1 else near[int(rng.random() * len(near))], ""


def _usual_s(rows: Sequence[Row], able: Sequence[int]) -> float:
    seen = [rows[index].writing.estimate.mean_s for index in able if rows[index].writing.estimate.mean_s]
    return sum(seen) / len(seen) if seen else _USUAL_S
