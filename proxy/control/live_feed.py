"""The live feed: the last minutes, sampled each second."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from proxy.control.periodic import Periodic
from proxy.control.slices import Slices
from proxy.control.telemetry.rates import Moment, live_rows, moment_of, sample_of
from proxy.control.usage_index import UsageIndex
from proxy.relay.downstream.gateway import Gateway
from proxy.usage.counters import Counted

log = logging.getLogger("tokenhub.admin")

# Collects the counts of all workers; True: in brief.
Count = Callable[[bool], Awaitable[Counted]]

SAMPLE_S = 1.0
# Five minutes; and every fifth sample of them knows the rows too: enough for a small picture.
KEPT = 300
_ROWS_EVERY = 5
_MINUTE = 60
# How often the cost of the day is looked up; in between, what was counted since is added.
_LOOK_UP_S = 60.0


@dataclass(slots=True)
class LiveSample:
    """The figures of a second; ``rows``: the table of routes as JSON, a megabyte for 5,000 of them."""

    figures: dict[str, Any]
    rows: bytes

    def json(self) -> bytes:
        """All of it."""
        return b'%b,"routes":%b}' % (orjson.dumps(self.figures)[:-1], self.rows)


class LiveFeed:
    """Takes samples and passes them to watchers.

    :param count: collects the counts of all workers.
    """

    def __init__(self, gateway: Gateway, usage_index: UsageIndex, count: Count) -> None:
        self.samples: deque[LiveSample] = deque(maxlen=KEPT)
        self.sampling = Periodic(self.take, SAMPLE_S, "sampling for the dashboard", log, at_once=True)
        self._gateway = gateway
        self._usage_index = usage_index
        self._count = count
        self._moments: deque[Moment] = deque(maxlen=_MINUTE)
        self._number = 0
        self._news = asyncio.Event()
        self._is_over = False
        # The day, its USD but for those that were counted here, and when they were looked up.
        self._day: tuple[str, float, float] = ("", 0.0, 0.0)

    async def take(self) -> None:
        """Take a sample now."""
        counted = await self._count(True)
        now, gateway = time.monotonic(), self._gateway
        moment = moment_of(counted.totals, now)
        moments = self._moments
        if not moments:  # nothing was before the start
            moments.append(moment)
            return
        figures: dict[str, Any] = {"time": round(time.time(), 3)}
        rows, in_flight, slices = [], 0, Slices()
        for row in live_rows(gateway.catalog, now):
            in_flight += row["in_flight"]
            rows.append(orjson.dumps(row))
            await slices.step()
        figures |= sample_of(moments[-1], moments[0], moment, counted.levels, in_flight)
        figures["usd_today"] = await self._usd_today(moment)
        figures["ready"] = gateway.is_ready()
        figures["simulated"] = any(provider.simulated for provider in gateway.providers.values())
        if self.samples and (self._number - 1) % _ROWS_EVERY:
            self.samples[-1].rows = b"[]"  # it was shown: what is kept is smaller
        moments.append(moment)
        self.samples.append(LiveSample(figures, b"[%b]" % b",".join(rows)))
        self._number += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _usd_today(self, moment: Moment) -> float:
        counted_usd = moment.nusd / 1e9
        today, base_usd, looked_at = self._day
        now_today = datetime.now(UTC).date().isoformat()
        if now_today != today or moment.at - looked_at >= _LOOK_UP_S:
            try:
                _, rows = await self._usage_index.usage({"since": now_today}, {})
                base_usd = rows[0]["usd"] - counted_usd
            except sqlite3.Error:  # which is logged elsewhere: go by what was counted here
                base_usd = base_usd if now_today == today else -counted_usd
            self._day = now_today, base_usd, moment.at
        return round(max(0.0, base_usd + counted_usd), 9)

    async def watch(self) -> AsyncIterator[LiveSample]:
        """Each new sample; a watcher that is too slow for one misses it."""
        while not self._is_over:
            await self._news.wait()
            if not self._is_over:
                yield self.samples[-1]

    def close(self) -> None:
        """End all watching."""
        self._is_over = True
        self._news.set()
