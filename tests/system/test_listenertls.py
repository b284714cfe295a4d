"""TLS on the data listener, on the wire: all that a plain listener does, and what only TLS can get wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme

from proxy.control.routes_file import RoutesFile
from proxy.relay.downstream.connection import ClientConnection
from proxy.server import listeners
from proxy.server.single import Server
from tests.support.fakes import (
    DONE,
    EVENT_STREAM,
    Call,
    RawClient,
    answers,
    chunk,
    post,
    stepped,
    streams,
    until,
)
from tests.support.scripts import Plays, begun, head

TEXT = """
[server]
listen = ["127.0.0.1:0", "unix:{folder}/g.sock"]
tls_cert = "{folder}/c.pem"
tls_key = "{folder}/k.pem"
max_body = "4MiB"
{server}
[admin]
listen = ""
[state]
path = ":memory:"
[providers.mock]
base_url = "{url}"
auth = "none"
[models."mock/m"]
"""
BODY = b'{"model":"mock/m"}'


class Issuer:
    """Certificates for the listener, in its files; and the clients' trust in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = trustme.CA()
        self.client = ssl.create_default_context()
        self._authority.configure_trust(self.client)

    def issue(self) -> None:
        made = self._authority.issue_cert("127.0.0.1", "localhost")
        (self.folder / "c.pem").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        (self.folder / "k.pem").write_bytes(made.private_key_pem.bytes())


@pytest.fixture
def issuer(tmp_path):
    made = Issuer(tmp_path)
    made.issue()
    return made


class Secured:
    """A gateway with TLS, started from a file."""

    def __init__(self, issuer: Issuer, url: str, server: str) -> None:
        self.issuer = issuer
        self.clients: list[ssl.SSLSocket] = []  # that block
        path = issuer.folder / "routes.toml"
        path.write_text(TEXT.format(folder=issuer.folder, url=url, server=server))
        file = RoutesFile(path)
        self.server = Server(file.load(), {}, file)

    @property
    def port(self) -> int:
        return self.server.addresses[0].port

    @property
    def connections(self) -> int:
        return len(self.server.gateway.connections)

    @property
    def handshakes(self) -> int:
        assert self.server._plane is not None and self.server._plane._tls is not None
        return len(self.server._plane._tls.handshakes)

    async def connect(self, context: ssl.SSLContext | None = None) -> RawClient:
        context = context or self.issuer.client
        return RawClient(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context, limit=1 << 24))

    async def plain(self) -> RawClient:
        """A connection without a handshake."""
        return RawClient(*await asyncio.open_connection("127.0.0.1", self.port))

    async def blocking(self, request: bytes = post(BODY)) -> ssl.SSLSocket:
        """A client that is not of this event loop, and has sent a request."""

        def connect() -> None:
            raw = socket.create_connection(("127.0.0.1", self.port), 10)
            wrap = self.issuer.client.wrap_socket
            self.clients.append(wrap(raw, server_hostname="localhost", suppress_ragged_eofs=False))
            self.clients[-1].sendall(request)

        await asyncio.to_thread(connect)
        return self.clients[-1]

    async def connection(self) -> ClientConnection:
        """The only one, as the gateway has it."""
        await until(lambda: self.connections)
        [found] = self.server.gateway.connections
        return found


async def read(client: ssl.SSLSocket, end: bytes | None = None) -> int:
    """Read until these bytes have come, or None: until the connection closes; returns how many it were."""

    def run() -> int:
        got, tail = 0, b""
        while end is None or end not in tail:
            data = client.recv(1 << 20)
            if not data and end is None:
                break
            assert data
            got, tail = got + len(data), tail[-16:] + data
        return got

    return await asyncio.to_thread(run)


@pytest.fixture
async def secured(issuer, provider):
    made: list[Secured] = []

    async def start(server: str = "") -> Secured:
        made.append(Secured(issuer, provider.url, server))
        await made[-1].server.start()
        return made[-1]

    yield start
    for one in made:
        for client in one.clients:
            client.close()
        for connection in list(one.server.gateway.connections):
            connection.abort()
        await until(lambda one=one: not one.server.gateway.connections)
        await one.server.close()


@pytest.fixture
async def gateway(secured):
    return await secured()


@pytest.fixture(name="client")
async def _client(gateway):
    return await gateway.connect()


def certificate(client: RawClient) -> bytes:
    """What the other side has shown."""
    return client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


# ---------------------------------------------------------------------- what a plain listener does too


