"""Hostile clients and bad providers, through a running gateway on real sockets.

The tables are in :mod:`tests.support.hygiene`. What one module refuses by itself is in its own tests; here is
what counts in the end: what a provider gets, how many answers there are, and that the connection is closed.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.access.refusals import REFUSALS_A_MINUTE
from proxy.control.admin.inputs import MAX_EXPLAINED_BYTES
from proxy.control.aiohttp_protocol import MAX_CONNECTIONS, MAX_LINE_BYTES
from proxy.relay.downstream import connection_limits as door_module
from proxy.relay.exchange import timers as deadlines
from tests.support import hygiene as cases
from tests.support import keys as keycases
from tests.support.fakes import Call, RawClient, Script, ScriptedProvider, until

GOOD = cases.field()


def config(provider: ScriptedProvider, server: str = "", more: str = "") -> str:
    return (
        f'[server]\nlisten = ["127.0.0.1:0"]\n{server}\n[providers.mock]\nbase_url = "{provider.url}"\n'
        f'api_key_env = "MOCK_KEY"\n{more}\n[models."mock/m"]\n'
    )


@pytest.fixture(name="server")
async def _server(provider, start):
    return await start(config(provider), MOCK_KEY="k")


async def send(client: RawClient, data: bytes, slowly: bool) -> None:
    """``slowly``: each byte is a read of its own. A gateway that has closed already is no fault here."""
    try:
        if not slowly:
            await client.send(data)
        for at in range(len(data) if slowly else 0):
            await client.send(data[at : at + 1])
            await asyncio.sleep(0)
    except ConnectionError:
        pass


def answers(received: bytes) -> list[int]:
    """The status of each answer in what came, whatever is in the bodies."""
    return [int(status) for status in re.findall(rb"^HTTP/1\.[01] ([0-9]{3}) ", received, re.MULTILINE)]


# ---------------------------------------------------------------------- what clients send


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("group", cases.REFUSED)
async def test_what_is_refused(provider, server, group, slowly):
    """One error, then the end: a good request behind it is not answered, and no provider gets any."""
    for name, sent in cases.REFUSED[group].items():
        client = await RawClient.connect(server)
        await send(client, sent + GOOD, slowly and len(sent) < 1000)
        received = await asyncio.wait_for(client.rest(), 10)
        assert answers(received) == [400], name
        head, _, body = received.partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head, name
        assert json.loads(body)["error"]["type"] == "invalid_request_error", name
        # A body that comes slowly is begun upstream before it breaks; it never looks complete there.
        assert group == "chunks" or not provider.connections, name
        assert not provider.seen, name


@pytest.mark.parametrize("slowly", [False, True], ids=["whole", "byte by byte"])
async def test_what_is_taken(provider, server, slowly):
    """What a provider gets is the same, in whatever pieces it came, and a second request behind it too."""
    for name, (sent, expected) in cases.TAKEN.items():
        client = await RawClient.connect(server)
        closes = b" HTTP/1.0\r\n" in sent
        await send(client, sent if closes else sent + GOOD, slowly and len(sent) < 1000)
        status, fields, body = await asyncio.wait_for(client.response(), 10)
        assert (status, body, fields.get(b"connection") == b"close") == (200, cases.SENT, closes), name
        if not closes:
            assert (await asyncio.wait_for(client.response(), 10))[2] == cases.SENT, name
        head, body = provider.seen[0]
        lines = head.replace(b"Host: 127.0.0.1:%d" % provider.port, b"Host: provider").split(b"\r\n")
        assert [lines[0], *sorted(lines[1:-2])] == expected, name
        assert body == cases.SENT, name
        provider.seen.clear()
        client.close()


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Type: application/x-www-form-urlencoded\r\n",
        b"Content-Type: application/json; charset=utf-7\r\n",
        b"Content-Type: application/json; charset=utf-16le\r\n",
        b"Content-Type: application/json\r\nContent-Type: application/json\r\n",
        b"content-type: multipart/form-data; boundary=x\r\n",
        b"Content-Type:\r\n",
    ],
)
async def test_a_body_that_is_not_said_to_be_json(provider, client, lines):
    """The connection is kept, and nothing of it reaches a provider."""
    bad = cases.field(*lines.split(b"\r\n")[:-1])
    for _ in range(2):  # a head that comes again too
        await client.send(bad)
        status, fields, body = await asyncio.wait_for(client.response(), 10)
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (
            415, "invalid_request_error", "unsupported_media_type",
        )  # fmt: skip
        assert fields[b"x-should-retry"] == b"false"
        assert b"connection" not in fields
    assert not provider.connections
    await client.send(GOOD)
    assert (await asyncio.wait_for(client.response(), 10))[0] == 200


async def test_what_is_answered_here(provider, server, caplog):
    """One answer; what stands behind it is a request only where all agree that it is one.

    And none is a way to fill the log.
    """
    kept = set()
    for name, (sent, status) in cases.OWN.items():
        client = await RawClient.connect(server)
        await client.send(sent + GOOD)
        got, fields, body = await asyncio.wait_for(client.response(), 10)
        assert got == status, name
        assert b"set-cookie" not in fields, name
        if status >= 400:
            assert json.loads(body)["error"]["message"], name
        if fields.get(b"connection") == b"close":
            assert await asyncio.wait_for(client.rest(), 10) == b"", name
            assert not provider.seen, name
        else:
            kept.add(name)
            assert (await asyncio.wait_for(client.response(), 10))[2] == cases.SENT, name
            assert [body for _, body in provider.seen] == [cases.SENT], name
        client.close()
        provider.seen.clear()
        assert not caplog.records, name
    assert {"two slashes", "NUL, escaped", "a model with dots", "1.0 that wants to be kept"} < kept
    assert not kept & {"GET with a body", "WebSocket", "h2c", "CONNECT with a path"}


@pytest.mark.parametrize(
    "lines",
    [(b"Expect: tea",), (b"Expect: 100-continue, tea",), (b"Expect: 100-continue",) * 2, (b"Expect: 100",),
     (b"Expect: 100-continue\xa0",)],
)  # fmt: skip
async def test_an_expectation_that_is_not_met(provider, client, lines):
    await client.send(cases.field(*lines) + GOOD)
    assert answers(await asyncio.wait_for(client.rest(), 10)) == [417]
    assert provider.connections == 0


async def test_an_expectation_in_http_1_0_is_not_there(server, client):
    """RFC 9110 section 10.1.1: an answer of 100 would be taken for the answer."""
    sent = cases.TAKEN["Expect in 1.0"][0]
    at = len(sent) - len(cases.BODY)
    await client.send(sent[:at])
    await until(lambda: any(c._phase == 1 for c in server.gateway.connections))
    await client.send(sent[at:])
    assert answers(await asyncio.wait_for(client.rest(), 10)) == [200]


# ---------------------------------------------------------------------- many, and slow


async def overloaded(client: RawClient) -> str:
    """What a client is told that may not stay; it is closed behind that."""
    status, fields, body = await asyncio.wait_for(client.response(), 10)
    error = json.loads(body)["error"]
    assert (status, error["code"], fields[b"retry-after"]) == (503, "overloaded", b"1")
    assert await asyncio.wait_for(client.rest(), 10) == b""
    client.close()
    return error["message"]


async def test_one_address_can_not_take_all_connections(provider, start):
    server = await start(config(provider, "max_connections_per_client = 2"), MOCK_KEY="k")
    clients = [await RawClient.connect(server) for _ in range(2)]
    for client in clients:
        await client.send(GOOD)
        assert (await client.response())[0] == 200
    assert "max_connections_per_client is 2" in await overloaded(await RawClient.connect(server))
    # Another address of this machine.
    listen = server.addresses[0]
    reader, writer = await asyncio.open_connection(listen.host, listen.port, local_addr=("127.0.0.2", 0))
    other = RawClient(reader, writer)
    await other.send(GOOD)
    assert (await other.response())[0] == 200
    clients.pop().close()
    await until(lambda: len(server.gateway.connections) == 2)
    again = await RawClient.connect(server)
    await again.send(GOOD)
    assert (await again.response())[0] == 200


@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_client"])
async def test_what_has_its_answer_counts_until_it_has_ended(provider, start, monkeypatch, limit):
    """A body that never comes must not hold a connection outside of all limits."""
    monkeypatch.setattr("proxy.relay.downstream.client_flow._LINGER_S", 60.0)
    server = await start(config(provider, f"{limit} = 2"), MOCK_KEY="k")
    door = server.gateway.connection_limits
    slow = [await RawClient.connect(server) for _ in range(2)]
    for client in slow:
        await client.send(cases.get(b"/healthz", b"Content-Length: 5"))
        assert (await client.response())[0] == 200
    assert len(server.gateway.connections) == 2
    await overloaded(await RawClient.connect(server))
    for client in slow:
        client.close()
    await until(lambda: not door.count())
    client = await RawClient.connect(server)
    await client.send(GOOD)
    assert (await client.response())[0] == 200
    client.close()
    await until(lambda: not door.count())
    assert (door._inside, door._count) == ({}, {})


async def test_what_has_its_answer_has_an_end(server, client, monkeypatch):
    monkeypatch.setattr("proxy.relay.downstream.client_flow._LINGER_S", 0.1)
    await client.send(cases.get(b"/healthz", b"Content-Length: 5"))
    assert (await client.response())[0] == 200
    assert await asyncio.wait_for(client.rest(), 10) == b""
    await until(lambda: not server.gateway.connection_limits.count())


async def test_a_flood_of_connections_leaves_those_that_are_in_alone(provider, start, monkeypatch):
    monkeypatch.setattr(door_module, "MAX_TOLD", 5)
    server = await start(config(provider, "max_connections = 1"), MOCK_KEY="k")
    served = await RawClient.connect(server)
    await served.send(GOOD)
    assert (await served.response())[0] == 200
    flood = [await RawClient.connect(server) for _ in range(30)]
    await served.send(GOOD)
    assert (await served.response())[0] == 200
    received = [await asyncio.wait_for(client.rest(), 10) for client in flood]
    assert {tuple(answers(one)) for one in received} == {(503,), ()}  # told so, or cut
    for client in flood:
        client.close()
    await until(lambda: server.gateway.connection_limits.count() == 1)
    await served.send(GOOD)
    assert (await served.response())[0] == 200


@pytest.mark.interpreted
@pytest.mark.parametrize("framing", [b"Content-Length: 10000", cases.CHUNKED])
async def test_a_body_that_drips_for_ever(provider, start, monkeypatch, framing):
    """Never silent, never there: a connection and a place at the provider, for a byte now and then."""
    monkeypatch.setattr(deadlines, "PATIENCE", 1.5)
    server = await start(config(provider, more='[timeouts]\nclient_body = "300ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(cases.request(framing, body=b""))

    async def drip() -> None:
        while True:
            await client.send(b"1\r\n \r\n" if framing == cases.CHUNKED else b" ")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert (await asyncio.wait_for(client.response(), 10))[0] == 408
    dripping.cancel()
    with pytest.raises((asyncio.CancelledError, ConnectionError)):
        await dripping
    assert provider.connections == 0


async def test_a_pipeline_of_many_tiny_requests(provider, client):
    wrong = cases.request(b"Content-Length: 2", body=b"{}")
    sending = asyncio.create_task(client.send((GOOD + wrong) * 300))
    for number in range(300):
        assert (await client.response())[0] == 200
        # So many faults of one address are told in a minute; what is good is served all the while.
        assert (await client.response())[0] == (400 if number < REFUSALS_A_MINUTE else 429)
    await sending
    assert len(provider.seen) == 300


# ---------------------------------------------------------------------- the admin listener

ADMIN = b"Host: localhost"


def admin_request(first: bytes, *lines: bytes, body: bytes = b"") -> bytes:
    return cases.request(*lines, first=first, host=ADMIN, body=body)


async def to_admin(server, sent: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request to the admin listener, on a connection of its own."""
    client = await RawClient.to(server.admin_address)
    await client.send(sent)
    answer = await asyncio.wait_for(client.response(), 10)
    client.close()
    return answer


