"""The admin API's part about keys and usage, and what it changes for those who are served."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import chain
from urllib.parse import quote

import pytest

from tests.support import admin_api
from tests.support.fakes import Call, RawClient, answers, hangs, stepped, until
from tests.support.keys import BODY, CONFIG, admin, ask, bearer, check_error, make, make_limited
from tests.support.supervised import Running

ANSWER = b'{"usage":{"prompt_tokens":40,"completion_tokens":60}}'
NOTHING = {
    "rpm": None, "tpm": None, "concurrency": None, "daily_usd": None, "daily_tokens": None,
    "monthly_usd": None, "monthly_tokens": None, "max_tokens": None,
}  # fmt: skip


@pytest.fixture
async def server(provider, start):
    return await start(CONFIG.format(url=provider.url, more='[aliases]\npremium = ["mock/m"]'))


SETTINGS = {
    "name": "prod", "rpm": 60, "tpm": 1000, "concurrency": 5, "monthly_usd": 0.1, "monthly_tokens": 10**6,
    "daily_usd": 0.05, "daily_tokens": 10**5, "soft": True, "max_tokens": 100,
    "models": ["mock/*", "premium"], "expires": "2099-01-01", "on_disconnect": "drain",
}  # fmt: skip


def said(answer: tuple[int, dict], status: int, code: str, param: str | None = None) -> str:
    got, body = answer
    error = body["error"]
    assert (got, error["code"], error["param"]) == (status, code, param), body
    assert error.keys() == {"message", "type", "code", "param"}
    return error["message"]


async def statuses(client: RawClient, secret: bytes, count: int) -> list[int]:
    return [(await ask(client, secret))[0] for _ in range(count)]


# ---------------------------------------------------------------------- keys
async def test_keys_from_beginning_to_end(server):
    assert await admin(server, "GET", "/keys") == (200, {"data": []})
    status, row = await admin(server, "POST", "/keys", SETTINGS)
    assert status == 201
    secret = row.pop("key")
    assert row.pop("closes_gateway") is True
    assert len(secret) == 46 and secret.startswith("th-")
    assert abs(row["created"] - time.time()) < 60
    id = row["id"]
    assert row == {
        "id": id, "name": "prod", "created": row["created"],
        "expires": int(datetime(2099, 1, 1, tzinfo=UTC).timestamp()), "revoked": None, "last_used": None,
        "models": ["mock/*", "premium"], "limits": {name: SETTINGS[name] for name in NOTHING},
        "on_disconnect": "drain", "rotated": None, "old_secret_until": None, "group": None, "soft": True,
        "tags": {}, "day": {"tokens": 0, "usd": 0.0}, "month": {"tokens": 0, "usd": 0.0},
    }  # fmt: skip
    for path in (f"/keys/{id}", "/keys/prod"):
        assert await admin(server, "GET", path) == (200, row)  # without the key itself
    assert await admin(server, "GET", "/keys") == (200, {"data": [row]})
    lifted = dict.fromkeys(SETTINGS) | {"name": "other"}
    changed = row | {
        "name": "other", "models": None, "expires": None, "on_disconnect": None, "limits": NOTHING,
        "soft": False,
    }  # fmt: skip
    for given in (lifted, {}):
        assert await admin(server, "PATCH", f"/keys/{id}", given) == (200, changed)
    changed["limits"] = NOTHING | {"rpm": 5}
    assert await admin(server, "PATCH", f"/keys/{id}", {"limits": {"rpm": 5}}) == (200, changed)
    status, revoked = await admin(server, "DELETE", f"/keys/{id}")
    assert (status, revoked["id"]) == (200, id)
    assert abs(revoked["revoked"] - time.time()) < 60
    assert await admin(server, "DELETE", f"/keys/{id}") == (200, revoked)
    assert await admin(server, "GET", "/keys") == (200, {"data": [revoked]})


async def test_what_cant_be(server):
    id, _ = await make(server)
    for method, path in (("POST", ""), ("PATCH", f"/{id}")):
        answer = await admin(server, method, f"/keys{path}", {"name": "x", "rpm": 0, "tmp": 5})
        text = said(answer, 422, "invalid_key")
        assert text.startswith("There is no setting 'tmp'; did you mean 'tpm'?; 'rpm' must be a whole number")
        answer = await admin(server, method, f"/keys{path}", {"name": "x", "models": ["premiun"]})
        assert "did you mean 'premium'?" in said(answer, 422, "invalid_key")
        said(await admin(server, method, f"/keys{path}", b"{"), 400, "malformed_json")
        said(await admin(server, method, f"/keys{path}", [1]), 422, "invalid_key")
    assert "needs a 'name'" in said(await admin(server, "POST", "/keys", {"rpm": 5}), 422, "invalid_key")
    for method, body in (("GET", None), ("PATCH", {}), ("DELETE", None)):
        assert said(await admin(server, method, "/keys/none", body), 404, "key_not_found") == (
            "There is no key 'none'."
        )
    assert len((await admin(server, "GET", "/keys"))[1]["data"]) == 1
    said(await admin(server, "PUT", f"/keys/{id}", {}), 405, "method_not_allowed")


async def test_a_name_that_is_taken(server):
    id, _ = await make(server, name="prod")
    other, _ = await make(server, name="test")
    for method, path, body in (
        ("POST", "/keys", {"name": "prod"}), ("PATCH", f"/keys/{other}", {"name": "prod", "rpm": 5}),
    ):  # fmt: skip
        text = said(await admin(server, method, path, body), 409, "key_name_taken", "name")
        assert text.startswith(f"The name 'prod' is taken by {id}, which is in use.")
    assert (await admin(server, "GET", f"/keys/{other}"))[1]["limits"]["rpm"] is None
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    assert (await admin(server, "PATCH", f"/keys/{other}", {"name": "prod"}))[0] == 200


async def test_a_rotation(server):
    id, secret = await make(server, name="prod", rpm=5)
    before = (await admin(server, "GET", f"/keys/{id}"))[1]
    status, row = await admin(server, "POST", f"/keys/{id}/rotate", {"overlap": "2h"})
    assert status == 200
    fresh = row.pop("key")
    assert fresh.startswith("th-") and len(fresh) == 46 and fresh != secret.decode()
    assert row["old_secret_until"] == row["rotated"] + 7200
    assert {**row, "rotated": None, "old_secret_until": None} == before
    assert await admin(server, "GET", "/keys/prod") == (200, row)  # without the secret
    for body in ({"overlap": "31d"}, {"overlap": True}, {"name": "x"}):
        said(await admin(server, "POST", f"/keys/{id}/rotate", body), 422, "invalid_key")
    said(await admin(server, "POST", f"/keys/{id}/rotate", b"{"), 400, "malformed_json")
    said(await admin(server, "POST", "/keys/none/rotate", {}), 404, "key_not_found")
    said(await admin(server, "GET", f"/keys/{id}/rotate"), 405, "method_not_allowed")
    assert await admin(server, "GET", f"/keys/{id}") == (200, row)
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    said(await admin(server, "POST", f"/keys/{id}/rotate", {}), 422, "invalid_key")


@pytest.mark.parametrize(
    "name", ["team/prod", "a {b} c", "50 %", "%41", "ü ✓", "a?b#c", "..", "a//b/", "a/rotate"]
)
async def test_names_in_the_path(server, name):
    id, _ = await make(server, name=name)
    at = f"/keys/{quote(name, safe='')}"
    status, row = await admin(server, "PATCH", at, {"rpm": 5})
    assert (status, row["id"], row["limits"]["rpm"]) == (200, id, 5)
    assert (await admin(server, "GET", at))[1] == row
    assert (await admin(server, "DELETE", at))[1]["revoked"]


async def test_a_new_key_says_where_it_is_and_is_kept_nowhere(server):
    status, fields, body = await admin_api.ask(server, "POST", "/admin/v1/keys", {"name": "x"})
    assert (status, fields[b"cache-control"]) == (201, b"no-store")
    assert fields[b"location"].decode() == f"/admin/v1/keys/{json.loads(body)['id']}"


# ---------------------------------------------------------------------- usage
async def test_usage(server, provider):
    provider.script = answers(ANSWER)
    client = await RawClient.connect(server)
    assert (await ask(client))[0] == 200
    key_id, secret = await make(server, name="prod")
    for body in (BODY, BODY, b'{"model":"mock/n"}'):
        assert (await ask(client, secret, body))[0] == 200
    status, answer = await admin(server, "GET", "/usage")
    assert status == 200
    row = {
        "requests": 4, "errors": 0, "input_tokens": 160, "cached_tokens": 0, "cache_write_tokens": 0,
        "output_tokens": 240, "reasoning_tokens": 0, "usd": 0.00064, "saved_usd": 0.0,
        "estimated": 0,
    }  # fmt: skip
    assert answer == {"data": [row]}
    [nobody, prod] = (await admin(server, "GET", "/usage?by=key"))[1]["data"]
    assert (nobody["key"], nobody["key_id"], nobody["requests"]) == (None, None, 1)
    assert (prod["key"], prod["key_id"], prod["requests"], prod["usd"]) == ("prod", key_id, 3, 0.00048)
    rows = (await admin(server, "GET", "/usage?by=model,provider,day&since=1d"))[1]["data"]
    today = datetime.now(UTC).date()
    assert {row["day"] for row in rows} <= {today.isoformat(), (today - timedelta(days=1)).isoformat()}
    assert [(row["model"], row["provider"], row["requests"]) for row in rows] == [
        ("mock/m", "mock", 3), ("mock/n", "mock", 1),
    ]  # fmt: skip
    assert (await admin(server, "GET", "/usage?until=2000-01-01"))[1]["data"][0]["requests"] == 0
    status, text = await admin(server, "GET", "/usage?by=key&format=csv")
    table = list(csv.reader(io.StringIO(text)))
    assert (table[0][:3], table[2][:3]) == (["key", "key_id", "requests"], ["prod", key_id, "3"])
    assert table[2][table[0].index("usd")] == "0.000480000"


@pytest.mark.parametrize(("query", "param"), [
    ("by=colour", "by"), ("by=key,key", "by"), ("since=soon", "since"), ("until=soon", "until"),
    ("nonsense=1", "nonsense"), ("format=xml", "format"), ("since=2026-02-01&until=2026-01-01", "since"),
])  # fmt: skip
async def test_a_question_that_is_none(server, query, param):
    text = said(await admin(server, "GET", f"/usage?{query}"), 400, "invalid_query", param)
    assert text.endswith(".") and text[0] in "'BFSTU"


@pytest.mark.parametrize(("query", "accept", "type"), [
    ("", "*/*", b"application/json"),
    ("", "text/csv", b"text/csv; charset=utf-8"),
    ("?format=json", "text/csv", b"application/json"),
    ("?format=csv", "application/json", b"text/csv; charset=utf-8"),
    ("?format=&by=&since=&until=", "application/xml", b"application/json"),
])  # fmt: skip
async def test_the_form_of_totals(server, query, accept, type):
    path = f"/admin/v1/usage{query}"
    status, fields, body = await admin_api.ask(server, "GET", path, extra=f"Accept: {accept}\r\n")
    assert (status, fields[b"content-type"], fields[b"vary"]) == (200, type, b"Accept")
    assert body.startswith(b"requests," if b"csv" in type else b'{"data":')


async def test_totals_that_cant_be_read(server):
    await server._control._database.close()
    assert said(await admin(server, "GET", "/usage"), 503, "storage_failed").startswith("The totals can't be")


# ---------------------------------------------------------------------- limits, as clients see them
async def test_requests_a_minute(server, provider):
    provider.script = answers(
        ANSWER,
        extra=b"X-RateLimit-Limit-Requests: 9\r\nx-ratelimit-remaining-requests: 8\r\n"
        b"X-Ratelimit-Reset-Requests: 6ms\r\nx-ratelimit-reset-requests-After: 9s\r\n"
        b"X-RateLimit-Limit-Tokens: 7\r\nX-RateLimit-Other: 5\r\n",
    )
    _, secret = await make(server, rpm=2)
    client = await RawClient.connect(server)
    before = time.time()
    for left in (b"1", b"0"):
        status, fields, _ = await ask(client, secret)
        assert (status, fields[b"x-ratelimit-limit-requests"]) == (200, b"2")
        assert fields[b"x-ratelimit-remaining-requests"] == left
        assert before + 59 <= int(fields[b"x-ratelimit-reset-requests"]) <= time.time() + 62
        assert fields[b"x-ratelimit-reset-requests-after"] in (b"1m0s", b"59s", b"58s")
        # Of limits that the key has none of, the provider's word stands.
        assert (fields[b"x-ratelimit-limit-tokens"], fields[b"x-ratelimit-other"]) == (b"7", b"5")
    answer = await ask(client, secret)
    message = check_error(answer, 429, "rate_limit_error", "rate_limit_exceeded", "rpm")
    assert message.startswith("The key's limit of 2 requests a minute is reached. Retry in ")
    fields = answer[1]
    assert 1 <= int(fields[b"retry-after"]) <= 60
    assert fields[b"x-should-retry"] == b"true"
    assert (fields[b"x-ratelimit-remaining-requests"], fields[b"x-ratelimit-limit-requests"]) == (b"0", b"2")
    reset = int(fields[b"x-ratelimit-reset-requests"])
    assert abs(reset - time.time() - int(fields[b"retry-after"])) <= 3
    assert len(provider.seen) == 2


async def test_tokens_a_minute(server, provider):
    provider.script = answers(ANSWER, extra=b"X-RateLimit-Remaining-Tokens: 5\r\n")
    _, secret = await make(server, tpm=150)
    client = await RawClient.connect(server)
    body = b'{"model":"mock/m","max_tokens":40}'
    _, fields, _ = await ask(client, secret, body)
    assert fields[b"x-ratelimit-limit-tokens"] == b"150"
    assert 95 <= int(fields[b"x-ratelimit-remaining-tokens"]) <= 105  # less what is reserved
    assert b"x-ratelimit-limit-requests" not in fields
    _, fields, _ = await ask(client, secret, body)
    assert int(fields[b"x-ratelimit-remaining-tokens"]) <= 5  # 100 were really used
    answer = await ask(client, secret, body)
    check_error(answer, 429, "rate_limit_error", "rate_limit_exceeded", "tpm")
    assert answer[1][b"x-ratelimit-remaining-tokens"] == b"0"


@pytest.mark.parametrize(("limit", "param", "text"), [
    ({"monthly_tokens": 150}, "monthly_tokens", "150 tokens"),
    ({"monthly_usd": 2e-4}, "monthly_usd", "$0.0002"),
    ({"daily_tokens": 150}, "daily_tokens", "150 tokens"), ({"daily_usd": 2e-4}, "daily_usd", "$0.0002"),
])  # fmt: skip
async def test_limits_of_a_day_and_a_month(server, provider, limit, param, text):
    period = param.partition("_")[0]
    provider.script = answers(ANSWER)
    id, secret = await make(server, **limit)
    client = await RawClient.connect(server)
    assert await statuses(client, secret, 2) == [200, 200]
    answer = await ask(client, secret)
    message = check_error(answer, 402, "usage_limit_exceeded", f"{period}_limit_reached", param)
    assert message.startswith(f"The key's {period} limit of {text} is reached. It resets on ")
    assert answer[1][b"x-should-retry"] == b"false"
    _, row = await admin(server, "GET", f"/keys/{id}")
    assert row["month"] == {"tokens": 200, "usd": 0.00032}
    assert abs(row["last_used"] - time.time()) < 60
    # More room, from the next request on; what was used stays used.
    for given, status in ({param: 1000}, 200), (limit, 402):
        assert (await admin(server, "PATCH", f"/keys/{id}", given))[0] == 200
        assert await statuses(client, secret, 1) == [status]


async def test_a_client_that_leaves_makes_room(server, provider):
    provider.script = hangs
    _, secret = await make(server, concurrency=1, tpm=10_000)
    for _ in range(5):
        client = await RawClient.connect(server)
        count = len(provider.seen)
        await client.post(BODY, extra=bearer(secret))
        await until(lambda count=count: len(provider.seen) > count)
        other = await RawClient.connect(server)
        refused = await ask(other, secret)
        check_error(refused, 429, "rate_limit_error", "rate_limit_exceeded", "concurrency")
        assert refused[1][b"retry-after"] == b"1"
        client.close()
        await until(lambda: len(server.gateway.connections) == 1)
        other.close()
        await until(lambda: not server.gateway.connections)
    provider.script = answers()
    assert (await ask(await RawClient.connect(server), secret))[0] == 200


@pytest.mark.parametrize(("script", "expected"), [
    (answers(b"{}", b"500 No"), 500), (answers(b"{}", b"401 No"), 502),
    (answers(b"nonsense", b"429 Later", b"Retry-After: 5\r\n"), 429), (None, 502),
])  # fmt: skip
async def test_failed_attempts_make_room_and_cost_nothing(server, provider, script, expected):
    async def closes(call: Call) -> None:
        await call.request()

    provider.script = script or closes
    id, secret = await make(server, concurrency=1, tpm=100_000, monthly_tokens=100_000)
    client = await RawClient.connect(server)
    for _ in range(4):
        status, fields, _ = await ask(client, secret)
        assert status == expected
        assert int(fields[b"x-ratelimit-remaining-tokens"]) > 100_000 - 16_384 - 100
    _, row = await admin(server, "GET", f"/keys/{id}")
    assert row["month"] == {"tokens": 0, "usd": 0.0}


async def test_a_request_that_cant_be_sent_makes_room(provider, start):
    strict = 'auth = "none"\ncase_insensitive_keys = true'
    server = await start(CONFIG.format(url=provider.url, more="").replace('auth = "none"', strict))
    _, secret = await make(server, concurrency=1)
    client = await RawClient.connect(server)
    for _ in range(3):
        assert (await ask(client, secret, b'{"model":"mock/m","Model":"x"}'))[0] == 400
    assert (await ask(client, secret))[0] == 200


async def test_a_large_body_is_refused_before_it_comes(server, provider):
    _, secret = await make(server, rpm=1)
    client = await RawClient.connect(server)
    assert (await ask(client, secret))[0] == 200
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000\r\n%b\r\n"
    await client.send(head % bearer(secret))
    check_error(await client.response(), 429, "rate_limit_error", "rate_limit_exceeded", "rpm")


async def test_a_limit_holds_for_the_next_request(server):
    id, secret = await make(server)
    client = await RawClient.connect(server)
    assert await statuses(client, secret, 3) == [200] * 3
    for rpm, expected, left in (1, [200, 429], b"0"), (3, [200], b"1"), (None, [200], None):
        assert (await admin(server, "PATCH", f"/keys/{id}", {"rpm": rpm}))[0] == 200
        for status in expected:
            got, fields, _ = await ask(client, secret)
            assert (got, fields.get(b"x-ratelimit-remaining-requests")) == (status, left)


async def test_a_stream_that_runs_outlives_its_key(server, provider):
    step = asyncio.Event()
    provider.script = stepped(step)
    id, secret = await make(server, concurrency=1)
    client = await RawClient.connect(server)
    await client.post(b'{"model":"mock/m","stream":true}', extra=bearer(secret))
    await client.reader.readuntil(b"first\n\n")
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    step.set()
    await client.reader.readuntil(b"\r\n0\r\n\r\n")
    check_error(await ask(client, secret), 401, "authentication_error", "invalid_api_key")


# ---------------------------------------------------------------------- several workers


TEXT = (
    '[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\n[state]\npath = "{folder}/t.db"\n'
    + CONFIG.replace("{url}", "{a}").replace("{more}", "")
)


@pytest.fixture
async def running(provider, tmp_path):
    """Two workers."""
    made = Running(tmp_path, provider.url, "", TEXT)
    await made.supervisor.start()
    yield made
    await made.supervisor.close()


@pytest.mark.parametrize("of", ["key", "group"])
async def test_limits_are_exact_over_workers(running, provider, of):
    provider.script = answers(ANSWER)
    clients = [client for _ in range(8) for client in await running.one_each()]
    id, secret = await make_limited(running, of, rpm=40, daily_usd=1)
    found = await asyncio.gather(*(statuses(client, secret, 8) for client in clients))
    assert Counter(chain(*found)) == {200: 40, 429: 88}
    _, row = await admin(running, "GET", f"/keys/{id}")
    assert row["month"] == row["day"] == {"tokens": 4000, "usd": 0.0064}
    for group in (await admin(running, "GET", "/groups"))[1]["data"]:
        assert group["month"] == group["day"] == row["month"]
    rows = (await admin(running, "GET", "/usage?by=key"))[1]["data"]
    counted = [(row["key_id"], row["requests"], row["usd"]) for row in rows if row["key_id"]]
    assert counted == [(id, 40, 0.0064)]
    ledger = os.listdir(running.supervisor._control.usage_index.directory)
    assert sorted(name.split("-")[1] for name in ledger if name.endswith(".jsonl")) == ["000", "001"]


async def test_a_change_of_a_group_holds_at_every_worker(running):
    clients = await running.one_each()
    _, secret = await make_limited(running, "group", rpm=1000)
    assert [(await ask(client, secret))[0] for client in clients] == [200] * 2
    for rpm, expected in (1, 429), (1000, 200):
        assert (await admin(running, "PATCH", "/groups/gk", {"rpm": rpm}))[0] == 200
        assert [(await ask(client, secret))[0] for client in clients] == [expected] * 2


async def test_a_change_holds_at_every_worker(running):
    clients = await running.one_each()
    id, secret = await make(running)
    for client in clients:
        assert (await ask(client))[0] == 401
        assert (await ask(client, secret))[0] == 200
    for method, body, expected in ("PATCH", {"models": ["mock/n"]}, 403), ("DELETE", None, 401):
        assert (await admin(running, method, f"/keys/{id}", body))[0] == 200
        assert [(await ask(client, secret))[0] for client in clients] == [expected] * 2


@pytest.mark.parametrize("of", ["key", "group"])
async def test_what_a_killed_worker_held_is_free(running, provider, of):
    hanging = True

    async def script(call: Call) -> None:
        while True:
            await call.request()
            await (call.gone() if hanging else call.answer())

    provider.script = script
    clients = await running.one_each()
    _, secret = await make_limited(running, of, concurrency=2, rpm=1000)
    for client in clients:
        await client.post(BODY, extra=bearer(secret))
    await until(lambda: len(provider.seen) == 2)
    probes = await running.one_each()
    assert [(await ask(client, secret))[0] for client in probes] == [429, 429]
    killed = running.pids[0]
    os.kill(killed, signal.SIGKILL)
    await until(lambda: len(running.pids) == 2 and killed not in running.pids, 20)
    hanging = False
    for client in await running.one_each():
        assert (await ask(client, secret))[0] == 200  # there is room for one
    hanging = True
    third, fourth = await running.one_each()
    count = len(provider.seen)
    await third.post(BODY, extra=bearer(secret))
    await until(lambda: len(provider.seen) > count)
    assert (await ask(fourth, secret))[0] == 429  # and for no more
