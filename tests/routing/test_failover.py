"""The table of states, all of it; and the chain of attempts over random pools."""

from __future__ import annotations

from functools import partial
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.deployment import Deployment
from proxy.errors import AttemptFailed
from proxy.routing.candidates import is_out
from proxy.routing.failover import Failover, Failure, pause_s, story
from proxy.routing.pool import Pool
from proxy.routing.retry_budget import FLOOR, RetryBudget
from tests.support.deployments import NOW, deployment, eject, facts, fail, ids, pool_of


def test_the_story():
    failures = [
        Failure("openai", "503", "answered 503", 0.4129),
        Failure("anthropic", "timeout", "did not answer within 60 s", 60.0),
        Failure("zoë", "connect", "could not be reached (refused)", 0.0),
    ]
    assert story(failures) == "openai:503:412ms, anthropic:timeout:60000ms, zoë:connect:0ms".encode()
    assert story([]) == b""
    # A redial stands before its attempt.
    failures = [Failure("a", "reset", "gave no valid answer", 0.4, 0.003), Failure("b", "500", "x", 0.1, 0.0)]
    assert story(failures) == b"a:redial:3ms, a:reset:400ms, b:redial:0ms, b:500:100ms"


# ------------------------------------------------------------------ chains


def alias(*names: str, **more: object) -> Pool:
    return pool_of("round-robin", *(deployment(name) for name in names), **more)


def pinned(name: str, **more: object) -> Pool:
    return pool_of("pinned", deployment(name, **more), kind="pinned")


def chain(pool: Pool, *fallbacks: Pool, limit: int = 3) -> Failover:
    return Failover(pool, fallbacks, pool.members[0], limit, NOW + 60.0)


def follow(
    made: Failover, budget: RetryBudget | None = None, now: float = NOW, **more: bool
) -> Deployment | None:
    return made.next(lambda pool: facts(now=now), budget or RetryBudget(0.2), Random(1), now, **more)


def follow_all(made: Failover) -> list[str]:
    found = []
    while (member := follow(made)) is not None:
        found.append(member)
    return ids(found)


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
def test_a_pool_gives_so_many_attempts(limit):
    found = follow_all(chain(alias(*"abcde"), limit=limit))
    assert len(found) == len(set(found) - {"a/m"}) == min(limit, 5) - 1


def test_fallbacks_come_after_the_pool_in_their_order_and_each_is_a_pool_of_its_own():
    made = chain(alias(*"abc"), pinned("p"), alias(*"vwx"), pinned("q"), limit=2)
    found = follow_all(made)
    assert [name[0] in group for name, group in zip(found, ("bc", "p", "vwx", "vwx", "q"), strict=True)]
    assert made.pool.name == "p" and made.pool.members[0].id == "q/m"
    assert len(set(found)) == 5


def test_no_failover_within_a_pinned_name_and_a_pool_that_may_not():
    assert follow_all(chain(pinned("a"))) == []
    assert follow_all(chain(pinned("a"), pinned("b"))) == ["b/m"]
    made = chain(alias("a", "b", can_fail_over=False), alias("c", "d", can_fail_over=False))
    assert len(follow_all(made)) == 1
    assert made.pool.members[0].id == "c/m"


def test_a_member_named_again_is_not_asked_again():
    pool = alias("a", "b")
    again = pool_of("pinned", pool.members[0], kind="pinned")
    turned = pool_of("latency", *pool.members[::-1])
    assert follow_all(chain(pool, again, turned, pinned("c"))) == ["b/m", "c/m"]


def test_stay_doesnt_leave_the_pool():
    made = chain(alias("a", "b"), pinned("c"))
    assert ids([follow(made, stay=True)]) == ["b/m"]
    assert follow(made, stay=True) is None
    assert ids([follow(made)]) == ["c/m"]  # the fallback was not used up


@pytest.mark.parametrize(("now", "has_time"), [(NOW + 59.9, True), (NOW + 60.0, False), (1e9, False)])
def test_nothing_begins_after_the_deadline(now, has_time):
    assert (follow(chain(alias("a", "b")), now=now) is not None) == has_time


