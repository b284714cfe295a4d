"""One run of a soak, and the bars it is held to."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from soak.books import Books, Families, Sample, percentile, sample, slope
from soak.client import Gate
from soak.gateway import ADMIN_S, START_S, STOP_S, GatewayProcess, Governors, ProviderProcess
from soak.plans import FIRST_BYTE_S, LATE_S
from soak.traffic import RAMP_PER_S, Keys, Traffic
from soak.watch import Watch, end_all

# From here on a slope means something: caches are full, histories are as long as they get.
LONG_MIN = 20.0
WARM_SHARE = 0.25
# Below this nobody would see it in a year of restarts for updates: 45 MiB a day.
RSS_BOUND_KIB_PER_MIN = 32.0
FD_BOUND_PER_MIN = 2.0
# In a short run memory grows because all of it is new. Only a flood is told from that, in any run: each
# process may have so much in all, several times what 2,000 streams need without TLS.
RSS_KIB = 512 << 10
# The event loop's buffer for a TLS connection, of which the touched part stays: with TLS memory grows until
# all of each is, and only how much that may be is a bar.
TLS_KIB = 256
# So much of all may be refused for want of time: on a machine that is busy with other things.
SHED_SHARE = 0.05
PROGRESS_S = 10.0
QUIET_S = 60.0  # within which all counters have to be back at zero
PATIENCE_S = 60.0  # for what has no limit of its own, and beyond those that there are
BEYOND_STREAMS = 600  # descriptors for everything else
# What has to be zero when nobody asks for anything.
GAUGES = (
    "tokenhub_requests_in_flight",
    "tokenhub_requests_awaiting",
    "tokenhub_client_connections",
    "tokenhub_ledger_unwritten_lines",
)


class Soak:
    """One run. ``args``: as main() reads them."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args = args
        self.seconds = args.minutes * 60.0
        # Streams of two minutes would never end in a run of half a minute.
        self.slow_s = (min(10.0, self.seconds / 8), min(120.0, self.seconds / 2))
        self.provider = ProviderProcess(folder, args.seed, self.slow_s)
        self.folder = folder
        self.samples: dict[int, list[Sample]] = {}
        self.failed: list[str] = []
        self.watch = Watch(end_all)
        self.report: dict[str, Any] = {"args": vars(args).copy(), "streams at the end": 0}

    async def run(self) -> bool:
        """Whether all bars are met."""
        begin = self.watch.begin
        begin("the provider to start", PATIENCE_S)
        upstream = await self.provider.start()
        try:
            begin("the gateway to start", START_S + ADMIN_S + PATIENCE_S)
            self.gateway = GatewayProcess(self.folder, upstream, self.args.workers, self.args.tls)
            await self.gateway.start()
            try:
                await self._load()
                await self._end()
            finally:
                begin("the gateway to end", STOP_S + PATIENCE_S)
                self.report["exit"] = await self.gateway.stop()
        finally:
            begin("the provider to end", STOP_S + PATIENCE_S)
            arrived = await self.provider.stop()
            begin("the event loop to end", PATIENCE_S)
        self._close(arrived)
        return not self.failed

    # ------------------------------------------------------------------ the load

    async def _load(self) -> None:
        gateway, args = self.gateway, self.args
        self.books = Books(gateway.ledger)
        keys = Keys()
        self.watch.begin("keys to be made", PATIENCE_S)
        await make_keys(gateway, keys)
        self.traffic = Traffic(
            Gate(gateway.port, gateway.tls), self.books, keys, args.seed, self.slow_s, args.rate
        )
        pace = min(1.0, self.seconds / 600)
        self.governors = Governors(gateway, self.traffic, args.seed, pace, args.key_every)
        self.idle_sockets = {pid: one.sockets for pid in gateway.pids() if (one := sample(pid, 0))}
        self.watch.begin("the time of the load to pass", self.seconds + PATIENCE_S)
        self.begun = time.monotonic()
        self.traffic.start(args.streams)
        self.governors.start()
        every_s = min(5.0, self.seconds / 30)
        told_at = 0.0
        while (now := time.monotonic() - self.begun) < self.seconds:
            await asyncio.sleep(every_s)
            self._sample()
            self.books.read()
            if now - told_at >= PROGRESS_S - every_s / 2:
                told_at = now
                self._progress(now)
            if gateway.process.returncode is not None:
                self._fail("alive", f"the gateway ended with {gateway.process.returncode}")
                break
        self.report["streams at the end"] = self.traffic.open_streams
        self.watch.begin("those who govern to end", PATIENCE_S)
        await self.governors.stop()
        self.watch.begin("the clients to end", PATIENCE_S)
        await self.traffic.stop()

    def _sample(self) -> None:
        at_s = time.monotonic() - self.begun
        for pid in self.gateway.pids():
            if (one := sample(pid, at_s)) is not None:
                self.samples.setdefault(pid, []).append(one)

    def _progress(self, now: float) -> None:
        latest = [samples[-1] for samples in self.samples.values()]
        traffic, books = self.traffic, self.books
        told = [
            f"{now:6.0f} s",
            f"{traffic.number:,} requests",
            f"{traffic.open_streams:,} streams",
            f"{sum(traffic.wrong.values())} wrong",
            "RSS " + " + ".join(f"{one.rss_kib / 1024:.1f}" for one in latest) + " MiB",
            "fds " + " + ".join(str(one.fds) for one in latest),
            f"CPU {self._cpu(now):.0%}",
            f"ledger {books.lines:,} lines, {len(books.open)} awaited, {books.fault_count} faults",
        ]
        print(" · ".join(told), flush=True)

    def _cpu(self, now: float) -> float:
        """Of one core, since the start: all processes of the gateway."""
        return sum(samples[-1].cpu_s - samples[0].cpu_s for samples in self.samples.values()) / max(now, 1.0)

    # ------------------------------------------------------------------ the end

    async def _end(self) -> None:
        """Everything is back at zero, and what was counted is the same everywhere."""
        gateway, books = self.gateway, self.books
        if gateway.process.returncode is not None:
            return
        self.watch.begin("counters to be back at zero", QUIET_S + ADMIN_S + PATIENCE_S)
        deadline = time.monotonic() + QUIET_S
        left: list[str] = ["nothing was looked at"]
        while left and time.monotonic() < deadline:
            await asyncio.sleep(0.25)
            books.read()
            self.metrics = await gateway.metrics()
            left = self._left_open(self.metrics)
        for what in left:
            self._fail("back to zero", what)
        books.read()
        differing = ["nothing was compared"]
        while differing and time.monotonic() < deadline:
            differing = compare(await gateway.usage(), books)
            if differing:
                await asyncio.sleep(0.5)
        for what in differing[:10]:
            self._fail("totals", what)
        self._sample()

    def _left_open(self, metrics: Families) -> list[str]:
        left = []
        for name in GAUGES:
            if count := sum(metrics[name].values()):
                left.append(f"{name} is {count:g}")
        connections = metrics["tokenhub_provider_connections"]
        idle = sum(n for labels, n in connections.items() if 'state="idle"' in labels)
        is_open = sum(n for labels, n in connections.items() if 'state="open"' in labels)
        if idle != is_open:
            left.append(f"{is_open:g} connections to providers are open, and {idle:g} idle")
        sockets = sum(one.sockets for pid in self.gateway.pids() if (one := sample(pid, 0)))
        at_start = sum(self.idle_sockets.values())
        # Idle connections to providers are in order; so is the scrape's own, whose end may not be seen yet.
        if sockets > at_start + is_open + 2:
            left.append(f"{sockets} sockets are open: {at_start} at the start, {is_open:g} to providers")
        return left

    def _fail(self, bar: str, text: str) -> None:
        self.failed.append(f"{bar}: {text}")

    def _close(self, arrived: set[int]) -> None:
        """The bars."""
        traffic, books, report = self.traffic, self.books, self.report
        books.read()
        lost, surplus = books.close(arrived)
        if lost or surplus or books.fault_count:
            self._fail(
                "ledger",
                f"{lost} lines lost, {surplus} too many, {books.fault_count} faults: {books.faults[:5]}",
            )
        stalls = self.provider.stalls()
        for at, text in traffic.late:
            if not is_explained(at, stalls):
                traffic.note_wrong("late", text)
        for kind, count in traffic.wrong.items():
            first = next(text for text in traffic.examples if text.startswith(kind))
            self._fail("answers", f"{count} wrong, such as {first}")
        shed = traffic.became["shed"]
        if shed > SHED_SHARE * traffic.number:
            self._fail("answers", f"{shed} of {traffic.number} were refused as too much")
        if not traffic.became["whole"]:
            self._fail("answers", "none was whole")
        if report["streams at the end"] < 0.9 * self.args.streams:
            self._fail(
                "streams", f"{report['streams at the end']} of {self.args.streams} were open at the end"
            )
        if report["exit"] != 0:
            self._fail("exit", f"the gateway's exit code is {report['exit']}")
        faults = self.gateway.log_faults()
        for line in faults[:5]:
            self._fail("log", line)
        lag = getattr(self, "metrics", {}).get("tokenhub_event_loop_lag_seconds_bucket", {})
        report |= {
            "requests": traffic.number,
            "became": dict(traffic.became.most_common()),
            "wrong": dict(traffic.wrong),
            "examples": traffic.examples,
            "late": {"answers": len(traffic.late), "stalls": len(stalls),
                     "longest_s": round(max((to - since for since, to in stalls), default=0.0), 1)},
            "governed": self.governors.done,
            "ledger": {"lines": books.lines, "lost": lost, "doubled": books.doubled, "surplus": surplus,
                       "left early": len(books.left), "refused": len(books.none), "faults": books.faults,
                       "provided": books.provided},
            "lag_ms": {f"p{share:g}": percentile(lag, share / 100) * 1000 for share in (50, 99, 99.9)},
            "log faults": len(faults),
            "cpu": self._cpu(self.seconds),
        }  # fmt: skip
        report["processes"] = self._hold_growth()
        report["failed"] = self.failed

    def _warm(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those of the time after the warm-up, and before the end."""
        warm_s = max(WARM_SHARE * self.seconds, self.args.streams / RAMP_PER_S)
        return [one for one in samples if warm_s <= one.at_s <= self.seconds]

    def _hold_growth(self) -> list[dict[str, Any]]:
        """How memory and descriptors went, held to the bars; a row for each process."""
        is_long, tls = self.args.minutes >= LONG_MIN, self.args.tls
        most_kib = RSS_KIB + TLS_KIB * self.args.streams * tls
        rows = []
        for at, samples in enumerate(self.samples.values()):
            name = "governs" if at == 0 and self.args.workers > 1 else f"serves {at}"
            peak_kib = max(one.rss_kib for one in samples)
            row: dict[str, Any] = {"process": name, "rss_mib": round(samples[-1].rss_kib / 1024, 1)}
            row["peak_rss_mib"] = round(peak_kib / 1024, 1)
            warm = self._warm(samples)
            if (found := slope([(one.at_s, one.rss_kib) for one in warm])) is not None:
                row["rss_kib_per_min"], row["rss_kib_error"] = round(found.per_min, 2), round(found.error, 2)
                if is_long and not tls and not found.is_flat(RSS_BOUND_KIB_PER_MIN):
                    self._fail("growth", f"{name}: {found} KiB a minute")
            if (found := slope([(one.at_s, float(one.fds)) for one in warm])) is not None:
                row["fds_per_min"], row["fds_error"] = round(found.per_min, 2), round(found.error, 2)
            if peak_kib > most_kib:
                self._fail("growth", f"{name}: {row['peak_rss_mib']} MiB")
            rows.append(row)
        # Descriptors in all: which worker has a stream is chance.
        rounds = zip(*map(self._warm, self.samples.values()), strict=False)
        found = slope([(each[0].at_s, float(sum(one.fds for one in each))) for each in rounds])
        if is_long and found is not None and not found.is_flat(FD_BOUND_PER_MIN):
            self._fail("growth", f"{found} descriptors a minute")
        return rows


async def make_keys(gateway: GatewayProcess, keys: Keys) -> None:
    """One for each limit, and two that are no use."""
    for kind, settings in {
        "good": {}, "drain": {"on_disconnect": "drain"}, "rpm": {"rpm": 60}, "tpm": {"tpm": 20_000},
        "concurrency": {"concurrency": 2}, "models": {"models": ["b/*"]}, "max_tokens": {"max_tokens": 10},
        "broke": {"monthly_tokens": 1000}, "revoked": {},
    }.items():  # fmt: skip
        keys.of[kind] = await gateway.make_key(kind, **settings)
    await gateway.admin("DELETE", f"/admin/v1/keys/{keys.id('revoked')}")
    keys.of["unknown"] = "th-" + "0" * 43, ""


def is_explained(at: float, stalls: Sequence[tuple[float, float]]) -> bool:
    """Whether the provider was starved while a request waited for its first byte, that ended at ``at``."""
    return any(since <= at and to >= at - FIRST_BYTE_S - LATE_S for since, to in stalls)


def compare(usage: Sequence[dict[str, Any]], books: Books) -> list[str]:
    """Where the totals are not the sum of the lines."""
    told: dict[tuple[Any, ...], float] = {}
    for row in usage:
        who = row.get("key_id") or None, row["model"] or None, row["provider"] or None
        for what in ("requests", "errors", "input_tokens", "output_tokens"):
            told[(*who, what)] = row[what]
        told[(*who, "nusd")] = round(row["usd"] * 1e9)
    summed = {who: count for who, count in books.totals.items() if count}
    told = {who: count for who, count in told.items() if count}
    return [
        f"{who}: {told.get(who, 0)} instead of {summed.get(who, 0)}"
        for who in sorted(told.keys() | summed.keys(), key=str)
        if told.get(who, 0) != summed.get(who, 0)
    ]
