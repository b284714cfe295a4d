"""Output of commands: with width and colours on a terminal, without on a pipe.

What programs read goes to standard output, alone; what only people want to know goes to standard error.
Nothing that is printed here controls a terminal, not even text from others.
``rich`` knows which colours a terminal has. It is loaded when there are some to be shown, and never for
``serve``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, TextIO

from proxy.cli.tables import BAD, FAINT, GOOD, HEAD, PLAIN, WARN, Line, TextTable, clean, lay_out

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

USUAL_SIZE = os.terminal_size((80, 24))  # if a terminal doesn't report one
_NO_CURSOR = ("", "dumb", "unknown")  # TERM of those that can do no more than a printer
# What JSON itself needs no escapes for: DEL, C1 controls (U+009B is ESC and "[" in one), and what is not seen
# but turns the direction of text or breaks lines.
_STEERING = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_STYLES = {HEAD: "bold", GOOD: "green", BAD: "red", WARN: "yellow", FAINT: "dim", PLAIN: ""}


def can_redraw(stream: TextIO) -> bool:
    """True: the stream is a terminal whose lines can be rewritten."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in _NO_CURSOR


def has_colours(stream: TextIO) -> bool:
    """Decide by no-color.org and force-color.org, else by the terminal's abilities."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return can_redraw(stream)


def size_of(stream: TextIO) -> os.terminal_size:
    """The size of a terminal; COLUMNS and LINES have precedence over its own."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        found = USUAL_SIZE
    said = [os.environ.get(name, "") for name in ("COLUMNS", "LINES")]
    columns, lines = (int(text) if text.isdecimal() else 0 for text in said)
    return os.terminal_size(
        (columns or found.columns or USUAL_SIZE.columns, lines or found.lines or USUAL_SIZE.lines)
    )


def width_of(stream: TextIO) -> int | None:
    """The width of a terminal; None: no terminal, so lines have any length."""
    return size_of(stream).columns if stream.isatty() else None


def console_of(stream: TextIO) -> Console:
    """rich's view of a stream. What goes through it is wrapped by us, and holds no markup."""
    from rich.console import Console

    width, height = size_of(stream)
    return Console(
        file=stream,
        force_terminal=can_redraw(stream) or has_colours(stream),
        color_system="auto" if has_colours(stream) else None,
        no_color=False,  # decided above
        width=width,
        height=height,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        legacy_windows=False,
    )


def text_of(lines: list[Line]) -> Text:
    """The lines with their tones, for rich."""
    from rich.text import Text

    styled = Text(no_wrap=True)
    for number, line in enumerate(lines):
        if number:
            styled.append("\n")
        for text, tone in line:
            styled.append(clean(text), _STYLES[tone])
    return styled


def show(table: TextTable) -> None:
    """Print a table to standard output."""
    show_lines(list(lay_out(table, width_of(sys.stdout))))


def show_lines(lines: list[Line]) -> None:
    """Print lines to standard output, with colours where it has some."""
    if has_colours(sys.stdout):
        console_of(sys.stdout).print(text_of(lines))
    else:
        print("\n".join("".join(clean(text) for text, _ in line) for line in lines))
    sys.stdout.flush()


def say(text: str) -> None:
    """One line to standard error, for people."""
    print(f"tokenhub: {clean(text)}", file=sys.stderr, flush=True)


def print_json(found: object, *, is_line: bool = False) -> None:
    """Print a JSON document to standard output.

    :param is_line: all of it in one line, as one of several.
    """
    text = json.dumps(found, indent=None if is_line else 2, ensure_ascii=False)
    print(_STEERING.sub(lambda match: json.dumps(match[0])[1:-1], text), flush=True)
