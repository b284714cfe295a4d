"""The client's side on the wire: what is refused and how, time limits, pipelining, and refused bodies."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from types import SimpleNamespace

import pytest

from tests.support.fakes import Call, RawClient, blackhole, post, until

BODY = b'{"model":"mock/m"}'
SENT = b'{"model":"m"}'


def config(provider, server: str = "", more: str = "") -> str:
    return (
        f'[server]\nlisten = ["127.0.0.1:0"]\n{server}\n[providers.mock]\nbase_url = "{provider.url}"\n'
        f'api_key_env = "MOCK_KEY"\n{more}\n[models."mock/m"]\n'
    )


async def check_refused(client: RawClient, status: int) -> dict:
    """An error in the envelope, and nothing behind it but the end of the connection."""
    got, fields, body = await client.response()
    error = json.loads(body)["error"]
    assert (got, error["type"]) == (status, "invalid_request_error")
    assert fields[b"connection"] == b"close"
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"x-request-id"] == fields[b"x-inferoute-request-id"]
    assert await client.rest() == b""
    return error


def head(
    *lines: bytes, first: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bytes = b"Host: g"
) -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", b""])


LENGTH = b"Content-Length: %d" % len(BODY)
SMUGGLED = b"POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY

MALFORMED = {
    # request lines
    "garbage": b"\x17\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "http-0.9": head(first=b"GET /v1/chat/completions"),
    "http-2.0": head(LENGTH, first=b"POST /v1/chat/completions HTTP/2.0") + BODY,
    "http-1.2": head(LENGTH, first=b"POST /v1/chat/completions HTTP/1.2") + BODY,
    "lower-case version": head(LENGTH, first=b"POST /v1/chat/completions http/1.1") + BODY,
    "two spaces": head(LENGTH, first=b"POST  /v1/chat/completions HTTP/1.1") + BODY,
    "tab": head(LENGTH, first=b"POST\t/v1/chat/completions HTTP/1.1") + BODY,
    "space before": head(LENGTH, first=b" POST /v1/chat/completions HTTP/1.1") + BODY,
    "space behind": head(LENGTH, first=b"POST /v1/chat/completions HTTP/1.1 ") + BODY,
    "space in target": head(LENGTH, first=b"POST /v1/chat /completions HTTP/1.1") + BODY,
    "fragment": head(LENGTH, first=b"POST /v1/chat/completions#x HTTP/1.1") + BODY,
    "no path": head(LENGTH, first=b"POST v1/chat/completions HTTP/1.1") + BODY,
    "authority": head(first=b"CONNECT example.com:443 HTTP/1.1"),
    "bytes in target": head(LENGTH, first=b"POST /v1/chat/completions\xc3\xa9 HTTP/1.1") + BODY,
    "NUL in target": head(LENGTH, first=b"POST /v1/chat/completions\0 HTTP/1.1") + BODY,
    "strange method": head(LENGTH, first=b"PO(ST /v1/chat/completions HTTP/1.1") + BODY,
    "long method": head(LENGTH, first=b"P" * 33 + b" /v1/chat/completions HTTP/1.1") + BODY,
    # header lines
    "no colon": head(LENGTH, b"X-Header") + BODY,
    "no name": head(LENGTH, b": value") + BODY,
    "space before colon": head(b"Content-Length : %d" % len(BODY)) + BODY,
    "space before name": head(LENGTH, b" X: 1") + BODY,
    "obs-fold": head(LENGTH, b"X: 1", b" continued") + BODY,
    "obs-fold tab": head(LENGTH, b"X: 1", b"\tcontinued") + BODY,
    "bare LF": head(LENGTH, b"X: 1\nTransfer-Encoding: chunked") + BODY,
    "bare CR": head(LENGTH, b"X: 1\rTransfer-Encoding: chunked") + BODY,
    "NUL": head(LENGTH, b"X: a\0b") + BODY,
    "DEL": head(LENGTH, b"X: a\x7fb") + BODY,
    "bell": head(LENGTH, b"X: a\x07b") + BODY,
    "NUL in name": head(LENGTH, b"X\0: 1") + BODY,
    "bytes in name": head(LENGTH, b"X\xe9: 1") + BODY,
    "underlined line": head(LENGTH, b"{json}: 1") + BODY,
    # Host
    "no host": head(LENGTH, host=b"") + BODY,
    "two hosts": head(LENGTH, b"Host: other") + BODY,
    "same host twice": head(LENGTH, b"Host: g") + BODY,
    "host list": head(LENGTH, host=b"Host: g, other") + BODY,
    "host with path": head(LENGTH, host=b"Host: g/x") + BODY,
    "host with user": head(LENGTH, host=b"Host: u@g") + BODY,
    "absolute target without host": head(LENGTH, first=b"POST http:///v1/chat/completions HTTP/1.1") + BODY,
    # framing
    "length twice": head(LENGTH, LENGTH) + BODY,
    "lengths differ": head(LENGTH, b"content-length: 0") + BODY,
    "length list": head(b"Content-Length: 18, 18") + BODY,
    "plus length": head(b"Content-Length: +18") + BODY,
    "minus length": head(b"Content-Length: -1") + BODY,
    "hex length": head(b"Content-Length: 0x12") + BODY,
    "underscore length": head(b"Content-Length: 1_8") + BODY,
    "empty length": head(b"Content-Length:") + BODY,
    "huge length": head(b"Content-Length: " + b"9" * 40) + BODY,
    "length in other digits": head(b"Content-Length: \xd9\xa1\xd9\xa8") + BODY,
    "CL.TE": head(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    "TE.CL": head(b"Transfer-Encoding: chunked", b"Content-Length: 4") + b"0\r\n\r\n" + SMUGGLED,
    "TE.TE": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n" + SMUGGLED,
    "chunked twice": head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "chunked, chunked": head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "gzip, chunked": head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "identity": head(b"Transfer-Encoding: identity") + BODY,
    "xchunked": head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "chunked with tab": head(b"Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
    "empty encoding": head(b"Transfer-Encoding:") + b"0\r\n\r\n",
    "quoted encoding": head(b'Transfer-Encoding: "chunked"') + b"0\r\n\r\n",
    "chunked in 1.0": head(b"Transfer-Encoding: chunked", first=b"POST /v1/chat/completions HTTP/1.0")
    + b"0\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_head(provider, start, sent):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(sent)
    error = await check_refused(client, 400)
    assert error["code"] == "bad_head"
    assert provider.connections == 0


@pytest.mark.parametrize(
    "sent",
    [
        head(LENGTH, b"X: " + b"y" * 33_000) + BODY,
        b"POST /v1/chat/completions?" + b"q" * 33_000,
        head(LENGTH, *[b"X-%d: 1" % i for i in range(300)]) + BODY,
        b"POST / HTTP/1.1\r\n" + b"X: 1\r\n" * 10_000,
    ],
    ids=["header", "target", "many headers", "endless"],
)
async def test_a_head_too_large(provider, start, sent):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(sent)
    await check_refused(client, 431)
    assert provider.connections == 0


@pytest.mark.parametrize(
    "size", [b"0x5", b"+5", b"-5", b" 5", b"5 ", b"5 ;a", b"g", b"", b"f" * 16, b";x", b"5;\x01"]
)
async def test_broken_chunks(provider, start, size):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(head(b"Transfer-Encoding: chunked") + size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
    error = await check_refused(client, 400)
    assert error["code"] == "bad_framing"
    assert provider.connections == 0


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX: 1\n\r\n",
        b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
        b"5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
async def test_broken_chunk_ends_and_trailers(provider, start, chunks):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(head(b"Transfer-Encoding: chunked") + chunks)
    assert (await check_refused(client, 400))["code"] == "bad_framing"
    assert provider.connections == 0


async def test_broken_chunks_behind_what_was_sent_end_the_request_upstream(provider, start):
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.head()
        assert b"0\r\n\r\n" not in await call.gone()
        gone.set()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    first = BODY[:-1] + b","
    await client.send(head(b"Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(first), first))
    await until(lambda: provider.connections)
    await client.send(b"xyz\r\n")
    await check_refused(client, 400)
    await asyncio.wait_for(gone.wait(), 5)


async def test_a_line_before_the_request_is_skipped(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(b"\r\n" + post(BODY))
    assert (await client.response())[2] == SENT
    for byte in b"\r\n" + post(BODY):
        await client.send(bytes([byte]))
    assert (await client.response())[2] == SENT


# ---------------------------------------------------------------------- pipelining


async def test_an_error_in_the_middle_of_a_pipeline(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    unknown = post(b'{"model":"nobody/knows"}')
    await client.send(post(BODY) + unknown + post(BODY))
    assert [(await client.response())[0] for _ in range(3)] == [200, 404, 200]


async def test_a_malformed_head_in_the_middle_of_a_pipeline(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(post(BODY) + b"BROKEN\r\n\r\n" + post(BODY))
    assert (await client.response())[2] == SENT
    await check_refused(client, 400)


@pytest.mark.parametrize(
    "header",
    [b"X-Inferoute-Strategy: random", b"X-Inferoute-Timeout: never", b"X-Inferoute-Timeout: -1"],
)
@pytest.mark.parametrize("split", ["whole", "head first", "in the body"])
async def test_a_refused_head_leaves_the_next_request_whole(provider, start, header, split):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    refused = post(BODY, extra=header + b"\r\n")
    at = {"whole": len(refused), "head first": len(refused) - len(BODY), "in the body": len(refused) - 5}[
        split
    ]
    await client.send(refused[:at])
    status, fields, _ = await client.response()
    assert status == 400
    assert b"connection" not in fields
    await client.send(refused[at:] + post(BODY))
    assert (await client.response())[2] == SENT
    await client.post(BODY)
    assert (await client.response())[2] == SENT


async def test_a_refused_head_in_a_pipeline(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(post(BODY, extra=b"X-Inferoute-Strategy: random\r\n") + post(BODY))
    assert (await client.response())[0] == 400
    assert (await client.response())[2] == SENT


async def test_requests_are_not_read_without_bound_while_one_runs(provider, start):
    go = asyncio.Event()

    async def script(call: Call) -> None:
        while True:
            _, body = await call.request()
            await go.wait()
            await call.answer(body)

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    body = b'{"model":"mock/m","x":"' + b"y" * 100_000 + b'"}'
    writing = asyncio.create_task(client.send(post(body) * 200))
    await until(lambda: provider.connections)
    connection = next(iter(server.gateway.connections))
    await until(lambda: connection.is_paused)
    assert len(connection.reader.unread) < 1 << 20
    go.set()
    for _ in range(200):
        assert len((await client.response())[2]) == len(body) - 5
    await writing


async def pipeline_unread(provider, server, count: int, last: bytes) -> RawClient:
    """A client that pipelines requests for 40 KB each and reads nothing, once nothing moves any more."""
    served = 0

    async def script(call: Call) -> None:
        nonlocal served
        while True:
            await call.request()
            await call.answer(LARGE)
            served += 1

    provider.script = script
    client = await RawClient.connect(server)
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)  # the system would take 32 MiB
    client.writer.transport.pause_reading()
    await client.send(post(BODY) * count + last)
    previous = -1
    while served != previous or not served:
        previous = served
        await asyncio.sleep(0.1)
    return client


LARGE = b"x" * 40_000  # one read of the gateway: the end of an answer and a full buffer come together


async def test_a_pipeline_of_large_answers_waits_for_a_slow_reader(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await pipeline_unread(provider, server, 500, b"")
    connection = next(iter(server.gateway.connections))
    assert connection.transport.get_write_buffer_size() < 2 << 20
    client.writer.transport.resume_reading()
    for _ in range(500):
        assert (await client.response())[2] == LARGE


# ---------------------------------------------------------------------- time


async def test_a_connection_without_a_request_is_closed(provider, start):
    server = await start(config(provider, more='[timeouts]\nkeep_alive = "200ms"'), MOCK_KEY="k")
    fresh, used = await RawClient.connect(server), await RawClient.connect(server)
    await used.post(BODY)
    assert (await used.response())[0] == 200
    assert await asyncio.wait_for(fresh.rest(), 5) == b""
    assert await asyncio.wait_for(used.rest(), 5) == b""


async def test_a_head_that_drips(provider, start):
    server = await start(config(provider, more='[timeouts]\nclient_head = "200ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)

    async def drip() -> None:
        await client.send(b"POST /v1/chat/completions HTTP/1.1\r\n")
        while True:
            await client.send(b"X-A: 1\r\n")
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    error = await asyncio.wait_for(check_refused(client, 408), 5)
    assert "0.2 s" in error["message"]
    dripping.cancel()
    with pytest.raises((asyncio.CancelledError, ConnectionError)):
        await dripping
    assert provider.connections == 0


@pytest.mark.parametrize(
    "sent", [b"", b'{"model":', BODY[:-1]], ids=["nothing", "no model", "after the model"]
)
async def test_a_body_that_stops(provider, start, sent):
    async def script(call: Call) -> None:
        await call.head()
        await call.gone()

    provider.script = script
    server = await start(config(provider, more='[timeouts]\nclient_body = "200ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(post(BODY)[: -len(BODY)] + sent)
    error = await asyncio.wait_for(check_refused(client, 408), 5)
    assert "0.2 s" in error["message"]


async def test_a_body_that_drips_is_no_body_that_stops(provider, start):
    server = await start(config(provider, more='[timeouts]\nclient_body = "300ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    whole = post(BODY)
    await client.send(whole[:-6])
    for byte in whole[-6:]:
        await asyncio.sleep(0.1)
        await client.send(bytes([byte]))
    assert (await client.response())[2] == SENT


async def test_a_client_that_reads_nothing_is_cut(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await call.send(b"10000\r\n" + b"x" * 65536 + b"\r\n")

    provider.script = script
    server = await start(config(provider, more='[timeouts]\nclient_write = "300ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    client.writer.transport.pause_reading()
    await client.post(BODY)
    await until(lambda: provider.connections)
    await until(lambda: not server.gateway.connections)


@pytest.mark.parametrize("close", [b"", b"Connection: close\r\n"], ids=["kept", "closing"])
async def test_a_client_that_never_reads_the_end_of_a_finished_answer_is_cut(provider, start, close):
    """The exchange is over, only the last bytes wait in our buffer: no time limit may forget them."""
    full = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection = next(iter(server.gateway.connections))
        while not connection.transport.get_write_buffer_size():
            await call.send(b"4000\r\n" + b"x" * 16384 + b"\r\n")
            for _ in range(5):
                await asyncio.sleep(0)
        await call.send(b"0\r\n\r\n")
        full.set()
        await call.gone()

    provider.script = script
    limits = '[timeouts]\nclient_write = "300ms"\nkeep_alive = "300ms"'
    server = await start(config(provider, more=limits), MOCK_KEY="k")
    client = await RawClient.connect(server)
    client.writer.transport.pause_reading()
    await client.post(BODY, extra=close)
    await asyncio.wait_for(full.wait(), 5)
    await until(lambda: not server.gateway.connections, 3)


# ---------------------------------------------------------------------- refused bodies


async def test_too_large_by_its_length(provider, start):
    server = await start(config(provider, 'max_body = "1KiB"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(head(b"Content-Length: 1025"))
    error = await check_refused(client, 413)
    assert error["code"] == "body_too_large"
    assert "1024" in error["message"]
    client = await RawClient.connect(server)
    await client.post(BODY + b" " * (1024 - len(BODY)))
    assert (await client.response())[0] == 200


async def test_too_large_by_its_chunks(provider, start):
    server = await start(config(provider, 'max_body = "1KiB"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    chunk = b"100\r\n" + b'{"a":"' + b"x" * 250 + b"\r\n"
    await client.send(head(b"Transfer-Encoding: chunked") + chunk)
    await client.send((b"100\r\n" + b"x" * 256 + b"\r\n") * 4)
    error = await check_refused(client, 413)
    assert error["code"] == "body_too_large"
    assert provider.connections == 0


async def test_too_large_by_its_chunks_after_it_was_begun_upstream(provider, start):
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        assert not (await call.gone()).endswith(b"0\r\n\r\n")  # if anything came before it was refused
        gone.set()

    provider.script = script
    server = await start(config(provider, 'max_body = "1KiB"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    first = b'{"model":"mock/m","a":"'
    await client.send(head(b"Transfer-Encoding: chunked") + b"%x\r\n%b\r\n" % (len(first), first))
    await until(lambda: provider.connections)
    await client.send((b"100\r\n" + b"x" * 256 + b"\r\n") * 5)
    await check_refused(client, 413)
    await asyncio.wait_for(gone.wait(), 5)


async def test_a_refused_small_body_is_read_and_the_connection_kept(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    body = b'{"model":"nobody/knows","messages":"' + b"x" * 20_000 + b'"}'
    whole = post(body)
    cut = len(whole) - 15_000
    for _ in range(3):
        await client.send(whole[:cut])
        await client.send(whole[cut:])
        status, fields, answer = await client.response()
        assert (status, json.loads(answer)["error"]["code"]) == (404, "model_not_found")
        assert b"connection" not in fields
    await client.post(BODY)
    assert (await client.response())[2] == SENT


async def test_a_refused_body_that_comes_after_its_answer_is_dropped(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    # Two values for the model are refused at the second, wherever the body goes on.
    body = b'{"model":"mock/m","model":"mock/m","x":"' + b"x" * 20_000 + b'"}'
    whole = post(body)
    await client.send(whole[:-10_000])
    assert (await client.response())[0] == 400
    await client.send(whole[-10_000:] + post(BODY))
    assert (await client.response())[2] == SENT


async def test_a_refused_body_that_never_comes(provider, start):
    server = await start(config(provider, more='[timeouts]\nclient_body = "200ms"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(post(BODY, extra=b"X-Inferoute-Strategy: random\r\n")[: -len(BODY)])
    assert (await client.response())[0] == 400
    assert await asyncio.wait_for(client.rest(), 5) == b""


async def test_a_client_that_still_sends_can_read_why_it_is_refused(provider, start):
    server = await start(config(provider, 'max_body = "1MiB"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    size = 20 << 20
    sending = asyncio.create_task(client.send(head(b"Content-Length: %d" % size) + b"x" * size))
    await asyncio.wait_for(sending, 5)  # all of it is taken, though none of it is wanted
    await check_refused(client, 413)
    assert provider.connections == 0


async def test_a_client_that_sends_on_without_reading_is_cut_in_the_end(provider, start):
    server = await start(config(provider, 'max_body = "1KiB"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(head(b"Content-Length: 100000000"))
    await client.response()
    connection = next(iter(server.gateway.connections))
    server.gateway.tick(connection.wake_at)  # two seconds later
    await until(lambda: not server.gateway.connections)


async def test_a_client_that_waits_for_100_is_refused_without_its_body(provider, start):
    server = await start(config(provider, 'max_body = "1KiB"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(head(b"Content-Length: 2000", b"Expect: 100-continue"))
    await check_refused(client, 413)


async def test_a_refused_request_during_a_drain_closes(provider, start):
    server = await start(config(provider, 'drain_timeout = "3s"'), MOCK_KEY="k")
    client = await RawClient.connect(server)
    refused = post(BODY, extra=b"X-Inferoute-Strategy: random\r\n")
    await client.send(refused[:-5])
    assert (await client.response())[0] == 400
    drain = asyncio.create_task(server.drain())
    await until(lambda: server.gateway.draining)
    await client.send(refused[-5:])
    await asyncio.wait_for(drain, 2)


# ---------------------------------------------------------------------- leaving, and the hand-over


@pytest.mark.parametrize("when", ["no request", "head", "body", "waiting"])
async def test_a_half_closed_client_has_left(provider, start, when):
    gone = asyncio.Event()

    async def script(call: Call) -> None:
        await call.head()
        await call.gone()
        gone.set()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    whole = post(BODY)
    await client.send({"no request": b"", "head": whole[:20], "body": whole[:-1], "waiting": whole}[when])
    if when in ("body", "waiting"):
        await until(lambda: provider.connections)
    client.writer.write_eof()
    assert await asyncio.wait_for(client.rest(), 5) == b""
    if provider.connections:
        await asyncio.wait_for(gone.wait(), 5)
    await until(lambda: not server.gateway.connections)


async def test_a_reset_in_the_middle_of_a_body(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(post(BODY)[:-1])
    await until(lambda: server.gateway.connections)
    client.writer.transport.abort()
    await until(lambda: not server.gateway.connections)


async def test_an_answer_of_our_own_behind_others_that_are_still_going_out(provider, start, caplog):
    server = await start(config(provider), MOCK_KEY="k")
    client = await pipeline_unread(provider, server, 300, b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
    client.writer.transport.resume_reading()
    for _ in range(300):
        assert (await client.response())[2] == LARGE
    assert (await client.response())[0] == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_repr_tells_the_state(provider, start):
    async def script(call: Call) -> None:
        await call.request()
        await call.gone()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    await until(lambda: server.gateway.connections)
    connection = next(iter(server.gateway.connections))
    assert "reading" in repr(connection)
    await client.send(post(BODY)[:-1])
    await until(lambda: "body" in repr(connection))
    await client.send(BODY[-1:])
    await until(lambda: "waiting" in repr(connection))
    client.close()
    await until(lambda: "closed" in repr(connection))


async def test_framing_that_breaks_while_an_answer_runs(provider, start):
    """An error can't be said in the middle of an answer: it would be taken for a part of it."""

    async def script(call: Call) -> None:
        await call.reader.readuntil(b"}")
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + b"x" * 100)
        await call.gone()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head + b"%x\r\n%b\r\n" % (len(BODY), BODY))
    await client.reader.readuntil(b"x" * 100)
    await client.send(b"zz\r\n")
    assert b"HTTP/1.1 400" not in await client.rest()
    await until(lambda: not server.gateway.connections)


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32))


