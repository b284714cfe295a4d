"""Keys: what they may be set to, and who is let in with which header."""

from __future__ import annotations

import json
import math

from proxy.access.accounts import Accounts, memory_bytes
from proxy.access.grants import KeyTable, others, secret_in
from proxy.access.key import (
    FIELDS,
    GROUP_NAME,
    LIMITS,
    MAX_COUNT,
    MAX_UNIX_S,
    MAX_USD,
    NUSD,
    ON_DISCONNECT,
    Key,
    KeySettingsError,
    check_models,
    digest_of,
    read_settings,
)
from proxy.access.permits import Month
from proxy.errors import Unauthorized

NOW = 1_790_000_000.0
SECRET = b"th-" + b"x" * 43
KEY = Key("key_1", "fuzz", digest_of(SECRET), int(NOW))
TABLE = KeyTable([(KEY, 0)], Accounts(memoryview(bytearray(memory_bytes(1))), 1, 0), is_open=False)
HEADERS = (b"x-tokenhub-key", b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
SEEDS = [
    b'{"name":"a","rpm":5,"tpm":null,"limits":{"monthly_usd":0.1,"concurrency":2.0},"models":["o/*","x"]}',
    b'{"name":"a","models":"o/a, o/b","expires":"30d","on_disconnect":"drain"}',
    b'{"expires":"2027-01-31T18:00:00Z","max_tokens":1e3}',
    b'{"group":" a.b-1 ","soft":true,"daily_usd":0.1,"limits":{"daily_tokens":7}}',
    b'{"expires":"0001-01-01T00:00+14:00","monthly_usd":1e-9,"nmae":1}',
    b'{"expires":1e400,"monthly_usd":NaN,"rpm":true,"limits":[]}',
    b'{"monthly_usd":10000000000,"name":" a "}', b'{"rpm":1e13}', b"\x01Bearer " + SECRET,
    b"\x02" + SECRET + b"\x01bearer sk-x", b"\x01Basic " + SECRET + b"\x00th-",
]  # fmt: skip


def test_one(data: bytes) -> None:
    check_access(data)
    try:
        given = json.loads(data.decode())
    except (ValueError, RecursionError):
        return
    if not isinstance(given, dict):
        return
    try:
        found = read_settings(given, NOW)
    except KeySettingsError as error:
        assert str(error)
        return
    check_settings(found)
    models = found.get("models")
    if models:
        try:
            check_models(models, ["o/a", "x"])
        except KeySettingsError as error:
            assert "unknown model" in str(error)


def check_settings(found: dict[str, object]) -> None:
    key = Key("key_2", **{"name": "n", "digest": b"", "created": 0, **found})  # type: ignore[arg-type]
    for name in ("rpm", "tpm", "concurrency", "daily_tokens", "monthly_tokens", "max_tokens"):
        value = getattr(key, name)
        assert value is None or (type(value) is int and 1 <= value <= MAX_COUNT)
    for nusd in (key.daily_nusd, key.monthly_nusd):
        assert nusd is None or 0 < nusd <= MAX_USD * NUSD
    assert key.group is None or GROUP_NAME.fullmatch(key.group)
    assert type(key.soft) is bool
    assert key.expires is None or (type(key.expires) is int and 0 <= key.expires <= MAX_UNIX_S)
    assert key.name == key.name.strip() and key.name.isprintable() and 0 < len(key.name) <= 100
    assert key.on_disconnect in (None, *ON_DISCONNECT)
    # What is shown of it can be set again, and means the same.
    row = key.row(Month(0, 0, 0.0))
    settings = {name: row[name] for name in ("name", "models", "expires", "on_disconnect", "group", "soft")}
    again = read_settings(json.loads(json.dumps({**settings, "limits": row["limits"]})), NOW)
    assert set(settings) | set(LIMITS) <= set(FIELDS)
    for name, value in again.items():
        meant = getattr(key, name)
        # A float has not always nine decimals left above some million dollars.
        assert value == meant or (name.endswith("_nusd") and math.isclose(value, meant, rel_tol=1e-15))


def check_access(data: bytes) -> None:
    """Header values, each behind a byte that says which; only the very key lets in."""
    credentials = []
    for part in data[:500].split(b"\n"):
        if part:
            credentials.append((HEADERS[part[0] % len(HEADERS)], part[1:].strip(b" \t")))
    secret = secret_in(credentials)
    brings = any(SECRET in value for _, value in credentials)
    try:
        grant = TABLE.grant_of(credentials)
    except Unauthorized as error:
        assert error.status == 401
        assert SECRET.decode() not in str(error)
    else:
        assert grant is not None and grant.key is KEY and secret == SECRET and brings
    for name, value in others(credentials):
        assert SECRET not in value or value[max(value.find(SECRET) - 1, 0)] not in b" \t,;=:\"'"
        assert name != b"x-tokenhub-key"
