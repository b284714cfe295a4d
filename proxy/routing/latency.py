"""The latency strategy: the lowest expected time to the first output of a good answer.

The score is the member's expected first byte (:mod:`proxy.deployments.latency_estimate`; a plain response's
first byte is the whole of it), at the load it has now and with what the request would add to others, over the
success ratio, so that a member which fails fast doesn't win for being fast. Besides:

- **Silence.** A member that leaves requests unanswered for longer than chance explains is scored with the
  time of silence: at ten requests a second, a hung one is left within a second. Silence counts from the
  oldest request that no later one overtook: one slow response beside good ones is not silence.
- **The prompt's size**, for streams (:mod:`proxy.deployments.size_effect`): a long prompt goes to who reads
  fast, and a long wait for a long prompt is not silence.
- **What a request adds to others** at a server that slows down: as many come while it runs as are in flight
  (Little's law), each later by the slope. Without it all go where they are served best themselves (Wardrop
  1952), and the quick server is too full: regret 14.9 % against 7.2 % at 50 requests a second (two seeds).
- **Never asked**: asked first, once; while unanswered, scored as the mean of the others, times those waiting,
  plus all it ever left unanswered (:attr:`proxy.deployments.row.Row.unanswered_s`).
- **Probes.** A member that is slower by ``c`` seconds is asked again when its age squared times the rate of
  requests exceeds ``STAKES * c / least * lasts``, with ``least`` the best score and ``lasts`` the time for
  which it probably stays as it is (:meth:`proxy.deployments.latency_estimate.LatencyEstimate.lasts_s`). This
  is the interval that costs least at that pace of change: asking costs ``c`` per interval; not knowing, on
  average half an interval of all requests' time, per change. Rare where nothing ever changed, quick after a
  fault, and rarer the dearer it is. ``c`` is taken at the lower bound of what is known, so that a member
  which may well be the best is asked at once (optimism in the face of uncertainty: Lai and Robbins 1985).
  Where size matters at another, that bound is in proportion to the prompt while a member has no line of its
  own: who happened to get long ones first would else count as slow, and be probed with long ones only, where
  the best is slow too. One seed in four had 17 to 39 % regret for it (mean of 20: 8.3 %; now 2.1 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt
from random import Random
from typing import Final

from proxy.deployments.latency_estimate import MAX_DOUBT
from proxy.deployments.row import Row
from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool

# Scores this close are a tie, drawn at random: small differences are noise, and following noise sends all
# traffic one way.
NEAR: Final = 0.02
# Expected first byte where no member of the pool was ever seen.
_DEFAULT_FIRST_BYTE_S: Final = 1.0
# By the formula, for a change that makes the member the best.
STAKES: Final = 2.0
# Deviations below the expectation that a probe is judged by: half of one, as every probe costs somebody.
_OPTIMISM: Final = 0.5
# Time for which a choice holds for other requests too: above a thousand a second, choosing anew for each cost
# more than it told.
_SAME_S: Final = 0.001
_NEVER: Final = float("-inf")
# Reasons for a choice, for people.
NEVER_ASKED: Final = "it was never asked"
PROBED: Final = "a probe: it was not asked for long"


def latency_scores(pool: Pool, able: Sequence[int], facts: Facts) -> list[float]:
    """Return the expected seconds to the first byte of a good response."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    prompt_bytes = facts.body_bytes - facts.data_url_bytes
    prior_s = 0.0  # of a member that never answered, once it is needed
    result = []
    for index in able:
        row = rows[index]
        speed = row.speed
        score = speed.mean_s
        if score:
            if speed.slope:
                in_flight = row.in_flight + row.elsewhere.in_flight
                score *= speed.load_factor(in_flight) + speed.slope * in_flight
            size = row.size
            if size.slope:
                score *= size.factor(prompt_bytes)
            waiting = row.waiting
            if (
                waiting and now - next(iter(waiting.values())) > speed.mean_s
            ) or row.elsewhere.oldest_s < now - speed.mean_s:
                silent_s = row.silent_s(now)
                if silent_s:
                    score = max(score, silent_s * size.factor(prompt_bytes) if size.slope else silent_s)
        else:
            prior_s = prior_s or _prior_s(rows, able)
            score = _unknown(row, now, prior_s)
        success = row.success
        # Both sums fade alike, so they are equal to the last bit until something fails.
        if success.total != success.weight:
            score /= row.read_success(now)
        result.append(score)
    return result


