"""Days and months, in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.calendar import DAY_S, day_of, days_of, first_of, month_of


def test_the_end_of_a_year():
    december = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC).timestamp()
    number, ends = month_of(december)
    assert (number, ends) == (2026 * 12 + 11, datetime(2027, 1, 1, tzinfo=UTC).timestamp())
    assert month_of(ends)[0] == number + 1
    assert first_of(number) == datetime(2026, 12, 1, tzinfo=UTC)


@given(st.floats(0, 2e10))
def test_a_moment_is_within_its_day_and_month(moment):
    day, (month, ends) = day_of(moment), month_of(moment)
    first, behind = days_of(month)
    assert day * DAY_S <= moment < (day + 1) * DAY_S
    assert first <= day < behind
    assert (behind * DAY_S, 28 <= behind - first <= 31) == (ends, True)
