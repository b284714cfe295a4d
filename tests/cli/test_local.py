"""check and models, by the command line. What the files may hold is in the tests of proxy.config."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3

import pytest

from proxy.cli.main import main
from proxy.storage.database import connect
from tests.conftest import write
from tests.e2e import ROOT
from tests.support.keys import write_old

pytestmark = pytest.mark.usefixtures("folder")
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


# ---------------------------------------------------------------------- check
@pytest.fixture
def check(folder, capsys):
    """``check`` of a text, its lines and its errors. The file is ``check.path``."""

    def run(text: str, *argv: str, code: int = 0) -> tuple[list[str], str]:
        run.path = write(folder, text)
        assert main(["check", *argv, str(run.path)]) == code
        out, err = capsys.readouterr()
        return out.splitlines(), err

    return run


def test_check_of_a_good_file(folder, capsys):
    write(folder, GOOD)
    assert main(["check"]) == 0
    assert capsys.readouterr() == ("routes.toml: ok (1 provider, 2 models, 2 aliases)\n", "")
    assert main(["check", str(ROOT / "routes.toml")]) == 0  # the product's own
    out, err = capsys.readouterr()
    assert (len(out.splitlines()), err) == (1, "")


def test_check_names_all_mistakes_at_once(check):
    out, err = check(BAD, code=1)
    assert out == []
    for line in (3, 5, 6, 8):
        assert re.search(rf"^{re.escape(str(check.path))}:{line}:\d+: ", err, re.MULTILINE), err
    assert f"{check.path}:1:" in check("[server\nlisten = 1\n", code=1)[1]
    # A mistake is one line, whatever it quotes.
    _, err = check(GOOD + '"x\\u001b[2J\\n" = ["p/none"]\n', code=1)
    assert "\x1b" not in err and len(err.splitlines()) == err.count(f"{check.path}:")


def test_check_notes_settings_without_effect(check):
    lines, _ = check("[state]\nredis_url = 'redis://h'\n" + GOOD)
    assert lines[0] == f"{check.path}:2:1: note: 'state.redis_url' has no effect yet"
    assert lines[1].startswith(f"{check.path}: ok")


@pytest.mark.parametrize(("written", "note"), [
    ("input_price = 1", "has an input_price and no output_price: its output tokens count as free"),
    ("output_price = 0", "has an output_price and no input_price: its input tokens count as free"),
    ("input_price = 1\noutput_price = 2", None),
    ("", None),
    ('input_price = 1\ncapabilities = ["embeddings"]', None),  # they write nothing
    ('input_price = 1\ncapabilities = ["embeddings", "chat"]', "no output_price"),
])  # fmt: skip
def test_check_notes_half_a_price(check, written, note):
    *notes, _ = check(f'[providers.a]\nbase_url = "http://127.0.0.1:1/v1"\n[models."a/m"]\n{written}\n')[0]
    assert len(notes) == (note is not None)
    assert all(text.startswith(f"{check.path}:4:1: note: 'a/m' ") and note in text for text in notes)


def test_check_notes_a_place_for_the_state_that_cant_be_used(folder, check):
    text = f'[state]\npath = "{folder}/nowhere/t.db"\n' + GOOD
    note, _ = check(text)[0]
    assert note.startswith(f"{check.path}:2:1: note: [state] path {folder}/nowhere/t.db can't be used: ")
    assert f"mkdir -p {folder}/nowhere" in note
    assert len(json.loads("".join(check(text, "--json")[0]))["notes"]) == 1
    (folder / "nowhere").mkdir()
    assert len(check(text)[0]) == 1
    (folder / "nowhere" / "t.db-ledger").write_text("x")
    assert "the ledger's directory" in check(text)[0][0]
    assert list((folder / "nowhere").iterdir()) == [folder / "nowhere" / "t.db-ledger"]
    assert len(check('[state]\npath = ":memory:"\n' + GOOD)[0]) == 1


def later(path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 5")


@pytest.mark.parametrize(("made", "text"), [
    (lambda path: path.write_bytes(b"no database" * 1000), "can't be used: file is not a database"),
    (later, "can't be used: it has version 5, of a later TokenHub; this one knows versions up to 4"),
    (write_old, "has version 2: 'tokenhub serve', and commands that write, move it to version 4"),
    (lambda path: connect(str(path)).close(), None),
])  # fmt: skip
def test_check_notes_a_state_database_that_a_start_would_trip_over_or_change(folder, check, made, text):
    state = folder / "state" / "t.db"
    state.parent.mkdir()
    made(state)
    before = state.read_bytes()
    *notes, _ = check(f'[state]\npath = "{state}"\n' + GOOD)[0]
    assert len(notes) == (text is not None)
    for note in notes:
        assert note.startswith(f"{check.path}:2:1: note: [state] path {state} {text}")
    assert ([entry.name for entry in state.parent.iterdir()], state.read_bytes()) == (["t.db"], before)


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


def test_models_for_programs(folder, capsys):
    path = write(folder, GOOD)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["data"]
    assert [row["id"] for row in rows] == ["p/big", "p/bare", "best", "other"]
    assert rows[0]["pricing"] == {"input": 2.5, "output": 0.075}
    assert {row["created"] for row in rows} == {1_700_000_000}


def test_check_for_programs(check):
    out, err = check(BAD, "--json", code=1)
    found = json.loads("".join(out))
    assert (err, found["file"], found["ok"], found["notes"]) == ("", str(check.path), False, [])
    assert [mistake["line"] for mistake in found["mistakes"]] == [3, 5, 6, 8]
    assert all(mistake["column"] > 0 and mistake["message"] for mistake in found["mistakes"])
    found = json.loads("".join(check("[state]\nredis_url = 'redis://h'\n" + GOOD, "--json")[0]))
    [note] = found["notes"]
    assert (found["ok"], found["mistakes"], note["line"], note["column"]) == (True, [], 2, 1)
