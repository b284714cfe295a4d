"""Choosing and explaining, with any strategy. Each strategy has a file of its own."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.settings import STRATEGIES
from proxy.routing.cost import LEARNS
from proxy.routing.latency import NEVER_ASKED, PROBED
from proxy.routing.pool import Pool
from proxy.routing.strategy import BY_NAME, choose, explain
from proxy.usage.tokens import Usage
from tests.support.deployments import (
    NOW,
    World,
    attempt,
    deployment,
    eject,
    facts,
    fail,
    picks,
    pool_of,
    succeed,
)


def test_the_strategies_that_settings_name_are_those_that_pick() -> None:
    assert tuple(name for name, row in BY_NAME.items() if row.pick is not None) == STRATEGIES
    assert BY_NAME.keys() - {*STRATEGIES} == {"split", "pinned"}
    assert all(row.name == name and row.why for name, row in BY_NAME.items())


def skipped(pool: Pool, **request: object) -> list[str | None]:
    return [one.skipped for one in explain(pool, facts(**request)).candidates]


@pytest.mark.parametrize("strategy", [*STRATEGIES, "split"])
def test_a_single_member_is_taken_whatever_it_lacks(strategy: str) -> None:
    only = deployment("a", context_window=10)
    pool = pool_of(strategy, only, shares=[("a/m", 1, [only])])
    request = facts(images=True, body_bytes=10**6)
    assert choose(pool, request, Random(1)) is only
    assert skipped(pool, images=True) == [None]


def test_a_pinned_request_is_always_sent() -> None:
    only = deployment("a", context_window=10)
    pool = pool_of("pinned", only, kind="pinned")
    for make_worse in (
        lambda: None, lambda: fail(only, "429", retry_after_s=600.0), lambda: eject(only),
        lambda: [fail(only, "401") for _ in range(3)],
    ):  # fmt: skip
        make_worse()
        assert choose(pool, facts(body_bytes=10**6), Random(1)) is only
        found = explain(pool, facts())
        assert found == (only, "the only one that can take it", [(only, None, None)])
    assert choose(pool, facts(), Random(1), [only]) is None


@pytest.mark.parametrize("strategy", [*STRATEGIES, "split"])
def test_where_nobody_has_a_key_none_is_said_to_be_chosen(strategy: str) -> None:
    members = [deployment(name, usable=False) for name in "ab"]
    pool = pool_of(strategy, *members, shares=[("m", 1, members)], inner="latency")
    assert choose(pool, facts(), Random(1)) is members[0]  # and the answer says what is wrong
    found = explain(pool, facts())
    assert (found.choice, found.why) == (None, "no provider of its members has a key")
    assert found.candidates == [
        (member, None, f"provider {name} has no key: set api_key_env; it is left out")
        for member, name in zip(members, "ab", strict=True)
    ]


def test_a_pinned_member_without_a_key_is_not_said_to_be_chosen() -> None:
    only = deployment("a", usable=False)
    pool = pool_of("pinned", only, kind="pinned")
    assert choose(pool, facts(), Random(1)) is only
    reason = "provider a has no key: set api_key_env; it is left out"
    assert explain(pool, facts()) == (None, reason, [(only, None, reason)])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_members_that_cant_take_the_request_are_skipped(strategy: str) -> None:
    """Why, is for test_candidates."""
    able = ("vision", "tools")
    pool = pool_of(
        strategy, deployment("blind", "tools", context_window=100_000),
        deployment("idle", "vision", context_window=100_000), deployment("small", *able, context_window=900),
        deployment("keyless", *able, usable=False), deployment("good", *able, context_window=100_000),
    )  # fmt: skip
    assert picks(pool, facts(images=True, tools=True)) == {"good": 400}
    assert [why is None for why in skipped(pool, images=True, tools=True)] == [False] * 4 + [True]


def test_what_the_pool_left_out_is_explained_too() -> None:
    left_out = deployment("c")
    pool = pool_of("cost", deployment("a"), deployment("b"), left_out=[(left_out, "doesn't serve chat")])
    found = explain(pool, facts())
    assert found.candidates[2] == (left_out, None, "doesn't serve chat")
    assert [one.score for one in found.candidates] == [None, None, None]  # no prices


def test_an_embedding_batch_is_no_prompt() -> None:
    pool = pool_of("round-robin", deployment("a", context_window=100), deployment("b"), endpoint="embeddings")
    assert picks(pool, facts(endpoint="embeddings", body_bytes=10**6)) == {"a": 200, "b": 200}


@pytest.mark.parametrize("strategy", [*STRATEGIES, "split"])
def test_all_cooling_down_is_nobody(strategy: str) -> None:
    members = [deployment("a"), deployment("b")]
    pool = pool_of(strategy, *members, shares=[("a/m", 1, members[:1]), ("b/m", 1, members[1:])])
    for member in members:
        fail(member, "429", retry_after_s=5.0)
    assert choose(pool, facts(), Random(1)) is None
    found = explain(pool, facts())
    assert (found.choice, found.why) == (None, "all members are rate limited")
    assert all("cooling down for 5.0 s" in (one.skipped or "") for one in found.candidates)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "split"])
def test_who_is_out_gets_nothing_and_then_one_trial(strategy: str) -> None:
    a, b = deployment("a"), deployment("b")
    pool = pool_of(strategy, a, b, shares=[("a/m", 1, [a]), ("b/m", 99, [b])])
    until_s = eject(b)
    assert picks(pool, facts()) == {"a": 400}
    assert choose(pool, facts(now=until_s), Random(1)) is b
    attempt(b, until_s)
    assert picks(pool, facts(now=until_s)) == {"a": 400}
    found = explain(pool, facts(now=until_s))
    assert (found.choice, found.candidates[1].skipped) == (a, "trial: 500")


@pytest.mark.parametrize(
    ("strategy", "why"),
    [
        ("latency", "the lowest expected time to the first output"), ("cost", "the lowest expected price"),
        ("availability", "the lowest latency of those that fail least"), ("round-robin", "its turn"),
        ("throughput", "the lowest expected time to the whole answer"),
        ("split", "by weight"),
    ],
)  # fmt: skip
def test_why(strategy: str, why: str) -> None:
    a, b = (deployment(name, input_price_usd_per_mtok=1.0, output_price_usd_per_mtok=1.0) for name in "ab")
    succeed(a)
    succeed(b)
    pool = pool_of(strategy, a, b, shares=[("a/m", 1, [a]), ("b/m", 2, [b])])
    assert explain(pool, facts()).why == why
    assert skipped(pool) == [None, None]


WEIGHTS = [(90, 10), (50, 30, 20), (1, 1, 1, 1), (970, 20, 10)]


# ------------------------------------------------------------------ anything


WINDOW = st.sampled_from([None, 10, 2000, 10**6])
SHAPE = st.tuples(st.booleans(), st.booleans(), WINDOW, st.sampled_from(["cold", "warm", "out", "cooling"]))
REQUEST = {
    "images": st.booleans(), "body_bytes": st.integers(0, 10**7), "now": st.floats(-1.0, 1e9),
    "caller": st.binary(max_size=3),
}  # fmt: skip


@given(
    st.sampled_from([*STRATEGIES, "split"]),
    st.lists(SHAPE, min_size=1, max_size=6),
    st.fixed_dictionaries(REQUEST),
)
def test_a_choice_is_always_a_member_that_explain_lets_in(
    strategy: str, shapes: list[tuple[bool, bool, int | None, str]], said: dict[str, Any]
) -> None:
    members = []
    for index, (usable, vision, window, state) in enumerate(shapes):
        extra = ("vision",) if vision else ()
        one = deployment(f"m{index}", *extra, usable=usable, context_window=window)
        if state == "warm":
            succeed(one, 0.1 * index, 5.0)
            one.row("chat", True).charged(5.0, 100, Usage(index, 0, 0, index), None)
        elif state == "out":
            eject(one, 5.0)
        elif state == "cooling":
            fail(one, "429", 5.0, retry_after_s=60.0)
        members.append(one)
    shares = [(one.id, index, [one]) for index, one in enumerate(members) if index]
    pool = pool_of(strategy, *members, shares=shares)
    request = facts(**said)
    found = explain(pool, request)
    chosen = choose(pool, request, Random(1))
    assert [one.deployment for one in found.candidates] == members
    able = [one.deployment for one in found.candidates if one.skipped is None]
    if able:
        assert chosen in able
    else:  # where nobody has a key, one is asked that says so
        assert found.choice is None and (chosen is None or not any(one.usable for one in members))


def _unsettled(strategy: str, seed: int) -> World:
    """Members that fail, hang, differ by prompt, are unknown or unpriced, in the middle of it."""
    names = {"a": (1.0, 4.0), "b": (1.1, 3.0), "c": (0.9, 6.0), "d": (1.0, 4.1)}
    members = [
        deployment(name, input_price_usd_per_mtok=given, output_price_usd_per_mtok=written)
        for name, (given, written) in names.items()
    ]
    world = World(strategy, seed, *members)
    times = {"a": 0.3, "b": 0.31, "c": 0.6, "d": 1.5}
    world.first_byte_s = lambda name, now: times[name] * (6.0 if name == "a" and 80.0 < now < 160.0 else 1.0)
    world.fails = lambda name, now: name == "b" and 40.0 < now < 120.0
    world.hangs = lambda name, now: name == "c" and 150.0 < now < 200.0
    world.output_tokens = {"a": 200, "b": 350, "c": 150, "d": 250}
    return world


@pytest.mark.parametrize("strategy", ["latency", "cost", "throughput", "availability", "round-robin"])
def test_explain_says_what_the_next_request_will_meet(strategy: str) -> None:
    world = _unsettled(strategy, 7)
    rng, differ, whys = Random(3), 0, Counter[str]()
    for _ in range(1000):
        world.run(0.3, 4.0)
        told_rng = Random()
        told_rng.setstate(rng.getstate())
        asked = facts(now=world.now)
        told = explain(world.pool, asked, rng=told_rng)
        whys[told.why] += 1
        differ += choose(world.pool, asked, rng) is not told.choice
    assert differ < 10
    expected = {"latency": PROBED, "throughput": PROBED, "cost": LEARNS, "availability": PROBED}
    assert whys[expected.get(strategy, "its turn")] > 0


def test_explain_says_why_it_is_another_than_the_best() -> None:
    a, b = deployment("a"), deployment("b")
    succeed(a)
    pool = pool_of("latency", a, b)
    assert (explain(pool, facts()).choice, explain(pool, facts()).why) == (b, NEVER_ASKED)
    attempt(b, NOW - 1.0).failed(NOW, "500", Random(1))  # its first request failed: it is probed all the same
    assert explain(pool, facts(now=NOW + 60.0)).why == PROBED
    c, d = deployment("c"), deployment("d")
    succeed(c)
    succeed(d)
    c.row("chat", True).size.slope = 1e-9
    assert explain(pool_of("latency", c, d), facts()).why.endswith(", for a prompt of this size")
