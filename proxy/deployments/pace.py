"""The pace at which a member writes a stream now, in seconds per output token, learned while streams run.

A stream that has ended tells its pace exactly, but a member that stalls lets few of them end: at 8 % of its
pace an answer of five seconds takes a minute, and all that time new requests would go there. So a running
stream is looked at now and then (:meth:`proxy.deployments.record.Record.progressed`). What comes is counted
in bytes; the tokens follow from the bytes a token that ended streams had. Only an interval far slower than
usual teaches, and only once a stream: a client's own slow stream must not pass for many witnesses.

The filter is that of first outputs (:mod:`proxy.deployments.latency_estimate`): it drifts, and jumps where a
few samples agree.
"""

from __future__ import annotations

from typing import Final

from proxy.deployments.latency_estimate import LatencyEstimate

# An answer of fewer tokens comes in one or two pieces, and its pace is luck.
LEAST_TOKENS: Final = 8
# An interval that is slower by this factor is told at once. Streams differ by less.
SLOW: Final = 2.5
# Samples that the bytes a token remember.
_SAMPLES: Final = 50.0
# What is seen of an interval without any byte: it has at least not come yet.
_LEAST_SHARE: Final = 0.25


class Pace:
    """The pace of one row. ``bytes_per_token``: of the stream, events and all; 0 before the first.

    :param half_life_s: how fast changes are believed, in seconds.
    """

    __slots__ = ("bytes_per_token", "count", "estimate")

    def __init__(self, half_life_s: float) -> None:
        self.estimate = LatencyEstimate(half_life_s)
        self.bytes_per_token = 0.0
        self.count = 0.0

    def ended(self, output_s: float, tokens: int, passed_bytes: int, now: float) -> None:
        """A stream ended: ``tokens`` came within ``output_s`` seconds, as ``passed_bytes`` (0: unknown)."""
        if output_s <= 0.0 or tokens < LEAST_TOKENS:
            return
        self.estimate.add(output_s / tokens, now)
        if passed_bytes:
            self.count += 1.0
            share = 1.0 / min(self.count, _SAMPLES)
            self.bytes_per_token += share * (passed_bytes / tokens - self.bytes_per_token)

    def slow_s(self, seconds: float, passed_bytes: int) -> float:
        """Return the seconds per token of an interval of a running stream if it is far slower than usual,
        else 0."""
        if not self.bytes_per_token:
            return 0.0
        tokens = max(passed_bytes / self.bytes_per_token, _LEAST_SHARE)
        found_s = seconds / tokens
        return found_s if found_s > SLOW * self.estimate.mean_s else 0.0

    def __repr__(self) -> str:
        return f"<Pace {self.estimate!r} {self.bytes_per_token:.0f} bytes a token>"
