"""Which member of a pool a request goes to.

Members that can't take the request are skipped first; a strategy then scores the rest (lower is better for
``latency``, in seconds, and ``cost``, in USD; higher for ``availability``, a ratio, and ``round-robin``,
turns due). Pools are small, so all members are scored each time. Scores within 2 % are a tie, drawn at
random: small differences are noise, and following noise sends all traffic one way.

**latency.** First-byte mean of the row (a plain answer's first byte is the whole of it), over the success
ratio: the expected time until an answer that is one, so that a member which fails fast doesn't win for being
fast. As its samples fade, a member that was slower than the others drifts back to their mean; one that was
faster keeps what it had, since forgetting that it was good would strand the traffic on the second best. A
member that was never asked is asked first, once. One that was long not asked is probed now and then, with a
probability that grows with its age up to 5 %: no drift to a mean ever beats the best. Both were measured
(three members, log-normal times, mean time over the oracle's): with slowly drifting members at 0.5 requests/s
1.27 with a drift both ways and no probes, 1.12 so; with fixed ones at 0.05 requests/s 1.90 and 1.16.

**cost.** ``n_in * p_in - cached * n_in * (p_in - p_cached) + n_out * p_out`` for this request; tokens per
byte, cached share and output tokens as observed, drawn towards the pool's mean, so that an unknown member is
neither favoured nor shunned. A member without a price counts as dearer than all others: no price means
unknown, not free (a free model says 0). It is picked only where no priced one is left. Nothing is probed:
that would cost money.

**availability.** Success ratio with a prior of 10 successes; ties by latency.

**round-robin.** Smooth and weighted, as in nginx: each turn every candidate gains its weight, the highest
goes and pays the sum, so that weights 3 and 1 go A A B A and not A A A B.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from proxy.catalog import Deployment, Pool
from proxy.meters import Row
from proxy.usage import TOKENS_PER_BYTE

# Scores this close are a tie.
_NEAR = 0.02
# Expected first byte where no member of the pool was ever seen.
_DEFAULT_FIRST_BYTE_S = 1.0
# Expected output where no member of the pool was ever seen: a short chat answer.
_DEFAULT_OUTPUT_TOKENS = 300.0
# A probe's probability grows by this much per time constant since the member was last asked ...
_PROBE_PER_TAU = 0.005
# ... up to this. At 5 requests a second a slow member is asked about once a minute, at 0.05 every ten
# minutes.
_PROBE_MAX = 0.05
# Where a model without an output price can't be priced.
_WRITING_ENDPOINTS = frozenset({"chat", "completions", "responses", "messages"})
_NEVER = float("-inf")
_UNPRICED = float("inf")


class Facts(NamedTuple):
    """What the choice needs to know of a request.

    ``body_bytes`` is the size of the body, ``data_url_bytes`` that of the base64 data URLs in it (they are no
    text); ``images`` and ``tools`` say what the model must be able to take. ``now``: monotonic seconds.
    """

    endpoint: str
    streamed: bool
    body_bytes: int
    images: bool
    tools: bool
    data_url_bytes: int = 0
    now: float = 0.0


def choose(pool: Pool, facts: Facts, rng: Random) -> Deployment:
    """The member this request goes to. Only round-robin changes something: it takes a turn."""
    members = pool.members
    if len(members) == 1:
        return members[0]
    candidates = _candidates(pool, facts)
    if len(candidates) == 1:
        return members[candidates[0]]
    return members[_PICKS[pool.strategy](pool, candidates, facts, rng)]


def scores(pool: Pool, facts: Facts) -> list[tuple[Deployment, float | None, str | None]]:
    """What :func:`choose` would go by, for people: (member, score, None) or (member, None, why it is
    skipped).

    Members that the pool left out follow at the end. Units of the score: see the module's text; None for a
    pinned member, and where the price is unknown.
    """
    candidates = _candidates(pool, facts)
    by_index = dict(zip(candidates, _SCORES[pool.strategy](pool, candidates, facts), strict=True))
    result: list[tuple[Deployment, float | None, str | None]] = []
    for index, member in enumerate(pool.members):
        if index in by_index:
            score = by_index[index]
            result.append((member, None if score == _UNPRICED else score, None))
        else:
            result.append((member, None, _reason(pool, index, facts)))
    result.extend((member, None, reason) for member, reason in pool.left_out)
    return result


def _candidates(pool: Pool, facts: Facts) -> Sequence[int]:
    """Indices of the members that can take the request; never empty.

    Nearly always there is nothing to check but credentials. A token is at least a byte, so that a body
    smaller than every window needs no estimate.
    """
    min_context = pool.min_context
    if (
        (min_context is None or facts.body_bytes - facts.data_url_bytes <= min_context)
        and not (facts.images and pool.needs_vision_check)
        and not (facts.tools and pool.needs_tools_check)
    ):
        for member in pool.members:
            if not member.usable:
                break
        else:
            return pool.indices
    members = pool.members
    usable = [index for index in pool.indices if members[index].usable]
    if not usable:
        return (0,)
    # Where no usable member has the capability, the provider may say so: it knows better than our file.
    able = [index for index in usable if _lacking(pool, index, facts) is None] or usable
    fitting = [index for index in able if not _is_too_small(pool, index, facts)]
    return fitting or (max(able, key=lambda index: members[index].context_window or 0),)


def _lacking(pool: Pool, index: int, facts: Facts) -> str | None:
    capabilities = pool.members[index].capabilities
    if facts.images and pool.needs_vision_check and "vision" not in capabilities:
        return "takes no images"
    if facts.tools and pool.needs_tools_check and "tools" not in capabilities:
        return "takes no tools"
    return None


def _is_too_small(pool: Pool, index: int, facts: Facts) -> bool:
    window = pool.members[index].context_window
    return pool.min_context is not None and window is not None and _prompt_tokens(pool, index, facts) > window


def _prompt_tokens(pool: Pool, index: int, facts: Facts) -> float:
    text_bytes = facts.body_bytes - facts.data_url_bytes
    return text_bytes * _rows(pool, facts)[index].tokens_per_byte(facts.now)


def _reason(pool: Pool, index: int, facts: Facts) -> str:
    """Why a member is no candidate, in the order of the checks."""
    if not pool.members[index].usable:
        return "has no credentials"
    if lacking := _lacking(pool, index, facts):
        return lacking
    if _is_too_small(pool, index, facts):
        window, tokens = pool.members[index].context_window, _prompt_tokens(pool, index, facts)
        return f"context window of {window} tokens, the prompt has about {tokens:.0f}"
    return "another is the last resort"


def _rows(pool: Pool, facts: Facts) -> tuple[Row, ...]:
    return pool.streamed_rows if facts.streamed else pool.plain_rows


def _latency_scores(pool: Pool, candidates: Sequence[int], facts: Facts) -> list[float]:
    """Expected seconds to the first byte of a good answer.

    The prior is the mean of the others that were seen, or the member's own mean where that is lower.
    """
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    total = 0.0
    seen = 0
    for index in candidates:
        mean = rows[index].first_byte_s
        if mean.weight:
            total += mean.total / mean.weight
            seen += 1
    if not seen:
        total, seen = _DEFAULT_FIRST_BYTE_S, 1
    result = []
    for index in candidates:
        row = rows[index]
        mean = row.first_byte_s
        if not mean.weight:
            score = total / seen
        else:
            score = mean.total / mean.weight
            if score * seen > total:  # worse than the mean of all, so than that of the others
                score = mean.read(now, (total - score) / (seen - 1))
        success = row.success
        # Both sums fade alike, so they are equal to the last bit until something fails.
        if success.total != success.weight:
            score /= row.read_success(now)
        result.append(score)
    return result


def _cost_scores(pool: Pool, candidates: Sequence[int], facts: Facts) -> list[float]:
    """Expected USD of this request; infinite without a price."""
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    priors = _cost_priors(rows, candidates)
    text_bytes = facts.body_bytes - facts.data_url_bytes
    is_writing = pool.endpoint in _WRITING_ENDPOINTS
    result = []
    for index in candidates:
        input_pusd, cached_pusd, output_pusd = pool.members[index].prices
        if input_pusd is None or cached_pusd is None or (is_writing and output_pusd is None):
            result.append(_UNPRICED)
            continue
        per_byte, share, output = rows[index].charges.read(now, priors)
        cost_pusd = text_bytes * per_byte * (input_pusd - share * (input_pusd - cached_pusd))
        if output_pusd:
            cost_pusd += output * output_pusd
        result.append(cost_pusd * 1e-12)
    return result


def _cost_priors(rows: Sequence[Row], candidates: Sequence[int]) -> tuple[float, float, float]:
    """The pool's mean tokens per byte, cached share and output tokens, over the members that were seen."""
    per_byte = cached_share = output = 0.0
    seen = 0
    for index in candidates:
        ratios = rows[index].charges.ratios
        if ratios is not None:
            per_byte += ratios[0]
            cached_share += ratios[1]
            output += ratios[2]
            seen += 1
    if not seen:
        return TOKENS_PER_BYTE, 0.0, _DEFAULT_OUTPUT_TOKENS
    return per_byte / seen, cached_share / seen, output / seen


