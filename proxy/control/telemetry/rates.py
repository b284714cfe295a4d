"""Rates and percentiles of the last seconds, from the counts before and after them.

Percentiles are read from histograms, between two bounds as if values were spread evenly there: between 250
and 400 ms they are true to some tens of milliseconds, which is what a picture can show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import sub
from typing import Any, Final, NamedTuple

from proxy.routing.catalog import Catalog
from proxy.usage.counters import DURATION_S, LAG_US, OVERHEAD_US, Sums

_MS: Final = [bound * 1000.0 for bound in DURATION_S]
_PERCENTILES: Final = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))


class Moment(NamedTuple):
    """The counts up to a moment, summed over labels. Histograms are as in :mod:`proxy.usage.counters`."""

    at: float  # monotonic seconds
    requests: int
    errors: int
    input_tokens: int
    output_tokens: int
    nusd: int
    first_byte: tuple[int, ...]
    overhead: tuple[int, ...]
    lag: tuple[int, ...]


def moment_of(totals: Sums, at: float) -> Moment:
    """Of what was counted in brief (:meth:`proxy.usage.counters.Counters.brief`)."""
    requests, errors, given, output, nusd = totals.get(("all",), (0, 0, 0, 0, 0))
    first_byte, overhead, lag = (
        totals.get((kind,), (0,) * (len(bounds) + 2))
        for kind, bounds in (("first_byte", _MS), ("overhead", OVERHEAD_US), ("lag", LAG_US))
    )
    return Moment(at, requests, errors, given, output, nusd, first_byte, overhead, lag)


def percentile(bounds: Sequence[float], buckets: Sequence[int], share: float) -> float | None:
    """The value that ``share`` of the values stay below, in the unit of the bounds; None: no values.

    Above the highest bound nothing is known but that: it is the response then.
    """
    left = sum(buckets) * share
    if not left:
        return None
    low = 0.0
    for bound, count in zip(bounds, buckets, strict=False):
        if count and left <= count:
            return low + (bound - low) * left / count
        left -= count
        low = bound
    return float(bounds[-1])


def _percentiles(
    bounds: Sequence[float], before: tuple[int, ...], after: tuple[int, ...]
) -> dict[str, float] | None:
    buckets = list(map(sub, after[:-1], before[:-1]))
    found = {}
    for name, share in _PERCENTILES:
        value = percentile(bounds, buckets, share)
        if value is None:
            return None
        found[name] = round(value, 3)
    return found


def sample_of(
    before: Moment, minute_ago: Moment, after: Moment, levels: Sums, in_flight: int
) -> dict[str, Any]:
    """The figures of the time between two moments, without the date and the dollars of the day.

    :param minute_ago: what percentiles are counted from: a second alone has too few requests for them.
    :param in_flight: requests at providers now.
    """
    span_s = max(after.at - before.at, 1e-3)
    lag_us = percentile(LAG_US, list(map(sub, after.lag[:-1], before.lag[:-1])), 1.0)
    return {
        "requests_per_s": round((after.requests - before.requests) / span_s, 3),
        "errors_per_s": round((after.errors - before.errors) / span_s, 3),
        "input_tokens_per_s": round((after.input_tokens - before.input_tokens) / span_s, 3),
        "output_tokens_per_s": round((after.output_tokens - before.output_tokens) / span_s, 3),
        "ttft_ms": _percentiles(_MS, minute_ago.first_byte, after.first_byte),
        "overhead_us": _percentiles(OVERHEAD_US, minute_ago.overhead, after.overhead),
        "in_flight": in_flight,
        "connections": levels.get(("clients",), (0,))[0],
        "workers": levels.get(("workers",), (0,))[0],
        "event_loop_lag_ms": None if lag_us is None else lag_us / 1000.0,
    }


def live_rows(catalog: Catalog, now: float) -> Iterator[dict[str, Any]]:
    """The rows that were used, with what a small picture can show; one of nulls where none was."""
    for deployment in catalog.deployments.values():
        state = deployment.health(now)["state"]
        common = {"id": deployment.id, "state": state, "usable": deployment.is_free(now)}
        is_used = False
        for (endpoint, streamed), row in sorted(deployment.rows().items()):
            if row.used_s > float("-inf"):
                is_used = True
                yield common | {"endpoint": endpoint, "stream": streamed} | _figures(row.snapshot(now))
        if not is_used:
            yield common | {"endpoint": None, "stream": None} | _NOTHING


def _figures(told: dict[str, Any]) -> dict[str, Any]:
    first_s, pace = told["first_byte_s"], told["output_tokens_per_s"]
    usd = told["usd_per_request"]
    return {
        "in_flight": told["in_flight"],
        "awaiting": told["awaiting"],
        "ttft_ms": None if first_s is None else round(first_s * 1000.0, 3),
        "ms_per_output_token": None if not pace else round(1000.0 / pace, 3),
        "success": round(told["success"], 4),
        "usd_per_request": None if usd is None else round(usd, 9),
    }


_NOTHING: Final[dict[str, Any]] = {
    "in_flight": 0, "awaiting": 0, "ttft_ms": None, "ms_per_output_token": None, "success": None,
    "usd_per_request": None,
}  # fmt: skip
