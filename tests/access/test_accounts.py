"""The memory of accounts: its calendar, its sums, and its size. How limits go by it: test_limits.py."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.accounts import MAX_KEYS, Own, memory_bytes
from proxy.access.permits import Month
from proxy.errors import LimitReached
from proxy.usage.calendar import day_of, month_of
from tests.support.keys import UNIX_S, account_of, accounts_of


def test_days_and_months_are_of_the_calendar_in_utc():
    december = datetime(2026, 12, 31, 23, 59, 59, 999999, tzinfo=UTC).timestamp()
    ends = datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    accounts = accounts_of()
    moments = [december, ends, december, ends + 40 * 86400, december - 365 * 86400]
    february = datetime(2027, 2, 1, tzinfo=UTC).timestamp()
    moments += [february, february - 1, february - 2 * 86400]  # shorter than the one before
    for at in moments:  # also when set back
        assert (accounts.at(at), accounts.month) == (day_of(at), month_of(at)[0])


@given(st.lists(st.floats(0, 2e10), min_size=1, max_size=20))
def test_any_order_of_moments(moments):
    accounts = accounts_of()
    for at in moments:
        assert (accounts.at(at), accounts.month) == (day_of(at), month_of(at)[0])


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(0, 50)), max_size=40))
def test_a_days_sum_is_what_was_added_on_it(steps):
    """Days that follow each other, each with what is used on it; the months are of thirty."""
    own, day = Own(memoryview(bytearray(memory_bytes(1) // MAX_KEYS)), 0), 20_000
    days, months = Counter(), Counter()
    for wait, tokens in steps:
        day += wait // 10
        if own.day != day:
            own.turn(day, day // 30)
        own.month_tokens += tokens
        own.month_nusd += 2 * tokens
        days[day] += tokens
        months[day // 30] += tokens
        used = own.month_tokens - own.tokens_before, own.month_nusd - own.nusd_before
        assert used == (days[day], 2 * days[day])
        assert own.month_tokens == months[day // 30]


@pytest.mark.parametrize("months", [(1, 1), (1, 2)])
def test_the_day_before_again(months):
    """A clock that was set forward by mistake, and is set back."""
    own = Own(memoryview(bytearray(memory_bytes(1) // MAX_KEYS)), 0)
    first, second = zip((7, 8), months, strict=True)
    for (day, month), tokens, expected in (
        (first, 90, 90),
        (second, 30, 30),
        (first, 10, 100),
        (second, 5, 35),
    ):
        own.turn(day, month)
        own.month_tokens += tokens
        assert own.month_tokens - own.tokens_before == expected


def test_there_is_memory_for_every_key_and_worker():
    accounts = accounts_of(3, 2)
    assert accounts.base(MAX_KEYS) == memory_bytes(3)
    account = account_of(accounts, MAX_KEYS - 1, rpm=1)
    account.admit(1.0, UNIX_S, 0, 0)
    with pytest.raises(LimitReached):
        account.admit(1.0, UNIX_S, 0, 0)
    accounts.clear(2)  # no key is opened before it: nothing to do, and no end to run into
    for slot in range(MAX_KEYS):
        accounts.open(slot, UNIX_S, Month(0, 0, 0.0))
    accounts.clear(2)
