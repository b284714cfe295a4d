"""Samples that one worker takes and the others learn from, packed for shared memory.

A sample is a figure or a failure as one process would take it in: the same numbers given to the same rows in
the same order make the same estimates, wherever they were seen first. So workers share samples and not
estimates; a filter that looks for jumps (:mod:`proxy.deployments.latency_estimate`) could not be merged from
two halves.

Each kind is published where it is learned first (:mod:`proxy.deployments.row`,
:mod:`proxy.deployments.record`), and taken in by other workers with :func:`teach` in
:mod:`proxy.deployments.record`.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple, Protocol

# Numbers: (seconds, level, bytes of the prompt) · (waited seconds) · (body bytes, input, cached, output
# tokens, USD, output seconds, whose) · () · (successes, ends, when the last of them began) · (begun, 1: is
# silent + 2: is confirmed + 4: is a refusal + 8: is gone, Retry-After or NaN, roll, the mark's two halves) ·
# (roll, the mark's two halves) · (tokens a second, whose) · (seconds per token)
TIME: Final = 0
WAITED: Final = 1
CHARGE: Final = 2
PROBED: Final = 3
GOOD: Final = 4
FAILED: Final = 5
CONFIRMED: Final = 6
PACE: Final = 7
SLOW_PACE: Final = 8
NUMBERS: Final = 7
TEXT_BYTES: Final = 96
_PACKED: Final = Struct(f"<BB6xQd{NUMBERS}d{TEXT_BYTES}s")
SAMPLE_BYTES: Final = _PACKED.size


class Sample(NamedTuple):
    """``key`` names a row; ``at``: monotonic seconds, the same clock for all processes of a machine."""

    at: float
    kind: int
    key: int
    numbers: tuple[float, ...]
    text: str


class SampleSink(Protocol):
    """Receives the samples of this worker."""

    def publish(self, kind: int, key: int, at: float, *numbers: float, text: str = "") -> None: ...


class Elsewhere(NamedTuple):
    """Requests at other workers: in flight; waiting for a first byte; those of them that no later one
    overtook, and since when the oldest of these waits.
    """

    in_flight: int
    awaiting: int
    unanswered: int
    oldest_s: float


NOBODY_WAITS: Final = Elsewhere(0, 0, 0, float("inf"))


def pack(kind: int, key: int, at: float, numbers: tuple[float, ...], text: str = "") -> bytes:
    """A sample as :data:`SAMPLE_BYTES` bytes. Text is cut to what fits, never within a character."""
    cut = text.encode("utf-8", "replace")[:TEXT_BYTES].decode("utf-8", "ignore").encode()
    padded = numbers + (0.0,) * (NUMBERS - len(numbers))
    return _PACKED.pack(kind, len(cut), key, at, *padded, cut)


def unpack(data: bytes) -> Sample:
    """The sample of :func:`pack`. Numbers not given are 0."""
    kind, length, key, at, *rest = _PACKED.unpack(data)
    return Sample(at, kind, key, tuple(rest[:NUMBERS]), rest[NUMBERS][:length].decode())
