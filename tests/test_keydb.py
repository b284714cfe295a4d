"""Keys in SQLite; every database is real."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.keydb import (
    TABLES,
    UnknownKey,
    find_key,
    load_keys,
    make_key,
    store_key,
    version_of,
    writing,
)
from proxy.keys import FORM, KeySettingsError, digest_of
from tests.keycases import key_of


def opened(path: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.executescript(TABLES)
    return database


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "t.db"


@pytest.fixture
def database(path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(opened(path)) as database:
        yield database


FULL = key_of(
    "key_full", name="prod – é", expires=9, revoked=8, models=("a/*", "b"), rpm=1, tpm=2, concurrency=3,
    monthly_nusd=10**18, monthly_tokens=5, max_tokens=6, on_disconnect="drain",
)  # fmt: skip


def test_a_new_key_is_known_by_nobody_else():
    key, secret = make_key({"name": "prod", "rpm": 5}, 1234.9)
    assert FORM.fullmatch(secret)
    assert key.digest == digest_of(secret.encode())
    assert (key.name, key.rpm, key.created, key.revoked) == ("prod", 5, 1234, None)
    assert key.id.startswith("key_")
    made = [make_key({"name": "prod"}, 0.0) for _ in range(100)]
    assert len({key.id for key, _ in made}) == len({secret for _, secret in made}) == 100
    for settings in ({}, {"rpm": 5}):
        with pytest.raises(KeySettingsError, match="needs a 'name'"):
            make_key(settings, 0.0)


def test_what_is_stored_is_there_again(database):
    bare = key_of("key_bare", b"x")
    for key in (FULL, bare):
        store_key(database, key)
    assert load_keys(database) == [bare, FULL]
    changed = dataclasses.replace(FULL, models=None, rpm=None, revoked=None, name="other")
    store_key(database, changed)
    assert load_keys(database) == [bare, changed]


def test_the_oldest_comes_first(database):
    keys = [dataclasses.replace(key_of(f"key_{i}", b"%d" % i), created=10 - i) for i in range(5)]
    for key in keys:
        store_key(database, key)
    assert load_keys(database) == keys[::-1]


def test_only_the_hash_is_in_the_file(path, database):
    made = [make_key({"name": f"n{i}"}, 0.0) for i in range(20)]
    for key, _ in made:
        store_key(database, key)
    database.execute("PRAGMA wal_checkpoint(FULL)")
    files = [file.read_bytes() for file in path.parent.iterdir()]
    for key, secret in made:
        assert any(key.digest in data for data in files)
        assert not any(secret[3:].encode() in data for data in files)


@pytest.mark.parametrize(
    "settings",
    ["{}", "", "[]", "null", '{"name":5,"models":5}', '{"name":"x","later":1}', '{"name":"x","id":"y"}',
     '{"name":"x","models":5}', "\x00"],
)  # fmt: skip
def test_a_row_that_cant_be_read_is_a_fault_and_no_key_that_is_missing(database, settings):
    store_key(database, FULL)
    database.execute("INSERT INTO keys VALUES ('key_odd', x'00', 1, ?)", (settings,))
    with pytest.raises(ValueError):
        load_keys(database)


def test_others_writing_is_noticed(path, database):
    before = version_of(database)
    store_key(database, FULL)
    assert version_of(database) == before  # it was us
    with contextlib.closing(opened(path)) as other:
        store_key(other, key_of("key_2", b"x"))
    assert version_of(database) != before
    assert [key.id for key in load_keys(database)] == ["key_2", "key_full"]


def test_a_transaction_is_all_or_nothing(database):
    twice = "INSERT INTO keys VALUES ('key_1', x'00', 1, '{}')"
    with pytest.raises(sqlite3.IntegrityError), writing(database):
        database.executemany(twice, [(), ()])
    assert not database.in_transaction
    assert load_keys(database) == []
    with writing(database):  # and the next one goes well
        database.execute("DELETE FROM keys")


def test_two_keys_of_one_hash_cant_be(database):
    store_key(database, FULL)
    store_key(database, dataclasses.replace(FULL, id="key_again"))
    assert [key.id for key in load_keys(database)] == ["key_again"]  # the hash is who it is


def test_keys_by_id_or_name():
    revoked = key_of("key_1", name="prod", revoked=5)
    current = key_of("key_2", name="prod")
    twins = [key_of(f"key_{i}", name="twin") for i in (3, 4)]
    old = [key_of(f"key_{i}", name="old", revoked=1) for i in (5, 6)]
    keys = [revoked, current, *twins, *old, key_of("key_7", name="key_1")]
    assert find_key(keys, "key_1") is revoked  # an id goes before a name
    assert find_key(keys, "prod") is current
    with pytest.raises(
        UnknownKey, match=r"^There are 2 keys called 'twin': name one by its id \(key_3, key_4\)"
    ):
        find_key(keys, "twin")
    with pytest.raises(UnknownKey, match="There are 2 keys called 'old'"):
        find_key(keys, "old")
    assert find_key(keys[:5], "old") is old[0]
    for name in ("none", "", "PROD", "key_"):
        with pytest.raises(UnknownKey, match=f"^There is no key '{name}'.$"):
            find_key(keys, name)
    with pytest.raises(UnknownKey) as caught:
        find_key(keys, "x" * 10_000)
    assert len(str(caught.value)) < 200


@given(st.text(max_size=20))
def test_any_name_is_kept_as_it_is(name):
    with contextlib.closing(opened(":memory:")) as database:
        key = key_of("key_1", name=name)
        try:
            store_key(database, key)
        except TypeError:  # half of a surrogate pair, which read_settings() takes for no name
            assert not name.isprintable()
        else:
            assert load_keys(database) == [key]
