"""The cost strategy: prices, what is learned of requests, and members without a price."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from proxy.config.settings import AliasConfig
from proxy.deployments.row import COST_HALF_LIVES
from proxy.routing.cost import LEARNS
from proxy.routing.strategy import choose, explain
from proxy.usage.tokens import Usage
from tests.support.deployments import NOW, World, attempt, deployment, facts, picks, pool_of, succeed


def priced(name: str, *prices: float | None, capabilities: tuple[str, ...] = ()):
    given, output, cached = (*prices, None, None, None)[:3]
    return deployment(
        name, *capabilities,
        input_price_usd_per_mtok=given,
        output_price_usd_per_mtok=output,
        cached_input_price_usd_per_mtok=cached,
    )  # fmt: skip


def test_a_member_without_price_is_the_last_choice() -> None:
    dear, half = priced("dear", 900.0, 900.0), priced("half", 0.1)
    free, none = priced("free", 0.0, 0.0), priced("none")
    assert picks(pool_of("cost", dear, none, half), facts()) == {"dear": 400}
    assert picks(pool_of("cost", dear, none, half, free), facts()) == {"free": 400}
    assert set(picks(pool_of("cost", none, half), facts())) == {"none", "half"}
    scores = [one.score for one in explain(pool_of("cost", dear, none, half), facts()).candidates]
    assert scores[1:] == [None, None]


def test_the_cost_of_a_request_is_the_formula() -> None:
    a, b = priced("a", 2.0, 10.0, 1.0), priced("b", 4.0, 10.0)
    for _ in range(30):
        a.row("chat", True).charged(NOW, 4000, Usage(1000, 500, 0, 200), None)
    found = [one.score for one in explain(pool_of("cost", a, b), facts()).candidates]
    # b is unknown: it is seeded with what the pool saw, and its own prices.
    assert found == pytest.approx([(1000 * 2 - 500 * 1 + 200 * 10) / 1e6, (1000 * 4 + 200 * 10) / 1e6])


def test_images_are_no_prompt() -> None:
    a, b = priced("a", 2.0, 10.0), priced("b", 1.0, 20.0)
    pool = pool_of("cost", a, b)
    assert picks(pool, facts(body_bytes=100_000)) == {"b": 400}  # a long prompt, where input is cheaper
    assert picks(pool, facts(body_bytes=100_000, data_url_bytes=98_000)) == {"a": 400}


def test_equal_prices_are_drawn() -> None:
    found = picks(pool_of("cost", priced("a", 1.0, 2.0), priced("b", 1.0, 2.01)), facts())
    assert min(found["a"], found["b"]) > 150


def test_embeddings_cost_no_output() -> None:
    a = priced("a", 0.02, capabilities=("embeddings",))
    b = priced("b", 0.13, capabilities=("embeddings",))
    pool = pool_of("cost", b, a, endpoint="embeddings")
    assert picks(pool, facts(endpoint="embeddings", streamed=False)) == {"a": 400}


RATES = [0.05, 0.5, 5.0]  # requests a second
SEEDS = [1, 2, 3]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rate", RATES)
def test_a_verbose_member_with_the_lowest_list_price_is_left(rate: float, seed: int) -> None:
    world = World("cost", seed, priced("wordy", 0.5, 2.0), priced("terse", 0.6, 2.4))
    world.output_tokens = {"wordy": 1000, "terse": 250}
    first = world.run(100 / rate, rate)
    later = world.run(300 / rate, rate)
    assert first["wordy"] < 20
    assert later["terse"] > 0.96 * later.total()
    ratios = world.pool.members[0].row("chat", True).charges.ratios
    assert ratios is not None
    assert ratios[2] == pytest.approx(1000)


@pytest.mark.parametrize("rate", RATES)
def test_a_member_that_is_40_times_as_dear_is_never_asked(rate: float) -> None:
    world = World("cost", 1, priced("dear", 20.0, 80.0), priced("cheap", 0.5, 2.0), priced("other", 0.7, 2.8))
    world.output_tokens = {"cheap": 600, "other": 500}
    assert world.run(2000 / rate, rate)["dear"] == 0


def test_nor_one_whose_input_alone_costs_more_than_an_answer_elsewhere() -> None:
    world = World("cost", 1, priced("dear", 3.0, 1.0), priced("cheap", 0.5, 2.0))
    world.output_tokens = {"cheap": 1000}
    assert world.run(400, 5.0)["dear"] == 0


@pytest.mark.parametrize("rate", RATES)
def test_asking_what_turns_out_dearer_costs_little(rate: float) -> None:
    """Two and three times as dear, and nothing else to find: some of the first hundred requests, then few."""
    names = {"a": 1.0, "b": 2.0, "c": 3.0}
    world = World("cost", 1, *(priced(name, price, 4.0 * price) for name, price in names.items()))
    world.output_tokens = dict.fromkeys(names, 1000)
    first = world.run(100 / rate, rate)
    assert first["b"] + 2 * first["c"] <= 12  # in requests' worth of money, of a hundred
    later = world.run(1000 / rate, rate)
    assert later["b"] + 2 * later["c"] <= 30


def test_who_tells_no_usage_is_not_asked_without_end() -> None:
    mute, known = priced("mute", 1.0, 4.0), priced("known", 0.5, 2.0)
    pool = pool_of("cost", mute, known)
    found = 0
    rng = Random(1)
    for number in range(1000):
        now = NOW + number
        chosen = choose(pool, facts(now=now), rng)
        assert chosen is not None
        found += chosen is mute
        usage = Usage(1000, 0, 0, 2000, 0, estimated=chosen is mute)
        chosen.row("chat", True).charged(now, 4000, usage, 0.0)
    assert 0 < found < 20


def test_a_burst_at_a_cold_start_asks_the_lowest_list_price_and_a_few_more() -> None:
    pool = pool_of("cost", *(priced(name, 1.0 + index, 4.0) for index, name in enumerate("abc")))
    assert picks(pool, facts()) == {"a": 400}
    pool.members[0].row("chat", True).charged(NOW, 4000, Usage(1000, 0, 0, 900), None)
    found = picks(pool, facts())  # the first answer was long, and no other comes
    assert 0 < found["b"] + found["c"] < 12


def test_a_changed_price_counts_from_the_next_request() -> None:
    """A reload makes new deployments, which take the old ones' rows over."""
    cheap, other = priced("cheap", 0.5, 2.0), priced("other", 1.0, 4.0)
    world = World("cost", 1, cheap, other)
    assert world.run(200, 5.0)["cheap"] > 950
    dearer = priced("cheap", 2.0, 8.0)
    dearer.adopt(cheap)
    world.pool = pool_of("cost", dearer, other)
    assert world.run(200, 5.0)["other"] > 950
    found = [one.score for one in explain(world.pool, facts(now=world.now)).candidates]
    assert found == pytest.approx([(1000 * 2 + 200 * 8) / 1e6, (1000 * 1 + 200 * 4) / 1e6], rel=0.01)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_became_terse_is_found_again(seed: int) -> None:
    world = World("cost", seed, priced("first", 0.5, 2.0), priced("second", 0.6, 2.4))
    world.output_tokens = {"first": 1000, "second": 250}
    world.run(2000, 0.5)
    world.output_tokens["first"] = 100
    half_life_s = 30.0 * COST_HALF_LIVES
    world.now += half_life_s  # hardly anybody asks for a while
    world.run(100, 0.5)
    found = world.run(400, 0.5)
    assert found["first"] > 0.9 * found.total()


