"""Shares are exact, and callers stay on their side."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from proxy.routing.pool import Pool
from proxy.routing.strategy import choose, explain
from tests.routing.test_strategy import WEIGHTS
from tests.support.deployments import NOW, deployment, eject, facts, picks, pool_of, succeed


def split(*weights: int, **more: object) -> Pool:
    members = [deployment(name) for name, _ in zip("abcdef", weights, strict=False)]
    shares = [(member.id, weight, [member]) for member, weight in zip(members, weights, strict=True)]
    return pool_of("split", *members, shares=shares, **more)


def shares_of(found: Counter[str], pool: Pool) -> list[float]:
    return [found[member.provider.name] / found.total() for member in pool.members]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_shares_are_exact_at_random(weights: tuple[int, ...]) -> None:
    pool = split(*weights)
    wanted = [weight / sum(weights) for weight in weights]
    assert shares_of(picks(pool, facts(), 20_000), pool) == pytest.approx(wanted, abs=0.01)
    assert [one.score for one in explain(pool, facts()).candidates] == pytest.approx(wanted)


def by_caller(pool: Pool, callers: int = 20_000, now: float = NOW) -> dict[int, str]:
    found = {}
    for caller in range(callers):
        member = choose(pool, facts(caller=b"%d" % caller, now=now), Random(caller * 7))
        assert member is not None
        found[caller] = member.provider.name
    return found


@pytest.mark.parametrize("weights", WEIGHTS)
def test_shares_are_exact_over_callers_and_each_stays_on_its_side(weights: tuple[int, ...]) -> None:
    pool, again = split(*weights), split(*weights)
    found = by_caller(pool)
    wanted = [weight / sum(weights) for weight in weights]
    assert shares_of(Counter(found.values()), pool) == pytest.approx(wanted, abs=0.01)
    assert by_caller(again, 500) == {caller: found[caller] for caller in range(500)}  # another replica


def test_when_a_member_is_out_only_its_callers_move_and_they_come_back() -> None:
    pool = split(50, 30, 20)
    before = by_caller(pool, 5000)
    until_s = eject(pool.members[1])
    during = by_caller(pool, 5000)
    assert {before[caller] for caller in before if before[caller] != during[caller]} == {"b"}
    moved = Counter(during[caller] for caller in before if before[caller] == "b")
    assert moved["a"] / moved.total() == pytest.approx(5 / 7, abs=0.03)
    assert moved["b"] == 0
    succeed(pool.members[1], now=until_s + 1.0)
    assert by_caller(pool, 5000, until_s + 1.0) == before


def test_a_changed_share_moves_only_as_many_as_it_must() -> None:
    before, after = by_caller(split(90, 10), 5000), by_caller(split(80, 20), 5000)
    moved = [(before[caller], after[caller]) for caller in before if before[caller] != after[caller]]
    assert set(moved) == {("a", "b")}
    assert len(moved) / 5000 == pytest.approx(0.1, abs=0.015)


def test_aliases_draw_independently() -> None:
    one, other = by_caller(split(50, 50, name="one"), 5000), by_caller(split(50, 50, name="other"), 5000)
    assert sum(one[caller] == other[caller] for caller in one) / 5000 == pytest.approx(0.5, abs=0.03)


def test_members_without_a_share_stand_in_only_when_no_other_is_left() -> None:
    members = [deployment(name) for name in "sab"]
    others = members[1:]
    pool = pool_of("split", *members, shares=[(one.id, 1, [one]) for one in others])
    assert "s" not in picks(pool, facts())
    assert [one.score for one in explain(pool, facts()).candidates] == [0.0, 0.5, 0.5]
    eject(others[0])
    assert picks(pool, facts()) == {"b": 400}
    eject(others[1])
    assert picks(pool, facts()) == {"s": 400}


def test_a_share_that_several_members_have_together() -> None:
    """A short name at two providers: the alias's own strategy chooses between them."""
    x, y, z = (deployment(name) for name in "xyz")
    for one, seconds in ((x, 5.0), (y, 0.1), (z, 1.0)):
        for _ in range(20):
            succeed(one, seconds)
    pool = pool_of("split", x, y, z, shares=[("m", 60, [x, y]), ("z/m", 40, [z])])
    found = picks(pool, facts(), 20_000)
    assert found["z"] / 20_000 == pytest.approx(0.4, abs=0.01)
    assert found["y"] > 15 * found["x"]
    eject(y)
    found = picks(pool, facts(), 20_000)
    assert found["x"] / 20_000 == pytest.approx(0.6, abs=0.01)  # the share stays with the name
    turns = pool_of("split", x, y, z, shares=[("m", 60, [x, y]), ("z/m", 40, [z])], inner="round-robin")
    succeed(y, now=NOW + 20.0)
    found = picks(turns, facts(now=NOW + 21.0), 1000)
    assert abs(found["x"] - found["y"]) <= 1


def test_a_further_attempt_leaves_the_callers_side() -> None:
    pool = split(50, 50)
    for caller in range(50):
        request = facts(caller=b"%d" % caller)
        first = choose(pool, request, Random(1))
        assert first is not None
        second = choose(pool, request, Random(1), [first])
        assert {first, second} == set(pool.members)