def _availability_scores(pool: Pool, candidates: Sequence[int], facts: Facts) -> list[float]:
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    now = facts.now
    result = []
    for index in candidates:
        success = rows[index].success
        result.append(1.0 if success.total == success.weight else rows[index].read_success(now))
    return result


def _turn_scores(pool: Pool, candidates: Sequence[int], facts: Facts) -> list[float]:
    return [pool.turns[index] + pool.members[index].weight for index in candidates]


def _pinned_scores(pool: Pool, candidates: Sequence[int], facts: Facts) -> list[float]:
    return [_UNPRICED for _ in candidates]


def _pick_latency(pool: Pool, candidates: Sequence[int], facts: Facts, rng: Random) -> int:
    rows = pool.streamed_rows if facts.streamed else pool.plain_rows
    oldest = candidates[0]
    oldest_s = rows[oldest].used_s
    for index in candidates:
        used_s = rows[index].used_s
        if used_s < oldest_s:
            oldest, oldest_s = index, used_s
    if oldest_s == _NEVER:
        never = [index for index in candidates if rows[index].used_s == _NEVER]
        return never[int(rng.random() * len(never))]
    age_taus = (facts.now - oldest_s) / rows[oldest].first_byte_s.tau_s
    if rng.random() < min(age_taus * _PROBE_PER_TAU, _PROBE_MAX):
        return oldest
    return _lowest(candidates, _latency_scores(pool, candidates, facts), rng)


