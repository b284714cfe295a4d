"""Figures that no single client can move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.votes import ENOUGH, KEYS, SAMPLES, Votes


def votes(*samples: tuple[float, int]) -> Votes:
    made = Votes(0.1, 1.5)
    for value, key in samples:
        made.add(value, key)
    return made


def test_of_nothing_and_of_two():
    assert (votes().typical, votes().upper, votes().count, votes().is_enough) == (0.0, 0.0, 0, False)
    assert votes((0.25, 1), (0.1, 2)).typical == 0.25  # the dearer one counts
    assert votes((0.25, 1), (0.5, 2)).typical == 0.5


def test_a_key_has_one_vote_however_much_it_sends():
    """Two honest keys, of which each sends one request, and one that sends a thousand."""
    for lie in (0.1, 1.5):
        found = votes((0.25, 1), *[(lie, 2)] * 1000, (0.26, 3))
        assert found.typical in (0.25, 0.26)
        assert found.count == SAMPLES + 2


def test_no_single_key_says_what_others_reserve():
    found = votes(*[(0.25, key) for key in range(9)], *[(1.4, 99)] * 9)
    assert (found.typical, found.upper) == (0.25, 0.25)
    assert votes((0.25, 1), (0.26, 2), *[(1.4, 3)] * 9).upper == 0.26


@pytest.mark.parametrize("value", [0.0, 1.5e-6, 0.09, 1.6, 5000.0, float("inf"), float("nan")])
def test_what_can_not_be_true_is_not_taken(value):
    assert votes((value, 1)).count == 0
    assert not votes().add(value, 1)
    assert votes().add(0.2, 1)


def test_one_key_alone_is_followed_by_its_latest():
    found = votes(*[(0.2, 1)] * 50, *[(0.4, 1)] * (SAMPLES // 2 + 1))
    assert found.typical == 0.4
    assert votes(*[(0.2, 1)] * (ENOUGH - 1)).is_enough is False
    assert votes(*[(0.2, 1)] * ENOUGH).is_enough is True


def test_those_heard_of_last_vote():
    found = votes(*[(0.2, key) for key in range(KEYS)], *[(0.4, 100 + key) for key in range(KEYS)])
    assert (found.typical, found.count) == (0.4, KEYS)


@given(st.lists(st.tuples(st.floats(0.1, 1.5), st.integers(0, 30)), max_size=300))
def test_any_samples(samples):
    found = votes(*samples)
    assert found.count <= KEYS * SAMPLES
    if samples:
        assert 0.1 <= found.typical <= found.upper <= 1.5
    back = votes()
    back.restore(back.read(found.dump()))
    assert (repr(back), back.dump(), back.upper) == (repr(found), found.dump(), found.upper)


@pytest.mark.parametrize(
    "state", [None, [5], [[1]], [[1, "x"]], [[1, 9.0]], [[1, float("nan")]], [[None, 1.0]]]
)
def test_a_state_that_is_none(state):
    with pytest.raises((TypeError, ValueError)):
        votes().read(state)
