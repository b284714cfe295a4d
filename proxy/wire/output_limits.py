"""The work that a body asks for: each word for it at the top level, in any spelling that counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil
from typing import Final

from proxy.endpoints import ROWS, TAKES_COUNT
from proxy.wire.model_scanner import decoded
from proxy.wire.outline import value_at

# What limits a response's length: chat's older and newer word, and that of the Responses API. The next two
# say how many answers there are to be, and of how many they are the best; the last two, that the response is
# made behind the client's back, to be fetched later (OpenAI's word, and xAI's).
MAX_TOKENS: Final = 0
MAX_COMPLETION_TOKENS: Final = 1
MAX_OUTPUT_TOKENS: Final = 2
COUNT: Final = 3
BEST_OF: Final = 4
BACKGROUND: Final = 5
DEFERRED: Final = 6
OUTPUT_LIMITS: Final = frozenset((MAX_TOKENS, MAX_COMPLETION_TOKENS, MAX_OUTPUT_TOKENS))
WORDS: Final = (
    "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "background", "deferred",
)  # fmt: skip
# Compaction of responses: an endpoint for limits only, as it knows no word that limits its response.
COMPACT: Final = "compact"
# Which words limit a response's length where: another's are ignored there, and promise nothing. Endpoints
# that write no text are not here.
LIMITS_AT: Final[dict[str, tuple[int, ...]]] = {
    **{row.name: tuple([WORDS.index(word) for word in row.limited_by]) for row in ROWS if row.writes},
    COMPACT: (),
}
# OpenAI's maximum of n is 128, vLLM takes up to this.
_MOST_ANSWERS: Final = 16_384
_BY_WORD: Final = {word: index for index, word in enumerate(WORDS)}
_UNSEEN: Final = -1
_OTHER: Final = -2  # asked for elsewhere
_NULLED: Final = -2
_BY_KEY: Final = {
    **{f'"{word}"'.encode(): index for index, word in enumerate(WORDS)},
    b'"prompt"': _OTHER,
    b'"stream"': _OTHER,
    b'"stream_options"': _OTHER,
    b'"tools"': _OTHER,
}
# Also as text, which some providers take; whole, since they may read on where it seems to end ("1_000").
_NUMBER: Final = re.compile(rb'("?)(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\1(?=[ \t\r\n]*[,}])')
_INTEGER: Final = re.compile(rb"([0-9]{1,9})[ \t\r\n]*[,}]")
_NULL: Final = re.compile(rb"null(?=[ \t\r\n]*[,}])")
_NO: Final = re.compile(rb"(?:null|false)(?=[ \t\r\n]*[,}])")


class OutputLimits:
    """The work that a request asks of an endpoint.

    ``output``: of one response's tokens the most, as far as it says; 0: it doesn't, or nothing that limits.
    ``answers``: how many. ``is_async``: they are made behind the client's back. ``in_newer_word``: only
    chat's newer word limits the output, which many servers don't know. ``said``: the largest limit there is,
    by whatever API's word. ``unclear``: a word that programs may read differently, so that none limits
    anything for sure; -1: no word is unclear.
    """

    __slots__ = ("answers", "in_newer_word", "is_async", "output", "said", "unclear")

    def __init__(
        self, output: int = 0, answers: int = 1, is_async: bool = False, in_newer_word: bool = False,
        said: int = 0, unclear: int = -1,
    ) -> None:  # fmt: skip
        self.output = output
        self.answers = answers
        self.is_async = is_async
        self.in_newer_word = in_newer_word
        self.said = said
        self.unclear = unclear

    def __repr__(self) -> str:
        return f"<Wanted {self.output} tokens, {self.answers} answers{', async' if self.is_async else ''}>"


NOTHING_SAID: Final = OutputLimits()


def read_output_limits(
    body: bytes, keys: Sequence[tuple[int, int]], found: Sequence[tuple[int, float]], endpoint: str
) -> OutputLimits:
    """Return the meaning of the words at an endpoint; of several the largest.

    A limit of a response's length is a promise only where every program takes it alike: said once, in its own
    letters, as a whole number above 0. If one word is unclear, none of the others counts either: each program
    chooses for itself which of them it follows, and it may follow the unclear one.

    :param found: as returned by :func:`written_limits`, for the same ``body`` and ``keys``.
    :param endpoint: one of :data:`LIMITS_AT`, or one that writes no text.
    """
    if not found:
        return NOTHING_SAID
    output, answers, is_async, in_newer_word = 0, 1.0, False, False
    is_limited, said, unclear = False, 0, _UNSEEN
    for word, value in found:
        if word >= BACKGROUND:
            is_async = True
        elif word >= COUNT:
            answers = max(answers, value)
        else:
            is_limited = True
    if is_limited:
        promised, unclear = _promised(body, keys)
        said = max(promised)
        if unclear < 0:
            for word in LIMITS_AT.get(endpoint, ()):
                output = max(output, promised[word])
        in_newer_word = endpoint == "chat" and output > 0 and promised[MAX_TOKENS] <= 0
    several = ceil(min(answers, _MOST_ANSWERS)) if endpoint in TAKES_COUNT else 1
    return OutputLimits(output, several, is_async, in_newer_word, said, unclear)


def _promised(body: bytes, keys: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """The limits that are promises, by word, 0 or less: none; and a word of which something else is said than
    one of these or null, or -1."""
    found, unclear = [_UNSEEN, _UNSEEN, _UNSEEN], _UNSEEN
    for start, stop in keys:
        key = body[start:stop]
        word, is_exact = _BY_KEY.get(key, _UNSEEN), True
        if word == _UNSEEN:
            text = decoded(key)
            word = _OTHER if text is None else _BY_WORD.get(text.casefold(), _OTHER)
            is_exact = text in _BY_WORD
        if word < 0 or word > MAX_OUTPUT_TOKENS:
            continue
        at = value_at(body, stop)
        value = _usual_value(body, at)
        if value < 0:
            if _NULL.match(body, at):
                value = _NULLED
            else:
                number = _INTEGER.match(body, at)
                value = 0 if number is None else int(number[1])
        is_first = found[word] == _UNSEEN
        if value == _NULLED:
            is_clear = is_first or found[word] == _NULLED
        else:
            is_clear = is_first and is_exact and value > 0
        if not is_clear:
            value, unclear = 0, word
        found[word] = value
    return found, unclear


def written_limits(body: bytes, keys: Sequence[tuple[int, int]]) -> list[tuple[int, float]]:
    """Each of the words among the top-level keys of a body, with its value: infinite for what is no number.

    However often and in whatever spelling: providers differ in which one counts. Also with escapes, and as
    those understand it who read keys in either case (Go's encoding/json, which takes the Kelvin sign for a k
    and the long s for an s).

    :param keys: where they begin and end, quotes included.
    """
    found: list[tuple[int, float]] = []
    for start, stop in keys:
        key = body[start:stop]
        word = _word_of(key)
        if word < 0:
            continue
        at = value_at(body, stop)
        if word >= BACKGROUND:
            if not _NO.match(body, at):
                found.append((word, 1.0))
            continue
        value = _usual_value(body, at)
        if value >= 0:
            found.append((word, float(value)))
        elif not _NULL.match(body, at):
            number = _NUMBER.match(body, at)
            found.append((word, float(number[2]) if number else float("inf")))
    return found


def is_word(key: bytes) -> bool:
    """Return whether a key is one of the words, in any spelling that counts."""
    return _word_of(key) >= 0


def _word_of(key: bytes) -> int:
    """Its index, or less than 0."""
    word = _BY_KEY.get(key, _UNSEEN)
    if word == _UNSEEN:
        text = decoded(key)
        word = _OTHER if text is None else _BY_WORD.get(text.casefold(), _OTHER)
    return word


def _usual_value(body: bytes, at: int) -> int:
    """The number that begins at ``at``, as it is nearly always written: a few digits, and what follows."""
    value, end = 0, min(at + 9, len(body))
    begin = at
    while at < end:
        byte = body[at]
        if not 0x30 <= byte <= 0x39:
            return value if at > begin and byte in (0x2C, 0x7D) else -1
        value = 10 * value + byte - 0x30
        at += 1
    return -1
