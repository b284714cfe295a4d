"""One request through a real gateway to a scripted provider, on real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.fakes import DONE, Call, RawClient, answers, chunk, post
from tests.support.scripts import LAST, Plays, begun, head, says


def config(provider, more: str = "") -> str:
    base = f'[providers.mock]\nbase_url = "{provider.url}"\napi_key_env = "MOCK_KEY"'
    return f'{base}\n{more}\n[models."mock/m"]\ninput_price = 1\noutput_price = 2\n'


@pytest.fixture(name="server")
async def _server(provider, start):
    return await start(config(provider), MOCK_KEY="sk-operator")


BODY = b'{"messages":[{"role":"user","content":"hi"}], "model" : "mock/m","x":1.50}'
SENT = BODY.replace(b'"mock/m"', b'"m"')


async def test_only_the_model_and_the_credentials_change(provider, client):
    provider.script = answers(b'{"ok":true}', extra=b"X-Up: 1\r\nx-up: 2\r\nKeep-Alive: timeout=5\r\n")
    await client.post(
        BODY,
        extra=b"Authorization: Bearer client-key\r\nX-Title:  kept As It is\r\nCookie: a=b\r\n"
        b"X-Inferoute-Strategy: cost\r\nOpenAI-Organization: org\r\nX-Forwarded-For: 1.2.3.4\r\n"
        b"traceparent: 00-abc-def-01\r\nopenai-x: 1\r\nopenai-x: 2\r\nX-Custom: 1\r\n"
        b"X_Api_Key: client-key\r\n",
    )
    status, fields, body = await client.response()
    assert (status, body) == (200, b'{"ok":true}')
    [(head, sent)] = provider.seen
    assert sent == SENT
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % provider.port)
    for line in (
        b"Authorization: Bearer sk-operator", b"X-Title:  kept As It is", b"openai-x: 1\r\nopenai-x: 2",
        b"traceparent: 00-abc-def-01",
    ):  # fmt: skip
        assert b"\r\n%b\r\n" % line in head
    assert head.lower().count(b"\r\ncontent-type: application/json\r\n") == 1
    for gone in (b"client-key", b"cookie", b"inferoute", b"organization", b"forwarded", b"custom", b"_"):
        assert gone not in head.lower()
    assert fields[b"x-up"] == b"1, 2"
    assert b"keep-alive" not in fields
    ours = [fields[b"x-inferoute-" + name] for name in (b"provider", b"model", b"strategy")]
    assert ours == [b"mock", b"mock/m", b"pinned"]
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:200:")
    assert fields[b"x-inferoute-request-id"].startswith(b"req_")


async def test_a_pinned_request_starts_before_its_body_is_complete(provider, client):
    arrived = asyncio.Event()

    async def script(call: Call) -> None:
        head = await call.head()
        assert b"Content-Length: %d\r\n" % len(SENT) in head
        first = await call.reader.readexactly(10)
        arrived.set()
        await call.answer(first + await call.reader.readexactly(len(SENT) - 10))

    provider.script = script
    whole = post(BODY)
    cut = whole.index(b',"x"')
    await client.send(whole[:cut])
    await asyncio.wait_for(arrived.wait(), 5)
    await client.send(whole[cut:])
    assert (await client.response())[2] == SENT


async def test_expect_100_continue(client):
    whole = post(BODY, extra=b"Expect: 100-continue\r\n")
    await client.send(whole[: -len(BODY)])
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(BODY)
    assert (await client.response())[2] == SENT


async def test_http_1_0_clients(provider, server):
    provider.script = says(head(b"Transfer-Encoding: chunked") + chunk(b"hello") + LAST)
    for extra, host in ((b"", True), (b"Connection: keep-alive\r\n", True), (b"", False)):
        client = await RawClient.connect(server)
        sent = post(BODY, extra=extra).replace(b"HTTP/1.1", b"HTTP/1.0")
        await client.send(sent if host else sent.replace(b"Host: gateway\r\n", b""))
        answer = await client.rest()
        assert answer.endswith(b"\r\n\r\nhello")
        assert b"Connection: close\r\n" in answer
        assert b"chunked" not in answer.lower()
    provider.script = answers(b"counted")
    client = await RawClient.connect(server)
    await client.send(post(BODY, extra=b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
    status, fields, body = await client.response()
    assert (status, body, fields[b"connection"]) == (200, b"counted", b"keep-alive")


async def test_an_answer_without_length_is_chunked_for_the_client(provider, client):
    provider.script = says(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil ", b"the end")
    await client.post(BODY)
    status, fields, body = await client.response()
    assert (status, body, fields[b"transfer-encoding"]) == (200, b"until the end", b"chunked")


async def test_interim_answers_are_swallowed_and_trailers_dropped(provider, client):
    provider.script = Plays(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\nGARBAGE"
    )
    await client.post(BODY)
    assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert await client.reader.readexactly(12) == b"2\r\nok\r\n0\r\n\r\n"
    await client.post(BODY)
    await client.head()
    assert provider.connections == 2  # the one with garbage behind the answer was not used again


async def test_a_stream_passes_as_it_comes_and_unchanged(provider, client):
    parts = [b"6\r\ndata: \r\n", b"3\r\na", b"\n\n\r", b"\n", b"e\r\ndata: [DONE]\n\n\r\n", b"0\r\n", b"\r\n"]
    steps = [asyncio.Event() for _ in parts]
    provider.script = Plays(begun(), *(each for pair in zip(steps, parts, strict=True) for each in pair))
    await client.post(BODY)
    await client.head()
    for step, part in zip(steps, parts, strict=True):
        step.set()
        assert await asyncio.wait_for(client.reader.readexactly(len(part)), 5) == part


async def test_an_http_1_0_client_sees_a_cut_as_a_reset(provider, client):
    release = asyncio.Event()
    provider.script = Plays(head(b"Transfer-Encoding: chunked") + chunk(b"hello"), release, then="resets")
    await client.send(post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    await client.head()
    assert await client.reader.readexactly(5) == b"hello"
    release.set()
    with pytest.raises(ConnectionResetError):
        await client.reader.read()


async def test_keepalive_comments_go_between_events_only(provider, start):
    within, between = asyncio.Event(), asyncio.Event()
    end = chunk(DONE) + LAST
    provider.script = Plays(begun(b"data: a\n"), within, chunk(b"\n"), between, end)
    server = await start(config(provider, more='[routing]\nkeepalive = "150ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    await client.head()
    await client.reader.readexactly(len(chunk(b"data: a\n")))
    with pytest.raises(TimeoutError):  # within an event nothing may be put in
        await asyncio.wait_for(client.reader.read(1), 0.5)
    within.set()
    assert await client.reader.readexactly(6) == chunk(b"\n")
    comment = chunk(b": keep-alive\n\n")
    for _ in range(2):
        assert await asyncio.wait_for(client.reader.readexactly(len(comment)), 5) == comment
    between.set()
    assert (await client.reader.readuntil(b"\r\n0\r\n\r\n")).replace(comment, b"") == end


async def test_a_keepalive_above_idle_delays_no_idle_limit(provider, start):
    provider.script = Plays(begun(b"data: a\n\n"))
    tables = '[routing]\nkeepalive = "1h"\n[timeouts]\nidle = "50ms"'
    client = await RawClient.connect(await start(config(provider, more=tables), MOCK_KEY="k"))
    await client.post(BODY)
    answer = await asyncio.wait_for(client.reader.readuntil(b"\r\n0\r\n\r\n"), 20)
    assert b"provider_broke_off" in answer


async def test_backpressure_holds_the_provider_back(provider, server, client):
    sent, piece = 0, chunk(b"x" * 65536)

    async def script(call: Call) -> None:
        nonlocal sent
        await call.request()
        await call.send(head(b"Transfer-Encoding: chunked"))
        for _ in range(800):  # 50 MiB
            await call.send(piece)
            sent += 65536
        await call.send(LAST)
        await call.gone()

    provider.script = script
    client.writer.transport.pause_reading()
    await client.post(BODY)
    previous = -1
    while sent != previous or not sent:  # until nothing moves any more
        previous = sent
        await asyncio.sleep(0.2)
    assert sent < 30 << 20  # the sockets' buffers are full, and ours is small
    [connection] = server.gateway.connections
    assert connection.transport.get_write_buffer_size() < 1 << 20
    client.writer.transport.resume_reading()
    await client.head()
    left = 800 * len(piece) + len(LAST)
    while left:
        data = await client.reader.read(left)
        assert data
        left -= len(data)


async def test_backpressure_holds_the_client_back(provider, server, client):
    go = asyncio.Event()

    async def script(call: Call) -> None:
        head = await call.head()
        await go.wait()
        await call.answer(b"%d" % len(await call.body(head)))

    provider.script = script
    body = b'{"model":"mock/m","a":"' + b"x" * (40 << 20) + b'"}'
    writing = asyncio.ensure_future(client.post(body))
    done, _ = await asyncio.wait({writing}, timeout=1.0)
    assert not done
    [upstream] = server.gateway.providers["mock"].pool.open
    assert upstream.transport.get_write_buffer_size() < 1 << 20
    go.set()
    await writing
    assert (await client.response())[2] == b"%d" % (len(body) - 5)


async def test_a_second_model_late_in_a_streamed_body_never_reaches_the_provider(provider, server):
    heads: asyncio.Queue[bytes] = asyncio.Queue()
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(call: Call) -> None:
        heads.put_nowait(await call.head())
        got.put_nowait(await call.gone())

    provider.script = script
    for spelling in (b'"model"', b'"\\u006dodel"'):
        client = await RawClient.connect(server)
        last = b'",' + spelling + b':"other"}'
        body = b'{"model":"mock/m","a":"' + b"x" * 300_000 + last
        request = post(body)
        await client.send(request.removesuffix(last))
        head = await asyncio.wait_for(heads.get(), 30)  # what is refused before that is not sent at all
        await client.send(last)
        status, _, answer = await client.response()
        assert status == 400
        assert b"model" in answer
        assert spelling + b':"other"}' not in await asyncio.wait_for(got.get(), 30)
        assert b"Content-Length: %d" % (len(body) - 5) in head


async def test_missing_keys_are_told_without_asking_the_provider(provider, start):
    server = await start(config(provider))
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, _, body = await client.response()
    assert status == 502
    assert "set MOCK_KEY" in json.loads(body)["error"]["message"]
    assert provider.connections == 0


async def test_a_fault_of_our_own_is_a_500(server, client, monkeypatch, caplog):

    def fail(*_: object) -> None:
        raise RuntimeError("what nobody should read")

    monkeypatch.setattr(server.gateway.catalog, "resolve", fail)
    await client.post(BODY)
    status, fields, body = await client.response()
    assert (status, json.loads(body)["error"]["type"]) == (500, "api_error")
    assert fields[b"connection"] == b"close"
    assert b"nobody" not in body
    assert "what nobody should read" in caplog.text
