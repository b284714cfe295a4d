"""A load at a terminal: its run, a line about it meanwhile, and tables in the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TextIO

from proxy.cli.bench_load import Load, Plan
from proxy.cli.bench_stats import PERCENTILES
from proxy.cli.data_client import KEY_HINT, session_of
from proxy.cli.tables import BAD, WARN, Column, Line, TextTable, cells, clean, cut
from proxy.cli.terminal import can_redraw, print_json, say, show, show_lines, size_of
from proxy.config.settings import Config

INTERRUPTED = 130  # as shells report a process that SIGINT ended
_LOOK_S = 0.2  # from one line to the next
_BAR = 20
_BUSY = 0.8  # of a core: a client this busy delays what it measures

_OTHER_FILES = 100  # open ones besides connections

# ---------------------------------------------------------------------- the run


async def run(plan: Plan, config: Config | None, strategy: str | None, *, as_json: bool) -> int:
    """Put the load on, print what it showed, and return the exit code.

    :param config: of that gateway, if it is at hand: for the prices.
    :raises CommandError: nobody is there.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < plan.concurrency + _OTHER_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    key = os.environ.get("TOKENHUB_API_KEY", "")
    async with session_of(plan.target, key, strategy, plan.concurrency) as session:
        load = Load(plan, session, Random(), _say_charged)
        await load.check()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, _end, stop)
        say(f"{plan.amount} to {plan.target.name}; Ctrl-C ends it")
        async with progress(load, sys.stderr):
            await load.run(stop)
        summary = await load.summary(config)
    summary["interrupted"] = stop.done()
    if as_json:
        print_json(summary)
    else:
        show_summary(summary)
    return INTERRUPTED if stop.done() else 1 if summary["failed"] else 0


def _say_charged() -> None:
    if can_redraw(sys.stderr):
        sys.stderr.write("\r\x1b[K")  # the line of the progress, which comes anew
    say("these answers are real: their providers charge for them")


def _end(stop: asyncio.Future[None]) -> None:
    if not stop.done():
        stop.set_result(None)


# ---------------------------------------------------------------------- while it runs


@asynccontextmanager
async def progress(load: Load, stream: TextIO) -> AsyncIterator[None]:
    """Keeps a line about the load on a terminal; elsewhere nothing."""
    if not can_redraw(stream):
        yield
        return
    task = asyncio.get_running_loop().create_task(_keep(load, stream))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        stream.write("\r\x1b[K")
        stream.flush()


async def _keep(load: Load, stream: TextIO) -> None:
    while True:
        # One column is left free: in the last one some terminals begin a new line.
        text = progress_text(load, time.monotonic(), size_of(stream).columns - 1)
        stream.write(f"\r{text}\x1b[K")
        stream.flush()
        await asyncio.sleep(_LOOK_S)


def progress_text(load: Load, now: float, width: int) -> str:
    """One line, with a bar where there is room for it.

    :param now: monotonic seconds.
    """
    results, plan = load.results, load.plan
    elapsed_s = now - load.begun if load.begun else 0.0
    if plan.requests is not None:
        share, of = results.done / plan.requests, f"/{plan.requests:,}"
    else:
        share, of = elapsed_s / (plan.duration_s or elapsed_s), ""
    parts = [
        f"{results.done:,}{of}",
        f"{results.done / elapsed_s if elapsed_s else 0.0:,.1f}/s",
        f"{results.failed:,} failed",
    ]
    for percent in (50.0, 99.0):
        seconds = results.took.glance(percent)
        if seconds is not None:
            parts.append(f"p{percent:g} {seconds * 1000:,.1f} ms")
    parts.append(f"{int(elapsed_s // 60)}:{int(elapsed_s % 60):02d}")
    text = "  ".join(parts)
    if cells(text) + 1 + _BAR > width:
        return cut(text, width)
    filled = min(round(share * _BAR), _BAR)
    return f"{'━' * filled}{'─' * (_BAR - filled)} {text}"


# ---------------------------------------------------------------------- in the end

