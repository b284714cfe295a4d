"""Questions to the totals: groups, days, money to the nano-dollar, and tables for spreadsheets."""

from __future__ import annotations

import contextlib
import csv
import io
import sqlite3
from datetime import date
from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from proxy.config.usage_table import RESERVED
from proxy.storage import usage_totals
from proxy.storage.ledger_ingest import TABLES
from proxy.storage.tag_table import set_id
from proxy.storage.usage_totals import (
    DIMENSIONS,
    PARAMETERS,
    UsageQuery,
    add_forecast,
    columns,
    further_columns,
    read_query,
    usage_rows,
)
from proxy.wire.query import QueryError

TODAY = date(2026, 3, 5)
EPOCH = date(1970, 1, 1)
MARCH = (date(2026, 3, 1) - EPOCH).days * 86400.0
COUNTS = {
    **{"requests": 1, "errors": 0, "input_tokens": 10, "cached_tokens": 4, "cache_write_tokens": 3},
    **{"output_tokens": 5, "reasoning_tokens": 2},
}


@pytest.fixture
def database():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(TABLES)
        yield database


USUAL = {
    "key": "key_a", "key_group": "", "model": "openai/gpt-4o", "provider": "openai", "alias": "",
    "endpoint": "chat", "tags": 0, **COUNTS, "nusd": 1, "estimated": 0, "last_at": 1.0, "saved_nusd": 0,
}  # fmt: skip


def put(database: sqlite3.Connection, day: date = TODAY, **more: object) -> None:
    row = ((day - EPOCH).days, *(USUAL | more).values())
    database.execute(f"INSERT INTO usage VALUES ({','.join('?' * 19)})", row)


def rows(database: sqlite3.Connection, by: str = "", **more: object) -> list[dict]:
    names = more.pop("names", {})
    return usage_rows(database, UsageQuery(tuple(by.split(",") if by else ()), **more), names)


def to_csv(rows: list[dict], by: list[str]) -> str:
    return usage_totals.to_csv(rows, UsageQuery(tuple(by)))


def test_without_a_dimension_it_is_one_row_of_all(database):
    nothing = dict.fromkeys(COUNTS, 0) | {"usd": 0.0, "saved_usd": 0.0, "estimated": 0}
    assert rows(database) == [nothing]
    put(database, nusd=1_250_000_000)
    put(database, key="key_b", nusd=250_000_000, estimated=1)
    [row] = rows(database)
    assert list(row) == columns([])
    assert row == {name: 2 * count for name, count in COUNTS.items()} | {
        "usd": 1.5,
        "saved_usd": 0.0,
        "estimated": 1,
    }


def test_the_asked_dimensions_in_the_asked_order(database):
    put(database)
    put(database, provider="azure")
    put(database, date(2026, 3, 4))
    for by in ("key", "model", "provider", "day", "day,model", "provider,day,key", "model,key,provider,day"):
        found = rows(database, by)
        assert all(list(row) == columns(by.split(",")) for row in found)
        assert sum(row["requests"] for row in found) == 3
    named = [(row["provider"], row["day"]) for row in rows(database, "provider,day")]
    assert named == [("azure", "2026-03-05"), ("openai", "2026-03-04"), ("openai", "2026-03-05")]
    assert rows(database, "key,model,provider,day")[0] == {
        **{"key": "key_a", "key_id": "key_a", "model": "openai/gpt-4o", "provider": "azure"},
        **{"day": "2026-03-05", **COUNTS, "usd": 1e-9, "saved_usd": 0.0, "estimated": 0},
    }


def test_with_dimensions_and_nothing_there_are_no_rows(database):
    assert rows(database, "day") == []
    assert parsed(to_csv([], ["day"])) == [["day", *COUNTS, "usd", "saved_usd", "estimated"]]


def test_days_in_order_and_both_ends_counted_in(database):
    days = [date(2026, 1, 31), date(2025, 12, 31), date(2026, 2, 1), date(1970, 1, 1)]
    for day in days:
        put(database, day)
    assert [row["day"] for row in rows(database, "day")] == sorted(day.isoformat() for day in days)

    def between(since: date | None, until: date | None) -> int:
        return rows(database, since=since, until=until)[0]["requests"]

    assert between(date(2026, 1, 31), date(2026, 2, 1)) == 2
    assert between(date(2026, 1, 31), date(2026, 1, 31)) == 1
    assert between(date(2026, 1, 31), None) == 2
    assert between(None, date(2025, 12, 31)) == 2
    assert between(date(2026, 2, 2), None) == 0


