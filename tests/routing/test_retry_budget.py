"""Further attempts as a share of live traffic, above a floor."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.retry_budget import FLOOR, TAU_S, RetryBudget, Share


def spend(budget: RetryBudget, now: float) -> int:
    return sum(budget.take(now) for _ in range(1000))


def full(*shares: Share | None, share: float = 0.2) -> RetryBudget:
    """One that has counted a hundred requests at 50 s, for each of these."""
    budget = RetryBudget(share)
    for own in (*shares,) * 100:
        budget.count_request(50.0, own)
    return budget


def test_a_burst_out_of_quiet_has_the_floor():
    budget = RetryBudget(0.2)
    assert spend(budget, 100.0) == FLOOR
    assert not budget.is_left(100.0)
    assert not budget.take(100.0)
    assert spend(budget, 100.0 + TAU_S) == 6  # of ten 3.7 still count
    assert spend(budget, 1e6) == FLOOR


@pytest.mark.parametrize(("share", "further"), [(0.0, 10), (0.2, 30), (1.0, 110)])
def test_traffic_allows_a_share_of_itself(share, further):
    assert spend(full(None, share=share), 50.0) == further


def test_what_follows_a_clients_own_limit_is_not_paid_by_others():
    budget = full(None)
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
            spent = budget._all.retries.read(now)
            assert spent <= FLOOR + share * budget._all.requests.read(now) + 1e-9


def spend_as(budget: RetryBudget, own: Share | None, now: float, *, is_clients: bool = False) -> int:
    return sum(budget.take(now, own, is_clients=is_clients) for _ in range(1000))


def test_a_key_that_asks_alone_has_all_of_it():
    own = Share()
    assert spend_as(full(own), own, 50.0) == 30


@pytest.mark.parametrize("is_clients", [False, True])
def test_a_key_leaves_others_what_they_brought_and_half_of_the_floor(is_clients):
    greedy, other = Share(), Share()
    budget = full(greedy)
    for _ in range(20):
        budget.count_request(50.0, other)
    # 20 of its own, and half of 10 + 4.
    assert spend_as(budget, greedy, 50.0, is_clients=is_clients) == 27
    assert not budget.is_left(50.0, greedy, is_clients=is_clients)
    assert spend_as(budget, greedy, 50.0, is_clients=not is_clients) == 27  # the other kind has its own
    assert budget.is_left(50.0, other, is_clients=is_clients)
    assert spend_as(budget, other, 50.0, is_clients=is_clients) == 5  # 4, and half of what is left
    assert spend_as(budget, None, 50.0, is_clients=is_clients) == 2  # 34 in all
    assert "of_clients" not in repr(budget)
    assert repr(greedy).startswith("<Share ")


def test_who_has_no_key_counts_as_another():
    budget, greedy = RetryBudget(0.0), Share()
    budget.count_request(50.0)
    budget.count_request(50.0, greedy)
    assert spend_as(budget, greedy, 50.0) == 5
    assert spend_as(budget, None, 50.0) == 5


def test_the_silent_have_nothing_kept_for_them():
    budget, own, silent = RetryBudget(0.0), Share(), Share()
    budget.count_request(50.0, silent)
    assert spend_as(budget, own, 50.0) == 5
    assert spend_as(budget, own, 50.0 + TAU_S) >= 6


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 3), st.booleans()), max_size=80), st.floats(0, 1))
def test_no_key_can_use_it_up_for_another(steps, share):
    """Whatever the others did: a key that has taken nothing can take one, once it has brought one, as long as
    no more than two others are at it (each leaves half, and a floor of ten is two after two of them)."""
    budget, keys = RetryBudget(share), [Share() for _ in range(3)]
    now, fresh = 0.0, Share()
    budget.count_request(now, fresh)
    for wait, key, is_request in steps:
        now += wait
        budget.count_request(now, fresh)
        if is_request:
            budget.count_request(now, keys[key % 2])
        else:
            budget.take(now, keys[key % 2])
    assert budget.is_left(now, fresh)
