"""routes.toml: its own error and no other, each mistake within the text; edits by program keep the rest."""

from __future__ import annotations

import tomllib

from proxy.config.alias_edit import EditError, remove_alias, set_alias
from proxy.config.parse import parse, without_effect
from proxy.config.tables import ConfigError

_GOOD = (
    b'[providers.o]\nbase_url = "https://o.example/v1"\n[models."o/a"]\ninput_price = 1\n'
    b'[models."o/b"]\ncapabilities = ["chat"]\n'
)
SEEDS = [
    _GOOD, _GOOD + b'[aliases]\nx = ["o/a", "o/b"] # both\ny = { models = ["o/a"], strategy = "cost" }\n',
    _GOOD + b'[aliases.z]\nmodels = [\n  "o/b", # b\n]\npeek = true\nhedge = "p95"\nsplit = [1]\n',
    b'[server]\nlisten = ["127.0.0.1:0"]\nworkers = 2\n[timeouts]\nidle = "5m"\nconnect = 5\n' + _GOOD,
    b'[admin]\nlisten = "0.0.0.0:1"\n[routing]\nretry_budget = 2.0\neject = { failures = 0 }\n' + _GOOD,
    b"a = " + b"[" * 5000, b"a = " + b"9" * 5000,
    b"a.b.c = [1, {d = 2}]\n[[x]]\n[[x.y]]\nz = '''a\n''\n'''\n",
    b'"\\u0061" = 1979-05-27 07:32:00Z\n[a]\nb = """\\\n  x"""\n',
    _GOOD.replace(b"\n", b"\r\n") + b'[aliases]\r\nx = ["o/a"]\r\n',
    b"\xef\xbb\xbf" + _GOOD + b'[alerts]\nwebhook = "https://h/x"\n[log]\nlevel = "debg"\n',
    b'[state]\npath = "x.db"\nredis_url = "redis://x"\nledger_keep = "30d"\n[traces]\nenabled = 1\n' + _GOOD,
]  # fmt: skip


def test_one(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        config = parse(text)
    except ConfigError as error:
        check_mistakes(error, text)
        return
    without_effect(text)
    name = next(iter(config.models))
    for settings in ({"models": [name]}, {"models": [name], "strategy": "cost"}):
        try:
            edited = set_alias(text, "fuzz-1", settings)
        except EditError:
            continue
        after = parse(edited)
        assert after.aliases.keys() - {"fuzz-1"} == config.aliases.keys() - {"fuzz-1"}
        assert list(after.aliases["fuzz-1"].models) == [name]
        try:
            back = remove_alias(edited, "fuzz-1")
        except EditError:
            continue
        assert "fuzz-1" not in parse(back).aliases
        if "fuzz-1" not in config.aliases:
            before = tomllib.loads(text.removeprefix("\ufeff"))
            kept = tomllib.loads(back.removeprefix("\ufeff"))
            assert kept.setdefault("aliases", {}) == before.setdefault("aliases", {})
            assert repr(parse(back)) == repr(config)


def check_mistakes(error: ConfigError, text: str) -> None:
    lines = text.removeprefix("\ufeff").split("\n")
    assert error.mistakes
    for mistake in error.mistakes:
        assert mistake.message
        assert 1 <= mistake.line <= len(lines), mistake
        assert 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1, mistake
    assert len(str(error).split("\n")) >= len(error.mistakes)