SMUGGLED = admin_request(b"DELETE /admin/v1/aliases/mine HTTP/1.1")
RELOAD = b"POST /admin/v1/reload HTTP/1.1"
JSON = b"Content-Type: application/json"


@pytest.mark.parametrize(
    "sent",
    [
        admin_request(RELOAD, JSON, b"Content-Length: 4", cases.CHUNKED, body=b"0\r\n\r\n"),
        admin_request(RELOAD, JSON, cases.CHUNKED, b"Content-Length: 4", body=b"0\r\n\r\n"),
        admin_request(RELOAD, JSON, b"Content-Length: 2", b"Content-Length: 0", body=b"{}"),
        admin_request(RELOAD, JSON, b"Content-Length : 2", body=b"{}"),
        admin_request(RELOAD, JSON, b"Content-Length: +2", body=b"{}"),
        admin_request(RELOAD, JSON, b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        admin_request(RELOAD, JSON, b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"),
        admin_request(RELOAD, JSON, b"Transfer-Encoding:", b" chunked", body=b"0\r\n\r\n"),
        admin_request(RELOAD, JSON, cases.CHUNKED, body=b"0x2\r\n{}\r\n0\r\n\r\n"),
        admin_request(RELOAD, JSON, cases.CHUNKED, body=b"2\n{}\n0\n\n"),
        admin_request(b"GET /admin/v1/routes HTTP/1.1", b"X: a\nY: b"),
        admin_request(b"GET /admin/v1/routes HTTP/1.1", b"X: a\0"),
        admin_request(b"GET /admin/v1/routes HTTP/1.1", b"X : a"),
        admin_request(b"GET /admin/v1/routes HTTP/1.1", *[b"X: a"] * 300),
        admin_request(b"GET /admin/v1/routes HTTP/1.1", b"X: " + b"a" * 2 * MAX_LINE_BYTES),
    ],
)
async def test_nothing_is_smuggled_to_the_admin_api(provider, start, sent):
    server = await start(config(provider, more='[aliases]\nmine = ["mock/m"]'), MOCK_KEY="k")
    client = await RawClient.to(server.admin_address)
    await send(client, sent + SMUGGLED, False)
    received = await asyncio.wait_for(client.rest(), 10)
    assert answers(received) == [400]
    assert "mine" in server.gateway.config.aliases


async def test_requests_in_a_row_on_the_admin_listener(provider, start):
    server = await start(config(provider, more='[aliases]\nmine = ["mock/m"]'), MOCK_KEY="k")
    client = await RawClient.to(server.admin_address)
    explain = b'{"model":"mine"}'
    first = b"POST /admin/v1/explain HTTP/1.1"
    await client.send(
        admin_request(first, JSON, b"Content-Length: 16", body=explain)
        + admin_request(first, JSON, cases.CHUNKED, body=b"10\r\n" + explain + b"\r\n0\r\nX: y\r\n\r\n")
        + admin_request(b"GET /healthz HTTP/1.1", b"Content-Length: 5", body=b"GET /")
        + admin_request(b"GET /admin/v1/aliases HTTP/1.1")
    )
    got = [await asyncio.wait_for(client.response(), 10) for _ in range(4)]
    assert [status for status, _, _ in got] == [200] * 4
    assert json.loads(got[3][2])["data"][0]["name"] == "mine"


async def watching(server) -> RawClient:
    """A connection to the admin listener on which a request runs."""
    client = await RawClient.to(server.admin_address)
    await client.send(admin_request(b"GET /admin/v1/live HTTP/1.1"))
    assert b" 200 " in await client.head()
    return client


async def test_connections_to_the_admin_listener_are_limited(server, monkeypatch):
    monkeypatch.setattr("proxy.control.aiohttp_protocol.MAX_CONNECTIONS", 2)
    clients = [await watching(server) for _ in range(2)]
    assert "Too many" in await overloaded(await RawClient.to(server.admin_address))
    clients.pop().close()
    async with asyncio.timeout(10):
        while True:
            if (await to_admin(server, admin_request(b"GET /healthz HTTP/1.1")))[0] == 200:
                break


async def test_connections_without_a_request_lock_nobody_out_of_the_admin_listener(server, monkeypatch):
    # Nobody is closed for the time it takes.
    monkeypatch.setattr("proxy.control.aiohttp_protocol.FIRST_HEAD_S", 60.0)
    busy = await watching(server)
    begun = await RawClient.to(server.admin_address)
    await begun.send(b"GET /hea")
    idle = [await RawClient.to(server.admin_address) for _ in range(MAX_CONNECTIONS - 2)]
    for path in (b"/healthz", b"/metrics", b"/admin/v1/routes") * 2:
        client = await RawClient.to(server.admin_address)  # stays
        await client.send(admin_request(b"GET %b HTTP/1.1" % path))
        assert (await asyncio.wait_for(client.response(), 10))[0] == 200
    # Those that came first, and of those that have sent nothing.
    assert [await asyncio.wait_for(one.rest(), 10) for one in idle[:6]] == [b""] * 6
    assert not idle[6].reader.at_eof()
    await begun.send(b"lthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await begun.response())[0] == 200
    assert await asyncio.wait_for(busy.reader.readline(), 10)


@pytest.mark.parametrize("sent", [b"", b"GET /", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX:"])
async def test_a_head_that_never_comes_to_the_admin_listener(provider, start, sent, monkeypatch):
    monkeypatch.setattr("proxy.control.aiohttp_protocol.FIRST_HEAD_S", 0.1)
    server = await start(config(provider, more='[timeouts]\nclient_head = "100ms"'), MOCK_KEY="k")
    client = await RawClient.to(server.admin_address)
    await client.send(sent)
    assert await asyncio.wait_for(client.rest(), 10) == b""


async def test_a_body_that_never_comes_to_the_admin_listener(server, monkeypatch):
    monkeypatch.setattr("proxy.control.admin.inputs.MAX_BODY_S", 0.1)
    monkeypatch.setattr("proxy.control.aiohttp_protocol.LINGER_S", 0.1)
    client = await RawClient.to(server.admin_address)
    await client.send(
        admin_request(b"POST /admin/v1/explain HTTP/1.1", JSON, b"Content-Length: 100", body=b"{")
    )
    status, _, body = await asyncio.wait_for(client.response(), 10)
    assert (status, json.loads(body)["error"]["message"]) == (408, "The body was not there within 0.1 s.")
    assert await asyncio.wait_for(client.rest(), 10) == b""


async def test_what_is_explained_is_no_reason_to_hold_up_requests(server):
    length = b"Content-Length: %d" % (MAX_EXPLAINED_BYTES + 1)
    sent = admin_request(b"POST /admin/v1/explain HTTP/1.1", JSON, length)
    status, _, body = await to_admin(server, sent)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (413, "body_too_large")
    assert "4 MiB" in error["message"]


# ---------------------------------------------------------------------- what providers send


def sends(data: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(data)
        assert await call.gone() == b""  # nothing is asked on this connection again

    return script


@pytest.mark.parametrize("name", cases.NO_ANSWERS)
async def test_what_is_no_answer(provider, client, name):
    provider.script = sends(cases.NO_ANSWERS[name])
    await client.send(GOOD)
    head = await asyncio.wait_for(client.head(), 10)
    received = head + await client.reader.readexactly(
        int(head.lower().split(b"content-length: ")[1].split()[0])
    )
    assert answers(received) == [502]
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["type"] == "provider_error"
    assert b"evil" not in head
    assert b"Set-Cookie" not in head


@pytest.mark.parametrize("name", cases.PASSES)
async def test_what_of_an_answer_passes(provider, client, name):
    lines, expected = cases.PASSES[name]
    provider.script = sends(cases.answer(*lines, b"Content-Length: 2"))
    await client.send(GOOD)
    head = await asyncio.wait_for(client.head(), 10)
    ours = (b"Content-Type", b"Content-Length", b"X-Inferoute-")
    got = [line for line in head.split(b"\r\n")[1:-2] if not line.startswith(ours)]
    assert tuple(got) == expected
    assert b"X-Inferoute-Provider: mock\r\n" in head
    assert head.count(b"X-Inferoute-Provider") == head.count(b"X-Inferoute-Request-Id") == 1
    client.close()


# ---------------------------------------------------------------------- names


async def test_names_of_clients_make_no_lines(server, client, caplog):
    """Whatever a client calls a model: one answer in its envelope, and nothing of it outside of JSON."""
    for name in cases.NAMES:
        body = orjson.dumps({"model": name})
        await client.send(cases.request(b"Content-Length: %d" % len(body), body=body))
        status, fields, answer = await client.response()
        error = json.loads(answer)["error"]
        assert (status, error["code"]) == (404, "model_not_found"), name
        assert name[:200] in error["message"], name
        assert answer.count(b"\n") == 0, name
        assert fields.keys() == {
            b"content-type", b"content-length", b"x-inferoute-request-id", b"x-request-id", b"x-should-retry"
        }, name  # fmt: skip
    await client.send(cases.request(b"Content-Length: %d" % len(cases.HALF), body=cases.HALF))
    assert (await client.response())[0] in (400, 404)
    listed = await to_admin(server, admin_request(b"GET /admin/v1/requests?limit=100 HTTP/1.1"))
    rows = json.loads(listed[2])["data"]
    names = [row["model_requested"] for row in rows[::-1]]
    assert names[: len(cases.NAMES)] == [name[:200] for name in cases.NAMES]
    metrics = (await to_admin(server, admin_request(b"GET /metrics HTTP/1.1")))[2]
    assert b"evil" not in metrics
    assert b"SUM" not in metrics
    assert not caplog.records


@pytest.mark.parametrize("header", [b"X-Inferoute-Fallback", b"X-Inferoute-Strategy", b"X-Inferoute-Timeout"])
@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"=1+1", b"a,\xc3\xa9", b"<b>", b"nan", b"1e999", b"a" * 9000]
)
async def test_values_of_our_headers_make_no_lines(client, header, value):
    await client.send(cases.field(header + b": " + value) + GOOD)
    status, fields, answer = await client.response()
    assert status in (400, 404)
    assert json.loads(answer)["error"]["type"] in ("invalid_request_error", "not_found_error")
    assert len(answer) < 1000 or status == 404
    assert all(name.isascii() and text.isascii() for name, text in fields.items())
    assert (await client.response())[0] == 200


async def test_names_of_keys_are_no_formulas_and_no_labels(provider, start, tmp_path):
    """Operators name keys, and maybe after what users have told them."""
    text = config(provider) + f'[state]\npath = "{tmp_path}/state.db"\n'
    server = await start(text, MOCK_KEY="k")
    made = {}
    for name in cases.NAMES:
        status, row = await keycases.admin(server, "POST", "/keys", {"name": name})
        assert status in (201, 422), name
        if status == 201:
            made[row["name"]] = row["key"].encode()
    assert made  # "=1+1", say
    client = await RawClient.connect(server)
    for secret in made.values():
        await client.send(cases.field(b"Authorization: Bearer " + secret))
        assert (await client.response())[0] == 200
    metrics = (await to_admin(server, admin_request(b"GET /metrics HTTP/1.1")))[2].decode()
    families = [*text_string_to_metric_families(metrics)]
    labels = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert labels >= made.keys()

    async def cells() -> list[str]:
        sent = admin_request(b"GET /admin/v1/usage?by=key&format=csv HTTP/1.1")
        return [row[0] for row in csv.reader(io.StringIO((await to_admin(server, sent))[2].decode()))][1:]

    async with asyncio.timeout(10):
        while len(await cells()) < len(made):  # the books are written beside it
            await asyncio.sleep(0.02)
    assert not [cell for cell in await cells() if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]
