"""Queries of the ledger's totals, for the admin API and the command line.

Money is added up in whole nano-dollars and divided once at the end. A sum is therefore exact, and so is its
decimal form: a float tells nano-dollars apart up to eight million dollars, and cents far beyond that.
"""

from __future__ import annotations

import csv
import io
import re
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

from proxy.config.usage_table import TAG_NAME
from proxy.usage.calendar import DAY_S, days_of, month_of
from proxy.usage.forecast import at_end
from proxy.usage.tags import TagsError, read_tags
from proxy.wire.query import QueryError

# What totals are asked for by, beside tags; all but the day can be filtered by, too.
DIMENSIONS = ("key", "group", "alias", "endpoint", "provider", "model", "day")
FILTERS = ("key", "group", "alias", "endpoint", "provider", "model")
_COUNTS = (
    *("requests", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    "reasoning_tokens",
)
_MONEY = ("usd", "saved_usd")
FORECASTS = ("month", "day")
PARAMETERS = ("by", "since", "until", *FILTERS, "tag", "forecast", "reprice")
# What a key may ask of its own totals.
OWN_PARAMETERS = tuple(name for name in PARAMETERS if name not in ("key", "group", "reprice"))
_NANO = 10**9
_EPOCH = date(1970, 1, 1)

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DAYS = re.compile(r"([1-9][0-9]{0,4})d")  # five digits: older than any ledger, and never before the year 1
# What a spreadsheet takes for a formula: names are chosen by people, and models by clients.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class UsageQuery(NamedTuple):
    """A question to the totals.

    ``by``: of :data:`DIMENSIONS`, and names of tags. ``since``, ``until``: the first and the last day, both
    included, UTC. ``where``: values of :data:`FILTERS`. ``tags``: of tags. ``forecast``: of
    :data:`FORECASTS`, "" for none. ``reprices``: at the prices of now.
    """

    by: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    where: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    forecast: str = ""
    reprices: bool = False


def columns(by: Sequence[str], more: Iterable[str] = ()) -> list[str]:
    """The members of a row, in order. ``more``: of :func:`further_columns`."""
    asked = [name for dimension in by for name in (("key", "key_id") if dimension == "key" else (dimension,))]
    return [*asked, *_COUNTS, *_MONEY, "estimated", *more]


def further_columns(query: UsageQuery) -> list[str]:
    """The members of a row that not every question asks for."""
    return [*["charged_usd"] * query.reprices, *["forecast_usd", "forecast_tokens"] * bool(query.forecast)]


def read_query(query: Mapping[str, str], today: date, tags: Collection[str] | None) -> UsageQuery:
    """Read a question.

    A day is written as YYYY-MM-DD, or as a number of days back that includes today: ``7d`` as ``since`` is a
    week that ends today, and ``1d`` is today. ``tag`` is ``team=search, feature=rag``.

    :param today: in UTC, as all days here.
    :param tags: the names of tags that there are; None: not known here, and any name may be one.
    :raises QueryError: a sentence that says what is wrong and what would be right.
    """
    names = [name for name, _ in query.items()]  # the keys alone would hide repeated ones
    for name in names:
        if name not in PARAMETERS:
            raise QueryError(name, f"unknown parameter {name!r}: there are {', '.join(PARAMETERS)}")
        if names.count(name) > 1:
            raise QueryError(name, f"{name} is given more than once: give it once")
    by = [name.strip() for name in query.get("by", "").split(",")]
    by = [] if by == [""] else by
    for dimension in by:
        if dimension not in DIMENSIONS and not _is_tag(dimension, tags):
            known = ", ".join((*DIMENSIONS, *(tags or ())))
            raise QueryError("by", f"by can't be {dimension!r}: choose from {known}{_no_tags(tags)}")
        if by.count(dimension) > 1:
            raise QueryError("by", f"by names {dimension} more than once: name it once")
    since, until = (_day(name, query.get(name, ""), today) for name in ("since", "until"))
    if since is not None and until is not None and since > until:
        raise QueryError("since", f"since {since} is after until {until}: exchange them")
    where = tuple((name, query[name]) for name in FILTERS if query.get(name))
    window, reprices = query.get("forecast", ""), query.get("reprice", "")
    if reprices not in ("", "true", "false"):
        raise QueryError("reprice", "reprice must be true or false")
    if window:
        if window not in FORECASTS:
            raise QueryError("forecast", f"forecast must be {' or '.join(FORECASTS)}")
        if since is not None or until is not None or "day" in by or reprices == "true":
            text = "forecast has a window of its own: leave out since, until, reprice, and day in by"
            raise QueryError("forecast", text)
        since = today.replace(day=1) if window == "month" else today
    said = _tags(query.get("tag", ""), tags)
    return UsageQuery(tuple(by), since, until, where, said, window, reprices == "true")


def _is_tag(name: str, tags: Collection[str] | None) -> bool:
    return bool(TAG_NAME.fullmatch(name)) if tags is None else name in tags


def _no_tags(tags: Collection[str] | None) -> str:
    return "" if tags is None or tags else "; [usage] tags lists no tags"


def _tags(text: str, tags: Collection[str] | None) -> tuple[tuple[str, str], ...]:
    if not text:
        return ()
    try:
        found = read_tags(text.encode())
    except TagsError as error:
        raise QueryError("tag", f"tag can't be read: {error}") from None
    for name in found:
        if not _is_tag(name, tags):
            known = f"there are {', '.join(tags)}" if tags else "[usage] tags lists none"
            raise QueryError("tag", f"tag can't be {name[:40]!r}: {known}")
    return tuple(found.items())


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
    database: sqlite3.Connection, query: UsageQuery, names: Mapping[str, str], most: int | None = None
) -> list[dict[str, Any]]:
    """Totals by the asked dimensions, ordered by them; with none asked, one row of everything.

    Requests without a key, tag, alias or group, or that got to no model, have None there.

    :param names: of keys, by their ids. A key without a name there is called by its id. Two keys of the same
        name are two rows; as a filter, a name means all of them.
    :param most: rows that there may be; None: any number.
    :raises QueryError: no key has the id or name that is asked for, or there are more. :raises sqlite3.Error:
    """
    by = query.by
    charged = ["charged_nusd"] * query.reprices
    sums = ", ".join(
        f"COALESCE(SUM({name}), 0)" for name in (*_COUNTS, "nusd", "saved_nusd", "estimated", *charged)
    )
    asked = [_expression(dimension) for dimension in by]
    conditions, values = _conditions(query, names)
    has_tags = bool(query.tags) or not set(by) <= set(DIMENSIONS)
    text = f"SELECT {', '.join([*asked, sums])} FROM usage"  # noqa: S608 - of names that stand above or match
    if has_tags:
        text += " LEFT JOIN tag_sets ON tag_sets.id = usage.tags"
    text += f" WHERE {' AND '.join(conditions)}"
    if by:
        text += f" GROUP BY {', '.join(str(number + 1) for number in range(len(by)))}"
    if most is not None:
        text += f" LIMIT {most + 1}"
    rows = [_row(by, found, names) for found in database.execute(text, values)]
    if most is not None and len(rows) > most:
        raise QueryError("by", f"by makes more than {most} rows: ask for fewer dimensions, or fewer days")
    order = columns(by)[: len(columns(by)) - len(columns(()))]
    rows.sort(key=lambda row: [(row[name] is not None, row[name]) for name in order])
    return rows