_ROWS = (
    ("latency", "latency_ms"),
    ("first text", "ttft_ms"),
    ("between chunks", "gap_ms"),
    ("gateway's own", "gateway_ms"),
)
_NAMES = (*(f"p{percent:g}" for percent in PERCENTILES), "max", "mean")
_TIMES = (Column("MS"), *(Column(name.upper(), is_number=True, rank=1) for name in _NAMES))
_FACTS = (Column(""), Column("", least=20))
_FAILURES = (
    Column("FAILED", is_number=True),
    Column("REASON", tone=lambda text: BAD),
    Column("THE FIRST SAID", least=20),
)


def show_summary(summary: dict[str, Any]) -> None:
    """Print what :meth:`proxy.cli.bench_load.Load.summary` found."""
    show(TextTable(_FACTS, _facts(summary)))
    times = [
        (title, *(f"{found[column]:,.3f}" for column in _NAMES))
        for title, name in _ROWS
        if (found := summary[name]) is not None
    ]
    if times:
        print_gap()
        show(TextTable(_TIMES, times))
    if summary["failures"]:
        print_gap()
        failures = [(f"{one['count']:,}", one["reason"], one["message"]) for one in summary["failures"]]
        show(TextTable(_FAILURES, failures))
    notes = _notes(summary)
    if notes:
        print_gap()
        show_lines(notes)


def print_gap() -> None:
    """An empty line."""
    show_lines([[]])


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    done, failed = summary["requests"], summary["failed"]
    rate, stream = summary["rate"], " streams" if summary["stream"] else ""
    pace = f"{summary['concurrency']:,} at a time" if rate is None else f"{rate:g} a second"
    facts = [
        ("gateway", summary["url"]),
        ("load", f"{summary['model']}, {summary['endpoint']}{stream}, {pace}"),
        ("requests", f"{done:,} in {summary['elapsed_s']:,.2f} s, {failed:,} of them failed"),
        ("requests/s", f"{summary['requests_per_s']:,.1f}"),
    ]
    if summary["providers"]:
        facts.append(("by provider", ", ".join(f"{name} {n:,}" for name, n in summary["providers"].items())))
    if summary["failed_over"]:
        facts.append(("failed over", f"{summary['failed_over']:,}"))
    if (tokens := summary["tokens"]) is not None:
        cached = f" ({tokens['cached']:,} cached)" if tokens["cached"] else ""
        facts.append(("tokens", f"{tokens['input']:,} in{cached}, {tokens['output']:,} out"))
        facts.append(("cost", _cost(summary)))
    return facts


def _cost(summary: dict[str, Any]) -> str:
    if _is_simulated(summary):
        return "nothing: all answers are SIMULATED"
    if summary["usd"] is None:
        return "unknown"
    return f"{'at most ' if summary['usd_is_most'] else ''}${summary['usd']:.6f} by list prices"


def _is_simulated(summary: dict[str, Any]) -> bool:
    """The rows of requests that succeeded."""
    return bool(summary["simulated"]) and summary["simulated"] >= summary["requests"] - summary["failed"]


def _notes(summary: dict[str, Any]) -> list[Line]:
    """Notes on what distorts the figures."""
    notes: list[Line] = []

    def note(text: str) -> None:
        notes.append([(clean(text), WARN)])

    if any(failure["reason"].startswith("401") for failure in summary["failures"]):
        note(KEY_HINT)
    if summary["simulated"] and not _is_simulated(summary):
        note(f"{summary['simulated']:,} answers are SIMULATED")
    if summary["interrupted"]:
        note(f"ended early; {summary['cut_off']:,} requests were under way and don't count")
    if summary["unsent"]:
        note(
            f"{summary['unsent']:,} requests were due and not sent, for want of a free one of "
            f"{summary['concurrency']:,} connections: with them the latency would be worse"
        )
    if summary["client_cpu"] > _BUSY:
        note(
            f"the client took {summary['client_cpu']:.0%} of a core: part of the latency is its own, and the "
            "gateway may be able to do more"
        )
    return notes