@pytest.mark.parametrize("place", ["pool", "fallback"])
def test_only_what_goes_to_a_failing_member_is_paid_for(place):
    budget = RetryBudget(0.0)
    for _ in range(50):
        assert follow(chain(alias("a", "b")), budget) is not None  # it is healthy
    assert repr(budget) == repr(RetryBudget(0.0))
    pool = alias("a", "b")
    for _ in range(pool.members[1].breaker.limit):  # of one request: that ejects nobody, but it is failing
        fail(pool.members[1], mark=7)
    assert not pool.members[1].breaker.is_open
    fallbacks = [pinned("c")] if place == "fallback" else []
    for _ in range(int(FLOOR)):
        made = chain(pool, *fallbacks)
        assert ids([follow(made, budget)]) == ["b/m"]
    made = chain(pool, *fallbacks)
    found = follow(made, budget)
    assert (found and found.id) == ((fallbacks and "c/m") or None)
    made.note("a", "500", "answered 500", 0.1)
    assert made.story() == b"a:500:100ms, b:budget:0ms"
    for way in ({"stay": True}, {"is_clients": True}):  # a hedge, and what a client's own limit ended
        spent = RetryBudget(0.0)
        while spent.take(NOW, is_clients="is_clients" in way):
            pass
        assert follow(chain(alias("a", "b")), spent, **way) is None


def test_nothing_sent_needs_no_budget():
    spent = RetryBudget(0.0)
    while spent.take(NOW):
        pass
    out = pinned("out")
    eject(out.members[0])
    made = Failover(pinned("gone"), [out], None, 3, NOW + 60.0)
    assert follow(made, spent) is not None


@pytest.mark.parametrize(("redials", "sends"), [(0, 6), (1, 5), (3, 3)])
def test_a_request_is_sent_at_most_two_times_more_than_max_attempts_and_its_fallbacks(redials, sends):
    made = chain(alias(*"abc"), alias(*"def"), limit=3)
    for _ in range(redials):
        made.note("a", "500", "answered 500", 0.1, 0.003)
    assert 1 + len(follow_all(made)) == sends


def test_what_finds_nobody_costs_nothing():
    budget = RetryBudget(0.0)
    for _ in range(50):
        assert follow(chain(pinned("a")), budget) is None
    assert repr(budget) == repr(RetryBudget(0.0))


def test_the_clients_own_credentials_go_to_one_provider_only():
    assert follow_all(chain(pinned("own", auth="passthrough"), pinned("b"))) == []
    mixed = pool_of("latency", deployment("a"), deployment("own", auth="passthrough"), deployment("c"))
    assert follow_all(chain(mixed, pinned("own2", auth="passthrough"), pinned("d"))) == ["c/m", "d/m"]


def test_who_has_no_key_is_no_way_out():
    mixed = pool_of("latency", deployment("a"), deployment("b", usable=False))
    keyless = pool_of("latency", deployment("x", usable=False), deployment("y", usable=False))
    made = chain(mixed, pinned("c", usable=False), keyless, pinned("d"))
    assert follow_all(made) == ["d/m"]


def test_health_counts_but_for_pinned_ones():
    pool = alias("a", "b", "c", "d")
    eject(pool.members[1])
    fail(pool.members[2], "429", retry_after_s=60.0)
    out = pinned("p")
    fail(out.members[0], "429", retry_after_s=60.0)
    assert follow_all(chain(pool, out, limit=9)) == ["d/m", "b/m", "p/m"]


def test_a_pinned_fallback_that_is_out_comes_last():
    out, cooling, fine = pinned("out"), pinned("cooling"), pinned("fine")
    eject(out.members[0])
    fail(cooling.members[0], "429", retry_after_s=60.0)
    assert follow_all(chain(pinned("a"), out, cooling, fine)) == ["fine/m", "out/m", "cooling/m"]
    own = pinned("own", auth="passthrough")
    eject(own.members[0])
    assert not is_out(own, NOW)  # its clients' credentials go nowhere else
    assert not is_out(alias("x"), NOW) and not is_out(fine, NOW)
    assert not is_out(out, NOW + 60.0)  # its trial is due


def test_a_further_attempt_takes_no_turn_of_round_robin():
    pool, fallback = alias(*"abc"), alias(*"xyz")
    follow_all(chain(pool, fallback))
    assert (pool.turns, fallback.turns) == ([0, 0, 0], [0, 0, 0])


def test_facts_are_made_for_the_pool_in_question():
    small = pool_of("latency", deployment("small", context_window=10), deployment("large", context_window=99))
    made = chain(alias("a", "b"), small, limit=2)
    asked: list[Pool] = []

    def facts_for(pool: Pool):
        asked.append(pool)
        return facts(body_bytes=400)

    names = [made.next(facts_for, RetryBudget(1.0), Random(1), NOW) for _ in range(2)]
    assert ids(names) == ["b/m", "large/m"]
    assert asked[-1] is small


