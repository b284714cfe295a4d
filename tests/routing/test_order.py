"""The first healthy member as listed; one that is silent is not sent more."""

from __future__ import annotations

import pytest

from proxy.routing.strategy import explain
from tests.support.deployments import NOW, attempt, deployment, eject, facts, fail, picks, pool_of, succeed


@pytest.mark.parametrize(
    ("fates", "choice"),
    [
        ({}, "a"), ({"a": "out"}, "b"), ({"a": "busy"}, "b"), ({"a": "silent"}, "b"), ({"b": "silent"}, "a"),
        ({"a": "silent", "b": "out"}, "c"), ({"a": "out", "b": "silent"}, "c"), ({"a": "slow"}, "a"),
        ({"a": "silent", "b": "silent", "c": "silent"}, "a"), ({"a": "waiting"}, "a"),
    ],
)  # fmt: skip
def test_the_first_healthy_member_is_asked(fates: dict[str, str], choice: str) -> None:
    members = [deployment(name) for name in "abc"]
    for member in members:
        fate = fates.get(member.provider.name)
        for back_s in range(20, 10, -1):
            succeed(member, 5.0 if fate == "slow" else 0.1, NOW - back_s)
        if fate == "out":
            eject(member)
        elif fate == "busy":
            fail(member, "429", retry_after_s=60.0)
        elif fate in ("silent", "waiting"):
            attempt(member, NOW - (9.0 if fate == "silent" else 0.05))
    pool = pool_of("order", *members)
    assert picks(pool, facts()) == {choice: 400}
    found = explain(pool, facts())
    assert found.choice is not None and found.choice.provider.name == choice


def test_a_place_is_the_score_and_silence_puts_it_behind() -> None:
    members = [deployment(name) for name in "abc"]
    waiting = attempt(members[0], NOW - 60.0)
    pool = pool_of("order", *members)
    assert [one.score for one in explain(pool, facts()).candidates] == [4.0, 2.0, 3.0]
    assert explain(pool, facts()).why == "the first that is healthy"
    waiting.left(NOW)  # it is asked again: whether it still hangs, one request finds out
    assert picks(pool, facts()) == {"a": 400}
