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

from proxy.access.key import FORM, Key, KeySettingsError, digest_of
from proxy.storage.key_table import (
    TABLES,
    NameTaken,
    UnknownKey,
    change_key,
    find_key,
    load_keys,
    make_key,
    make_secret,
    rotate_key,
    shared_names,
    store_key,
    version_of,
)
from tests.support.keys import key_of, write_old


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
    monthly_nusd=10**18, monthly_tokens=5, max_tokens=6, on_disconnect="drain", rotated=7,
    old_digest=b"\x00\xff" * 16, old_until=10,
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


def test_what_is_stored_is_there_again_the_oldest_first(database):
    bare = key_of("key_bare", b"x")
    for key in (FULL, bare):
        store_key(database, key)
    assert load_keys(database) == [bare, FULL]
    again = dataclasses.replace(FULL, id="key_again")
    store_key(database, again)
    assert load_keys(database) == [again, bare]  # the hash is who it is
    changed = dataclasses.replace(FULL, models=None, rpm=None, revoked=None, name="other")
    store_key(database, changed)
    assert load_keys(database) == [bare, changed]
    older = [dataclasses.replace(key_of(f"key_{i}", b"%d" % i), created=-i) for i in range(1, 5)]
    for key in older:
        store_key(database, key)
    assert load_keys(database) == [*older[::-1], bare, changed]


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


def test_keys_by_id_or_name():
    revoked = key_of("key_1", name="prod", revoked=5)
    current = key_of("key_2", name="prod")
    twins = [key_of(f"key_{i}", name="twin") for i in (3, 4)]
    old = [key_of(f"key_{i}", name="old", revoked=1) for i in (5, 6)]
    keys = [revoked, current, *twins, *old, key_of("key_7", name="key_1")]
    assert find_key(keys, "key_1", 3.0) is revoked  # an id goes before a name
    assert find_key(keys, "prod", 3.0) is current
    twice = r"^There are 2 keys called 'twin': name one by its id \(key_3, key_4\)"
    with pytest.raises(UnknownKey, match=twice):
        find_key(keys, "twin", 3.0)
    with pytest.raises(UnknownKey, match="There are 2 keys called 'old'"):
        find_key(keys, "old", 3.0)
    assert find_key(keys[:5], "old", 3.0) is old[0]
    for name in ("none", "", "PROD", "key_"):
        with pytest.raises(UnknownKey, match=f"^There is no key '{name}'.$"):
            find_key(keys, name, 3.0)
    with pytest.raises(UnknownKey) as caught:
        find_key(keys, "x" * 10_000, 3.0)
    assert len(str(caught.value)) < 200
    ended = key_of("key_8", name="next", expires=2)
    follower = key_of("key_9", name="next")
    assert find_key([ended, follower], "next", 3.0) is follower
    assert find_key([ended], "next", 3.0) is ended
    with pytest.raises(UnknownKey, match="There are 2 keys called 'next'"):
        find_key([ended, follower], "next", 1.0)


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


# ---------------------------------------------------------------------- names

NOW = 100.0


def named(id: str, name: str = "prod", **settings: object) -> Key:
    return key_of(id, id.encode(), name=name, **settings)


def test_a_name_is_of_one_key_in_use(database):
    store_key(database, named("key_1"))
    with pytest.raises(NameTaken) as caught:
        store_key(database, named("key_2"))
    assert str(caught.value) == (
        "The name 'prod' is taken by key_1, which is in use. To replace its secret, rotate it "
        "('tokenhub keys rotate key_1'); another key needs another name."
    )
    assert [key.id for key in load_keys(database)] == ["key_1"]
    for id, name in (("key_3", "Prod"), ("key_4", "prod "), ("key_5", "prød")):  # compared as they are
        store_key(database, named(id, name))
    database.execute("INSERT INTO keys VALUES ('key_odd', x'00', 1, 'nonsense')")  # which takes no name
    store_key(database, named("key_6", "late"))


