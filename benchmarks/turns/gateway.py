"""``tokenhub serve`` in a process of its own that also says how much CPU time its event loop's turns take.

    turns/gateway.py ROUTES.toml

The product knows nothing of it. A callback that has itself called again in each turn reads the CPU time of
the loop's thread: what is between two readings is one turn, work in threads and other processes left out. It
runs only between ``begin`` and ``end``, which come on stdin, as it keeps the loop from ever sleeping.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time

import uvloop

from proxy.cli.main import main
from proxy.relay.exchange import exchange


class Heartbeat:
    """Measures turns while it is on. All times are seconds of CPU of the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_on = False
        self._last_s = self._begun_s = self._longest_s = 0.0

    def begin(self) -> None:
        """In the loop's thread, as all of these."""
        self._is_on = True
        self._longest_s = 0.0
        self._last_s = self._begun_s = time.thread_time()
        self._loop.call_soon(self._beat)

    def _beat(self) -> None:
        now_s = time.thread_time()
        self._longest_s = max(self._longest_s, now_s - self._last_s)
        self._last_s = now_s
        if self._is_on:
            self._loop.call_soon(self._beat)

    def end(self) -> None:
        """Say what was seen."""
        self._beat()
        self._is_on = False
        say({"longest_ms": self._longest_s * 1e3, "cpu_ms": (self._last_s - self._begun_s) * 1e3})


def say(told: dict[str, object]) -> None:
    """One line for who has started this process."""
    os.write(1, json.dumps(told).encode() + b"\n")


def listen(loop: asyncio.AbstractEventLoop) -> None:
    """Take orders from stdin, in a thread, until it ends."""
    heartbeat = Heartbeat(loop)
    orders = {"begin": heartbeat.begin, "end": heartbeat.end}
    say({"is_compiled": not exchange.__file__.endswith(".py")})
    for line in sys.stdin:
        loop.call_soon_threadsafe(orders[line.strip()])


class _Loop(uvloop.Loop):
    """Begins to listen once it is made."""

    def __init__(self) -> None:
        super().__init__()
        threading.Thread(target=listen, args=(self,), daemon=True).start()


if __name__ == "__main__":
    uvloop.Loop = _Loop  # type: ignore[misc]
    sys.exit(main(["serve", "--config", sys.argv[1]]))
