"""Positions of all keys and values of a TOML document in its text.

The values come from :mod:`tomllib`, which keeps no positions. This module reads the same text a second time
and only notes offsets: it trusts that tomllib has accepted the document, so it looks for the end of a token,
never for mistakes in it. Given a document tomllib refuses, its answers mean nothing.

A place is named by its path: ``("models", "openai/gpt-4o", "weight")`` is a key's, ``("server", "listen",
1)`` the second element's of an array, ``("x", 0)`` also the first table's of ``[[x]]``.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import NamedTuple

Path = tuple[str | int, ...]

_BLANK = re.compile(r"[ \t]*+")
_FILLER = re.compile(r"(?:[ \t\r\n]|#[^\n]*+)*+")  # between statements, and anywhere inside brackets
_KEY = re.compile(r"""[A-Za-z0-9_-]++|"(?:[^"\\]|\\.)*+"|'[^']*+'""")
# A multi-line string may end in one or two quotes of its own right before the closing three.
_TEXT = re.compile(
    r'''"""(?:[^"\\]|\\.|"{1,2}(?!"))*+"{3,5}'''
    r"""|\'\'\'(?:[^']|'{1,2}(?!'))*+'{3,5}"""
    r'''|"(?:[^"\\]|\\.)*+"'''
    r"""|'[^']*+'""",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*+")  # numbers, booleans and dates (which may contain a space)


class Position(NamedTuple):
    """A place in a text, both counts from 1; the column counts characters."""

    line: int
    column: int


class Positions:
    """Looks up the places of one document.

    :param text: a document that ``tomllib.loads`` accepts.
    """

    def __init__(self, text: str) -> None:
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        scan = _Scan(text)
        scan.document()
        self._keys, self._values = scan.keys, scan.values

    def __repr__(self) -> str:
        return f"<Positions keys={len(self._keys)} values={len(self._values)}>"

    def key(self, path: Path) -> Position:
        """Return the start of the key of `path` (its opening quote, if it has one).

        For an array's element this is the element; for a path that isn't in the document the nearest table or
        array around it; for a document without any of these its first character.
        """
        return self._look_up(path, self._keys)

    def value(self, path: Path) -> Position:
        """Return the start of the value of `path`; for a table with a header, of its name there. Else as
        `key`."""
        return self._look_up(path, self._values)

    def _look_up(self, path: Path, first: dict[Path, int]) -> Position:
        while path:
            offset = first.get(path, self._values.get(path))
            if offset is not None:
                line = bisect_right(self._line_starts, offset)
                return Position(line, offset - self._line_starts[line - 1] + 1)
            path = path[:-1]
        return Position(1, 1)


class _Scan:
    """One pass over the text. `pos` is the next character; every method leaves it behind what it has read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.keys: dict[Path, int] = {}
        self.values: dict[Path, int] = {}
        self._table_counts: dict[Path, int] = {}  # of each [[array of tables]] so far

    def document(self) -> None:
        prefix: Path = ()
        self._skip(_FILLER)
        while self.pos < len(self.text):
            if self.text[self.pos] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)
            self._skip(_FILLER)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.pos)
        if match is None:
            raise ValueError(f"not a document that tomllib accepts (character {self.pos})")
        self.pos = match.end()
        return match.group()

    def _dotted_key(self) -> list[tuple[int, str]]:
        """The parts of ``a."b".c`` with their offsets."""
        parts = []
        while True:
            self._skip(_BLANK)
            start = self.pos
            parts.append((start, _name(self._skip(_KEY))))
            self._skip(_BLANK)
            if self.text[self.pos] != ".":
                return parts
            self.pos += 1

    def _header(self) -> Path:
        """Reads ``[a.b]`` or ``[[a.b]]``; gives the path that the following pairs belong to."""
        is_array = self.text.startswith("[[", self.pos)
        self.pos += 2 if is_array else 1
        parts = self._dotted_key()
        self.pos += 2 if is_array else 1
        path: Path = ()
        for offset, name in parts[:-1]:
            path = self._implied((*path, name), offset)
            if path in self._table_counts:  # [a.b] below [[a]] means the latest a
                path = (*path, self._table_counts[path] - 1)
        offset, name = parts[-1]
        path = (*path, name)
        if is_array:
            count = self._table_counts.get(path, 0)
            self._table_counts[path] = count + 1
            self._implied(path, offset)
            path = (*path, count)
        self.keys[path] = self.values[path] = offset
        return path

    def _pair(self, prefix: Path) -> None:
        path = prefix
        parts = self._dotted_key()
        for offset, name in parts[:-1]:
            path = self._implied((*path, name), offset)
        offset, name = parts[-1]
        path = (*path, name)
        self.keys[path] = offset
        self.pos += 1  # the "="
        self._skip(_BLANK)
        self._value(path)

    def _implied(self, path: Path, offset: int) -> Path:
        """A table that a dotted name creates stands where it is named first, unless it has a header."""
        self.keys.setdefault(path, offset)
        self.values.setdefault(path, offset)
        return path

    def _value(self, path: Path) -> None:
        self.values[path] = self.pos
        opening = self.text[self.pos]
        if opening in "\"'":
            self._skip(_TEXT)
        elif opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        self.pos += 1
        self._skip(_FILLER)
        while self.text[self.pos] != "]":
            self._value((*path, index))
            index += 1
            self._comma()
        self.pos += 1

    def _inline_table(self, path: Path) -> None:
        self.pos += 1
        self._skip(_FILLER)
        while self.text[self.pos] != "}":
            self._pair(path)
            self._comma()
        self.pos += 1

    def _comma(self) -> None:
        self._skip(_FILLER)
        if self.text[self.pos] == ",":
            self.pos += 1
            self._skip(_FILLER)


def _name(written: str) -> str:
    """A key without its quotes and escapes."""
    if written[0] == '"' and "\\" in written:
        return str(tomllib.loads(f"k = {written}")["k"])
    return written[1:-1] if written[0] in "\"'" else written
