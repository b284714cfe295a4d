"""The keys in SQLite, and the making of new ones: for a gateway, and for commands where none is running."""

from __future__ import annotations

import dataclasses
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from proxy.keys import PREFIX, Key, KeySettingsError, digest_of

TABLES = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,   -- SHA-256 of the key, which is kept nowhere
    created INTEGER NOT NULL,      -- Unix seconds, as all dates
    settings TEXT NOT NULL         -- JSON of the rest of proxy.keys.Key
) WITHOUT ROWID;
"""
_COLUMNS = ("id", "digest", "created")
_SELECT = "SELECT id, digest, created, settings FROM keys"


class UnknownKey(LookupError):
    """There is no such key; the text is a sentence."""


@contextmanager
def writing(database: sqlite3.Connection) -> Iterator[None]:
    """A transaction that writes: all of it, or nothing."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def make_key(settings: dict[str, Any], now: float) -> tuple[Key, str]:
    """A new key, and its clear text, which is not to be had again.

    :param settings: as :func:`proxy.keys.read_settings` gives them.
    :param now: Unix seconds.
    :raises KeySettingsError: there is no name among them.
    """
    if not settings.get("name"):
        raise KeySettingsError("A key needs a 'name' that says whose it is.")
    secret = PREFIX + secrets.token_urlsafe(32)
    key = Key(
        id=f"key_{secrets.token_hex(8)}", digest=digest_of(secret.encode()), created=int(now), **settings
    )
    return key, secret


def load_keys(database: sqlite3.Connection) -> list[Key]:
    """All keys, the oldest first.

    :raises ValueError: a row that this version can't read.
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
        return Key(id=id, digest=digest, created=created, **values)
    except TypeError as error:
        raise ValueError(f"the key {id} can't be read: {error}") from None


def store_key(database: sqlite3.Connection, key: Key) -> None:
    """Write a new key."""
    with writing(database):
        _write(database, key)


def _write(database: sqlite3.Connection, key: Key) -> None:
    settings = {name: value for name, value in dataclasses.asdict(key).items() if name not in _COLUMNS}
    values = (key.id, key.digest, key.created, orjson.dumps(settings).decode())
    database.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", values)


def change_key(database: sqlite3.Connection, id: str, settings: dict[str, Any]) -> Key:
    """Change a key as it is stored now, whatever was known of it before.

    :param settings: fields of a :class:`proxy.keys.Key`.
    :raises UnknownKey: it is not stored.
    """
    with writing(database):
        found = database.execute(f"{_SELECT} WHERE id = ?", (id,)).fetchone()
        if found is None:
            raise UnknownKey(f"There is no key '{id}'.")
        key = dataclasses.replace(_key(*found), **settings)
        _write(database, key)
    return key


def version_of(database: sqlite3.Connection) -> int:
    """Changes when another connection has written."""
    return int(database.execute("PRAGMA data_version").fetchone()[0])


def find_key(keys: list[Key], wanted: str) -> Key:
    """The key with that id; or with that name, where one that is not revoked has it alone.

    :raises UnknownKey: there is none, or more than one.
    """
    for key in keys:
        if key.id == wanted:
            return key
    named = [key for key in keys if key.name == wanted]
    named = [key for key in named if key.revoked is None] or named
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(key.id for key in named)
        raise UnknownKey(f"There are {len(named)} keys called '{wanted}': name one by its id ({ids}).")
    raise UnknownKey(f"There is no key '{wanted[:100]}'.")
