"""The time after which a second member is asked."""

from math import exp, log
from random import Random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.escape import LEAST_S, UNKNOWN_S, AnsweredTimes, escape_s
from proxy.deployments.row import Row


def row_of(*times: float) -> Row:
    row = Row(30.0)
    for seconds in times:
        row.answered.add(seconds)
    return row


@given(st.lists(st.floats(0.001, 500.0), min_size=10, max_size=250))
def test_it_is_three_deviations_above_the_last_hundred(times: list[float]) -> None:
    logs = [log(seconds) for seconds in times[-100:]]
    expected_s = max(exp(fmean(logs) + 3.0 * pstdev(logs)), LEAST_S)
    assert escape_s(row_of(*times), 0) == pytest.approx(expected_s, rel=1e-4)


@pytest.mark.parametrize(
    ("own", "others", "expected_s"),
    [
        ([], [], UNKNOWN_S),
        ([2.0] * 9, [[3.0] * 9], UNKNOWN_S),
        ([2.0] * 9, [[2.0] * 9, [2.0] * 5], 2.0),
        ([2.0] * 10, [[9.0] * 50], 2.0),
        ([0.05] * 10, [], LEAST_S),
        ([0.0] * 10, [], LEAST_S),
    ],
)
def test_with_few_answers_the_pool_counts(
    own: list[float], others: list[list[float]], expected_s: float
) -> None:
    assert escape_s(row_of(*own), 0, [row_of(*times) for times in others]) == pytest.approx(expected_s)


def test_times_of_attempts_that_were_left_do_not_raise_it() -> None:
    row, rng = Row(30.0), Random(1)
    for number in range(50):
        row.asked(number, 10.0 * number)
        row.first_byte(number, 10.0 * number + rng.lognormvariate(0.0, 0.3), 0)
    before_s = escape_s(row, 0)
    for number in range(50):
        row.asked("slow", 1000.0 + number)
        row.left_awaiting("slow", 1030.0 + number, patient=True)
    assert escape_s(row, 0) == before_s
    assert row.speed.mean_s > 5.0  # though they count as slowness


@pytest.mark.parametrize(
    ("expected_s", "of_other_s", "deviations"),
    [(30.0, 1.0, 1.0), (2.0, 1.0, 3.0), (30.0, 40.0, 3.0), (30.0, 0.0, 3.0)],
)
def test_one_that_is_believed_late_is_given_less_time_where_another_is_quicker(
    expected_s: float, of_other_s: float, deviations: float
) -> None:
    times = [1.0, 4.0] * 10
    row, other = row_of(*times), Row(30.0)
    row.speed.mean_s, other.speed.mean_s = expected_s, of_other_s
    after_s = 2.0 * exp(deviations * log(2.0))
    assert escape_s(row, 0, [row, other]) == pytest.approx(after_s)
    row.size.slope, row.size.usual_bytes = 1e-4, 5000.0
    assert escape_s(row, 25_000, [row, other]) == pytest.approx(3.0 * after_s)


def test_a_long_prompt_is_given_more_time() -> None:
    row = row_of(*[1.0] * 20)
    row.size.slope, row.size.usual_bytes = 1e-4, 5000.0
    assert escape_s(row, 5000) == pytest.approx(1.0)
    assert escape_s(row, 25_000) == pytest.approx(3.0)
    assert escape_s(row, 0) == pytest.approx(1.0)


def test_it_says_what_it_knows() -> None:
    assert repr(AnsweredTimes()) == "<AnsweredTimes 10 s of 0>"
