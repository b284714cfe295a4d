"""``tokenhub keys`` and ``usage``, each against a gateway that runs and against its database alone."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from datetime import UTC, datetime

import pytest

from proxy.cli import main
from proxy.keys import FORM
from proxy.routesfile import RoutesFile
from proxy.server import Server
from tests.test_folding import line, name_of

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = "t.db"
[admin]
listen = "unix:{folder}/admin.sock"
token_env = "T"
[providers.p]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[models."p/big"]
[models."p/small"]
[aliases]
best = ["p/big"]
"""


class Terminal:
    """Runs commands in a thread: they block, and the gateway is in this loop."""

    def __init__(self, capsys, is_asked: bool) -> None:
        self._capsys = capsys
        self.is_asked = is_asked

    async def run(self, *argv: str) -> tuple[int, str, str]:
        def call() -> int:
            try:
                return main(argv)
            except SystemExit as error:
                return error.code

        code = await asyncio.to_thread(call)
        out, err = self._capsys.readouterr()
        return code, out, err

    async def out(self, *argv: str) -> str:
        """What a command that does it prints; what it says beside it is in ``said``."""
        code, out, err = await self.run(*argv)
        assert code == 0, err
        self.said = err.splitlines()
        if not self.is_asked:  # the first line says where it was done
            where = self.said.pop(0)
            assert where.startswith("tokenhub: no gateway answers at unix:")
        return out

    async def json(self, *argv: str):
        found = json.loads(await self.out(*argv, "--json"))
        assert self.said == []
        return found

    async def rows(self, *argv: str):
        found = await self.json(*argv)
        assert found.keys() == {"data"}
        return found["data"]

    async def failure(self, *argv: str) -> str:
        code, out, err = await self.run(*argv)
        assert (code, out) == (1, "")
        assert err.startswith("tokenhub: ")
        assert err.count("\n") == 1
        return err


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("T", "s3cret")
    monkeypatch.delenv("TOKENHUB_CONFIG", raising=False)
    (tmp_path / "routes.toml").write_text(TEXT.format(folder=tmp_path))
    return tmp_path


@pytest.fixture(params=["asked", "stored"])
async def terminal(request, folder, capsys):
    if request.param == "stored":
        yield Terminal(capsys, False)
        return
    file = RoutesFile(folder / "routes.toml")
    server = Server(file.load(), {"T": "s3cret"}, file)
    await server.start()
    yield Terminal(capsys, True)
    await server.close()


def write_ledger(folder, *lines: bytes) -> None:
    directory = folder / "t.db-ledger"
    directory.mkdir(exist_ok=True)
    (directory / name_of()).write_bytes(b"".join(lines))


# ---------------------------------------------------------------------- keys


async def test_a_new_key_is_alone_on_standard_output(terminal):
    out = await terminal.out("keys", "create", "--name", "prod", "--rpm", "60", "--monthly-usd", "0.5")
    assert FORM.fullmatch(out.removesuffix("\n"))
    [said] = terminal.said
    for part in ("key_", "(prod)", "limits: rpm 60, monthly-usd 0.5", "models: all", "only this once"):
        assert part in said
    assert out.strip() not in said


async def test_all_settings(terminal):
    argv = ["keys", "create", "--name", " A team ", "--rpm", "1", "--tpm", "2e3", "--concurrency", "3"]
    argv += [
        "--monthly-usd",
        "4.25",
        "--monthly-tokens",
        "5",
        "--max-tokens",
        "6",
        "--models",
        "best, big,p/*",
    ]
    argv += ["--expires", "2100-01-01", "--on-disconnect", "drain"]
    row = await terminal.json(*argv)
    assert FORM.fullmatch(row.pop("key"))
    assert row == {
        "id": row["id"],
        "name": "A team",
        "created": row["created"],
        "expires": 4102444800,
        "revoked": None,
        "last_used": None,
        "models": ["best", "big", "p/*"],
        "limits": {
            "rpm": 1,
            "tpm": 2000,
            "concurrency": 3,
            "monthly_usd": 4.25,
            "monthly_tokens": 5,
            "max_tokens": 6,
        },
        "on_disconnect": "drain",
        "month": {"tokens": 0, "usd": 0.0},
    }
    assert await terminal.json("keys", "show", "A team") == row
    assert await terminal.rows("keys", "list") == [row]
    lines = (await terminal.out("keys", "show", row["id"])).splitlines()
    assert [text.split("  ")[0] for text in lines][:3] == ["id", "name", "created"]
    assert "drain" in lines[-2]
    limits = "rpm 1, tpm 2000, concurrency 3, monthly-usd 4.25, monthly-tokens 5, max-tokens 6"
    assert any(text.endswith(limits) for text in lines)


