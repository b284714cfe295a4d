"""Whom commands ask for keys and totals, and what they do where there is nobody to ask.

That both sources do the same is in test_keys.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import sqlite3
import time
from contextlib import closing

import pytest

from proxy.access.key import digest_of
from proxy.cli import key_source
from proxy.cli.admin_client import ConsoleError, NoGateway
from proxy.cli.key_source import use
from proxy.config.listen import show
from proxy.config.parse import parse
from proxy.errors import Unauthorized
from proxy.storage import database as state
from proxy.storage import schema_version
from proxy.storage.database import connect
from proxy.storage.key_table import load_keys
from tests.storage.test_ledger_ingest import line, name_of
from tests.support.fakes import until
from tests.support.keys import key_of, write_old

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = "{path}"
[admin]
listen = "{admin}"
[providers.p]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[models."p/big"]
"""
NOBODY = "127.0.0.1:1"
WHY = "no gateway answers at http://127.0.0.1:1"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.db"


@pytest.fixture
def text(path):
    return lambda admin=NOBODY: TEXT.format(path=path, admin=admin)


@pytest.fixture
def said():
    return []


@pytest.fixture
def ask(text, said):
    """``use`` of a configuration that leads to no gateway."""

    def ask(work, *, admin=NOBODY, url=None, config=None, **how):
        return use(work, said.append, url=url, config=config or parse(text(admin)), environ={}, **how)

    return ask


@pytest.fixture
def write(ask):
    """The same for what writes, and may make the database."""
    return functools.partial(ask, writes=True, makes=True)


def create(source):
    return source.create({"name": "a", "rpm": 1})


def all_of(source):
    return source.all()


def stored(path) -> list:
    with closing(connect(str(path))) as database:
        return load_keys(database)


# ---------------------------------------------------------------------- whom
@pytest.mark.parametrize(("admin", "why"), [
    (NOBODY, "no gateway answers at http://127.0.0.1:1"),
    ("unix:/nowhere/x.sock", "no gateway answers at unix:/nowhere/x.sock"),
    ("", "the admin API is switched off"),
    ("127.0.0.1:0", "[admin] listen has port 0"),
])  # fmt: skip
def test_where_nobody_is_asked_it_is_the_database(ask, path, said, admin, why):
    row = ask(create, admin=admin, writes=True, makes=True)
    [key] = stored(path)
    assert (key.id, key.rpm, key.digest) == (row["id"], 1, digest_of(row["key"].encode()))
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert row.pop("key") and row.pop("closes_gateway")
    assert ask(lambda keys: keys.all(), admin=admin) == [row]
    assert said == [
        f"{why}: written to {path}; a running gateway applies it within a second",
        f"{why}: read from {path}",
    ]


def test_an_address_that_was_given_is_the_only_one(write, path, said):
    with pytest.raises(NoGateway, match="tokenhub serve"):
        write(create, url="http://127.0.0.1:1")
    with pytest.raises(NoGateway):
        use(create, said.append, url="unix:/nowhere/x.sock", config=None, environ={})
    assert (path.exists(), said) == (False, [])


async def test_somebody_who_answers_with_an_error_is_somebody(start, text, write, path):
    server = await start(text("127.0.0.1:0").replace("[admin]", '[admin]\ntoken_env = "T"'), T="s3cret")
    admin = show(server.admin_address).removeprefix("http://")
    with pytest.raises(ConsoleError, match="401"):
        await asyncio.to_thread(write, create, admin=admin)
    assert stored(path) == []


async def test_a_gateway_without_admin_api_takes_it_on(start, text, ask, path):
    server = await start(text(""))
    row = await asyncio.to_thread(ask, create, admin="", writes=True, makes=True)
    await until(lambda: len(server.gateway.keys) == 1)

    def granted(row) -> str | None:
        try:
            grant = server.gateway.keys.grant_of([(b"x-api-key", row["key"].encode())])
            grant.check(time.time())
        except Unauthorized:
            return None
        return grant.id

    assert granted(row) == row["id"]
    rotated = await asyncio.to_thread(ask, lambda keys: keys.rotate("a", {}), admin="", writes=True)
    assert rotated["old_secret_until"] == rotated["rotated"] + 86_400
    await until(lambda: granted(rotated))
    assert granted(row) == granted(rotated) == row["id"]
    third = await asyncio.to_thread(ask, lambda keys: keys.rotate("a", {"overlap": 0}), admin="", writes=True)
    await until(lambda: granted(third))
    assert granted(row) is granted(rotated) is None


def test_a_database_in_memory_is_of_a_gateway_only_and_the_path_that_is_said_is_whole(
    write, said, tmp_path, monkeypatch
):
    with pytest.raises(ConsoleError, match=r"no gateway answers at .*: start|name a file"):
        write(create, config=parse(TEXT.format(path=":memory:", admin=NOBODY)))
    monkeypatch.chdir(tmp_path)
    write(create, config=parse(TEXT.format(path="here.db", admin=NOBODY)))
    assert str(tmp_path / "here.db") in said[0]


# ---------------------------------------------------------------------- a database
def test_who_only_reads_makes_none(ask, path, said):
    assert ask(all_of) == []
    assert ask(lambda keys: keys.usage({"by": "model"})) == []
    assert ask(lambda keys: keys.usage_csv({})).startswith("requests,")
    assert not path.exists()
    assert all(f"there is no {path} yet" in text for text in said)


