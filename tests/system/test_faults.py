"""Each way a provider can fail: what the client of a pinned name gets, and that a pool fails over."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic

import pytest
import trustme

from proxy.deployments.breaker import COOLING
from tests.support.fakes import (
    EVENT_STREAM,
    Call,
    RawClient,
    Script,
    ScriptedProvider,
    answers,
    blackhole,
    chunk,
    dead_url,
    hangs,
    post,
    until,
)
from tests.support.two_providers import SENT, Reply, are_open, ask, body, config, deployment, rows, strikes

OK = answers(b'{"ok":1}')


def says(data: bytes) -> Script:
    """Reads a request, sends this and closes."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(data)

    return script


async def resets(call: Call) -> None:
    await call.request()
    call.reset()


async def speaks_no_tls(call: Call) -> None:
    await call.reader.read(1)
    await call.answer()


def passed_over(reply: Reply, server, other: ScriptedProvider, outcome: str) -> None:
    """The second member answered, got the same, and only the first is blamed."""
    assert (reply.status, reply.body, reply.story) == (200, b'{"ok":1}', f"a:{outcome}, b:200")
    assert reply.fields[b"x-inferoute-provider"] == b"b"
    assert reply.fields[b"x-inferoute-model"] == b"b/m"
    assert [sent for _, sent in other.seen] == [SENT]
    assert rows(server)[-1]["attempts"] == 2
    assert rows(server)[-1]["model"] == "b/m"


# ---------------------------------------------------------------------- no connection


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture(params=["refused", "unroutable", "unknown host", "wrong authority", "wrong host", "no tls"])
async def unreachable(
    request: pytest.FixtureRequest, provider: ScriptedProvider, stack: AsyncExitStack, tmp_path: Path
) -> tuple[str, str, str]:
    """A provider's address, its further keys, and what the client hears of it."""
    kind = request.param
    if kind == "refused":
        return dead_url(), "", "onnection refused"
    if kind == "unroutable":
        return stack.enter_context(blackhole()), "", "no connection within 0.2 s"
    if kind == "unknown host":
        return "http://nobody.invalid/v1", "", ""  # the resolver's words differ
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    ca_file = f'ca_file = "{tmp_path / "ca.pem"}"'
    if kind == "no tls":
        provider.script = speaks_no_tls
        return provider.url.replace("http:", "https:"), ca_file, "TLS: "
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    signer = ours if kind == "wrong host" else theirs
    signer.issue_cert("example.com" if kind == "wrong host" else "127.0.0.1").configure_cert(tls)
    secured = await stack.enter_async_context(ScriptedProvider(tls))
    return secured.url, ca_file, "TLS: "


CONNECT = '[timeouts]\nconnect = "200ms"'


async def test_no_connection(unreachable, other, start):
    url, more, words = unreachable
    server = await start(config(url, other, a_more=more, tables=CONNECT))
    reply = await ask(server, "a/m")
    assert reply.kind == (503, "provider_error", "provider_unreachable")
    assert reply.error["message"].startswith("The provider 'a' could not be reached (")
    assert words in reply.error["message"]
    assert reply.story == "a:connect"
    assert other.connections == 0
    assert strikes(server) == [1, 0]
    other.script = OK
    passed_over(await ask(server), server, other, "connect")
    assert strikes(server) == [2, 0]
    assert are_open(server, "a") == [0]


# ---------------------------------------------------------------------- a connection, but no answer


@pytest.mark.parametrize(
    ("script", "outcome", "status", "code"),
    [
        (says(b""), "reset", 502, "provider_bad_answer"),
        (resets, "reset", 502, "provider_bad_answer"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le"), "reset", 502, "provider_bad_answer"),
        (says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "reset", 502, "provider_bad_answer"),
        (says(b"\x16\x03\x01" * 20), "reset", 502, "provider_bad_answer"),
        (says(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000), "reset", 502, "provider_bad_answer"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), "reset", 502, "provider_bad_answer"),
        (says(b"HTTP/1.1 101 Other\r\n\r\n"), "reset", 502, "provider_bad_answer"),
        (answers(b'{"secret":1}', b"401 No"), "401", 502, "provider_auth_failed"),
    ],
)  # fmt: skip
async def test_no_answer(provider, other, start, script, outcome, status, code):
    provider.script, other.script = script, OK
    server = await start(config(provider, other))
    reply = await ask(server, "a/m")
    assert reply.kind == (status, "provider_error", code)
    assert reply.story == f"a:{outcome}"
    assert b"secret" not in reply.body
    assert (provider.connections, other.connections) == (1, 0)
    passed_over(await ask(server), server, other, outcome)
    assert provider.connections == 2
    assert [sent for _, sent in provider.seen] == [SENT, SENT]
    # A refused key is a matter of the provider, not of the deployment.
    assert strikes(server) == ([0, 0] if outcome == "401" else [2, 0])
    assert deployment(server).key.failures == (2 if outcome == "401" else 0)


