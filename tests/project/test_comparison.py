"""The benchmarks' arithmetic and tables, on made-up results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from comparison.cells import human
from comparison.figures import added, bound, complete, forget_empty, median, ratio
from comparison.report import report
from comparison.scenarios import SCENARIOS
from comparison.specs import fill, load_specs, takes


def run(figure: float, k: int, **more: Any) -> dict[str, Any]:
    common = {
        "round": k, "rps": 900.0, "rate": 1000.0, "errors": 0, "proxy_cpu_pct": 95.0, "cpu_load_busy": 10.0,
        "cpu_proxy_steal": 0.0, "cpu_load_steal": 0.5, "p50_us": figure, "p99_us": 2 * figure,
        "cpu_us_per_req": figure,
    }  # fmt: skip
    return {**common, **more}


def results(**targets: list[float]) -> dict[str, Any]:
    """Targets with their figure round by round, as of an open-loop scenario."""
    entries = {}
    for name, figures in targets.items():
        runs = [run(figure, k) for k, figure in enumerate(figures)]
        entries[name] = {"scenarios": {"r500": {"runs": runs, "median": median(runs)}}}
    meta = {
        "cpu": "a CPU", "ncpu": 2, "kernel": "6", "proxy_cpu": 0, "load_cpu": 1, "runs": 3, "secs": 5,
        "date": "today", "commit": "0123456789abcdef", "dirty": True, "python": "CPython 3",
    }  # fmt: skip
    return {"meta": meta, "targets": entries}


def test_median_is_taken_figure_by_figure() -> None:
    figures = (3, "proxy", ""), (1, "both", "late"), (2, "proxy", "")
    runs = [{"x": x, "bound": bound, "why": why} for x, bound, why in figures]
    assert median(runs) == {"x": 2, "bound": "proxy", "why": "late"}
    # A figure that a run lacks has none.
    assert median([{"x": 1, "y": None}, {"x": 2}]) == {"x": 1.5}


def test_rounds_are_compared_with_their_own() -> None:
    targets = results(nginx=[10, 100, 20], mine=[20, 200, 80], direct=[5, 5, 5])["targets"]
    assert ratio(targets, "mine", "r500", "p50_us") == 2
    assert added(targets, "mine", "r500", "p50_us") == 75
    del targets["nginx"]["scenarios"]["r500"]["runs"][0]  # a run that failed shifts no other
    assert ratio(targets, "mine", "r500", "p50_us") == 3
    assert ratio(targets, "mine", "r500", "p50_us", "nobody") is None


@pytest.mark.parametrize(
    ("proxy", "load_side", "who"),
    [(95, 50, "proxy"), (50, 95, "load side"), (95, 95, "both"), (50, 50, "neither")],
)
def test_who_was_full(proxy: float, load_side: float, who: str) -> None:
    assert bound({"proxy_cpu_pct": proxy, "cpu_load_busy": load_side}) == who


def test_streams_are_charged_with_the_memory_above_the_start() -> None:
    stream = {
        "bad_status": 0, "bad_marks": 0, "no_done": 0, "conn_errors": 0, "short_reads": 1, "order_errors": 0,
        "chunks": 1000, "streams_completed": 0, "proxy_cpu_s": 0.02, "proxy_cpu_pct": 1, "cpu_load_busy": 1,
        "rss_open_mb": 70.48, "rss_start_mb": 50.0, "spin_ms": 80.0,
    }  # fmt: skip
    complete(stream, SCENARIOS["s2000"], 40.0)
    assert stream["errors"] == 1
    assert stream["kib_per_stream"] == 10
    assert stream["cpu_us_per_chunk"] == 20 and stream["cpu_us_per_chunk_ref"] == 10
    assert stream["cpu_us_per_stream"] is None


def test_what_nothing_was_measured_of_is_not_zero() -> None:
    empty = {"requests": 0, "p50_us": 0.0, "mean_us": 0.0, "max_us": 0.0, "ttfb_n": 0, "ttfb_p50_us": 0.0}
    forget_empty(empty)
    assert {empty[key] for key in empty if key.endswith("_us")} == {None}
    full = {"requests": 1, "p50_us": 0.0, "gap_excess_n": 2, "gap_excess_p50_us": 0.0}
    forget_empty(full)
    assert None not in full.values()


def test_report_says_what_was_measured_and_what_failed() -> None:
    made = results(direct=[5.0], nginx=[10.0], mine=[2000.0])
    made["targets"]["gone"] = {"failed": "not\ninstalled"}
    text = report(made)
    assert "TokenHub 0123456789ab with changes not committed" in text
    assert "| mine | 2.00 ms / 4.00 ms | 2.00 ms / 3.99 ms | 2,000 | **900/s** |" in text
    assert "- **gone**: not installed" in text
    assert "## Streams" not in text
    assert "Other processes" not in text
    made = results(mine=[10.0, 20.0])
    made["targets"]["mine"]["scenarios"]["r500"]["runs"][1]["cpu_load_other"] = 35.0
    assert "Other processes took over 20% of a CPU in a run of: mine (r500)." in report(made)


@pytest.mark.parametrize(
    ("us", "text"), [(None, "–"), (12.4, "12 µs"), (-12.4, "−12 µs"), (1500, "1.50 ms"), (2e6, "2.00 s")]
)
def test_times_for_people(us: float | None, text: str) -> None:
    assert human(us) == text


def test_a_target_like_another_keeps_what_it_does_not_say(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\nlike = "tokenhub-two"\nscenarios = ["tls"]\n[mine.vars]\nSTATE = "x"\n')
    specs = load_specs([str(file)])
    assert specs["mine"]["start"] == specs["tokenhub-routed"]["start"]
    assert specs["mine"]["vars"] == {"WORKERS": 2, "STATE": "x", "KEYS": "false"}
    assert takes(specs["mine"], "tls") and not takes(specs["mine"], "a")
    assert not takes(specs["tokenhub"], "tls") and takes(specs["direct"], "tls")


@pytest.mark.parametrize("text", ['[a]\nlike = "b"\n[b]\nlike = "a"', '[a]\nscenarios = ["zz"]'])
def test_a_table_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"^target "):
        load_specs([str(file)])


def test_names_are_filled_in_everywhere() -> None:
    value = {"a": ["@X@", 1, {"b": "@Y@"}]}
    filled = fill(value, {"Y": "@X@!", "X": 2})  # a target's own names may hold the harness's
    assert filled == {"a": ["2", 1, {"b": "2!"}]}
