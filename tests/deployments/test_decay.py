"""The decayed sum and mean: fading, priors, clocks that step back, reading without writing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.decay import DecayedMean, DecayedSum, tau_from

TAU = tau_from(30.0)


def test_sum_halves_every_half_life() -> None:
    decayed = DecayedSum(TAU)
    decayed.add(8.0, 100.0)
    assert decayed.read(100.0) == 8.0
    assert decayed.read(130.0) == pytest.approx(4.0)
    decayed.add(1.0, 160.0)
    assert decayed.read(160.0) == pytest.approx(3.0)


def test_a_steady_rate_reads_as_rate_times_tau() -> None:
    decayed = DecayedSum(10.0)
    for step in range(100_000):
        decayed.add(1.0, step * 0.01)
    assert decayed.read(1000.0) == pytest.approx(100.0 * 10.0, rel=0.01)


def test_mean_starts_at_the_prior_and_drifts_back_to_it() -> None:
    mean = DecayedMean(TAU)
    assert mean.mean() is None
    assert mean.read(5.0, prior=1.0) == 1.0
    mean.add(3.0, 10.0)
    assert mean.mean() == 3.0
    assert mean.read(10.0, prior=1.0) == pytest.approx(2.0)  # one sample against one prior
    assert mean.read(10.0, prior=1.0, k=3.0) == pytest.approx(1.5)
    assert mean.read(10.0 + 40 * TAU, prior=1.0) == pytest.approx(1.0)
    assert mean.mean() == 3.0
    assert mean.weight_at(40.0) == pytest.approx(0.5)


def test_weights_make_a_ratio_of_sums() -> None:
    mean = DecayedMean(TAU)
    mean.add(10.0, 1.0, 1000.0)
    mean.add(1.0, 1.0, 10.0)
    mean.add(5.0, 1.0, 0.0)  # says nothing
    assert mean.mean() == pytest.approx(11.0 / 1010.0)


def test_a_clock_that_steps_back_counts_as_no_time() -> None:
    decayed, mean = DecayedSum(TAU), DecayedMean(TAU)
    for at in (100.0, 99.9):
        decayed.add(1.0, at)
        mean.add(2.0, at)
    assert decayed.read(99.0) == decayed.value == 2.0
    assert decayed.stamp_s == mean.stamp_s == 100.0
    assert mean.read(99.0, prior=2.0) == 2.0
    assert mean.weight_at(99.0) == 2.0


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 100), st.floats(-0.1, 1e7)), max_size=20),
    st.floats(0, 100),
    st.floats(0.0, 1e9),
)
def test_a_mean_stays_between_its_samples_and_prior(
    samples: list[tuple[float, float, float]], prior: float, later: float
) -> None:
    mean = DecayedMean(TAU)
    now = 0.0
    for _, value, step in samples:
        now += step
        mean.add(value, now)
    before = repr(mean)
    read = mean.read(now + later, prior)
    values = [value for _, value, _ in samples] + [prior]
    assert min(values) - 1e-6 <= read <= max(values) + 1e-6
    assert repr(mean) == before  # reading never writes


@pytest.mark.parametrize("half_life_s", [0.0, -1.0, 1e-9, 30.0, 1e9])
def test_any_half_life_gives_a_usable_tau(half_life_s: float) -> None:
    decayed = DecayedSum(tau_from(half_life_s))
    decayed.add(1.0, 0.0)
    decayed.add(1.0, 1e12)
    assert math.isfinite(decayed.read(1e13))
    assert "DecayedSum" in repr(decayed)
