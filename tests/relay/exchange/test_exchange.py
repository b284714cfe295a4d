"""One request through a real gateway to a scripted provider, on real sockets."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from time import monotonic

import pytest

from proxy.config.parse import parse
from tests.support.fakes import Call, RawClient, chunk, post, until
from tests.support.keys import make


def config(provider, *, models=("mock/m",), extra="", more=""):
    listed = "\n".join(f'[models."{name}"]\ninput_price = 1\noutput_price = 2' for name in models)
    base = f'[providers.mock]\nbase_url = "{provider.url}"\napi_key_env = "MOCK_KEY"'
    return f"{base}\n{extra}\n{more}\n{listed}\n"


BODY = b'{"messages":[{"role":"user","content":"hi"}], "model" : "mock/m","x":1.50}'
SENT = BODY.replace(b'"mock/m"', b'"m"')


async def test_only_the_model_and_the_credentials_change(provider, start):
    seen = []

    async def script(call: Call) -> None:
        seen.append(await call.request())
        await call.answer(b'{"ok":true}', extra=b"X-Up: 1\r\nx-up: 2\r\nKeep-Alive: timeout=5\r\n")

    provider.script = script
    server = await start(config(provider), MOCK_KEY="sk-operator")
    client = await RawClient.connect(server)
    await client.post(
        BODY,
        extra=b"Authorization: Bearer client-key\r\nX-Title:  kept As It is\r\nCookie: a=b\r\n"
        b"X-Inferoute-Strategy: cost\r\nOpenAI-Organization: org\r\nX-Forwarded-For: 1.2.3.4\r\n"
        b"traceparent: 00-abc-def-01\r\nopenai-x: 1\r\nopenai-x: 2\r\nX-Custom: 1\r\n"
        b"X_Api_Key: client-key\r\n",
    )
    status, fields, body = await client.response()
    assert (status, body) == (200, b'{"ok":true}')
    head, sent = seen[0]
    assert sent == SENT
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % provider.port)
    assert b"\r\nAuthorization: Bearer sk-operator\r\n" in head
    assert b"\r\nX-Title:  kept As It is\r\n" in head
    assert b"\r\nopenai-x: 1\r\nopenai-x: 2\r\n" in head
    assert head.lower().count(b"\r\ncontent-type: application/json\r\n") == 1
    assert b"\r\ntraceparent: 00-abc-def-01\r\n" in head
    for gone in (b"client-key", b"cookie", b"inferoute", b"organization", b"forwarded", b"custom", b"_"):
        assert gone not in head.lower()
    assert fields[b"x-up"] == b"1, 2"
    assert b"keep-alive" not in fields
    assert fields[b"x-inferoute-provider"] == b"mock"
    assert fields[b"x-inferoute-model"] == b"mock/m"
    assert fields[b"x-inferoute-strategy"] == b"pinned"
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:200:")
    assert fields[b"x-inferoute-request-id"].startswith(b"req_")


async def test_connections_are_kept_on_both_sides(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    for _ in range(5):
        await client.post(BODY)
        assert (await client.response())[2] == SENT
    assert provider.connections == 1


async def test_a_pinned_request_starts_before_its_body_is_complete(provider, start):
    arrived = asyncio.Event()

    async def script(call: Call) -> None:
        head = await call.head()
        assert b"Content-Length: %d\r\n" % (len(SENT) + 4) in head or b"content-length" in head.lower()
        first = await call.reader.readexactly(10)
        arrived.set()
        rest = await call.body(head.replace(b"Content-Length: ", b"X: ") + b"")
        assert rest == b""
        body = first + await call.reader.readexactly(len(SENT) - 10)
        await call.answer(body)

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    cut = BODY.index(b',"x"')
    whole = post(BODY)
    await client.send(whole[: -len(BODY) + cut])
    await asyncio.wait_for(arrived.wait(), 5)
    await client.send(whole[-len(BODY) + cut :])
    assert (await client.response())[2] == SENT


async def test_the_request_byte_by_byte(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    for byte in post(BODY):
        client.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.response())[2] == SENT


async def test_chunked_requests_stay_chunked(provider, start):
    seen = []

    async def script(call: Call) -> None:
        while True:
            seen.append(await call.request())
            await call.answer(seen[-1][1])

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    head = b"POST /chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(
        b"%x;ext\r\n%b\r\n" % (len(BODY[i : i + 7]), BODY[i : i + 7]) for i in range(0, len(BODY), 7)
    )
    for stream in (head + chunks + b"0\r\nTrailer: dropped\r\n\r\n",):
        await client.send(stream)
        assert (await client.response())[2] == SENT
        for byte in stream:
            client.writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.response())[2] == SENT
    assert b"transfer-encoding: chunked" in seen[0][0].lower()


async def test_pipelined_requests_are_answered_in_order(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    bodies = [BODY.replace(b"1.50", b"%d" % i) for i in range(20)]
    await client.send(b"".join(map(post, bodies)))
    for body in bodies:
        assert (await client.response())[2] == body.replace(b"mock/m", b"m")
    await client.send(post(BODY) + b"GET /healthz HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
    assert (await client.response())[2] == SENT
    status, fields, body = await client.response()
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert b"x-inferoute-request-id" in fields
    assert await client.rest() == b""


async def test_expect_100_continue(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    whole = post(BODY, extra=b"Expect: 100-continue\r\n")
    await client.send(whole[: -len(BODY)])
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(BODY)
    assert (await client.response())[2] == SENT


async def test_http_1_0_clients(provider, start):
    async def script(call: Call) -> None:
        for _ in range(3):
            await call.request()
            await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        await call.request()
        await call.answer(b"counted")

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    for extra in (b"", b"Connection: keep-alive\r\n"):
        client = await RawClient.connect(server)
        await client.send(post(BODY, extra=extra).replace(b"HTTP/1.1", b"HTTP/1.0"))
        answer = await client.rest()
        assert answer.endswith(b"\r\n\r\nhello")
        assert b"Connection: close\r\n" in answer
        assert b"chunked" not in answer.lower()
        client.close()
    client = await RawClient.connect(server)
    await client.send(post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: gateway\r\n", b""))
    assert (await client.rest()).endswith(b"hello")
    client.close()
    client = await RawClient.connect(server)
    await client.send(post(BODY, extra=b"Connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"))
    status, fields, body = await client.response()
    assert (status, body) == (200, b"counted")
    assert fields[b"connection"] == b"keep-alive"


async def test_an_answer_without_length_is_chunked_for_the_client(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil ")
        await call.send(b"the end")

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, fields, body = await client.response()
    assert (status, body) == (200, b"until the end")
    assert fields[b"transfer-encoding"] == b"chunked"


async def test_interim_answers_are_swallowed_and_trailers_dropped(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\nGARBAGE"
        )
        assert await call.gone() == b""

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    assert (await client.head()).startswith(b"HTTP/1.1 200 OK\r\n")
    assert await client.reader.readexactly(12) == b"2\r\nok\r\n0\r\n\r\n"
    await client.post(BODY)
    await client.head()
    assert provider.connections == 2  # the one with garbage behind the answer was not used again


async def test_a_stream_passes_as_it_comes_and_unchanged(provider, start):
    step = asyncio.Event()
    parts = [b"6\r\ndata: \r\n", b"3\r\na", b"\n\n\r", b"\n", b"e\r\ndata: [DONE]\n\n\r\n", b"0\r\n", b"\r\n"]

    async def script(call: Call) -> None:
        await call.request()
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for part in parts:
            await step.wait()
            step.clear()
            await call.send(part)
        await call.gone()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    await client.head()
    for part in parts:
        step.set()
        assert await asyncio.wait_for(client.reader.readexactly(len(part)), 5) == part


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (b"", 502, "provider_bad_answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", 502, "provider_bad_answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 502, "provider_bad_answer"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", 502, "provider_bad_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 40_000, 502, "provider_bad_answer"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 6\r\n\r\nsecret", 502, "provider_auth_failed"),
    ],
)
async def test_broken_answers(provider, start, answer, status, code):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(answer)

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    got, fields, body = await client.response()
    error = json.loads(body)["error"]
    assert (got, error["type"], error["code"]) == (status, "provider_error", code)
    assert b"secret" not in body
    assert fields[b"x-inferoute-provider"] == b"mock"
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:")
    assert fields[b"x-request-id"] == fields[b"x-inferoute-request-id"]
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")  # the connection is still good
    assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    "status", [b"400 Bad", b"403 No", b"404 None", b"429 Slow", b"500 Oops", b"503 Busy"]
)
async def test_a_providers_own_error_passes_untouched(provider, start, status):
    async def script(call: Call) -> None:
        await call.request()
        await call.answer(b'{"error":"theirs"}', status, b"Retry-After: 7\r\n")

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    got, fields, body = await client.response()
    assert (got, body, fields[b"retry-after"]) == (int(status[:3]), b'{"error":"theirs"}', b"7")


async def test_an_unreachable_provider(provider, start):
    with socket.socket() as taken:  # nobody listens there, and nobody else can
        taken.bind(("127.0.0.1", 0))
        text = config(provider).replace(str(provider.port), str(taken.getsockname()[1]))
        server = await start(text, MOCK_KEY="k")
        client = await RawClient.connect(server)
        await client.post(BODY)
        status, fields, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (503, "provider_unreachable")
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:connect:")
    assert fields[b"x-should-retry"] == b"true"


async def test_a_provider_that_does_not_answer(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        assert await call.gone() == b""

    provider.script = script
    server = await start(config(provider, more='[timeouts]\nfirst_byte = "5s"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY, extra=b"X-Inferoute-Timeout: 0.2\r\n")
    status, fields, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (504, "provider_timeout")
    assert fields[b"x-inferoute-attempts"].startswith(b"mock:timeout:")


async def test_a_stale_connection_is_redialled_once(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.answer(b"%d" % call.number)
        if call.number == 0:
            await call.request()  # takes the second request and closes without a byte

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    assert (await client.response())[2] == b"0"
    await client.post(BODY)
    status, fields, body = await client.response()
    assert (status, body) == (200, b"1")
    assert re.fullmatch(rb"mock:redial:\d+ms, mock:200:\d+ms", fields[b"x-inferoute-attempts"])


@pytest.mark.parametrize(
    ("sent", "clean"),
    [
        (b"", True),
        (b"9\r\ndata: a\n\n\r\n", True),
        (
            b"a\r\ndata: a\r\n\r\n\r\n",
            True,
        ),  # a chunk that ends in the wrong place: nothing of it was passed on
        (b"b\r\ndata: a\r\n\r\n\r\n", True),
        (b"8\r\ndata: a\n\r\n", False),
        (b"9\r\ndata: a\n\n", False),
        (b"9\r\ndata: a\n\n\r\n3", False),
        (b"9\r\ndata: a\n\n\r\nxyz\r\n", True),  # garbage where a chunk should begin
    ],
)
async def test_a_stream_that_breaks_off(provider, start, sent, clean):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        await call.send(sent)

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    await client.head()
    if clean:
        events = await Call(client.reader, client.writer, 0).chunks()
        error = json.loads(events.rpartition(b"data: ")[2])["error"]
        assert (error["type"], error["code"]) == ("provider_error", "provider_broke_off")
        assert b"[DONE]" not in events
    else:
        assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_a_counted_answer_that_breaks_off_is_seen_as_cut(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    with pytest.raises(asyncio.IncompleteReadError):
        await client.response()


async def test_an_http_1_0_client_sees_a_cut_as_a_reset(provider, start):
    release = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await release.wait()
        call.reset()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(post(BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
    await client.head()
    assert await client.reader.readexactly(5) == b"hello"
    release.set()
    with pytest.raises(ConnectionResetError):
        await client.reader.read()


async def test_the_idle_limit_ends_a_stream(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"9\r\ndata: a\n\n\r\n"
        )
        assert await call.gone() == b""

    provider.script = script
    server = await start(config(provider, more='[timeouts]\nidle = "300ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    _, _, events = await client.response()
    assert b"sent nothing for 0.3 s" in events


async def test_keepalive_comments_go_between_events_only(provider, start):
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
            b"8\r\ndata: a\n\r\n"
        )
        await go.wait()
        await call.send(b"1\r\n\n\r\n")
        go.clear()
        await go.wait()
        await call.send(end)
        await call.gone()

    end = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    provider.script = script
    server = await start(config(provider, more='[routing]\nkeepalive = "150ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    await client.head()
    await client.reader.readexactly(len(b"8\r\ndata: a\n\r\n"))
    with pytest.raises(TimeoutError):  # within an event nothing may be put in
        await asyncio.wait_for(client.reader.read(1), 0.5)
    go.set()
    assert await client.reader.readexactly(6) == b"1\r\n\n\r\n"
    comment = b"e\r\n: keep-alive\n\n\r\n"
    for _ in range(2):
        assert await asyncio.wait_for(client.reader.readexactly(len(comment)), 5) == comment
    go.set()
    assert (await client.reader.readuntil(b"\r\n0\r\n\r\n")).replace(comment, b"") == end


@pytest.mark.parametrize("phase", ["body", "waiting", "answer"])
async def test_a_client_that_leaves_ends_the_request_upstream(provider, start, phase):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def script(call: Call) -> None:
        head = await call.head()
        if phase == "answer":
            await call.body(head)
            await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        begun.set()
        await call.gone()
        ended.set()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    whole = post(BODY)
    await client.send(whole[:-3] if phase == "body" else whole)
    await asyncio.wait_for(begun.wait(), 5)
    client.close()
    await asyncio.wait_for(ended.wait(), 5)
    row = server.gateway.catalog.deployments["mock/m"].row("chat", False)
    await until(lambda: row.in_flight == 0)
    assert row.success.mean() is None  # nothing was held against the provider


async def test_an_early_answer_stops_the_sending(provider, start):
    async def script(call: Call) -> None:
        await call.head()
        await call.answer(b"too much", b"413 Content Too Large")
        await call.gone()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000\r\n\r\n"
        b'{"model":"mock/m","messages":["'
    )
    status, fields, body = await client.response()
    assert (status, body, fields[b"connection"]) == (413, b"too much", b"close")
    assert await client.rest() == b""


async def test_backpressure_holds_the_provider_back(provider, start):
    sent = 0
    stop = asyncio.Event()

    async def script(call: Call) -> None:
        nonlocal sent
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(800):  # 50 MiB
            await call.send(chunk)
            sent += 65536
        await call.send(b"0\r\n\r\n")
        stop.set()
        await call.gone()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    client.writer.transport.pause_reading()
    await client.post(BODY)
    previous = -1
    while sent != previous or not sent:  # until nothing moves any more
        previous = sent
        await asyncio.sleep(0.2)
    assert sent < 30 << 20  # the sockets' buffers are full, and ours is small
    connection = next(iter(server.gateway.connections))
    assert connection.transport.get_write_buffer_size() < 1 << 20
    client.writer.transport.resume_reading()
    await client.head()
    left = 800 * len(b"10000\r\n" + b"x" * 65536 + b"\r\n") + len(b"0\r\n\r\n")
    while left:
        data = await client.reader.read(left)
        assert data
        left -= len(data)


async def test_backpressure_holds_the_client_back(provider, start):
    go = asyncio.Event()
    size = 40 << 20

    async def script(call: Call) -> None:
        head = await call.head()
        await go.wait()
        await call.answer(b"%d" % len(await call.body(head)))

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    head = b'{"model":"mock/m","a":"'
    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n"
        % (size + len(head) + 2)
    )
    await client.send(head)
    writing = asyncio.ensure_future(client.send(b"x" * size + b'"}'))
    done, _ = await asyncio.wait({writing}, timeout=1.0)
    assert not done
    upstream = next(iter(server.gateway.providers["mock"].pool.open))
    assert upstream.transport.get_write_buffer_size() < 1 << 20
    go.set()
    await writing
    assert (await client.response())[2] == b"%d" % (size + len(head) + 2 - 5)


async def test_a_second_model_late_in_a_streamed_body_never_reaches_the_provider(provider, start):
    heads: asyncio.Queue[bytes] = asyncio.Queue()
    got: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(call: Call) -> None:
        heads.put_nowait(await call.head())
        got.put_nowait(await call.gone())

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
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


async def test_case_variants_are_refused_for_servers_that_would_take_them(provider, start):
    server = await start(config(provider, extra="case_insensitive_keys = true"), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(b'{"model":"mock/m","MODEL":"other"}')
    assert (await client.response())[0] == 400
    await client.post(b'{"model":"mock/m","a":{"MODEL":"other"}}')
    assert (await client.response())[0] == 200


async def test_a_model_is_put_in_where_none_was(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    strategy = b"X-Inferoute-Strategy: cost\r\n"
    for body, sent in [
        (b'{"messages":[]}', b'{"model":"m","messages":[]}'),
        (b" { } ", b' {"model":"m" } '),
        (b'{"model": null, "a":1}', b'{"model": "m", "a":1}'),
        (b'{"model":"auto"}', b'{"model":"m"}'),
    ]:
        await client.post(body, extra=strategy)
        status, fields, answer = await client.response()
        assert (status, answer) == (200, sent)
        assert fields[b"x-inferoute-strategy"] == b"cost"


async def test_the_answer_just_given_changes_the_next_choice(provider, start):
    async def script(call: Call) -> None:
        while True:
            _, body = await call.request()
            model = json.loads(body)["model"]
            count = 2000 if model == "wordy" else 20
            usage = {"prompt_tokens": 10, "completion_tokens": count, "total_tokens": 10 + count}
            await call.answer(json.dumps({"usage": usage}).encode())

    provider.script = script
    text = (
        config(provider, models=())
        + '[models."mock/wordy"]\ninput_price = 1\noutput_price = 2\n'
        + '[models."mock/terse"]\ninput_price = 1\noutput_price = 3\n'
        + '[aliases]\nboth = { models = ["mock/wordy", "mock/terse"], strategy = "cost" }\n'
    )
    server = await start(text, MOCK_KEY="k")
    client = await RawClient.connect(server)
    served = []
    for model in (b"both", b"mock/terse", b"both", b"both"):
        await client.post(b'{"model":"%b","messages":[{"role":"user","content":"hi"}]}' % model)
        served.append((await client.response())[1][b"x-inferoute-model"])
    assert served[0] == b"mock/wordy"  # the cheaper one by its list price
    assert served[2:] == [b"mock/terse"] * 2  # the cheaper one by what it really costs


async def test_missing_keys_are_told_without_asking_the_provider(provider, start):
    server = await start(config(provider))
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, _, body = await client.response()
    assert status == 502
    assert "set MOCK_KEY" in json.loads(body)["error"]["message"]
    assert provider.connections == 0


@pytest.mark.parametrize(
    ("auth", "line"),
    [("x-api-key", b"x-api-key: k"), ("api-key", b"api-key: k"), ("bearer", b"Authorization: Bearer k")],
)
async def test_credentials_headers_and_query_of_a_provider(provider, start, auth, line):
    seen = []

    async def script(call: Call) -> None:
        seen.append(await call.request())
        await call.answer()

    provider.script = script
    extra = f'auth = "{auth}"\nheaders = {{ "x-team" = "search" }}\nquery = {{ api-version = "preview" }}'
    server = await start(config(provider, extra=extra), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY, path=b"/v1/chat/completions?beta=b&a=b", extra=b"X-Team: mine\r\n")
    assert (await client.response())[0] == 200
    head = seen[0][0]
    assert head.startswith(b"POST /v1/chat/completions?api-version=preview&beta=b HTTP/1.1\r\n")
    assert b"\r\n" + line + b"\r\n" in head
    assert b"\r\nx-team: search\r\n" in head
    assert b"mine" not in head


async def test_passthrough_sends_the_clients_own_key(provider, start):
    seen = []

    async def script(call: Call) -> None:
        seen.append(await call.request())
        await call.answer(b'{"error":"yours"}', b"401 Unauthorized")

    provider.script = script
    text = config(provider).replace('api_key_env = "MOCK_KEY"', 'auth = "passthrough"')
    server = await start(text)
    _, secret = await make(server)
    client = await RawClient.connect(server)
    await client.post(
        BODY, extra=b"Authorization: Bearer mine\r\nX-TokenHub-Key: %b\r\nOpenAI-Project: p\r\n" % secret
    )
    status, _, body = await client.response()
    assert (status, body) == (401, b'{"error":"yours"}')
    head = seen[0][0].lower()
    assert b"authorization: bearer mine\r\n" in head
    assert b"openai-project: p\r\n" in head
    assert secret.lower() not in head and b"tokenhub" not in head


async def test_server_timing(provider, start):
    text = '[server]\nlisten = ["127.0.0.1:0"]\nserver_timing = true\n' + config(provider)
    server = await start(text, MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.post(BODY)
    timing = (await client.response())[1][b"server-timing"]
    assert timing.startswith(b"gateway;dur=")
    assert b", upstream;dur=" in timing


def test_the_configuration_used_here_is_valid():
    parse('[providers.mock]\nbase_url = "http://127.0.0.1:1/v1"\n[models."mock/m"]\n')


async def test_the_first_byte_limit_counts_from_the_end_of_the_request(provider, start):
    server = await start(config(provider, more='[timeouts]\nfirst_byte = "300ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    whole = post(BODY)
    await client.send(whole[:-3])
    await until(lambda: provider.connections)
    exchange = next(iter(server.gateway.connections))._exchange
    server.gateway.tick(monotonic() + 10)  # a slow upload is not the provider's fault
    assert exchange.attempt.deadline_at > monotonic() + 5
    await client.send(whole[-3:])
    assert (await client.response())[2] == SENT


async def test_a_provider_that_does_not_take_the_request(provider, start):
    async def script(call: Call) -> None:
        call.writer.transport.pause_reading()
        await asyncio.Event().wait()

    provider.script = script
    server = await start(config(provider, more='[timeouts]\nfirst_byte = "300ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    size = 30 << 20
    await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % size)
    writing = asyncio.ensure_future(client.send(b'{"model":"mock/m","a":"' + b"x" * size))
    status, _, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (504, "provider_timeout")
    writing.cancel()


async def test_a_fault_of_our_own_is_a_500(provider, start, monkeypatch, caplog):
    server = await start(config(provider), MOCK_KEY="k")

    def fail(*_: object) -> None:
        raise RuntimeError("what nobody should read")

    monkeypatch.setattr(server.gateway.catalog, "resolve", fail)
    client = await RawClient.connect(server)
    await client.post(BODY)
    status, fields, body = await client.response()
    assert (status, json.loads(body)["error"]["type"]) == (500, "api_error")
    assert fields[b"connection"] == b"close"
    assert b"nobody" not in body
    assert "what nobody should read" in caplog.text
