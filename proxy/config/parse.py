"""Reads routes.toml: :func:`parse` makes a :class:`Config` of its text or names every mistake and its place.

:func:`without_effect` names what a file sets that is accepted but not built yet. Both are pure: no file, no
environment, no clock.
"""

from __future__ import annotations

import re
import tomllib

from proxy.config import routing_tables, service_tables, usage_table
from proxy.config.default_models import check_default_models
from proxy.config.settings import (
    Config,
)
from proxy.config.tables import ConfigError, Mistake, Notes, Table, quoted
from proxy.config.toml_positions import Path, Positions

NO_MODEL = (
    "no model is configured: add a provider and a model, for example [providers.openai] with "
    'base_url = "https://api.openai.com/v1" and [models."openai/gpt-4o"]'
)

# Settings that are read and checked but change nothing in this version; "*" is any name, and a table stands
# for all that is in it. A version that gives one of them its effect deletes its line here.
NO_EFFECT_YET: tuple[tuple[str, ...], ...] = (("state", "redis_url"),)


def parse(text: str, path: str = "routes.toml") -> Config:
    """Reads the text of a configuration file.

    :param path: the file's name, for the messages only.
    :raises ConfigError: with all mistakes at once; a mistake in the TOML syntax is alone.
    """
    config, notes = _read(text, path)
    if notes.mistakes:
        raise ConfigError(notes.mistakes, path)
    return config


def without_effect(text: str, path: str = "routes.toml") -> tuple[Mistake, ...]:
    """The settings of a file that differ from their defaults but have no effect in this version, in order.

    :raises ConfigError: as :func:`parse`, for TOML that can't be read; other mistakes are left to it.
    """
    _, notes = _read(text, path)
    found = []
    for setting in notes.changed:
        if any(_covers(pattern, setting) for pattern in NO_EFFECT_YET):
            place = notes.positions.key(setting)
            name = ".".join(quoted(str(part)) for part in setting)
            found.append(Mistake(place.line, place.column, f"'{name}' has no effect yet"))
    return tuple(sorted(found))


def _covers(pattern: tuple[str, ...], setting: Path) -> bool:
    return len(pattern) <= len(setting) and all(
        wanted in ("*", part) for wanted, part in zip(pattern, setting, strict=False)
    )


def _read(text: str, path: str) -> tuple[Config, Notes]:
    text = text.removeprefix("\ufeff")  # some editors start a file with a byte order mark
    try:
        document = tomllib.loads(text)
        notes = Notes(Positions(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_mistake(text, str(error))], path) from None
    except RecursionError:
        raise ConfigError([Mistake(1, 1, "lists or tables are nested too deeply")], path) from None
    except ValueError:  # Python refuses to read integers of more than some thousand digits
        raise ConfigError([Mistake(1, 1, "a number is too long")], path) from None
    root = Table(document, (), notes)
    providers, known_providers = routing_tables.providers(root)
    models = routing_tables.models(root, known_providers)
    if not root.content.get("models"):
        notes.wrong((), NO_MODEL)
    server, admin, routing = root.table("server"), root.table("admin"), root.table("routing")
    config = Config(
        server=service_tables.server(server),
        admin=service_tables.admin(admin),
        auth=service_tables.auth(root.table("auth")),
        state=service_tables.state(root.table("state")),
        routing=service_tables.routing(routing),
        timeouts=service_tables.timeouts(root.table("timeouts")),
        providers=providers,
        models=models,
        aliases=routing_tables.aliases(root, models),
        alerts=service_tables.alerts(root.table("alerts")),
        traces=service_tables.traces(root.table("traces")),
        simulator=service_tables.simulator(root.table("simulator")),
        log=service_tables.log(root.table("log")),
        usage=usage_table.usage(root.table("usage")),
    )
    chosen = dict(config.routing.default_models)
    check_default_models(routing, chosen, providers, models, config.aliases)
    service_tables.check_listeners(server, admin, config.admin.listen)
    root.done()
    return config, notes


# What tomllib says, and what that mostly comes from.
_SYNTAX_HINTS = (
    ("Expected '=' after a key", "a setting needs the form name = value"),
    ("Invalid value", "this is not a TOML value (text needs quotes)"),
    ("Invalid statement", "neither a setting (name = value) nor a [table]"),
    ("Invalid initial character for a key", "a name is missing or needs quotes"),
    ("Unclosed array", "a list is not closed with ]"),
    ("Unclosed inline table", "a table is not closed with }"),
    ("Unterminated string", "a text is not closed with its quotes"),
    ("Illegal character '\\n'", "a text is not closed on its line"),
    ("Cannot overwrite a value", "this name is already set above"),
    ("Duplicate inline table key", "this name is already set in the same table"),
    ("Cannot declare", "this table is already defined above"),
    ("Expected newline or end of document", "there is more on the line after the value (text needs quotes)"),
    ("Unescaped '\\' in a string", "a \\ in text has to be doubled, or the text put in single quotes"),
)


def _syntax_mistake(text: str, said: str) -> Mistake:
    """tomllib's message, with its place taken out and a plainer sentence where there is one."""
    text = text.replace("\r\n", "\n")
    match = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
    plain = said[: match.start()] if match else said
    for start, hint in _SYNTAX_HINTS:
        if plain.startswith(start):
            plain = f"{hint} [{plain}]"
            break
    message = f"not valid TOML: {plain}"
    if match and match[1]:
        return Mistake(int(match[1]), int(match[2]), message)
    return Mistake(text.count("\n") + 1, len(text) - text.rfind("\n"), message)
