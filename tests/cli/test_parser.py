"""What commands have in common. Which file they go by is in test_cli.py."""

from __future__ import annotations

import argparse

import pytest

from proxy.cli import parser as parser_module
from proxy.cli.parser import Actions, CommandError, Commands, Parser, load_if_needed, number, seconds, whole
from proxy.config.settings import STRATEGIES, Listen

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
    parser = Parser(prog="th")
    commands = Commands(parser)
    parser_module.add_json(commands.add("local", run, "Does it here.", "local --config F", "local --json"))
    actions = Actions(commands.add_admin("things", run, "Does things.", "things do x"))
    actions.add("do", "do it", "Do it, at once.", "x").add_argument("what")
    actions.add("rest", "rest", "Rest.", "")
    return parser


@pytest.mark.parametrize("argv", [
    ["things", "--admin", "A", "--config", "C", "do", "x"],
    ["things", "do", "x", "--admin", "A", "--config", "C"],
    ["things", "--admin", "A", "do", "--config", "C", "x"],
    ["things", "--admin", "other", "--config", "C", "do", "x", "--admin", "A"],
], ids=" ".join)  # fmt: skip
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
    assert capsys.readouterr().err == "th things do: no (see 'th things do --help')\n"


@pytest.mark.parametrize(("argv", "said"), [
    (
        ["thinks"],
        "th: argument COMMAND: invalid choice: 'thinks'; did you mean 'things'? Valid: local, things",
    ),
    (["things", "x"], "th things: argument ACTION: invalid choice: 'x'; Valid: do, rest"),
    (["things", "do"], "th things do: the following arguments are required: what"),
    (["local", "--jsn"], "th: unrecognized arguments: --jsn"),
])  # fmt: skip
def test_wrong_usage_is_one_line_that_says_where_to_read_on(parser, capsys, argv, said):
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"{said} (see 'th")
    assert err.endswith(" --help')\n")
    assert err.count("\n") == 1


@pytest.mark.parametrize(("argv", "text"), [
    (["local"], "Does it here.\n"),
    (["local"], "examples:\n  tokenhub local --config F\n  tokenhub local --json\n"),
    (["things", "do"], "Do it, at once.\n"),
    (["things", "do"], "example:\n  th things do x\n"),
    (["things", "rest"], "example:\n  th things rest\n"),
])  # fmt: skip
def test_help(parser, capsys, argv, text):
    with pytest.raises(SystemExit):
        parser.parse_args([*argv, "--help"])
    assert text in capsys.readouterr().out


def test_with_an_address_no_configuration_is_needed(parser, folder):
    args = parser.parse_args(["things", "rest"])
    for text, said in ((None, r"there is no routes\.toml here"), ("[a]\n", r"routes\.toml:1:2: ")):
        if text is not None:
            (folder / "routes.toml").write_text(text)
        with pytest.raises(
            CommandError, match=rf"(?s){said}.*[;\n] ?this command needs no file if --admin names"
        ):
            load_if_needed(args)
    args = parser.parse_args(["things", "rest", "--admin", "http://h:1"])
    assert load_if_needed(args) is None
    (folder / "routes.toml").write_text(GOOD)
    assert load_if_needed(args) is not None


@pytest.mark.parametrize(("listen", "url"), [
    (Listen("127.0.0.1", 8080), "http://127.0.0.1:8080"), (Listen("0.0.0.0", 1), "http://127.0.0.1:1"),
    (Listen("::", 1), "http://[::1]:1"), (Listen(path="/run/x.sock"), "unix:/run/x.sock"),
])  # fmt: skip
def test_where_a_listener_is_reached(listen, url):
    assert parser_module.url_of(listen) == url


@pytest.mark.parametrize(("answer", "message"), [
    (b'{"error":{"message":"why"}}', "why"), (b'{"error":"text"}', '{"error":"text"}'), (b"<html", "<html"),
    (b"\xff" * 300, "\ufffd" * 200), (b"", "an empty answer"), (b"[" * 100_000, "[" * 200),
])  # fmt: skip
def test_what_an_error_says(answer, message):
    assert parser_module.message_of(answer) == message


@pytest.mark.parametrize(("read", "text", "value"), [
    (whole(0, 9), "0", 0), (whole(0, 9), "9", 9), (whole(0, 9), "10", None), (whole(1, 9), "0", None),
    (whole(0, 9), "-1", None), (whole(0, 9), "1.5", None), (whole(0, 9), "٣", None), (whole(0, 9), "", None),
    (number(0, 9), "0.5", 0.5), (number(0, 9), "9e0", 9.0), (number(0, 9), "9.1", None),
    (number(0, 9), "nan", None), (number(0, 9), "x", None), (seconds, "30", 30.0), (seconds, "0.5s", 0.5),
    (seconds, "500ms", 0.5), (seconds, "2m", 120.0), (seconds, "24h", 86_400.0), (seconds, "25h", None),
    (seconds, "-1s", None), (seconds, "1d", None), (seconds, "1e3", None), (seconds, "٣s", None),
    (seconds, "", None),
])  # fmt: skip
def test_values(read, text, value):
    if value is None:
        with pytest.raises(argparse.ArgumentTypeError, match=r"^must be"):
            read(text)
    else:
        assert read(text) == value


def test_help_names_the_strategies_of_settings():
    assert parser_module.STRATEGIES.replace(" or ", ", ") == ", ".join(STRATEGIES)