def _pick_cost(pool: Pool, candidates: Sequence[int], facts: Facts, rng: Random) -> int:
    return _lowest(candidates, _cost_scores(pool, candidates, facts), rng)


def _pick_availability(pool: Pool, candidates: Sequence[int], facts: Facts, rng: Random) -> int:
    ratios = _availability_scores(pool, candidates, facts)
    least = max(ratios) * (1.0 - _NEAR)
    near = [index for index, ratio in zip(candidates, ratios, strict=True) if ratio >= least]
    return near[0] if len(near) == 1 else _pick_latency(pool, near, facts, rng)


def _pick_turn(pool: Pool, candidates: Sequence[int], facts: Facts, rng: Random) -> int:
    turns, members = pool.turns, pool.members
    paid = 0
    best = candidates[0]
    for index in candidates:
        weight = members[index].weight
        paid += weight
        turns[index] += weight
        if turns[index] > turns[best]:
            best = index
    turns[best] -= paid
    return best


def _lowest(candidates: Sequence[int], values: list[float], rng: Random) -> int:
    """The candidate with the lowest value, near-ties drawn at random."""
    limit = min(values) * (1.0 + _NEAR)
    near = [index for index, value in zip(candidates, values, strict=True) if value <= limit]
    return near[0] if len(near) == 1 else near[int(rng.random() * len(near))]


_PICKS: dict[str, Callable[[Pool, Sequence[int], Facts, Random], int]] = {
    "latency": _pick_latency,
    "cost": _pick_cost,
    "availability": _pick_availability,
    "round-robin": _pick_turn,
}
_SCORES: dict[str, Callable[[Pool, Sequence[int], Facts], list[float]]] = {
    "latency": _latency_scores,
    "cost": _cost_scores,
    "availability": _availability_scores,
    "round-robin": _turn_scores,
    "pinned": _pinned_scores,
}
