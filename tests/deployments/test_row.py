"""The live row: what each event of an attempt teaches it, and counters that return to zero."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.row import COST_HALF_LIVES, SAMPLE_GAP_S, Row
from proxy.usage.response_usage import TOKENS_PER_BYTE
from proxy.usage.tokens import Usage


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
    row.sent(9.0)
    assert (row.in_flight, row.awaiting) == (1, 0)
    level = row.asked("attempt", 10.0)
    assert (row.in_flight, row.awaiting, level) == (1, 1, 0)
    assert row.snapshot(10.25)["oldest_waiting_s"] == 0.25
    row.first_byte("attempt", 10.5, level)
    assert (row.in_flight, row.awaiting) == (1, 0)
    row.finished(12.5, True)
    row.charged(12.5, 4000, Usage(1000, 400, 0, 200, 50), 0.25, output_s=2.0)
    seen = row.snapshot(12.5)
    assert (seen["first_byte_s"], seen["first_byte_samples"]) == (pytest.approx(0.5), 1)
    assert seen["output_tokens_per_s"] == pytest.approx(100.0)
    assert (seen["output_tokens"], seen["tokens_per_byte"]) == (200, 0.25)
    assert (seen["cached_share"], seen["usd_per_request"]) == (0.4, 0.25)
    assert seen["age_s"] == 3.5
    assert seen["oldest_waiting_s"] is None
    assert (seen["in_flight"], seen["awaiting"], seen["finished"]) == (0, 0, 1)
    assert "in_flight=0" in repr(row)


def test_success_needs_more_than_one_failure_to_fall() -> None:
    row = Row(30.0)
    row.sent(1.0)
    row.asked("attempt", 1.0)
    row.left_awaiting("attempt", 1.0, patient=False)
    row.finished(1.0, False, "503 " + "x" * 500)
    assert row.read_success(1.0) == pytest.approx(10 / 11)
    assert row.read_success(1000.0) == pytest.approx(1.0, abs=1e-3)
    seen = row.snapshot(3.0)
    assert seen["last_error"].startswith("503 x")
    assert len(seen["last_error"]) == 200
    assert seen["last_error_age_s"] == 2.0
    assert seen["first_byte_s"] is None


@pytest.mark.parametrize(
    ("waited_s", "patient", "learns"),
    [(0.5, True, False), (2.0, True, False), (4.0, True, True), (4.0, False, False)],
)
def test_waiting_in_vain_tells_something_only_if_it_was_longer_than_usual(
    waited_s: float, patient: bool, learns: bool
) -> None:
    row = Row(30.0)
    row.asked("seen", 8.0)
    row.first_byte("seen", 10.0, 0)
    row.sent(10.0 - waited_s)
    row.asked("attempt", 10.0 - waited_s)
    row.left_awaiting("attempt", 10.0, patient=patient)
    row.finished(10.0, None)
    assert row.speed.count == 1 + learns
    typical_s = row.speed.typical_s()
    assert typical_s is not None
    assert (typical_s > 2.0 + 1e-9) is learns
    assert row.success.weight == 0.0
    assert (row.in_flight, row.awaiting) == (0, 0)


def test_who_never_waited_tells_no_time() -> None:
    """Nothing was seen yet; an answer before the request was complete; a second word on the same attempt."""
    row = Row(30.0)
    row.asked("attempt", 1.0)
    row.left_awaiting("attempt", 9.0, patient=True)
    assert row.speed.typical_s() is None
    row.first_byte("never asked", 1.0, 0)
    row.left_awaiting("never asked", 9.0, patient=True)
    assert row.speed.typical_s() is None
    assert not row.latest_s


def test_the_oldest_that_waits_is_the_first() -> None:
    row = Row(30.0)
    levels = []
    for name, at in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        row.sent(at)
        levels.append(row.asked(name, at))
    assert levels == [0, 1, 2]
    assert row.snapshot(5.0)["oldest_waiting_s"] == 4.0
    row.left_awaiting("a", 5.0, patient=False)
    assert row.snapshot(5.0)["oldest_waiting_s"] == 3.0
    row.first_byte("c", 5.0, 2)
    assert (row.snapshot(5.0)["oldest_waiting_s"], row.awaiting) == (3.0, 1)


def test_the_usual_wait_is_the_95th_percentile_of_the_latest() -> None:
    row = Row(30.0)
    for number in range(1, 101):
        assert row.usual_wait_s() is None or number > 20
        now = 1000.0 + number
        row.asked(number, now - number)
        row.first_byte(number, now, 0)
    assert row.usual_wait_s() == 96.0
    for number in range(100):  # what was before is forgotten
        row.asked(number, 2000.0 + number)
        row.first_byte(number, 2000.5 + number, 0)
    assert row.usual_wait_s() == 0.5


def test_more_than_two_hundred_a_second_are_counted_and_teach_nothing_more() -> None:
    row = Row(30.0)
    for number in range(1000):
        now = 10.0 + number * 0.001
        row.sent(now)
        row.asked(number, now)
        row.first_byte(number, now + 0.5, 0)
        row.finished(now + 0.5, True)
        row.charged(now + 0.5, 1000, Usage(250, 0, 0, 100), 0.0)
    assert (row.finished_count, row.success.weight) == (1000, pytest.approx(1000.0, rel=0.02))
    assert row.awaiting == row.in_flight == 0
    assert row.heard_s == pytest.approx(10.999)
    assert row.speed.count == pytest.approx(64 + 1.0 / SAMPLE_GAP_S, abs=2)
    assert row.charges.requests == pytest.approx(64 + 1.0 / SAMPLE_GAP_S, abs=2)


@pytest.mark.parametrize(
    ("good", "bad", "rate", "mostly"),
    [
        (0, 9, 0.5, False),  # too few to tell
        (0, 10, 0.5, True),
        (5, 5, 0.5, False),  # half is not most
        (5, 6, 0.5, True),
        (5, 6, 0.6, False),
        (0, 50, 1.0, False),
    ],
)
def test_who_mostly_fails(good: int, bad: int, rate: float, mostly: bool) -> None:
    row = Row(30.0)
    for success in [True] * good + [False] * bad:
        row.sent(1.0)
        row.finished(1.0, success)
    assert row.mostly_fails(1.0, rate) is mostly
    assert not row.mostly_fails(301.0, rate)  # ten half-lives later nobody can tell
    row.forget_failures()
    assert row.success.mean() is None
    assert row.read_success(1.0) == 1.0


def test_estimates_and_odd_usages_teach_nothing_wrong() -> None:
    row = Row(30.0)
    row.charged(1.0, 100, Usage(25, 0, 0, 50, 0, estimated=True), 1.0)
    assert row.charges.ratios is None
    row.charged(2.0, 100, Usage(5000, 4000, 0, 10, 0), None)  # an image behind a URL
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
    assert row.charges.read(100.0 + 1e12, priors) == pytest.approx(priors, abs=1e-3)


def test_retuning_keeps_what_was_learned() -> None:
    row = Row(30.0)
    row.success.add(0.5, 1.0)
    row.charged(1.0, 100, Usage(25, 0, 0, 10, 0), None)
    row.retune(60.0)
    assert row.success.tau_s == pytest.approx(row.charges.tau_s / COST_HALF_LIVES)
    assert row.success.weight_at(61.0) == pytest.approx(0.5)
    assert row.charges.ratios == (0.25, 0.0, 10.0)


@given(st.lists(st.sampled_from(["good", "failed", "left", "left late"]), max_size=30))
def test_counters_return_to_zero_whatever_the_fates(fates: list[str]) -> None:
    row = Row(30.0)
    for number, _ in enumerate(fates):
        row.sent(1.0)
        assert row.asked(number, 1.0) == number
    for number, fate in enumerate(fates):
        if fate in ("good", "left late"):
            row.first_byte(number, 1.1, number)
        else:
            row.left_awaiting(number, 1.1, patient=fate == "left")
    assert row.awaiting == 0
    for fate in fates:
        row.finished(2.0, {"good": True, "failed": False}.get(fate))
    assert (row.in_flight, row.awaiting, row.finished_count) == (0, 0, len(fates))
