"""Combinations of tags in the totals, and the bounds of what clients bring."""

from __future__ import annotations

import contextlib
import sqlite3

import orjson
import pytest

from proxy.storage import tag_table
from proxy.storage.tag_table import NO_SET, known_values, set_id


@pytest.fixture
def database():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(tag_table.TABLES)
        yield database


def counted(
    database: sqlite3.Connection, known: dict | None = None, said: dict | None = None, key: str = "key_1",
    day: int = 5, most: int = 1000,
) -> dict[str, str]:  # fmt: skip
    """The tags that a request counts with."""
    tags = tuple(sorted((known or {}).items())), tuple(sorted((said or {}).items()))
    id = set_id(database, tags, key, day, most)
    [text] = database.execute("SELECT tags FROM tag_sets WHERE id = ?", (id,)).fetchone()
    return orjson.loads(text)


def test_a_combination_has_one_number(database):
    assert set_id(database, ((), ()), "", 5, 1000) == NO_SET
    first = set_id(database, ((("a", "1"), ("b", "2")), ()), "", 5, 1000)
    assert set_id(database, ((("b", "2"),), (("a", "1"),)), "key", 6, 1000) == first
    assert set_id(database, ((("a", "1"),), ()), "", 5, 1000) not in (NO_SET, first)
    assert known_values(database) == {"a": ["1"], "b": ["2"]}


def test_a_key_brings_fifty_new_values_a_day_over_all_tags(database):
    for number in range(25):
        assert counted(database, said={"a": f"a{number}", "b": f"b{number}"}) == {
            "a": f"a{number}", "b": f"b{number}",
        }  # fmt: skip
    assert counted(database, said={"a": "new", "b": "b7"}) == {"a": "other", "b": "b7"}
    assert counted(database, {"a": "listed"}, {"b": "new"}) == {"a": "listed", "b": "other"}
    assert counted(database, said={"a": "listed"}) == {"a": "listed"}  # it is known now
    assert counted(database, said={"a": "new"}, key="") == {"a": "new"}
    assert counted(database, said={"a": "newer"}, day=6) == {"a": "newer"}


def test_a_tag_has_a_number_of_values_that_are_told_apart(database):
    for value in "abc":
        assert counted(database, said={"a": value}, most=3) == {"a": value}
    assert counted(database, said={"a": "d", "b": "d"}, most=3) == {"a": "other", "b": "d"}
    assert counted(database, {"a": "mine"}, most=3) == {"a": "mine"}
    assert counted(database, said={"a": "d"}, most=5) == {"a": "d"}


@pytest.mark.parametrize("bound", ["MAX_SETS", "NEW_SETS_A_DAY"])
def test_combinations_are_bounded_and_what_keys_have_stays(database, monkeypatch, bound):
    monkeypatch.setattr(tag_table, bound, 2)
    for value in "ab":
        counted(database, {"team": "x"}, {"a": value})
    assert counted(database, {"team": "x"}, {"a": "b"}) == {"team": "x", "a": "b"}
    for value in "cd":
        assert counted(database, {"team": "y"}, {"a": value}) == {"team": "y", "a": "other"}
    assert counted(database, {"team": "z"}) == {"team": "z"}
