"""The groups of keys in SQLite: for a gateway, and for commands without a gateway."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterable
from typing import Any

import orjson

from proxy.access.group import Group
from proxy.config.values import nearest
from proxy.storage.transaction import transaction

TABLES = """
CREATE TABLE IF NOT EXISTS key_groups (
    name TEXT PRIMARY KEY,
    created INTEGER NOT NULL,      -- Unix seconds
    settings TEXT NOT NULL         -- JSON of the rest of a Group
) WITHOUT ROWID;
"""
_COLUMNS = ("name", "created")
_SELECT = "SELECT name, created, settings FROM key_groups"
_NAMED = 5  # keys that an error names


class UnknownGroup(LookupError):
    """There is no such group; the text is a sentence."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        close = nearest(name, known)
        hint = f"Did you mean '{close}'?" if close else f"'tokenhub groups create {name[:64]}' makes it."
        super().__init__(f"There is no group '{name[:64]}'. {hint}")


class GroupTaken(Exception):
    """There is a group of that name already; the text is a sentence."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is a group '{name}' already: change it ('tokenhub groups edit {name}').")


class GroupInUse(Exception):
    """Keys are in the group, so it can't be deleted; the text is a sentence."""

    def __init__(self, name: str, keys: list[str]) -> None:
        more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
        super().__init__(
            f"The group '{name}' has keys ({', '.join(keys[:_NAMED])}{more}), which would lose its limits: "
            "give them another group first ('tokenhub keys edit KEY --group NAME', or none)."
        )


def load_groups(database: sqlite3.Connection) -> list[Group]:
    """All groups, by name.

    :raises ValueError: this version can't read a row.
    """
    return [_group(*row) for row in database.execute(f"{_SELECT} ORDER BY name").fetchall()]


def _group(name: str, created: int, settings: str) -> Group:
    try:
        return Group(name=name, created=created, **orjson.loads(settings))
    except TypeError as error:
        raise ValueError(f"the group {name} can't be read: {error}") from None


def store_group(database: sqlite3.Connection, group: Group) -> Group:
    """Write a new group. Returns it. :raises GroupTaken: its name is taken."""
    with transaction(database):
        if database.execute(f"{_SELECT} WHERE name = ?", (group.name,)).fetchone():
            raise GroupTaken(group.name)
        _write(database, group)
    return group


def _write(database: sqlite3.Connection, group: Group) -> None:
    settings = {name: value for name, value in dataclasses.asdict(group).items() if name not in _COLUMNS}
    values = (group.name, group.created, orjson.dumps(settings).decode())
    database.execute("INSERT OR REPLACE INTO key_groups VALUES (?, ?, ?)", values)


def change_group(database: sqlite3.Connection, name: str, settings: dict[str, Any]) -> Group:
    """Change a group as it is stored now. Returns it as it is then.

    :param settings: fields of a :class:`proxy.access.group.Group`.
    :raises UnknownGroup: it is not stored.
    """
    with transaction(database):
        group = dataclasses.replace(find_group(load_groups(database), name), **settings)
        _write(database, group)
    return group


def delete_group(database: sqlite3.Connection, name: str) -> Group:
    """Delete a group. Returns it as it was.

    :raises UnknownGroup: it is not stored. :raises GroupInUse: a key that is not revoked is in it.
    """
    with transaction(database):
        group = find_group(load_groups(database), name)
        if keys := members(database, name):
            raise GroupInUse(name, keys)
        database.execute("DELETE FROM key_groups WHERE name = ?", (name,))
    return group


def members(database: sqlite3.Connection, name: str) -> list[str]:
    """The names of the keys in a group that are not revoked."""
    found = database.execute(
        "SELECT json_extract(settings, '$.name') FROM keys WHERE json_valid(settings) "
        "AND json_extract(settings, '$.group') = ? AND json_extract(settings, '$.revoked') IS NULL "
        "ORDER BY 1",
        (name,),
    )
    return [key for (key,) in found]


def find_group(groups: Iterable[Group], wanted: str) -> Group:
    """Find a group by its name. :raises UnknownGroup: there is none."""
    known = {group.name: group for group in groups}
    if wanted not in known:
        raise UnknownGroup(wanted, known)
    return known[wanted]