async def test_editing_changes_what_is_given(terminal):
    argv = ["--name", "a", "--rpm", "5", "--monthly-usd", "1", "--models", "best", "--expires", "1d"]
    row = await terminal.json("keys", "create", *argv)
    out = await terminal.out("keys", "edit", "a", "--rpm", "none", "--tpm", "9", "--name", "b")
    assert out.startswith(f"{row['id']} (b), limits: tpm 9, monthly-usd 1, models: best, expires 20")
    changed = await terminal.json("keys", "edit", "b", "--expires", "none", "--models", "none")
    assert (changed["expires"], changed["models"], changed["limits"]["rpm"]) == (None, None, None)
    assert (changed["id"], changed["created"]) == (row["id"], row["created"])
    assert await terminal.json("keys", "show", row["id"]) == changed


async def test_revoking(terminal):
    row = await terminal.json("keys", "create", "--name", "a")
    assert await terminal.out("keys", "revoke", "a") == f"{row['id']} (a) is revoked\n"
    revoked = await terminal.json("keys", "revoke", "a")  # once more
    assert abs(revoked["revoked"] - time.time()) < 60
    assert await terminal.rows("keys", "list") == []
    assert await terminal.rows("keys", "list", "--all") == [revoked]
    await terminal.out("keys", "create", "--name", "a")  # the name is free again
    assert (await terminal.json("keys", "show", "a"))["revoked"] is None


async def test_the_table(terminal):
    assert (await terminal.out("keys", "list")).startswith("ID  NAME  CREATED  EXPIRES  LAST USED  MODELS  ")
    assert "keys create" in terminal.said[0]
    await terminal.out("keys", "create", "--name", "old", "--expires", "2001-02-03T04:05:00Z")
    await terminal.out("keys", "create", "--name", "gone", "--models", "best,small")
    await terminal.out("keys", "create", "--name", "new", "--rpm", "7")
    await terminal.out("keys", "revoke", "gone")
    rows = {text.split()[1]: text for text in (await terminal.out("keys", "list")).splitlines()}
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    assert rows.keys() == {"NAME", "old", "new"}
    assert "expired 2001-02-03 04:05" in rows["old"]
    for part in (today, "never", " all ", " rpm 7 ", "0 tokens, $0.0000"):
        assert part in rows["new"]
    every = (await terminal.out("keys", "list", "--all")).splitlines()
    assert len(every) == 4
    [gone] = [text for text in every if "gone" in text]
    assert f"revoked {today}" in gone
    assert "best,small" in gone


@pytest.mark.parametrize("name", ["a/b", "ü ß", "100%", "?x#y", "key_1"])
async def test_names_of_all_kinds(terminal, name):
    await terminal.out("keys", "create", "--name", name)
    assert (await terminal.json("keys", "show", name))["name"] == name


@pytest.mark.parametrize("action", [["show"], ["edit", "--rpm", "1"], ["revoke"]], ids=lambda argv: argv[0])
async def test_keys_that_are_not_there_or_more_than_one(terminal, folder, action):
    assert "There is no key 'x'" in await terminal.failure("keys", *action, "x")
    if not terminal.is_asked:
        assert not (folder / "t.db").exists()
    first, second = [(await terminal.json("keys", "create", "--name", "x"))["id"] for _ in range(2)]
    said = await terminal.failure("keys", *action, "x")
    assert f"({first}, {second})" in said or f"({second}, {first})" in said
    assert (await terminal.json("keys", *action, first))["id"] == first


async def test_models_that_are_not_there(terminal):
    said = await terminal.failure("keys", "create", "--name", "x", "--models", "p/bigg")
    assert "did you mean 'p/big'" in said
    await terminal.out("keys", "create", "--name", "x", "--models", "auto,q/*")
    assert "'nothing'" in await terminal.failure("keys", "edit", "x", "--models", "nothing")


# ---------------------------------------------------------------------- usage


async def test_what_a_key_has_used(terminal, folder):
    id = (await terminal.json("keys", "create", "--name", "a"))["id"]
    now = time.time()
    write_ledger(folder, line(t=now, key=id, input=1000, output=234, nusd=1_500_000_000))
    await terminal.out("usage")  # adds it up
    row = await terminal.json("keys", "show", "a")
    if not terminal.is_asked:  # a gateway knows by itself what it serves, and asks the ledger once
        assert row["month"] == {"tokens": 1234, "usd": 1.5}
        assert row["last_used"] == pytest.approx(now, abs=0.001)
        assert "1,234 tokens, $1.5000" in await terminal.out("keys", "list")


