"""Skipping, scoring and picking; and a seeded simulation per strategy, with stated tolerances."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalog import Deployment, Pool
from proxy.config import ModelConfig, ProviderConfig
from proxy.meters import Row
from proxy.strategy import Facts, choose, scores
from proxy.usage import Usage, price_nusd


def deployment(name: str, *capabilities: str, usable: bool = True, **facts: Any) -> Deployment:
    provider = ProviderConfig(name, f"http://{name}/v1", "http", name, 80, "/v1")
    capability_set = frozenset({"chat", *capabilities})
    model = ModelConfig(f"{name}/m", name, "m", capabilities=capability_set, **facts)
    return Deployment(model, provider, usable=usable)


def pool_of(strategy: str, *members: Deployment, endpoint: str = "chat") -> Pool:
    return Pool("p", "alias", endpoint, members, strategy)


def facts(**changes: Any) -> Facts:
    return Facts("chat", True, 4000, False, False, 0, 100.0)._replace(**changes)


def used(row: Row, seconds: float, now: float = 100.0, times: int = 20) -> None:
    for _ in range(times):
        row.sent(now)
        row.first_byte(seconds, now)
        row.finished(now, True)


def picks(pool: Pool, request: Facts, times: int = 400) -> Counter[str]:
    rng = Random(1)
    return Counter(choose(pool, request, rng).provider.name for _ in range(times))


STRATEGIES = ("latency", "cost", "availability", "round-robin")


@pytest.mark.parametrize("strategy", [*STRATEGIES, "pinned"])
def test_a_single_member_is_taken_whatever_it_lacks(strategy: str) -> None:
    only = deployment("a", usable=False, context_window=10)
    pool = pool_of(strategy, only)
    request = facts(images=True, body_bytes=10**6)
    assert choose(pool, request, Random(1)) is only
    assert [(one.id, reason) for one, _, reason in scores(pool, request)] == [("a/m", None)]


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
    request = facts(images=True, tools=True)
    assert picks(pool, request) == {"good": 400}
    assert [reason for _, _, reason in scores(pool, request)] == [
        "takes no images",
        "takes no tools",
        "context window of 900 tokens, the prompt has about 1000",
        "has no credentials",
        None,
    ]


def test_what_the_pool_left_out_is_explained_too() -> None:
    pool = Pool(
        "p", "alias", "chat", [deployment("a"), deployment("b")], "cost",
        left_out=[(deployment("c"), "doesn't serve chat")],
    )  # fmt: skip
    assert scores(pool, facts())[2][1:] == (None, "doesn't serve chat")
    assert [score for _, score, _ in scores(pool, facts())] == [None, None, None]  # no prices


def test_all_too_small_is_the_largest() -> None:
    windows = {"a": 100, "b": 500, "c": 300}
    pool = pool_of("cost", *[deployment(name, context_window=window) for name, window in windows.items()])
    assert picks(pool, facts(body_bytes=10_000)) == {"b": 400}
    reasons = [reason for _, _, reason in scores(pool, facts(body_bytes=10_000))]
    assert reasons[1] is None
    assert "the prompt has about 2500" in (reasons[0] or "")


def test_data_urls_are_no_prompt_and_the_tokenizer_is_learned() -> None:
    small, large = deployment("small", context_window=3000), deployment("large", context_window=10**6)
    pool = pool_of("round-robin", small, large)
    assert picks(pool, facts(body_bytes=5_000_000, data_url_bytes=4_996_000)) == {"small": 200, "large": 200}
    assert picks(pool, facts(body_bytes=11_000)) == {"small": 200, "large": 200}
    for _ in range(50):  # half a token a byte: some language the default doesn't fit
        small.row("chat", True).charged(100.0, 4000, Usage(2000, 0, 0, 10), None)
    assert picks(pool, facts(body_bytes=11_000)) == {"large": 400}


def test_an_embedding_batch_is_no_prompt() -> None:
    pool = pool_of("round-robin", deployment("a", context_window=100), deployment("b"), endpoint="embeddings")
    assert picks(pool, facts(endpoint="embeddings", body_bytes=10**6)) == {"a": 200, "b": 200}


def test_a_capability_that_no_usable_member_has_is_the_providers_to_refuse() -> None:
    pool = pool_of("round-robin", deployment("a"), deployment("b"), deployment("c", "vision", usable=False))
    assert picks(pool, facts(images=True)) == {"a": 200, "b": 200}


def test_nobody_usable_is_the_first() -> None:
    pool = pool_of("latency", deployment("a", usable=False), deployment("b", usable=False))
    assert picks(pool, facts()) == {"a": 400}
    assert scores(pool, facts())[1][2] == "has no credentials"


def test_near_ties_are_drawn_and_clear_cases_are_not() -> None:
    a, b, c = deployment("a"), deployment("b"), deployment("c")
    for one, seconds in ((a, 0.500), (b, 0.505), (c, 0.9)):
        used(one.row("chat", True), seconds)
    found = picks(pool_of("latency", a, b, c), facts())
    assert set(found) == {"a", "b"}
    assert 150 < found["a"] < 250
    assert [score for _, score, _ in scores(pool_of("latency", a, b, c), facts())] == pytest.approx(
        [0.5, 0.505, 0.88], abs=0.01
    )


def test_streamed_and_plain_times_are_kept_apart() -> None:
    a, b = deployment("a"), deployment("b")
    pool = pool_of("latency", a, b)
    used(a.row("chat", True), 0.2)
    used(b.row("chat", True), 0.4)
    used(a.row("chat", False), 9.0)
    used(b.row("chat", False), 5.0)
    assert picks(pool, facts()) == {"a": 400}
    assert picks(pool, facts(streamed=False)) == {"b": 400}


def test_at_a_cold_start_each_member_is_tried_once_before_any_twice() -> None:
    members = [deployment(name) for name in "abcd"]
    pool = pool_of("latency", *members)
    rng = Random(3)
    order = []
    for _ in members:
        chosen = choose(pool, facts(), rng)
        chosen.row("chat", True).sent(100.0)  # not answered yet
        order.append(chosen.provider.name)
    assert sorted(order) == list("abcd")
    # Nobody has answered: a burst spreads. One has: it neither all goes to that one nor past it.
    assert min(picks(pool, facts()).values()) > 60
    members[0].row("chat", True).first_byte(0.3, 100.0)
    assert min(picks(pool, facts()).values()) > 60


def test_a_member_that_fails_fast_is_not_fast() -> None:
    a, b = deployment("a"), deployment("b")
    used(a.row("chat", True), 0.2)
    used(b.row("chat", True), 0.5)
    for _ in range(100):
        a.row("chat", True).success.add(0.0, 100.0)
    assert picks(pool_of("latency", a, b), facts()) == {"b": 400}


def test_a_member_without_price_is_the_last_choice_of_cost() -> None:
    dear = deployment("dear", input_price_usd_per_mtok=900.0, output_price_usd_per_mtok=900.0)
    half = deployment("half", input_price_usd_per_mtok=0.1)
    free = deployment("free", input_price_usd_per_mtok=0.0, output_price_usd_per_mtok=0.0)
    none = deployment("none")
    assert picks(pool_of("cost", dear, none, half), facts()) == {"dear": 400}
    assert picks(pool_of("cost", dear, none, half, free), facts()) == {"free": 400}
    assert set(picks(pool_of("cost", none, half), facts())) == {"none", "half"}


def test_the_cost_of_a_request_is_the_formula() -> None:
    a = deployment(
        "a", input_price_usd_per_mtok=2.0, cached_input_price_usd_per_mtok=1.0, output_price_usd_per_mtok=10.0
    )
    b = deployment("b", input_price_usd_per_mtok=4.0, output_price_usd_per_mtok=10.0)
    for _ in range(30):
        a.row("chat", True).charged(100.0, 4000, Usage(1000, 500, 0, 200), None)
    found = [score for _, score, _ in scores(pool_of("cost", a, b), facts())]
    # b is unknown: it is seeded with what the pool saw, and its own prices.
    assert found == pytest.approx([(1000 * 2 - 500 * 1 + 200 * 10) / 1e6, (1000 * 4 + 200 * 10) / 1e6])


def test_embeddings_cost_no_output() -> None:
    a = deployment("a", "embeddings", input_price_usd_per_mtok=0.02)
    b = deployment("b", "embeddings", input_price_usd_per_mtok=0.13)
    pool = pool_of("cost", b, a, endpoint="embeddings")
    assert picks(pool, facts(endpoint="embeddings", streamed=False)) == {"a": 400}


def test_availability_breaks_ties_by_latency() -> None:
    a, b, c = deployment("a"), deployment("b"), deployment("c")
    for one, seconds in ((a, 0.9), (b, 0.3), (c, 0.1)):
        used(one.row("chat", True), seconds)
    for _ in range(10):
        c.row("chat", True).success.add(0.0, 100.0)
    assert picks(pool_of("availability", a, b, c), facts()) == {"b": 400}
    assert [score for _, score, _ in scores(pool_of("availability", a, b, c), facts())] == [1.0, 1.0, 0.75]


def test_round_robin_is_even_smooth_and_weighted() -> None:
    pool = pool_of("round-robin", deployment("a", weight=3), deployment("b"), deployment("c", usable=False))
    rng = Random(1)
    order = "".join(choose(pool, facts(), rng).provider.name for _ in range(8))
    assert order == "aabaaaba"
    before = list(pool.turns)
    assert scores(pool, facts())[2][2] == "has no credentials"
    assert pool.turns == before  # explaining takes no turn


@given(
    st.sampled_from(STRATEGIES),
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from([None, 10, 2000, 10**6]), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    st.booleans(),
    st.integers(0, 10**7),
    st.floats(-1.0, 1e9),
)
def test_a_choice_is_always_a_member_that_scores_explains(
    strategy: str,
    shapes: list[tuple[bool, bool, int | None, bool]],
    images: bool,
    body_bytes: int,
    now: float,
) -> None:
    members = []
    for index, (usable, vision, window, is_warm) in enumerate(shapes):
        extra = ("vision",) if vision else ()
        one = deployment(f"m{index}", *extra, usable=usable, context_window=window)
        if is_warm:
            used(one.row("chat", True), 0.1 * index, 5.0, 2)
            one.row("chat", True).charged(5.0, 100, Usage(index, 0, 0, index), None)
        members.append(one)
    pool = pool_of(strategy, *members)
    request = facts(images=images, body_bytes=body_bytes, now=now)
    explained = scores(pool, request)
    chosen = choose(pool, request, Random(1))
    assert [one for one, _, _ in explained] == members
    assert [reason for one, _, reason in explained if one is chosen] == [None]


# Simulations


class World:
    """Providers with true first-byte times, failures and lengths, and a clock that only this moves."""

    def __init__(self, strategy: str, seed: int, members: list[Deployment]) -> None:
        self.pool = pool_of(strategy, *members)
        self.rng = Random(seed)
        self.now = 0.0
        self.first_byte_s: Callable[[str, float], float] = lambda name, now: 0.5
        self.fails: Callable[[str, float], bool] = lambda name, now: False
        self.output_tokens: dict[str, int] = {}
        self.spent_nusd = 0

    def run(self, seconds: float, per_second: float) -> Counter[str]:
        """Poisson arrivals for so long; the answers to all are in before it returns."""
        counts: Counter[str] = Counter()
        end = self.now + seconds
        pending: list[tuple[float, int, Deployment, float, bool]] = []
        arrival = self.now + self.rng.expovariate(per_second)
        while arrival < end or pending:
            if pending and (arrival >= end or pending[0][0] <= arrival):
                at, _, member, took, is_good = heapq.heappop(pending)
                self._answered(member, at, took, is_good)
                self.now = max(self.now, at)
                continue
            self.now = arrival
            member = choose(self.pool, facts(now=arrival), self.rng)
            name = member.provider.name
            counts[name] += 1
            member.row("chat", True).sent(arrival)
            took = self.first_byte_s(name, arrival) * self.rng.lognormvariate(0.0, 0.4)
            is_good = not self.fails(name, arrival)
            took = took if is_good else 0.02
            heapq.heappush(pending, (arrival + took, sum(counts.values()), member, took, is_good))
            arrival += self.rng.expovariate(per_second)
        return counts

    def _answered(self, member: Deployment, at: float, took: float, is_good: bool) -> None:
        row = member.row("chat", True)
        if not is_good:
            row.left_awaiting()
            row.finished(at, False, "500")
            return
        row.first_byte(took, at)
        row.finished(at, True)
        usage = Usage(1000, 0, 0, self.output_tokens.get(member.provider.name, 200))
        cost_nusd = price_nusd(usage, member.prices)
        self.spent_nusd += cost_nusd or 0
        row.charged(at, 4000, usage, None)


@pytest.mark.parametrize("per_second", [0.5, 5.0, 30.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_latency_leaves_a_slowed_member_and_comes_back(per_second: float, seed: int) -> None:
    world = World("latency", seed, [deployment(name) for name in "abc"])
    slowed = False
    world.first_byte_s = lambda name, now: {"a": 3.0 if slowed else 0.3, "b": 0.5, "c": 0.8}[name]
    world.run(60, per_second)
    steady = world.run(300, per_second)
    assert steady["a"] > 0.85 * steady.total()
    slowed = True
    world.run(60, per_second)
    away = world.run(300, per_second)
    assert away["a"] < 0.1 * away.total()
    assert away["b"] > 0.8 * away.total()
    slowed = False
    world.run(300, per_second)
    back = world.run(300, per_second)
    assert back["a"] > 0.85 * back.total()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_latency_doesnt_forget_the_best_where_requests_are_rare(seed: int) -> None:
    """At one request in 20 s rows have faded by the next; the traffic must not strand on the second best."""
    world = World("latency", seed, [deployment(name) for name in "abc"])
    world.first_byte_s = lambda name, now: {"a": 0.3, "b": 0.5, "c": 0.8}[name]
    counts = world.run(20_000, 0.05)
    assert counts["a"] > 0.7 * counts.total()


def test_latency_finds_a_long_unseen_member_that_became_the_best() -> None:
    world = World("latency", 1, [deployment(name) for name in "abc"])
    improved = False
    world.first_byte_s = lambda name, now: {"a": 0.3, "b": 0.5, "c": 0.1 if improved else 2.0}[name]
    world.run(600, 5.0)
    improved = True
    world.run(300, 5.0)
    after = world.run(300, 5.0)
    assert after["c"] > 0.85 * after.total()


def test_latency_avoids_a_member_that_fails_in_20_ms() -> None:
    world = World("latency", 1, [deployment(name) for name in "abc"])
    failing = False
    world.first_byte_s = lambda name, now: {"a": 0.3, "b": 0.5, "c": 0.8}[name]
    world.fails = lambda name, now: failing and name == "a"
    world.run(300, 5.0)
    failing = True
    world.run(30, 5.0)
    during = world.run(300, 5.0)
    assert during["a"] < 0.15 * during.total()


def test_cost_takes_the_cheap_one_and_learns_who_is_verbose() -> None:
    cheap = deployment("cheap", input_price_usd_per_mtok=0.5, output_price_usd_per_mtok=2.0)
    fair = deployment("fair", input_price_usd_per_mtok=0.6, output_price_usd_per_mtok=2.4)
    dear = deployment("dear", input_price_usd_per_mtok=5.0, output_price_usd_per_mtok=20.0)
    world = World("cost", 1, [dear, fair, cheap])
    assert world.run(60, 5.0).keys() == {"cheap"}
    # It starts to reason at length, ten times the tokens at five sixths of the price. An unseen one would be
    # believed to write as much; this one was seen once.
    fair.row("chat", True).charged(world.now, 4000, Usage(1000, 0, 0, 200), None)
    world.output_tokens = {"cheap": 2000, "fair": 200}
    world.run(300, 5.0)
    later = world.run(300, 5.0)
    assert later["fair"] > 0.95 * later.total()
    assert later["dear"] == 0
    row = cheap.row("chat", True)
    assert row.charges.ratios is not None
    assert row.charges.ratios[2] > 200


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_availability_avoids_who_fails_and_forgives(seed: int) -> None:
    world = World("availability", seed, [deployment(name) for name in "abc"])
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
    world = World("round-robin", 1, [deployment("a"), deployment("b", weight=2), deployment("c")])
    counts = world.run(400, 5.0)
    assert abs(counts["b"] - 2 * counts["a"]) <= 2
    assert abs(counts["a"] - counts["c"]) <= 1
