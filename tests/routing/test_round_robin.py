"""Turns are even, smooth and weighted."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from proxy.routing.strategy import choose
from tests.routing.test_strategy import skipped
from tests.support.deployments import World, deployment, facts, pool_of


def test_round_robin_is_even_smooth_and_weighted() -> None:
    pool = pool_of("round-robin", deployment("a", weight=3), deployment("b"), deployment("c", usable=False))
    rng = Random(1)
    found = [choose(pool, facts(), rng) for _ in range(8)]
    assert "".join(member.provider.name for member in found if member) == "aabaaaba"
    before = list(pool.turns)
    assert skipped(pool)[2] == "provider c has no key: set api_key_env; it is left out"
    assert pool.turns == before  # explaining takes no turn


@pytest.mark.parametrize("strategy", ["round-robin", "split"])
def test_a_further_attempt_takes_no_turn(strategy: str) -> None:
    members = [deployment(name) for name in "abc"]
    pool = pool_of(strategy, *members, shares=[("m", 1, members)], inner="round-robin")
    rng = Random(1)
    found = Counter(choose(pool, facts(), rng, members[:1]) for _ in range(401))
    assert min(found[members[1]], found[members[2]]) > 150
    # bug: _pick_split takes a turn for its inner strategy
    assert pool.turns == [0, 0, 0]


def test_round_robin_is_fair_in_any_stretch() -> None:
    world = World("round-robin", 1, deployment("a"), deployment("b", weight=2), deployment("c"))
    counts = world.run(400, 5.0)
    assert abs(counts["b"] - 2 * counts["a"]) <= 2
    assert abs(counts["a"] - counts["c"]) <= 1
