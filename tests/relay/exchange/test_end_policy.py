"""Which streams are believed to be at their end, over sockets and with every framing."""

from __future__ import annotations

import asyncio
import logging

import pytest

from proxy.relay.exchange.end_policy import BELIEVED_AFTER
from tests.support.fakes import DONE, Call, RawClient, chunk
from tests.support.scripts import begun, says

CONFIG = """
[providers.p]
base_url = "{url}"
auth = "none"
endpoints = ["chat", "completions", "responses", "messages", "images"]
{more}
[models."p/m"]
capabilities = ["chat", "images"]
"""
DELTA = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
OWN_ERROR = b'data: {"error":{"message":"overloaded"}}\n\n'
LAST = b"0\r\n\r\n"
PATHS = {"chat": "chat/completions", "images": "images/generations"}


def sends(body: bytes, framing: bytes = b"Transfer-Encoding: chunked\r\n"):
    """Answers with these bytes, and closes."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + framing + b"\r\n" + body)

    return script


async def ask(server, endpoint: str = "chat", minor: int = 1) -> bytes:
    """All that comes behind the head, up to the end of the connection; RESET behind it: it was reset."""
    client = await RawClient.connect(server)
    body = b'{"model":"p/m","stream":true}'
    await client.send(
        b"POST /v1/%b HTTP/1.%d\r\nHost: g\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (PATHS.get(endpoint, endpoint).encode(), minor, len(body), body)
    )
    await client.head()
    got = b""
    try:
        while data := await client.reader.read(65536):
            got += data
    except ConnectionResetError:
        got += b"RESET"
    return got


def row(server, endpoint: str = "chat"):
    return server.gateway.routes.catalog.deployments["p/m"].row(endpoint, True)


@pytest.fixture(name="begin")
async def _begin(provider, start):
    async def begin(more: str = ""):
        return await start(CONFIG.format(url=provider.url, more=more))

    return begin


WHOLE = [DELTA + DONE, DELTA + STOP, DELTA + STOP + USAGE, STOP.rstrip(b"\n"), DELTA + OWN_ERROR]


@pytest.mark.parametrize("stream", WHOLE)
@pytest.mark.parametrize("minor", [0, 1])
async def test_a_stream_that_says_so_is_whole(provider, begin, stream, minor):
    server = await begin()
    for body, framing in (
        (chunk(stream) + LAST, b"Transfer-Encoding: chunked\r\n"),
        (stream, b"Content-Length: %d\r\n" % len(stream)),
        (stream, b""),
    ):
        provider.script = sends(body, framing)
        got = await ask(server, minor=minor)
        wrapped = minor and framing[:1] != b"C"
        assert got == (chunk(stream) + LAST if wrapped else stream)
    assert row(server).success.mean() == 1.0
    assert row(server).endless == 0


@pytest.mark.parametrize(
    "last",
    [  # an event that is longer than what is kept of a stream, with its reason in front
        b'data: {"choices":[{"index":0,"finish_reason":"stop","message":{"content":"%b"},"delta":{}}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"citations":["%b"]}\n\n',
        STOP + b": %b\n\n",
        STOP + b'data: {"choices":[],"usage":{"prompt_tokens":1},"x":"%b"}\n\n',
    ],
)
@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_reason_that_stands_far_before_the_end(provider, begin, last, is_whole):
    text = b"z" * 30_000 + b' \\"finish_reason\\":\\"stop\\"'
    stream = DELTA * 3 + (last if is_whole else last.replace(b'"stop"', b"null")) % text
    server = await begin()
    provider.script = sends(chunk(stream) + LAST)
    got = await ask(server)
    assert (got == chunk(stream) + LAST) is is_whole
    assert (b"provider_broke_off" in got) is not is_whole


async def test_an_error_that_sdks_pass_over_is_told_again(provider, begin):
    server = await begin()
    unnamed = b'data: {"type":"error","error":{"type":"overloaded_error","message":"no"}}\n\n'
    provider.script = sends(chunk(unnamed) + LAST)
    got = await ask(server, "messages")
    assert got.startswith(chunk(unnamed))
    assert b'event: error\ndata: {"type":"error"' in got
    named = b"event: error\n" + unnamed
    provider.script = sends(chunk(named) + LAST)
    assert await ask(server, "messages") == chunk(named) + LAST


async def test_a_clean_end_before_the_answers(provider, begin, caplog):
    server = await begin()
    caplog.set_level(logging.WARNING)
    for body, framing in (
        (chunk(DELTA) + LAST, b"Transfer-Encoding: chunked\r\n"),
        (chunk(DELTA) + b"000;x=1\r\nTrailer: a\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
        (DELTA, b""),
        (LAST, b"Transfer-Encoding: chunked\r\n"),  # nothing at all
        (b"", b""),
        (b"", b"Content-Length: 0\r\n"),
    ):
        provider.script = sends(body, framing)
        for minor in (0, 1):
            got = await ask(server, minor=minor)
            assert b'"code":"provider_broke_off"' in got
            assert b"[DONE]" not in got
            assert got.endswith(b"\n\n\r\n" + LAST if minor else b"\n\n")
            assert (DELTA in got) is (DELTA in body)
    assert "ended the stream before the answer was complete" in caplog.text
    assert row(server).success.mean() < 1.0
    assert "reset" in row(server).last_error


@pytest.mark.parametrize("rest", [USAGE, STOP[:-3] + USAGE[6:] + b"data: [DO"])
async def test_a_usage_makes_no_success_of_a_break(provider, begin, rest):
    server = await begin()
    provider.script = sends(chunk(DELTA) + chunk(rest) + LAST)
    got = await ask(server)
    assert not got.endswith(rest) and b"[DONE]" not in got
    assert row(server).success.mean() == 0.0
    assert "reset" in row(server).last_error


@pytest.mark.parametrize("minor", [0, 1])
async def test_within_an_event_the_connection_is_cut(provider, begin, minor):
    server = await begin()
    half = DELTA + STOP[:20]
    for body, framing in (
        (chunk(half) + LAST, b"Transfer-Encoding: chunked\r\n"),
        (half, b""),
        (half, b"Content-Length: %d\r\n" % len(half)),
        (DELTA, b"Content-Length: %d\r\n" % len(DELTA)),  # no place for an event, too
    ):
        provider.script = sends(body, framing)
        got = await ask(server, minor=minor)
        assert b"provider_broke_off" not in got
        if framing[:1] == b"C":
            assert got == body[:-1]
        else:
            assert got == (chunk(half) if minor else half + b"RESET")
    assert row(server).endless == 1  # half an event is no whole stream


async def test_the_last_chunk_in_two_reads(provider, begin):
    """What is out of it can't be taken back."""

    go = asyncio.Event()
    provider.script = says(begun(DELTA), b"0\r\n", go, b"\r\n")
    server = await begin()
    client = await RawClient.connect(server)
    await client.post(b'{"model":"p/m","stream":true}')
    await client.head()
    await client.reader.readuntil(b"0\r\n")
    go.set()
    assert await client.reader.read() == b""


