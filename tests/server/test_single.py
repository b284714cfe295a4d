"""Starting, listening, and stopping; every socket, certificate and file is real."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import stat
import time

import pytest
import trustme

from proxy.config.parse import parse
from proxy.errors import StartError
from proxy.server.single import Server
from tests.support.fakes import Call, RawClient, post, until

BODY = b'{"model":"mock/m"}'


def config(url: str, server: str = "", provider: str = "", more: str = "") -> str:
    listen = "" if "listen" in server else 'listen = ["127.0.0.1:0"]\n'
    return (
        f'[server]\n{listen}{server}\n[providers.mock]\nbase_url = "{url}"\napi_key_env = "MOCK_KEY"\n'
        f'{provider}\n[models."mock/m"]\n{more}\n'
    )


# ---------------------------------------------------------------------- listening


async def test_a_refused_start_leaves_nothing_listening(start):
    with pytest.raises(StartError):
        await start(
            config("https://127.0.0.1:1/v1", 'listen = ["127.0.0.1:0"]', provider='ca_file = "nowhere"')
        )


async def test_several_listeners_of_both_kinds(provider, start, tmp_path):
    path = tmp_path / "gateway.sock"
    text = config(provider.url, f'listen = ["127.0.0.1:0", "127.0.0.1:0", "[::1]:0", "unix:{path}"]')
    server = await start(text, MOCK_KEY="k")
    assert [bool(listen.port) for listen in server.addresses] == [True, True, True, False]
    for index in range(4):
        client = await RawClient.connect(server, index)
        await client.post(BODY)
        assert (await client.response())[0] == 200
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
        assert (await client.response())[0] == 200


@pytest.mark.parametrize("mode", ["0660", "0600", "0666"])
async def test_a_unix_sockets_mode(start, tmp_path, mode):
    path = tmp_path / "gateway.sock"
    before = os.umask(0o022)
    os.umask(before)
    server = await start(config("http://127.0.0.1:1/v1", f'listen = ["unix:{path}"]\nsocket_mode = "{mode}"'))
    assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
    after = os.umask(before)
    assert after == before
    await server.close()
    assert not path.exists()


async def test_a_stale_unix_socket_is_replaced(start, tmp_path):
    path = tmp_path / "gateway.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert path.exists()
    server = await start(config("http://127.0.0.1:1/v1", f'listen = ["unix:{path}"]'))
    client = await RawClient.connect(server)
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await client.response())[0] == 200


async def test_a_unix_socket_in_use_is_left_to_its_owner(start, tmp_path):
    path = tmp_path / "gateway.sock"
    text = config("http://127.0.0.1:1/v1", f'listen = ["unix:{path}"]')
    first = await start(text)
    second = Server(parse(text), {})
    with pytest.raises(StartError, match=f"unix:{path}.*already"):
        await second.start()
    await second.close()
    client = await RawClient.connect(first)
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await client.response())[0] == 200


async def test_a_file_in_the_sockets_place_is_left_alone(start, tmp_path):
    path = tmp_path / "precious.txt"
    path.write_text("data")
    server = Server(parse(config("http://127.0.0.1:1/v1", f'listen = ["unix:{path}"]')), {})
    with pytest.raises(StartError, match="in use"):
        await server.start()
    await server.close()
    assert path.read_text() == "data"


async def test_a_socket_in_a_directory_that_is_not_there(start, tmp_path):
    with pytest.raises(StartError, match=f"unix:{tmp_path}/no/gateway.sock: No such file"):
        await start(config("http://127.0.0.1:1/v1", f'listen = ["unix:{tmp_path}/no/gateway.sock"]'))


async def test_an_address_in_use_is_told_clearly(start):
    first = await start(config("http://127.0.0.1:1/v1"))
    address = f"127.0.0.1:{first.addresses[0].port}"
    with pytest.raises(StartError) as caught:
        await start(config("http://127.0.0.1:1/v1", f'listen = ["{address}"]'))
    text = str(caught.value)
    assert text.startswith(f"Can't listen on http://{address}: ")
    assert "in use" in text
    assert "\n" not in text


async def test_a_host_that_is_not_ours(start):
    with pytest.raises(StartError, match=r"Can't listen on http://192\.0\.2\.1:1: "):
        await start(
            config("http://127.0.0.1:1/v1", 'listen = ["192.0.2.1:1"]', more="[auth]\nrequired = false")
        )


async def test_too_many_connections(provider, start):
    server = await start(config(provider.url, "max_connections = 2"), MOCK_KEY="k")
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
        await client.post(BODY)
        assert (await client.response())[0] == 200
    refused.close()
    clients[0].close()
    await until(lambda: len(server.gateway.connections) == 1)
    client = await RawClient.connect(server)
    await client.post(BODY)
    assert (await client.response())[0] == 200


async def test_the_simulator_answers_and_says_so(start):
    text = config("https://api.example.com/v1", more='[simulator]\nmode = "auto"')
    server = await start(text)
    client = await RawClient.connect(server)
    await client.post(
        b'{"model":"m","messages":[{"role":"user","content":"hi"}]}', extra=b"x-sim-latency-ms: 0\r\n"
    )
    status, fields, _ = await client.response()
    assert (status, fields[b"x-inferoute-simulated"]) == (200, b"1")
    await client.send(b"GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await client.response())[0] == 200


# ---------------------------------------------------------------------- stopping


def streaming(step: asyncio.Event):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await step.wait()
        await call.send(b"4\r\nlast\r\n0\r\n\r\n")
        await call.gone()

    return script


async def test_drain_closes_idle_connections_and_lets_a_stream_finish(provider, start):
    step = asyncio.Event()
    provider.script = streaming(step)
    server = await start(config(provider.url), MOCK_KEY="k")
    idle, busy = await RawClient.connect(server), await RawClient.connect(server)
    await busy.post(BODY)
    await busy.head()
    await until(lambda: len(server.gateway.connections) == 2)
    drain = asyncio.create_task(server.drain())
    assert await idle.rest() == b""
    with pytest.raises(ConnectionRefusedError):
        await RawClient.connect(server)
    assert not drain.done()
    step.set()
    assert await Call(busy.reader, busy.writer, 0).chunks() == b"firstlast"
    assert await busy.rest() == b""  # and closed
    await asyncio.wait_for(drain, 5)


async def test_drain_with_a_head_begun_serves_that_request(provider, start):
    server = await start(config(provider.url), MOCK_KEY="k")
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
    server = await start(config(provider.url), MOCK_KEY="k")
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
    provider.script = streaming(asyncio.Event())
    server = await start(config(provider.url, 'drain_timeout = "100ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    await client.head()
    begun = time.monotonic()
    await asyncio.wait_for(server.drain(), 5)
    assert time.monotonic() - begun >= 0.1
    await server.close()
    assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_a_lame_duck_still_accepts(provider, start):
    server = await start(config(provider.url, 'lame_duck = "300ms"'), MOCK_KEY="k")
    kept = await RawClient.connect(server)
    drain = asyncio.create_task(server.drain())
    await asyncio.sleep(0)
    probe = await RawClient.connect(server)
    await probe.send(b"GET /readyz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await probe.response())[0] == 503
    for client in (kept, await RawClient.connect(server)):
        await client.post(BODY)
        status, fields, _ = await client.response()
        assert status == 200
        assert b"connection" not in fields
    assert not drain.done()
    assert await kept.rest() == b""
    await asyncio.wait_for(drain, 5)


async def test_stopping_does_not_wait_for_the_rest_of_a_request_that_has_its_answer(start):
    server = await start(config("http://127.0.0.1:1/v1"), MOCK_KEY="k")
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


async def test_a_private_ca(tls_provider, start, ca, tmp_path):
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    url = f"https://localhost:{tls_provider['port']}/v1"
    server = await start(config(url, provider=f'ca_file = "{file}"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    for _ in range(3):
        await client.post(BODY)
        status, _, body = await client.response()
        assert (status, body) == (200, b'{"model":"m"}' * 1000)
    assert tls_provider["connections"] == 1
    assert tls_provider["alpn"] == "http/1.1"  # HTTP/2 was on offer, and is nothing we speak


async def test_a_new_connection_resumes_the_last_session(tls_provider, start, ca, tmp_path):
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    url = f"https://localhost:{tls_provider['port']}/v1"
    server = await start(config(url, provider=f'ca_file = "{file}"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    pool = server.gateway.providers["mock"].pool
    reused = []
    for _ in range(2):
        await client.post(BODY)
        assert (await client.response())[0] == 200
        connection = next(iter(pool.open))
        reused.append(connection.transport.get_extra_info("ssl_object").session_reused)
        connection.transport.abort()
        await until(lambda: not pool.open)
    assert reused == [False, True]


@pytest.mark.parametrize(
    ("host", "with_ca", "reason"),
    [("localhost", False, "certificate"), ("127.0.0.1", True, "the certificate is for another name")],
    ids=["unknown CA", "wrong host"],
)
async def test_a_certificate_that_does_not_hold(tls_provider, start, ca, tmp_path, host, with_ca, reason):
    file = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    url = f"https://{host}:{tls_provider['port']}/v1"
    server = await start(config(url, provider=f'ca_file = "{file}"' if with_ca else ""), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, fields, body = await client.response()
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (503, "provider_unreachable")
    assert "TLS" in error["message"]
    assert reason in error["message"]
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:connect:")
    assert tls_provider["connections"] == 0
    await until(lambda: not any(server.gateway.providers["mock"].pool.snapshot().values()))


async def test_tls_to_a_port_that_speaks_plain_http(provider, start):
    server = await start(config(f"https://localhost:{provider.port}/v1"), MOCK_KEY="k")

    async def script(call: Call) -> None:
        await call.reader.read(1)
        await call.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    provider.script = script
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, _, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (503, "provider_unreachable")


@pytest.mark.parametrize("kind", ["missing", "no certificate"])
async def test_a_ca_file_that_is_none(start, tmp_path, kind):
    file = tmp_path / "ca.pem"
    if kind != "missing":
        file.write_text("hello")
    with pytest.raises(StartError, match="ca_file of provider 'mock'"):
        await start(config("https://localhost:1/v1", provider=f'ca_file = "{file}"'), MOCK_KEY="k")
