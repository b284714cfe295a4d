"""The command line, called as a function; what only a process can show is in tests/e2e/test_installed.py."""

from __future__ import annotations

import re

import pytest

from proxy import __version__, cli
from proxy.cli import main
from tests.e2e import ROOT

GOOD = """
[providers.p]
base_url = "http://127.0.0.1:1/v1"
[models."p/big"]
context_window = 128_000
input_price = 2.50
output_price = 0.075
capabilities = ["tools", "chat"]
[models."p/bare"]
[aliases]
best = ["p/big", "p/bare"]
other = ["big"]
"""
BAD = """
[server]
listen = ["127.0.0.1"]
[providers.p]
base_url = "ftp://x"
[models."q/m"]
[aliases]
a = ["p/none"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with nothing in it, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("TOKENHUB_CONFIG", "TOKENHUB_API_KEY", "TOKENHUB_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(folder, text: str, name: str = "routes.toml"):
    path = folder / name
    path.write_text(text)
    return path


def usage_error(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


# ---------------------------------------------------------------------- which file


@pytest.mark.parametrize("command", ["check", "models", "serve", "chat", "routes", "keys", "usage"])
def test_no_configuration_names_the_ways_out(command, capsys):
    argv = [command, *{"chat": ["m", "Hi"], "keys": ["list"]}.get(command, [])]
    assert main(argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    for way in ("routes.toml", "--config", "$TOKENHUB_CONFIG"):
        assert way in err


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
        assert main([command, "--config", str(path)]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"tokenhub: can't read {path}: ")
        assert err.count("\n") == 1


# ---------------------------------------------------------------------- check


def test_check_of_a_good_file(folder, capsys):
    write(folder, GOOD)
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("routes.toml: ok (1 providers, 2 models, 2 aliases)\n", "")


def test_check_of_the_products_own_file(capsys):
    assert main(["check", str(ROOT / "routes.toml")]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert err == ""


def test_check_names_all_mistakes_at_once(folder, capsys):
    path = write(folder, BAD)
    assert main(["check", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    for line in (3, 5, 6, 8):
        assert re.search(rf"^{re.escape(str(path))}:{line}:\d+: ", err, re.MULTILINE), err


def test_check_of_what_is_no_toml(folder, capsys):
    path = write(folder, "[server\nlisten = 1\n")
    assert main(["check", str(path)]) == 1
    assert f"{path}:1:" in capsys.readouterr().err


def test_check_notes_settings_without_effect(folder, capsys):
    path = write(folder, "[state]\nredis_url = 'redis://h'\n" + GOOD)
    assert main(["check", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}:2:1: note: 'state.redis_url' has no effect yet"
    assert lines[1].startswith(f"{path}: ok")


@pytest.mark.parametrize("command", ["models", "serve"])
def test_mistakes_stop_the_other_commands_too(folder, capsys, command):
    write(folder, BAD)
    assert main([command]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tokenhub: ")
    assert "routes.toml:8:" in err


# ---------------------------------------------------------------------- models


def test_models(folder, capsys):
    write(folder, GOOD)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["p/big", "128,000", "2.50", "0.075", "chat,tools", "best,other"],
        ["p/bare", "-", "-", "-", "chat", "best"],
    ]
    assert lines[0].index("CONTEXT") + len("CONTEXT") == lines[1].index("128,000") + len("128,000")
    assert all(line == line.rstrip() for line in lines)


def test_models_of_the_products_own_file(capsys):
    assert main(["models", "--config", str(ROOT / "routes.toml")]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "premium" in rows["openai/gpt-4o"]
    assert "economy" in rows["google/gemini-flash"]
    assert "embeddings" in rows["openai/text-embedding-3-large"]


# ---------------------------------------------------------------------- serve, chat, simulate


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:70000", ":8080", "unix:relative", ""])
def test_serve_at_an_address_that_is_none(folder, capsys, address):
    write(folder, GOOD)
    assert "--listen" in usage_error(capsys, "serve", "--listen", address)


def test_serve_takes_the_addresses_in_place_of_the_files(folder, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("proxy.run.serve", lambda config, file: seen.append((config, file)) or 0)
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


@pytest.mark.parametrize("workers", ["-1", "many", "1.5"])
def test_serve_with_workers_that_are_no_number_of_any(folder, capsys, workers):
    write(folder, GOOD)
    assert "--workers" in usage_error(capsys, "serve", "--workers", workers)


def test_chat_passes_on_what_it_was_given(folder, capsys, monkeypatch):
    seen = {}

    async def chat(model, prompt, **options):
        seen.update(options, model=model, prompt=prompt)
        return 0

    monkeypatch.setattr("proxy.chat.chat", chat)
    monkeypatch.setenv("TOKENHUB_API_KEY", "th-1")
    argv = ["chat", "m", "Hi", "--url", "http://x", "--strategy", "cost", "--wait", "2"]
    assert main(argv) == 0
    expected = {"model": "m", "prompt": "Hi", "url": "http://x", "listen": None, "key": "th-1"}
    assert seen == expected | {"strategy": "cost", "wait_s": 2.0}
    write(folder, GOOD)
    assert main(["chat", "m", "Hi"]) == 0
    assert (seen["listen"].host, seen["listen"].port, seen["url"]) == ("127.0.0.1", 8080, None)


def test_chat_without_a_gateway(capsys):
    assert main(["chat", "m", "Hi", "--url", "http://127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tokenhub: no gateway at http://127.0.0.1:1")
    assert err.count("\n") == 1


def test_simulate_passes_on_what_it_was_given(monkeypatch):
    seen = []
    monkeypatch.setattr("proxy.simulator.main_simulate", lambda *given: seen.append(given) or 0)
    assert main(["simulate", "--host", "::1", "--port", "9001", "--seed", "3", "--speed", "0.5"]) == 0
    assert seen == [("::1", 9001, 3, 0.5)]


# ---------------------------------------------------------------------- what asks a running gateway


def test_where_the_admin_api_is_and_what_it_is_asked(folder, monkeypatch):
    seen = []

    def note(name):
        return lambda admin, *given, **how: seen.append((name, admin.url, given, how)) or 0

    for name in ("show_routes", "show_explanation", "list_aliases", "set_alias", "remove_alias"):
        monkeypatch.setattr(cli, name, note(name))
    write(folder, '[admin]\nlisten = "127.0.0.1:9"\n' + GOOD)
    assert main(["routes", "--watch"]) == 0
    argv = ["m", "--body", "-", "--strategy", "cost", "--endpoint", "chat", "--stream"]
    assert main(["explain", *argv, "--admin", "unix:/x"]) == 0
    assert main(["aliases", "list"]) == 0
    assert main(["aliases", "--admin", "http://h:1", "set", "a", "m", "n", "--split", "m=1", "n=2"]) == 0
    assert main(["aliases", "remove", "a/b", "--admin", "http://h:2"]) == 0
    here = "http://127.0.0.1:9"
    explained = {"body": "-", "strategy": "cost", "endpoint": "chat", "stream": True}
    assert seen == [
        ("show_routes", here, (), {"watch": True}),
        ("show_explanation", "unix:/x", ("m",), explained),
        ("list_aliases", here, (), {}),
        ("set_alias", "http://h:1", ("a", ["m", "n"]), {"strategy": None, "split": ["m=1", "n=2"]}),
        ("remove_alias", "http://h:2", ("a/b",), {}),
    ]


@pytest.mark.parametrize(
    "argv",
    [
        ["routes"],
        ["explain", "m"],
        ["aliases", "list"],
        ["aliases", "remove", "a"],
        ["keys", "list"],
        ["keys", "create", "--name", "x"],
        ["usage"],
        ["usage", "--csv"],
    ],
    ids=" ".join,
)
def test_no_gateway_there(argv, capsys):
    """With --admin no configuration is needed."""
    assert main([argv[0], "--admin", "http://127.0.0.1:1", *argv[1:]]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tokenhub: no gateway's admin API at http://127.0.0.1:1 (")
    assert "tokenhub serve" in err
    assert err.count("\n") == 1


# ---------------------------------------------------------------------- the commands as such


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tokenhub {__version__}\n"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["serv"],
        ["serve", "--nonsense"],
        ["check", "a", "b"],
        ["chat"],
        ["chat", "m"],
        ["chat", "m", "Hi", "--wait", "x"],
        ["explain"],
        ["aliases"],
        ["aliases", "put", "x"],
        ["aliases", "set"],
        ["aliases", "remove"],
        ["routes", "x"],
        ["keys"],
        ["keys", "make"],
        ["keys", "create"],
        ["keys", "create", "prod"],
        ["keys", "show"],
        ["keys", "edit"],
        ["keys", "revoke"],
        ["usage", "x"],
        ["usage", "--csv", "--json"],
    ],
    ids=" ".join,
)
def test_wrong_usage(argv, capsys):
    assert "usage: tokenhub" in usage_error(capsys, *argv)


COMMANDS = ("serve", "check", "models", "chat", "routes", "explain", "aliases", "keys", "usage", "simulate")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"example:\n  tokenhub {command}" in out
    if command != "simulate":
        assert "--config" in out


ACTIONS = {"aliases": ("list", "set", "remove"), "keys": ("create", "list", "show", "edit", "revoke")}


@pytest.mark.parametrize(
    ("command", "action"), [(command, action) for command in ACTIONS for action in ACTIONS[command]]
)
def test_help_of_each_action_has_an_example(command, action, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, action, "--help"])
    assert caught.value.code == 0
    assert f"example:\n  tokenhub {command} {action}" in capsys.readouterr().out


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s+\w", out, re.MULTILINE)
