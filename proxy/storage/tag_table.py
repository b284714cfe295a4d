"""The tags of totals in SQLite: the values that are told apart, and the combinations in which they come.

Totals have the number of a combination, so that they can be asked for by any of its tags. Values that clients
bring are bounded here (:mod:`proxy.usage.tags`): this is the one place that knows those of all workers and
of earlier runs, and what it decides is in the transaction that counts the lines.
"""

from __future__ import annotations

import sqlite3

import orjson

from proxy.usage.tags import NEW_VALUES_A_DAY, OTHER, may_be_new
from proxy.usage.tally import Tags

TABLES = """
CREATE TABLE IF NOT EXISTS tag_values (
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    key TEXT,                           -- the id of the key that brought it; '': none; NULL: it is listed
    day INTEGER NOT NULL,               -- on which it did
    PRIMARY KEY (name, value)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tag_values_of_keys ON tag_values (key, day);
CREATE TABLE IF NOT EXISTS tag_sets (
    id INTEGER PRIMARY KEY,
    tags TEXT NOT NULL UNIQUE,          -- JSON: value by name
    key TEXT,                           -- as above
    day INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS tag_sets_of_keys ON tag_sets (key, day);
"""
# The combination of a request without tags. It has no row.
NO_SET = 0
# Combinations of values: some thousand customers with ten features each. A combination beyond these counts
# with ``other`` in place of what clients say.
MAX_SETS = 100_000
NEW_SETS_A_DAY = 1_000  # of one key


def set_id(database: sqlite3.Connection, tags: Tags, key: str, day: int, most: int) -> int:
    """The number of a combination of tags, within a transaction.

    :param key: the id of the request's key; "": none. :param day: of the request, since 1970-01-01.
    :param most: values of a tag that are told apart.
    """
    known, said = tags
    if not known and not said:
        return NO_SET
    for name, value in known:
        database.execute("INSERT OR IGNORE INTO tag_values VALUES (?, ?, NULL, 0)", (name, value))
    told = [(name, _told_apart(database, name, value, key, day, most)) for name, value in said]
    found = _set(database, dict([*known, *told]))
    if found is not None:
        return found
    if said and not _may_be_new_set(database, key, day):
        told = [(name, OTHER) for name, _ in said]
        found = _set(database, dict([*known, *told]))
        if found is not None:
            return found
    made = database.execute(
        "INSERT INTO tag_sets (tags, key, day) VALUES (?, ?, ?)", (_text([*known, *told]), key, day)
    ).lastrowid
    assert made is not None
    return made


def _told_apart(database: sqlite3.Connection, name: str, value: str, key: str, day: int, most: int) -> str:
    if database.execute("SELECT 1 FROM tag_values WHERE name = ? AND value = ?", (name, value)).fetchone():
        return value
    new = _count(database, "SELECT COUNT(*) FROM tag_values WHERE key = ? AND day = ?", key, day)
    values = 0
    if new < NEW_VALUES_A_DAY:  # else the many need not be counted
        values = _count(database, "SELECT COUNT(*) FROM tag_values WHERE name = ?", name)
    if not may_be_new(values, new, most):
        return OTHER
    database.execute("INSERT INTO tag_values VALUES (?, ?, ?, ?)", (name, value, key, day))
    return value


def _may_be_new_set(database: sqlite3.Connection, key: str, day: int) -> bool:
    new = _count(database, "SELECT COUNT(*) FROM tag_sets WHERE key = ? AND day = ?", key, day)
    return new < NEW_SETS_A_DAY and _count(database, "SELECT COUNT(*) FROM tag_sets") < MAX_SETS


def _count(database: sqlite3.Connection, query: str, *values: object) -> int:
    return int(database.execute(query, values).fetchone()[0])


def _set(database: sqlite3.Connection, tags: dict[str, str]) -> int | None:
    found = database.execute("SELECT id FROM tag_sets WHERE tags = ?", (_text(tags.items()),)).fetchone()
    return None if found is None else int(found[0])


def _text(pairs: object) -> str:
    return orjson.dumps(dict(pairs), option=orjson.OPT_SORT_KEYS).decode()  # type: ignore[call-overload]


def known_values(database: sqlite3.Connection) -> dict[str, list[str]]:
    """The values of each tag that totals have, in order."""
    found: dict[str, list[str]] = {}
    for name, value in database.execute("SELECT name, value FROM tag_values ORDER BY name, value"):
        found.setdefault(name, []).append(value)
    return found