@pytest.mark.parametrize("sent", [HELLO, HELLO[:1], HELLO + b"\r\n\r\n", HELLO + b"\n" * 40_000])
async def test_tls_to_a_plain_listener_is_closed_at_once_and_told_once(provider, start, caplog, sent):
    server = await start(config(provider), MOCK_KEY="k")
    for _ in range(3):
        client = await RawClient.connect(server)
        await client.send(sent)
        assert await asyncio.wait_for(client.rest(), 5) == b""
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"a client speaks TLS to http://127.0.0.1:{server.addresses[0].port}, which is plain HTTP: "
        "let it ask by http://, or set [server] tls_cert and tls_key"
    ]


async def test_a_client_that_speaks_tls_is_told_by_its_library(provider, start):
    server = await start(config(provider), MOCK_KEY="k")
    begun = time.monotonic()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", server.addresses[0].port, ssl=ssl.create_default_context())
    assert time.monotonic() - begun < 5


async def test_a_flood_of_empty_lines_is_no_request(provider, start):
    server = await start(config(provider))
    client = await RawClient.connect(server)
    await client.send(b"\r\n" * 8)  # some clients end a body with one
    await client.send(b"\r\n" * 20_000)
    status, fields, _ = await client.response()
    assert (status, fields[b"connection"]) == (400, b"close")