async def test_plain_http_to_a_tls_port(stack, other, start):
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    secured = await stack.enter_async_context(ScriptedProvider(tls))
    other.script = OK
    server = await start(config(secured.url.replace("https:", "http:"), other))
    reply = await ask(server, "a/m")
    assert reply.kind == (502, "provider_error", "provider_bad_answer")
    assert reply.story == "a:reset"
    passed_over(await ask(server), server, other, "reset")
    assert strikes(server) == [2, 0]
    assert are_open(server, "a") == [0]


async def test_silence(provider, other, start):
    provider.script, other.script = hangs, OK
    server = await start(config(provider, other))
    for count, name in enumerate(("a/m", "two"), 1):
        asking = asyncio.ensure_future(ask(server, name))
        await until(lambda count=count: len(provider.seen) == count)
        server.gateway.tick(monotonic() + 59.0)
        assert other.connections == 0
        server.gateway.tick(monotonic() + 60.1)
        reply = await asking
        if name == "a/m":
            assert reply.kind == (504, "provider_error", "provider_timeout")
            assert reply.error["message"] == "The provider 'a' did not answer within 60 s."
            assert reply.story == "a:timeout"
            assert other.connections == 0
    passed_over(reply, server, other, "timeout")
    assert strikes(server) == [2, 0]
    await until(lambda: are_open(server) == [0, 1])


# ---------------------------------------------------------------------- an answer that is a failure


@pytest.mark.parametrize(
    "status", [b"500 Oops", b"502 Bad", b"503 Busy", b"504 Late", b"529 Overloaded", b"429 Slow", b"408 Late"]
)
async def test_an_error_of_the_providers(provider, other, start, status):
    provider.script, other.script = answers(b'{"error":"theirs"}', status, b"X-Theirs: 1\r\n"), OK
    server = await start(config(provider, other))
    reply = await ask(server, "a/m")
    assert (reply.status, reply.body) == (int(status[:3]), b'{"error":"theirs"}')
    assert reply.fields[b"x-theirs"] == b"1"
    assert b"x-should-retry" not in reply.fields
    assert reply.story == f"a:{reply.status}"
    assert (provider.connections, other.connections) == (1, 0)
    passed_over(await ask(server), server, other, str(reply.status))
    assert strikes(server) == [2, 0]


@pytest.mark.parametrize(
    "status", [b"400 Bad", b"402 Pay", b"403 No", b"404 None", b"413 Large", b"422 No", b"418 Teapot"]
)
@pytest.mark.parametrize("name", ["a/m", "two"])
async def test_what_is_about_the_request_passes_untouched(provider, other, start, status, name):
    answer = b'HTTP/1.1 %b\r\nX-a: 1\r\nx-A:  2\r\nContent-Length: 9\r\n\r\n{"e" :1}\n' % status
    provider.script = says(answer)
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.post(body(name))
    head = await client.head()
    theirs, ours = head.split(b"X-Inferoute-Request-Id: ")
    assert theirs + b"\r\n" == answer[: answer.index(b"{")]
    assert b"\r\nX-Inferoute-Attempts: a:%b:" % status[:3] in ours
    assert await client.reader.readexactly(9) == b'{"e" :1}\n'
    assert other.connections == 0
    assert strikes(server) == [0, 0]
    row = deployment(server).row("chat", False)
    assert row.success.mean() == 1.0
    assert row.speed.typical_s() is None  # refusing is no answering, however fast


