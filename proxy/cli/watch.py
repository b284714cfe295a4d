"""A table that is refreshed: in place on a terminal, else appended.

On a terminal it is a screen of its own, which is gone afterwards with nothing changed, however the command
ends or is suspended. A gateway that is not there for a moment, or is restarted, ends nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any

from proxy.cli.admin_client import ConsoleError
from proxy.cli.tables import BAD, FAINT, PLAIN, Line, TextTable, cut, lay_out
from proxy.cli.terminal import can_redraw, console_of, print_json, say, show, size_of, text_of

WATCH_S = 2.0
_LOOK_S = 0.1  # how soon a resized window is redrawn

Rows = list[dict[str, Any]]
Pause = Callable[[float], None]


def watch(
    read: Callable[[], Rows],
    draw: Callable[[Rows], TextTable],
    *,
    title: str,
    as_json: bool = False,
    pause: Pause = time.sleep,
) -> int:
    """Show what ``read`` returns until Ctrl-C; returns the exit code.

    :param title: what it is, above the table on a terminal.
    :param as_json: one JSON document a line.
    :raises ConsoleError: it can't be read the first time.
    """
    try:
        if as_json or not can_redraw(sys.stdout):
            _print_on(read, draw, as_json, pause)
        else:
            _draw_on(read, draw, title, pause)
    except KeyboardInterrupt:  # the usual end
        pass
    return 0


def _print_on(
    read: Callable[[], Rows], draw: Callable[[Rows], TextTable], as_json: bool, pause: Pause
) -> None:
    rows = read()
    said = ""
    while True:
        if as_json:
            print_json({"data": rows}, is_line=True)
        else:
            show(draw(rows))
        while True:
            pause(WATCH_S)
            try:
                rows = read()
            except ConsoleError as error:
                if str(error) != said:  # once, not every two seconds
                    said = str(error)
                    say(said)
            else:
                said = ""
                break


def _draw_on(read: Callable[[], Rows], draw: Callable[[Rows], TextTable], title: str, pause: Pause) -> None:
    rows = read()
    from rich.live import Live

    console = console_of(sys.stdout)
    live = Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    trouble = ""
    with _signals() as suspended, live:
        while True:
            since = f"{datetime.now().astimezone():%H:%M:%S}"
            drawn = None
            for _ in range(round(WATCH_S / _LOOK_S)):
                size = size_of(sys.stdout)
                if size != drawn:
                    drawn = size
                    console.size = size
                    lines = frame(draw, rows, size, f"{title}, {since}; Ctrl-C ends it", trouble)
                    live.update(text_of(lines), refresh=True)
                pause(_LOOK_S)
                if suspended:
                    suspended.clear()
                    live.stop()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    live.start()
                    drawn = None
            try:
                rows = read()
                trouble = ""
            except ConsoleError as error:
                trouble = f"as it was before: {error}"


def frame(
    draw: Callable[[Rows], TextTable], rows: Rows, size: os.terminal_size, title: str, trouble: str
) -> list[Line]:
    """The lines of a screen: a title, and the table as far as there is room."""
    width, height = size
    top: list[Line] = [[(cut(title, width), FAINT)]]
    if trouble:
        top.append([(cut(trouble, width), BAD)])
    lines = list(lay_out(draw(rows), width))
    room = height - len(top)
    if len(lines) > room:
        # What is at work, or out of it, goes before what was never asked.
        rows = sorted(rows, key=_is_idle)
        lines = list(lay_out(draw(rows), width))
        more = f"… {len(lines) - room + 1} more lines, for which this window is too low"
        lines = [*lines[: max(room - 1, 0)], [(cut(more, width), PLAIN)]]
    return (top + lines)[:height]


def _is_idle(row: dict[str, Any]) -> bool:
    seen = row["row"] or {}
    return not (seen.get("finished") or seen.get("in_flight") or row["ejected_until"] is not None)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The ways out of the screen by SIGTERM and SIGHUP are those of Ctrl-C. What was sent by Ctrl-Z is in the
    list: it is to be obeyed between two frames."""
    suspended: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def suspend(number: int, _frame: FrameType | None) -> None:
        suspended.append(number)

    handlers = {signal.SIGTERM: end, signal.SIGHUP: end, signal.SIGTSTP: suspend}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield suspended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