async def test_a_long_pipeline_of_requests_that_are_answered_here(provider, start):
    server = await start(config(provider))
    client = await RawClient.connect(server)
    count = 4000  # more than one read
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * count)
    for _ in range(count):
        assert (await client.response())[0] == 200


async def test_an_empty_line_in_pieces_gives_no_more_time(provider, start):
    text = config(provider, more='[timeouts]\nclient_head = "5s"\nkeep_alive = "60s"\n')
    server = await start(text, MOCK_KEY="k")
    client = await RawClient.connect(server)
    await until(lambda: server.gateway.connections)
    [connection] = server.gateway.connections
    due = connection.wake_at
    for piece in (b"\r", b"\n", b"\r", b"\n\r", b"\n"):
        await client.send(piece)
        await asyncio.sleep(0.02)
        assert connection.wake_at == due
    await client.send(b"P")
    await until(lambda: connection.wake_at < due)


async def test_who_leaves_behind_a_body_that_was_paused_is_noticed(start):
    """Reading pauses while a connection is made, and the end of the body may have come by then."""
    with blackhole() as url:
        server = await start(config(SimpleNamespace(url=url)), MOCK_KEY="k")
        client = await RawClient.connect(server)
        chunks = [b"7530\r\n%b\r\n" % (b" " * 30_000)] * 5
        body = b"%x\r\n%b\r\n" % (len(BODY), BODY)
        await client.send(head(b"Transfer-Encoding: chunked") + body)
        await until(lambda: any(one._exchange for one in server.gateway.connections))
        [connection] = server.gateway.connections
        connection.data_received(b"".join(chunks) + b"0\r\n\r\n")  # one large read
        assert connection.is_resting
        await until(lambda: connection._exchange.request.body.done)
        client.close()
        await until(lambda: not server.gateway.connections, 2)


