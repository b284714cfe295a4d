"""What the tests of keys share: keys, their accounts, and a gateway's admin API."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from proxy.access.accounts import Accounts, memory_bytes
from proxy.access.grants import Grant, KeyTable
from proxy.access.group import Group
from proxy.access.key import Key, digest_of
from proxy.access.limits import Account
from proxy.access.permits import Month
from proxy.errors import GatewayError
from proxy.routing.catalog import Catalog
from proxy.server.single import Server
from proxy.storage import database as state
from proxy.storage import key_table
from tests.support.fakes import RawClient, ScriptedProvider

SECRET = b"th-" + b"s" * 43
# A Monday noon, in UTC: 2026-06-01 12:00.
UNIX_S = 1_780_315_200.0
CONFIG = """
[providers.mock]
base_url = "{url}"
auth = "none"
[models."mock/m"]
input_price = 1
output_price = 2
[models."mock/n"]
input_price = 1
output_price = 2
{more}
"""
BODY = b'{"model":"mock/m"}'


# Of version 3 and before, with a row of each key: 2 requests, 1 of them failed.
_OLD_TOTALS = """
CREATE TABLE ledger_files (
    name TEXT PRIMARY KEY, offset INTEGER NOT NULL, torn INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE usage (
    day INTEGER NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, provider TEXT NOT NULL,
    requests INTEGER NOT NULL, errors INTEGER NOT NULL, input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL, nusd INTEGER NOT NULL, estimated INTEGER NOT NULL,
    last_at REAL NOT NULL, PRIMARY KEY (day, key, model, provider)
) WITHOUT ROWID;
INSERT INTO ledger_files VALUES ('1700000000000-000-000001.jsonl', 1000, 0);
"""


def key_of(id: str = "key_1", secret: bytes = SECRET, **settings: Any) -> Key:
    digest = settings.pop("digest", digest_of(secret))
    return Key(id=id, name=settings.pop("name", id), digest=digest, created=1, **settings)


def write_old(path: Path, *keys: Key, version: int = 2) -> None:
    """A database as the version before groups (3) made it, or the one before rotations (2), where keys could
    have one name."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(state._TABLES + key_table.TABLES + _OLD_TOTALS)
        database.execute("DROP TABLE key_groups")
        for key in keys:
            settings = dataclasses.asdict(key)
            later = ("group", "daily_nusd", "daily_tokens", "soft", "tags")
            later += ("rotated", "old_digest", "old_until") if version == 2 else ()
            for name in ("id", "digest", "created", *later):
                del settings[name]
            row = key.id, key.digest, key.created, json.dumps(settings)
            database.execute("INSERT INTO keys VALUES (?, ?, ?, ?)", row)
            used = (20_600, key.id, "m", "p", 2, 1, 10, 4, 3, 5, 2, 7, 1, 9.5)
            database.execute(f"INSERT INTO usage VALUES ({', '.join('?' * 14)})", used)
        database.execute(f"PRAGMA user_version = {version}")


def expire(path: Path, name: str, unix_s: int = 981_173_100) -> None:
    """Have a key's end have come, 2001-02-03 04:05 UTC or another: none is made with an end in the past."""
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "UPDATE keys SET settings = json_set(settings, '$.expires', ?) "
            "WHERE json_extract(settings, '$.name') = ?",
            (unix_s, name),
        )


def accounts_of(workers: int = 1, own: int | None = 0, memory: memoryview | None = None) -> Accounts:
    return Accounts(memory or memoryview(bytearray(memory_bytes(workers))), workers, own)


def account_of(accounts: Accounts | None = None, slot: int = 0, **settings: Any) -> Account:
    """An account that is open, with nothing used."""
    accounts = accounts or accounts_of()
    accounts.open(slot, UNIX_S, Month(0, 0, 0.0))
    return Account(accounts, slot, key_of(**settings))


def grant_of(**settings: Any) -> Grant:
    return Grant(key_of(**settings), account_of(**settings))


def ready_grant(catalog: Catalog, **settings: Any) -> Grant:
    """One whose list of models is held against a catalog."""
    grant = grant_of(**settings)
    for _ in grant.make_ready(catalog):
        assert not grant.is_ready(catalog)
    assert grant.is_ready(catalog)
    return grant


def table_of(
    *keys: Key, is_open: bool = False, groups: Sequence[Group] = (), before: KeyTable | None = None
) -> KeyTable:
    accounts = accounts_of() if before is None or before._accounts is None else before._accounts
    slots = [(group, len(keys) + slot) for slot, group in enumerate(groups)]
    return KeyTable(
        [*zip(keys, range(len(keys)), strict=True)], accounts, is_open=is_open, groups=slots, before=before
    )


async def opened(
    start: Callable[[str], Awaitable[Server]], provider: ScriptedProvider, more: str = ""
) -> tuple[Server, RawClient]:
    """A gateway in front of a provider, and a client of it.

    :param more: what follows in its configuration.
    """
    server = await start(CONFIG.format(url=provider.url, more=more))
    return server, await RawClient.connect(server)


def bearer(secret: bytes) -> bytes:
    return b"Authorization: Bearer %b\r\n" % secret


async def admin(server: Server, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """One request to the admin API: status, and the JSON or the text of the answer."""
    assert server.admin_address is not None
    client = await RawClient.to(server.admin_address)
    sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} /admin/v1{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    await client.send(f"{head}Content-Length: {len(sent)}\r\n\r\n".encode() + sent)
    status, fields, answer = await client.response()
    client.close()
    is_json = fields[b"content-type"] == b"application/json"
    return status, json.loads(answer) if is_json else answer.decode()


async def make(server: Server, **settings: Any) -> tuple[str, bytes]:
    """A new key: its id, and the key."""
    status, row = await admin(server, "POST", "/keys", {"name": "k", **settings})
    assert status == 201, row
    return row["id"], row["key"].encode()


async def make_limited(server: Server, of: str, **limits: Any) -> tuple[str, bytes]:
    """A new key with these limits, its own or (``of`` a ``group``) those of a group that it is in."""
    if of == "key":
        return await make(server, **limits)
    name = limits.pop("name", "k")
    status, row = await admin(server, "POST", "/groups", {"name": f"g{name.replace(' ', '')}", **limits})
    assert status == 201, row
    return await make(server, name=name, group=row["name"])


async def ask(
    client: RawClient, secret: bytes = b"", body: bytes = BODY, extra: bytes = b""
) -> tuple[int, dict[bytes, bytes], bytes]:
    await client.post(body, extra=extra + (bearer(secret) if secret else b""))
    return await client.response()


def kind_of(error: GatewayError) -> tuple[int, str, str, str | None]:
    return error.status, error.type, error.code, error.param


def check_error(
    answer: tuple[int, dict[bytes, bytes], bytes], status: int, type: str, code: str, param: str | None = None
) -> str:
    """An error in the envelope, to the letter; its message."""
    got, fields, body = answer
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "code", "param"}
    assert (got, error["type"], error["code"], error["param"]) == (status, type, code, param)
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"x-request-id"] == fields[b"x-inferoute-request-id"]
    assert (b"retry-after" in fields) == (status in (402, 429))
    assert (b"www-authenticate" in fields) == (status == 401)
    return str(error["message"])
