"""The live row: what each event of an attempt teaches it, and counters that return to zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.meters import COST_HALF_LIVES, Charges, Row
from proxy.usage import TOKENS_PER_BYTE, Usage


def test_a_fresh_row_says_that_it_knows_nothing() -> None:
    row = Row(30.0)
    seen = row.snapshot(5.0)
    for name in ("first_byte_s", "output_tokens_per_s", "output_tokens", "usd_per_request", "age_s"):
        assert seen[name] is None
    assert seen["last_error"] is seen["last_error_age_s"] is None
    assert seen["success"] == 1.0
    assert seen["in_flight"] == seen["awaiting"] == seen["finished"] == 0
    assert row.tokens_per_byte(5.0) == TOKENS_PER_BYTE


def test_the_life_of_a_good_attempt() -> None:
    row = Row(30.0)
    row.sent(10.0)
    assert (row.in_flight, row.awaiting) == (1, 1)
    row.first_byte(0.5, 10.5)
    assert (row.in_flight, row.awaiting) == (1, 0)
    row.finished(12.5, True)
    row.charged(12.5, 4000, Usage(1000, 400, 0, 200, 50), 0.25, output_s=2.0)
    seen = row.snapshot(12.5)
    assert seen["first_byte_s"] == 0.5
    assert seen["output_tokens_per_s"] == pytest.approx(100.0)
    assert seen["output_tokens"] == 200
    assert seen["tokens_per_byte"] == 0.25
    assert seen["cached_share"] == 0.4
    assert seen["usd_per_request"] == 0.25
    assert seen["age_s"] == 2.5
    assert (seen["in_flight"], seen["awaiting"], seen["finished"]) == (0, 0, 1)
    assert "in_flight=0" in repr(row)


def test_success_needs_more_than_one_failure_to_fall() -> None:
    row = Row(30.0)
    row.sent(1.0)
    row.left_awaiting()
    row.finished(1.0, False, "503 " + "x" * 500)
    assert row.read_success(1.0) == pytest.approx(10 / 11)
    assert row.read_success(1000.0) == pytest.approx(1.0, abs=1e-3)
    seen = row.snapshot(3.0)
    assert seen["last_error"].startswith("503 x")
    assert len(seen["last_error"]) == 200
    assert seen["last_error_age_s"] == 2.0
    assert seen["first_byte_s"] is None


def test_a_client_that_left_says_nothing_of_the_provider() -> None:
    row = Row(30.0)
    row.sent(1.0)
    row.left_awaiting()
    row.finished(1.5, None)
    assert row.success.weight == 0.0
    assert (row.in_flight, row.awaiting) == (0, 0)


def test_estimates_and_odd_usages_teach_nothing_wrong() -> None:
    row = Row(30.0)
    row.charged(1.0, 100, Usage(25, 0, 0, 50, 0, estimated=True), 1.0)
    assert row.charges.ratios is None
    row.charged(1.0, 100, Usage(5000, 4000, 0, 10, 0), None)  # an image behind a URL
    assert row.charges.ratios == (1.0, 1.0, 10.0)
    empty = Row(30.0)
    empty.charged(1.0, 0, Usage(0, 0, 0, 10, 0), None)
    assert empty.charges.ratios is None
    assert 0.0 <= empty.tokens_per_byte(1.0) <= 1.0


def test_charges_fade_towards_the_priors_slowly() -> None:
    row = Row(30.0)
    for step in range(100):
        row.charged(step * 1.0, 1000, Usage(500, 250, 0, 800, 0), 0.01)
    priors = (0.25, 0.0, 300.0)
    per_byte, share, output = row.charges.read(100.0, priors)
    assert per_byte == pytest.approx(0.5, rel=0.02)
    assert share == pytest.approx(0.5, rel=0.02)
    assert output == pytest.approx(800, rel=0.02)
    assert row.charges.read(100.0 + 300.0, priors)[2] == pytest.approx(800, rel=0.05)
    assert row.charges.read(100.0 + 1e6, priors) == pytest.approx(priors)


def test_retuning_keeps_what_was_learned() -> None:
    row = Row(30.0)
    row.first_byte_s.add(0.5, 1.0)
    row.charged(1.0, 100, Usage(25, 0, 0, 10, 0), None)
    row.retune(60.0)
    assert row.first_byte_s.tau_s == pytest.approx(row.charges.tau_s / COST_HALF_LIVES)
    assert row.first_byte_s.weight_at(61.0) == pytest.approx(0.5)
    assert row.charges.ratios == (0.25, 0.0, 10.0)


@given(
    st.lists(
        st.tuples(st.floats(-0.01, 1e5), st.integers(0, 10**8), st.integers(0, 10**9), st.integers(0, 10**9)),
        max_size=20,
    )
)
def test_charges_agree_with_plain_sums_and_stay_in_range(samples: list[tuple[float, int, int, int]]) -> None:
    charges = Charges(1e12)  # so slow that nothing fades
    now = 0.0
    for step, body, given_tokens, output in samples:
        now += step
        charges.add(now, body, Usage(given_tokens, given_tokens // 2, 0, output, 0), 0.0)
    bodies = sum(body for _, body, _, _ in samples)
    if bodies:
        assert charges.ratios is not None
        assert charges.ratios[0] == pytest.approx(sum(min(b, g) for _, b, g, _ in samples) / bodies)
        assert 0.0 <= charges.ratios[1] <= 1.0
    per_byte, share, output_tokens = charges.read(now, (0.25, 0.0, 300.0))
    assert 0.0 <= per_byte <= 1.0
    assert 0.0 <= share <= 1.0
    assert output_tokens >= 0.0


@given(st.lists(st.sampled_from(["good", "failed", "left", "left late"]), max_size=30))
def test_counters_return_to_zero_whatever_the_fates(fates: list[str]) -> None:
    row = Row(30.0)
    for _ in fates:
        row.sent(1.0)
    for fate in fates:
        if fate in ("good", "left late"):
            row.first_byte(0.1, 1.1)
        else:
            row.left_awaiting()
    assert row.awaiting == 0
    for fate in fates:
        row.finished(2.0, {"good": True, "failed": False}.get(fate))
    assert (row.in_flight, row.awaiting, row.finished_count) == (0, 0, len(fates))