def test_a_member_that_became_verbose_is_left_at_any_rate() -> None:
    for rate in RATES:
        world = World("cost", 1, priced("first", 0.5, 2.0), priced("second", 0.6, 2.4))
        world.output_tokens = {"first": 250, "second": 250}
        world.run(3000 / rate, rate)
        world.output_tokens["first"] = 1000
        assert world.run(100 / rate, rate)["first"] < 70
        assert world.run(100 / rate, rate)["first"] < 20


def test_an_unknown_member_is_neither_favoured_nor_shunned() -> None:
    """At the price of one that is known it has a turn soon, and half of them once it proves to be alike."""
    known = priced("known", 1.0, 4.0)
    for _ in range(200):
        known.row("chat", True).charged(NOW, 4000, Usage(1000, 0, 0, 800), None)
    world = World("cost", 1, known, priced("new", 1.0, 4.0))
    world.now = NOW
    world.output_tokens = {"known": 800, "new": 800}
    scores = [one.score for one in explain(world.pool, facts()).candidates]
    assert scores[1] == pytest.approx(scores[0])
    counts = world.run(200, 5.0)
    assert 0.35 < counts["new"] / counts.total() < 0.75
    # At six times the price it has none.
    assert World("cost", 1, known, priced("new", 6.0, 24.0)).run(60, 5.0)["new"] == 0


