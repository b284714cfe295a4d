"""What is measured. One table; everything else reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Scenario:
    """
    ``kind``: ``closed`` sends the next request when the last was answered (wrk), ``open`` at a fixed rate
    (openload), ``stream`` opens streams (sseload).

    :param extra_s: longer than ``--secs``, to get under way, or to have enough samples.
    :param warm_s: the beginning that is left out of the latencies.
    :param direct_first: the direct line is measured just before, in the same hold of the lock.
    :param restart: the target is started anew before the first run, so that its memory is of this load alone.
    :param on_request: only for targets whose table names it; the rest would need another configuration.
    """

    title: str
    kind: Literal["closed", "open", "stream"]
    connections: int
    body: str = "1k"
    rate: int = 0
    chunks: int = 0
    delay_ms: int = 0
    ramp_ms: int = 0
    extra_s: int = 0
    warm_s: float = 0
    direct_first: bool = False
    restart: bool = False
    on_request: bool = False

    def body_file(self, name: str) -> str:
        return f"body-{name if self.kind == 'stream' else self.body}"


SCENARIOS = {
    "a": Scenario("POST 1 KB, 0.7 KB reply, 64 connections", "closed", 64),
    "b": Scenario("POST 1 KB, 1 connection", "closed", 1, direct_first=True),
    "c": Scenario("POST 100 KB conversation, 32 connections", "closed", 32, "100k"),
    "d": Scenario("POST 2 MB (base64 image), 8 connections", "closed", 8, "2m"),
    "e": Scenario("stream 100 chunks, no delay, 64 at once", "stream", 64, chunks=100, extra_s=3),
    "f": Scenario(
        "stream 50 chunks 20 ms apart, 500 at once",
        "stream", 500, chunks=50, delay_ms=20, ramp_ms=980, extra_s=2,
    ),
    "g": Scenario(
        "stream 50 chunks 20 ms apart, 50 at once",
        "stream", 50, chunks=50, delay_ms=20, ramp_ms=980, extra_s=1,
    ),
    "h": Scenario(
        "stream 50 chunks 20 ms apart, 1000 at once",
        "stream", 1000, chunks=50, delay_ms=20, ramp_ms=980, extra_s=2,
    ),
    "r500": Scenario("POST 1 KB, 500 requests/s", "open", 128, rate=500, extra_s=5, warm_s=0.5),
    "r2000": Scenario("POST 1 KB, 2,000 requests/s", "open", 128, rate=2000, extra_s=3, warm_s=0.5),
    # 10,000 chunks/s, so that the load's CPU has room; 5 s a stream, so that starts are few beside chunks.
    "s2000": Scenario(
        "stream 25 chunks 200 ms apart, 2,000 at once",
        "stream", 2000, chunks=25, delay_ms=200, ramp_ms=4900, extra_s=7, warm_s=5, restart=True,
    ),
    "tls": Scenario("POST 1 KB to a TLS upstream, 64 connections", "closed", 64, on_request=True),
}  # fmt: skip
DEFAULT = [name for name in SCENARIOS if name != "h"]
STREAM_CHECK = "e"  # the stream that each target has to pass before it is measured
