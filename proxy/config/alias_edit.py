"""Edits of routes.toml's text that leave everything else in it as it is, comments included.

tomlkit makes the edit; tomllib then has to read exactly what was meant out of the result. Where an edit in
place doesn't come out so, the alias is written anew, and if even that fails, nothing is.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array, InlineTable, Item, Table

_MAX_LINE_CHARS = 100  # a longer list gets a line a member


class EditError(Exception):
    """The text is written in a way that can't be edited by a program; the text says which."""


def set_alias(text: str, name: str, settings: Mapping[str, Any]) -> str:
    """The text with an alias set to ``settings`` (``models``, ``strategy``, …, as in the file).

    The alias keeps the form it has; one of its own line without anything but models is a plain list.

    :raises EditError: it can't be done, or a value has no form in TOML.
    """
    meant = _Meant(text)
    meant.aliases[name] = dict(settings)
    for change in (_add_line, _change_in_place, _write_anew):
        result = _edited(text, lambda aliases, change=change: change(aliases, name, settings))  # type: ignore[misc]
        if result is not None and meant.is_in(result):
            return result
    raise EditError(f"alias '{name}' is written in a way that can't be edited here: edit the file itself")


def remove_alias(text: str, name: str) -> str:
    """The text without an alias.

    :raises KeyError: there is no such alias. :raises EditError: it can't be done.
    """
    meant = _Meant(text)
    del meant.aliases[name]
    result = _edited(text, lambda aliases: aliases.remove(name))
    if result is None or not meant.is_in(result):
        raise EditError(f"alias '{name}' is written in a way that can't be edited here: edit the file itself")
    return result


class _Meant:
    """The document that the text should have after the edit; ``aliases`` is changed in it."""

    def __init__(self, text: str) -> None:
        self._document = tomllib.loads(text.removeprefix("\ufeff"))
        self.aliases: dict[str, Any] = self._document.setdefault("aliases", {})

    def is_in(self, text: str) -> bool:
        try:
            found = tomllib.loads(text.removeprefix("\ufeff"))
        except tomllib.TOMLDecodeError:
            return False
        found.setdefault("aliases", {})
        return _plain(found) == _plain(self._document)


def _plain(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with every alias in the same form: a list is a table with nothing but models."""
    aliases = {
        name: alias if isinstance(alias, dict) else {"models": alias}
        for name, alias in document["aliases"].items()
    }
    return {**document, "aliases": aliases}


def _edited(text: str, change: Callable[[Any], None]) -> str | None:
    """The text after ``change`` of its aliases; None where tomlkit can't do it."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    windows = 0 < text.count("\r\n") == text.count("\n")
    if windows:  # tomlkit ends the lines it makes with \n
        text = text.replace("\r\n", "\n")
    try:
        document = tomlkit.parse(text.removeprefix(mark))
        if "aliases" not in document:
            document["aliases"] = tomlkit.table()
        change(document["aliases"])
        result = tomlkit.dumps(document)
    except (TOMLKitError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return None  # what it knows to be wrong, and what it trips over
    return mark + (result.replace("\n", "\r\n") if windows else result)


def _add_line(aliases: Any, name: str, settings: Mapping[str, Any]) -> None:
    """A new alias behind the last one of a line. By itself tomlkit would put it right before the next table,
    behind the comment that stands there for that."""
    if name in aliases:
        raise KeyError(name)
    lines = [key for key, item in aliases.value.body if key is not None and not isinstance(item, Table)]
    aliases.value._insert_after(lines[-1], name, _value(settings))


def _change_in_place(aliases: Any, name: str, settings: Mapping[str, Any]) -> None:
    old = aliases.get(name)
    is_plain = settings.keys() == {"models"}
    if is_plain and isinstance(old, Array):
        _set(aliases, name, settings["models"])
    elif isinstance(old, Mapping) and not (is_plain and isinstance(old, InlineTable)):
        table: Any = old
        for key in [key for key in table if key not in settings]:
            table.remove(key)
        for key, value in settings.items():
            _set(table, key, value)
    else:
        _write_anew(aliases, name, settings)


def _set(table: Any, key: str, value: Any) -> None:
    old = table.get(key)
    if old is None or not (old == value or (isinstance(old, Array) and _change_list(old, value))):
        table[key] = _item(value)


def _change_list(array: Array, wanted: Any) -> bool:
    """Take out and append, so that comments beside the members that stay do so too; False where it takes
    more."""
    if not isinstance(wanted, list):
        return False
    for member in [member for member in array if member not in wanted]:
        array.remove(member)
    kept = array.unwrap()
    if wanted[: len(kept)] != kept:
        return False
    for member in wanted[len(kept) :]:
        array.append(member)
    return True


def _write_anew(aliases: Any, name: str, settings: Mapping[str, Any]) -> None:
    aliases[name] = _value(settings)


def _value(settings: Mapping[str, Any]) -> Item:
    return _item(settings["models"] if settings.keys() == {"models"} else dict(settings))


def _item(value: Any) -> Item:
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        for key, inner in value.items():
            table[key] = _item(inner)
        return table
    item: Item = tomlkit.item(copy.copy(value))
    if isinstance(item, Array) and len(item.as_string()) > _MAX_LINE_CHARS:
        item.multiline(True)
    return item
