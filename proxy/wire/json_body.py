"""Questions to a whole body and edits of it, without parsing it.

What stands at the top level is told by :mod:`proxy.wire.outline`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from proxy.wire.model_scanner import PLAIN_KEYS, decoded
from proxy.wire.outline import skip_white, value_at

# Where top-level keys begin and end, quotes included.
Keys = Sequence[tuple[int, int]]

# A larger piece is not copied for what is replaced in it.
BLOCK_BYTES: Final = 8 << 10
# With white space before and behind it, a value that matters is shorter ...
_VALUE_BYTES: Final = 64
# ... or no value to be read: proxy.wire.outline.value_at gives up after 4 KiB of white space, twice.
_LONGEST_VALUE_BYTES: Final = (8 << 10) + 256
_STREAM: Final = b'"stream"'
_ENDS: Final = frozenset((b",", b"}"))
_BOOLEAN: Final = re.compile(rb"(?:true|false|null)(?=[ \t\r\n]*[,}])")
_VALUE_END: Final = re.compile(rb"[,}]")


def excerpt(pieces: Sequence[bytes], keys: Keys) -> tuple[bytes, Keys]:
    """Read some keys of a body in pieces, without joining all of it.

    :param keys: where they begin and end in the body.
    :returns: a text, and where in that they are.
    """
    if len(pieces) == 1:
        return pieces[0], keys
    text = b""
    found = []
    ends = ends_of(pieces)
    for start, stop in keys:
        part = part_of(pieces, ends, start, stop + _VALUE_BYTES)
        size = stop - start
        if not _VALUE_END.search(part, size):  # longer than anybody writes it
            part = part_of(pieces, ends, start, stop + _LONGEST_VALUE_BYTES)
        found.append((len(text), len(text) + size))
        text += part
    return text, found


def ends_of(pieces: Sequence[bytes]) -> list[int]:
    """Return the end of each piece within the body."""
    return list(accumulate(map(len, pieces)))


def part_of(pieces: Sequence[bytes], ends: list[int], start: int, stop: int) -> bytes:
    """``body[start:stop]`` of a body in pieces, which end at ``ends``."""
    out = b""
    index = bisect_right(ends, start)
    while index < len(pieces) and len(out) < stop - start:
        at = ends[index] - len(pieces[index])
        out += pieces[index][max(start - at, 0) : stop - at]
        index += 1
    return out


def value_of(body: bytes, keys: Keys, key: bytes) -> int:
    """Offset of the value of a top-level member, or -1; of several the last, as parsers have it.

    :param keys: where the top-level keys that may be asked for begin and end, quotes included.
    :param key: with its quotes, ``b'"stream"'``.
    """
    found = -1
    for start, stop in keys:
        if stop - start == len(key) and body.startswith(key, start):
            found = value_at(body, stop)
    return found


def stream_of(body: bytes, keys: Keys) -> tuple[bool, bool]:
    """Return whether a body asks for a streamed answer; and whether all programs understand it so.

    They do where ``stream`` is said once at most, in plain spelling, and is true, false or null. Of several
    the last counts, as parsers have it.
    """
    wants = is_said = False
    is_clear = True
    for start, stop in keys:
        if stop - start == len(_STREAM) and body.startswith(_STREAM, start):
            at = value_at(body, stop)
            wants = body.startswith(b"true", at)
            if not wants or body[at + 4 : at + 5] not in _ENDS:
                value = _BOOLEAN.match(body, at)
                is_clear = is_clear and value is not None
                wants = value is not None and value[0] == b"true"
            is_clear = is_clear and not is_said
            is_said = True
        elif (key := body[start:stop]) not in PLAIN_KEYS:
            text = decoded(key)
            is_clear = is_clear and (text is None or text.casefold() != "stream")
    return wants, is_clear


def is_empty_object(pieces: Sequence[bytes], begin: int) -> bool:
    """Return whether nothing but white space stands in the object whose brace is at ``begin``."""
    at = begin + 1  # from the beginning of a piece
    for piece in pieces:
        if at < len(piece):
            at = skip_white(piece, max(at, 0))
            if at < len(piece):
                return piece[at] == 0x7D
        at -= len(piece)
    return False


def splice(
    pieces: Sequence[bytes | memoryview], start: int, end: int, replacement: bytes
) -> list[bytes | memoryview]:
    """The pieces of a body with ``body[start:end]`` replaced. Large pieces are not copied."""
    out: list[bytes | memoryview] = []
    placed = False
    at = 0
    for piece in pieces:
        after = at + len(piece)
        if after <= start or (placed and at >= end):
            out.append(piece)
        else:
            view: bytes | memoryview = piece if len(piece) <= BLOCK_BYTES else memoryview(piece)
            if not placed:
                out.append(view[: start - at])
                out.append(replacement)
                placed = True
            if after > end:
                out.append(view[end - at :])
        at = after
    return out
