"""The strings of a JSON text, found without reading them: how many there are in a list, and which are long.

Where the package was compiled, :mod:`proxy.wire._outline` does the same in C.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from proxy.wire.outline import end_of_string

_SEEN: Final = re.compile(rb"[^ \t\r\n]")
_LETTER_ESCAPE: Final = re.compile(rb"\\u00[4-7].", re.DOTALL)
_LONGEST_WORD_BYTES: Final = 32
_LONGEST_NAME_BYTES: Final = 160


def items_slowly(data: bytes, pos: int) -> int:
    """Count the members of the list at ``data[pos]``, as far as it is there."""
    count = depth = 0
    is_empty = True
    while (match := _SEEN.search(data, pos)) is not None:
        pos, byte = match.end(), match[0]
        if byte in b"]}":
            depth -= 1
            if depth <= 0:
                break
            continue
        is_empty = is_empty and depth != 1
        if byte in b"[{":
            depth += 1
        elif byte == b",":
            count += depth == 1
        elif byte == b'"':
            pos = end_of_string(data, pos) + 1
            if not pos:
                break
    return 0 if is_empty else count + 1


def runs_slowly(data: bytes, pos: int, least: int) -> list[int]:
    """Return the beginnings and ends of stretches without a quote, one after the other: the first from
    ``pos`` on, each next one behind a quote, the last up to the end. Those of ``least`` bytes and more.
    """
    found: list[int] = []
    size = len(data)
    while 0 <= pos < size:
        quote = data.find(b'"', pos)
        end = size if quote < 0 else quote
        if end - pos >= least:
            found += pos, end
        pos = end + 1
    return found


def names_slowly(data: bytes, pos: int, words: bytes, most: int) -> list[int]:
    """Return the beginnings and ends of stretches between quotes that are one of some words, in either case,
    or that write a letter or ``_`` as an escape, which no program does of itself: those of 6 to 160 bytes. No
    more than the first ``most`` of them.

    :param words: in small letters, shorter than 32 bytes, with quotes between them.
    """
    known = {word for word in words.split(b'"') if word}
    found: list[int] = []
    while len(found) < 2 * most and (end := data.find(b'"', pos)) >= 0:
        size = end - pos
        if (6 <= size <= _LONGEST_NAME_BYTES and _LETTER_ESCAPE.search(data, pos, end)) or (
            size < _LONGEST_WORD_BYTES and data[pos:end].lower() in known
        ):
            found += pos, end
        pos = end + 1
    return found


items: Callable[[bytes, int], int] = items_slowly
runs: Callable[[bytes, int, int], list[int]] = runs_slowly
names: Callable[[bytes, int, bytes, int], list[int]] = names_slowly
try:
    from proxy.wire._outline import items, names, runs  # noqa: F401
except ImportError:
    pass
