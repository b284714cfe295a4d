"""Places of pictures, sounds and documents in a body: the parts of a prompt where APIs read one.

The same string is text to a model below ``tools``, in what a tool is called with, in a schema, or anywhere
else: there it counts by its bytes. Only what bodies have beside such strings is looked at.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from proxy.wire.json_body import ends_of, part_of
from proxy.wire.outline import end_of_string

# A text is walked through up to here, which takes at most 5 ms where it is compiled. What looks like a medium
# behind that is believed: the text before it counts as text, of which a model takes little more.
_MOST_BYTES: Final = 3 << 19
# More pictures are in no request, nor is one nested as deep: what stands behind that counts as text.
_MOST_SPANS: Final = 1_000
_MOST_DEPTH: Final = 64
# Longer strings say nothing that is asked for.
_LONGEST_WORD: Final = 32
_TOKEN: Final = re.compile(rb'["{}\[\]]')
_COLON: Final = re.compile(rb"[ \t\r\n]*:")

# Prompts, by their key at the top level: chat's and Anthropic's; those of responses, embeddings and rerank;
# Google's; a picture to begin with.
_PROMPTS: Final = frozenset(
    (b"messages", b"input", b"inputs", b"contents", b"documents", b"query", b"image", b"images")
)
# Objects with a medium in them, and the member that it is.
_HOLDERS: Final = {
    b"source": b"data",
    b"inline_data": b"data",
    b"inlineData": b"data",
    b"input_audio": b"data",
    b"audio": b"data",
    b"image_url": b"url",
    b"audio_url": b"url",
    b"video_url": b"url",
    b"file": b"file_data",
}
# What leads from a prompt to its parts, and to parts within those: what a tool has found.
_LISTS: Final = frozenset((b"content", b"parts", b"output"))
# Members of a part itself.
_MEMBERS: Final = frozenset((b"image_url", b"file_data", b"result", b"b64_json", b"image", b"audio"))


class Span:
    """A string of a body that looks like a medium: where it begins, and how long it is as far as it came."""

    __slots__ = ("size", "start")

    def __init__(self, start: int, size: int) -> None:
        self.start = start
        self.size = size


class _Level:
    """An open object or list. ``name``: the key that it, or the list it is in, has. ``may``: media may stand
    in it. ``key``: the latest. ``type``: what it says of itself, ``types`` times. ``found``: what looks like
    media in it."""

    __slots__ = ("found", "is_list", "key", "may", "name", "type", "types")

    def __init__(self, name: bytes, may: bool, is_list: bool) -> None:
        self.name = name
        self.may = may
        self.is_list = is_list
        self.key = self.type = b""
        self.types = 0
        self.found: list[int] = []

    def take(self, string: bytes, is_key: bool, medium: int | None, depth: int) -> None:
        """A string that stands right in it. ``medium``: the index of the one that it is."""
        if is_key:
            self.key = string
        elif self.is_list:
            return
        elif medium is not None:
            held = _HOLDERS.get(self.name)
            if depth == 1:
                fits = self.key == b"image"
            else:
                fits = self.key == held if held is not None else self.key in _MEMBERS
            if self.may and fits:
                self.found.append(medium)
        elif self.key == b"type":
            self.type, self.types = string, self.types + 1

    def media(self) -> list[int]:
        """The media in it, once it is closed. A ``source`` says that it is one, else it is text or a link."""
        is_one = self.name != b"source" or (self.types == 1 and self.type == b"base64")
        return self.found if is_one else []


def placed(pieces: Sequence[bytes], spans: Sequence[Span]) -> list[bool]:
    """Return those of the strings that stand where an API reads a medium.

    :param pieces: of the whole body. :param spans: in the order in which they stand there.
    """
    text, marks, indexes, behind = _without(pieces, spans)
    good = [False] * len(spans)
    found, is_flat = walk(text, marks)
    for at in found:
        good[indexes[at]] = True
    if is_flat:
        for index in behind:
            good[index] = True
    return good


def walk_slowly(text: bytes, marks: list[int]) -> tuple[list[int], bool]:
    """Return the numbers of those strings, by their opening quotes at ``marks``, that are media; and whether
    the text is nested no more than it may be.

    :param marks: in order; of equal ones the last counts.
    """
    media = {mark: number for number, mark in enumerate(marks)}
    good: list[int] = []
    levels: list[_Level] = []
    at = 0
    while len(levels) <= _MOST_DEPTH and (token := _TOKEN.search(text, at)) is not None:
        at, byte = token.end(), token[0]
        level = levels[-1] if levels else None
        if byte == b'"':
            end = end_of_string(text, at)
            if end < 0:
                break
            if level is not None:
                word = text[at:end] if end - at < _LONGEST_WORD else b""
                level.take(word, _COLON.match(text, end + 1) is not None, media.get(at - 1), len(levels))
            at = end + 1
        elif byte in b"{[":
            levels.append(_opened(level, len(levels), byte == b"["))
        elif level is not None:
            levels.pop()
            good += reversed(level.media())
    return good, len(levels) <= _MOST_DEPTH


def _opened(above: _Level | None, depth: int, is_list: bool) -> _Level:
    if above is None:
        return _Level(b"", True, is_list)
    if above.is_list:
        return _Level(above.name, above.may and depth > 1, is_list)
    name = above.key
    known = name in _PROMPTS if depth == 1 else name in _LISTS or name in _HOLDERS
    return _Level(name, above.may and known, is_list)


def _without(pieces: Sequence[bytes], spans: Sequence[Span]) -> tuple[bytes, list[int], list[int], list[int]]:
    """A body with the strings emptied, up to a bound. Where in it the quotes before them are, and which these
    are; and which stand behind that."""
    ends = ends_of(pieces)
    parts: list[bytes] = []
    size = begin = 0
    marks: list[int] = []
    indexes: list[int] = []
    behind: list[int] = []
    for index, span in enumerate(spans[:_MOST_SPANS]):
        end = span.start + span.size
        if part_of(pieces, ends, end - 1, end) == b"\\":  # not its end: the quote behind it is escaped
            continue
        stop = min(span.start, begin + _MOST_BYTES - size)
        _add(parts, pieces, ends, begin, stop)
        size += stop - begin
        begin = stop
        if stop < span.start:
            behind.append(index)
            continue
        marks.append(size - 1)
        indexes.append(index)
        begin = end
    _add(parts, pieces, ends, begin, begin + _MOST_BYTES - size)
    return b"".join(parts), marks, indexes, behind


def _add(parts: list[bytes], pieces: Sequence[bytes], ends: list[int], start: int, stop: int) -> None:
    """Add ``body[start:stop]`` of a body in pieces, which end at ``ends``."""
    index = bisect_right(ends, start)
    while start < stop and index < len(pieces):
        piece = pieces[index]
        begin = ends[index] - len(piece)
        parts.append(piece[start - begin : stop - begin])
        start = ends[index]
        index += 1


walk: Callable[[bytes, list[int]], tuple[list[int], bool]] = walk_slowly
try:
    from proxy.wire._outline import walk
except ImportError:
    pass
