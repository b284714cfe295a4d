"""The members of a JSON object that is not parsed, found in steps: for bodies that are looked at at leisure.

Parsing 4 MiB of empty lists takes 400 ms and more, all of it in one turn of the event loop. The outline
(:mod:`proxy.wire.outline`) takes it in slices, and what is asked for is then read where it stands.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import orjson

from proxy.errors import BadRequest
from proxy.wire.model_scanner import decoded, malformed
from proxy.wire.outline import (
    ALL_KEYS,
    BROKEN,
    COLON_NEXT,
    ENDED,
    MOST_KEYS,
    OUTSIDE,
    VALUE_NEXT,
    end_of_string,
    outline,
    skip_white,
    value_at,
)

# Bytes read in a step: 3 ms if they are nothing but keys. A longer key is not one of ours.
SLICE_BYTES: Final = 256 << 10
# Of a key or text that is read.
_MAX_TEXT_BYTES: Final = 4096
_WHITE: Final = b" \t\r\n"

Keys = list[tuple[int, int]]


def find_keys(text: bytes) -> Generator[None, None, Keys]:
    """Find the beginnings and ends of the outermost object's keys, quotes included.

    :raises BadRequest: the text is no object, as far as the outline shows.
    """
    if not text.startswith(b"{", skip_white(text, 0)):
        raise malformed('the body must be one JSON object, such as {"model": ..., ...}')
    found: Keys = []
    begin, open, mode = 0, b"", OUTSIDE
    while begin < len(text):
        keys, open, mode = outline(text[begin : begin + SLICE_BYTES], 0, open, mode, ALL_KEYS)
        found += [(begin + keys[at], begin + keys[at + 1]) for at in range(0, len(keys) - 1, 2)]
        following = begin + SLICE_BYTES
        if mode == BROKEN:
            raise malformed(
                f"what stands at byte {begin + keys[-1]} is not allowed there, or is one key too many"
            )
        if mode == COLON_NEXT:
            following = skip_white(text, following)
            if not text.startswith(b":", following):
                raise malformed(f"there is no colon behind the key at byte {found[-1][0]}")
            following, mode = following + 1, VALUE_NEXT
        elif len(keys) & 1:  # a key is cut: it is seen again as a whole
            following, mode = begin + keys[-1], OUTSIDE
        if following == begin or len(found) > MOST_KEYS:
            raise malformed(f"a key at byte {begin} is too long, or is one too many")
        begin = following
        yield
    if mode != ENDED:
        raise malformed("it ends before its outermost object does")
    return found


def member_named(text: bytes, keys: Keys, name: str) -> int:
    """Find the beginning of a member's value; of several members the last; -1 if it is missing."""
    plain = b'"%b"' % name.encode()
    for start, stop in reversed(keys):
        if stop - start > _MAX_TEXT_BYTES:
            continue
        key = text[start:stop]
        if key == plain or (key.find(b"\\") >= 0 and decoded(key) == name):
            return value_at(text, stop)
    return -1


def text_at(text: bytes, keys: Keys, name: str) -> str | None:
    """The text of a member; None: it is missing or null.

    :raises BadRequest: it is no text.
    """
    at = member_named(text, keys, name)
    if at < 0 or text.startswith(b"null", at):
        return None
    value: Any = None
    if text[at : at + 1] == b'"':
        token = text[at : at + _MAX_TEXT_BYTES]
        value = decoded(token[: end_of_string(token, 1) + 1])
    if not isinstance(value, str):
        raise BadRequest(f"'{name}' must be text.", param=name)
    return value


def object_at(text: bytes, keys: Keys, at: int) -> bytes:
    """The object that is the value of a member and begins at ``at``; b"" if it is not an object."""
    value = _value_at(text, keys, at)
    return value if value.startswith(b"{") and value.endswith(b"}") else b""


def small_value(text: bytes, keys: Keys, name: str, most_bytes: int, most_values: int) -> Any:
    """The parsed value of a member; None: it is missing.

    :raises BadRequest: it is too large, or no JSON.
    """
    at = member_named(text, keys, name)
    if at < 0:
        return None
    value = _value_at(text, keys, at)
    try:
        if len(value) > most_bytes:
            raise ValueError(f"it has more than {most_bytes} bytes")
        return parse_few(value, most_values)
    except ValueError as error:
        raise BadRequest(f"'{name}' can't be read: {error}.", param=name) from None


def _value_at(text: bytes, keys: Keys, at: int) -> bytes:
    behind = next((start for start, _ in keys if start > at), -1)
    if behind < 0:
        behind = text.rstrip(_WHITE).rfind(b"}")
    return text[at:behind].rstrip(_WHITE).removesuffix(b",").rstrip(_WHITE)


def parse_few(body: bytes, most_values: int) -> Any:
    """Parse what is known to be small in all but its texts.

    :raises ValueError: it is no JSON, or has more than ``most_values`` values; the text is a clause.
    """
    count = body.count(b",") + body.count(b"[") + body.count(b"{")
    if count > most_values:
        raise ValueError(f"it has more than {most_values} values")
    return orjson.loads(body)
