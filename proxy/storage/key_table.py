"""The keys in SQLite, and the making of new ones: for a gateway, and for commands without a gateway."""

from __future__ import annotations

import dataclasses
import secrets
import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.access.key import PREFIX, Key, KeySettingsError, digest_of
from proxy.storage import group_table
from proxy.storage.group_table import UnknownGroup, find_group, load_groups
from proxy.storage.transaction import transaction

TABLES = f"""
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- SHA-256 of the secret, which is kept nowhere
    created INTEGER NOT NULL,      -- Unix seconds, as all dates
    settings TEXT NOT NULL         -- JSON of the rest of a Key; a former secret's SHA-256 in hex
) WITHOUT ROWID;
{group_table.TABLES}"""
_COLUMNS = ("id", "digest", "created")
_SELECT = "SELECT id, digest, created, settings FROM keys"


class UnknownKey(LookupError):
    """There is no such key; the text is a sentence."""


class NameTaken(Exception):
    """Another key in use has the name; the text is two sentences."""

    def __init__(self, name: str, id: str) -> None:
        super().__init__(
            f"The name '{name}' is taken by {id}, which is in use. To replace its secret, rotate it "
            f"('tokenhub keys rotate {id}'); another key needs another name."
        )


def make_key(settings: dict[str, Any], now: float) -> tuple[Key, str]:
    """Make a key. Returns it with its clear text, which is stored nowhere.

    :param settings: as :func:`proxy.access.key.read_settings` gives them.
    :param now: Unix seconds.
    :raises KeySettingsError: they have no name.
    """
    if not settings.get("name"):
        raise KeySettingsError("A key needs a 'name' that says whose it is.")
    secret, digest = make_secret()
    return Key(id=f"key_{secrets.token_hex(8)}", digest=digest, created=int(now), **settings), secret


def make_secret() -> tuple[str, bytes]:
    """Make a secret. Returns it with its digest, which is what is stored."""
    secret = PREFIX + secrets.token_urlsafe(32)
    return secret, digest_of(secret.encode())


def load_keys(database: sqlite3.Connection) -> list[Key]:
    """All keys, the oldest first.

    :raises ValueError: this version can't read a row.
    """
    found = database.execute(f"{_SELECT} ORDER BY created, id").fetchall()
    return [_key(*row) for row in found]


def _key(id: str, digest: bytes, created: int, settings: str) -> Key:
    values = orjson.loads(settings)
    known = {field.name for field in dataclasses.fields(Key)}
    if not isinstance(values, dict) or not values.keys() <= known:
        raise ValueError(f"the key {id} has settings this version doesn't know")
    try:
        if values.get("models") is not None:
            values["models"] = tuple(values["models"])
        values["tags"] = tuple(tuple(pair) for pair in values.get("tags", ()))
        if values.get("old_digest") is not None:
            values["old_digest"] = bytes.fromhex(values["old_digest"])
        return Key(id=id, digest=digest, created=created, **values)
    except TypeError as error:
        raise ValueError(f"the key {id} can't be read: {error}") from None


def store_key(database: sqlite3.Connection, key: Key) -> None:
    """Write a new key.

    :raises NameTaken: another one in use has its name. :raises KeySettingsError: its group does not exist.
    """
    with transaction(database):
        _check_name(database, key, key.created)
        _check_group(database, key)
        _write(database, key)


def _check_name(database: sqlite3.Connection, key: Key, now: float) -> None:
    """Check that no other key in use has the name of this one, if it is in use. Names are compared exactly.

    :raises NameTaken: one has it.
    """
    if key.is_in_use(now):
        named = "CASE WHEN json_valid(settings) THEN json_extract(settings, '$.name') END"
        found = database.execute(f"{_SELECT} WHERE id != ? AND {named} = ?", (key.id, key.name))
        for row in found.fetchall():
            if _key(*row).is_in_use(now):
                raise NameTaken(key.name, row[0])


def _check_group(database: sqlite3.Connection, key: Key) -> None:
    """Check that the group of a key exists. :raises KeySettingsError: it does not."""
    if key.group is not None:
        try:
            find_group(load_groups(database), key.group)
        except UnknownGroup as error:
            raise KeySettingsError(f"'group': {error}") from None


def _write(database: sqlite3.Connection, key: Key) -> None:
    settings = {name: value for name, value in dataclasses.asdict(key).items() if name not in _COLUMNS}
    settings["old_digest"] = None if key.old_digest is None else key.old_digest.hex()
    values = (key.id, key.digest, key.created, orjson.dumps(settings).decode())
    database.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", values)


def change_key(database: sqlite3.Connection, id: str, settings: dict[str, Any], now: float) -> Key:
    """Change a key as it is stored now.

    :param settings: fields of a :class:`proxy.access.key.Key`.
    :param now: Unix seconds.
    :raises UnknownKey: it is not stored. :raises NameTaken: another one in use has the name that it gets, or
        that it has and would be in use under again. :raises KeySettingsError: its new group does not exist.
    """
    with transaction(database):
        before = _stored(database, id)
        key = dataclasses.replace(before, **settings)
        if key.name != before.name or not before.is_in_use(now):  # keys of one name may be there from before
            _check_name(database, key, now)
        if key.group != before.group:
            _check_group(database, key)
        _write(database, key)
    return key


def rotate_key(database: sqlite3.Connection, id: str, digest: bytes, overlap_s: int, now: float) -> Key:
    """Give a key another secret. The one that it has goes on working for ``overlap_s``; one before that ends
    at once, so that no more than two are live.

    :param digest: of the new secret. :param now: Unix seconds.
    :raises UnknownKey: it is not stored. :raises KeySettingsError: it is not in use.
    """
    with transaction(database):
        before = _stored(database, id)
        check_rotation(before, now)
        key = dataclasses.replace(
            before, digest=digest, rotated=int(now), old_digest=before.digest, old_until=int(now) + overlap_s
        )
        _write(database, key)
    return key


def check_rotation(key: Key, now: float) -> None:
    """:raises KeySettingsError: the key is not in use, so that no secret makes it of use."""
    if key.revoked is not None:
        raise KeySettingsError(f"The key {key.id} was revoked, which is for good: make another one.")
    if not key.is_in_use(now):
        raise KeySettingsError(f"The key {key.id} has expired: give it another 'expires' first.")


def _stored(database: sqlite3.Connection, id: str) -> Key:
    found = database.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
    if found is None:
        raise UnknownKey(f"There is no key '{id}'.")
    return _key(*found)


def version_of(database: sqlite3.Connection) -> int:
    """A number that changes when another connection has written."""
    return int(database.execute("PRAGMA data_version").fetchone()[0])


def shared_names(keys: Iterable[Key], now: float) -> dict[str, list[str]]:
    """Names that several keys in use have, with their ids. Earlier versions allowed that."""
    ids: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        if key.is_in_use(now):
            ids[key.name].append(key.id)
    return {name: found for name, found in ids.items() if len(found) > 1}


def find_key(keys: list[Key], wanted: str, now: float) -> Key:
    """Find a key by its id; or by its name, if exactly one key in use has it, or else exactly one that is not
    revoked, or else exactly one.

    :raises UnknownKey: no key, or more than one, is meant.
    """
    for key in keys:
        if key.id == wanted:
            return key
    named = [key for key in keys if key.name == wanted]
    named = [key for key in named if key.revoked is None] or named
    named = [key for key in named if key.is_in_use(now)] or named
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(key.id for key in named)
        raise UnknownKey(f"There are {len(named)} keys called '{wanted}': name one by its id ({ids}).")
    raise UnknownKey(f"There is no key '{wanted[:100]}'.")
