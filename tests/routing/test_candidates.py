"""Who can take a request: the order of the checks, trials, failing open, and the reasons for people."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing.candidates import Facts, are_cooling, candidates, cooling_left_s, is_one_due, rows, why_not
from proxy.routing.pool import Pool
from proxy.usage.tokens import Usage
from tests.support.deployments import NOW, attempt, deployment, eject, facts, fail, pool_of


def trio(**of_b: object) -> Pool:
    return pool_of("latency", deployment("a"), deployment("b", **of_b), deployment("c"))


def why(pool: Pool, index: int, request: Facts) -> str:
    return why_not(pool, index, request, is_one_due(pool, request.now))


def cool(pool: Pool, *seconds: float) -> None:
    for member, wait_s in zip(pool.members, seconds, strict=True):
        if wait_s:
            fail(member, "429", retry_after_s=wait_s)


def test_the_checks_go_from_certain_failure_to_possible_success():
    """Images and tools, then the window, then health: each is asked of those that passed the one before."""
    blind = deployment("blind", "tools", context_window=100_000)
    small = deployment("small", "vision", "tools", context_window=900)
    out = deployment("out", "vision", "tools", context_window=100_000)
    pool = pool_of("latency", blind, small, out)
    eject(out)
    request = facts(images=True, tools=True)
    assert candidates(pool, request) == (2,)  # fails open rather than go where it fails for certain
    assert candidates(pool, facts()) == [0]
    cooling = pool_of("latency", blind, small, deployment("c", "vision", context_window=100_000))
    cool(cooling, 0, 0, 5.0)
    assert candidates(cooling, facts(images=True)) == []


@pytest.mark.parametrize(
    ("request_", "able"),
    [
        ({}, [0, 1, 2]),
        ({"images": True}, [0, 2]),
        ({"tools": True}, [1, 2]),
        ({"images": True, "tools": True}, [2]),
    ],
)
def test_capabilities(request_, able):
    members = deployment("a", "vision"), deployment("b", "tools"), deployment("c", "vision", "tools")
    pool = pool_of("latency", *members)
    assert list(candidates(pool, facts(**request_))) == able


def test_a_capability_that_no_usable_member_has_is_the_providers_to_refuse():
    pool = pool_of("cost", deployment("a"), deployment("b"), deployment("c", "vision", usable=False))
    assert candidates(pool, facts(images=True)) == [0, 1]


def test_windows():
    pool = pool_of("cost", *(deployment(f"m{size}", context_window=size) for size in (100, 500, 300)))
    assert list(candidates(pool, facts(body_bytes=100))) == [0, 1, 2]  # a token is at least a byte
    assert candidates(pool, facts(body_bytes=401)) == [1, 2]
    assert candidates(pool, facts(body_bytes=10_000)) == [1]  # none is large enough: the largest
    assert list(candidates(pool, facts(body_bytes=10_000, data_url_bytes=9_900))) == [0, 1, 2]
    open_ended = pool_of("cost", deployment("a", context_window=100), deployment("b"))
    assert candidates(open_ended, facts(body_bytes=10**9)) == [1]


def test_windows_go_by_the_members_own_tokenizer():
    small, large = deployment("small", context_window=3000), deployment("large", context_window=10**6)
    pool = pool_of("cost", small, large)
    assert candidates(pool, facts(body_bytes=11_000)) == [0, 1]
    for _ in range(50):  # half a token a byte: some language the default doesn't fit
        small.row("chat", True).charged(NOW, 4000, Usage(2000, 0, 0, 10), None)
    assert candidates(pool, facts(body_bytes=11_000)) == [1]
    assert candidates(pool, facts(body_bytes=11_000, streamed=False)) == [0, 1]
    assert rows(pool, facts()) is pool.streamed_rows
    assert rows(pool, facts(streamed=False)) is pool.plain_rows


def test_nobody_has_a_key():
    pool = pool_of("latency", deployment("a", usable=False), deployment("b", usable=False))
    assert candidates(pool, facts()) == (0,)
    assert candidates(pool, facts(), pool.members[:1]) == ()


def test_who_was_tried_is_not_asked_again():
    pool = trio()
    assert candidates(pool, facts()) is pool.indices
    a, b, c = pool.members
    assert candidates(pool, facts(), [b]) == [0, 2]
    assert candidates(pool, facts(), [a, c]) == [1]
    assert candidates(pool, facts(), [a, b, c]) == ()
    assert candidates(trio(usable=False), facts()) == [0, 2]


# ------------------------------------------------------------------ health


def test_who_is_out_is_skipped_until_it_is_due_and_then_is_the_one():
    pool = trio()
    until_s = eject(pool.members[1])
    assert candidates(pool, facts()) == [0, 2]
    assert candidates(pool, facts(now=until_s)) == (1,)
    attempt(pool.members[1], until_s)
    assert candidates(pool, facts(now=until_s)) == [0, 2]  # one trial at a time


def test_a_request_that_failed_once_is_no_trial_while_another_is_well():
    pool = trio()
    a, b, c = pool.members
    until_s = eject(b)
    assert candidates(pool, facts(now=until_s), [a]) == [2]
    assert candidates(pool, facts(now=until_s), [a, c]) == (1,)


def test_of_two_that_are_due_the_first_to_be_it():
    pool = trio()
    for at, index in ((0.0, 0), (50.0, 1)):
        eject(pool.members[index], at)
    now = max(member.breaker.until_s for member in pool.members)
    assert candidates(pool, facts(now=now)) == (0,)
    attempt(pool.members[0], now)
    assert candidates(pool, facts(now=now)) == (1,)


def test_all_ejected_fails_open_to_the_one_due_back_first():
    pool = trio()
    until = [eject(member, now) for member, now in zip(pool.members, (50.0, 49.0, 60.0), strict=True)]
    first = until.index(min(until))
    now = min(until) - 0.1
    assert candidates(pool, facts(now=now)) == (first,)
    left = sorted((at, index) for index, at in enumerate(until) if index != first)
    assert candidates(pool, facts(now=now), [pool.members[first]]) == (left[0][1],)


def test_all_cooling_down_is_nobody():
    pool = trio()
    cool(pool, 5.0, 2.0, 9.0)
    assert not candidates(pool, facts())
    assert are_cooling(pool, NOW)
    assert cooling_left_s(pool, NOW) == 2.0
    assert candidates(pool, facts(now=NOW + 2.0)) == [1]
    assert not are_cooling(pool, NOW + 2.0)


def test_where_all_cool_down_one_request_in_a_minute_tries():
    pool = pool_of("latency", deployment("a"), deployment("b"))
    for member, wait_s in zip(pool.members, (900.0, 600.0), strict=True):
        fail(member, "429", retry_after_s=wait_s)
    assert not candidates(pool, facts(now=NOW + 59.0))
    later = NOW + 60.0
    assert candidates(pool, facts(now=later)) == (1,)  # the one that is due back first
    trial = attempt(pool.members[1], later)
    assert candidates(pool, facts(now=later)) == (0,)
    attempt(pool.members[0], later).left(later)
    assert not candidates(pool, facts(now=later))
    trial.finished(later + 1.0)
    assert candidates(pool, facts(now=later + 1.0)) == [1]  # it was wrong


def test_others_go_first_after_a_cool_down():
    pool = pool_of("latency", deployment("a"), deployment("b"))
    fail(pool.members[0], "429", retry_after_s=10.0)
    later = facts(now=NOW + 10.0)
    assert candidates(pool, later) == [1]
    assert candidates(pool, later, [pool.members[1]]) == [0]  # but it may be asked
    assert "others go first" in why(pool, 0, later)
    assert not are_cooling(pool, NOW + 10.0)
    assert candidates(pool, facts(now=NOW + 20.0)) == [0, 1]
    eject(pool.members[1], NOW + 10.0)
    assert candidates(pool, later) == [0]


def test_among_members_that_let_others_go_first_the_strategy_picks():
    pool = trio()
    cool(pool, 10.0, 0.0, 10.0)
    eject(pool.members[1], NOW + 10.0)
    assert candidates(pool, facts(now=NOW + 10.0)) == [0, 2]


def test_some_cooling_and_the_others_ejected_fails_open():
    pool = trio()
    cool(pool, 5.0, 0, 9.0)
    eject(pool.members[1])
    assert candidates(pool, facts()) == (1,)
    assert not candidates(pool, facts(), [pool.members[1]])
    assert not are_cooling(pool, NOW)
    assert cooling_left_s(pool, NOW) == 5.0


def test_who_cools_down_among_the_keyless():
    pool = trio(usable=False)
    cool(pool, 5.0, 0, 9.0)
    assert are_cooling(pool, NOW)  # of those that could be asked
    assert cooling_left_s(pool, NOW) == 5.0
    pool = pool_of("latency", deployment("a", usable=False))
    assert cooling_left_s(pool, NOW) == 0.0
    # bug: a chain that ends in such a pool answers 429 "asks for patience"
    assert not are_cooling(pool, NOW)


# ------------------------------------------------------------------ for people


def test_why_not():
    pool = pool_of(
        "latency",
        deployment("keyless", "vision", "tools", usable=False),
        deployment("blind", "tools", context_window=100_000),
        deployment("idle", "vision", context_window=100_000),
        deployment("small", "vision", "tools", context_window=900),
        deployment("out", "vision", "tools", context_window=100_000),
        deployment("patient", "vision", "tools", context_window=100_000),
    )
    for _ in range(5):
        fail(pool.members[4], "503", what="answered 503")
    pool.members[4].breaker.until_s = NOW + 7.25
    fail(pool.members[5], "429", retry_after_s=12.0)
    request = facts(images=True, tools=True)
    assert [why(pool, index, request) for index in pool.indices] == [
        "provider keyless has no key: set api_key_env; it is left out",
        "takes no images",
        "takes no tools",
        "context window of 900 tokens, the prompt has about 1000",
        "ejected for 7.2 s: 503: answered 503",
        "cooling down for 12.0 s: the provider sent Retry-After",
    ]


def test_why_not_during_a_trial():
    pool = trio()
    until_s = eject(pool.members[1])
    due = facts(now=until_s)
    assert [why(pool, index, due) for index in (0, 2)] == ["another is on trial"] * 2
    attempt(pool.members[1], until_s)
    assert why(pool, 1, due) == "trial: 500"
    assert why(trio(), 1, facts()) == "another is the last resort"


healths = st.sampled_from(["ok", "out", "due", "trial", "cooling", "keyless"])


@given(st.lists(healths, min_size=1, max_size=6), st.data())
def test_whatever_the_health_the_rules_hold(states, data):
    members = [deployment(f"m{i}", usable=state != "keyless") for i, state in enumerate(states)]
    pool = pool_of("latency", *members)
    for member, state in zip(pool.members, states, strict=True):
        if state == "cooling":
            fail(member, "429", retry_after_s=60.0)
        elif state in ("out", "due", "trial"):
            eject(member, NOW if state == "out" else NOW - 50.0)
        if state == "trial":
            attempt(member)
    tried = data.draw(st.lists(st.sampled_from(pool.members), unique=True))
    usable = [(index, state) for index, state in enumerate(states) if state != "keyless"]
    left = [(index, state) for index, state in usable if pool.members[index] not in tried]
    found = list(candidates(pool, facts(), tried))
    chosen = [states[index] for index in found]
    by = {state: [index for index, of in left if of == state] for state in states}
    if not left:
        assert found == ([] if tried else [0])
    elif by.get("due") and not (tried and by.get("ok")):
        assert chosen == ["due"]
    elif by.get("ok"):
        assert found == by["ok"]
    elif all(state == "cooling" for _, state in left):
        assert found == []
    else:
        assert len(found) == 1 and chosen[0] in ("trial", "out")
    assert not {pool.members[index] for index in found} & set(tried)
