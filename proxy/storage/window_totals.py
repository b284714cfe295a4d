"""What keys and groups have used in this month and on this day, by the ledger's totals."""

from __future__ import annotations

import sqlite3

from proxy.access.permits import Month
from proxy.usage.calendar import day_of, days_of, month_of

_SUMS = """
SELECT {by}, MAX(last_at),
    COALESCE(SUM(input_tokens + output_tokens) FILTER (WHERE day >= :first), 0),
    COALESCE(SUM(nusd) FILTER (WHERE day >= :first), 0),
    COALESCE(SUM(input_tokens + output_tokens) FILTER (WHERE day = :today), 0),
    COALESCE(SUM(nusd) FILTER (WHERE day = :today), 0)
FROM usage WHERE {by} <> '' AND day <= :last GROUP BY {by}
"""


def used_by_keys(database: sqlite3.Connection, unix_s: float) -> dict[str, Month]:
    """The usage of keys, by id.

    :param unix_s: a moment of the month and the day. :raises sqlite3.Error:
    """
    return _sums(database, "key", unix_s)


def used_by_groups(database: sqlite3.Connection, unix_s: float) -> dict[str, Month]:
    """The usage of groups, by name: of requests that their keys made while they were in the group.

    :param unix_s: a moment of the month and the day. :raises sqlite3.Error:
    """
    return _sums(database, "key_group", unix_s)


def _sums(database: sqlite3.Connection, by: str, unix_s: float) -> dict[str, Month]:
    month, _ = month_of(unix_s)
    first, behind = days_of(month)
    days = {"first": first, "last": behind - 1, "today": day_of(unix_s)}
    found = database.execute(_SUMS.format(by=by), days)
    return {name: Month(tokens, nusd, last_at, *day) for name, last_at, tokens, nusd, *day in found}
