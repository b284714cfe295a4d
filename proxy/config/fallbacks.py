"""``fallback`` of an alias: the names that are tried after its members, checked at load.

An alias that is another's fallback brings its own fallbacks with it, right behind itself. So aliases may not
lead back to where they began.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config.settings import AliasConfig
from proxy.config.tables import Table, UsableNames

# As many as X-Inferoute-Fallback takes: each name may stand for a whole pool.
MAX_FALLBACKS = 8


def all_fallbacks(name: str, aliases: Mapping[str, AliasConfig]) -> tuple[str, ...]:
    """The names that are tried after an alias, in order and each once, with the fallbacks of fallbacks."""
    found: dict[str, None] = {}
    _collect(name, aliases, found)
    found.pop(name, None)
    return tuple(found)


def _collect(name: str, aliases: Mapping[str, AliasConfig], found: dict[str, None]) -> None:
    alias = aliases.get(name)
    for each in () if alias is None else alias.fallback:
        if each not in found:
            found[each] = None
            _collect(each, aliases, found)


def check_fallbacks(table: Table, aliases: Mapping[str, AliasConfig], names: UsableNames) -> None:
    """Note fallbacks that mean nothing, lead back to their alias, or are too many.

    :param table: of all aliases.
    """
    told: set[frozenset[str]] = set()
    for name, alias in aliases.items():
        for index, each in enumerate(alias.fallback):
            at = table.at(name, "fallback", index)
            complaint = None if each == "auto" else names.unknown(each)
            if complaint:
                table.notes.wrong(at, f"'fallback' names an {complaint}")
                continue
            circle = _way_back(name, each, aliases, ())
            if circle and frozenset(circle) not in told:
                told.add(frozenset(circle))
                text = f"fallback cycle: {' → '.join((name, *circle))}; take one of them out"
                table.notes.wrong(at, text)
        count = len(all_fallbacks(name, aliases))
        if count > MAX_FALLBACKS:
            text = f"'fallback' leads to {count} names, with those of its aliases: up to {MAX_FALLBACKS}"
            table.notes.wrong(table.at(name, "fallback"), text, at_key=True)


def _way_back(
    home: str, name: str, aliases: Mapping[str, AliasConfig], passed: tuple[str, ...]
) -> tuple[str, ...]:
    """The names from ``name`` on that lead back to ``home``; none if it doesn't."""
    if name == home:
        return (*passed, name)
    alias = aliases.get(name)
    if alias is not None and name not in passed:
        for each in alias.fallback:
            found = _way_back(home, each, aliases, (*passed, name))
            if found:
                return found
    return ()
