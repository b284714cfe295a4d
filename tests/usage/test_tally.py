"""Sums of ledger lines, and what becomes of those that are none."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.tally import LIMIT, add, cut

DAY = 20_416
AT = DAY * 86400 + 226.5
WHOLE = {
    **{"id": "req_1", "t": AT, "key": "key_a", "endpoint": "chat", "stream": False, "asked": "premium"},
    **{
        "model": "openai/gpt-4o",
        "provider": "openai",
        "status": 200,
        "attempts": 1,
        "ttft_ms": 1.5,
        "ms": 9.0,
    },
    **{"input": 12, "cached": 3, "cache_write": 2, "output": 34, "reasoning": 5, "nusd": 12345},
    "source": "provider",
}
GROUP = (DAY, "key_a", "openai/gpt-4o", "openai")


def line(**members: object) -> bytes:
    return orjson.dumps(WHOLE | members)


def summed(*lines: bytes) -> tuple[dict, int]:
    totals: dict = {}
    torn = add(list(lines), totals)
    return totals, torn


def test_a_line():
    assert summed(line()) == ({GROUP: [1, 0, 12, 3, 2, 34, 5, 12345, 0, AT]}, 0)


def test_what_is_missing_is_nothing():
    bare = orjson.dumps({"t": AT})
    assert summed(bare) == ({(DAY, None, None, None): [1, 0, 0, 0, 0, 0, 0, 0, 0, AT]}, 0)


def test_lines_of_a_group_add_up():
    totals, torn = summed(
        line(t=AT + 5, status=499), line(source="estimated", nusd=None), line(status=399, t=AT - 1)
    )
    assert totals == {GROUP: [3, 1, 36, 9, 6, 102, 15, 24690, 1, AT + 5]}
    assert torn == 0


def test_groups():
    totals, torn = summed(
        line(key=None), line(model="m"), line(provider="p"), line(t=AT + 86400.0), line(key="key_b"), line()
    )
    assert torn == 0
    assert {group: total[0] for group, total in totals.items()} == {
        (DAY, None, *GROUP[2:]): 1,
        (DAY, "key_a", "m", "openai"): 1,
        (DAY, "key_a", "openai/gpt-4o", "p"): 1,
        (DAY + 1, *GROUP[1:]): 1,
        (DAY, "key_b", *GROUP[2:]): 1,
        GROUP: 1,
    }


def test_a_day_begins_at_midnight_utc():
    midnight = (DAY + 1) * 86400
    totals, _ = summed(line(t=midnight - 0.001), line(t=midnight), line(t=float(midnight)))
    assert {group[0]: total[0] for group, total in totals.items()} == {DAY: 1, DAY + 1: 2}


def test_attempts_that_lost_a_hedge_cost_what_they_cost():
    lost = [
        {"model": "m", "provider": "p", "input": 7, "output": 1, "nusd": 5},
        {"model": "m", "provider": "p", "input": 3, "nusd": None},
        {"model": "openai/gpt-4o", "provider": "openai", "input": 1, "output": 2, "nusd": 3},
    ]
    totals, torn = summed(line(hedged=lost), line(hedged=[]), line(hedged=None))
    assert torn == 0
    assert totals == {
        GROUP: [3, 0, 37, 9, 6, 104, 15, 37038, 1, AT],
        (DAY, "key_a", "m", "p"): [0, 0, 10, 0, 0, 1, 0, 5, 2, AT],
    }


GARBAGE = [
    b"",
    b"x",
    b"{",
    line()[:-1],
    line()[5:],
    line() + b"}",
    line() + b"," + line(),
    b"[]",
    b"7",
    b"null",
    b"{}",
    b"\x00" * 50,
    b"\xff" + line(),
    line(t="yesterday"),
    line(t=None),
    line(t=-1.0),
    line(t=1e15),
    *(line(**{name: "12"}) for name in ("input", "cached", "cache_write", "output", "reasoning", "nusd")),
    *(line(**{name: -1}) for name in ("input", "cached", "cache_write", "output", "reasoning", "nusd")),
    *(line(**{name: LIMIT}) for name in ("input", "cached", "cache_write", "output", "reasoning", "nusd")),
    *(line(**{name: 1.5}) for name in ("input", "cached", "cache_write", "output", "reasoning", "nusd")),
    line(input=2**64 - 1),
    line(nusd=10**15).replace(b"1" + b"0" * 15, b"1" + b"0" * 30),  # read as a float
    line(input=None),
    line(status="200"),
    line(status=[]),
    line(key=7),
    line(key=["k"]),
    line(model={}),
    line(provider=False),
    line(hedged=7),
    line(hedged="x"),
    line(hedged={"a": 1}),
    line(hedged=[{"model": "m", "provider": "p", "input": "1"}]),
    line(hedged=[{"model": "m", "provider": "p", "nusd": -1}]),
    line(hedged=[{"model": 7, "provider": "p"}]),
    line(hedged=[{"model": "m", "provider": "p", "input": 1}, 7]),
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_counted_and_changes_nothing_else(garbage):
    assert summed(garbage) == ({}, 1)
    totals, torn = summed(line(), garbage, line())
    assert (totals[GROUP][0], len(totals), torn) == (2, 1, 1)


def test_two_torn_lines_are_not_glued():
    opened, closed = line(hedged=[])[:-2], line()
    assert opened.endswith(b"[")
    # Together they are an array's members, and one fewer than the lines.
    assert summed(opened + b"1", b"2]}", closed)[1] == 2
    assert summed(line()[:40], line()[40:]) == ({}, 2)


SMALL = st.one_of(st.none(), st.booleans(), st.integers(-2, 2**64 - 1), st.floats(), st.text(max_size=3))
RECORDS = st.dictionaries(
    st.sampled_from(["t", "key", "model", "provider", "status", "input", "nusd", "source", "hedged"]),
    SMALL
    | st.lists(st.dictionaries(st.sampled_from(["model", "input", "nusd"]), SMALL, max_size=2), max_size=2),
)


@given(st.lists(RECORDS.map(orjson.dumps) | st.binary(max_size=9), max_size=6))
def test_together_is_as_one_by_one(lines):
    together, torn = summed(*lines)
    single: dict = {}
    assert torn == sum(add([one], single) for one in lines)
    assert together == single
    for group, total in together.items():
        assert all(name is None or isinstance(name, str) for name in group[1:])
        assert all(value >= 0 for value in total)


@pytest.mark.parametrize("is_full", [False, True])
@pytest.mark.parametrize(
    ("data", "lines", "taken"),
    [(b"a\n", [b"a"], 2), (b"a\nbc\n", [b"a", b"bc"], 5), (b"a\nbc", [b"a"], 2), (b"\n", [b""], 1)],
)
def test_whole_lines_are_cut_off(data, lines, taken, is_full):
    assert cut(data, is_full, False) == (lines, taken, 0)


def test_the_rest_waits_while_somebody_may_write():
    assert cut(b"abc", False, False) == ([], 0, 0)
    assert cut(b"", False, False) == ([], 0, 0)


def test_at_the_end_of_a_file_it_is_torn():
    assert cut(b"a\nbc", False, True) == ([b"a"], 4, 1)
    assert cut(b"bc", False, True) == ([], 2, 1)
    assert cut(b"a\n", False, True) == ([b"a"], 2, 0)


def test_what_never_ends_is_torn():
    assert cut(b"abc", True, False) == ([], 3, 1)
