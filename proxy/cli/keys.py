"""``tokenhub keys``: its options, and what it prints.

What programs read goes to standard output, alone; what only people want to know goes to standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from proxy.cli.figures import usd_decimals
from proxy.cli.key_use import use
from proxy.cli.parser import Actions, Command, Commands, add_json, load_if_needed
from proxy.cli.tables import BAD, NOTHING, PLAIN, Column, TextTable
from proxy.cli.terminal import print_json, say, show

if TYPE_CHECKING:
    from proxy.cli.key_source import Row, Source

NONE = "none"  # as an option's value: no limit


# ---------------------------------------------------------------------- options


def add_key_commands(commands: Commands) -> None:
    """Add ``keys``."""
    keys = commands.add_admin(
        "keys",
        _keys,
        "Make, list, change and revoke keys of the gateway.",
        "keys create --name prod --rpm 600 --monthly-usd 50 --models 'premium,openai/*'",
        "keys list",
        "keys rotate prod --overlap 24h",
    )
    actions = Actions(keys)
    create = actions.add(
        "create",
        "make one",
        "Make a key. It is printed alone, and can't be shown again: only its hash is kept.",
        "--name prod --rpm 600 --monthly-usd 50 --models 'premium,openai/*' --expires 90d",
    )
    create.add_argument("--name", required=True, type=reader("name"), help="whose key it is")
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
    edit.add_argument("--name", type=reader("name"), default=argparse.SUPPRESS, help="another name")
    _add_settings(edit)
    rotate = actions.add(
        "rotate",
        "replace the secret of one",
        "Give a key another secret: the same key, with its limits and what it has used. The new secret is "
        "printed alone, and can't be shown again. The former one works on for the overlap; one before that "
        "ends now.",
        "prod",
        "prod --overlap 7d",
        "prod --overlap 0",
    )
    rotate.add_argument(
        "--overlap",
        metavar="SPAN",
        type=_overlap,
        default=None,
        help="how long the former secret works on: 30m, 24h, 7d, up to 30d; 0: not at all; default: 24h",
    )
    revoke = actions.add(
        "revoke", "end one for good", "Revoke a key: from the next request on it is of no use.", "prod"
    )
    for action in (shown, edit, rotate, revoke):
        action.add_argument("key", metavar="KEY", help="its id, or its name if no other key has it")
        add_json(action)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add_limits(parser)
    _add(parser, "group", "NAME", "the group whose limits hold for it too ('tokenhub groups')")
    parser.add_argument(
        "--no-group", dest="group", action="store_const", const=None, default=argparse.SUPPRESS,
        help="in no group; the same as --group none",
    )  # fmt: skip
    _add(parser, "models", "A,B", "ids, aliases and globs over ids, such as 'openai/*'; the rest is refused")
    when = "2027-01-31 (that day begins in UTC), 2027-01-31T18:00:00Z, or a span: 90d, 12h"
    _add(parser, "expires", "DATE", when)
    _add(
        parser, "on_disconnect", "HOW", "cancel or drain, where a client leaves before its answer is complete"
    )
    _add(
        parser, "tags", "T=V,…",
        "team=search,feature=rag: what its usage is told apart by, before what clients say",
    )  # fmt: skip


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add the limits that keys and groups have."""
    parser.epilog = f'{parser.epilog}\n\nThe value "{NONE}" takes a limit away.'
    _add(parser, "rpm", "N", "requests a minute")
    _add(parser, "tpm", "N", "tokens a minute, of prompts and answers")
    _add(parser, "concurrency", "N", "requests at the same time")
    _add(parser, "daily_usd", "X", "dollars a day, UTC")
    _add(parser, "daily_tokens", "N", "tokens a day, UTC")
    _add(parser, "monthly_usd", "X", "dollars a calendar month, UTC")
    _add(parser, "monthly_tokens", "N", "tokens a calendar month, UTC")
    _add(parser, "max_tokens", "N", "the most a request may ask for as its answer")
    parser.add_argument(
        "--soft", action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS,
        help="the limits of a day and a month raise alerts, and refuse no request",
    )  # fmt: skip