async def test_requests_on_a_connection_that_is_kept(gateway, client):
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None  # it did not ask
    for number in range(20):
        body = b'{"model":"mock/m","n":%d}' % number
        await client.post(body)
        assert (await client.response())[2] == body.replace(b"mock/m", b"m")
    for path, status in ((b"/v1/models", 200), (b"/healthz", 200), (b"/none", 404)):  # answered here
        await client.send(post(BODY) + b"GET %b HTTP/1.1\r\nHost: g\r\n\r\n" % path)  # pipelined
        assert (await client.response())[0] == 200
        got, _, body = await client.response()
        assert got == status
        assert json.loads(body)
    assert gateway.connections == 1
    await client.send(post(BODY) * 3)
    assert [(await client.response())[0] for _ in range(3)] == [200] * 3


async def test_http_1_1_is_what_is_spoken(gateway, issuer):
    issuer.client.set_alpn_protocols(["h2", "http/1.1"])
    client = await gateway.connect()
    assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_versions_that_are_spoken(gateway, issuer, version):
    issuer.client.minimum_version = issuer.client.maximum_version = version
    client = await gateway.connect()
    await client.post(BODY)
    assert (await client.response())[0] == 200


async def test_old_versions_are_refused(gateway, issuer):
    context = issuer.client
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await gateway.connect(context)


async def test_a_unix_socket_stays_plain(gateway):
    client = await RawClient.connect(gateway.server, 1)
    await client.post(BODY)
    assert (await client.response())[0] == 200


async def test_a_stream_comes_as_it_is_made(client, provider):
    step = asyncio.Event()
    provider.script = stepped(step)
    await client.post(BODY)
    await client.head()
    assert await client.reader.readuntil(b"first\n\n\r\n")
    step.set()
    end = chunk(DONE) + b"0\r\n\r\n"
    assert await client.reader.readexactly(len(end)) == end


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_of_2_mb_both_ways(client, framing):
    body = b'{"model":"mock/m","text":"%b"}' % (b"x" * (2 << 20))
    if framing == "length":
        await client.post(body)
    else:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = [chunk(body[at : at + 70_000]) for at in range(0, len(body), 70_000)]
        await client.send(head + b"".join(chunks) + b"0\r\n\r\n")
    status, _, answer = await client.response()
    assert (status, answer) == (200, body.replace(b"mock/m", b"m"))


# ---------------------------------------------------------------------- leaving, and pace


@pytest.mark.parametrize("how", ["close_notify", "FIN", "RST"])
async def test_a_client_that_leaves_in_mid_stream_is_noticed(gateway, provider, how):
    provider.script = Plays(begun(b"data: first\n\n"))
    client = await gateway.blocking()
    await read(client, b"first")
    if how == "close_notify":
        client.settimeout(0)
        with pytest.raises(ssl.SSLWantReadError):  # ours is out, the gateway's still to come
            client.unwrap()
    elif how == "FIN":
        client.shutdown(socket.SHUT_WR)
    else:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
    await asyncio.wait_for(provider.script.left.wait(), 5)
    await until(lambda: not gateway.connections)


async def test_a_slow_reader_holds_the_provider_back(gateway, provider):
    """What is on its way is bounded: sockets, and the water marks of both sides."""
    written = 0
    piece = chunk(b"data: " + b"x" * 16_000 + b"\n\n")

    async def script(call: Call) -> None:
        nonlocal written
        await call.request()
        await call.send(EVENT_STREAM)
        while written < 64 << 20:
            await call.send(piece)
            written += len(piece)
        await call.send(b"0\r\n\r\n")

    provider.script = script
    client = await gateway.blocking()
    connection = await gateway.connection()
    await until(lambda: connection.is_full)
    before = -1
    while written != before:  # until nothing moves any more
        before = written
        await asyncio.sleep(0.2)
    assert written < 24 << 20
    assert connection.transport.get_write_buffer_size() < 1 << 20
    assert await read(client, b"\r\n0\r\n\r\n") >= 64 << 20


async def test_a_close_waits_for_a_slow_reader_to_have_it_all(gateway, provider):
    provider.script = answers(b'{"text":"%b"}' % (b"x" * (12 << 20)))
    client = await gateway.blocking(post(BODY, extra=b"Connection: close\r\n"))
    connection = await gateway.connection()
    await until(lambda: connection.is_full)
    assert await read(client) > 12 << 20