async def test_who_has_sent_more_reads_the_whole_response_of_a_gateway_that_stops(provider, start):
    """What lies unread at a close makes a reset of it, which would take along what is still on its way."""
    size, go = 200_000, asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * 1000)
        await go.wait()
        await call.send(b"x" * (size - 1000))
        await call.gone()

    provider.script = script
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.slow(server)
    await client.post(BODY)
    await client.head()
    [connection] = server.gateway.connections
    server.gateway.draining = True
    writing = asyncio.create_task(client.send(post(BODY) * 5000))  # more than is read while one runs
    await until(lambda: connection.is_paused)
    go.set()
    await until(lambda: connection._exchange is None)
    got = b""
    while piece := await client.reader.read(1 << 16):
        got += piece
    assert len(got) == size
    assert len(provider.seen) == 1
    client.close()
    await asyncio.wait([writing])


async def test_a_fault_in_work_that_a_request_waits_for_is_answered_once(provider, start, monkeypatch):
    is_waited_for = False

    def broken(*_):
        while not is_waited_for:  # longer than is waited at once
            yield
        raise RuntimeError("nonsense")

    monkeypatch.setattr("proxy.access.model_list.ModelList.build", broken)
    server = await start(config(provider), MOCK_KEY="k")
    client = await RawClient.connect(server)
    for _ in range(2):
        is_waited_for = False
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: g\r\n\r\n")
        await until(lambda: server.gateway.sliced_jobs._jobs)
        is_waited_for = True
        assert (await client.response())[0] == 500
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n")
    assert (await client.response())[0] == 200
