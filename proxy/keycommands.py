"""``tokenhub keys`` and ``tokenhub usage``: their options, and what they print.

What programs read goes to standard output, alone; what only people want to know goes to standard error.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from proxy.commands import Actions, Command, Commands, add_json, load_if_needed
from proxy.tables import BAD, NOTHING, PLAIN, Column, Table
from proxy.terminal import print_json, say, show

if TYPE_CHECKING:
    from proxy.keysource import Row, Source

NONE = "none"  # as an option's value: no limit
# What a provider's bill shows, too.
USAGE_BY = "model"
_T = TypeVar("_T")


# ---------------------------------------------------------------------- options


def add_key_commands(commands: Commands) -> None:
    """Add ``keys`` and ``usage``."""
    _add_keys(commands)
    _add_usage(commands)


def _add_keys(commands: Commands) -> None:
    keys = commands.add_admin(
        "keys",
        _keys,
        "Make, list, change and revoke keys of the gateway.",
        "keys create --name prod --rpm 600 --monthly-usd 50 --models 'premium,openai/*'",
        "keys list",
    )
    actions = Actions(keys)
    create = actions.add(
        "create",
        "make one",
        "Make a key. It is printed alone, and can't be shown again: only its hash is kept.",
        "--name prod --rpm 600 --monthly-usd 50 --models 'premium,openai/*' --expires 90d",
    )
    create.add_argument("--name", required=True, type=_reader("name"), help="whose key it is")
    _add_settings(create)
    add_json(create)
    found = actions.add("list", "list them", "List the keys that are not revoked.", "--all")
    found.add_argument("--all", action="store_true", help="revoked ones, too")
    add_json(found)
    shown = actions.add("show", "show one", "Show a key's settings, and what it has used.", "prod")
    edit = actions.add(
        "edit",
        "change what is given of one",
        "Change what is given of a key; the rest stays. It holds for the next request.",
        "prod --rpm 1200 --monthly-usd none",
    )
    edit.add_argument("--name", type=_reader("name"), default=argparse.SUPPRESS, help="another name")
    _add_settings(edit)
    revoke = actions.add(
        "revoke", "end one for good", "Revoke a key: from the next request on it is of no use.", "prod"
    )
    for action in (shown, edit, revoke):
        action.add_argument("key", metavar="KEY", help="its id, or its name if no other key has it")
        add_json(action)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    def add(field: str, metavar: str, help: str) -> None:
        parser.add_argument(
            f"--{field.replace('_', '-')}",
            metavar=metavar,
            type=_reader(field),
            default=argparse.SUPPRESS,
            help=help,
        )

    parser.epilog = f'{parser.epilog}\n\nThe value "{NONE}" takes a limit away.'
    add("rpm", "N", "requests a minute")
    add("tpm", "N", "tokens a minute, of prompts and answers")
    add("concurrency", "N", "requests at the same time")
    add("monthly_usd", "X", "dollars a calendar month, UTC")
    add("monthly_tokens", "N", "tokens a calendar month, UTC")
    add("max_tokens", "N", "the most a request may ask for as its answer")
    add("models", "A,B", "ids, aliases and globs over ids, such as 'openai/*'; the rest is refused")
    add("expires", "DATE", "2027-01-31 (that day begins in UTC), 2027-01-31T18:00:00Z, or a span: 90d, 12h")
    add("on_disconnect", "HOW", "cancel or drain, where a client leaves before its answer is complete")


def _reader(field: str) -> Callable[[str], object]:
    """Reads an option's value as it is sent on.

    What it says of bad ones is what the gateway would say, before anything is asked of one.
    """

    def read(text: str) -> object:
        from proxy.keys import LIMITS, KeySettingsError, read_settings

        value: object = text
        if field != "name" and text == NONE:
            value = None
        elif field in LIMITS:
            value = _number(text)
        try:
            read_settings({field: value}, _now().timestamp())
        except KeySettingsError as error:
            said = str(error).removeprefix(f"'{field}' ").removesuffix(".").replace("null", NONE)
            raise argparse.ArgumentTypeError(said) from None
        return value

    return read


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _add_usage(commands: Commands) -> None:
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


# ---------------------------------------------------------------------- keys


def _use(args: argparse.Namespace, work: Callable[[Source], _T], **how: bool) -> _T:
    from proxy.keysource import use

    return use(work, say, url=args.admin, config=load_if_needed(args), environ=os.environ, **how)


def _now() -> datetime:
    return datetime.now(UTC)


def _keys(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    from proxy.keys import FIELDS

    return {field: getattr(args, field) for field in FIELDS if hasattr(args, field)}


def _create(args: argparse.Namespace) -> int:
    settings = _settings(args)
    row = _use(args, lambda keys: keys.create(settings), writes=True, makes=True)
    if args.json:
        print_json(row)
        return 0
    print(row["key"], flush=True)
    say(f"{_summary(row)}. The key is shown only this once")
    return 0


def _list(args: argparse.Namespace) -> int:
    rows = [row for row in _use(args, lambda keys: keys.all()) if args.all or row["revoked"] is None]
    if args.json:
        print_json({"data": rows})
        return 0
    show(Table(_KEYS, [*map(_cells, rows)]))
    if not rows:
        say("there is no key in use: make one with 'tokenhub keys create --name NAME'")
    return 0


def _end_tone(text: str) -> str:
    return BAD if text.startswith(("revoked", "expired")) else PLAIN


_KEYS = (
    Column("ID"),
    Column("NAME", least=12),
    Column("CREATED", rank=6),
    Column("EXPIRES", rank=3, tone=_end_tone),
    Column("LAST USED", rank=4),
    Column("MODELS", rank=5, least=12),
    Column("LIMITS", rank=2, least=18),
    Column("THIS MONTH", rank=1),
)


def _cells(row: Row) -> Sequence[str]:
    return (
        row["id"],
        row["name"],
        _date(row["created"])[:10],
        _end(row),
        _date(row["last_used"]),
        _models(row),
        _limits(row),
        _month(row),
    )


def _end(row: Row) -> str:
    if row["revoked"] is not None:
        return f"revoked {_date(row['revoked'])}"
    expires: float | None = row["expires"]
    if expires is None:
        return "never"
    return f"{'expired ' if expires <= _now().timestamp() else ''}{_date(expires)}"


def _date(unix_s: float | None) -> str:
    return NOTHING if unix_s is None else f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}"


def _models(row: Row) -> str:
    return "all" if row["models"] is None else ",".join(row["models"])


def _limits(row: Row) -> str:
    """As they are given, so that they can be given again."""
    from proxy.keys import LIMITS

    limits = [
        f"{name.replace('_', '-')} {_plain(row['limits'][name])}"
        for name in LIMITS
        if row["limits"].get(name) is not None
    ]
    return ", ".join(limits) or "none"


def _plain(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def _month(row: Row) -> str:
    usd = row["month"]["usd"]
    return f"{row['month']['tokens']:,} tokens, ${usd:,.{_decimals([usd])}f}"


def _summary(row: Row) -> str:
    text = f"{row['id']} ({row['name']}), limits: {_limits(row)}, models: {_models(row)}"
    return text if row["expires"] is None else f"{text}, expires {_date(row['expires'])} UTC"


def _show(args: argparse.Namespace) -> int:
    row = _use(args, lambda keys: keys.show(args.key))
    if args.json:
        print_json(row)
        return 0
    facts = (
        ("id", row["id"]),
        ("name", row["name"]),
        ("created", _date(row["created"])),
        ("expires", _end(row)),
        ("last used", _date(row["last_used"])),
        ("models", _models(row)),
        ("limits", _limits(row)),
        ("if a client leaves", row["on_disconnect"] or "as the alias says"),
        ("this month", _month(row)),
    )
    show(Table((Column(""), Column("", least=20)), facts))
    return 0


def _edit(args: argparse.Namespace) -> int:
    settings = _settings(args)
    if not settings:
        args.parser.error("there is nothing to change: give at least one option, such as --rpm 600")
    row = _use(args, lambda keys: keys.edit(args.key, settings), writes=True)
    if args.json:
        print_json(row)
        return 0
    print(_summary(row))
    return 0


def _revoke(args: argparse.Namespace) -> int:
    row = _use(args, lambda keys: keys.revoke(args.key), writes=True)
    if args.json:
        print_json(row)
        return 0
    print(f"{row['id']} ({row['name']}) is revoked")
    return 0


_ACTIONS: dict[str, Command] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "edit": _edit,
    "revoke": _revoke,
}


# ---------------------------------------------------------------------- usage


def _usage(args: argparse.Namespace) -> int:
    from proxy.totals import read_query

    query = {name: getattr(args, name) for name in ("by", "since", "until") if getattr(args, name)}
    try:
        by, _, _ = read_query(query, _now().date())
    except ValueError as error:
        args.parser.error(f"--{error}")  # its texts begin with the name
    if args.csv:
        print(_use(args, lambda totals: totals.usage_csv(query)), end="")
        return 0
    rows = _use(args, lambda totals: totals.usage(query))
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


def _usage_table(rows: Sequence[Row], by: Sequence[str]) -> Table:
    """With a line for the total, where there is more to it than that."""
    decimals = _decimals([row["usd"] for row in rows])
    ids: Counter[str] = Counter()
    if "key" in by:
        ids.update({row["key_id"]: row["key"] for row in rows if row["key"]}.values())
    lines = [(*(_called(row, name, ids) for name in by), *_figures([row], decimals)) for row in rows]
    if by:
        lines.append(("total", *("" for _ in by[1:]), *_figures(rows, decimals)))
    return Table((*(Column(name.upper()) for name in by), *_FIGURES), lines)


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


def _decimals(amounts: Sequence[float]) -> int:
    """Enough to tell each amount from nothing, and small ones to some digits; nano-dollars at most."""
    small = min((usd for usd in amounts if usd), default=1.0)
    return 9 if small < 0.0001 else 6 if small < 1 else 4