async def test_an_error_in_pieces_passes_whole(provider, other, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n")
        await until(lambda: arrived)
        await call.send(chunk(b"their") + b"4\r\n er")
        await call.send(b"r\r\n0\r\n\r\n")
        await call.gone()

    arrived: list[bytes] = []
    provider.script = script
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.post(body("a/m"))
    arrived.append(await client.head())  # it is not held until its body comes
    assert arrived[0].startswith(b"HTTP/1.1 500 Oops\r\n")
    assert await Call(client.reader, client.writer, 0).chunks() == b"their err"
    await until(lambda: are_open(server) == [1, 0])  # and its connection is good for another


async def test_all_fail(provider, other, start):
    provider.script, other.script = answers(b"{}", b"503 Busy"), resets
    server = await start(config(provider, other))
    reply = await ask(server)
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story == "a:503, b:reset"
    message = reply.error["message"]
    assert message.startswith("All 2 attempts failed: a answered 503; b gave no valid answer (")
    assert reply.fields[b"x-inferoute-provider"] == b"b"  # the last
    assert b"retry-after" not in reply.fields


# ---------------------------------------------------------------------- a key that is refused


async def test_a_key_refused_three_times_takes_the_provider_out(provider, other, start, caplog):
    provider.script, other.script = answers(b'{"secret":"sk-1"}', b"401 No"), OK
    server = await start(config(provider, other, more='twice = ["a/n", "b/n"]\n'))
    for number, name in enumerate(("a/m", "a/n", "a/m")):  # three different requests
        reply = await ask(server, name, more=b',"n":%d' % number)
        assert reply.kind == (502, "provider_error", "provider_auth_failed")
        assert reply.error["message"] == "The provider 'a' refused the gateway's key."
    assert "provider a refused the operator's key" in caplog.text
    assert "secret" not in caplog.text
    assert "provider a is ejected" in caplog.text
    asked = provider.connections
    for name in ("two", "twice"):  # all its deployments are out
        assert (await ask(server, name)).story == "b:200"
    assert provider.connections == asked
    assert (await ask(server, "a/n")).story == "a:401"  # but a pinned request is always sent


async def test_a_good_answer_makes_up_for_refused_keys(provider, other, start):
    server = await start(config(provider, other))
    for _ in range(3):
        provider.script = answers(b"{}", b"401 No")
        for number in range(2):
            await ask(server, "a/m", more=b',"n":%d' % number)
        provider.script = OK
        assert (await ask(server, "a/n")).status == 200
    assert not deployment(server).key.is_open


# ---------------------------------------------------------------------- patience


def in_a_while(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("status", [b"429 Slow", b"503 Busy"])
@pytest.mark.parametrize(
    ("header", "about_s"),
    [
        (lambda: "Retry-After: 1000", 1000),
        (lambda: f"Date: {in_a_while(-500)}\r\nRetry-After: {in_a_while(500)}", 1000),
        (lambda: f"Retry-After: {in_a_while(1000)}", 1000),
        (lambda: "retry-after-ms: 1000000\r\nRetry-After: 5", 1000),
        (lambda: "Retry-After: 99999999", 3600),
    ],
)
async def test_patience_is_kept_and_no_strike(provider, other, start, status, header, about_s):
    provider.script, other.script = answers(b"{}", status, f"{header()}\r\n".encode()), OK
    server = await start(config(provider, other))
    passed_over(await ask(server), server, other, status[:3].decode())
    member = deployment(server)
    assert member.state(monotonic()) == COOLING
    assert about_s - 60 < member.free_at(monotonic()) - monotonic() <= about_s
    assert strikes(server) == [0, 0]
    assert member.row("chat", False).success.mean() is None
    assert (await ask(server)).story == "b:200"
    assert len(provider.seen) == 1
    assert (await ask(server, "a/m")).story == f"a:{status[:3].decode()}"  # pinned: always sent


async def test_all_ask_for_patience(provider, other, start):
    provider.script = answers(b"{}", b"429 Slow", b"Retry-After: 2000\r\n")
    other.script = answers(b"{}", b"429 Slow", b"Retry-After: 1000\r\n")
    server = await start(config(provider, other))
    for told in ("a:429, b:429", ""):
        reply = await ask(server)
        assert reply.kind == (429, "rate_limit_error", "providers_cooling_down")
        assert reply.story == told
        assert 900 < int(reply.fields[b"retry-after"]) <= 1000
    assert (len(provider.seen), len(other.seen)) == (1, 1)  # the second time nobody was asked
    assert [seen["attempts"] for seen in rows(server)] == [2, 0]
    assert [seen["status"] for seen in rows(server)] == [429, 429]


async def test_a_pool_that_cools_down_goes_to_the_fallback(provider, other, start):
    provider.script = answers(b"{}", b"429 Slow", b"Retry-After: 2000\r\n")
    server = await start(config(provider, other, more='one = ["a/m", "a/n"]\n'))
    for told in ("a:429, a:429, b:200", "b:200"):
        reply = await ask(server, "one", "X-Inferoute-Fallback: b/m")
        assert (reply.status, reply.story) == (200, told)


async def test_patience_that_is_over(provider, other, start):
    provider.script, other.script = answers(b"{}", b"429 Slow", b"retry-after-ms: 40\r\n"), OK
    server = await start(config(provider, other))
    assert (await ask(server)).story == "a:429, b:200"
    provider.script = OK
    await until(lambda: deployment(server).state(monotonic()) != COOLING)
    assert (await ask(server)).story == "a:200"


# ---------------------------------------------------------------------- from the head on: never a second one


COMMITTED = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    "data",
    [
        COMMITTED + b"Content-Length: 10\r\n\r\n",
        COMMITTED + b"Content-Length: 10\r\n\r\n12345",
        COMMITTED + b"Transfer-Encoding: chunked\r\n\r\n",
        COMMITTED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        COMMITTED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        COMMITTED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nnonsense\r\n",
        COMMITTED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello, you",
        EVENT_STREAM + chunk(b"data: a\n"),
        EVENT_STREAM + b"20\r\ndata: a\n\n",
    ],
)
@pytest.mark.parametrize("name", ["a/m", "two"])
async def test_an_answer_that_breaks_off_is_cut(provider, other, start, data, name):
    provider.script = says(data)
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.post(body(name))
    head = await client.head()
    assert head.startswith(COMMITTED)
    assert b"\r\nX-Inferoute-Attempts: a:200:" in head
    got = await client.rest()
    assert not got.endswith(b"0\r\n\r\n")
    assert b"length" not in head.lower() or len(got) < 10
    assert other.connections == 0
    assert strikes(server) == [1, 0]
    assert deployment(server).row("chat", False).success.mean() == 0.0
    assert rows(server)[-1]["status"] == 200
    assert are_open(server) == [0, 0]


@pytest.mark.parametrize("data", [EVENT_STREAM, EVENT_STREAM + chunk(b'data: {"a":1}\n\n')])
@pytest.mark.parametrize("end", ["close", "reset", "garbage", "silence"])
@pytest.mark.parametrize("name", ["a/m", "two"])
async def test_a_stream_that_breaks_off_between_events_ends_with_an_error(
    provider, other, start, data, end, name
):
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(data)
        await go.wait()
        if end == "reset":
            call.reset()
        elif end == "garbage":
            await call.send(b"garbage\r\n")
        elif end == "silence":
            assert await call.gone() == b""

    provider.script = script
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.post(body(name, b',"stream":true'))
    await client.head()
    if len(data) > len(EVENT_STREAM):
        event = data[len(EVENT_STREAM) :]
        assert await client.reader.readexactly(len(event)) == event
    go.set()
    if end == "silence":
        server.gateway.tick(monotonic() + 121)
    events = await Call(client.reader, client.writer, 0).chunks()
    assert events.startswith(b'data: {"error":{"message":"The provider \'a\' ')
    assert events.endswith(b'"type":"provider_error","code":"provider_broke_off","param":null}}\n\n')
    assert other.connections == 0
    assert strikes(server) == [1, 0]
    assert b"[DONE]" not in events
    await client.post(body("b/m"))  # the client's connection is as good as before
    assert (await client.response())[0] == 200


async def test_an_http_1_0_client_of_a_second_member(provider, other, start):
    provider.script = resets

    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"hello"))
        await call.send(chunk(b", you") + b"0\r\n\r\n")

    other.script = script
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.send(post(body()).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, rest = (await client.rest()).partition(b"\r\n\r\n")
    assert rest == b"hello, you"
    assert b"\r\nConnection: close" in head
    assert b"\r\nX-Inferoute-Attempts: a:reset:" in head
    provider.script = other.script = resets
    client = await RawClient.connect(server)
    await client.send(post(body()).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.rest()).startswith(b"HTTP/1.1 503 ")
