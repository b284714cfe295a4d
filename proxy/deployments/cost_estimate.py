"""The expected cost of a deployment's requests: ratios of sums over the requests whose usage is known."""

from __future__ import annotations

from typing import Final

from proxy.usage.tokens import Usage

# Weights of the priors of the ratios, in their own denominators: about one small request.
PRIOR_BYTES: Final = 1000.0
PRIOR_TOKENS: Final = 100.0
# That of the output tokens is two: lengths differ by a factor of e from one answer to the next (as a standard
# deviation of their logarithm), and between models, for the same prompts, by one of two: 1.0**2 / 0.7**2.
PRIOR_REQUESTS: Final = 2.0


class CostEstimate:
    """The charges of finished requests: fading sums that always get their samples together.

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
        """Return the share of the sums that is left at ``now``, from 1 down."""
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