def test_a_cached_share_is_learned_where_caching_could_pay() -> None:
    plain, caching = priced("plain", 3.0, 4.0, 3.0), priced("caching", 4.0, 4.0, 0.4)
    pool, rng = pool_of("cost", plain, caching), Random(1)
    chosen = Counter[str]()
    for number in range(200):
        now = NOW + number
        member = choose(pool, facts(now=now, body_bytes=40_000), rng)
        assert member is not None
        chosen[member.provider.name] += 1
        usage = Usage(10_000, 8000 if member is caching else 0, 0, 200)
        member.row("chat", True).charged(now, 40_000, usage, None)
    assert chosen["caching"] > 180


def test_explaining_asks_nobody() -> None:
    a, b = priced("a", 1.0, 4.0), priced("b", 1.1, 4.4)
    pool = pool_of("cost", a, b)
    a.row("chat", True).charged(NOW, 4000, Usage(1000, 0, 0, 800), None)
    for _ in range(10):
        found = explain(pool, facts())
        assert (found.choice, found.why) == (b, LEARNS)
    assert b.row("chat", True).charges.asked == 0.0


def test_it_leaves_the_cheap_one_while_that_fails() -> None:
    world = World("cost", 1, priced("cheap", 0.5, 2.0), priced("dear", 5.0, 20.0))
    failing = True
    world.fails = lambda name, now: failing and name == "cheap"
    during = world.run(600, 5.0)
    assert during["cheap"] < 0.04 * during.total()  # trials
    failing = False
    world.run(400, 5.0)
    assert world.run(60, 5.0).keys() == {"cheap"}


@pytest.mark.parametrize(
    ("bound_s", "streamed", "cheap_s", "picked"),
    [
        (None, True, 9.0, "cheap"),  # below ten times the quickest member's, and below 10 s
        (None, True, 20.0, "good"),
        (None, False, 20.0, "good"),
        (30.0, True, 20.0, "cheap"),
        (2.0, True, 3.0, "good"),
        (2.0, False, 3.0, "cheap"),  # a plain answer's time is that of the whole
        (0.01, True, 3.0, "cheap"),  # nobody is below it
    ],
)
def test_a_bound_on_the_first_output(
    bound_s: float | None, streamed: bool, cheap_s: float, picked: str
) -> None:
    cheap, good = priced("cheap", 1.0, 4.0), priced("good", 2.0, 8.0)
    for member, seconds in ((cheap, cheap_s), (good, 0.5)):
        for number in range(20):
            succeed(member, seconds, NOW - 20.0 + number, streamed=streamed)
            usage = Usage(1000, 0, 0, 200)
            member.row("chat", streamed).charged(NOW - 20.0 + number, 4000, usage, None)
    pool = pool_of("cost", cheap, good)
    pool.alias = AliasConfig("pool", ("cheap/m", "good/m"), max_first_token_s=bound_s)
    chosen = explain(pool, facts(streamed=streamed)).choice
    assert chosen is not None
    assert chosen.provider.name == picked


def test_the_cheapest_is_left_while_it_is_silent_and_asked_again_later() -> None:
    cheap, good = priced("cheap", 1.0, 4.0), priced("good", 2.0, 8.0)
    for number in range(20):
        for member in (cheap, good):
            succeed(member, 0.5, NOW - 20.0 + number)
            member.row("chat", True).charged(NOW - 20.0 + number, 4000, Usage(1000, 0, 0, 200), None)
    pool = pool_of("cost", cheap, good)
    waiting = [attempt(cheap, NOW + 0.1 * number) for number in range(5)]
    assert picks(pool, facts(now=NOW + 1.0))["cheap"] > 380
    assert picks(pool, facts(now=NOW + 6.0))["good"] > 380
    for one in waiting:
        one.left(NOW + 60.0)
    assert picks(pool, facts(now=NOW + 60.0))["cheap"] > 0
