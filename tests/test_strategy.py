"""Choosing and explaining; turns, successes and shares. Latency and cost have files of their own."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pool import Pool
from proxy.strategy import choose, explain
from proxy.tokens import Usage
from tests.routecases import NOW, World, attempt, deployment, eject, facts, fail, picks, pool_of, succeed

STRATEGIES = ("latency", "cost", "availability", "round-robin")


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
    states = [
        lambda: None,
        lambda: fail(only, "429", retry_after_s=600.0),
        lambda: eject(only),
        lambda: [fail(only, "401") for _ in range(3)],
    ]
    for make_worse in states:
        make_worse()
        assert choose(pool, facts(body_bytes=10**6), Random(1)) is only
        found = explain(pool, facts())
        assert (found.choice, found.why, found.candidates) == (
            only, "the only one that can take it", [(only, None, None)],
        )  # fmt: skip
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
    pool = pool_of(
        strategy,
        deployment("blind", "tools", context_window=100_000),
        deployment("idle", "vision", context_window=100_000),
        deployment("small", "vision", "tools", context_window=900),
        deployment("keyless", "vision", "tools", usable=False),
        deployment("good", "vision", "tools", context_window=100_000),
    )
    assert picks(pool, facts(images=True, tools=True)) == {"good": 400}
    assert skipped(pool, images=True, tools=True) == [
        "takes no images",
        "takes no tools",
        "context window of 900 tokens, the prompt has about 1000",
        "provider keyless has no key: set api_key_env; it is left out",
        None,
    ]


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
    assert (found.choice, found.why) == (None, "every member asked for patience")
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
        ("latency", "the lowest expected time to the first byte"),
        ("cost", "the lowest expected price"),
        ("availability", "the highest share of successes"),
        ("round-robin", "its turn"),
        ("split", "by share"),
    ],
)
def test_why(strategy: str, why: str) -> None:
    a, b = (deployment(name, input_price_usd_per_mtok=1.0, output_price_usd_per_mtok=1.0) for name in "ab")
    succeed(a)
    succeed(b)
    pool = pool_of(strategy, a, b, shares=[("a/m", 1, [a]), ("b/m", 2, [b])])
    assert explain(pool, facts()).why == why
    assert skipped(pool) == [None, None]


# ------------------------------------------------------------------ availability, turns


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
    assert [one.score for one in explain(pool, facts()).candidates] == [1.0, 1.0, 0.75]


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


# ------------------------------------------------------------------ split


def split(*weights: int, **more: object) -> Pool:
    members = [deployment(name) for name, _ in zip("abcdef", weights, strict=False)]
    shares = [(member.id, weight, [member]) for member, weight in zip(members, weights, strict=True)]
    return pool_of("split", *members, shares=shares, **more)


def shares_of(found: Counter[str], pool: Pool) -> list[float]:
    return [found[member.provider.name] / found.total() for member in pool.members]


WEIGHTS = [(90, 10), (50, 30, 20), (1, 1, 1, 1), (970, 20, 10)]


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


# ------------------------------------------------------------------ anything


@given(
    st.sampled_from([*STRATEGIES, "split"]),
    st.lists(
        st.tuples(
            st.booleans(),
            st.booleans(),
            st.sampled_from([None, 10, 2000, 10**6]),
            st.sampled_from(["cold", "warm", "out", "cooling"]),
        ),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
    st.integers(0, 10**7),
    st.floats(-1.0, 1e9),
    st.binary(max_size=3),
)
def test_a_choice_is_always_a_member_that_explain_lets_in(
    strategy: str,
    shapes: list[tuple[bool, bool, int | None, str]],
    images: bool,
    body_bytes: int,
    now: float,
    caller: bytes,
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
    request = facts(images=images, body_bytes=body_bytes, now=now, caller=caller)
    found = explain(pool, request)
    chosen = choose(pool, request, Random(1))
    assert [one.deployment for one in found.candidates] == members
    able = [one.deployment for one in found.candidates if one.skipped is None]
    if able:
        assert chosen in able
    else:  # where nobody has a key, one is asked that says so
        assert found.choice is None and (chosen is None or not any(one.usable for one in members))


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


def test_round_robin_is_fair_in_any_stretch() -> None:
    world = World("round-robin", 1, deployment("a"), deployment("b", weight=2), deployment("c"))
    counts = world.run(400, 5.0)
    assert abs(counts["b"] - 2 * counts["a"]) <= 2
    assert abs(counts["a"] - counts["c"]) <= 1
