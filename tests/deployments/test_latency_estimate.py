"""The level of first-byte times: what drift, jumps, outliers and load do to it."""

from __future__ import annotations

from random import Random

import pytest

from proxy.deployments.latency_estimate import MAX_DOUBT, LatencyEstimate


def fed(every_s: float = 1.0, seed: int = 1) -> tuple[LatencyEstimate, float]:
    """A speed that has seen log-normal times about 0.4 s, and when the last one came."""
    speed, rng = LatencyEstimate(30.0), Random(seed)
    for number in range(200):
        speed.add(0.4 * rng.lognormvariate(0.0, 0.5), number * every_s, 3)
    return speed, 199 * every_s


def test_nothing_is_known_before_the_first_sample() -> None:
    speed = LatencyEstimate(30.0)
    assert (speed.mean_s, speed.count, speed.doubt_at(5.0)) == (0.0, 0.0, MAX_DOUBT)
    assert "doubt" in repr(speed)
    drift = speed.drift
    speed.retune(60.0)  # a changed half-life
    assert speed.drift == pytest.approx(drift / 2.0)


@pytest.mark.parametrize("every_s", [0.1, 2.0, 20.0])
@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_mean_at_any_pace(every_s: float, seed: int) -> None:
    speed, _ = fed(every_s=every_s, seed=seed)
    assert 0.3 < speed.mean_s < 0.7  # of 0.4 * exp(0.125)
    assert 0.1 < speed.noise < 0.6  # of 0.25


def test_doubt_grows_while_nothing_comes_up_to_a_limit() -> None:
    speed, now = fed()
    assert speed.doubt < speed.doubt_at(now + 60.0) < speed.doubt_at(now + 600.0)
    assert speed.doubt_at(now + 1e6) == MAX_DOUBT


def test_one_slow_answer_is_an_outlier_and_three_are_a_change() -> None:
    speed, now = fed()
    before = speed.mean_s
    speed.add(8.0, now + 1.0, 3)
    assert speed.mean_s < 1.4 * before
    for number in range(2, 4):
        speed.add(4.0, now + number, 3)
    assert speed.mean_s > 3.0
    assert speed.changed_s > now


def test_one_fast_answer_brings_a_slowed_member_back() -> None:
    speed, now = fed()
    for number in range(1, 6):
        speed.add(4.0, now + 60.0 * number, 3)
    assert speed.mean_s > 3.0
    speed.add(0.35, now + 400.0, 3)
    assert speed.mean_s < 0.8


@pytest.mark.parametrize("seed", range(5))
def test_a_server_that_slows_down_is_told_from_one_that_does_not(seed: int) -> None:
    rng = Random(seed)
    server, hosted = LatencyEstimate(30.0), LatencyEstimate(30.0)
    for number in range(400):
        in_flight = rng.randrange(20)
        server.add(0.3 * (1.0 + 0.2 * in_flight) * rng.lognormvariate(0.0, 0.4), number, in_flight)
        hosted.add(0.3 * rng.lognormvariate(0.0, 0.4), number, in_flight)
    assert server.load_factor(18) > 1.4 > 0.8 > server.load_factor(1)
    assert hosted.load_factor(19) < 1.3


def test_silence_of_many_is_noticed_sooner() -> None:
    speed, _ = fed()
    assert not speed.is_overdue(0.3, 20)
    assert not speed.is_overdue(1.0, 1)
    assert speed.is_overdue(1.0, 12)
    assert speed.is_overdue(5.0, 1)


def test_samples_at_one_instant_and_a_clock_that_steps_back() -> None:
    speed, now = fed()
    for at in (now, now, now - 1.0):
        speed.add(0.0, at, 0)
    assert speed.mean_s > 0.0
