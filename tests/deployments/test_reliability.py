"""The share of failures over many requests."""

from random import Random

import pytest

from proxy.deployments.reliability import Reliability

TAU_S = 5000.0


def seen(share: float, requests: int, rng: Random, every_s: float = 0.5) -> Reliability:
    """``share`` of the requests failed."""
    found = Reliability(TAU_S)
    for number in range(requests):
        found.add(float(rng.random() < share), 1.0, every_s * number)
    return found


@pytest.mark.parametrize("every_s", [0.01, 0.5, 2.0])
def test_999_is_told_from_98_percent(every_s: float) -> None:
    rng = Random(5)
    pairs = [(seen(0.001, 600, rng, every_s), seen(0.02, 600, rng, every_s)) for _ in range(100)]
    now = 600 * every_s
    right = sum(good.least_share(now) + 0.002 < bad.least_share(now) for good, bad in pairs)
    assert right >= 85
    assert sum(good.least_share(now) > 0.002 for good, _ in pairs) <= 5


def test_quiet_fades_it() -> None:
    found = seen(0.1, 300, Random(1))
    assert found.least_share(150.0) > 0.02
    assert found.least_share(150.0 + 4.0 * TAU_S) == 0.0
    assert found.share(150.0 + 20.0 * TAU_S) < 1e-6


@pytest.mark.parametrize(("share", "forgiven_after"), [(0.5, 20), (0.1, 80)])
def test_a_run_of_successes_that_it_cannot_explain_ends_a_fault(share: float, forgiven_after: int) -> None:
    found = seen(share, 400, Random(2))
    run = 0
    while found.failures:
        found.add(0.0, 1.0, 200.0 + 0.1 * run)
        run += 1
    assert 0.2 * forgiven_after < run <= forgiven_after


def test_many_at_once_count_as_many() -> None:
    found = Reliability(TAU_S)
    found.add(1.0, 1.0, 0.0)
    found.add(0.0, 9.0, 0.0)
    assert found.share(0.0) == pytest.approx(1.0 / 20.0, rel=0.05)
    found.add(0.0, 1e6, 0.0)
    assert "of 1e+06 failed" in repr(found)
