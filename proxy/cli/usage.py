"""``tokenhub usage``: its options, and what it prints.

What programs read goes to standard output, alone; what only people want to know goes to standard error.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from proxy.cli.figures import usd_decimals
from proxy.cli.key_use import use
from proxy.cli.parser import Commands, add_json
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
        "usage --by model --csv",
    )
    usage.add_argument(
        "--by",
        metavar="A,B",
        default=USAGE_BY,
        help=f'key, model, provider, day, or several of them; default: {USAGE_BY}; "": the total only',
    )
    day = "2027-01-31, or 7d for the first of the last seven days; UTC"
    usage.add_argument(
        "--since", metavar="D", default="", help=f"the first day: {day}; default: all there is"
    )
    usage.add_argument("--until", metavar="D", default="", help="the last day; default: today")
    form = usage.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="for spreadsheets")
    add_json(form)


def _usage(args: argparse.Namespace) -> int:
    from proxy.storage.usage_totals import read_query

    query = {name: getattr(args, name) for name in ("by", "since", "until") if getattr(args, name)}
    try:
        by, _, _ = read_query(query, datetime.now(UTC).date())
    except ValueError as error:
        args.parser.error(f"--{error}")  # its texts begin with the name
    if args.csv:
        print(use(args, lambda totals: totals.usage_csv(query)), end="")
        return 0
    rows = use(args, lambda totals: totals.usage(query))
    if args.json:
        print_json({"data": rows})
        return 0
    show(_usage_table(rows, by))
    if by and not rows:
        say("nothing was used in that time")
    return 0


_COUNTS = (
    *("requests", "errors", "input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens"),
    *("reasoning_tokens", "estimated"),
)
_FIGURES = (
    Column("REQUESTS", is_number=True, rank=1),
    Column("ERRORS", is_number=True, rank=3),
    Column("INPUT", is_number=True, rank=2),
    Column("CACHED", is_number=True, rank=4),
    Column("CACHE WRITE", is_number=True, rank=7),
    Column("OUTPUT", is_number=True, rank=2),
    Column("REASONING", is_number=True, rank=5),
    Column("ESTIMATED", is_number=True, rank=6),
    Column("USD", is_number=True),
)


def _usage_table(rows: Sequence[Row], by: Sequence[str]) -> TextTable:
    """With a line for the total, where there is more to it than that."""
    decimals = usd_decimals([row["usd"] for row in rows])
    ids: Counter[str] = Counter()
    if "key" in by:
        ids.update({row["key_id"]: row["key"] for row in rows if row["key"]}.values())
    lines = [(*(_called(row, name, ids) for name in by), *_figures([row], decimals)) for row in rows]
    if by:
        lines.append(("total", *("" for _ in by[1:]), *_figures(rows, decimals)))
    return TextTable((*(Column(name.upper()) for name in by), *_FIGURES), lines)


def _called(row: Row, dimension: str, names: Mapping[str, int]) -> str:
    name: str | None = row[dimension]
    if name is None:
        return NOTHING
    return f"{name} ({row['key_id']})" if dimension == "key" and names[name] > 1 else name


def _figures(rows: Sequence[Row], decimals: int) -> list[str]:
    counts = [f"{sum(row[name] for row in rows):,}" for name in _COUNTS]
    # In whole nano-dollars, which each was made from: as floats they would add up to something beside it.
    usd = sum(round(row["usd"] * 1e9) for row in rows) / 1e9
    return [*counts, f"{usd:,.{decimals}f}"]