def test_all_failures_as_one_sentence():
    made = chain(alias("a", "b"))
    made.note("a", "503", "answered 503", 0.4)
    made.note("b", "timeout", "did not answer within 2 s", 2.0)
    assert made.message() == "All 2 attempts failed: a answered 503; b did not answer within 2 s."
    assert story(made.failures) == b"a:503:400ms, b:timeout:2000ms"


FATES = st.sampled_from(["ok", "out", "cooling", "keyless", "passthrough"])
STRATEGY = st.sampled_from(["latency", "cost", "availability", "round-robin"])
NUMBERS = st.lists(st.integers(0, 7), min_size=1, max_size=5, unique=True)
POOLS = st.lists(st.tuples(STRATEGY, NUMBERS), min_size=1, max_size=5)


@given(POOLS, st.dictionaries(st.integers(0, 7), FATES), st.integers(1, 4), st.integers(0, 99))
def test_whatever_the_pools_a_chain_repeats_nobody_and_ends(shapes, fates, limit, seed):
    members = []
    for number in range(8):
        fate = fates.get(number, "ok")
        auth = "passthrough" if fate == "passthrough" else "bearer"
        members.append(deployment(f"m{number}", usable=fate != "keyless", auth=auth))
        if fate == "out":
            eject(members[-1])
        elif fate == "cooling":
            fail(members[-1], "429", retry_after_s=60.0)
    pools = [
        pool_of("pinned", members[names[0]], kind="pinned")
        if len(names) == 1
        else pool_of(strategy, *(members[number] for number in names))
        for strategy, names in shapes
    ]
    first, *fallbacks = pools
    made = Failover(first, fallbacks, first.members[seed % len(first.members)], limit, NOW + 1.0)
    tried = [first.members[seed % len(first.members)]]
    rng = Random(seed)
    while (found := made.next(lambda pool: facts(), RetryBudget(1.0), rng, NOW)) is not None:
        assert found not in tried
        assert found in made.pool.members
        assert found.usable and not found.passes_credentials
        tried.append(found)
    assert len(tried) <= limit * len(pools)
    assert not (tried[0].passes_credentials and len(tried) > 1)


def failed(outcome: str, wait_s: float | None = None, **more: bool) -> AttemptFailed:
    made = AttemptFailed(outcome, "failed", 502, "provider_failed")
    made.wait_s = wait_s
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("failure", "took_s", "low", "high"),
    [
        (failed("500"), 0.1, 0.2, 0.6), (failed("529"), 2.0, 0.2, 0.6), (failed("500"), 2.1, -1, -1),
        (failed("reset", is_closed=True), 0.1, 0.2, 0.6), (failed("reset"), 0.1, -1, -1),
        (failed("429", 2.0), 0.1, 2.0, 2.0), (failed("429", 0.0), 0.1, 0.2, 0.6),
        (failed("429"), 0.1, -1, -1), (failed("429", 2.1), 0.1, -1, -1), (failed("503", 30.0), 0.1, -1, -1),
        (failed("504"), 0.1, -1, -1), (failed("timeout"), 0.1, -1, -1), (failed("connect"), 0.1, -1, -1),
        (failed("401"), 0.1, -1, -1), (failed("error"), 0.1, -1, -1),
    ],
)  # fmt: skip
def test_the_pause_before_the_same_member(failure, took_s, low, high):
    for roll in (0.0, 0.5, 0.999):
        pause = pause_s(failure, took_s, SimpleNamespace(random=lambda roll=roll: roll))
        assert low <= pause <= high


def test_the_same_member_once_more_is_an_attempt_like_any_other():
    pool, budget = alias("a", "b"), RetryBudget(1.0)
    made = Failover(pool, [], pool.members[0], 4, NOW + 1.0)
    again = partial(made.repeat, pool.members[0], pool, budget)
    assert not again(NOW, -1.0, 1)
    assert not again(NOW, 1.0, 1)  # that would be at the deadline
    assert made.is_only(1)
    assert again(NOW, 0.5, 1)
    assert made.again == (pool.members[0], pool)
    assert made.again_at == NOW + 0.5
    assert made.is_only(2)  # failures, of one member
    assert not again(NOW, 0.5, 1)  # once is enough
    assert ids([follow(made, budget)]) == ["b/m"]
    assert not made.is_only(3)
    assert again(NOW, 0.5, 9)
    assert not again(NOW, 0.5, 9)  # max_attempts
