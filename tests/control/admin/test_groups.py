"""The admin API's part about groups, and what it changes for those who are served."""

from __future__ import annotations

import time

import pytest

from tests.control.admin.test_keys import ANSWER, NOTHING, said, statuses
from tests.support.fakes import RawClient, answers
from tests.support.keys import CONFIG, admin, ask, check_error, make


@pytest.fixture
async def server(provider, start):
    provider.script = answers(ANSWER)
    return await start(CONFIG.format(url=provider.url, more=""))


async def made(server, **settings) -> dict:
    status, row = await admin(server, "POST", "/groups", {"name": "search", **settings})
    assert status == 201, row
    return row


async def test_groups_from_beginning_to_end(server):
    assert await admin(server, "GET", "/groups") == (200, {"data": []})
    row = await made(server, rpm=3000, limits={"monthly_usd": 500}, soft=True)
    assert row == {
        "name": "search", "created": row["created"], "keys": 0, "soft": True, "last_used": None,
        "limits": NOTHING | {"rpm": 3000, "monthly_usd": 500.0}, "day": {"tokens": 0, "usd": 0.0},
        "month": {"tokens": 0, "usd": 0.0},
    }  # fmt: skip
    assert abs(row["created"] - time.time()) < 60
    id, _ = await make(server, group="search")
    assert (await admin(server, "GET", f"/keys/{id}"))[1]["group"] == "search"
    changed = row | {"keys": 1, "soft": False, "limits": NOTHING | {"tpm": 5, "rpm": 3000}}
    given = {"soft": False, "tpm": 5, "monthly_usd": None}
    assert await admin(server, "PATCH", "/groups/search", given) == (200, changed)
    assert await admin(server, "GET", "/groups/search") == (200, changed)
    assert await admin(server, "GET", "/groups") == (200, {"data": [changed]})
    text = said(await admin(server, "DELETE", "/groups/search"), 409, "group_in_use", "name")
    assert text.startswith("The group 'search' has keys (k), which would lose its limits")
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    assert await admin(server, "DELETE", "/groups/search") == (200, changed | {"keys": 0})
    for method in ("GET", "PATCH", "DELETE"):
        said(await admin(server, method, "/groups/search", {}), 404, "group_not_found")


async def test_what_cant_be(server):
    await made(server)
    for method, path, given, status, code, param in (
        ("POST", "", {"name": "search"}, 409, "group_name_taken", "name"),
        ("POST", "", {}, 422, "invalid_group", None),
        ("POST", "", {"name": "none"}, 422, "invalid_group", None),
        ("PATCH", "/search", {"rpm": 0}, 422, "invalid_group", None),
        ("PATCH", "/search", {"name": "x"}, 422, "invalid_group", None),
        ("POST", "", b"{", 400, "malformed_json", None),
        ("PUT", "/search", {}, 405, "method_not_allowed", None),
    ):  # fmt: skip
        said(await admin(server, method, f"/groups{path}", given), status, code, param)
    text = said(await admin(server, "POST", "/keys", {"name": "k", "group": "serch"}), 422, "invalid_key")
    assert text == "'group': There is no group 'serch'. Did you mean 'search'?"


@pytest.mark.parametrize(("limits", "status", "param", "message"), [
    ({"rpm": 2}, 429, "rpm", "The limit of 2 requests a minute for group 'search' is reached. Retry in "),
    ({"tpm": 150}, 429, "tpm", "The limit of 150 tokens a minute for group 'search' is reached. Retry in "),
    ({"daily_usd": 2e-4}, 402, "daily_usd",
     "The daily limit of $0.0002 for group 'search' is reached. It resets on "),
    ({"monthly_tokens": 150}, 402, "monthly_tokens",
     "The monthly limit of 150 tokens for group 'search' is reached. It resets on "),
])  # fmt: skip
async def test_keys_share_the_limits_of_their_group(server, limits, status, param, message):
    await made(server, **limits)
    (one, first), (_, second) = [await make(server, name=name, rpm=100, group="search") for name in "ab"]
    client = await RawClient.connect(server)
    assert await statuses(client, first, 1) == await statuses(client, second, 1) == [200]
    for secret in (first, second):
        type = "rate_limit_error" if status == 429 else "usage_limit_exceeded"
        code = "rate_limit_exceeded" if status == 429 else f"{param.partition('_')[0]}_limit_reached"
        answer = await ask(client, secret)
        assert check_error(answer, status, type, code, f"group_limits.{param}").startswith(message)
        if status == 429:  # of requests, the tighter one is told
            left, limit = (b"0", b"2") if "rpm" in limits else (b"99", b"100")
            assert answer[1][b"x-ratelimit-remaining-requests"] == left
            assert answer[1][b"x-ratelimit-limit-requests"] == limit
    group = (await admin(server, "GET", "/groups/search"))[1]
    assert (group["month"], group["day"]["tokens"]) == ({"tokens": 200, "usd": 0.00032}, 200)
    # A key that leaves the group is let in again; what it used counts there, and no longer what it uses.
    assert (await admin(server, "PATCH", f"/keys/{one}", {"group": None}))[0] == 200
    assert await statuses(client, first, 1) == [200]
    assert (await admin(server, "GET", "/groups/search"))[1]["month"]["tokens"] == 200
    # So is one whose group is given more room.
    more = dict.fromkeys(limits, 10**6)
    assert (await admin(server, "PATCH", "/groups/search", more))[0] == 200
    assert await statuses(client, second, 1) == [200]


async def test_what_a_group_refuses_uses_up_nothing_of_the_key_and_the_other_way_round(server):
    await made(server, rpm=2)
    _, secret = await make(server, rpm=3, group="search")
    _, other = await make(server, name="other", rpm=1, group="search")
    client = await RawClient.connect(server)
    assert await statuses(client, other, 3) == [200, 429, 429]  # by its own limit: one of the group's two
    assert await statuses(client, secret, 3) == [200, 429, 429]  # by the group's
    await admin(server, "PATCH", "/groups/search", {"rpm": 100})
    assert await statuses(client, secret, 3) == [200, 200, 429]
    # What is refused for a fault of its own counts for both.
    await admin(server, "PATCH", "/groups/search", {"rpm": 5})
    _, third = await make(server, name="third", group="search")
    status, fields, _ = await ask(client, third, b'{"model":"nothing"}')
    assert (status, fields[b"x-ratelimit-remaining-requests"]) == (404, b"0")
    assert await statuses(client, third, 1) == [429]


async def test_what_a_group_has_used_outlives_a_restart(provider, start, tmp_path):
    """By the lines that name it: what a key has used before it came stays elsewhere."""
    provider.script = answers(ANSWER)
    text = CONFIG.format(url=provider.url, more=f'[state]\npath = "{tmp_path}/t.db"')
    first = await start(text)
    await made(first, monthly_tokens=250)
    id, secret = await make(first)
    client = await RawClient.connect(first)
    assert await statuses(client, secret, 2) == [200, 200]
    assert (await admin(first, "PATCH", f"/keys/{id}", {"group": "search"}))[0] == 200
    assert await statuses(client, secret, 2) == [200, 200]
    before = (await admin(first, "GET", "/groups/search"))[1]
    assert before["month"] == {"tokens": 200, "usd": 0.00032}
    client.close()
    await first.close()
    second = await start(text)
    after = (await admin(second, "GET", "/groups/search"))[1]
    assert after["month"] == before["month"]
    assert (await admin(second, "GET", f"/keys/{id}"))[1]["month"]["tokens"] == 400
    client = await RawClient.connect(second)
    assert await statuses(client, secret, 2) == [200, 402]
    client.close()
