"""Groups in SQLite, and what holds them together with their keys."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from proxy.access.group import Group
from proxy.access.key import KeySettingsError
from proxy.storage.database import IN_MEMORY, connect
from proxy.storage.group_table import (
    GroupInUse,
    GroupTaken,
    UnknownGroup,
    change_group,
    delete_group,
    load_groups,
    members,
    store_group,
)
from proxy.storage.key_table import change_key, load_keys, store_key
from tests.support.keys import key_of

SEARCH = Group(name="search", created=7, rpm=5, monthly_nusd=10**9, daily_tokens=3, max_tokens=2, soft=True)


@pytest.fixture
def database():
    with closing(connect(IN_MEMORY)) as database:
        yield database


def test_a_group_is_stored_changed_and_deleted(database):
    other = store_group(database, Group(name="a", created=1))
    assert store_group(database, SEARCH) == SEARCH
    assert load_groups(database) == [other, SEARCH]
    with pytest.raises(GroupTaken, match="There is a group 'search' already"):
        store_group(database, Group(name="search", created=9))
    changed = change_group(database, "search", {"rpm": None, "tpm": 9})
    assert (changed.rpm, changed.tpm, changed.monthly_nusd) == (None, 9, 10**9)
    assert load_groups(database) == [other, changed]
    assert delete_group(database, "search") == changed
    assert load_groups(database) == [other]
    for call in (lambda: change_group(database, "search", {}), lambda: delete_group(database, "search")):
        with pytest.raises(
            UnknownGroup, match=r"There is no group 'search'. 'tokenhub groups create search'"
        ):
            call()
    with pytest.raises(UnknownGroup, match=r"Did you mean 'a'?"):
        delete_group(database, "A")


def test_a_key_enters_only_a_group_that_exists_and_a_group_with_keys_stays(database):
    with pytest.raises(KeySettingsError, match="'group': There is no group 'search'"):
        store_key(database, key_of(group="search"))
    store_group(database, SEARCH)
    for number in range(7):
        store_key(database, key_of(f"key_{number}", b"%d" % number, name=f"k{number}", group="search"))
    store_key(database, key_of("key_8", b"8"))
    assert members(database, "search") == [f"k{number}" for number in range(7)]
    with pytest.raises(KeySettingsError, match=r"'group': There is no group 'serch'. Did you mean 'search'?"):
        change_key(database, "key_8", {"group": "serch"}, 1.0)
    with pytest.raises(GroupInUse, match=r"has keys \(k0, k1, k2, k3, k4 and 2 more\)"):
        delete_group(database, "search")
    for number in range(7):  # a key that is revoked needs no limits
        change_key(database, f"key_{number}", {"revoked": 5} if number else {"group": None}, 1.0)
    delete_group(database, "search")
    assert {key.group for key in load_keys(database)} == {None, "search"}
    assert change_key(database, "key_3", {"rpm": 1}, 1.0).group == "search"  # as it is


def test_a_row_of_a_later_version(database):
    database.execute("INSERT INTO key_groups VALUES ('x', 1, '{\"colour\": 1}')")
    with pytest.raises(ValueError, match="the group x can't be read"):
        load_groups(database)
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO key_groups VALUES ('x', NULL, '{}')")
