"""Writes the pages that are made from the code: routes.md (the settings) and commands.md (the command line).

    python docs/generate.py            # write them
    python docs/generate.py --check    # exit 1 if one is not up to date

Names, values and defaults of settings come from the parser itself: it reads a file while its tables are
watched. The descriptions are in settings.toml beside this program; a missing or superfluous one is an error.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from proxy.cli.main import _parser
from proxy.config import changes, header_values, service_tables, usage_table, values
from proxy.config import parse as config
from proxy.config import tables as validate
from proxy.config.settings import Listen

DOCS = Path(__file__).parent
DESCRIPTIONS = DOCS / "settings.toml"
ABOUT = "*"  # in settings.toml: about the section as a whole
NOTE = "<!-- Made by docs/generate.py: edit {source}, then run it. -->\n"

# One of everything, so that the parser asks for every setting there is.
SAMPLE = """
[providers.NAME]
base_url = "https://api.example.com/v1"
[models."NAME/MODEL"]
[aliases.NAME]
models = ["NAME/MODEL"]
"""

# The values that each reader takes, in words.
WORDS: dict[Callable[..., object], str] = {
    values.flag: "`true` or `false`",
    values.text: "text",
    values.filled: "text, not empty",
    values.seconds: "duration, up to `24h`",
    values.positive_seconds: "duration above 0, up to `24h`",
    values.size: "size, up to `64GiB`",
    values.positive_size: "size above 0, up to `64GiB`",
    values.octal_mode: "permissions, octal",
    values.price: "USD per million tokens",
    values.base_url: "`http://` or `https://` address",
    values.env_name: "name of an environment variable",
    values.origin: "`*` or an origin (`https://host`)",
    values.hedge: '`"auto"`, `"off"`, `"p95"` or a duration',
    values.fail_on: 'status from 300 to 599, class such as `"5xx"`, or an error\'s code',
    values.first_token: '`"p99"` or a duration, up to `24h`',
    usage_table.tag_name: "name of a tag",
    usage_table._no_tag: "name in `tags`",
    header_values.sticky: '`"key"` or `"header:NAME"`',
    header_values.header_value: "text",
    header_values.passed_header: '`"name"` or `"prefix-*"`',
    header_values.dropped_header: '`"name"`, `"prefix-*"` or `"*"`',
    header_values.passed_parameter: "name of a parameter",
    service_tables._listen: '`"host:port"` or `"unix:/path"`',
    service_tables._listen_or_off: '`"host:port"`, `"unix:/path"`, or `""` for off',
}


class Setting(NamedTuple):
    """A setting of the parser; ``section`` and ``name`` as in docs/settings.toml."""

    section: str
    name: str
    takes: str
    default: str
    needs_restart: bool
    has_effect: bool


# ---------------------------------------------------------------------- the parser's settings


def settings() -> list[Setting]:
    """All settings, in the parser's order."""
    found: list[Setting] = []
    table, take, take_list, take_pairs = (
        validate.Table,
        validate.Table.take,
        validate.Table.take_list,
        validate.Table.take_pairs,
    )

    def note(self: Any, key: str, takes: str, default: str) -> None:
        section = ".".join(part for part in self.path if part not in ("NAME", "NAME/MODEL"))
        found.append(
            Setting(section, key, takes, default, _needs_restart(section, key), _has_effect(section, key))
        )

    def watched_take(self: Any, key: str, default: Any, read: Any, **how: Any) -> Any:
        if read not in (validate._list_or_text, validate._table):  # a step of the two below
            note(self, key, words(read), written(default, read))
        return take(self, key, default, read, **how)

    def watched_list(self: Any, key: str, default: Any, read: Any, **how: Any) -> Any:
        listed = f"[{', '.join(written(one, read).strip('`') for one in default)}]"
        note(self, key, f"list: {words(read)}", f"`{listed}`")
        return take_list(self, key, default, read, **how)

    def watched_pairs(self: Any, key: str, read_name: Any, read: Any) -> Any:
        names = words(read_name) if read_name.__qualname__.startswith("choice.") else "name"
        note(self, key, f"table: {names} = {words(read)}", "`{}`")
        return take_pairs(self, key, read_name, read)

    with (
        patch.object(table, "take", watched_take),
        patch.object(table, "take_list", watched_list),
        patch.object(table, "take_pairs", watched_pairs),
    ):
        config.parse(SAMPLE)
    return found


