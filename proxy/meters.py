"""The live row of a deployment: what was seen of it lately, for one endpoint, streamed or plain.

A deployment has a row per endpoint and per streamed-or-not, because their first-byte times are different
quantities: a plain answer's first byte comes when all of it is ready.

Times follow at the pace of ``half_life``. What a model costs (how much it writes, how its tokenizer counts,
how much of a prompt is cached) changes far slower than how fast it is, so those averages live longer:
forgetting a verbose model within two minutes would mean paying for that lesson again and again.
"""

from __future__ import annotations

from math import exp
from typing import Any

from proxy.decay import DecayedMean, tau_from
from proxy.usage import TOKENS_PER_BYTE, Usage

# Cost averages live this many times longer than latencies.
COST_HALF_LIVES = 20.0
# The success ratio starts as if so many requests had succeeded: one failure is no outage.
SUCCESS_PRIOR = 10.0
# Weights of the priors of the ratios, in their own denominators: about one small request.
PRIOR_BYTES = 1000.0
PRIOR_TOKENS = 100.0
_NEVER = float("-inf")
# An error text is for a person's eye, in a table.
_MAX_ERROR_CHARS = 200


class Charges:
    """What finished requests were charged for: decayed sums that always get their samples together.

    They share one stamp, so that a score takes one exponential and not three; the formula is that of
    :class:`proxy.decay.DecayedMean`, as ratios of sums.

    ``ratios``: tokens per byte, cached share and output tokens a request, of the samples alone; None before
    the first. Fading cancels out in them, so they only change with a sample, and choosing reads them
    ready-made.

    :param tau_s: time constant in seconds.
    """

    __slots__ = (
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
        self.requests = 0.0
        self.body_bytes = 0.0
        self.input_tokens = 0.0
        self.cached_tokens = 0.0
        self.output_tokens = 0.0
        self.usd = 0.0
        self.ratios: tuple[float, float, float] | None = None
        self.stamp_s = 0.0
        self.tau_s = tau_s

    def add(self, now: float, body_bytes: int, usage: Usage, usd: float) -> None:
        """Count one request; see :meth:`Row.charged`."""
        age = now - self.stamp_s
        fade = exp(-age / self.tau_s) if age > 0.0 else 1.0
        # A token is at least a byte of text; what is more comes from images, which these bytes don't show.
        input_tokens = min(usage.input_tokens, body_bytes)
        self.requests = self.requests * fade + 1.0
        self.body_bytes = self.body_bytes * fade + body_bytes
        self.input_tokens = self.input_tokens * fade + input_tokens
        self.cached_tokens = self.cached_tokens * fade + min(usage.cached_tokens, input_tokens)
        self.output_tokens = self.output_tokens * fade + usage.output_tokens
        self.usd = self.usd * fade + usd
        if age > 0.0:
            self.stamp_s = now
        if self.body_bytes:
            share = self.cached_tokens / self.input_tokens if self.input_tokens else 0.0
            self.ratios = self.input_tokens / self.body_bytes, share, self.output_tokens / self.requests

    def read(self, now: float, priors: tuple[float, float, float]) -> tuple[float, float, float]:
        """The three ratios at ``now``, drawn towards ``priors`` as the samples fade."""
        age = now - self.stamp_s
        fade = exp(-age / self.tau_s) if age > 0.0 else 1.0
        input_tokens = self.input_tokens * fade
        return (
            (input_tokens + PRIOR_BYTES * priors[0]) / (self.body_bytes * fade + PRIOR_BYTES),
            (self.cached_tokens * fade + PRIOR_TOKENS * priors[1]) / (input_tokens + PRIOR_TOKENS),
            (self.output_tokens * fade + priors[2]) / (self.requests * fade + 1.0),
        )


class Row:
    """What is known of one deployment at one endpoint, streamed or plain.

    Life of an attempt: :meth:`sent`; then :meth:`first_byte`, or :meth:`left_awaiting` where none came or it
    was that of an error; then :meth:`finished`, always; then :meth:`charged` if it had a usage. Called so,
    ``awaiting`` and ``in_flight`` are zero when nothing runs.

    :param half_life_s: how fast the times follow, in seconds.
    """

    __slots__ = (
        "awaiting",
        "charges",
        "finished_count",
        "first_byte_s",
        "in_flight",
        "last_error",
        "last_error_s",
        "output_s_per_token",
        "success",
        "used_s",
    )

    def __init__(self, half_life_s: float) -> None:
        fast, slow = tau_from(half_life_s), tau_from(half_life_s * COST_HALF_LIVES)
        self.first_byte_s = DecayedMean(fast)
        self.output_s_per_token = DecayedMean(fast)
        self.success = DecayedMean(fast)
        self.charges = Charges(slow)
        self.in_flight = 0
        self.awaiting = 0
        self.finished_count = 0
        self.used_s = _NEVER
        self.last_error: str | None = None
        self.last_error_s = _NEVER

    def retune(self, half_life_s: float) -> None:
        """Follow a changed ``half_life`` of the configuration; what was learned stays."""
        for mean in (self.first_byte_s, self.output_s_per_token, self.success):
            mean.tau_s = tau_from(half_life_s)
        self.charges.tau_s = tau_from(half_life_s * COST_HALF_LIVES)

    def sent(self, now: float) -> None:
        """An attempt starts. Call it right after the choice: it keeps a burst from all probing one member."""
        self.in_flight += 1
        self.awaiting += 1
        self.used_s = max(self.used_s, now)

    def first_byte(self, seconds: float, now: float) -> None:
        """The first body byte came ``seconds`` after the attempt's start.

        Only for answers that count as a success: a provider that refuses within 20 ms is not fast. For others
        call
        :meth:`left_awaiting`.
        """
        self.awaiting -= 1
        self.first_byte_s.add(seconds, now)

    def left_awaiting(self) -> None:
        """The attempt no longer waits for a first byte: it failed, was an error, or the client left."""
        self.awaiting -= 1

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
        if usage.estimated:
            return
        self.charges.add(now, body_bytes, usage, usd or 0.0)
        if output_s > 0.0:
            self.output_s_per_token.add(output_s, now, usage.output_tokens)

    def tokens_per_byte(self, now: float) -> float:
        """Prompt tokens per body byte, between 0 and 1."""
        return self.charges.read(now, (TOKENS_PER_BYTE, 0.0, 0.0))[0]

    def read_success(self, now: float) -> float:
        """The share of requests that succeeded lately, between 0 and 1."""
        return self.success.read(now, 1.0, SUCCESS_PRIOR)

    def snapshot(self, now: float) -> dict[str, Any]:
        """The row for people: averages of what was seen (None: nothing), what that still weighs, its age."""
        pace = self.output_s_per_token.mean()
        charges = self.charges
        per_byte, cached_share, output_tokens = charges.ratios or (None, None, None)
        return {
            "first_byte_s": self.first_byte_s.mean(),
            "first_byte_weight": self.first_byte_s.weight_at(now),
            "output_tokens_per_s": 1.0 / pace if pace else None,
            "output_tokens": output_tokens,
            "tokens_per_byte": per_byte,
            "cached_share": cached_share,
            "usd_per_request": charges.usd / charges.requests if charges.requests else None,
            "success": self.read_success(now),
            "finished": self.finished_count,
            "in_flight": self.in_flight,
            "awaiting": self.awaiting,
            "age_s": None if self.used_s == _NEVER else max(0.0, now - self.used_s),
            "last_error": self.last_error,
            "last_error_age_s": None if self.last_error is None else max(0.0, now - self.last_error_s),
        }

    def __repr__(self) -> str:
        mean_s = self.first_byte_s.mean()
        return f"<Row in_flight={self.in_flight} awaiting={self.awaiting} first_byte_s={mean_s}>"