def _add(parser: argparse.ArgumentParser, field: str, metavar: str, help: str) -> None:
    option = f"--{field.replace('_', '-')}"
    parser.add_argument(option, metavar=metavar, type=reader(field), default=argparse.SUPPRESS, help=help)


def reader(field: str) -> Callable[[str], object]:
    """Reads an option's value as it is sent on.

    What it says of bad ones is what the gateway would say, before anything is asked of one.
    """

    def read(text: str) -> object:
        from proxy.access.key import LIMITS, KeySettingsError, read_settings

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


def _overlap(text: str) -> str:
    from proxy.access.key import KeySettingsError, read_rotation

    try:
        read_rotation({"overlap": text})
    except KeySettingsError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("'overlap' ").removesuffix(".")) from None
    return text


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


# ---------------------------------------------------------------------- keys


def _now() -> datetime:
    return datetime.now(UTC)


def _keys(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    from proxy.access.key import FIELDS

    return settings_in(args, FIELDS)


def settings_in(args: argparse.Namespace, fields: Sequence[str]) -> dict[str, Any]:
    """The settings that were given as options."""
    return {field: getattr(args, field) for field in fields if hasattr(args, field)}


def _create(args: argparse.Namespace) -> int:
    settings = _given(args)
    row = use(args, lambda keys: keys.create(settings), writes=True, makes=True)
    if args.json:
        print_json(row)
        return 0
    print(row["key"], flush=True)
    say(f"{_summary(row)}. The key is shown only this once")
    if row.get("closes_gateway"):  # a gateway of an earlier version doesn't say
        say(
            "This is the first key, and [auth] required is not written: requests were served without a key "
            "until now, and need one from now on"
        )
    return 0


def _list(args: argparse.Namespace) -> int:
    rows = [row for row in use(args, lambda keys: keys.all()) if args.all or row["revoked"] is None]
    if args.json:
        print_json({"data": rows})
        return 0
    show(TextTable(_KEYS, [*map(_cells, rows)]))
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
    Column("MODELS", rank=7, least=12),
    Column("GROUP", rank=5),
    Column("LIMITS", rank=2, least=18),
    Column("TODAY", rank=8),
    Column("THIS MONTH", rank=1),
)


def _cells(row: Row) -> Sequence[str]:
    return (
        row["id"],
        row["name"],
        date_of(row["created"])[:10],
        _end(row),
        date_of(row["last_used"]),
        _models(row),
        row.get("group") or NOTHING,
        limits_in(row),
        used_in(row, "day"),
        used_in(row, "month"),
    )


def _end(row: Row) -> str:
    if row["revoked"] is not None:
        return f"revoked {date_of(row['revoked'])}"
    expires: float | None = row["expires"]
    if expires is None:
        return "never"
    return f"{'expired ' if expires <= _now().timestamp() else ''}{date_of(expires)}"


def _secret(row: Row) -> str:
    """Since when the present one is there, and what of the one before it."""
    if row["rotated"] is None:
        return "the first one"
    until = row["old_secret_until"]
    former = f", the former one until {date_of(until)}" if until > _now().timestamp() else ""
    return f"since {date_of(row['rotated'])}{former}"


def date_of(unix_s: float | None) -> str:
    """A moment in UTC, to the minute."""
    return NOTHING if unix_s is None else f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M}"


def _models(row: Row) -> str:
    return "all" if row["models"] is None else ",".join(row["models"])


def limits_in(row: Row) -> str:
    """The limits of a key or a group as they are given, so that they can be given again."""
    from proxy.access.key import LIMITS

    limits = [
        f"{name.replace('_', '-')} {_plain(row['limits'][name])}"
        for name in LIMITS
        if row["limits"].get(name) is not None
    ]
    return ", ".join([*limits, *(["soft"] if row.get("soft") else [])]) or "none"