async def test_an_idle_client_that_reads_nothing_holds_up_no_drain(secured):
    """A pool of connections looks at one only when it needs it: our close_notify gets no answer."""
    gateway = await secured('drain_timeout = "20s"')
    client = await gateway.blocking()
    await read(client, b"HTTP/1.1 200")
    begun = time.monotonic()
    await gateway.server.drain()
    assert time.monotonic() - begun < 10.0
    assert gateway.connections == 0
    assert await asyncio.to_thread(client.recv, 10) == b""  # a clean end


async def test_a_refused_upload_still_gets_its_answer(gateway):
    """Closed at once, what the client has still sent would make a reset of it, and destroy the answer."""
    client = await gateway.blocking(post(b"x" * (16 << 20)))
    assert (await asyncio.to_thread(client.recv, 65536)).startswith(b"HTTP/1.1 413 ")
    client.close()
    await until(lambda: not gateway.connections)


@pytest.mark.parametrize("body", [BODY, b'{"model":"none"}'])
async def test_a_connection_that_is_not_kept_is_closed_at_once(client, body):
    begun = time.monotonic()
    await client.post(body, extra=b"Connection: close\r\n")
    await client.response()
    assert await client.rest() == b""
    assert time.monotonic() - begun < 1.5


async def test_an_answer_that_breaks_off_does_not_end_cleanly(gateway, provider):
    """Without a length of its own, a close_notify would make a whole answer of it."""
    step = asyncio.Event()
    provider.script = Plays(head(b"Transfer-Encoding: chunked") + chunk(b'{"a":'), step, then="resets")
    # HTTP/1.0 knows no chunks.
    client = await gateway.blocking(post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    await read(client, b'{"a":')
    step.set()
    beside = socket.socket(fileno=os.dup(client.fileno()))  # without TLS, to see what really came
    beside.settimeout(5)
    with beside, pytest.raises(ConnectionResetError):
        await asyncio.to_thread(beside.recv, 65536)


# ---------------------------------------------------------------------- what only TLS can get wrong


PLAIN = [
    post(BODY), b"GET / HTTP/1.1\r\nHost: g\r\n\r\n", b"HEAD / HTTP/1.0\r\n\r\n", b"PUT /x HTTP/1.1\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n\r\n", post(b"x" * 300_000),
]  # fmt: skip


@pytest.mark.parametrize("sent", PLAIN)
async def test_plain_http_to_the_tls_port(gateway, caplog, sent):
    for _ in range(3):
        client = await gateway.plain()
        await client.send(sent)
        status, fields, body = await asyncio.wait_for(client.response(), 5)
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "https_required")
        assert "https://" in error["message"]
        assert fields[b"connection"] == b"close"
        assert fields[b"x-request-id"].startswith(b"req_")
        client.close()
    await until(lambda: not gateway.handshakes)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text for text in told if "plain HTTP" in text] == [
        "a client speaks plain HTTP to https://127.0.0.1:0, which is TLS: let it ask by https://"
    ]


async def test_plain_http_in_pieces_to_the_tls_port(gateway):
    client = await gateway.plain()
    for byte in b"GET / HTTP/1.1\r\n":
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await asyncio.wait_for(client.response(), 5))[0] == 400


async def test_plain_http_is_cut_where_a_handshake_would_be(secured, monkeypatch):
    monkeypatch.setattr(listeners, "_HANDSHAKE_S", 0.2)
    gateway = await secured()
    client = await gateway.plain()
    await client.send(post(BODY))
    assert b" 400 " in await client.head()
    assert gateway.handshakes == 1  # it counts there until it has ended
    with contextlib.suppress(ConnectionError):
        while True:
            await client.send(b"x" * 10_000)
            await asyncio.sleep(0.01)
    await until(lambda: not gateway.handshakes)


async def test_what_is_neither_is_closed(gateway, caplog):
    for sent in (b"\0" * 100, b"SSH-2.0-x\r\n", b"OPTIONS / HTTP/1.1\r\nHost: g\r\n\r\n"):
        client = await gateway.plain()
        await client.send(sent)
        assert b"HTTP" not in await asyncio.wait_for(client.rest(), 5)
    await until(lambda: not gateway.handshakes)
    assert all(record.levelname in ("DEBUG", "INFO") for record in caplog.records)


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_a_handshake_that_does_not_go_on_is_cut(secured, monkeypatch, caplog, said):
    monkeypatch.setattr(listeners, "_HANDSHAKE_S", 0.1)
    gateway = await secured()
    client = await gateway.plain()
    if said:
        await client.send(said)
    await until(lambda: gateway.handshakes == 1)
    assert await client.rest() == b""
    await until(lambda: not gateway.handshakes)
    assert gateway.connections == 0
    assert all(record.levelname in ("DEBUG", "INFO") for record in caplog.records)


