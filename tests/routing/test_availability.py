"""Who fails is avoided, and forgiven."""

from __future__ import annotations

import pytest

from proxy.routing.strategy import explain
from tests.support.deployments import NOW, World, deployment, facts, picks, pool_of, succeed


def test_availability_breaks_ties_by_latency() -> None:
    a, b, c = (deployment(name) for name in "abc")
    for one, seconds in ((a, 0.9), (b, 0.3), (c, 0.1)):
        for _ in range(20):
            succeed(one, seconds)
    for _ in range(10):
        c.row("chat", True).finished(NOW, False)
    pool = pool_of("availability", a, b, c)
    found = picks(pool, facts())
    assert found["b"] > 380
    assert found["c"] == 0
    assert [one.score for one in explain(pool, facts()).candidates] == pytest.approx(
        [1.0, 1.0, 0.75], abs=0.01
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_availability_avoids_who_fails_and_forgives(seed: int) -> None:
    world = World("availability", seed)
    share = 0.3
    world.first_byte_s = lambda name, now: {"a": 0.2, "b": 0.5, "c": 0.8}[name]
    world.fails = lambda name, now: name == "a" and world.rng.random() < share
    world.run(60, 5.0)
    during = world.run(600, 5.0)
    assert during["a"] < 0.15 * during.total()
    share = 0.0
    world.run(300, 5.0)
    after = world.run(300, 5.0)
    assert after["a"] > 0.8 * after.total()
