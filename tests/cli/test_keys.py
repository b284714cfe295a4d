"""``tokenhub keys``, against a gateway that runs and against its database alone."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from datetime import UTC, datetime

import pytest

from proxy.access.key import FORM
from proxy.storage.database import connect
from tests.storage.test_ledger_ingest import line
from tests.support.keys import expire, key_of, write_old
from tests.support.terminal import check_refused, terminal_of, write_ledger


# ---------------------------------------------------------------------- keys
async def test_a_new_key_is_alone_on_standard_output(terminal):
    out = await terminal.out("keys", "create", "--name", "prod", "--rpm", "60", "--monthly-usd", "0.5")
    assert FORM.fullmatch(out.removesuffix("\n"))
    said, first = terminal.said
    assert "This is the first key" in first
    for part in ("key_", "(prod)", "limits: rpm 60, monthly-usd 0.5", "models: all", "only this once"):
        assert part in said
    assert out.strip() not in said


SETTINGS = (
    "--rpm 1 --tpm 2e3 --concurrency 3 --monthly-usd 4.25 --monthly-tokens 5 --max-tokens 6 "
    "--daily-usd 0.5 --daily-tokens 7 --soft --expires 2100-01-01 --on-disconnect drain"
)


async def test_all_settings(terminal):
    argv = ["keys", "create", "--name", " A team ", "--models", "best, big,p/*", *SETTINGS.split()]
    row = await terminal.json(*argv)
    assert FORM.fullmatch(row.pop("key"))
    assert row.pop("closes_gateway") is True
    limits = {
        "rpm": 1, "tpm": 2000, "concurrency": 3, "daily_usd": 0.5, "daily_tokens": 7, "monthly_usd": 4.25,
        "monthly_tokens": 5, "max_tokens": 6,
    }  # fmt: skip
    assert row == {
        "id": row["id"], "name": "A team", "created": row["created"], "expires": 4102444800, "revoked": None,
        "last_used": None, "models": ["best", "big", "p/*"], "limits": limits, "on_disconnect": "drain",
        "rotated": None, "old_secret_until": None, "group": None, "soft": True, "tags": {},
        "day": {"tokens": 0, "usd": 0.0}, "month": {"tokens": 0, "usd": 0.0},
    }  # fmt: skip
    assert await terminal.json("keys", "show", "A team") == row
    assert await terminal.rows("keys", "list") == [row]
    lines = (await terminal.out("keys", "show", row["id"])).splitlines()
    assert [text.split("  ")[0] for text in lines][:3] == ["id", "name", "created"]
    assert "drain" in lines[-4]
    shown = ", ".join(f"{name.replace('_', '-')} {value}" for name, value in limits.items()) + ", soft"
    assert any(text.endswith(shown) for text in lines)


async def test_editing_changes_what_is_given(terminal):
    argv = ["--name", "a", "--rpm", "5", "--monthly-usd", "1", "--models", "best", "--expires", "1d"]
    row = await terminal.json("keys", "create", *argv)
    out = await terminal.out("keys", "edit", "a", "--rpm", "none", "--tpm", "9", "--name", "b")
    assert out.startswith(f"{row['id']} (b), limits: tpm 9, monthly-usd 1, models: best, expires 20")
    changed = await terminal.json("keys", "edit", "b", "--expires", "none", "--models", "none")
    assert (changed["expires"], changed["models"], changed["limits"]["rpm"]) == (None, None, None)
    assert (changed["id"], changed["created"]) == (row["id"], row["created"])
    assert await terminal.json("keys", "show", row["id"]) == changed


@pytest.mark.parametrize(("auth", "closes"), [
    ("", True), ("[auth]\nrequired = true\n", False), ("[auth]\nrequired = false\n", False),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["asked", "stored"])
async def test_the_first_key_of_an_open_gateway_closes_it_and_that_is_said(
    state_folder, capsys, kind, auth, closes
):
    routes = state_folder / "routes.toml"
    routes.write_text(auth + routes.read_text())
    async with terminal_of(kind, state_folder, capsys) as terminal:
        await terminal.out("keys", "create", "--name", "a")
        assert ["need one from now on" in text for text in terminal.said] == [False, True][: 1 + closes]
        await terminal.out("keys", "revoke", "a")
        [said] = terminal.said  # what the gateway does now, and how to get out of it
        is_open = auth.endswith("false\n")
        assert said.startswith("tokenhub: No key is in use now")
        assert ("without a key are still served" in said, "keys create" in said) == (is_open, not is_open)
        assert "[auth] required" in said
        if kind == "asked":  # of a gateway that is named by its address the file may be another
            await terminal.out("keys", "revoke", "a", "--admin", f"unix:{state_folder}/admin.sock")
            assert "refuses every request unless [auth] required is false in its file" in terminal.said[0]
        await terminal.out("keys", "create", "--name", "b")
        assert len(terminal.said) == 1
        await terminal.out("keys", "create", "--name", "d")
        await terminal.out("keys", "revoke", "d")
        assert terminal.said == []  # another one is in use
        assert (await terminal.json("keys", "create", "--name", "c"))["closes_gateway"] is False


async def test_an_end_in_the_past_and_a_name_like_an_id(terminal):
    row = await terminal.json("keys", "create", "--name", "a")
    for argv, text in (
        (["--expires", "2020-01-31"], "argument --expires: must not be in the past (2020-01-31 00:00 UTC): "),
        (["--name", row["id"]], "argument --name: must not look like the id of a key"),
    ):
        for command in (["create", "--name", "b"], ["edit", "a"]):
            code, out, err = await terminal.run("keys", *command, *argv)
            assert (code, out) == (2, "")
            assert text in err
    assert [found["name"] for found in await terminal.rows("keys", "list")] == ["a"]


async def test_revoking(terminal):
    row = await terminal.json("keys", "create", "--name", "a")
    assert await terminal.out("keys", "revoke", "a") == f"{row['id']} (a) is revoked\n"
    revoked = await terminal.json("keys", "revoke", "a")  # once more
    assert abs(revoked["revoked"] - time.time()) < 60
    assert await terminal.rows("keys", "list") == []
    assert await terminal.rows("keys", "list", "--all") == [revoked]
    await terminal.out("keys", "create", "--name", "a")  # the name is free again
    assert (await terminal.json("keys", "show", "a"))["revoked"] is None


async def test_a_name_that_is_taken(terminal):
    row = await terminal.json("keys", "create", "--name", "prod")
    await terminal.out("keys", "create", "--name", "test")
    for argv in (["create", "--name", "prod"], ["edit", "test", "--name", "prod"]):
        said = await terminal.failure("keys", *argv)
        assert f"The name 'prod' is taken by {row['id']}" in said
        assert f"'tokenhub keys rotate {row['id']}'" in said


async def test_rotating(terminal):
    row = await terminal.json("keys", "create", "--name", "prod", "--rpm", "5")
    out = await terminal.out("keys", "rotate", "prod")
    assert FORM.fullmatch(out.removesuffix("\n")) and out.strip() != row["key"]
    [said] = terminal.said
    assert said.startswith(f"tokenhub: {row['id']} (prod) has this secret now, shown only this once; ")
    assert "the former one works until 20" in said
    assert out.strip() not in said
    shown = await terminal.json("keys", "show", "prod")
    assert shown["old_secret_until"] - shown["rotated"] == 86_400
    assert "former one until" in await terminal.out("keys", "show", "prod")
    rotated = await terminal.json("keys", "rotate", row["id"], "--overlap", "7d")
    assert FORM.fullmatch(rotated.pop("key"))
    assert rotated["old_secret_until"] - rotated["rotated"] == 7 * 86_400
    assert (rotated["id"], rotated["created"], rotated["limits"]["rpm"]) == (row["id"], row["created"], 5)
    assert await terminal.json("keys", "show", "prod") == rotated
    await terminal.out("keys", "rotate", "prod", "--overlap", "0")
    assert "the former one is of no use any more" in terminal.said[0]
    assert "former" not in await terminal.out("keys", "show", "prod")
    await terminal.out("keys", "revoke", "prod")
    assert "was revoked, which is for good" in await terminal.failure("keys", "rotate", "prod")


async def test_the_table(terminal, state_folder):
    assert (await terminal.out("keys", "list")).startswith("ID  NAME  CREATED  EXPIRES  LAST USED  MODELS  ")
    assert "keys create" in terminal.said[0]
    await terminal.out("keys", "create", "--name", "old", "--expires", "1d")
    expire(state_folder / "t.db", "old")
    while (await terminal.json("keys", "show", "old"))["expires"] > time.time():
        pass  # a gateway that runs takes it on within a second
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


@pytest.mark.parametrize(
    "action", [["show"], ["edit", "--rpm", "1"], ["rotate"], ["revoke"]], ids=lambda argv: argv[0]
)
async def test_keys_that_are_not_there_or_more_than_one(terminal, state_folder, action):
    assert "There is no key 'x'" in await terminal.failure("keys", *action, "x")
    if not terminal.is_asked:
        assert not (state_folder / "t.db").exists()
        write_old(state_folder / "t.db", *(key_of(f"key_{n}", b"%d" % n, name="x") for n in (1, 2)))
        connect(str(state_folder / "t.db"), [].append).close()  # a command that writes would say that
    else:
        await terminal.out("keys", "create", "--name", "other")
        with contextlib.closing(sqlite3.connect(state_folder / "t.db")) as database, database:
            [settings] = database.execute("SELECT settings FROM keys").fetchone()
            rows = [(f"key_{n}", b"%d" % n, 1, settings.replace('"other"', '"x"')) for n in (1, 2)]
            database.executemany("INSERT INTO keys VALUES (?, ?, ?, ?)", rows)
        await terminal.out("keys", "edit", "other", "--rpm", "1")  # has the gateway look at once
    said = await terminal.failure("keys", *action, "x")
    assert "There are 2 keys called 'x'" in said and "(key_1, key_2)" in said
    assert (await terminal.json("keys", *action, "key_1"))["id"] == "key_1"


async def test_models_that_are_not_there(terminal):
    said = await terminal.failure("keys", "create", "--name", "x", "--models", "p/bigg")
    assert "did you mean 'p/big'" in said
    await terminal.out("keys", "create", "--name", "x", "--models", "auto,q/*")
    assert "'nothing'" in await terminal.failure("keys", "edit", "x", "--models", "nothing")


async def test_what_a_key_has_used(terminal, state_folder):
    id = (await terminal.json("keys", "create", "--name", "a"))["id"]
    now = time.time()
    write_ledger(state_folder, line(t=now, key=id, input=1000, output=234, nusd=1_500_000_000))
    await terminal.out("usage")  # adds it up
    row = await terminal.json("keys", "show", "a")
    if not terminal.is_asked:  # a gateway knows by itself what it serves, and asks the ledger once
        assert row["month"] == {"tokens": 1234, "usd": 1.5}
        assert row["last_used"] == pytest.approx(now, abs=0.001)
        assert "1,234 tokens, $1.5000" in await terminal.out("keys", "list")


# ---------------------------------------------------------------------- wrong usage
@pytest.mark.parametrize(("argv", "said"), [
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
    ("keys rotate x --overlap 31d", "--overlap: must be a span such as 24h or 7d, up to 30d, or 0 for none"),
    ("keys rotate x --overlap soon", "--overlap: must be a span"),
    ("keys edit x", "there is nothing to change"),
    ("keys edit x --json", "there is nothing to change"),
    ("keys edit x --rpm many", "--rpm: must be"),
])  # fmt: skip
def test_wrong_usage(argv, said, capsys, state_folder):
    check_refused(argv, said, capsys, state_folder)


async def test_tags(terminal):
    row = await terminal.json("keys", "create", "--name", "a", "--tags", "team=search, app=x")
    assert row["tags"] == {"app": "x", "team": "search"}
    assert (await terminal.json("keys", "edit", "a", "--tags", "team=ads"))["tags"] == {"team": "ads"}
    lines = (await terminal.out("keys", "show", "a")).splitlines()
    assert any(text.split() == ["tags", "team=ads"] for text in lines)
    for tags, said in (("colour=red", "There is no tag 'colour'"), ("teem=x", "did you mean 'team'?")):
        assert said in await terminal.failure("keys", "edit", "a", "--tags", tags)
    assert (await terminal.json("keys", "edit", "a", "--tags", "none"))["tags"] == {}