def _expression(dimension: str) -> str:
    if dimension in DIMENSIONS:
        return f"usage.{_column(dimension)}"
    assert TAG_NAME.fullmatch(dimension)
    return f"COALESCE(json_extract(tag_sets.tags, '$.\"{dimension}\"'), '')"


def _column(dimension: str) -> str:
    return "key_group" if dimension == "group" else dimension


def _conditions(query: UsageQuery, names: Mapping[str, str]) -> tuple[list[str], list[Any]]:
    conditions = ["usage.day BETWEEN ? AND ?"]
    values: list[Any] = [_number(query.since or date.min), _number(query.until or date.max)]
    for name, value in query.where:
        wanted = [value]
        if name == "key":
            wanted = [id for id, called in names.items() if value in (id, called)]
            if not wanted:
                raise QueryError(
                    "key", f"there is no key {value[:100]!r}: 'tokenhub keys list --all' has them"
                )
        conditions.append(f"usage.{_column(name)} IN ({', '.join('?' * len(wanted))})")
        values += wanted
    for name, value in query.tags:
        conditions.append(f"{_expression(name)} = ?")
        values.append(value)
    return conditions, values


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
    behind = len(by) + len(_COUNTS)
    row.update(zip(_COUNTS, values[len(by) : behind], strict=True))
    nusd, saved_nusd, estimated, *charged = values[behind:]
    # Of two integers: rounded once, however large they are.
    row |= {"usd": nusd / _NANO, "saved_usd": saved_nusd / _NANO, "estimated": estimated}
    if charged:
        row["charged_usd"] = charged[0] / _NANO
    return row


def add_forecast(rows: Iterable[dict[str, Any]], query: UsageQuery, unix_s: float) -> None:
    """Add to each row what it will be at the end of the window that is asked for.

    :param unix_s: now.
    """
    assert query.since is not None
    day = _number(query.since)
    days = days_of(month_of(day * DAY_S)[0])[1] - day if query.forecast == "month" else 1
    for row in rows:
        tokens = row["input_tokens"] + row["output_tokens"]
        for name, used in (("usd", round(row["usd"] * _NANO)), ("tokens", tokens)):
            found = at_end(used, unix_s - day * DAY_S, days * DAY_S)
            row[f"forecast_{name}"] = found / _NANO if found is not None and name == "usd" else found


def csv_lines(rows: Iterable[Mapping[str, Any]], query: UsageQuery) -> Iterator[str]:
    """Rows of :func:`usage_rows`, or of the admin API, as lines of a table for spreadsheets (RFC 4180).

    The first line is there even without rows. Text that a spreadsheet would take for a formula gets an
    apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    order = columns(query.by, further_columns(query))
    writer.writerow(order)
    for row in rows:
        yield text.getvalue()
        text.seek(0)
        text.truncate()
        writer.writerow([_cell(name, row[name]) for name in order])
    yield text.getvalue()


def to_csv(rows: Iterable[Mapping[str, Any]], query: UsageQuery) -> str:
    """All of :func:`csv_lines`."""
    return "".join(csv_lines(rows, query))


def _cell(name: str, value: object) -> object:
    if name.endswith("usd") and isinstance(value, float | int):
        return f"{value:.9f}"  # the nano-dollars that the float was made from
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
