"""What a pool works out about its members when it is made."""

from __future__ import annotations

from random import Random

import pytest

from proxy.routing.strategy import choose
from tests.support.deployments import deployment, facts, pool_of


def test_rows_and_turns_are_ready_by_index():
    a, b = deployment("a"), deployment("b")
    pool = pool_of("latency", a, b)
    assert pool.indices == (0, 1)
    assert pool.streamed_rows == (a.row("chat", True), b.row("chat", True))
    assert pool.plain_rows == (a.row("chat", False), b.row("chat", False))
    assert pool.turns == [0, 0]
    assert repr(pool) == "<Pool p alias latency ['a/m', 'b/m']>"


def test_no_choice_was_made_before_the_first():
    """Not even at the very moment at which the clock began."""
    pool = pool_of("latency", deployment("a"), deployment("b"))
    for member in pool.members:
        member.row("chat", True).used_s = 0.0
    assert choose(pool, facts(now=0.0005), Random(1)) in pool.members


@pytest.mark.parametrize(
    ("capabilities", "vision", "tools"),
    [
        ([(), ()], False, False),
        ([("vision",), ()], True, False),
        ([("vision", "tools"), ("vision",)], False, True),
    ],
)
def test_only_what_members_differ_in_is_checked(capabilities, vision, tools):
    pool = pool_of("cost", *(deployment(f"m{i}", *each) for i, each in enumerate(capabilities)))
    assert (pool.needs_vision_check, pool.needs_tools_check) == (vision, tools)


@pytest.mark.parametrize(
    ("windows", "endpoint", "least"),
    [
        ((300, 100), "chat", 100),
        ((None, 100), "messages", 100),
        ((None, None), "chat", None),
        ((300, 100), "embeddings", None),  # a batch is many prompts
    ],
)
def test_the_smallest_window(windows, endpoint, least):
    members = [deployment(f"m{i}", context_window=window) for i, window in enumerate(windows)]
    assert pool_of("cost", *members, endpoint=endpoint).min_context == least


@pytest.mark.parametrize(
    ("count", "failover", "does"), [(1, True, False), (2, True, True), (2, False, False)]
)
def test_failing_over_takes_two_and_permission(count, failover, does):
    members = [deployment(f"m{i}") for i in range(count)]
    assert pool_of("cost", *members, can_fail_over=failover).can_fail_over is does


def test_shares_name_members_by_index_and_only_those_that_are_there():
    a, b, c, gone = (deployment(name) for name in "abcd")
    pool = pool_of("split", a, b, c, shares=[("m", 90, [b, a]), ("c/m", 9, [c]), ("d/m", 1, [gone])])
    assert pool.shares == (("m", 90, (1, 0)), ("c/m", 9, (2,)), ("d/m", 1, ()))
    assert pool.inner == "latency"


def test_the_dearest_that_a_request_may_cause():
    usual = {"input_price_usd_per_mtok": 1.0, "output_price_usd_per_mtok": 10.0}
    assert pool_of("cost", deployment("a"), deployment("b", **usual)).dearest == (10**6, 10**7)
    assert pool_of("cost", deployment("a", **usual)).dearest_parts is None
    thinks = deployment("b", **usual, reasoning_price_usd_per_mtok=30.0, cached_input_price_usd_per_mtok=2.0)
    pool = pool_of("cost", deployment("a", **usual), thinks)
    assert pool.dearest == (2 * 10**6, 3 * 10**7)
    assert pool.dearest_parts == (2 * 10**6, 2 * 10**6, 3 * 10**7)
    hears = deployment("c", **usual, audio_input_price_usd_per_mtok=40.0, cache_write_price_usd_per_mtok=1.25)
    assert pool_of("cost", hears).dearest_parts == (1_250_000, 4 * 10**7, 10**7)


@pytest.mark.parametrize(
    ("endpoint", "said", "most"),
    [
        ("images", None, 6540), ("images", 9, 9), ("speech", 9, 9), ("speech", None, 10**6),
        ("embeddings", 9, 0),
    ],
)  # fmt: skip
def test_the_most_of_what_is_no_text(endpoint, said, most):
    member = deployment("a", endpoint, max_output_tokens=said, context_window=5)
    assert pool_of("cost", member, endpoint=endpoint).most_output == most
