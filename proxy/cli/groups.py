"""``tokenhub groups``: its options, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from proxy.cli.key_use import use
from proxy.cli.keys import add_limits, date_of, limits_in, settings_in, used_in
from proxy.cli.parser import Actions, Command, Commands, add_json
from proxy.cli.tables import Column, TextTable
from proxy.cli.terminal import print_json, say, show

if TYPE_CHECKING:
    from proxy.cli.key_source import Row, Source


def add_group_commands(commands: Commands) -> None:
    """Add ``groups``."""
    groups = commands.add_admin(
        "groups",
        _groups,
        "Make, list, change and delete groups: limits that several keys share.",
        "groups create search --monthly-usd 500 --rpm 3000",
        "groups show search",
    )
    actions = Actions(groups)
    create = actions.add(
        "create",
        "make one",
        "Make a group. A request is bound by the limits of its key and by those of its key's group.",
        "search --monthly-usd 500 --rpm 3000",
    )
    found = actions.add("list", "list them", "List the groups.", "")
    shown = actions.add("show", "show one", "Show a group's limits, and what its keys have used.", "search")
    edit = actions.add(
        "edit",
        "change what is given of one",
        "Change what is given of a group; the rest stays. It holds for the next request.",
        "search --rpm 6000 --daily-usd 50 --monthly-usd none",
    )
    delete = actions.add(
        "delete", "delete one that has no keys", "Delete a group that has no keys.", "search"
    )
    for action in (create, edit):
        add_limits(action)
    for action in (create, shown, edit, delete):
        action.add_argument("group", metavar="NAME", help="letters, digits, '.', '_' and '-'")
    for action in (create, found, shown, edit, delete):
        add_json(action)


def _groups(args: argparse.Namespace) -> int:
    return _ACTIONS[args.action](args)


def _create(args: argparse.Namespace) -> int:
    return _write(args, lambda keys: keys.create_group({"name": args.group, **_given(args)}), makes=True)


def _edit(args: argparse.Namespace) -> int:
    settings = _given(args)
    if not settings:
        args.parser.error("there is nothing to change: give at least one option, such as --rpm 600")
    return _write(args, lambda keys: keys.edit_group(args.group, settings))


def _delete(args: argparse.Namespace) -> int:
    return _write(args, lambda keys: keys.delete_group(args.group), "is deleted")


def _write(
    args: argparse.Namespace, work: Callable[[Source], Row], done: str = "", *, makes: bool = False
) -> int:
    """:param done: what became of the group; empty: its limits are what there is to say."""
    row = use(args, work, writes=True, makes=makes)
    if args.json:
        print_json(row)
    else:
        print(f"group {row['name']} {done}" if done else f"group {row['name']}, limits: {limits_in(row)}")
    return 0


def _given(args: argparse.Namespace) -> dict[str, object]:
    from proxy.access.group import FIELDS

    return settings_in(args, FIELDS)


def _list(args: argparse.Namespace) -> int:
    rows = use(args, lambda keys: keys.groups())
    if args.json:
        print_json({"data": rows})
        return 0
    cells = [
        (row["name"], f"{row['keys']}", limits_in(row), used_in(row, "day"), used_in(row, "month"))
        for row in rows
    ]
    show(TextTable(_COLUMNS, cells))
    if not rows:
        say("there is no group: make one with 'tokenhub groups create NAME'")
    return 0


_COLUMNS = (
    Column("NAME", least=12),
    Column("KEYS", is_number=True),
    Column("LIMITS", rank=2, least=18),
    Column("TODAY", rank=3),
    Column("THIS MONTH", rank=1),
)


def _show(args: argparse.Namespace) -> int:
    row = use(args, lambda keys: keys.show_group(args.group))
    if args.json:
        print_json(row)
        return 0
    facts = (
        ("name", row["name"]),
        ("created", date_of(row["created"])),
        ("last used", date_of(row["last_used"])),
        ("keys", f"{row['keys']}"),
        ("limits", limits_in(row)),
        ("today", used_in(row, "day")),
        ("this month", used_in(row, "month")),
    )
    show(TextTable((Column(""), Column("", least=20)), facts))
    return 0


_ACTIONS: dict[str, Command] = {
    "create": _create,
    "list": _list,
    "show": _show,
    "edit": _edit,
    "delete": _delete,
}
