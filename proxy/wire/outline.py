"""The outline of a JSON text: which strings are keys of the outermost object, and nothing else of it.

One pass over the bytes: from quote to quote while in a string, from byte to byte outside. In valid JSON this
is exact, in any spelling and however deep the rest is nested.

What is not valid JSON is read by some programs nevertheless, each in its own way: comments, single quotes,
keys without quotes, UTF-16, brackets that don't match. So outside of strings only bytes pass that JSON has
there; in the outermost object a key, its colon, one value and a comma follow each other; brackets close what
they opened; and behind the object there is white space only. Where one of these rules is broken, the text has
no outline.

:func:`outline_slowly` says what is done; where the package was compiled, :mod:`proxy.wire._outline` does the
same in C (0.2 µs for 1 KB, 12 µs for 100 KB of dense text, 26 µs for an image of 2 MB).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

# Where a text was left: outside of strings, in one, or in one behind a backslash that escapes what follows;
# behind a key whose colon is the next thing to come; behind the object; or where a rule was broken.
OUTSIDE: Final = 0
IN_STRING: Final = 1
ESCAPED: Final = 2
COLON_NEXT: Final = 3
ENDED: Final = 4
BROKEN: Final = 5
# Added to the first three: the outermost object has a key with its colon, and no comma since.
IN_VALUE: Final = 8
# Added to OUTSIDE: it has a key with its colon, and nothing since.
VALUE_NEXT: Final = 24
_HAS_ENDED: Final = -1

# No word of ours is longer with six bytes for each letter, and no provider's has a fourth of it.
LONGEST_KEY_BYTES: Final = 160
# The most keys that are returned. Hundreds at the top level are an attempt to have us look at each.
MOST_KEYS: Final = 1000
# Parsers give up at such a depth too (orjson at 1,024), and no request is nested like that.
MOST_LEVELS: Final = 1000
# Every key, whatever its first byte.
ALL_KEYS: Final = b"\1" * 256

_WHITE: Final = b" \t\r\n"
_ONE_WHITE: Final = frozenset((b" ", b"\t", b"\r", b"\n"))
_WHITE_RUN: Final = re.compile(rb"[ \t\r\n]*+")
# Between a key and its value no program writes more, and what is longer is not looked through.
_WHITE_BEFORE_VALUE: Final = re.compile(rb"[ \t\r\n]{0,4096}+")
# Outside of strings: numbers, true, false, null and white space need no look; whatever else is found opens,
# closes, separates, or breaks a rule.
_NOT_PLAIN: Final = re.compile(rb"[^ \t\r\n0-9+\-.eEtrufalsn]")
_CLOSED_BY: Final = {b"{": b"}", b"[": b"]"}
# What makes a spelling of a key that programs may read differently: an escape, a control character, or a byte
# that is not ASCII.
_ODD: Final = re.compile(rb"[\\\x00-\x1f\x80-\xff]")


def outline_slowly(  # noqa: PLR0911, PLR0912  # one pass
    data: bytes, pos: int, open: bytes, mode: int, wanted: bytes
) -> tuple[list[int], bytes, int]:
    """Go through ``data[pos:]``, of a text whose beginning led to ``open`` and ``mode`` (not COLON_NEXT and
    not BROKEN).

    :param open: the brackets that are open, as ``b"{[{"``: b"" before the outermost object.

    :param wanted: 256 bytes: which keys are told by their first one. Those with an odd spelling (an escape, a
        control character, a byte above 127) and those above :data:`LONGEST_KEY_BYTES` are told in any case.
    :returns: where each key of the outermost object begins and ends, one after the other, quotes included;
        the brackets that are open, and the mode at the end. If the mode is COLON_NEXT, the last is a key that
        waits for its colon. If it is IN_STRING or ESCAPED without IN_VALUE and at depth 1, there is one more
        offset: where the key begins that is cut. If it is BROKEN, one more offset is that of the byte that
        breaks a rule, or of one key more than :data:`MOST_KEYS`.
    """
    keys: list[int] = []
    if mode == ENDED:
        at = skip_white(data, pos)
        return ([at], open, BROKEN) if at < len(data) else (keys, open, ENDED)
    in_value = mode & IN_VALUE
    value_begin = skip_white(data, pos) if mode == VALUE_NEXT else -1
    mode &= IN_VALUE - 1
    if mode == ESCAPED:
        if pos >= len(data):
            return keys, open, mode + in_value
        pos += 1
    begin = -1  # of the key
    is_inside = mode != OUTSIDE
    while True:
        if is_inside:
            quote = end_of_string(data, pos)
            if quote < 0:
                if begin >= 0:
                    keys.append(begin)
                return keys, open, (ESCAPED if _ends_escaping(data, pos) else IN_STRING) + in_value
            pos = quote + 1
        if begin >= 0:
            at = skip_white(data, pos)
            if at == len(data) or _is_told(data, begin, pos, wanted):
                if len(keys) == 2 * MOST_KEYS:
                    return [*keys, begin], open, BROKEN
                keys += begin, pos
            if at == len(data):
                return keys, open, COLON_NEXT
            if data[at] != 0x3A:
                return [*keys, at], open, BROKEN
            pos, in_value = at + 1, IN_VALUE
            value_begin = skip_white(data, pos)
        quote = data.find(b'"', pos)
        between = data[pos:] if quote < 0 else data[pos:quote]
        open, in_value, at = _walk(between, open, in_value)
        if at >= 0:
            return [*keys, pos + at], open, BROKEN
        if in_value == _HAS_ENDED:
            return (keys, open, ENDED) if quote < 0 else ([*keys, quote], open, BROKEN)
        if quote < 0:
            is_next = in_value and len(open) == 1 and value_begin == len(data)
            return keys, open, VALUE_NEXT if is_next else OUTSIDE + in_value
        if in_value and len(open) == 1 and quote != value_begin:
            return [*keys, quote], open, BROKEN
        begin = quote if len(open) == 1 and not in_value else -1
        pos = quote + 1
        is_inside = True


def _walk(between: bytes, open: bytes, in_value: int) -> tuple[bytes, int, int]:
    """Return the open brackets and IN_VALUE after bytes outside of strings; IN_VALUE is :data:`_HAS_ENDED`
    behind the object; and the offset of one that breaks a rule, or -1."""
    for match in _NOT_PLAIN.finditer(between):
        byte = match[0]
        if byte in _CLOSED_BY:
            if len(open) == MOST_LEVELS:
                return open, in_value, match.start()
            open += byte
        elif byte == _CLOSED_BY.get(open[-1:]):
            open = open[:-1]
            if not open:
                at = skip_white(between, match.end())
                return open, _HAS_ENDED, -1 if at == len(between) else at
        elif byte == b",":
            in_value = 0 if len(open) == 1 else in_value
        elif byte != b":" or len(open) == 1:
            return open, in_value, match.start()
    return open, in_value, -1


def _is_told(data: bytes, begin: int, stop: int, wanted: bytes) -> bool:
    is_long = stop - begin > LONGEST_KEY_BYTES
    return wanted[data[begin + 1]] != 0 or is_long or _ODD.search(data, begin, stop) is not None


def end_of_string(data: bytes, pos: int) -> int:
    """Offset of the quote that ends the string in which ``pos`` is; -1 if it is not there."""
    quote = data.find(b'"', pos)
    while quote > pos and data[quote - 1] == 0x5C:
        at = quote - 1
        while at > pos and data[at - 1] == 0x5C:
            at -= 1
        if not (quote - at) & 1:
            break
        quote = data.find(b'"', quote + 1)
    return quote


def _ends_escaping(data: bytes, pos: int) -> bool:
    """Return whether ``data[pos:]`` ends with a backslash that is not itself escaped."""
    at = len(data)
    while at > pos and data[at - 1] == 0x5C:
        at -= 1
    return bool((len(data) - at) & 1)


Outline = Callable[[bytes, int, bytes, int, bytes], tuple[list[int], bytes, int]]
outline: Outline = outline_slowly
try:
    from proxy.wire._outline import outline
except ImportError:
    pass


def keys_of(text: bytes) -> list[tuple[int, int]]:
    """Return the beginnings and ends of the keys of a whole text's outermost object, quotes included; of a
    text that breaks a rule, those before it does."""
    keys, _, mode = outline(text, 0, b"", OUTSIDE, ALL_KEYS)
    count = len(keys) & ~1
    if mode == COLON_NEXT:
        count -= 2
    return [(keys[at], keys[at + 1]) for at in range(0, count, 2)]


def skip_white(data: bytes, pos: int) -> int:
    """Offset of the first byte from ``pos`` on that is no white space."""
    match = _WHITE_RUN.match(data, pos)
    return match.end() if match else pos


def value_at(text: bytes, stop: int) -> int:
    """Return the beginning of the value of a key that ends at ``stop``; the end of the text if it is not
    there, and a byte of white space where 4 KiB of that are before it."""
    if text[stop : stop + 1] == b":":  # nearly always
        return _skip_some(text, stop + 1) if text[stop + 1 : stop + 2] in _ONE_WHITE else stop + 1
    return _skip_some(text, _skip_some(text, stop) + 1)


def _skip_some(data: bytes, pos: int) -> int:
    match = _WHITE_BEFORE_VALUE.match(data, pos)
    return match.end() if match else pos