def _plain(value: float) -> str:
    return f"{value:.9f}".rstrip("0").rstrip(".")


def used_in(row: Row, window: str) -> str:
    """What a key or a group has used in this ``month`` or on this ``day``."""
    used = row.get(window)  # a gateway of an earlier version has no days
    if used is None:
        return NOTHING
    return f"{used['tokens']:,} tokens, ${used['usd']:,.{usd_decimals([used['usd']])}f}"


def _summary(row: Row) -> str:
    text = f"{row['id']} ({row['name']}), limits: {limits_in(row)}, models: {_models(row)}"
    text = f"{text}, group: {row['group']}" if row.get("group") else text
    return text if row["expires"] is None else f"{text}, expires {date_of(row['expires'])} UTC"


def _show(args: argparse.Namespace) -> int:
    row = use(args, lambda keys: keys.show(args.key))
    if args.json:
        print_json(row)
        return 0
    facts = (
        ("id", row["id"]),
        ("name", row["name"]),
        ("created", date_of(row["created"])),
        ("expires", _end(row)),
        ("secret", _secret(row)),
        ("last used", date_of(row["last_used"])),
        ("models", _models(row)),
        ("group", row.get("group") or "none"),
        ("limits", limits_in(row)),
        ("if a client leaves", row["on_disconnect"] or "as the alias says"),
        ("tags", ", ".join(f"{name}={value}" for name, value in row.get("tags", {}).items()) or "none"),
        ("today", used_in(row, "day")),
        ("this month", used_in(row, "month")),
    )
    show(TextTable((Column(""), Column("", least=20)), facts))
    return 0


def _edit(args: argparse.Namespace) -> int:
    settings = _given(args)
    if not settings:
        args.parser.error("there is nothing to change: give at least one option, such as --rpm 600")
    row = use(args, lambda keys: keys.edit(args.key, settings), writes=True)
    if args.json:
        print_json(row)
        return 0
    print(_summary(row))
    return 0


def _rotate(args: argparse.Namespace) -> int:
    given = {} if args.overlap is None else {"overlap": args.overlap}
    row = use(args, lambda keys: keys.rotate(args.key, given), writes=True)
    if args.json:
        print_json(row)
        return 0
    print(row["key"], flush=True)
    until, now = row["old_secret_until"], _now().timestamp()
    former = f"works until {date_of(until)} UTC" if until > now else "is of no use any more"
    say(f"{row['id']} ({row['name']}) has this secret now, shown only this once; the former one {former}")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    row, is_last = use(args, lambda keys: (keys.revoke(args.key), not _in_use(keys)), writes=True)
    if args.json:
        print_json(row)
        return 0
    print(f"{row['id']} ({row['name']}) is revoked", flush=True)
    if is_last:
        config = load_if_needed(args)
        say(_without_keys(None if config is None else config.auth.required, args.admin is not None))
    return 0


def _in_use(keys: Source) -> bool:
    now = _now().timestamp()
    return any(
        row["revoked"] is None and (row["expires"] is None or row["expires"] > now) for row in keys.all()
    )


def _without_keys(required: bool | None, is_elsewhere: bool) -> str:
    """What a gateway does without a key in use: the first key that was ever made closed it.

    :param required: as ``[auth] required`` of the file at hand says. :param is_elsewhere: the gateway was
        named by its address, so that file may not be its own.
    """
    if required is False and not is_elsewhere:
        return "No key is in use now, and [auth] required is false: requests without a key are still served"
    unless = " unless [auth] required is false in its file" if is_elsewhere else ""
    return (
        f"No key is in use now, so the gateway refuses every request{unless}: make a key with 'tokenhub keys "
        "create --name NAME', or set [auth] required = false to serve requests without a key"
    )


_ACTIONS: dict[str, Command] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "edit": _edit,
    "rotate": _rotate,
    "revoke": _revoke,
}
