"""What a key is told of itself: limits, totals, finished requests; and of no other key."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from proxy.errors import BadRequest, GatewayError, Unavailable
from proxy.relay.downstream import own_figures as module
from proxy.relay.downstream.own_figures import MOST, OwnAnswer, OwnFigures, Told, read_parameters
from tests.support.fakes import RawClient, answers
from tests.support.keys import admin, ask, bearer, check_error, make, opened

ANSWER = json.dumps({"usage": {"prompt_tokens": 40, "completion_tokens": 60}}).encode()
UNKNOWN = (404, "not_found_error", "request_not_found")


async def get(client: RawClient, path: str, secret: bytes = b""):
    head = f"GET {path} HTTP/1.1\r\nHost: g\r\n".encode()
    await client.send(head + (bearer(secret) if secret else b"") + b"\r\n")
    return await client.response()


async def told(client: RawClient, path: str, secret: bytes) -> dict:
    status, fields, body = await get(client, path, secret)
    assert (status, fields[b"content-type"]) == (200, b"application/json"), body
    return json.loads(body)


@pytest.fixture
async def server(start, provider, tmp_path):
    provider.script = answers(ANSWER)
    more = f'[state]\npath = "{tmp_path}/t.db"\n[usage]\ntags = ["team"]\n'
    server, client = await opened(start, provider, more)
    client.close()
    return server


async def test_limits(server):
    client = await RawClient.connect(server)
    id, secret = await make(server, name="mine", rpm=2, monthly_usd=1, tags="team=a", models=["mock/m"])
    assert (await ask(client, secret))[0] == 200
    found = await told(client, "/v1/key", secret)
    rpm, money = found["limits"].pop("rpm"), found["limits"].pop("monthly_usd")
    assert found == {
        "id": id, "name": "mine", "group": None, "models": ["mock/m"], "expires": None, "limits": {},
        "group_limits": {}, "tags": {"team": "a"},
    }  # fmt: skip
    assert (rpm["limit"], rpm["used"], rpm["remaining"]) == (2, 1, 1)
    assert (money["limit"], money["used"]) == (1.0, 0.00016)
    assert money["remaining"] == pytest.approx(1 - 0.00016)
    assert 0 < rpm["resets_at"] - time.time() <= 60
    assert 0 < money["resets_at"] - time.time() <= 31 * 86_400
    assert (await ask(client, secret))[0] == 200
    assert (await ask(client, secret))[0] == 429
    assert (await told(client, "/v1/key", secret))["limits"]["rpm"][
        "remaining"
    ] == 0  # just then it is needed


async def test_totals_and_requests_of_the_key_alone(server):
    client = await RawClient.connect(server)
    _, mine = await make(server, name="mine")
    _, other = await make(server, name="other")
    ids = []
    for secret, tags in ((mine, b"X-Inferoute-Tags: team=a\r\n"), (mine, b""), (other, b"")):
        ids.append((await ask(client, secret, extra=tags))[1][b"x-inferoute-request-id"].decode())
    [row] = (await told(client, "/v1/usage", mine))["data"]
    assert (row["requests"], row["usd"]) == (2, 0.00032)
    rows = (await told(client, "/v1/usage?by=team,key&since=1d&tag=team%3Da", mine))["data"]
    assert [(row["team"], row["requests"], "key_id" in row) for row in rows] == [("a", 1, False)]
    for query, param in (
        ("key=other", "key"),
        ("by=colour", "by"),
        ("reprice=true", "reprice"),
        ("by=day&by=day", "by"),
    ):
        check_error(
            await get(client, f"/v1/usage?{query}", mine),
            400,
            "invalid_request_error",
            "invalid_query",
            param,
        )
    found = await told(client, f"/v1/requests/{ids[0]}", mine)
    assert (found["id"], found["input_tokens"], found["output_tokens"], found["usd"]) == (
        ids[0],
        40,
        60,
        0.00016,
    )
    assert (found["attempts"], found["tags"]) == (1, {"team": "a"})
    assert not {"key", "key_id"} & found.keys()
    said = {
        check_error(await get(client, f"/v1/requests/{id}", mine), *UNKNOWN)
        for id in (ids[2], "req_" + "0" * 20, "x", "%00")
    }
    assert len(said) == 1
    server.gateway.completions.recent._blocks.clear()  # then it is in the ledger
    assert await told(client, f"/v1/requests/{ids[0]}", mine) == found
    check_error(await get(client, f"/v1/requests/{ids[2]}", mine), *UNKNOWN)


async def test_who_is_told_nothing(server):
    client = await RawClient.connect(server)
    for path in ("/v1/key", "/v1/usage", "/v1/requests/req_" + "0" * 20):
        assert "/v1" not in check_error(
            await get(client, path), 401, "authentication_error", "invalid_api_key"
        )
    _, secret = await make(server, rpm=3)
    for path in ("/v1/requests/x", "/v1/usage?by=x", "/v1/usage"):  # each counts as a request, and once
        assert (await get(client, path, secret))[0] == {"/v1/usage": 200, "/v1/usage?by=x": 400}.get(
            path, 404
        )
    assert (await get(client, "/v1/usage", secret))[0] == 429
    await admin(server, "DELETE", "/keys/k")
    assert (await get(client, "/v1/key", secret))[0] == 401
    await client.send(b"POST /v1/key HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
    assert (await client.response())[0] == 405


async def test_storage_that_fails_is_said(server):
    client = await RawClient.connect(server)
    _, secret = await make(server)
    await server._control._database.close()
    error = await get(client, "/v1/usage", secret)
    assert (error[0], json.loads(error[2])["error"]["code"]) == (503, "storage_failed")


# ---------------------------------------------------------------------- bounds


async def test_a_key_has_one_question_at_a_time_and_all_have_a_few():
    gate, given = asyncio.Event(), []

    async def slow(kind: str, key: str, query: object) -> Told:
        await gate.wait()
        return Told(b"{}")

    figures = OwnFigures(slow)
    for number in range(MOST):
        figures.ask("usage", f"key_{number}", {}, b"", given.append)
    for key in ("key_0", "key_9"):
        with pytest.raises(Unavailable, match="still being answered"):
            figures.ask("usage", key, {}, b"", given.append)
    gate.set()
    async with asyncio.timeout(5):
        while len(given) < MOST:
            await asyncio.sleep(0)
    assert given == [OwnAnswer(200, b"", b"{}")] * MOST
    await asyncio.sleep(0)
    figures.ask("usage", "key_0", {}, b"", given.append)
    await figures.close()


@pytest.mark.parametrize(("fault", "text"), [(None, "in time"), (ValueError("x"), "can't be read.")])
async def test_an_answer_that_does_not_come(monkeypatch, caplog, fault, text):
    monkeypatch.setattr(module, "ANSWER_S", 0.0)
    given: list[OwnAnswer | GatewayError] = []

    async def never(kind: str, key: str, query: object) -> Told:
        if fault is not None:
            raise fault
        await asyncio.Event().wait()
        raise AssertionError

    OwnFigures(never).ask("usage", "key", {}, b"", given.append)
    async with asyncio.timeout(5):
        while not given:
            await asyncio.sleep(0)
    [error] = given
    assert isinstance(error, Unavailable) and text in str(error)
    assert ("internal error" in caplog.text) == (fault is not None)


def test_parameters():
    assert read_parameters(b"by=team%2Cday&since=&tag=team%3Da+b") == {"by": "team,day", "tag": "team=a b"}
    for query in (b"a=1&a=2", b"&".join(b"a%d=1" % number for number in range(21))):
        with pytest.raises(BadRequest):
            read_parameters(query)
