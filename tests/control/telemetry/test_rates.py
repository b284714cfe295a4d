"""Rates and percentiles of the last seconds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.parse import parse
from proxy.control.steps import done
from proxy.control.telemetry.rates import live_rows, moment_of, percentile, sample_of
from proxy.deployments.record import Record
from proxy.routing.catalog import Catalog
from proxy.usage.counters import OVERHEAD_US, Counters, Histogram
from proxy.usage.tokens import Usage

TEXT = '[providers.p]\nbase_url = "http://h/v1"\nauth = "none"\n[models."p/m"]\n[models."p/n"]\n'


def catalog_of() -> Catalog:
    return Catalog(parse(TEXT), {"p": True}, 0)


def test_percentiles_between_two_bounds():
    bounds = [10.0, 20.0, 40.0]
    assert percentile(bounds, [0, 0, 0, 0], 0.5) is None
    assert percentile(bounds, [0, 4, 0, 0], 0.5) == 15.0
    assert percentile(bounds, [4, 0, 4, 0], 0.75) == 30.0
    assert percentile(bounds, [0, 0, 0, 1], 0.5) == 40.0
    assert percentile(bounds, [1, 0, 0, 0], 1.0) == 10.0


@given(st.lists(st.integers(0, 1_000_000), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_in_the_bucket_of_the_true_one(values, share):
    histogram = Histogram(OVERHEAD_US)
    for value in values:
        histogram.add(value)
    found = percentile(OVERHEAD_US, histogram.numbers()[:-1], share)
    rank = max(1, -(-len(values) * share // 1))  # ceil
    true = sorted(values)[int(rank) - 1]
    bucket = next(i for i, bound in enumerate(OVERHEAD_US) if true <= bound)
    low = OVERHEAD_US[bucket - 1] if bucket else 0
    assert low <= found <= OVERHEAD_US[bucket]


def test_a_sample_also_of_nothing():
    catalog, counters = catalog_of(), Counters()
    member = catalog.deployments["p/m"]
    start = moment_of({}, 99.0)
    begin = moment_of(done(counters.brief()), 100.0)
    counters.used(member.labels, "", 200).requests += 10
    counters.used(member.labels, "", 200).add(Usage(100, 0, 0, 50), 10**9)
    counters.used(member.labels, "", 500).requests += 2
    counters.prefix(b"", member.labels, "chat").times.add(took=200_000, waited=25_000, usage=None)
    counters.overhead.add(45)
    counters.lag.add(900)
    levels = {("clients",): (7,), ("workers",): (3,)}
    sample = sample_of(begin, start, moment_of(done(counters.brief()), 102.0), levels, 1)
    ttft, overhead = sample.pop("ttft_ms"), sample.pop("overhead_us")
    assert sample == {
        "requests_per_s": 6.0, "errors_per_s": 1.0, "input_tokens_per_s": 50.0, "output_tokens_per_s": 25.0,
        "in_flight": 1, "connections": 7, "workers": 3, "event_loop_lag_ms": 1.0,
    }  # fmt: skip
    assert 150.0 < ttft["p50"] <= ttft["p95"] <= ttft["p99"] <= 250.0
    assert 40.0 < overhead["p50"] <= 50.0
    sample = sample_of(moment_of({}, 1.0), moment_of({}, 0.0), moment_of({}, 2.0), {}, 0)
    assert sample["ttft_ms"] is None
    assert sample["overhead_us"] is None
    assert sample["event_loop_lag_ms"] is None
    assert sample["requests_per_s"] == 0.0


def test_rows_that_were_used_and_those_that_were_not():
    catalog = catalog_of()
    member = catalog.deployments["p/m"]
    catalog.resolve("p/m", "chat", None)
    record = Record(member, "chat", True, 100.0)
    record.first_byte(100.25)
    record.finished(101.0)
    record.row.charged(101.0, 10, Usage(10, 0, 0, 10), 0.5, 1.0)
    used, unused = live_rows(catalog, 102.0)
    assert used == {
        "id": "p/m", "state": "ok", "usable": True, "endpoint": "chat", "stream": True, "in_flight": 0,
        "awaiting": 0, "ttft_ms": pytest.approx(250.0), "ms_per_output_token": pytest.approx(100.0),
        "success": 1.0, "usd_per_request": pytest.approx(0.5),
    }  # fmt: skip
    assert unused["id"] == "p/n"
    assert unused["endpoint"] is unused["ttft_ms"] is None
    assert unused["in_flight"] == 0
