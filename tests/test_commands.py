"""What commands have in common. Which file they go by is in test_cli.py."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser

import pytest

from proxy.commands import Actions, CommandError, Commands, admin_of, load_if_needed

GOOD = '[admin]\nlisten = "127.0.0.1:9"\n[providers.p]\nbase_url = "http://h/v1"\n[models."p/m"]\n'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOKENHUB_CONFIG", raising=False)
    return tmp_path


def run(args: argparse.Namespace) -> int:
    return 7


@pytest.fixture
def parser():
    parser = ArgumentParser(prog="th")
    commands = Commands(parser)
    commands.add("local", run, "Does it here.", "local --config F")
    actions = Actions(commands.add_admin("things", run, "Does things.", "things do x"))
    actions.add("do", "do it", "Do it, at once.", "x").add_argument("what")
    actions.add("rest", "rest", "Rest.", "")
    return parser


@pytest.mark.parametrize(
    "argv",
    [
        ["things", "--admin", "A", "--config", "C", "do", "x"],
        ["things", "do", "x", "--admin", "A", "--config", "C"],
        ["things", "--admin", "A", "do", "--config", "C", "x"],
        ["things", "--admin", "other", "--config", "C", "do", "x", "--admin", "A"],
    ],
    ids=" ".join,
)
def test_options_before_an_action_and_behind_it(parser, argv):
    args = parser.parse_args(argv)
    assert (args.admin, args.config, args.action, args.what) == ("A", "C", "do", "x")


def test_options_that_are_not_given(parser):
    args = parser.parse_args(["things", "rest"])
    assert (args.admin, args.config, args.action) == (None, None, "rest")
    args = parser.parse_args(["local"])
    assert (args.config, args.run(args)) == (None, 7)
    assert not hasattr(args, "admin")


def test_the_parser_is_that_of_the_action(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["things", "do", "x"]).parser.error("no")
    assert "usage: th things do [" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["local"], "Does it here.\n"),
        (["local"], "example:\n  tokenhub local --config F\n"),
        (["things", "do"], "Do it, at once.\n"),
        (["things", "do"], "example:\n  th things do x\n"),
        (["things", "rest"], "example:\n  th things rest\n"),
    ],
)
def test_help(parser, capsys, argv, text):
    with pytest.raises(SystemExit):
        parser.parse_args([*argv, "--help"])
    assert text in capsys.readouterr().out


def test_with_an_address_no_configuration_is_needed(parser, folder):
    args = parser.parse_args(["things", "rest"])
    with pytest.raises(CommandError, match=r"there is no routes\.toml here"):
        load_if_needed(args)
    args = parser.parse_args(["things", "rest", "--admin", "http://h:1"])
    assert load_if_needed(args) is None
    assert admin_of(args).url == "http://h:1"
    (folder / "routes.toml").write_text("[nonsense]\n")
    assert load_if_needed(args) is None
    (folder / "routes.toml").write_text(GOOD)
    assert load_if_needed(args) is not None
    assert admin_of(parser.parse_args(["things", "rest"])).url == "http://127.0.0.1:9"
