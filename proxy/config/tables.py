"""Reads TOML tables and collects every mistake with its place, instead of stopping at the first.

A :class:`Table` hands out settings by name. What it can't accept it notes and replaces by the default, so
that reading goes on; unknown names are mistakes too. What aliases may name is checked at the end,
over all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from proxy.config import values
from proxy.config.toml_positions import Path, Positions

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One mistake of a configuration file; line and column count from 1."""

    line: int
    column: int
    message: str


class ConfigError(Exception):
    """A configuration file that can't be used.

    ``str()`` of it is one line a mistake, ``path:line:column: message``, in the file's order.
    """

    def __init__(self, mistakes: Sequence[Mistake], path: str) -> None:
        self.mistakes = tuple(sorted(set(mistakes)))
        self.path = path
        super().__init__("\n".join(f"{path}:{m.line}:{m.column}: {m.message}" for m in self.mistakes))


class Notes:
    """State that the tables of one document share: places, mistakes so far, and settings that differ from a
    default."""

    def __init__(self, positions: Positions) -> None:
        self.positions = positions
        self.mistakes: list[Mistake] = []
        self.changed: list[Path] = []  # settings whose value is not their default

    def wrong(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Notes a mistake at the value of `path`, or at its key."""
        place = self.positions.key(path) if at_key else self.positions.value(path)
        self.mistakes.append(Mistake(place.line, place.column, message))


class Table:
    """One table of the document while it is read.

    :param content: its keys and values.
    :param path: where it is in the document.
    """

    def __init__(self, content: Mapping[str, object], path: Path, notes: Notes) -> None:
        self.content = content
        self.path = path
        self.notes = notes
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def at(self, *keys: str | int) -> Path:
        return (*self.path, *keys)

    def take(
        self, key: str, default: D, read: Callable[[object], T], *, usual: object = None, such_as: str = ""
    ) -> T | D:
        """The setting `key` by its grammar `read`; `default` where it is missing or wrong.

        :param usual: a value that means the same as the default (a note of what was changed leaves it out).
        :param such_as: what a mistake's text ends with.
        """
        self._known.append(key)
        if key not in self.content:
            return default
        try:
            value = read(self.content[key])
        except ValueError as error:
            self.notes.wrong(self.at(key), f"'{key}' {error}{such_as}")
            return default
        if value not in (default, usual):
            self.notes.changed.append(self.at(key))
        return value

    def take_list(
        self,
        key: str,
        default: tuple[T, ...],
        read: Callable[[object], T],
        *,
        may_be_empty: bool = False,
        example: str = "",
    ) -> tuple[T, ...]:
        """A list whose elements follow `read`, each mistake at its element; a lone text counts as a list.

        :param example: of the whole value; each mistake's text ends with it.
        """
        such_as = f"; such as {key} = {example}" if example else ""
        given = self.take(key, None, _list_or_text, such_as=such_as)
        if given is None:
            return default
        if not given and not may_be_empty:
            self.notes.wrong(self.at(key), f"'{key}' must not be an empty list")
        result = []
        for index, element in enumerate(given):
            try:
                result.append(read(element))
            except ValueError as error:
                self.notes.wrong(self.at(key, index), f"'{key}' {error}{such_as}")
        if tuple(result) == default:
            self.notes.changed.remove(self.at(key))
        return tuple(result)

    def take_pairs(
        self, key: str, read_name: Callable[[str], str], read: Callable[[object], T]
    ) -> tuple[tuple[str, T], ...]:
        """A table of free names, such as headers; each mistake at its name or its value."""
        result = []
        for name, value in self.take(key, {}, _table).items():
            try:
                read_name(name)
            except ValueError as error:
                self.notes.wrong(self.at(key, name), f"'{key}' {error}", at_key=True)
                continue
            try:
                result.append((name, read(value)))
            except ValueError as error:
                self.notes.wrong(self.at(key, name), f"'{name}' {error}")
        return tuple(result)

    def table(self, key: str) -> Table:
        """The table `key`, empty where it is missing or something else."""
        return Table(self._content_of(key), self.at(key), self.notes)

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """The tables inside the table `key`, with their names."""
        for name, value in self._content_of(key).items():
            if isinstance(value, dict):
                yield name, Table(value, self.at(key, name), self.notes)
            else:
                wanted = f"a table [{key}.{quoted(name)}], not {values.kind(value)}"
                self.notes.wrong(self.at(key, name), f"'{name}' must be {wanted}")

    def _content_of(self, key: str) -> dict[str, object]:
        # Not by take(): a table that is there isn't a change by itself, the settings in it may be.
        self._known.append(key)
        try:
            return _table(self.content.get(key, {}))
        except ValueError as error:
            self.notes.wrong(self.at(key), f"'{key}' {error}")
            return {}

    def done(self) -> None:
        """Note the names that were not taken, as mistakes. To be called last."""
        for key in self.content.keys() - self._known:
            what = "table" if isinstance(self.content[key], dict) else "setting"
            close = values.nearest(key, self._known)
            hint = f"did you mean '{close}'?" if close else f"known here: {', '.join(sorted(self._known))}"
            self.notes.wrong(self.at(key), f"unknown {what} '{key}'; {hint}", at_key=True)


def _table(value: object) -> dict[str, object]:
    if isinstance(value, dict):
        return value
    raise ValueError(f"must be a table, not {values.kind(value)}")


def _list_or_text(value: object) -> list[object]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return value
    raise ValueError(f"must be a list, not {values.kind(value)}")


def quoted(name: str) -> str:
    """A key as TOML writes it."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else f'"{name}"'


class UsableNames:
    """The names that a request may use, and what each leads to.

    :param capabilities: of each model id.
    :param members: of each alias: the names in it, with their places.
    """

    def __init__(
        self, capabilities: Mapping[str, frozenset[str]], members: Mapping[str, Sequence[tuple[str, Path]]]
    ) -> None:
        self.capabilities = capabilities
        self.members = members
        self.short: dict[str, list[str]] = {}
        for model in capabilities:
            self.short.setdefault(model.partition("/")[2], []).append(model)

    def models(self, name: str) -> Sequence[str]:
        """The ids that an exact id or short name means; empty for an alias and for unknown names."""
        if name in self.capabilities:
            return (name,)
        return () if name in self.members else self.short.get(name, ())

    def is_alias(self, name: str) -> bool:
        return name not in self.capabilities and name in self.members

    def unknown(self, name: str) -> str | None:
        """The complaint about a name that means nothing; None where it means something."""
        if name in self.capabilities or name in self.members or name in self.short:
            return None
        close = values.nearest(name, [*self.capabilities, *self.members, *self.short])
        hint = f"did you mean '{close}'?" if close else "no model, alias or short name has this name"
        return f"unknown model '{name}'; {hint}"


def check_aliases(names: UsableNames, notes: Notes) -> None:
    """Members that don't exist, aliases that end in themselves, aliases over models of different use."""
    for members in names.members.values():
        for name, path in members:
            if complaint := names.unknown(name):
                notes.wrong(path, complaint)
    order, circular = _order(names)
    _note_cycles(names, circular, notes)
    uses: dict[str, set[str]] = {}
    for alias in order:
        seen: dict[str, str] = {}  # use -> the first member with it
        for name, path in names.members[alias]:
            own = uses[name] if names.is_alias(name) else _uses(names, names.models(name))
            if len(own) == 1 and seen and not own <= seen.keys():
                other = next(iter(seen.values()))
                notes.wrong(
                    path,
                    f"alias '{alias}' mixes embedding and chat models ('{other}' and '{name}'): "
                    "no request can go to both",
                )
                seen = dict.fromkeys(
                    ("chat", "embeddings"), name
                )  # reported once, not again for aliases of this one
                break
            for use in own:
                seen.setdefault(use, name)
        uses[alias] = set(seen)


def _uses(names: UsableNames, models: Sequence[str]) -> set[str]:
    """ "embeddings", "chat", or both; a model that can do both fits everywhere and counts as neither."""
    found = (names.capabilities[model] & {"chat", "embeddings"} for model in models)
    return {use for uses in found if len(uses) == 1 for use in uses}


def _order(names: UsableNames) -> tuple[list[str], list[str]]:
    """The aliases with those they name before them, and those that can't be ordered so."""
    order: list[str] = []
    rest = list(names.members)
    while True:
        waiting = set(rest)
        ready = [
            alias
            for alias in rest
            if not any(names.is_alias(name) and name in waiting for name, _ in names.members[alias])
        ]
        if not ready:
            return order, rest
        order += ready
        rest = [alias for alias in rest if alias not in set(ready)]


def _note_cycles(names: UsableNames, circular: Sequence[str], notes: Notes) -> None:
    """One mistake a cycle, at the member of its first alias that leads into it.

    Of several cycles that share an alias one is named; the others show once it is mended.
    """
    follows = {
        alias: next((n, p) for n, p in names.members[alias] if names.is_alias(n) and n in circular)
        for alias in circular
    }
    visited: set[str] = set()
    for start in circular:
        walk: list[str] = []
        alias = start
        while alias not in visited:
            visited.add(alias)
            walk.append(alias)
            alias = follows[alias][0]
        if alias in walk:
            cycle = walk[walk.index(alias) :]
            first = min(cycle, key=circular.index)
            turn = cycle.index(first)
            cycle = [*cycle[turn:], *cycle[:turn], first]
            notes.wrong(follows[first][1], f"alias cycle: {' → '.join(cycle)}")