def test_keys_have_names_and_requests_that_got_nowhere_no_model(database):
    for key in ("key_1", "key_2", "key_3", "key_4"):
        put(database, key=key)
    put(database, key="", model="", provider="")
    names = {"key_1": "prod", "key_2": "dev", "key_4": "prod"}
    found = [(row["key"], row["key_id"]) for row in rows(database, "key", names=names)]
    assert found == [(None, None), ("dev", "key_2"), ("key_3", "key_3"), ("prod", "key_1"), ("prod", "key_4")]
    found = [(row["model"], row["provider"]) for row in rows(database, "model,provider")]
    assert found == [(None, None), ("openai/gpt-4o", "openai")]


def test_rows_may_be_bounded(database):
    for number in range(3):
        put(database, model=f"m{number}")
    query = UsageQuery(("model",))
    assert len(usage_rows(database, query, {}, 3)) == 3
    with pytest.raises(QueryError, match="by makes more than 2 rows"):
        usage_rows(database, query, {}, 2)


def test_sums_of_money_are_exact(database):
    for number in range(1000):
        put(database, key=f"key_{number}", nusd=100_000_001)  # a hundred thousand times 0.1 adds up to less
    assert rows(database)[0]["usd"] == 100.000001
    assert to_csv(rows(database), []).splitlines()[1].split(",")[-3] == "100.000001000"


@given(st.integers(0, 8 * 10**15))
def test_every_nano_dollar_survives_the_float(nusd):
    row = dict.fromkeys(columns([]), 0) | {"usd": orjson.loads(orjson.dumps(nusd / 10**9))}
    text = to_csv([row], []).splitlines()[1].split(",")[-3]
    assert Fraction(text) == Fraction(nusd, 10**9)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, ((), None, None)),
        ({"by": ""}, ((), None, None)),
        ({"by": "day"}, (("day",), None, None)),
        ({"by": "model, key"}, (("model", "key"), None, None)),
        ({"by": ",".join(DIMENSIONS)}, (DIMENSIONS, None, None)),
        ({"since": "2026-02-28"}, ((), date(2026, 2, 28), None)),
        ({"since": "2026-02-28", "until": "2026-02-28"}, ((), date(2026, 2, 28), date(2026, 2, 28))),
        ({"since": "1d"}, ((), TODAY, None)),
        ({"since": "7d", "until": "2d"}, ((), date(2026, 2, 27), date(2026, 3, 4))),
        ({"since": "", "until": "99999d"}, ((), None, date(1752, 5, 22))),
        ({"by": "team,day"}, (("team", "day"), None, None)),
        (
            {"key": "prod", "alias": "premium", "tag": "team = a b, app=x", "reprice": "true"},
            (
                (),
                None,
                None,
                (("key", "prod"), ("alias", "premium")),
                (("team", "a b"), ("app", "x")),
                "",
                True,
            ),
        ),
        ({"forecast": "month"}, ((), date(2026, 3, 1), None, (), (), "month")),
        ({"forecast": "day", "by": "key"}, (("key",), TODAY, None, (), (), "day")),
    ],
)
def test_queries(query, expected):
    assert read_query(query, TODAY, ("team", "app")) == UsageQuery(*expected)
    assert read_query(MultiDict(query), TODAY, None) == UsageQuery(*expected)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"by": "user"}, f"by can't be 'user': choose from {', '.join(DIMENSIONS)}, team"),
        ({"by": "key,,day"}, "by can't be '': choose from key, group, alias,"),
        ({"tag": "team"}, "tag can't be read: each needs a name and a value"),
        ({"tag": "app=x"}, "tag can't be 'app': there are team"),
        ({"reprice": "yes"}, "reprice must be true or false"),
        ({"forecast": "week"}, "forecast must be month or day"),
        ({"forecast": "day", "since": "7d"}, "forecast has a window of its own"),
        ({"forecast": "day", "by": "day"}, "forecast has a window of its own"),
        ({"by": "day,key,day"}, "by names day more than once: name it once"),
        ({"from": "7d"}, "unknown parameter 'from': there are by, since, until, key"),
        (
            {"since": "yesterday"},
            "since is not a day: 'yesterday'; write YYYY-MM-DD, or 7d for the last seven",
        ),
        ({"until": "2026-02-29"}, "until is not a day: '2026-02-29'; write YYYY-MM-DD"),
        ({"until": "20260228"}, "until is not a day"),
        ({"since": "2026-W01-1"}, "since is not a day"),
        ({"since": "0d"}, "since is not a day"),
        ({"since": "07d"}, "since is not a day"),
        ({"since": "100000d"}, "since is not a day"),
        ({"since": "٧d"}, "since is not a day"),
        ({"since": "2026-03-02", "until": "2026-03-01"}, "since 2026-03-02 is after until 2026-03-01"),
        ({"since": "1d", "until": "2d"}, "since 2026-03-05 is after until 2026-03-04"),
        (MultiDict([("since", "1d"), ("since", "2d")]), "since is given more than once: give it once"),
    ],
)
def test_queries_that_are_wrong_are_told_what_is_right(query, message):
    with pytest.raises(QueryError) as caught:
        read_query(query, TODAY, ("team",))
    assert message in str(caught.value)
    assert caught.value.param == next(iter(query))


