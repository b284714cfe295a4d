"""Watching where it is no terminal, and the frames of one. On a real one: tests/e2e/test_terminal.py."""

from __future__ import annotations

import json
import os

import pytest

from proxy.cli.admin_client import ConsoleError
from proxy.cli.tables import Column, TextTable
from proxy.cli.watch import WATCH_S, frame, watch


def draw(rows: list[dict]) -> TextTable:
    return TextTable((Column("NAME"), Column("N", rank=1)), [(row["name"], str(row["n"])) for row in rows])


class Source:
    """Answers one after the other; an exception is raised. Behind the last one comes Ctrl-C."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.pauses: list[float] = []

    def read(self) -> list[dict]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if not self.answers:
            raise KeyboardInterrupt


ONE, TWO = [{"name": "a", "n": 1}], [{"name": "a", "n": 2}]


def run(source: Source, **how) -> int:
    return watch(source.read, draw, title="t", pause=source.pause, **how)


def test_a_table_again_and_again_or_a_document_a_line(capsys):
    source = Source(ONE, TWO)
    assert run(source) == 0
    assert capsys.readouterr().out == "NAME  N\na     1\nNAME  N\na     2\n"
    assert source.pauses == [WATCH_S, WATCH_S]
    assert run(Source(ONE, TWO), as_json=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [{"data": ONE}, {"data": TWO}]


def test_who_is_not_there_at_first_is_an_error_and_later_is_waited_for(capsys):
    with pytest.raises(ConsoleError, match="nobody"):
        run(Source(ConsoleError("nobody")))
    gone = ConsoleError("nobody")
    assert run(Source(ONE, gone, gone, TWO, gone, ONE)) == 0
    out, err = capsys.readouterr()
    assert out.count("NAME") == 3
    assert err == "tokenhub: nobody\n" * 2


def rows(count: int) -> list[dict]:
    return [{"name": f"m{n}", "n": n, "row": None, "ejected_until": None} for n in range(count)]


def text_of(lines) -> list[str]:
    return ["".join(text for text, _ in line) for line in lines]


def test_a_frame_and_a_low_window_that_shows_what_is_at_work():
    lines = text_of(frame(draw, rows(2), os.terminal_size((30, 10)), "title", ""))
    assert lines == ["title", "NAME  N", "m0    0", "m1    1"]
    lines = text_of(frame(draw, rows(2), os.terminal_size((12, 10)), "a long title", "what is wrong"))
    assert lines[:2] == ["a long title", "what is wro…"]
    found = rows(9)
    found[6]["row"] = {"in_flight": 0, "finished": 0}  # only looked at
    found[7]["row"] = {"in_flight": 1, "finished": 0}
    found[8]["ejected_until"] = 1.0
    lines = text_of(frame(draw, found, os.terminal_size((60, 6)), "title", ""))
    assert lines == [
        "title", "NAME  N", "m7    7", "m8    8", "m0    0",
        "… 6 more lines, for which this window is too low",
    ]  # fmt: skip
    for height in (1, 2, 3):
        assert len(frame(draw, found, os.terminal_size((60, height)), "title", "trouble")) == height
    exact = frame(draw, found, os.terminal_size((60, 11)), "title", "")
    assert text_of(exact)[-1] == "m8    8"
