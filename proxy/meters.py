"""The live row of a deployment: what was seen of it lately, for one endpoint, streamed or plain.

A deployment has a row per endpoint and per streamed-or-not, because their first-byte times are different
quantities: a plain answer's first byte comes when all of it is ready.

Times follow at the pace of ``half_life``. What a model costs (how much it writes, how its tokenizer counts,
how much of a prompt is cached) changes far slower than how fast it is, so those averages live longer:
forgetting a verbose model within two minutes would mean paying for that lesson again and again.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from proxy.decay import DecayedMean, tau_from
from proxy.speed import Speed
from proxy.usage import TOKENS_PER_BYTE, Usage

# Cost averages live this many times longer than latencies: of what was seen twelve hours ago, one request's
# worth is left, at a half-life of 30 s. Prompts change with the hour of the day, models by the month.
COST_HALF_LIVES = 1000.0
# The success ratio starts as if so many requests had succeeded: one failure is no outage.
SUCCESS_PRIOR = 10.0
# Weights of the priors of the ratios, in their own denominators: about one small request.
PRIOR_BYTES = 1000.0
PRIOR_TOKENS = 100.0
# That of the output tokens is two: lengths differ by a factor of e from one answer to the next (as a standard
# deviation of their logarithm), and between models, for the same prompts, by one of two: 1.0**2 / 0.7**2.
PRIOR_REQUESTS = 2.0
# Times kept for their percentiles, and how many it takes for a 95th: below, it is the slowest of a few.
_LATEST = 100
_LATEST_MIN = 20
# Of a busy member 200 times and prices a second teach, and up to 64 in a burst (a leaky bucket, each with its
# own): no choice could tell the difference, and learning from all of them cost more than choosing.
SAMPLE_GAP_S = 0.005
SAMPLE_BURST_S = 63.5 * SAMPLE_GAP_S
# Requests that later ones overtook, looked through for the first that none did.
_OVERTAKEN = 8
_NEVER = float("-inf")
# An error text is for a person's eye, in a table.
_MAX_ERROR_CHARS = 200


class Charges:
    """What finished requests were charged for: fading sums that always get their samples together.

    What ``n`` requests told is worth ``n / (1 + n * age / tau)`` after ``age``: the variance of the average
    of a quantity that wanders at random grows evenly with time, by one request's own in ``tau`` (Kalman, "A
    New Approach to Linear Filtering and Prediction Problems", 1960). So the averages span the latest
    ``sqrt(rate * tau)`` requests: 465 at 5 a second, where a change shows within two minutes, and seven of
    those that come once in a quarter of an hour. An exponential fade would forget those each time, or follow
    busy members by the day. They share one stamp, and are read as ratios of sums.

    ``requests``: how many taught something. ``asked``: those, or more where some that were asked to learn
    from them have not answered yet or told no usage.

    ``ratios``: tokens per byte, cached share and output tokens a request, of the samples alone; None before
    the first. Fading cancels out in them, so they only change with a sample, and choosing reads them
    ready-made.

    :param tau_s: time constant in seconds.
    """

    __slots__ = (
        "asked",
        "body_bytes",
        "cached_tokens",
        "input_tokens",
        "output_tokens",
        "ratios",
        "requests",
        "stamp_s",
        "tau_s",
        "usd",
    )

    def __init__(self, tau_s: float) -> None:
        self.asked = 0.0
        self.requests = 0.0
        self.body_bytes = 0.0
        self.input_tokens = 0.0
        self.cached_tokens = 0.0
        self.output_tokens = 0.0
        self.usd = 0.0
        self.ratios: tuple[float, float, float] | None = None
        self.stamp_s = 0.0
        self.tau_s = tau_s

    def fade(self, now: float) -> float:
        """How much is left of the sums at ``now``, from 1 down."""
        age = now - self.stamp_s
        return 1.0 / (1.0 + self.asked * age / self.tau_s) if age > 0.0 else 1.0

    def probed(self, now: float) -> None:
        """A request is sent to learn from it; so it counts from now on, even if it should tell nothing."""
        fade = self.fade(now)
        self.asked = self.asked * fade + 1.0
        self.requests *= fade
        self.body_bytes *= fade
        self.input_tokens *= fade
        self.cached_tokens *= fade
        self.output_tokens *= fade
        self.usd *= fade
        self.stamp_s = max(self.stamp_s, now)

    def add(self, now: float, body_bytes: int, usage: Usage, usd: float) -> None:
        """Count one request; see :meth:`Row.charged`."""
        fade = self.fade(now)
        # A token is at least a byte of text; what is more comes from images, which these bytes don't show.
        input_tokens = min(usage.input_tokens, body_bytes)
        self.requests = self.requests * fade + 1.0
        self.asked = max(self.asked * fade, self.requests)
        self.body_bytes = self.body_bytes * fade + body_bytes
        self.input_tokens = self.input_tokens * fade + input_tokens
        self.cached_tokens = self.cached_tokens * fade + min(usage.cached_tokens, input_tokens)
        self.output_tokens = self.output_tokens * fade + usage.output_tokens
        self.usd = self.usd * fade + usd
        self.stamp_s = max(self.stamp_s, now)
        if self.body_bytes:
            share = self.cached_tokens / self.input_tokens if self.input_tokens else 0.0
            self.ratios = self.input_tokens / self.body_bytes, share, self.output_tokens / self.requests

    def estimate(self, now: float, priors: tuple[float, float, float]) -> tuple[float, float, float, float]:
        """The three ratios at ``now``, drawn towards ``priors`` as the samples fade; and how many requests
        tell of the last one, the prior's two among them.
        """
        age = now - self.stamp_s
        fade = 1.0 / (1.0 + self.asked * age / self.tau_s) if age > 0.0 else 1.0  # as in fade()
        per_byte, share, output_tokens = priors
        input_tokens = self.input_tokens * fade
        return (
            (input_tokens + PRIOR_BYTES * per_byte) / (self.body_bytes * fade + PRIOR_BYTES),
            (self.cached_tokens * fade + PRIOR_TOKENS * share) / (input_tokens + PRIOR_TOKENS),
            (self.output_tokens * fade + PRIOR_REQUESTS * output_tokens)
            / (self.requests * fade + PRIOR_REQUESTS),
            self.asked * fade + PRIOR_REQUESTS,
        )

    def read(self, now: float, priors: tuple[float, float, float]) -> tuple[float, float, float]:
        """The three ratios alone."""
        return self.estimate(now, priors)[:3]


class Row:
    """What is known of one deployment at one endpoint, streamed or plain.

    Life of an attempt: :meth:`sent`, and :meth:`asked` once all of the request is on its way; then
    :meth:`first_byte`, or :meth:`left_awaiting` where none came or it was that of an error; then
    :meth:`finished`, always; then :meth:`charged` if it had a usage. :class:`proxy.record.Record` does all of
    it. Called so, ``waiting`` is empty and ``in_flight`` zero when nothing runs.

    ``waiting``: attempt -> since when it waits for its first byte; the oldest is the first. ``heard_s``: when
    the latest request was asked that has been answered. ``unanswered_s``: what was waited for nothing before
    the first answer.

    Everything is counted, but not everything teaches: see ``SAMPLE_GAP_S``.

    :param half_life_s: how fast the times follow, in seconds.
    """

    __slots__ = (
        "charge_free_at",
        "charges",
        "finished_count",
        "heard_s",
        "in_flight",
        "last_error",
        "last_error_s",
        "latest_s",
        "output_s_per_token",
        "speed",
        "success",
        "time_free_at",
        "unanswered_s",
        "used_s",
        "waiting",
    )

    def __init__(self, half_life_s: float) -> None:
        fast, slow = tau_from(half_life_s), tau_from(half_life_s * COST_HALF_LIVES)
        self.speed = Speed(half_life_s)
        self.heard_s = _NEVER
        self.unanswered_s = 0.0
        self.output_s_per_token = DecayedMean(fast)
        self.success = DecayedMean(fast)
        self.charges = Charges(slow)
        self.time_free_at = self.charge_free_at = _NEVER
        self.in_flight = 0
        self.waiting: dict[object, float] = {}
        self.latest_s: deque[float] = deque(maxlen=_LATEST)
        self.finished_count = 0
        self.used_s = _NEVER
        self.last_error: str | None = None
        self.last_error_s = _NEVER

    def retune(self, half_life_s: float) -> None:
        """Follow a changed ``half_life`` of the configuration; what was learned stays."""
        for mean in (self.output_s_per_token, self.success):
            mean.tau_s = tau_from(half_life_s)
        self.speed.retune(half_life_s)
        self.charges.tau_s = tau_from(half_life_s * COST_HALF_LIVES)

    @property
    def awaiting(self) -> int:
        """Attempts that were sent and have no first byte yet."""
        return len(self.waiting)

    def sent(self, now: float) -> None:
        """An attempt starts. Call it right after the choice: it keeps a burst from all probing one member."""
        self.in_flight += 1
        self.used_s = max(self.used_s, now)

    def asked(self, attempt: object, now: float) -> int:
        """All of the attempt's request is on its way: from here the provider's time counts.

        :returns: how many others were in flight, for :meth:`first_byte`.
        """
        self.waiting[attempt] = now
        return max(0, self.in_flight - 1)

    def first_byte(self, attempt: object, now: float, level: int) -> None:
        """The attempt's first body byte came.

        Only for answers that count as a success: a provider that refuses within 20 ms is not fast. For others
        call :meth:`left_awaiting`.

        :param level: as :meth:`asked` returned it.
        """
        asked_s = self.waiting.pop(attempt, None)
        if asked_s is None:
            return  # an answer to half a request: it tells no time
        self.heard_s = max(self.heard_s, asked_s)
        free_at = self.time_free_at
        if free_at <= now + SAMPLE_BURST_S:
            self.time_free_at = (free_at if free_at > now else now) + SAMPLE_GAP_S
            seconds = now - asked_s
            self.speed.add(seconds, now, level)
            self.latest_s.append(seconds)

    def left_awaiting(self, attempt: object, now: float, *, patient: bool) -> None:
        """The attempt no longer waits for a first byte: it failed, was an error, or the client left.

        :param patient: it could have waited on. What it waited then says something only if it is longer than
            usual: a first byte would have come later still. At a member that never answered, all such
            waits add up, so that one whose requests are all cancelled gets no more for ever.
        """
        asked_s = self.waiting.pop(attempt, None)
        if asked_s is None or not patient:
            return
        waited_s = now - asked_s
        mean_s = self.speed.mean_s
        if not mean_s:
            self.unanswered_s += max(0.0, waited_s)
        elif waited_s > mean_s:
            self.speed.add(waited_s, now)

    def silent_s(self, now: float) -> float:
        """Since when the oldest request waits that no later one overtook; 0 where chance explains it."""
        heard_s = self.heard_s
        overtaken = 0
        oldest_s = heard_s
        for asked_s in self.waiting.values():
            if asked_s > heard_s:
                oldest_s = asked_s
                break
            overtaken += 1
            if overtaken == _OVERTAKEN:
                break  # so busy a member that the next was asked right after
        else:
            return 0.0
        silent_s = now - oldest_s
        return silent_s if self.speed.is_overdue(silent_s, len(self.waiting) - overtaken) else 0.0

    def finished(self, now: float, success: bool | None, error: str | None = None) -> None:
        """The attempt is over.

        :param success: False is a failure to blame on the provider; None (the client left) says nothing of
            it.
        :param error: what went wrong, in a few words, never with anything of a body.
        """
        self.in_flight -= 1
        self.finished_count += 1
        if success is not None:
            self.success.add(1.0 if success else 0.0, now)
        if error is not None:
            self.last_error = error[:_MAX_ERROR_CHARS]
            self.last_error_s = now

    def charged(
        self, now: float, body_bytes: int, usage: Usage, usd: float | None, output_s: float = 0.0
    ) -> None:
        """Learn from the provider's usage of a finished attempt; our own estimates teach nothing.

        :param body_bytes: size of the request body, base64 data URLs left out.
        :param usd: what was charged; None (no price) counts as 0.
        :param output_s: seconds from the first to the last byte of a stream; 0 leaves the pace alone.
        """
        free_at = self.charge_free_at
        if usage.estimated or free_at > now + SAMPLE_BURST_S:
            return
        self.charge_free_at = (free_at if free_at > now else now) + SAMPLE_GAP_S
        self.charges.add(now, body_bytes, usage, usd or 0.0)
        if output_s > 0.0:
            self.output_s_per_token.add(output_s, now, usage.output_tokens)

    def tokens_per_byte(self, now: float) -> float:
        """Prompt tokens per body byte, between 0 and 1."""
        return self.charges.read(now, (TOKENS_PER_BYTE, 0.0, 0.0))[0]

    def read_success(self, now: float) -> float:
        """The share of requests that succeeded lately, between 0 and 1."""
        return self.success.read(now, 1.0, SUCCESS_PRIOR)

    def usual_wait_s(self) -> float | None:
        """The 95th percentile of the latest times to the first byte; None where too few were seen."""
        if len(self.latest_s) < _LATEST_MIN:
            return None
        ordered = sorted(self.latest_s)
        return ordered[int(0.95 * len(ordered))]

    def mostly_fails(self, now: float, rate: float) -> bool:
        """Whether more than ``rate`` of the requests failed lately, out of enough to tell."""
        success = self.success
        if success.weight_at(now) < SUCCESS_PRIOR:
            return False
        return success.total < (1.0 - rate) * success.weight

    def forget_failures(self) -> None:
        """The member is back after an ejection: what led to it is no longer held against it."""
        self.success.total = self.success.weight = 0.0

    def snapshot(self, now: float) -> dict[str, Any]:
        """The row for people: averages of what was seen (None: nothing), what that still weighs, its age."""
        pace = self.output_s_per_token.mean()
        charges = self.charges
        per_byte, cached_share, output_tokens = charges.ratios or (None, None, None)
        return {
            "first_byte_s": self.speed.typical_s(),
            "first_byte_samples": self.speed.count,
            "output_tokens_per_s": 1.0 / pace if pace else None,
            "output_tokens": output_tokens,
            "tokens_per_byte": per_byte,
            "cached_share": cached_share,
            "usd_per_request": charges.usd / charges.requests if charges.requests else None,
            "success": self.read_success(now),
            "finished": self.finished_count,
            "in_flight": self.in_flight,
            "awaiting": self.awaiting,
            "oldest_waiting_s": max(0.0, now - next(iter(self.waiting.values()))) if self.waiting else None,
            "age_s": None if self.used_s == _NEVER else max(0.0, now - self.used_s),
            "last_error": self.last_error,
            "last_error_age_s": None if self.last_error is None else max(0.0, now - self.last_error_s),
        }

    def __repr__(self) -> str:
        return f"<Row in_flight={self.in_flight} awaiting={self.awaiting} {self.speed!r}>"