def test_without_tags_that_is_said():
    with pytest.raises(QueryError, match=r"\[usage\] tags lists no tags"):
        read_query({"by": "team"}, TODAY, ())
    with pytest.raises(QueryError, match=r"\[usage\] tags lists none"):
        read_query({"tag": "team=a"}, TODAY, ())


def test_no_tag_has_the_name_of_something_else_in_a_row():
    more = further_columns(UsageQuery(forecast="day", reprices=True))
    assert {*columns(DIMENSIONS, more), *PARAMETERS} <= RESERVED


def tagged(database: sqlite3.Connection, **tags: str) -> int:
    return set_id(database, (tuple(sorted(tags.items())), ()), "", 0, 1000)


def test_tags_and_filters(database):
    put(database, key="key_a", alias="premium", tags=tagged(database, team="a", app="x"))
    put(database, key="key_b", key_group="g", endpoint="embeddings", tags=tagged(database, team="b"))
    put(database, key="key_c", provider="azure", model="m", tags=tagged(database, team="a"))
    put(database, key="")

    def found(by: str, **more: object) -> dict[object, int]:
        return {
            tuple(row[name] for name in by.split(",")): row["requests"] for row in rows(database, by, **more)
        }

    assert found("team") == {(None,): 1, ("a",): 2, ("b",): 1}
    assert found("app,team") == {(None, None): 1, (None, "a"): 1, (None, "b"): 1, ("x", "a"): 1}
    assert found("team,day", tags=(("team", "a"),)) == {("a", "2026-03-05"): 2}
    assert found("group", tags=(("team", "b"),)) == {("g",): 1}
    for where, requests in (
        ({"key": "key_a"}, 1), ({"key": "two"}, 2), ({"group": "g"}, 1), ({"alias": "premium"}, 1),
        ({"alias": "x"}, 0), ({"endpoint": "chat"}, 3), ({"provider": "azure", "model": "m"}, 1),
        ({"key": "two", "alias": "premium"}, 1),
    ):  # fmt: skip
        names = {"key_a": "two", "key_c": "two"}
        [row] = rows(database, where=tuple(where.items()), names=names)
        assert row["requests"] == requests, where
    assert rows(database, where=(("alias", "premium"),), tags=(("team", "b"),))[0]["requests"] == 0
    with pytest.raises(QueryError, match="there is no key 'nobody'"):
        rows(database, where=(("key", "nobody"),))


@pytest.mark.parametrize(("window", "unix_s", "factor"), [
    ("month", MARCH + 10 * 86400, 3.1), ("month", MARCH + 31 * 3600, 24.0),
    ("month", MARCH + 30 * 3600, None),
    ("day", MARCH + 4 * 86400 + 6 * 3600, 4.0), ("day", MARCH + 4 * 86400 + 1800, None),
])  # fmt: skip
def test_a_forecast_goes_by_the_length_of_its_window(database, window, unix_s, factor):
    put(database, nusd=10**9)
    query = read_query({"forecast": window}, TODAY, ())
    [row] = usage_rows(database, query, {})
    add_forecast([row], query, unix_s)
    assert row["forecast_usd"] == (None if factor is None else pytest.approx(factor))
    assert row["forecast_tokens"] == (None if factor is None else round(15 * factor))
    assert parsed(usage_totals.to_csv([row], query))[0] == columns((), ["forecast_usd", "forecast_tokens"])


def parsed(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv(database):
    put(database, nusd=123_450_000)
    put(database, key="", nusd=1)
    names = {"key_a": 'a "b", c'}
    text = to_csv(rows(database, "key,day", names=names), ["key", "day"])
    assert text.endswith("\r\n")
    counts = [str(count) for count in COUNTS.values()]
    assert parsed(text) == [
        ["key", "key_id", "day", *COUNTS, "usd", "saved_usd", "estimated"],
        ["", "", "2026-03-05", *counts, "0.000000001", "0.000000000", "0"],
        ['a "b", c', "key_a", "2026-03-05", *counts, "0.123450000", "0.000000000", "0"],
    ]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"])
def test_names_are_no_formulas(database, name):
    put(database, model=name)
    text = to_csv(rows(database, "key,model", names={"key_a": name}), ["key", "model"])
    assert parsed(text)[1][:3] == ["'" + name, "key_a", "'" + name]
    put(database, model="a=b-c")  # other names stay as they are
    assert parsed(to_csv(rows(database, "model"), ["model"]))[2][0] == "a=b-c"