def test_a_ledger_whose_database_has_gone_is_counted_into_a_new_one(ask, path, text):
    directory = path.with_name("t.db-ledger")
    directory.mkdir()
    for number in (1, 2):
        (directory / name_of(number)).write_bytes(line())
    config = parse(text().replace("[state]", '[state]\nledger_keep = "1KiB"'))
    keeps_nothing = dataclasses.replace(config, state=dataclasses.replace(config.state, ledger_keep_bytes=0))
    for _ in range(2):
        [row] = ask(lambda totals: totals.usage({}), config=keeps_nothing)
        assert row["requests"] == 2
    assert path.exists()
    assert len(list(directory.iterdir())) == 1  # the rule for old files holds here, too


def test_a_ledger_that_cannot_be_read(ask, write, path, caplog):
    row = write(create)
    path.with_name("t.db-ledger").write_text("no directory")
    assert ask(lambda keys: keys.revoke("a"), writes=True)["id"] == row["id"]
    assert "what keys used may be more" in caplog.text
    with pytest.raises(ConsoleError, match="can't be used"):
        ask(lambda totals: totals.usage({}))


@pytest.mark.parametrize("makes", [True, False])
def test_a_directory_that_is_not_there(ask, path, makes):
    """Also for a list: there may be keys in it once it is mounted."""
    path.parent.rename(path.parent.with_name("unmounted"))
    with pytest.raises(ConsoleError, match=r"does not exist\. Make it .'mkdir -p .* or mount"):
        ask(create if makes else all_of, writes=makes, makes=makes)


def garbage(path) -> None:
    path.write_bytes(b"no database" * 1000)


def later(path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {schema_version.VERSION + 1}")


def strange(path) -> None:
    with closing(connect(str(path))) as database:
        database.execute("INSERT INTO keys VALUES ('key_1', 'x', 1, '{\"colour\": 1}')")


@pytest.mark.parametrize("spoil", [garbage, later, strange, lambda path: path.mkdir()])
def test_a_file_that_cannot_be_used(write, path, said, spoil):
    spoil(path)
    with pytest.raises(ConsoleError) as caught:
        write(create)
    assert str(caught.value).startswith(f"[state] path {path} can't be used: ")
    assert ("\n" in str(caught.value), said) == (False, [])


def all_bytes(path) -> dict[str, bytes]:
    return {str(entry): entry.read_bytes() for entry in path.parent.rglob("*") if entry.is_file()}


def test_an_earlier_version_is_read_as_it_is(ask, path, said):
    """The gateway that wrote it may still run, and would refuse it afterwards. Its ledger is told, too."""
    write_old(path, key_of(name="a"))
    ledger = path.with_name("t.db-ledger")
    ledger.mkdir()
    (ledger / name_of(1)).write_bytes(line(key="key_1"))
    before = all_bytes(path)
    [row] = ask(all_of)
    [used] = ask(lambda totals: totals.usage({"by": "key"}))
    assert (row["name"], used["key"], used["requests"], all_bytes(path)) == ("a", "a", 3, before)
    text = (
        f"{WHY}: read from {path}, which stays as it is, of version 2; 'tokenhub serve' moves it to version 4"
    )
    assert said == [text, text]


def test_who_writes_to_an_earlier_version_moves_it_and_says_so(ask, path, said):
    write_old(path, key_of(name="a"))
    ask(lambda keys: keys.edit("a", {"rpm": 5}), writes=True)
    moved = f"the state database {path} was moved from version 2 to version 4"
    assert said[0] == f"{moved}; {path}.v2 is a copy of it as it was"
    assert "written to" in said[1]
    assert [key.rpm for key in stored(path)] == [5]
    said.clear()
    ask(all_of)
    assert said == [f"{WHY}: read from {path}"]


@pytest.mark.parametrize("how", [{}, {"writes": True}])
def test_a_later_version_is_left_alone(ask, path, how):
    later(path)
    before = all_bytes(path)
    with pytest.raises(ConsoleError) as caught:
        ask(all_of, **how)
    for text in (
        "it has version 5, of a later TokenHub; this one knows versions up to 4",
        "Run the later TokenHub again, or put the copy back",
    ):
        assert text in str(caught.value)
    assert all_bytes(path) == before


def test_a_file_that_another_locks(ask, write, path, monkeypatch):
    write(create)
    monkeypatch.setattr(state, "BUSY_MS", 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConsoleError, match="locked"):
            ask(lambda keys: keys.revoke("a"), writes=True)
    assert ask(lambda keys: keys.show("a"))["revoked"] is None


def test_what_cannot_be_says_where_it_was_looked_for_and_there_is_a_most_of_keys(
    ask, write, path, monkeypatch
):
    with pytest.raises(ConsoleError) as caught:
        ask(lambda keys: keys.show("x"))
    assert str(caught.value) == f"There is no key 'x' ({WHY}: looked at {path})"
    monkeypatch.setattr(key_source, "MAX_KEYS", 1)
    write(create)
    with pytest.raises(ConsoleError, match="There are 1 keys already"):
        write(create)


def test_models_that_have_left_may_stay_in_a_list(ask, write, text):
    write(lambda keys: keys.create({"name": "a", "models": ["big"]}))
    config = parse(text().replace("p/big", "p/other"))
    row = ask(lambda keys: keys.edit("a", {"models": ["big", "other"]}), config=config, writes=True)
    assert row["models"] == ["big", "other"]


def test_the_names_are_those_of_the_catalog(text):
    from proxy.routing.catalog import Catalog

    config = parse(text() + '[models."p/a/b"]\n[aliases]\nx = ["p/big"]\n')
    assert key_source._names(config) == set(Catalog(config, {}, 0).names())
