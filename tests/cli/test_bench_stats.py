"""Counts and percentiles of a load."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import bench_stats
from proxy.cli.bench_stats import Durations, Outcome, Results, percentile
from proxy.usage.tokens import Usage


def times(*seconds: float, seed: int = 1) -> Durations:
    found = Durations(Random(seed))
    for value in seconds:
        found.add(value)
    return found


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.1, 100))
def test_a_percentile_is_a_time_that_was_seen_with_so_many_below_or_at_it(values, percent):
    found = percentile(sorted(values), percent)
    at_most = sum(value <= found for value in values)
    below = sum(value < found for value in values)
    assert at_most >= math.ceil(len(values) * percent / 100) or math.isclose(
        at_most, len(values) * percent / 100
    )
    assert below < math.ceil(len(values) * percent / 100)


@pytest.mark.parametrize(
    ("percent", "found"), [(0.0, 1.0), (1.0, 1.0), (50.0, 50.0), (50.1, 51.0), (99.0, 99.0), (100.0, 100.0)]
)
def test_by_nearest_rank(percent, found):
    assert percentile([float(n) for n in range(1, 101)], percent) == found


def test_a_summary_in_milliseconds():
    summary = times(*(n / 1000 for n in range(100, 0, -1))).summary_ms()
    assert summary == {"p50": 50, "p90": 90, "p95": 95, "p99": 99, "max": 100, "mean": 50.5}
    assert times().summary_ms() is None
    assert times(0.001).summary_ms() == dict.fromkeys(("p50", "p90", "p95", "p99", "max", "mean"), 1)


def test_memory_has_an_end_and_what_is_kept_is_a_fair_part(monkeypatch):
    monkeypatch.setattr(bench_stats, "MAX_KEPT", 2000)
    found = times(*(n / 100_000 for n in range(100_000)), 7.0)
    assert (len(found.kept), found.count, found.most_s) == (2000, 100_001, 7.0)
    summary = found.summary_ms()
    assert summary["max"] == 7000
    # Of 2,000 drawn at random; the seed is fixed.
    assert summary["p50"] == pytest.approx(500, abs=40)
    assert summary["p99"] == pytest.approx(990, abs=10)


def test_a_glance_takes_little_and_is_near(monkeypatch):
    monkeypatch.setattr(bench_stats, "_GLANCE", 100)
    rng = Random(2)
    values = [rng.random() for _ in range(10_050)]
    found = times(*values)
    assert found.glance(50) == pytest.approx(0.5, abs=0.15)
    assert times(*values[:100]).glance(99) == percentile(sorted(values[:100]), 99)
    assert times().glance(50) is None


def test_results_also_of_nothing_and_of_reasons_without_end():
    results = Results(Random(1))
    usage = Usage(10, 4, 0, 5, 1)
    results.add(Outcome(0.2, None, "", "p", "p/m", 0.1, 0.001, usage, True, False))
    results.add(Outcome(0.4, None, "", "q", "q/m", None, None, usage, False, True))
    results.add(Outcome(0.6, None, "", "q", "q/m", None, None, usage))
    results.add(Outcome(9.0, "503 all_failed", "first", "q"))
    results.add(Outcome(9.0, "503 all_failed", "second"))
    results.add(Outcome(9.0, "connect", "refused"))
    found = results.summary(2.0)
    assert found["failures"] == [
        {"reason": "503 all_failed", "count": 2, "message": "first"},
        {"reason": "connect", "count": 1, "message": "refused"},
    ]
    assert (found["requests"], found["failed"], found["requests_per_s"]) == (6, 3, 3.0)
    assert found["latency_ms"]["max"] == 600  # failed ones are not in it
    assert (found["ttft_ms"]["p50"], found["gateway_ms"]["p50"], found["gap_ms"]) == (100, 1, None)
    assert found["tokens"] == {"input": 30, "cached": 12, "output": 15, "reasoning": 3}
    assert (found["providers"], found["failed_over"], found["simulated"]) == ({"q": 3, "p": 1}, 1, 1)
    assert results.models["q/m"] == Usage(20, 8, 0, 10, 2)
    found = Results(Random(1)).summary(0.0)
    assert (found["requests"], found["requests_per_s"]) == (0, 0)
    assert found["latency_ms"] is found["tokens"] is None
    results = Results(Random(1))
    for number in range(1000):
        results.add(Outcome(1.0, f"reason {number}", "why"))
    assert (len(results.reasons), results.reasons["others"], results.failed) == (51, 950, 1000)
