"""How long an answer a body asks for: each word for it at the top level, in any spelling that counts."""

from __future__ import annotations

import re

from proxy.scanner import BracketCounter, skip_white

# What limits an answer's length: chat's older and newer word, and that of the Responses API. The last two say
# how many answers there are to be, and of how many they are the best.
MAX_TOKENS, MAX_COMPLETION_TOKENS, MAX_OUTPUT_TOKENS, COUNT, BEST_OF = range(5)
_WORDS = (b"max_tokens", b"max_completion_tokens", b"max_output_tokens", b"n", b"best_of")
OUTPUT_LIMITS = frozenset((MAX_TOKENS, MAX_COMPLETION_TOKENS, MAX_OUTPUT_TOKENS))
# Also as text, which some providers take; whole, since they may read on where it seems to end ("1_000").
_NUMBER = re.compile(rb'("?)(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\1(?=[ \t\r\n]*[,}])')
# What those who read keys in either case (Go's encoding/json) also take: the Kelvin sign, the long s.
_FOLDED = {"k": "\u212a", "s": "\u017f"}
_NO_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_NEAR_BYTES = 4 << 10
_BACKSLASH = 0x5C


def _spelled(name: bytes) -> bytes:
    r"""A pattern for a JSON key, whichever of its letters are written as ``\u0061``, and in either case."""
    letters = []
    for letter in name.decode():
        forms = sorted({letter, letter.upper(), _FOLDED.get(letter, letter)})
        plain = [re.escape(form) for form in forms]
        escaped = [rf"\\u(?i:{ord(form):04x})" for form in forms]
        letters.append(f"(?:{'|'.join([*plain, *escaped])})")
    return "".join(letters).encode()


_KEY = re.compile(b'"(?:' + b"|".join(b"(%b)" % _spelled(word) for word in _WORDS) + b')"')
# How they begin in every spelling but an escaped one. (The whole pattern would look at each byte: 400 µs for
# 100 KB. This one looks at quotes only.)
_START = re.compile(rb'"(?:[mM][aA][xX]_|[nN]"|[bB][eE][sS][tT]_)')
# As nearly everybody writes them.
_USUAL = re.compile(
    rb'"(max_tokens|max_completion_tokens|max_output_tokens|n|best_of)"[ \t\r\n]*:[ \t\r\n]*([0-9]{1,9})'
    rb"[ \t\r\n]*[,}]"
)
_WORD = {word: index for index, word in enumerate(_WORDS)}
# An escaped letter or underscore of theirs.
_ESCAPES = (b"\\u004", b"\\u005", b"\\u006", b"\\u007")


def asked(body: bytes, *, is_whole: bool = True) -> list[tuple[int, float]]:
    """Each of the words at the top level of a body, with its value: infinite for what is no number.

    However often and in whatever spelling: providers differ in which one counts.

    :param is_whole: all of the body is there.
    """
    pattern = _START
    if b"\\" in body and b"\\u00" in body and any(escape in body for escape in _ESCAPES):
        pattern = _KEY
    found: list[tuple[int, float]] = []
    depth = _Depth(body, is_whole=is_whole)
    for candidate in pattern.finditer(body):
        start = candidate.start()
        if start and body[start - 1] == _BACKSLASH:
            continue
        usual = _USUAL.match(body, start)
        if usual is not None:
            told = _WORD[usual[1]], float(usual[2])
        elif (unusual := _unusual(body, start)) is not None:
            told = unusual
        else:
            continue
        if depth.is_top(start):
            found.append(told)
    return found


def _unusual(body: bytes, start: int) -> tuple[int, float] | None:
    """A word in any spelling that begins at ``start``, and its value; None if it is none, or says null."""
    match = _KEY.match(body, start)
    if match is None or match.lastindex is None:
        return None
    colon = skip_white(body, match.end())
    value = skip_white(body, colon + 1)
    if body[colon : colon + 1] != b":" or body.startswith(b"null", value):
        return None
    number = _NUMBER.match(body, value)
    return match.lastindex - 1, float(number[2]) if number else float("inf")


class _Depth:
    """Whether keys, in their order, stand at depth 1: quickly where few brackets stand before or behind one.

    Else brackets are counted, each once: a body can be full of such keys.
    """

    def __init__(self, body: bytes, *, is_whole: bool) -> None:
        self._body = body
        self._is_whole = is_whole
        self._counter = BracketCounter()
        self._counted = 0

    def is_top(self, start: int) -> bool:
        body = self._body
        if self._is_whole and len(body) - start <= _NEAR_BYTES and _brackets(body[start:]) == b"}":
            return True
        if start <= _NEAR_BYTES and _brackets(body[:start]) == b"{":
            return True
        self._counter.feed(body, self._counted, start)
        self._counted = start
        return self._counter.depth == 1


def _brackets(data: bytes) -> bytes:
    return data.translate(None, _NO_BRACKETS)