def words(read: Callable[..., object]) -> str:
    """The values that a reader takes. :raises LookupError: it is new; add it to :data:`WORDS`."""
    if read in WORDS:
        return WORDS[read]
    kind = read.__qualname__.partition(".")[0]
    of = inspect.getclosurevars(read).nonlocals
    if kind == "whole":
        return f"whole number, {of['least']:,} to {of['most']:,}"
    if kind == "number":
        return f"number, {'above ' if of['above'] else ''}{of['least']:g} to {of['most']:g}"
    if kind == "choice":
        return "one of " + ", ".join(f'`"{name}"`' for name in of["names"])
    if kind == "url":
        return "address: " + " or ".join(f"`{scheme}://…`" for scheme in of["schemes"])
    inner = [value for value in of.values() if callable(value)]
    if len(inner) == 1:  # it wraps another reader
        return words(inner[0]) + ("; or a table of them by endpoint" if kind == "auth" else "")
    raise LookupError(f"docs/generate.py has no words for {read.__qualname__}: add it to WORDS")


def written(value: object, read: Callable[..., object]) -> str:
    """A default, as it is written in the file."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        value = value["default"]
    if isinstance(value, Listen):
        text = f'"unix:{value.path}"' if value.path else f'"{value.host}:{value.port}"'
    elif read is values.octal_mode:
        text = f'"{value:04o}"'
    elif read in (values.seconds, values.positive_seconds, values.first_token):
        text = f'"{value:g}s"'
    elif read in (values.size, values.positive_size):
        text = f'"{_size(int(str(value)))}"'
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = f'"{value}"'
    else:
        text = f"{value:_}" if isinstance(value, int) else f"{value}"
    return f"`{text}`"


def _size(value: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if value >= factor and value % factor == 0:
            return f"{value // factor}{unit}"
    return f"{value / 2**10:g}KiB"


def _needs_restart(section: str, key: str) -> bool:
    fixed = changes._FIXED.get(section, ())
    return not {key, f"{key}_s", f"{key}_bytes"}.isdisjoint(fixed)


def _has_effect(section: str, key: str) -> bool:
    setting = (*section.split("."), key)
    return not any(config._covers(pattern, setting) for pattern in config.NO_EFFECT_YET)


# ---------------------------------------------------------------------- routes.md


def descriptions() -> dict[str, dict[str, str]]:
    """By section and setting, in the file's order.

    :raises LookupError: one is missing, or there is no such setting.
    """
    described = {section: dict(texts) for section, texts in _flat(tomllib.loads(DESCRIPTIONS.read_text()))}
    there = {(setting.section, setting.name) for setting in settings()}
    said = {(section, name) for section, texts in described.items() for name in texts if name != ABOUT}
    if there - said:
        raise LookupError(f"docs/settings.toml does not describe {_named(there - said)}")
    if said - there:
        raise LookupError(f"docs/settings.toml describes unknown settings: {_named(said - there)}")
    return described


def _named(pairs: set[tuple[str, str]]) -> str:
    return ", ".join(sorted(f"[{section}] {name}" for section, name in pairs))


def _flat(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    for name, content in document.items():
        if not isinstance(content, dict):  # the page's introduction
            continue
        section = f"{above}.{name}" if above else name
        yield section, {key: text for key, text in content.items() if isinstance(text, str)}
        inner = {key: table for key, table in content.items() if isinstance(table, dict)}
        yield from _flat(inner, section)


def routes_page() -> str:
    """The reference of routes.toml."""
    by_section: dict[str, list[Setting]] = {}
    for setting in settings():
        by_section.setdefault(setting.section, []).append(setting)
    texts = descriptions()
    parts = [
        NOTE.format(source="docs/settings.toml"),
        tomllib.loads(DESCRIPTIONS.read_text())["intro"].lstrip(),
    ]
    for section, described in texts.items():
        parts.append(f"\n## {HEADINGS.get(section, f'[{section}]')}\n")
        parts.append(f"\n{described[ABOUT].strip()}\n")
        parts.append("\n| setting | takes; default | effect |\n| --- | --- | --- |\n")
        parts += [_line(setting, described[setting.name]) for setting in by_section[section]]
    return "".join(parts)


HEADINGS = {
    "providers": "[providers.NAME]",
    "models": '[models."PROVIDER/NAME"]',
    "aliases": "[aliases]",
}


def _line(setting: Setting, text: str) -> str:
    effect = " ".join(text.split())
    if setting.needs_restart:
        effect += " **Restart.**"
    if not setting.has_effect:
        effect = f"**No effect in this version.** {effect}"
    takes = f"{setting.takes}; {setting.default}".replace("|", "\\|")
    return f"| `{setting.name}` | {takes} | {effect} |\n"


# ---------------------------------------------------------------------- commands.md

COMMANDS = """\
# Commands

