"""Further attempts as a share of live traffic, above a floor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.budget import FLOOR, TAU_S, RetryBudget


def spend(budget: RetryBudget, now: float) -> int:
    taken = 0
    while budget.take(now):
        taken += 1
    return taken


def test_a_burst_out_of_quiet_has_the_floor():
    budget = RetryBudget(0.2)
    assert spend(budget, 100.0) == FLOOR
    assert not budget.is_left(100.0)
    assert not budget.take(100.0)
    assert spend(budget, 100.0 + TAU_S) == 6  # of ten 3.7 still count
    assert spend(budget, 1e6) == FLOOR


@pytest.mark.parametrize(("share", "further"), [(0.0, 10), (0.2, 30), (1.0, 110)])
def test_traffic_allows_a_share_of_itself(share, further):
    budget = RetryBudget(share)
    for _ in range(100):
        budget.count_request(50.0)
    assert spend(budget, 50.0) == further


def test_what_follows_a_clients_own_limit_is_not_paid_by_others():
    budget = RetryBudget(0.2)
    for _ in range(100):
        budget.count_request(50.0)
    assert sum(budget.take(50.0, is_clients=True) for _ in range(1000)) == 30
    assert not budget.is_left(50.0, is_clients=True)
    assert spend(budget, 50.0) == 30


def test_asking_spends_nothing():
    budget = RetryBudget(0.0)
    assert all(budget.is_left(1.0) for _ in range(100))
    assert "share=0.0" in repr(budget)


@pytest.mark.parametrize("per_second", [1, 10, 100])
def test_in_a_lasting_outage_the_load_grows_by_the_share(per_second):
    """Every request fails and would be tried again, for ten minutes."""
    budget = RetryBudget(0.2)
    taken = 0
    for request in range(600 * per_second):
        now = request / per_second
        budget.count_request(now)
        taken += budget.take(now)
    # The floor is one further attempt a second, over 10 s; a share of the traffic comes on top.
    assert taken == pytest.approx(600 * min(per_second, 1.0 + 0.2 * per_second), rel=0.05)


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=60), st.floats(0, 1))
def test_it_is_never_overdrawn(steps, share):
    budget = RetryBudget(share)
    now = 0.0
    for wait, is_request in steps:
        now += wait
        if is_request:
            budget.count_request(now)
        elif budget.take(now):
            spent = budget._retries.read(now)
            assert spent <= FLOOR + share * budget._requests.read(now) + 1e-9
