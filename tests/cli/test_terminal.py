"""What is printed, by what it goes to. Real terminals are in tests/e2e/test_terminal.py."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest

from proxy.cli import terminal
from proxy.cli.tables import BAD, PLAIN, Column, TextTable
from proxy.cli.terminal import can_redraw, has_colours, print_json, say, show, show_lines, size_of, width_of
from tests.support.terminal import Stream

TABLE = TextTable(
    (Column("NAME"), Column("STATE", tone=lambda text: BAD), Column("MORE", rank=1)),
    [("a", "ejected", "x" * 30)],
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.mark.parametrize(("is_terminal", "environ", "colours"), [
    (True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"NO_COLOR": ""}, True),
    (False, {"FORCE_COLOR": "1"}, True), (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    (True, {"TERM": "dumb"}, False), (True, {"TERM": ""}, False),
])  # fmt: skip
def test_colours(monkeypatch, is_terminal, environ, colours):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert has_colours(Stream(is_terminal)) is colours


@pytest.mark.parametrize(
    ("is_terminal", "term", "can"), [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)]
)
def test_what_can_be_drawn_anew(monkeypatch, is_terminal, term, can):
    monkeypatch.setenv("TERM", term)
    assert can_redraw(Stream(is_terminal)) is can


def test_a_pipe_has_no_width_and_a_terminal_has_a_size(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert width_of(Stream(False)) is None
    assert width_of(Stream(True)) == 20
    monkeypatch.delenv("COLUMNS")
    stream = Stream(True)
    assert size_of(stream) == (80, 24)  # it has none to tell
    monkeypatch.setattr(stream, "fileno", lambda: 7)
    monkeypatch.setattr(os, "get_terminal_size", lambda number: os.terminal_size((100 + number, 0)))
    assert size_of(stream) == (107, 24)
    monkeypatch.setenv("COLUMNS", "x")
    monkeypatch.setenv("LINES", "9")
    assert size_of(stream) == (107, 9)


def shown(monkeypatch, is_terminal: bool) -> str:
    stream = Stream(is_terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    show(TABLE)
    return stream.getvalue()


def test_a_table_in_a_pipe_for_which_rich_is_not_needed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert shown(monkeypatch, False) == f"NAME  STATE    MORE\na     ejected  {'x' * 30}\n"
    monkeypatch.setattr(terminal, "console_of", None)
    assert shown(monkeypatch, False)


def test_a_table_on_a_terminal_and_with_colours_in_a_pipe(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    assert shown(monkeypatch, True) == (
        "\x1b[1mNAME\x1b[0m  \x1b[1mSTATE\x1b[0m\na     \x1b[31mejected\x1b[0m\n"
        "\x1b[2m(too narrow for MORE)\x1b[0m\n"
    )
    monkeypatch.setenv("NO_COLOR", "1")
    assert shown(monkeypatch, True) == "NAME  STATE\na     ejected\n(too narrow for MORE)\n"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = shown(monkeypatch, False)
    assert "\x1b[31mejected\x1b[0m" in text
    assert "x" * 30 in text
    assert text.count("\n") == 2


def test_documents_and_what_people_want_to_know(capsys):
    print_json({"ü": [1]})
    assert capsys.readouterr().out == '{\n  "ü": [\n    1\n  ]\n}\n'
    print_json({"ü": [1]}, is_line=True)
    out = capsys.readouterr().out
    assert (json.loads(out), out.count("\n")) == ({"ü": [1]}, 1)
    say("so")
    assert capsys.readouterr() == ("", "tokenhub: so\n")


STEERING = "\x1b[2J \x9b2J \x07 \x7f \r \0 \u202e \u2066 \u2028 \u061c \u200b \ufeff \x85"


@pytest.mark.parametrize("colours", ["", "1"])
def test_whatever_others_wrote_steers_no_terminal(capsys, monkeypatch, colours):
    monkeypatch.setenv("FORCE_COLOR", colours)
    show(TextTable((Column(STEERING),), [(STEERING,)]))
    show_lines([[(STEERING, PLAIN)], [("", PLAIN)]])
    say(STEERING)
    print_json({STEERING: [STEERING]})
    told = capsys.readouterr()
    assert json.loads(told.out[told.out.index("{") :]) == {STEERING: [STEERING]}
    left = re.sub("\x1b\\[[0-9;]*m", "", told.out + told.err).replace("\n", "")
    assert left.count("2J") == 12 and left.isprintable()