`tokenhub COMMAND --help` has the same text. `python -m proxy` is another way to call it. All commands take
`--config F`; the default is `./routes.toml`, then the file named by `$TOKENHUB_CONFIG`.

**Exit codes.** 0: success. 1: failure; standard error has one line with the reason. 2: wrong usage. 130:
`chat` or `bench` was ended by Ctrl-C.

**Which gateway.** `routes`, `explain`, `aliases`, `keys` and `usage` use the admin API of a running gateway,
at the address in the configuration or at `--admin URL` (`http://127.0.0.1:8081`,
`unix:/run/tokenhub/admin.sock`). The token is in the variable that `[admin] token_env` names, or in
`$TOKENHUB_ADMIN_TOKEN`. If no gateway answers, `keys` and `usage` work on its database. `chat` and `bench`
use the file's first listener, with the key in `$TOKENHUB_API_KEY`.
"""


def commands_page() -> str:
    """The reference of the command line."""
    parts = [NOTE.format(source="the parsers in proxy/"), COMMANDS]
    for name, parser in _inner(_parser()):
        parts.append(f"\n## tokenhub {name}\n")
        parts.append(_command(parser))
        for action, inner in _inner(parser):
            parts.append(f"\n### tokenhub {name} {action}\n")
            parts.append(_command(inner))
    return "".join(parts)


def _inner(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _command(parser: argparse.ArgumentParser) -> str:
    lines = [f"\n{parser.description}\n"]
    if parser.epilog:
        example, _, more = parser.epilog.partition("\n\n")
        if not list(_inner(parser)):
            calls = [line.strip() for line in example.splitlines()[1:]]
            lines.append("\n```sh\n" + "\n".join(calls) + "\n```\n")
        if more:
            lines.append(f"\n{' '.join(more.split())}\n")
    rows = [_argument(action) for action in parser._actions if _is_shown(action)]
    if rows:
        lines.append("\n| argument | meaning |\n| --- | --- |\n")
        lines += rows
    return "".join(lines)


def _is_shown(action: argparse.Action) -> bool:
    if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
        return False
    return action.dest not in ("config", "admin")  # the introduction describes them once


def _argument(action: argparse.Action) -> str:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
    if action.nargs in ("*", "+") and not action.option_strings:
        name += "…"
    if action.option_strings and action.nargs != 0:
        name += f" {action.metavar or action.dest.upper()}"
    default = ""
    if action.default not in (None, "", argparse.SUPPRESS, False, []) and "default" not in (
        action.help or ""
    ):
        default = f"default: {action.default}"
    if action.required and action.option_strings:
        default = "needed"
    one_of = f"one of {', '.join(action.choices)}" if action.choices else ""
    text = "; ".join(part for part in (action.help or "", one_of, default) if part)
    return f"| `{name}` | {text} |\n".replace("||", "|")


PAGES: dict[str, Callable[[], str]] = {"routes.md": routes_page, "commands.md": commands_page}


def main(argv: list[str]) -> int:
    """Write the pages, or report those that are not up to date."""
    old = [name for name, page in PAGES.items() if not _is_current(DOCS / name, page())]
    if argv == ["--check"]:
        for name in old:
            print(f"docs/{name} is not up to date: run python docs/generate.py", file=sys.stderr)
        return 1 if old else 0
    for name in old:
        (DOCS / name).write_text(PAGES[name]())
        print(f"docs/{name} written")
    return 0


def _is_current(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
