"""Tags: words that requests carry, such as ``team=search``, by which totals can be told apart.

A client says them in ``X-Inferoute-Tags``; a key's own count before them. What a client says is not to be
believed, and each value costs a row in each total, so there is a bound on new ones (:func:`may_be_new`).
Values that the operator lists, and those of keys, always count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson

from proxy.usage.calendar import day_of

HEADER: Final = b"x-inferoute-tags"
# What stands for all values beyond the bounds.
OTHER: Final = "other"
# New values that one key may bring in a day, UTC, over all tags.
NEW_VALUES_A_DAY: Final = 50
MAX_VALUE_CHARS: Final = 64
_MAX_NAME_CHARS: Final = 32
# Of all tags of a request; more than any name that is listed needs.
_MAX_BYTES: Final = 4096
_MAX_PAIRS: Final = 32

Pairs = dict[str, str]


class TagsError(ValueError):
    """Tags that can't be read; the text is a clause."""


def read_tags(text: bytes) -> Pairs:
    """Read ``name=value`` pairs with commas between them. White space around names and values doesn't count.

    :raises TagsError: it is something else, too long, or names a tag twice.
    """
    if len(text) > _MAX_BYTES:
        raise TagsError(f"they have more than {_MAX_BYTES} bytes")
    try:
        parts = text.decode().split(",")
    except UnicodeDecodeError:
        raise TagsError("they are not UTF-8") from None
    if len(parts) > _MAX_PAIRS:
        raise TagsError(f"there are more than {_MAX_PAIRS}")
    found: Pairs = {}
    for part in parts:
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not name or not equals or not value:
            raise TagsError("each needs a name and a value, as in team=search, feature=rag")
        if len(name) > _MAX_NAME_CHARS or len(value) > MAX_VALUE_CHARS or not value.isprintable():
            raise TagsError(
                f"a name has up to {_MAX_NAME_CHARS} characters, a value {MAX_VALUE_CHARS} printable ones"
            )
        if name in found:
            raise TagsError("a tag is named twice")
        found[name] = value
    return found


def line_members(key: bytes, known: Mapping[str, str], said: Mapping[str, str]) -> bytes:
    """The value of a ledger line's ``key`` and the members behind it, for a request with tags.

    :param key: the value and members of a request without tags.
    :param known: tags of the key, or with values that the operator lists. :param said: what only the client
        says.
    """
    members = key
    if known:
        members += b',"tags":' + orjson.dumps(known, option=orjson.OPT_SORT_KEYS)
    if said:
        members += b',"client_tags":' + orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    return members


def may_be_new(values: int, new_of_key: int, most: int) -> bool:
    """Return whether a value that was not seen before is told apart from others.

    :param values: how many of its tag are known. :param new_of_key: how many the key brought on this day.
    :param most: ``[usage] tag_values``.
    """
    return values < most and new_of_key < NEW_VALUES_A_DAY


class SeenValues:
    """The values of tags that a process has seen, for its metrics.

    :param most: values of a tag that are told apart.
    """

    __slots__ = ("_day", "_most", "_new", "_values")

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: dict[str, set[str]] = {}
        self._new: dict[str, int] = {}  # by key, of the day
        self._day = -1

    def known(self, name: str, value: str) -> str:
        """A value that always counts; returns it."""
        values = self._values.get(name)
        if values is None:
            values = self._values[name] = set()
        values.add(value)
        return value

    def said(self, name: str, value: str, key: str, unix_s: float) -> str:
        """A value that a client says: itself, or ``other``.

        :param key: the key's id; "": it has none.
        """
        values = self._values.get(name)
        if values is not None and value in values:
            return value
        day = day_of(unix_s)
        if day != self._day:
            self._day, self._new = day, {}
        new = self._new.get(key, 0)
        if not may_be_new(0 if values is None else len(values), new, self._most):
            return OTHER
        self._new[key] = new + 1
        return self.known(name, value)
