"""Queries of the ledger's totals, for the admin API and the command line.

Money is added up in whole nano-dollars and divided once at the end. A sum is therefore exact, and so is its
decimal form: a float tells nano-dollars apart up to eight million dollars, and cents far beyond that.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from proxy.wire.query import QueryError

DIMENSIONS = ("key", "model", "provider", "day")
_COUNTS = (
    *("requests", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    "reasoning_tokens",
)
_PARAMETERS = ("by", "since", "until")
_NANO = 10**9
_EPOCH = date(1970, 1, 1)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAYS = re.compile(r"([1-9][0-9]{0,4})d")  # five digits: older than any ledger, and never before the year 1
# What a spreadsheet takes for a formula: names are chosen by people, and models by clients.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def columns(by: Sequence[str]) -> list[str]:
    """The members of a row, in order."""
    asked = [name for dimension in by for name in (("key", "key_id") if dimension == "key" else (dimension,))]
    return [*asked, *_COUNTS, "usd", "estimated"]


def read_query(query: Mapping[str, str], today: date) -> tuple[tuple[str, ...], date | None, date | None]:
    """Read the dimensions, and the first and last day, both included.

    A day is written as YYYY-MM-DD, or as a number of days back that includes today: ``7d`` as ``since`` is a
    week that ends today, and ``1d`` is today.

    :param today: in UTC, as all days here.
    :raises QueryError: a sentence that says what is wrong and what would be right.
    """
    names = [name for name, _ in query.items()]  # the keys alone would hide repeated ones
    for name in names:
        if name not in _PARAMETERS:
            raise QueryError(name, f"unknown parameter {name!r}: there are {', '.join(_PARAMETERS)}")
        if names.count(name) > 1:
            raise QueryError(name, f"{name} is given more than once: give it once")
    by = [name.strip() for name in query.get("by", "").split(",")]
    by = [] if by == [""] else by
    for dimension in by:
        if dimension not in DIMENSIONS:
            raise QueryError("by", f"by can't be {dimension!r}: choose from {', '.join(DIMENSIONS)}")
        if by.count(dimension) > 1:
            raise QueryError("by", f"by names {dimension} more than once: name it once")
    since, until = (_day(name, query.get(name, ""), today) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise QueryError("since", f"since {since} is after until {until}: exchange them")
    return tuple(by), since, until


def _day(name: str, text: str, today: date) -> date | None:
    if not text:
        return None
    if match := _DAYS.fullmatch(text):
        return today - timedelta(days=int(match[1]) - 1)
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise QueryError(
            name, f"{name} is not a day: {text!r}; write YYYY-MM-DD, or 7d for the last seven days"
        ) from None


def usage_rows(
    database: sqlite3.Connection,
    by: Sequence[str],
    since: date | None,
    until: date | None,
    names: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Totals by the asked dimensions, ordered by them; with none asked, one row of everything.

    Requests without a key, or that got to no model, have None there.

    :param by: of :data:`DIMENSIONS`, as from :func:`read_query`.
    :param since: the first day, UTC; ``until``: the last.
    :param names: of keys, by their ids. A key without a name there is called by its id. Two keys of the same
        name are two rows.
    :raises sqlite3.Error:
    """
    assert set(by) <= set(DIMENSIONS)
    sums = ", ".join(f"COALESCE(SUM({name}), 0)" for name in (*_COUNTS, "nusd", "estimated"))
    asked = ", ".join(by)
    text = f"SELECT {asked + ', ' if by else ''}{sums} FROM usage WHERE day BETWEEN ? AND ?"  # noqa: S608
    if by:
        text += f" GROUP BY {asked}"
    first, last = _number(since or date.min), _number(until or date.max)
    rows = [_row(by, values, names) for values in database.execute(text, (first, last))]
    order = columns(by)[: -len(_COUNTS) - 2]
    rows.sort(key=lambda row: [(row[name] is not None, row[name]) for name in order])
    return rows


def _number(day: date) -> int:
    return (day - _EPOCH).days


def _row(by: Sequence[str], values: Sequence[Any], names: Mapping[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for dimension, value in zip(by, values, strict=False):
        if dimension == "day":
            row["day"] = (_EPOCH + timedelta(days=value)).isoformat()
        elif dimension == "key":
            row["key"] = names.get(value, value) if value else None
            row["key_id"] = value or None
        else:
            row[dimension] = value or None
    *counts, nusd, estimated = values[len(by) :]
    row.update(zip(_COUNTS, counts, strict=True))
    # Of two integers: rounded once, however large they are.
    return row | {"usd": nusd / _NANO, "estimated": estimated}


def csv_lines(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> Iterator[str]:
    """Rows of :func:`usage_rows`, or of the admin API, as lines of a table for spreadsheets (RFC 4180).

    The first line is there even without rows. Text that a spreadsheet would take for a formula gets an
    apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    order = columns(by)
    writer.writerow(order)
    for row in rows:
        yield text.getvalue()
        text.seek(0)
        text.truncate()
        writer.writerow([_cell(name, row[name]) for name in order])
    yield text.getvalue()


def to_csv(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> str:
    """All of :func:`csv_lines`."""
    return "".join(csv_lines(rows, by))


def _cell(name: str, value: object) -> object:
    if name == "usd" and isinstance(value, float | int):
        return f"{value:.9f}"  # the nano-dollars that the float was made from
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
