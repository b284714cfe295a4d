"""Starting, listening, and stopping; every socket, certificate and file is real."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import stat
import time

import pytest
import trustme

from proxy.config.parse import parse
from proxy.errors import StartError
from proxy.server.single import Server
from tests.support.fakes import DONE, Call, RawClient, post, stepped, until
from tests.support.gateway import mock_text

BODY = b'{"model":"mock/m"}'


NOWHERE = "http://127.0.0.1:1/v1"


async def get(client: RawClient, path: bytes = b"/healthz") -> int:
    await client.send(b"GET %b HTTP/1.1\r\nHost: g\r\n\r\n" % path)
    return (await client.response())[0]


async def asked(client: RawClient) -> tuple[int, dict[bytes, bytes], bytes]:
    await client.post(BODY)
    return await client.response()


# ---------------------------------------------------------------------- listening
async def test_a_refused_start_leaves_nothing_listening(start):
    with pytest.raises(StartError):
        await start(mock_text("https://127.0.0.1:1/v1", provider='ca_file = "nowhere"'))


@pytest.mark.parametrize("mode", ["0660", "0600", "0666"])
async def test_several_listeners_of_both_kinds(provider, start, tmp_path, mode):
    path = tmp_path / "gateway.sock"
    listen = f'listen = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "unix:{path}"]\nsocket_mode = "{mode}"'
    server = await start(mock_text(provider.url, listen), MOCK_KEY="k")
    assert [bool(listen.port) for listen in server.addresses] == [True, True, True, False]
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    for index in range(4):
        client = await RawClient.connect(server, index)
        assert ((await asked(client))[0], await get(client)) == (200, 200)
    await server.close()
    assert not path.exists()


async def test_an_address_that_can_not_be_is_told_clearly(start, tmp_path):
    """What may stand in a socket's place is in test_listeners.py."""
    path = tmp_path / "gateway.sock"
    first = await start(mock_text(NOWHERE, f'listen = ["127.0.0.1:0", "unix:{path}"]'))
    address = f"127.0.0.1:{first.addresses[0].port}"
    for listen, said in (
        (address, rf"^Can't listen on http://{address}: .*in use"), (f"unix:{path}", f"unix:{path}.*already"),
        (f"unix:{tmp_path}/no/gateway.sock", f"unix:{tmp_path}/no/gateway.sock: No such file"),
        ("192.0.2.1:1", r"Can't listen on http://192\.0\.2\.1:1: "),
    ):  # fmt: skip
        text = mock_text(NOWHERE, f'listen = ["{listen}"]', more="[auth]\nrequired = false")
        server = Server(parse(text), {})
        with pytest.raises(StartError, match=said) as caught:
            await server.start()
        assert "\n" not in str(caught.value)
        await server.close()
    for index in range(2):  # it goes on
        assert await get(await RawClient.connect(first, index)) == 200


async def test_too_many_connections(provider, start):
    server = await start(mock_text(provider.url, "max_connections = 2"), MOCK_KEY="k")
    clients = [await RawClient.connect(server) for _ in range(2)]
    await until(lambda: len(server.gateway.connections) == 2)
    refused = await RawClient.connect(server)
    status, fields, body = await refused.response()
    error = json.loads(body)["error"]
    assert (status, error["type"], error["code"]) == (503, "provider_error", "overloaded")
    assert (fields[b"retry-after"], fields[b"connection"]) == (b"1", b"close")
    assert fields[b"x-request-id"] == fields[b"x-inferoute-request-id"]
    assert await refused.rest() == b""
    for client in clients:  # those that are in are served
        assert (await asked(client))[0] == 200
    refused.close()
    clients[0].close()
    await until(lambda: len(server.gateway.connections) == 1)
    assert (await asked(await RawClient.connect(server)))[0] == 200


async def test_the_simulator_answers_and_says_so(start):
    server = await start(mock_text("https://api.example.com/v1", more='[simulator]\nmode = "auto"'))
    client = await RawClient.connect(server)
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    await client.post(body, extra=b"x-sim-latency-ms: 0\r\n")
    status, fields, _ = await client.response()
    assert (status, fields[b"x-inferoute-simulated"]) == (200, b"1")
    assert await get(client, b"/readyz") == 200


# ---------------------------------------------------------------------- stopping
STREAM = b'{"model":"mock/m","stream":true}'


async def test_drain_closes_idle_connections_and_lets_a_stream_finish(provider, start):
    step = asyncio.Event()
    provider.script = stepped(step)
    server = await start(mock_text(provider.url), MOCK_KEY="k")
    idle, busy = await RawClient.connect(server), await RawClient.connect(server)
    await busy.post(STREAM)
    await busy.head()
    await until(lambda: len(server.gateway.connections) == 2)
    drain = asyncio.create_task(server.drain())
    assert await idle.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await RawClient.connect(server)
    assert not drain.done()
    step.set()
    assert await Call(busy.reader, busy.writer, 0).chunks() == b"data: first\n\n" + DONE
    assert await busy.rest() == b""  # and closed
    await asyncio.wait_for(drain, 5)


async def test_drain_with_a_head_begun_serves_that_request(provider, start):
    server = await start(mock_text(provider.url), MOCK_KEY="k")
    client = await RawClient.connect(server)
    whole = post(BODY)
    await client.send(whole[:20])
    await until(lambda: any(c.reader.seen for c in server.gateway.connections))
    drain = asyncio.create_task(server.drain())
    await asyncio.sleep(0)
    await client.send(whole[20:])
    status, fields, _ = await client.response()
    assert (status, fields[b"connection"]) == (200, b"close")
    assert await client.rest() == b""
    await asyncio.wait_for(drain, 5)