def _prior_s(rows: Sequence[Row], able: Sequence[int]) -> float:
    """Return the expectation for a member that never answered: the mean of the others."""
    seen = [rows[index].speed.mean_s for index in able if rows[index].speed.mean_s]
    return sum(seen) / len(seen) if seen else _DEFAULT_FIRST_BYTE_S


def _unknown(row: Row, now: float, prior_s: float) -> float:
    """The score of a member that never answered."""
    waiting, elsewhere = row.waiting, row.elsewhere
    since_s = min(next(iter(waiting.values()), now), elsewhere.oldest_s)
    return prior_s * (1.0 + len(waiting) + elsewhere.awaiting) + now - since_s + row.unanswered_s


def pick_latency(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> tuple[int, str]:
    """The candidate with the lowest expected time, or one due to be asked again; and the reason, where it
    is not the strategy's own."""
    now, streamed = facts.now, facts.streamed
    # Among all members, as nearly always, what was worked out a moment ago still holds.
    if able is pool.indices and 0.0 < now - pool.near_at[streamed] < _SAME_S:
        near = pool.near[streamed]
        return near[0] if len(near) == 1 else near[int(rng.random() * len(near))], ""
    never = unasked(pool, able, facts, rng)
    if never >= 0:
        return never, NEVER_ASKED
    scores = latency_scores(pool, able, facts)
    near, probe = nearest_or_probe(pool, able, facts, scores)
    if probe >= 0:
        return probe, PROBED
    # A choice by size holds for that size.
    if able is pool.indices:
        rows = pool.streamed_rows if streamed else pool.plain_rows
        if not any(row.size.slope for row in rows):
            pool.near[streamed], pool.near_at[streamed] = near, now
    return near[0] if len(near) == 1 else near[int(rng.random() * len(near))], ""


def unasked(pool: Pool, able: Sequence[int], facts: Facts, rng: Random) -> int:
    """Return a candidate that was never asked; -1: there is none."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    for index in able:
        if rows[index].used_s == _NEVER:
            never = [other for other in able if rows[other].used_s == _NEVER]
            return never[int(rng.random() * len(never))]
    return -1


def nearest_or_probe(
    pool: Pool, able: Sequence[int], facts: Facts, scores: list[float], *, with_pace: bool = False
) -> tuple[list[int], int]:
    """Return the candidates with the lowest scores, and the one that is due for a probe (-1: none is).

    :param with_pace: the scores are of whole streams, so the doubt about the pace counts too.
    """
    now = facts.now
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    least = min(scores)
    success = rows[able[scores.index(least)]].success
    # Requests a second, nearly all of which go to the best: its decayed count over the time constant.
    pace = (success.weight if success.weight > 1.0 else 1.0) / success.tau_s * least / STAKES
    limit = least * (1.0 + NEAR)
    prompt_bytes = facts.body_bytes - facts.data_url_bytes
    has_sizes = False
    for index in able:
        has_sizes = has_sizes or rows[index].size.slope != 0.0
    nearest: list[int] = []
    probe = -1
    most = 1.0
    for at, score in enumerate(scores):
        if score <= limit:
            nearest.append(able[at])
            continue
        row = rows[able[at]]
        speed = row.speed
        if row.waiting or row.elsewhere.awaiting:
            continue
        age = now - row.used_s
        # Of one whose first request failed, nothing is known but that.
        doubt, lasts_s = (speed.doubt_at(now), speed.lasts_s(now)) if speed.mean_s else (MAX_DOUBT, age)
        writing = row.writing.estimate
        if with_pace and writing.mean_s:
            doubt, lasts_s = max(doubt, writing.doubt_at(now)), min(lasts_s, writing.lasts_s(now))
        plausible_s = score * exp(-_OPTIMISM * sqrt(doubt))
        if has_sizes:
            plausible_s *= row.size.least_factor(prompt_bytes)
        cost = plausible_s - least
        due = age * age * pace / (cost * lasts_s + 1e-9) if cost > 0.0 else 1e9 + age
        if due > most:
            most, probe = due, able[at]
    return nearest, probe


def lowest(able: Sequence[int], values: list[float], rng: Random) -> int:
    """The candidate with the lowest value, near-ties drawn at random."""
    limit = min(values) * (1.0 + NEAR)
    near = [index for index, value in zip(able, values, strict=True) if value <= limit]
    return near[0] if len(near) == 1 else near[int(rng.random() * len(near))]
