"""Sums of ledger lines, and what becomes of those that are none."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.settings import ModelConfig
from proxy.usage.pricing import prices_of
from proxy.usage.tally import LIMIT, NO_TAGS, add, cut

DAY = 20_416
AT = DAY * 86400 + 226.5
WHOLE = {
    "id": "req_1", "t": AT, "key": "key_a", "endpoint": "chat", "stream": False, "asked": "premium",
    "model": "openai/gpt-4o", "provider": "openai", "status": 200, "attempts": 1, "ttft_ms": 1.5, "ms": 9.0,
    "input": 12, "cached": 3, "cache_write": 2, "output": 34, "reasoning": 5, "nusd": 12345,
    "source": "provider",
}  # fmt: skip


def group(
    day=DAY,
    key="key_a",
    of=None,
    model="openai/gpt-4o",
    provider="openai",
    alias=None,
    endpoint="chat",
    tags=NO_TAGS,
):
    return (day, key, of, model, provider, alias, endpoint, tags)


GROUP = group()


def line(**members: object) -> bytes:
    return orjson.dumps(WHOLE | members)


def summed(*lines: bytes) -> tuple[dict, int]:
    totals: dict = {}
    torn = add(list(lines), totals)
    return totals, torn


@pytest.mark.parametrize(("lines", "of", "sums"), [
    ([line()], GROUP, [1, 0, 12, 3, 2, 34, 5, 12345, 0, AT, 0, 12345]),
    ([line(group="g", alias="premium", saved=9)], group(of="g", alias="premium"),
     [1, 0, 12, 3, 2, 34, 5, 12345, 0, AT, 9, 12345]),
    ([orjson.dumps({"t": AT})], group(key=None, model=None, provider=None, endpoint=None),
     [1, 0, 0, 0, 0, 0, 0, 0, 0, AT, 0, 0]),  # what is missing
    ([line(t=AT + 5, status=499), line(source="estimated", nusd=None), line(status=399, t=AT - 1)], GROUP,
     [3, 1, 36, 9, 6, 102, 15, 24690, 1, AT + 5, 0, 24690]),
])  # fmt: skip
def test_lines_of_a_group_add_up(lines, of, sums):
    assert summed(*lines) == ({of: sums}, 0)


def test_groups():
    totals, torn = summed(
        line(key=None), line(model="m"), line(provider="p"), line(t=AT + 86400.0), line(key="key_b"), line()
    )
    assert torn == 0
    assert {found: total[0] for found, total in totals.items()} == {
        group(key=None): 1, group(model="m"): 1, group(provider="p"): 1, group(DAY + 1): 1,
        group(key="key_b"): 1, GROUP: 1,
    }  # fmt: skip


def test_tags_of_keys_and_of_clients_are_kept_apart_and_in_order():
    totals, torn = summed(
        line(tags={"team": "a", "app": "b"}, client_tags={"feature": "x"}),
        line(client_tags={"feature": "x"}, tags={"app": "b", "team": "a"}), line(tags={}),
    )  # fmt: skip
    tags = ((("app", "b"), ("team", "a")), (("feature", "x"),))
    assert ({found: total[0] for found, total in totals.items()}, torn) == (
        {group(tags=tags): 2, GROUP: 1},
        0,
    )


def test_money_at_other_prices_beside_what_was_charged():
    prices = {"openai/gpt-4o": prices_of(ModelConfig(
        "openai/gpt-4o", "openai", "m", input_price_usd_per_mtok=2.0, cached_input_price_usd_per_mtok=1.0,
        output_price_usd_per_mtok=3.0, audio_output_price_usd_per_mtok=10.0,
    ))}  # fmt: skip
    lost = [{"model": "openai/gpt-4o", "provider": "x", "input": 5, "output": 1, "nusd": 7},
            {"model": "gone", "provider": "x", "input": 5, "nusd": 7}]  # fmt: skip
    totals: dict = {}
    lines = [line(audio_output=4, hedged=lost), line(model="gone"), line(input=1, cached=2**40)]
    assert add(lines, totals, prices) == 1
    nusd = (12 - 3) * 2000 + 3 * 1000 + (34 - 4) * 3000 + 4 * 10_000
    found = {key[3:5]: (total[7], total[10], total[11]) for key, total in totals.items()}
    assert found == {
        ("openai/gpt-4o", "openai"): (nusd, 3000, 12345), ("openai/gpt-4o", "x"): (13_000, 0, 7),
        ("gone", "x"): (7, 0, 7), ("gone", "openai"): (12345, 0, 12345),
    }  # fmt: skip


def test_a_day_begins_at_midnight_utc():
    midnight = (DAY + 1) * 86400
    totals, _ = summed(line(t=midnight - 0.001), line(t=midnight), line(t=float(midnight)))
    assert {found[0]: total[0] for found, total in totals.items()} == {DAY: 1, DAY + 1: 2}


def test_attempts_that_lost_a_hedge_cost_what_they_cost():
    lost = [
        {"model": "m", "provider": "p", "input": 7, "output": 1, "nusd": 5},
        {"model": "m", "provider": "p", "input": 3, "nusd": None},
        {"model": "openai/gpt-4o", "provider": "openai", "input": 1, "output": 2, "nusd": 3},
    ]
    totals, torn = summed(line(hedged=lost), line(hedged=[]), line(hedged=None))
    assert torn == 0
    assert totals == {
        GROUP: [3, 0, 37, 9, 6, 104, 15, 37038, 1, AT, 0, 37038],
        group(model="m", provider="p"): [0, 0, 10, 0, 0, 1, 0, 5, 2, AT, 0, 5],
    }


FIGURES = ("input", "cached", "cache_write", "output", "reasoning", "nusd", "saved")
GARBAGE = [
    b"", b"x", b"{", line()[:-1], line()[5:], line() + b"}", line() + b"," + line(), b"[]", b"7", b"null",
    b"{}", b"\x00" * 50, b"\xff" + line(), line(t="yesterday"), line(t=None), line(t=-1.0), line(t=1e15),
    *(line(**{name: odd}) for odd in ("12", -1, LIMIT, 1.5) for name in FIGURES), line(input=2**64 - 1),
    line(nusd=10**15).replace(b"1" + b"0" * 15, b"1" + b"0" * 30),  # read as a float
    line(input=None), line(status="200"), line(status=[]), line(key=7), line(key=["k"]), line(model={}),
    line(provider=False), line(hedged=7), line(hedged="x"), line(hedged={"a": 1}),
    line(hedged=[{"model": "m", "provider": "p", "input": "1"}]),
    line(hedged=[{"model": "m", "provider": "p", "nusd": -1}]), line(hedged=[{"model": 7, "provider": "p"}]),
    line(hedged=[{"model": "m", "provider": "p", "input": 1}, 7]), line(group=7), line(alias=[]),
    line(endpoint={}), line(tags=7), line(tags={"a": 1}), line(client_tags=["a"]),
    line(client_tags={"a": None}),
]  # fmt: skip


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
    st.sampled_from(
        ["t", "key", "model", "provider", "status", "input", "nusd", "source", "hedged", "tags", "alias"]
    ),
    SMALL
    | st.lists(st.dictionaries(st.sampled_from(["model", "input", "nusd"]), SMALL, max_size=2), max_size=2),
)


@given(st.lists(RECORDS.map(orjson.dumps) | st.binary(max_size=9), max_size=6))
def test_together_is_as_one_by_one(lines):
    together, torn = summed(*lines)
    single: dict = {}
    assert torn == sum(add([one], single) for one in lines)
    assert together == single
    for found, total in together.items():
        assert all(name is None or isinstance(name, str) for name in found[1:7])
        assert all(value >= 0 for value in total)


@pytest.mark.parametrize(("data", "is_full", "is_over", "found"), [
    *((data, is_full, False, (lines, taken, 0)) for is_full in (False, True) for data, lines, taken in (
        (b"a\n", [b"a"], 2), (b"a\nbc\n", [b"a", b"bc"], 5), (b"a\nbc", [b"a"], 2), (b"\n", [b""], 1),
    )),
    # The rest waits while somebody may write; at the end of a file, and where it never ends, it is torn.
    (b"abc", False, False, ([], 0, 0)), (b"", False, False, ([], 0, 0)),
    (b"a\nbc", False, True, ([b"a"], 4, 1)), (b"bc", False, True, ([], 2, 1)),
    (b"a\n", False, True, ([b"a"], 2, 0)), (b"abc", True, False, ([], 3, 1)),
])  # fmt: skip
def test_whole_lines_are_cut_off(data, is_full, is_over, found):
    assert cut(data, is_full, is_over) == found