async def test_handshakes_are_limited_and_do_not_keep_others_out_for_ever(secured):
    gateway = await secured("max_connections = 3")
    served = await gateway.connect()
    half = [await gateway.plain() for _ in range(3)]
    await until(lambda: gateway.handshakes == 3)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await gateway.connect()
    await served.post(BODY)  # who is in stays in
    assert (await served.response())[0] == 200
    for client in half:
        client.close()
    await until(lambda: not gateway.handshakes)
    await (another := await gateway.connect()).post(BODY)
    assert (await another.response())[0] == 200


async def test_too_many_connections_are_told_so(secured):
    gateway = await secured("max_connections = 2")
    clients = [await gateway.connect() for _ in range(3)]
    status, _, body = await clients[2].response()
    assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")


async def test_a_drain_leaves_no_handshake_behind(gateway):
    client = await gateway.plain()
    await until(lambda: gateway.handshakes == 1)
    await gateway.server.drain()
    client.close()
    await until(lambda: not gateway.handshakes)


# ---------------------------------------------------------------------- the certificate changes


async def test_a_new_certificate_is_for_new_connections(gateway, issuer, caplog):
    reloader = gateway.server.reloader
    old = await gateway.connect()
    issuer.issue()
    with caplog.at_level("INFO"):
        for _ in range(2):  # a file has to be at rest for so long
            await reloader.check()
    assert "changed: the TLS certificate changed" in caplog.messages
    new = await gateway.connect()
    assert certificate(new) != certificate(old)
    for client in (old, new):
        await client.post(BODY)
        assert (await client.response())[0] == 200
    changes = await reloader.reload()
    assert not changes


async def test_other_files_for_the_certificate(gateway, issuer):
    before = certificate(await gateway.connect())
    path = issuer.folder / "routes.toml"
    path.write_text(path.read_text().replace("c.pem", "c2.pem").replace("k.pem", "k2.pem"))
    for name in ("c", "k"):
        (issuer.folder / f"{name}.pem").rename(issuer.folder / f"{name}2.pem")
    changes = await gateway.server.reloader.reload()
    assert changes == (["server.tls_cert changed", "server.tls_key changed"], [])
    assert certificate(await gateway.connect()) == before
    (issuer.folder / "c2.pem").rename(issuer.folder / "c.pem")  # watched under its new name
    for _ in range(2):
        assert await gateway.server.reloader.check() is None
    assert certificate(await gateway.connect()) == before


@pytest.mark.parametrize("kind", ["cut", "other key", "gone"])
async def test_a_broken_certificate_keeps_the_old_one(gateway, issuer, caplog, kind):
    before = certificate(await gateway.connect())
    key = (issuer.folder / "k.pem").read_bytes()
    if kind == "cut":
        (issuer.folder / "c.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nMII")
    elif kind == "other key":
        issuer.issue()
        (issuer.folder / "k.pem").write_bytes(key)  # the new one is not there yet
    else:
        (issuer.folder / "c.pem").unlink()
    for _ in range(2):
        await gateway.server.reloader.check()
    assert "the file changed, but the configuration stays as it was:" in caplog.messages
    assert f"{issuer.folder}/c.pem" in caplog.messages[-1]
    assert certificate(await gateway.connect()) == before
    issuer.issue()
    for _ in range(2):
        await gateway.server.reloader.check()
    assert certificate(await gateway.connect()) != before


async def test_tls_or_not_is_decided_at_the_start(gateway, issuer, provider):
    path = issuer.folder / "routes.toml"
    path.write_text(path.read_text().replace("\ntls_", "\n# tls_"))
    changes = await gateway.server.reloader.reload()
    assert changes == ([], ["server.tls_cert", "server.tls_key"])
    await (client := await gateway.connect()).post(BODY)
    assert (await client.response())[0] == 200


async def test_a_stream_of_many_events_over_tls_is_whole(gateway, provider):
    events = [*(b"data: %d\n\n" % number for number in range(2000)), DONE]
    provider.script = streams(*events)
    clients = [await gateway.connect() for _ in range(5)]
    for client in clients:
        await client.post(BODY)
    for client in clients:
        assert (await client.response())[2] == b"".join(events)