@pytest.fixture
def ledger(folder):
    """Two keys of the same name, and requests without one."""
    day = 1764028800.0  # 2025-11-25
    write_ledger(
        folder,
        line(t=day, key="key_1", model="p/big", input=1000, output=20, nusd=1_234_567_891, cached=7),
        line(t=day, key="key_2", model="p/small", input=1, output=2, nusd=150, source="estimated"),
        line(t=day + 86400, key=None, model="p/small", input=5, status=500),
    )


async def test_usage_by_model_is_the_default(terminal, ledger):
    lines = (await terminal.out("usage")).splitlines()
    head = "MODEL REQUESTS ERRORS INPUT CACHED CACHE WRITE OUTPUT REASONING ESTIMATED USD"
    assert lines[0].split() == head.split()
    assert [text.split() for text in lines[1:]] == [
        ["p/big", "1", "0", "1,000", "7", "0", "20", "0", "0", "1.234567891"],
        ["p/small", "2", "1", "6", "0", "0", "2", "0", "1", "0.000000150"],
        ["total", "3", "1", "1,006", "7", "0", "22", "0", "1", "1.234568041"],
    ]
    assert len({len(text) for text in lines}) == 1  # numbers end under each other
    assert await terminal.out("usage", "--by", "model") == "\n".join(lines) + "\n"


async def test_usage_by_what_is_asked(terminal, ledger):
    lines = (await terminal.out("usage", "--by", "day,model", "--since", "2025-11-26")).splitlines()
    assert [text.split()[:3] for text in lines[1:]] == [
        ["2025-11-26", "p/small", "1"],
        ["total", "1", "1"],
    ]
    [_, only] = (await terminal.out("usage", "--by", "")).splitlines()
    assert only.split()[0] == "3"
    lines = (await terminal.out("usage", "--by", "key", "--until", "2025-11-26")).splitlines()
    assert [text.split()[0] for text in lines[1:]] == ["-", "key_1", "key_2", "total"]
    assert (await terminal.out("usage", "--since", "1d")).splitlines()[1].split()[:2] == ["total", "0"]
    assert "nothing was used" in terminal.said[0]


async def test_keys_of_the_same_name_are_told_apart(terminal, folder):
    ids = [(await terminal.json("keys", "create", "--name", name))["id"] for name in ("a", "a", "b")]
    write_ledger(folder, *(line(key=id, input=1) for id in ids))
    out = await terminal.out("usage", "--by", "key")
    for text in (f"a ({ids[0]})  ", f"a ({ids[1]})  ", "\nb  "):
        assert text in out


async def test_usage_for_programs(terminal, ledger):
    rows = await terminal.rows("usage", "--by", "day,key")
    assert [(row["day"], row["key_id"], row["requests"]) for row in rows] == [
        ("2025-11-25", "key_1", 1),
        ("2025-11-25", "key_2", 1),
        ("2025-11-26", None, 1),
    ]
    text = await terminal.out("usage", "--csv", "--by", "day,key")
    assert terminal.said == []
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [entry["usd"] for entry in lines] == ["1.234567891", "0.000000150", "0.000000000"]
    assert [entry["key_id"] for entry in lines] == ["key_1", "key_2", ""]
    assert text.startswith("day,key,key_id,requests,")


# ---------------------------------------------------------------------- wrong usage


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("keys create --name x --rpm x", "--rpm: must be a whole number from 1 to"),
        ("keys create --name x --tpm 1.5", "--tpm: must be a whole number"),
        ("keys create --name x --concurrency 0", "or none for no limit"),
        ("keys create --name x --max-tokens -1", "--max-tokens: must be"),
        ("keys create --name x --monthly-usd nan", "--monthly-usd: must be a number of dollars"),
        ("keys create --name x --monthly-usd 0", "--monthly-usd: must be a number of dollars"),
        ("keys create --name x --monthly-usd 0.0000000001", "nine decimals"),
        ("keys create --name x --models a,,b", "--models: must hold"),
        ("keys create --name x --expires soon", "--expires: must be a date such as"),
        ("keys create --name x --on-disconnect go", "--on-disconnect: must be 'cancel' or 'drain'"),
        ("keys create --name=", "--name: must be text"),
        ("keys edit x", "there is nothing to change"),
        ("keys edit x --json", "there is nothing to change"),
        ("keys edit x --rpm many", "--rpm: must be"),
        ("usage --by models", "--by can't be 'models': choose from key, model, provider, day"),
        ("usage --by day,day", "--by names day more than once"),
        ("usage --since yesterday", "--since is no day: 'yesterday'"),
        ("usage --since 2026-02-02 --until 2026-02-01", "--since 2026-02-02 is after until 2026-02-01"),
    ],
)
def test_wrong_usage(argv, said, capsys, folder):
    with pytest.raises(SystemExit) as caught:
        main(argv.split())
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert not (folder / "t.db").exists()