async def test_who_is_accepted_in_the_last_moment_is_told_to_come_again(provider, start):
    """Between what stops listening and that, the event loop may have accepted one more."""
    server = await start(mock_text(provider.url), MOCK_KEY="k")
    server.gateway.draining = True
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, fields, body = await client.response()
    assert (status, fields[b"connection"], fields[b"retry-after"]) == (503, b"close", b"1")
    assert fields[b"x-should-retry"] == b"true"
    assert b"shutting down" in body
    assert await client.rest() == b""
    assert not provider.connections
    await asyncio.wait_for(server.drain(), 5)


async def test_drain_ends_with_its_time(provider, start):
    provider.script = stepped(asyncio.Event())
    server = await start(mock_text(provider.url, 'drain_timeout = "100ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(STREAM)
    await client.head()
    begun = time.monotonic()
    await asyncio.wait_for(server.drain(), 5)
    assert time.monotonic() - begun >= 0.1
    await server.close()
    assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_a_lame_duck_still_accepts(provider, start):
    server = await start(mock_text(provider.url, 'lame_duck = "300ms"'), MOCK_KEY="k")
    kept = await RawClient.connect(server)
    drain = asyncio.create_task(server.drain())
    await asyncio.sleep(0)
    assert await get(await RawClient.connect(server), b"/readyz") == 503
    for client in (kept, await RawClient.connect(server)):
        status, fields, _ = await asked(client)
        assert status == 200 and b"connection" not in fields
    assert not drain.done()
    assert await kept.rest() == b""
    await asyncio.wait_for(drain, 5)


async def test_stopping_does_not_wait_for_the_rest_of_a_request_that_has_its_answer(start):
    server = await start(mock_text("http://127.0.0.1:1/v1"), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(b"POST /unknown HTTP/1.1\r\nHost: g\r\nContent-Length: 1000\r\n\r\nfirst")
    assert (await client.response())[0] == 404  # the rest of the body is waited for now
    await asyncio.wait_for(server.drain(), 2)
    await asyncio.wait_for(server.close(), 3)


# ---------------------------------------------------------------------- TLS to a provider
@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def tls_provider(ca):
    """A provider with a certificate for ``localhost`` of a private authority: its port, and counts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    seen = {"connections": 0, "alpn": None}
    context.set_alpn_protocols(["h2", "http/1.1"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = Call(reader, writer, seen["connections"])
        seen["connections"] += 1
        seen["alpn"] = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        try:
            while True:
                _, body = await call.request()
                await call.answer(body * 1000)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=context, family=socket.AF_INET)
    seen["port"] = server.sockets[0].getsockname()[1]
    yield seen
    server.close()
    await server.wait_closed()


@pytest.fixture
def trusting(tls_provider, start, ca, tmp_path):
    """A gateway that knows the authority, or not, and a client of it."""

    async def make(host: str = "localhost", with_ca: bool = True) -> tuple[Server, RawClient]:
        file = tmp_path / "ca.pem"
        ca.cert_pem.write_to_path(str(file))
        url = f"https://{host}:{tls_provider['port']}/v1"
        server = await start(mock_text(url, provider=f'ca_file = "{file}"' if with_ca else ""), MOCK_KEY="k")
        return server, await RawClient.connect(server)

    return make


async def test_a_private_ca_and_a_new_connection_that_resumes_the_last_session(trusting, tls_provider):
    server, client = await trusting()
    pool = server.gateway.providers["mock"].pool
    reused = []
    for _ in range(2):
        for _ in range(3):
            status, _, body = await asked(client)
            assert (status, body) == (200, b'{"model":"m"}' * 1000)
        connection = next(iter(pool.open))
        reused.append(connection.transport.get_extra_info("ssl_object").session_reused)
        connection.transport.abort()
        await until(lambda: not pool.open)
    assert (reused, tls_provider["connections"]) == ([False, True], 2)
    assert tls_provider["alpn"] == "http/1.1"  # HTTP/2 was on offer, and is nothing we speak


@pytest.mark.parametrize(("host", "with_ca", "reason"), [
    ("localhost", False, "certificate"),
    ("127.0.0.1", True, "the certificate is for another name"),
], ids=["unknown CA", "wrong host"])  # fmt: skip
async def test_a_certificate_that_does_not_hold(trusting, tls_provider, host, with_ca, reason):
    server, client = await trusting(host, with_ca)
    status, fields, body = await asked(client)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (503, "provider_unreachable")
    assert "TLS" in error["message"] and reason in error["message"]
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:connect:")
    assert tls_provider["connections"] == 0
    await until(lambda: not any(server.gateway.providers["mock"].pool.snapshot().values()))


@pytest.mark.parametrize("kind", ["missing", "no certificate"])
async def test_a_ca_file_that_is_none(start, tmp_path, kind):
    file = tmp_path / "ca.pem"
    if kind != "missing":
        file.write_text("hello")
    with pytest.raises(StartError, match="ca_file of provider 'mock'"):
        await start(mock_text("https://localhost:1/v1", provider=f'ca_file = "{file}"'), MOCK_KEY="k")
