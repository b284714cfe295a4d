"""The command line, called as a function; what only a process can show is in tests/e2e/test_installed.py."""

from __future__ import annotations

import argparse
import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxy import __version__
from proxy.cli import main as cli
from proxy.cli import routes as console
from proxy.cli.data_client import Target
from proxy.cli.main import main
from proxy.cli.parser import CommandError
from tests.conftest import write

pytestmark = pytest.mark.usefixtures("folder")
GOOD = '[providers.p]\nbase_url = "http://127.0.0.1:1/v1"\n[models."p/big"]\n[models."p/bare"]\n'


def usage_error(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def fails(capsys, *argv: str) -> str:
    """The one line that a command says which fails."""
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


# ---------------------------------------------------------------------- which file
@pytest.mark.parametrize("command", ["check", "models", "serve", "chat", "routes", "keys", "usage"])
def test_no_configuration_names_the_ways_out(command, capsys):
    err = fails(capsys, command, *{"chat": ["m", "Hi"], "keys": ["list"]}.get(command, []))
    assert all(way in err for way in ("routes.toml", "--config", "$TOKENHUB_CONFIG"))
    assert ("--admin" in err) == (command in ("routes", "keys", "usage"))


def test_the_order_in_which_files_are_looked_for(folder, monkeypatch, capsys):
    given = write(folder, GOOD, "given.toml")
    from_environment = write(folder, GOOD, "environment.toml")
    monkeypatch.setenv("TOKENHUB_CONFIG", str(from_environment))
    assert cli.config_path(None) == from_environment
    here = write(folder, GOOD)
    assert cli.config_path(None).resolve() == here
    assert cli.config_path(str(given)) == given
    for argv in (["check", "--config", str(given)], ["check", str(given)]):
        assert main(argv) == 0
        assert capsys.readouterr().out.startswith(f"{given}: ok")


@pytest.mark.parametrize("kind", ["missing", "directory", "binary"])
def test_a_file_that_cannot_be_read(folder, capsys, kind):
    path = folder / "x.toml"
    if kind == "directory":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\xff\xfe")
    for command in ("check", "models", "serve"):
        assert fails(capsys, command, "--config", str(path)).startswith(f"tokenhub: can't read {path}: ")


# ---------------------------------------------------------------------- serve, chat, simulate
@pytest.mark.parametrize(("option", "value"), [
    ("--listen", "nonsense"), ("--listen", "127.0.0.1:70000"), ("--listen", ":8080"),
    ("--listen", "unix:relative"), ("--listen", ""), ("--workers", "-1"), ("--workers", "many"),
    ("--workers", "1.5"),
])  # fmt: skip
def test_serve_with_what_is_no_address_or_no_number(folder, capsys, option, value):
    write(folder, GOOD)
    assert option in usage_error(capsys, "serve", option, value)


def test_serve_takes_the_addresses_in_place_of_the_files(folder, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("proxy.server.run.serve", lambda config, file: seen.append((config, file)) or 0)
    write(folder, GOOD)
    assert main(["serve", "--listen", "[::1]:1", "--listen", "unix:/tmp/x.sock", "--workers", "1"]) == 0
    config, file = seen[0]
    for found in (config, file.parse(GOOD)):  # as it is read again, too
        assert [(at.host, at.port, at.path) for at in found.server.listen] == [
            ("::1", 1, ""),
            ("", 0, "/tmp/x.sock"),
        ]
    assert file.text == GOOD


def test_serve_tells_why_it_cannot(folder, capsys):
    write(folder, GOOD)
    assert main(["serve", "--listen", "unix:/nowhere/x.sock"]) == 1
    err = capsys.readouterr().err
    assert "tokenhub: Can't listen on unix:/nowhere/x.sock" in err
    assert "Traceback" not in err


def test_chat_passes_on_what_it_was_given(folder, capsys, monkeypatch):
    seen = {}

    async def chat(model, prompt, **options):
        seen.update(options, model=model, prompt=prompt)
        return 0

    monkeypatch.setattr("proxy.cli.chat.chat", chat)
    monkeypatch.setenv("TOKENHUB_API_KEY", "th-1")
    argv = ["chat", "m", "Hi", "--url", "http://x", "--strategy", "cost", "--wait", "2", "--system", "Be."]
    assert main(argv) == 0
    expected = {
        "model": "m", "prompt": "Hi", "key": "th-1", "strategy": "cost", "wait_s": 2.0, "system": "Be.",
    }  # fmt: skip
    assert seen == expected | {"target": Target("http://x", "http://x"), "config": None, "as_json": False}
    write(folder, GOOD)
    monkeypatch.setattr("sys.stdin", io.StringIO("A long\nprompt"))
    assert main(["chat", "m", "-", "--json"]) == 0
    assert seen["target"].url == "http://127.0.0.1:8080"
    assert (seen["prompt"], seen["as_json"]) == ("A long\nprompt", True)
    assert list(seen["config"].models) == ["p/big", "p/bare"]


def test_a_prompt_that_is_no_text(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
    said = fails(capsys, "chat", "m", "-", "--url", "http://127.0.0.1:1")
    assert said == "tokenhub: the prompt on standard input is not UTF-8\n"


@pytest.mark.parametrize("command", ["chat", "bench"])
@pytest.mark.parametrize(("url", "said"), [
    ("http://127.0.0.1:1", "no gateway at http://127.0.0.1:1: nothing listens there; "),
    ("unix:/nowhere/x.sock", "no gateway at unix:/nowhere/x.sock: there is no such socket; "),
    ("nonsense", "nonsense is not an address such as "),
    ("ftp://x", "ftp://x is not an address such as "),
    ("http://[::1", "http://[::1 is not an address such as "),
])  # fmt: skip
def test_without_a_gateway(capsys, command, url, said):
    argv = [command, "m", *(["Hi"] if command == "chat" else []), "--url", url]
    assert fails(capsys, *argv).startswith(f"tokenhub: {said}")


def test_simulate_passes_on_what_it_was_given(monkeypatch):
    seen = []
    monkeypatch.setattr("proxy.simulator.server.main_simulate", lambda *given: seen.append(given) or 0)
    assert main(["simulate", "--host", "::1", "--port", "9001", "--seed", "3", "--speed", "0.5"]) == 0
    assert seen == [("::1", 9001, 3, 0.5)]


# ---------------------------------------------------------------------- what asks a running gateway
def test_where_the_admin_api_is_and_what_it_is_asked(folder, monkeypatch):
    seen = []

    def note(name):
        return lambda admin, *given, **how: seen.append((name, admin.url, given, how)) or 0

    for name in ("show_routes", "show_explanation", "list_aliases", "set_alias", "remove_alias"):
        monkeypatch.setattr(console, name, note(name))
    write(folder, '[admin]\nlisten = "127.0.0.1:9"\n' + GOOD)
    assert main(["routes", "--watch", "--json"]) == 0
    argv = ["m", "--body", "-", "--strategy", "cost", "--endpoint", "chat", "--stream"]
    assert main(["explain", *argv, "--admin", "unix:/x"]) == 0
    assert main(["aliases", "list"]) == 0
    assert main(["aliases", "--admin", "http://h:1", "set", "a", "m", "n", "--split", "m=1", "n=2"]) == 0
    assert main(["aliases", "remove", "a/b", "--admin", "http://h:2"]) == 0
    here = "http://127.0.0.1:9"
    explained = {"body": "-", "strategy": "cost", "endpoint": "chat", "stream": True, "as_json": False}
    explained |= {"headers": None, "query": None}
    changed = {"strategy": None, "split": ["m=1", "n=2"], "as_json": False}
    assert seen == [
        ("show_routes", here, (), {"is_watched": True, "as_json": True}),
        ("show_explanation", "unix:/x", ("m",), explained),
        ("list_aliases", here, (), {"as_json": False}),
        ("set_alias", "http://h:1", ("a", ["m", "n"]), changed),
        ("remove_alias", "http://h:2", ("a/b",), {"as_json": False}),
    ]


@pytest.mark.parametrize("argv", [
    ["routes"], ["explain", "m"], ["aliases", "list"], ["aliases", "remove", "a"], ["keys", "list"],
    ["keys", "create", "--name", "x"], ["usage"], ["usage", "--csv"],
], ids=" ".join)  # fmt: skip
def test_no_gateway_there(argv, capsys):
    """With --admin no configuration is needed."""
    err = fails(capsys, argv[0], "--admin", "http://127.0.0.1:1", *argv[1:])
    assert err.startswith("tokenhub: no gateway's admin API at http://127.0.0.1:1: ")
    assert "tokenhub serve" in err


# ---------------------------------------------------------------------- the commands as such
def test_version(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"tokenhub {__version__}\n"


@pytest.mark.parametrize("argv", [
    "serv", "serve --nonsense", "check a b", "chat", "chat m", "chat m Hi --wait x", "bench m n",
    "bench --requests 0", "bench --requests 5 --duration 5s", "bench --rate 0", "bench --rate nan",
    "bench --endpoint speech", "bench --stream --endpoint embeddings m --url http://127.0.0.1:1",
    "bench --body f --prompt-bytes 5", "simulate --port 70000", "simulate --speed -1", "explain a b",
    "aliases", "aliases put x", "aliases set", "aliases remove", "routes x", "keys", "keys make",
    "keys create", "keys create prod", "keys show", "keys edit", "keys rotate", "keys revoke", "usage x",
    "usage --csv --json",
])  # fmt: skip
def test_wrong_usage(argv, capsys):
    err = usage_error(capsys, *argv.split())
    assert err.count("\n") == 1
    assert "--help')" in err


def test_alone_it_says_what_there_is(capsys):
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("usage: tokenhub")
    for command in COMMANDS:
        assert f"    {command} " in err


@pytest.mark.parametrize(("error", "code", "said"), [
    (KeyboardInterrupt(), 130, ""),
    # one line that steers no terminal
    (CommandError("it said \x1b[2J"), 1, "tokenhub: it said  [2J\n"),
])  # fmt: skip
def test_what_is_interrupted_ends_without_a_word_and_what_fails_with_one_line(
    monkeypatch, capsys, error, code, said
):
    def failing(admin, **how):
        raise error

    monkeypatch.setattr(console, "show_routes", failing)
    assert main(["routes", "--admin", "http://127.0.0.1:1"]) == code
    assert capsys.readouterr() == ("", said)


COMMANDS = (
    "serve", "check", "models", "simulate", "chat", "bench", "routes", "explain", "aliases", "keys", "usage",
    "groups",
)  # fmt: skip
ACTIONS = {
    "aliases": ("list", "set", "remove"), "keys": ("create", "list", "show", "edit", "rotate", "revoke"),
    "groups": ("create", "list", "show", "edit", "delete"),
}  # fmt: skip
WITH_HELP = [
    (), *((command,) for command in COMMANDS),
    *((command, action) for command, actions in ACTIONS.items() for action in actions),
]  # fmt: skip


def help_of(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main([*argv, "--help"])
    out, err = capsys.readouterr()
    assert err == ""
    return out


def parsers(parser: argparse.ArgumentParser, *path: str) -> Iterator[tuple[str, ...]]:
    """The way to each parser there is."""
    yield path
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, *path, name)


def test_these_are_all():
    assert {*parsers(cli._parser())} == {*WITH_HELP}


def examples(text: str) -> list[list[str]]:
    """The commands in a help's examples, without what a shell does with them."""
    found = re.search(r"^examples?:\n((?:  .+\n)+)", text, re.MULTILINE)
    assert found is not None
    lines = [shlex.split(line) for line in found[1].splitlines()]
    return [[word for word in words[1:] if not word.startswith("<")] for words in lines]


@pytest.mark.parametrize("path", WITH_HELP[1:], ids=" ".join)
def test_help_of_each_has_examples_that_are_right(path, capsys):
    text = help_of(capsys, *path)
    assert ("--config" in text) is True
    for argv in examples(text):
        args = cli._parser().parse_args(argv)
        assert argv[0] == path[0]
        if len(path) > 1:
            assert argv[1] == path[1] == args.action


@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_help_at_any_width(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    for path in WITH_HELP:
        assert "usage: tokenhub" in help_of(capsys, *path)
    out = help_of(capsys)
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s+\w", out, re.MULTILINE)


@pytest.mark.parametrize("argv", [["--help"], ["bench", "--help"], ["serve", "--nonsense"]])
def test_what_costs_time_to_load_is_not_loaded_for_help(argv):
    """Nor are tables and live views for ``serve``, which is the process that stays."""
    code = f"""if True:
        import sys
        from proxy.cli.main import main
        try:
            main({argv!r})
        except SystemExit:
            pass
        slow = {{"rich", "aiohttp", "asyncio", "http.client", "proxy.config"}} & set(sys.modules)
        print(slow or "none", file=sys.stderr)
        import proxy.server.run, proxy.server.single, proxy.server.supervisor, proxy.control.telemetry.logs
        assert "rich" not in sys.modules
    """
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr.splitlines()[-1] == "none"
