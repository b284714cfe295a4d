"""The live row of a deployment: what was seen of it lately, for one endpoint, streamed or plain.

A deployment has a row per endpoint and per streamed-or-not, because their first-byte times are different
quantities: a plain response's first byte comes when all of it is ready.

Times follow at the pace of ``half_life``. What a model costs (how much it writes, how its tokenizer counts,
how much of a prompt is cached) changes far slower than how fast it is, so those averages live longer:
forgetting a verbose model within two minutes would mean paying for that lesson again and again.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final
from zlib import crc32

from proxy.deployments.cost_estimate import CostEstimate
from proxy.deployments.decay import DecayedMean, tau_from
from proxy.deployments.escape import AnsweredTimes
from proxy.deployments.latency_estimate import LatencyEstimate
from proxy.deployments.pace import Pace
from proxy.deployments.reliability import HALF_LIVES, Reliability
from proxy.deployments.samples import (
    CHARGE,
    NOBODY_WAITS,
    PACE,
    PROBED,
    SLOW_PACE,
    TIME,
    WAITED,
    Elsewhere,
    SampleSink,
)
from proxy.deployments.silence import unanswered
from proxy.deployments.size_effect import MOSTLY_CACHED, SizeEffect
from proxy.deployments.votes import SAMPLES, Votes
from proxy.usage.response_usage import TOKENS_PER_BYTE
from proxy.usage.tokens import Usage

# Cost averages live this many times longer than latencies: of what was seen twelve hours ago, one request's
# worth is left, at a half-life of 30 s. Prompts change with the hour of the day, models by the month.
COST_HALF_LIVES: Final = 1000.0
# The success ratio starts as if this many requests had succeeded: one failure is not an outage.
SUCCESS_PRIOR: Final = 10.0
# Times kept for percentiles, and how many a 95th takes: below, it is the slowest of a few.
_LATEST: Final = 100
_LATEST_MIN: Final = 20
# Of a busy member 200 times and prices a second teach, and up to 64 in a burst (a leaky bucket, each with its
# own): no choice could tell the difference, and learning from all of them cost more than choosing.
SAMPLE_GAP_S: Final = 0.005
SAMPLE_BURST_S: Final = 63.5 * SAMPLE_GAP_S
# What can be true of a prompt: one that has fewer tokens a byte is white space and the JSON around it, more
# than one a byte no tokenizer makes, and half of that again is what a provider may add. Of short bodies the
# JSON is most: they say nothing.
_LEAST_PER_BYTE: Final = 0.1
_MOST_PER_BYTE: Final = 1.5
_LEAST_BYTES: Final = 200
# Tokens a second that a model may write of one answer: less is a queue, more a buffer that was emptied.
_LEAST_PACE: Final = 5.0
_MOST_PACE: Final = 2000.0
# What is late makes a pace look slower: the upper quartile of a few is nearer to it.
_PACE_SHARE: Final = 0.75
# Beyond the first, samples that bills go by are taken in so often: to look for a pace takes 0.1 ms.
VOTE_GAP_S: Final = 1.0
_NEVER: Final = float("-inf")
_FOREVER: Final = float("inf")
# An answer that is not there by a time comes after about twice that (Gott 1993). Taken for just that time, a
# hung member was probed by 2.3 % of the requests at 3/s, now by 1.5 %.
_UNSEEN: Final = 2.0
# An error text is for a person's eye, in a table.
_MAX_ERROR_CHARS: Final = 200


class Row:
    """The live figures of one deployment at one endpoint, streamed or plain.

    Life of an attempt: :meth:`sent`, and :meth:`asked` once all of the request is on its way; then
    :meth:`first_byte`, or :meth:`left_awaiting` where none came or it was that of an error; then
    :meth:`finished`, always; then :meth:`charged` if it had a usage. :class:`proxy.deployments.record.Record`
    does all of it. Called so, ``waiting`` is empty and ``in_flight`` zero when nothing runs.

    ``waiting``: attempt -> the time since which it waits for its first byte; the oldest is the first.
    ``heard_s``: send time of the newest request that was answered. ``unanswered_s``: seconds waited in vain
    before the first response ever. ``excused``: of the waiting, those whose prompt is longer than usual: the
    factor by which they take longer. ``answered``: the latest times, for a hedge; ``size``: the effect of the
    prompt's size, on streams.

    Everything is counted, but not everything teaches: see ``SAMPLE_GAP_S``.

    With several workers, samples are published through ``out`` under the row's ``key``, and ``elsewhere``
    has the requests that run at the others. ``good_count`` and ``finished_count`` are this worker's own.

    :param half_life_s: how fast the times follow, in seconds.
    """

    __slots__ = (
        "answered", "charge_free_at", "charges", "elsewhere", "endless", "excused", "finished_count",
        "finished_elsewhere", "good_begun_s", "good_count", "heard_s", "in_flight", "key", "last_error",
        "last_error_s", "latest_s", "out", "output_s_per_token", "pace", "pace_estimate", "pace_free_at",
        "per_byte", "per_byte_free_at", "reliability", "size", "speed", "success", "time_free_at",
        "unanswered_s", "used_s", "waiting", "writing",
    )  # fmt: skip

    def __init__(self, half_life_s: float) -> None:
        fast, slow = tau_from(half_life_s), tau_from(half_life_s * COST_HALF_LIVES)
        self.speed = LatencyEstimate(half_life_s)
        self.size = SizeEffect()
        self.answered = AnsweredTimes()
        self.writing = Pace(half_life_s)  # of streams
        self.pace_estimate = self.writing.estimate
        self.heard_s = _NEVER
        self.unanswered_s = 0.0
        self.output_s_per_token = DecayedMean(fast)
        self.pace = Votes(_LEAST_PACE, _MOST_PACE, _PACE_SHARE)  # tokens a second of one answer
        self.pace_free_at = self.per_byte_free_at = _NEVER
        self.per_byte = Votes(_LEAST_PER_BYTE, _MOST_PER_BYTE)  # tokens of a prompt for each byte of its text
        self.success = DecayedMean(fast)
        self.reliability = Reliability(tau_from(half_life_s * HALF_LIVES))
        self.charges = CostEstimate(slow)
        self.time_free_at = self.charge_free_at = _NEVER
        self.in_flight = 0
        self.waiting: dict[object, float] = {}
        self.excused: dict[object, float] = {}
        self.latest_s: deque[float] = deque(maxlen=_LATEST)
        self.finished_count = self.finished_elsewhere = 0
        self.endless = 0  # streams in a row that came to the end of their messages without saying so
        self.good_count = 0
        self.good_begun_s = _NEVER  # when the attempt began that succeeded last
        self.key = 0
        self.out: SampleSink | None = None
        self.elsewhere: Elsewhere = NOBODY_WAITS
        self.used_s = _NEVER
        self.last_error: str | None = None
        self.last_error_s = _NEVER

    def retune(self, half_life_s: float) -> None:
        """Follow a changed ``half_life`` of the configuration; what was learned stays."""
        self.output_s_per_token.tau_s = self.success.tau_s = tau_from(half_life_s)
        self.speed.retune(half_life_s)
        self.writing.estimate.retune(half_life_s)
        self.reliability.tau_s = tau_from(half_life_s * HALF_LIVES)
        self.charges.tau_s = tau_from(half_life_s * COST_HALF_LIVES)

    @property
    def awaiting(self) -> int:
        """Attempts that were sent and have no first byte yet."""
        return len(self.waiting)

    def sent(self, now: float) -> None:
        """An attempt starts. Call it right after the choice: it keeps a burst from all probing one member."""
        self.in_flight += 1
        self.used_s = max(self.used_s, now)

    def asked(self, attempt: object, now: float, prompt_bytes: int = 0) -> int:
        """All of the attempt's request is on its way: from here the provider's time counts.

        :param prompt_bytes: of a stream's prompt; 0: unknown.
        :returns: how many others were in flight, for :meth:`first_byte`.
        """
        self.waiting[attempt] = now
        if self.size.slope and prompt_bytes > self.size.usual_bytes:
            self.excused[attempt] = self.size.factor(prompt_bytes)
        return max(0, self.in_flight - 1) + self.elsewhere.in_flight

    def first_byte(self, attempt: object, now: float, level: int, prompt_bytes: int = 0) -> None:
        """The attempt's first body byte came.

        Only for answers that count as a success: a provider that refuses within 20 ms is not fast. For others
        call :meth:`left_awaiting`.

        :param level: as :meth:`asked` returned it. :param prompt_bytes: as for :meth:`asked`.
        """
        asked_s = self._waited(attempt)
        if asked_s is None:
            return  # a response to half a request: it tells no time
        self.heard_s = max(self.heard_s, asked_s)
        free_at = self.time_free_at
        if free_at <= now + SAMPLE_BURST_S:
            self.time_free_at = (free_at if free_at > now else now) + SAMPLE_GAP_S
            seconds = now - asked_s
            self.learn_time(seconds, now, level, prompt_bytes)
            if self.out is not None:
                self.out.publish(TIME, self.key, now, seconds, level, prompt_bytes)

    def learn_time(self, seconds: float, now: float, level: int, prompt_bytes: int = 0) -> None:
        """A first byte came after ``seconds``, at ``now``; the rest: as for :meth:`first_byte`."""
        self.heard_s = max(self.heard_s, now - seconds)
        self.latest_s.append(seconds)
        usual_s = seconds
        if prompt_bytes:
            size, speed = self.size, self.speed
            usual_s = seconds / size.factor(prompt_bytes) if size.slope else seconds
            ratios = self.charges.ratios
            if ratios is None or ratios[1] <= MOSTLY_CACHED:
                speed.scale(size.add(seconds / speed.load_factor(level), speed.mean_s, prompt_bytes))
            elif size.count:
                self.size = SizeEffect()
        self.answered.add(usual_s)
        self.speed.add(usual_s, now, level)

    def _waited(self, attempt: object) -> float | None:
        """Since when the attempt waits, which it no longer does."""
        if self.excused:
            self.excused.pop(attempt, None)
        return self.waiting.pop(attempt, None)

    def left_awaiting(self, attempt: object, now: float, *, patient: bool) -> None:
        """The attempt no longer waits for a first byte: it failed, was an error, or the client left.

        :param patient: it could have waited on. What it waited then says something only if it is longer than
            usual: a first byte would have come later still. At a member that never answered, all such
            waits add up, so that one whose requests are always cancelled stops being chosen.
        """
        factor = self.excused.get(attempt, 1.0)
        asked_s = self._waited(attempt)
        if asked_s is None or not patient:
            return
        waited_s = (now - asked_s) / factor
        self.learn_wait(waited_s, now)
        if self.out is not None:
            self.out.publish(WAITED, self.key, now, waited_s)

    def learn_wait(self, waited_s: float, now: float) -> None:
        """Record that a client waited in vain, until ``now``."""
        mean_s = self.speed.mean_s
        if not mean_s:
            self.unanswered_s += max(0.0, waited_s)
        elif waited_s > mean_s:
            self.speed.add(_UNSEEN * waited_s, now)

    def size_factor(self, prompt_bytes: int) -> float:
        """Return the factor by which a prompt of that size takes longer than a usual one; 1: not known."""
        return self.size.factor(prompt_bytes) if prompt_bytes and self.size.slope else 1.0

    def silent_s(self, now: float) -> float:
        """Since when the oldest request waits that no later one overtook; 0 where chance explains it."""
        (oldest_s, count), elsewhere = self.unanswered(now), self.elsewhere
        if elsewhere.unanswered and elsewhere.oldest_s > self.heard_s:
            oldest_s = min(oldest_s, elsewhere.oldest_s)
            count += elsewhere.unanswered
        if not count:
            return 0.0
        silent_s = now - oldest_s
        return silent_s if self.speed.is_overdue(silent_s, count) else 0.0

    def unanswered(self, now: float) -> tuple[float, int]:
        """Since when the oldest request of this worker waits that no later one overtook, and how many do."""
        return unanswered(self.waiting, self.excused, self.heard_s, now)

    def finished(self, now: float, success: bool | None, error: str | None = None) -> None:
        """The attempt is over.

        :param success: False is a failure to blame on the provider; None (the client left) says nothing of
            it.
        :param error: what went wrong, in a few words, never with anything of a body.
        """
        self.in_flight -= 1
        self.finished_count += 1
        if success:
            self.count_good(now)
            self.good_count += 1
        elif success is not None:
            self.count_failure(now)
        if error is not None:
            self.note_error(error, now)

    def count_good(self, now: float, requests: float = 1.0) -> None:
        """Count requests that succeeded."""
        self.success.add(requests, now, requests)
        self.reliability.add(0.0, requests, now)

    def count_failure(self, now: float) -> None:
        """Count a failure to blame on the member."""
        self.success.add(0.0, now)
        self.reliability.add(1.0, 1.0, now)

    def note_error(self, error: str, now: float) -> None:
        """The last error, for people."""
        self.last_error, self.last_error_s = error[:_MAX_ERROR_CHARS], now

    def charged(
        self, now: float, body_bytes: int, usage: Usage, usd: float | None, output_s: float = 0.0,
        key_id: str | None = "", passed_bytes: int = 0,
    ) -> None:  # fmt: skip
        """Learn from the provider's usage of a finished attempt; our own estimates teach nothing.

        :param body_bytes: size of the request body, base64 data URLs left out.
        :param usd: what was charged; None (no price) counts as 0.
        :param output_s: seconds from the first to the last byte of a stream; 0 leaves the pace alone.
        :param passed_bytes: of the stream, events and all; 0: unknown.
        :param key_id: of the gateway key whose request it was; None: its prompt had more than text, and tells
            nothing of tokens a byte.
        """
        free_at = self.charge_free_at
        if usage.estimated or free_at > now + SAMPLE_BURST_S:
            return
        self.charge_free_at = (free_at if free_at > now else now) + SAMPLE_GAP_S
        is_due = now >= self.per_byte_free_at or self.per_byte.count < SAMPLES
        is_vote = is_due and key_id is not None and body_bytes >= _LEAST_BYTES
        whose = crc32((key_id or "").encode()) if is_vote else -1
        self.learn_charge(now, body_bytes, usage, usd or 0.0, output_s, whose, passed_bytes)
        if self.out is not None:
            tokens = usage.input_tokens, usage.cached_tokens, usage.output_tokens
            self.out.publish(CHARGE, self.key, now, body_bytes, *tokens, usd or 0.0, output_s, whose)

    def learn_charge(
        self, now: float, body_bytes: int, usage: Usage, usd: float, output_s: float, whose: int = -1,
        passed_bytes: int = 0,
    ) -> None:  # fmt: skip
        """Take the charge of one request as a sample; see :meth:`charged`.

        :param whose: the key's vote of tokens a byte; -1: it has no vote.
        """
        self.charges.add(now, body_bytes, usage, usd)
        if output_s > 0.0:
            self.output_s_per_token.add(output_s, now, usage.output_tokens)
            self.writing.ended(output_s, usage.output_tokens, passed_bytes, now)
        if whose >= 0 and self.per_byte.add(usage.input_tokens / body_bytes, whose):
            self.per_byte_free_at = now + VOTE_GAP_S

    def progressed(self, now: float, seconds: float, passed_bytes: int) -> bool:
        """Learn from ``seconds`` of a running stream, in which ``passed_bytes`` came; True if it is slow."""
        slow_s = self.writing.slow_s(seconds, passed_bytes)
        if not slow_s:
            return False
        self.writing.estimate.add(slow_s, now)
        if self.out is not None:
            self.out.publish(SLOW_PACE, self.key, now, slow_s)
        return True

    def wants_pace(self, now: float) -> bool:
        """Return whether the next response's pace is worth looking for."""
        return now >= self.pace_free_at or self.pace.count < SAMPLES

    def paced(self, now: float, tokens_per_s: float, key_id: str) -> None:
        """Learn how fast one answer was written, to a request of a key."""
        whose = crc32(key_id.encode())
        if not self.pace.add(tokens_per_s, whose):
            return
        self.pace_free_at = now + VOTE_GAP_S
        if self.out is not None:
            self.out.publish(PACE, self.key, now, tokens_per_s, whose)

    def probed(self, now: float) -> None:
        """A request is sent to learn what one costs here."""
        self.charges.probed(now)
        if self.out is not None:
            self.out.publish(PROBED, self.key, now)

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
        """Return whether more than ``rate`` of the requests failed lately, out of enough to tell."""
        success = self.success
        if success.weight_at(now) < SUCCESS_PRIOR:
            return False
        return success.total < (1.0 - rate) * success.weight

    def forget_failures(self) -> None:
        """The member is back after an ejection: what led to it is no longer held against it."""
        self.success.total = self.success.weight = 0.0

    def snapshot(self, now: float) -> dict[str, Any]:
        """The row for people: averages of what was seen (None: nothing), what that still weighs, its age."""
        pace, charges = self.output_s_per_token.mean(), self.charges
        oldest_s = min(next(iter(self.waiting.values()), _FOREVER), self.elsewhere.oldest_s)
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
            "finished": self.finished_count + self.finished_elsewhere,
            "in_flight": self.in_flight + self.elsewhere.in_flight,
            "awaiting": self.awaiting + self.elsewhere.awaiting,
            "oldest_waiting_s": None if oldest_s == _FOREVER else max(0.0, now - oldest_s),
            "age_s": None if self.used_s == _NEVER else max(0.0, now - self.used_s),
            "last_error": self.last_error,
            "last_error_age_s": None if self.last_error is None else max(0.0, now - self.last_error_s),
        }

    def __repr__(self) -> str:
        return f"<Row in_flight={self.in_flight} awaiting={self.awaiting} {self.speed!r}>"
