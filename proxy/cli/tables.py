"""Tables as lines of text: whole without a width, else made to fit it.

Where there is too little room, what can be folded or cut is; then columns leave, those first that are missed
least. What stays whatever happens is folded rather than cut.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

HEAD, GOOD, BAD, WARN, FAINT, PLAIN = "head", "good", "bad", "warn", "faint", ""
NOTHING = "-"  # an empty cell

_GAP = "  "
_PIECE = re.compile(r"[^ ,]*[ ,]*")  # a list of names without spaces has to be folded, too

Line = list[tuple[str, str]]  # text and tone


class Column(NamedTuple):
    """A column of a table.

    ``is_number``: its cells end under each other. ``rank``: the higher, the sooner it leaves; 0 stays.
    ``least``: the fewest characters that it may be narrowed to; 0: it may not. ``is_cut``: then what is
    too long is cut, else folded. ``tone``: of a cell, by its text.
    """

    title: str
    is_number: bool = False
    rank: int = 0
    least: int = 0
    is_cut: bool = False
    tone: Callable[[str], str] = lambda text: PLAIN


class TextTable(NamedTuple):
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


def clean(text: str) -> str:
    """Make one line without control characters, so that foreign text can't control a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else " " for char in text)


def cells(text: str) -> int:
    """The number of terminal columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_cells_of, text))


def _cells_of(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The beginning of a text, with an ellipsis where there was more."""
    return text if cells(text) <= width else _start(text, width - 1) + "…"


def _start(text: str, width: int) -> str:
    """As much of a text as fits."""
    used = 0
    for position, char in enumerate(text):
        used += _cells_of(char)
        if used > width:
            return text[:position]
    return text


def fold(text: str, width: int) -> list[str]:
    """Lines that fit: broken behind spaces and commas, and within words that are longer than a line."""
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        left = piece
        while cells(line + left.rstrip()) > width:
            if line:
                lines.append(line.rstrip())
                line = ""
            else:
                start = _start(left, width) or left[0]
                lines.append(start.rstrip())
                left = left[len(start) :]
        line += left
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def fit(
    columns: Sequence[Column], needed: Sequence[int], width: int, empty: Collection[int] = ()
) -> dict[int, int]:
    """Choose the columns that fit, and their widths.

    :param needed: the width of each column's widest cell.
    :param empty: columns that have a title only; they are the first to leave.
    """
    shown = dict(enumerate(needed))
    left = sorted(empty)
    while (over := _total(shown) - width) > 0:
        if left:
            del shown[left.pop()]
            continue
        room = {index: needed[index] - columns[index].least for index in shown if columns[index].least}
        if over <= sum(spare for spare in room.values() if spare > 0):
            return _narrowed(shown, {index: columns[index].least for index in room}, over)
        leaves = max(shown, key=lambda index: (columns[index].rank, index))
        if not columns[leaves].rank:
            return _narrowed(shown, dict.fromkeys(shown, 1), over)
        del shown[leaves]
    return shown


def _total(shown: dict[int, int]) -> int:
    return sum(shown.values()) + len(_GAP) * (len(shown) - 1)


def _narrowed(shown: dict[int, int], least: dict[int, int], over: int) -> dict[int, int]:
    """The widest give way first."""
    shown = dict(shown)
    for _ in range(over):
        widest = max(least, key=lambda index: shown[index] - least[index])
        if shown[widest] <= least[widest]:
            break
        shown[widest] -= 1
    return shown


def lay_out(table: TextTable, width: int | None = None) -> Iterator[Line]:
    """The lines of a table, without spaces at their ends; the first is the head.

    :param width: of the terminal; None: there is none, and each row is one line.
    """
    columns = table.columns
    rows = [[clean(cell).rstrip() for cell in row] for row in table.rows]
    titles = [column.title for column in columns]
    cells_of = list(zip(*rows, strict=True)) or [()] * len(columns)
    needed = [max(map(cells, (title, *found))) for title, found in zip(titles, cells_of, strict=True)]
    empty = [index for index, found in enumerate(cells_of) if not any(found)] if rows else []
    shown = dict(enumerate(needed)) if width is None else fit(columns, needed, width, empty)
    if any(titles):
        yield from _row(columns, shown, titles, [HEAD] * len(columns))
    for row in rows:
        tones = [_tone(column, cell) for column, cell in zip(columns, row, strict=True)]
        yield from _row(columns, shown, row, tones)
    hidden = [column.title for index, column in enumerate(columns) if index not in {*shown, *empty}]
    if hidden:
        note = f"(too narrow for {', '.join(hidden)})"
        yield from ([(line, FAINT)] for line in fold(note, width or len(note)))


def _tone(column: Column, cell: str) -> str:
    return FAINT if cell == NOTHING else column.tone(cell)


def _row(
    columns: Sequence[Column], shown: dict[int, int], row: Sequence[str], tones: Sequence[str]
) -> Iterator[Line]:
    parts = [
        [cut(row[index], width)] if columns[index].is_cut else fold(row[index], width)
        for index, width in shown.items()
    ]
    for texts in zip_longest(*parts, fillvalue=""):
        line: Line = []
        for text, (index, width) in zip(texts, shown.items(), strict=True):
            space = " " * (width - cells(text))
            if columns[index].is_number:
                line += [(space, PLAIN), (text, tones[index]), (_GAP, PLAIN)]
            else:
                line += [(text, tones[index]), (space + _GAP, PLAIN)]
        while line and not line[-1][0].strip():
            line.pop()
        yield [(text, tone) for text, tone in line if text]


def plain(table: TextTable, width: int | None = None) -> str:
    """The table as text."""
    return "\n".join("".join(text for text, _ in line) for line in lay_out(table, width))
