"""``tokenhub usage``: its options, and what it prints.

What programs read goes to standard output, alone; what only people want to know goes to standard error.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from proxy.cli.figures import usd_decimals
from proxy.cli.key_use import use
from proxy.cli.parser import Commands, add_json, load_if_needed
from proxy.cli.tables import NOTHING, Column, TextTable
from proxy.cli.terminal import print_json, say, show

if TYPE_CHECKING:
    from proxy.cli.key_source import Row

# What a provider's bill shows, too.
USAGE_BY = "model"


def add_usage_command(commands: Commands) -> None:
    """Add ``usage``."""
    usage = commands.add_admin(
        "usage",
        _usage,
        "Show what was used: requests, tokens and their price.",
        "usage --by key,day --since 7d",
        "usage --by key,endpoint --alias premium --forecast month",
        "usage --by model --csv",
    )
    usage.add_argument(
        "--by",
        metavar="A,B",
        default=USAGE_BY,
        help="key, group, alias, endpoint, provider, model, day, the name of a tag, or several of them; "
        f'default: {USAGE_BY}; "": the total only',
    )
    day = "2027-01-31, or 7d for the first of the last seven days; UTC"
    usage.add_argument(
        "--since", metavar="D", default="", help=f"the first day: {day}; default: all there is"
    )
    usage.add_argument("--until", metavar="D", default="", help="the last day; default: today")
    for name, metavar, what in _FILTERS:
        usage.add_argument(f"--{name}", metavar=metavar, default="", help=f"only requests {what}")
    usage.add_argument(
        "--tag", metavar="T=V", action="append", help="only requests with this tag; may be repeated"
    )
    kind = usage.add_mutually_exclusive_group()
    kind.add_argument("--saved", action="store_true", help="what cached tokens saved")
    kind.add_argument(
        "--forecast",
        metavar="WINDOW",
        choices=("month", "day"),
        default="",
        help="month or day: what was used in it, and what will be at its end if it goes on so",
    )
    kind.add_argument(
        "--reprice",
        action="store_true",
        help="count at the prices of now what the ledger still has lines of; limits stay as they are",
    )
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="for spreadsheets")
    add_json(form)


_FILTERS = (
    ("key", "KEY", "with the key of this name or id"),
    ("group", "G", "with keys of this group"),
    ("alias", "A", "that named this alias"),
    ("endpoint", "E", "to this endpoint, such as chat"),
    ("provider", "P", "that went to this provider"),
    ("model", "ID", "that went to this model"),
)


def _query_of(args: argparse.Namespace) -> dict[str, str]:
    names = ("by", "since", "until", *(name for name, _, _ in _FILTERS), "forecast")
    query = {name: getattr(args, name) for name in names if getattr(args, name)}
    if args.tag:
        query["tag"] = ",".join(args.tag)
    if args.reprice:
        query["reprice"] = "true"
    return query


def _usage(args: argparse.Namespace) -> int:
    from proxy.storage.usage_totals import read_query

    query = _query_of(args)
    config = None if args.admin else load_if_needed(args)
    tags = None if config is None else dict(config.usage.tags)  # those of a gateway elsewhere it knows itself
    try:
        asked = read_query(query, datetime.now(UTC).date(), tags)
    except ValueError as error:
        args.parser.error(f"--{error}")  # its texts begin with the name
    if args.csv:
        print(use(args, lambda totals: totals.usage_csv(query)), end="")
        return 0
    rows = use(args, lambda totals: totals.usage(query))
    if args.json:
        print_json({"data": rows})
        return 0
    show(_usage_table(rows, asked.by, _figures_of(args)))
    if asked.by and not rows:
        say("nothing was used in that time")
    if args.reprice:
        say("counted from the lines that the ledger still has, at the prices of now; limits stay as they are")
    return 0


def _figures_of(args: argparse.Namespace) -> tuple[Figure, ...]:
    if args.saved:
        return _SAVED
    if args.forecast:
        return _FORECAST
    return (*_USUAL[:-1], _CHARGED, _USD) if args.reprice else _USUAL


class Figure(NamedTuple):
    """A column of figures. ``rank``: the higher, the sooner it goes where there is no room."""

    title: str
    name: str  # of a row
    rank: int = 0

    @property
    def is_money(self) -> bool:
        """It is in USD, else a count."""
        return self.name.endswith("usd")


_USD = Figure("USD", "usd")
_CHARGED = Figure("CHARGED", "charged_usd")
_USUAL = (
    Figure("REQUESTS", "requests", 1),
    Figure("ERRORS", "errors", 3),
    Figure("INPUT", "input_tokens", 2),
    Figure("CACHED", "cached_tokens", 4),
    Figure("CACHE WRITE", "cache_write_tokens", 7),
    Figure("OUTPUT", "output_tokens", 2),
    Figure("REASONING", "reasoning_tokens", 5),
    Figure("ESTIMATED", "estimated", 6),
    _USD,
)
_SAVED = (
    Figure("REQUESTS", "requests", 2),
    Figure("INPUT", "input_tokens", 1),
    Figure("CACHED", "cached_tokens", 1),
    _USD,
    Figure("SAVED", "saved_usd"),
)
_FORECAST = (
    Figure("REQUESTS", "requests", 2),
    Figure("USD", "usd"),
    Figure("USD AT END", "forecast_usd"),
    Figure("TOKENS AT END", "forecast_tokens", 1),
)


def _usage_table(rows: Sequence[Row], by: Sequence[str], figures: Sequence[Figure]) -> TextTable:
    """With a line for the total, where there is more to it than that."""
    money = [figure.name for figure in figures if figure.is_money]
    decimals = usd_decimals([row.get(name) or 0.0 for row in rows for name in money])
    ids: Counter[str] = Counter()
    if "key" in by:
        ids.update({row["key_id"]: row["key"] for row in rows if row["key"]}.values())
    lines = [(*(_called(row, name, ids) for name in by), *_cells([row], figures, decimals)) for row in rows]
    if by:
        lines.append(("total", *("" for _ in by[1:]), *_cells(rows, figures, decimals)))
    numbers = [Column(figure.title, is_number=True, rank=figure.rank) for figure in figures]
    return TextTable((*(Column(name.upper()) for name in by), *numbers), lines)


def _called(row: Row, dimension: str, names: Mapping[str, int]) -> str:
    name: str | None = row[dimension]
    if name is None:
        return NOTHING
    return f"{name} ({row['key_id']})" if dimension == "key" and names[name] > 1 else name


def _cells(rows: Sequence[Row], figures: Sequence[Figure], decimals: int) -> list[str]:
    found = []
    for figure in figures:
        values = [row.get(figure.name) for row in rows]
        if any(value is None for value in values):  # too little is known
            found.append(NOTHING)
        elif figure.is_money:
            # In whole nano-dollars, which each was made from: as floats they would add up to something else.
            usd = sum(round(value * 1e9) for value in values if value is not None) / 1e9
            found.append(f"{usd:,.{decimals}f}")
        else:
            found.append(f"{sum(value for value in values if value is not None):,}")
    return found