async def test_a_reset_behind_a_finish_reason_is_no_break(provider, begin):
    server = await begin()
    provider.script = sends(chunk(DELTA) + chunk(STOP))  # and closes, without the last chunk
    assert await ask(server) == chunk(DELTA) + chunk(STOP) + LAST
    assert row(server).success.mean() == 1.0
    provider.script = sends(chunk(DELTA) + chunk(OWN_ERROR))
    assert await ask(server) == chunk(DELTA) + chunk(OWN_ERROR) + LAST  # the error is not told twice
    assert row(server).success.mean() < 1.0


async def test_a_usage_that_is_taken_out_is_no_end(provider, begin):
    server = await begin("request_stream_usage = true")
    provider.script = sends(chunk(DELTA) + chunk(USAGE) + LAST)
    got = await ask(server)
    assert got.startswith(chunk(DELTA))
    assert b"prompt_tokens" not in got
    assert b"provider_broke_off" in got
    provider.script = sends(chunk(DELTA + STOP) + chunk(USAGE) + LAST)
    assert await ask(server) == chunk(DELTA + STOP) + LAST
    provider.script = sends(chunk(DELTA + STOP[:30]) + LAST)
    assert await ask(server) == chunk(DELTA)  # the half is held, and the connection is cut


@pytest.mark.parametrize("endpoint", ["chat", "completions", "responses", "messages"])
async def test_endpoints_whose_streams_have_an_end(provider, begin, endpoint):
    server = await begin()
    provider.script = sends(chunk(b"data: {}\n\n") + LAST)
    assert b"provider_broke_off" in await ask(server, endpoint)


async def test_where_the_framing_decides(provider, begin):
    body = chunk(DELTA) + LAST
    server = await begin('stream_end = "framing"')
    provider.script = sends(body)
    assert await ask(server) == body


async def test_streams_that_need_no_end(provider, begin):
    body = chunk(DELTA) + LAST
    provider.script = sends(body)
    server = await begin()
    assert await ask(server, "images") == body
    provider.script = sends(body, b"Transfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n")
    assert await ask(server) == body
    provider.script = sends(chunk(STOP) + LAST)
    assert b"provider_broke_off" in await ask(server, "messages")  # the word of another API


async def test_a_deployment_that_never_says_so_is_believed_after_a_while(provider, begin):
    server = await begin()
    provider.script = sends(chunk(DELTA) + LAST)
    for _ in range(BELIEVED_AFTER):
        assert b"provider_broke_off" in await ask(server)
    assert await ask(server) == chunk(DELTA) + LAST
    provider.script = sends(chunk(DELTA + DONE) + LAST)  # until it says so once
    assert await ask(server) == chunk(DELTA + DONE) + LAST
    provider.script = sends(chunk(DELTA) + LAST)
    assert b"provider_broke_off" in await ask(server)
