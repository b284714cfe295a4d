"""The admin listener's connections: what never comes to aiohttp's router, and who gives way to whom."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from unittest.mock import Mock

import pytest

from proxy.control import aiohttp_protocol
from proxy.control.aiohttp_protocol import MAX_PATH_BYTES, MAX_SLASHES, AdminConnections, refuse_target
from tests.support.admin_api import TEXT, WITH_TOKEN, ask, check_error
from tests.support.cpu import grows_in_proportion
from tests.support.fakes import RawClient


class Connection:
    def __init__(self) -> None:
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


def test_who_gives_way(monkeypatch):
    monkeypatch.setattr(aiohttp_protocol, "MAX_CONNECTIONS", 5)
    connections = AdminConnections()
    made = [Connection() for _ in range(5)]
    for one in made:
        assert connections.make_room()
        connections.enter(one)
    busy, idle, begun, first, second = made
    for one in (busy, idle, begun):
        assert connections.begins(one)
        assert not connections.begins(one)
    connections.asks(busy)
    connections.asks(idle)
    connections.rests(idle)
    for expected in (first, second, begun, idle):
        assert connections.make_room()
        assert [one for one in made if one.aborted] == [expected]
        expected.aborted = False
        connections.leave(expected)  # as it is told afterwards
        connections.enter(new := Connection())
        connections.asks(new)
    assert len(connections) == 5
    assert not connections.make_room()
    connections.leave(busy)
    connections.rests(busy)  # its answer ends later than it
    assert len(connections) == 4
    assert connections.make_room()


@pytest.mark.parametrize(("target", "status"), [
    ("/", None), ("*", None), ("/admin/v1/aliases/" + "a" * (MAX_PATH_BYTES - 18), None),
    ("/admin/v1/aliases/" + "a" * (MAX_PATH_BYTES - 17), 414), ("/" * MAX_SLASHES, None),
    ("/" * (MAX_SLASHES + 1), 404), ("/admin/v1/usage?by=" + "/" * 5000, None), ("/?" + "?" * 5000, None),
    ("http://localhost" + "/" * MAX_SLASHES, 404),
])  # fmt: skip
def test_targets(target, status):
    error = refuse_target(target)
    assert (error and error.status) == status
    assert error is None or len(error.message) < 300


def test_a_target_costs_time_in_proportion_to_its_length():
    for make in (lambda n: "/" * n, lambda n: "?" * n, lambda n: "/a" * (n // 2)):
        assert grows_in_proportion(lambda target: [refuse_target(target) for _ in range(20)], make, 64_000)


@pytest.mark.parametrize("text", [TEXT, WITH_TOKEN])
@pytest.mark.parametrize(("path", "status", "code"), [
    ("/" * 8000, 414, None), ("/a" * 100, 404, "unknown_path"), ("/metrics" + "/" * 30, 404, "unknown_path"),
])  # fmt: skip
async def test_the_router_never_sees_them(start, monkeypatch, text, path, status, code):
    server = await start(text, T="s3cret")
    monkeypatch.setattr("aiohttp.web.UrlDispatcher.resolve", Mock(side_effect=AssertionError))
    answer = await ask(server, "GET", path)
    check_error(answer, status, code)
    assert answer[1][b"connection"] == b"close"


@pytest.mark.parametrize("path", ["/nothing", "/admin/v1/routes", "/admin/v1/explain", "/healthz"])
async def test_a_bomb_costs_nothing(start, path):
    """2 MB that unfold to 2 GB took 1.4 s; here a tenth of that."""
    server = await start(WITH_TOKEN, T="s3cret")
    bomb = gzip.compress(bytes(200 << 20))
    begun = time.thread_time()
    answer = await ask(server, "POST", path, bomb, extra="Content-Encoding: gzip\r\n")
    check_error(answer, 415, "unsupported_encoding")
    assert time.thread_time() - begun < 0.1


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/admin/v1/keys", 401), ("/admin/v1/nothing", 401)]
)
@pytest.mark.parametrize("length", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
async def test_who_is_refused_at_the_door_is_not_waited_for(start, monkeypatch, path, status, length):
    monkeypatch.setattr(aiohttp_protocol, "LINGER_S", 60.0)
    server = await start(WITH_TOKEN if status == 401 else TEXT, T="s3cret")
    client = await RawClient.to(server.admin_address)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    await client.send(f"{head}{length}\r\n\r\n".encode())
    assert (await client.response())[0] == status
    assert await asyncio.wait_for(client.rest(), 5) == b""


async def test_a_short_body_that_comes_late_does_not_cost_its_sender_the_answer(start):
    """Many clients send it apart from the head."""
    server = await start(WITH_TOKEN, T="s3cret")
    client = await RawClient.to(server.admin_address)
    head = b"POST /admin/v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    for _ in range(2):
        await client.send(head + b"Content-Length: 18\r\n\r\n")
        status, _, body = await client.response()
        assert (status, json.loads(body)["error"]["code"]) == (401, "invalid_admin_token")
        await client.send(b'{"model":"mock/a"}')


async def test_who_takes_nothing_of_an_answer_is_cut(start):
    server = await start(TEXT + '[timeouts]\nclient_write = "200ms"\n')
    client = await RawClient.to(server.admin_address)
    client.writer.transport.pause_reading()
    ask_for = b"GET /admin/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(100):
        try:
            await client.send(ask_for * 20)
        except ConnectionError:
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("it is waited for")


async def test_tls_is_closed_at_once_and_told_once(start, caplog):
    server = await start(TEXT)
    for _ in range(3):
        client = await RawClient.to(server.admin_address)
        await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert await asyncio.wait_for(client.rest(), 5) == b""
    port = server.admin_address.port
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"a client speaks TLS to http://127.0.0.1:{port}, which is plain HTTP: let it ask by http://, "
        "or put what speaks TLS in front of [admin] listen"
    ]


async def test_a_second_request_has_its_time_again(start, monkeypatch):
    monkeypatch.setattr(aiohttp_protocol, "FIRST_HEAD_S", 0.2)
    server = await start(TEXT)
    client = await RawClient.to(server.admin_address)
    for _ in range(2):
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response())[0] == 200
        await asyncio.sleep(0.3)
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert (await client.response())[0] == 200
    assert await client.rest() == b""
    assert client.reader.at_eof()