@pytest.mark.parametrize("over", [{"revoked": 1}, {"expires": 1}])
def test_the_name_of_a_key_that_is_over_is_free(database, over):
    store_key(database, named("key_1", **over))
    store_key(database, named("key_2"))
    with pytest.raises(NameTaken):
        store_key(database, named("key_3"))


def test_a_name_can_be_taken_by_a_change_neither(database):
    for id, name in (("key_1", "prod"), ("key_2", "test")):
        store_key(database, named(id, name))
    with pytest.raises(NameTaken, match="taken by key_1"):
        change_key(database, "key_2", {"name": "prod"}, NOW)
    assert change_key(database, "key_2", {"name": "test", "rpm": 5}, NOW).rpm == 5
    assert change_key(database, "key_1", {"name": "other"}, NOW).name == "other"
    assert change_key(database, "key_2", {"name": "prod"}, NOW).name == "prod"
    with pytest.raises(UnknownKey, match="There is no key 'key_3'"):
        change_key(database, "key_3", {}, NOW)


def test_a_key_that_is_over_does_not_come_back_under_a_name_that_is_taken(database):
    store_key(database, named("key_1", expires=50))
    change_key(database, "key_1", {"expires": 60}, 40.0)
    store_key(database, dataclasses.replace(named("key_2"), created=70))
    with pytest.raises(NameTaken, match="taken by key_2"):
        change_key(database, "key_1", {"expires": 200}, NOW)
    assert change_key(database, "key_1", {"rpm": 5}, NOW).rpm == 5
    assert change_key(database, "key_1", {"expires": 200, "name": "old"}, NOW).expires == 200


def test_keys_of_one_name_from_before_can_be_worked_with(tmp_path):
    """What else is set of them may change, and one of them may get another name."""
    keys = named("key_1"), named("key_2"), named("key_3", revoked=5), named("key_4", "x")
    write_old(tmp_path / "t.db", *keys)
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as database:
        assert load_keys(database) == [*keys]
        assert shared_names(keys, NOW) == {"prod": ["key_1", "key_2"]}
        assert change_key(database, "key_1", {"rpm": 5}, NOW).rpm == 5
        assert rotate_key(database, "key_2", b"new", 5, NOW).digest == b"new"
        with pytest.raises(NameTaken):
            store_key(database, named("key_5"))
        change_key(database, "key_2", {"name": "other"}, NOW)
        assert shared_names(load_keys(database), NOW) == {}


# ---------------------------------------------------------------------- rotations


def test_a_rotation_is_the_same_key_with_another_secret(database):
    before = named("key_1", rpm=5, models=("a/*",))
    store_key(database, before)
    secret, digest = make_secret()
    assert FORM.fullmatch(secret) and digest == digest_of(secret.encode())
    after = rotate_key(database, "key_1", digest, 3600, 100.9)
    old = {"old_digest": before.digest, "old_until": 3700}
    assert after == dataclasses.replace(before, digest=digest, rotated=100, **old)
    assert load_keys(database) == [after]
    # The first secret is gone: two are live at most.
    again = rotate_key(database, "key_1", b"third", 0, 200.0)
    assert (again.digest, again.old_digest, again.old_until) == (b"third", digest, 200)
    assert load_keys(database) == [again]


def test_a_key_that_is_over_is_not_rotated(database):
    store_key(database, named("key_1", "a", revoked=5))
    store_key(database, named("key_2", "b", expires=5))
    expired = "key_2 has expired: give it another 'expires'"
    for id, said in (("key_1", "key_1 was revoked"), ("key_2", expired)):
        with pytest.raises(KeySettingsError, match=said):
            rotate_key(database, id, b"new", 0, NOW)
    with pytest.raises(UnknownKey):
        rotate_key(database, "key_3", b"new", 0, NOW)
    assert all(key.rotated is None for key in load_keys(database))
