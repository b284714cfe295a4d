"""``peek = true``: a stream is held until its first event shows that it is no error in disguise."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from proxy.relay.exchange.exchange import CLIENT_LEFT
from proxy.relay.exchange.states import PEEKING
from tests.support.fakes import (
    DONE,
    EVENT_STREAM,
    Call,
    RawClient,
    Script,
    answers,
    chunk,
    hangs,
    streams,
    until,
)
from tests.support.two_providers import (
    SENT,
    Reply,
    are_open,
    ask,
    body,
    config,
    deployment,
    exchange,
    rows,
    sending,
    strikes,
)

ERROR = b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n'
NAMED_ERROR = b'event: error\ndata: {"type":"overloaded"}\n\n'
GOOD = b'data: {"choices":[]}\n\n'
STREAM = b',"stream":true'
PEEK = "peek = true"


def in_pieces(*pieces: bytes) -> Script:
    """Each piece of the body (framing is theirs) is sent once the gateway has read the one before."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(EVENT_STREAM)
        for piece in pieces:
            await call.send(piece)
            await asyncio.sleep(0.002)
        await call.gone()

    return script


@pytest.fixture(name="server")
async def _server(provider, other, start):
    other.script = streams(GOOD, b"data: [DONE]\n\n")
    return await start(config(provider, other, alias=PEEK))


async def test_an_error_as_the_first_event(provider, server):
    for count, event in enumerate((ERROR, NAMED_ERROR), 1):
        provider.script = streams(event)
        reply = await ask(server, more=STREAM)
        assert (reply.status, reply.body, reply.story) == (
            200,
            GOOD + b"data: [DONE]\n\n",
            "a:error, b:200",
        )
        assert reply.fields[b"x-inferoute-provider"] == b"b"
        assert strikes(server) == [count, 0]
    assert deployment(server).row("chat", True).speed.typical_s() is None
    assert "first event" in deployment(server).row("chat", True).last_error


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(ERROR[:9]), chunk(ERROR[9:-1]), chunk(ERROR[-1:])],
        [chunk(ERROR)[:1], chunk(ERROR)[1:20], chunk(ERROR)[20:]],
        [chunk(b": comment\n\n"), chunk(b": another\n\n"), chunk(ERROR)],
        [chunk(b": comment\n\n" + ERROR[:-2]), chunk(b"\n"), chunk(b"\n")],
        [chunk(ERROR.replace(b"\n", b"\r\n"))],
        [b"".join(chunk(ERROR[i : i + 1]) for i in range(len(ERROR)))],
        [chunk(ERROR + b"data: " + b"x" * 40_000 + b"\n\n" + GOOD)],
    ],
)
async def test_in_whatever_pieces_it_comes(provider, server, pieces):
    provider.script = in_pieces(*pieces)
    reply = await ask(server, more=STREAM)
    assert reply.story == "a:error, b:200"
    assert reply.body == GOOD + b"data: [DONE]\n\n"
    assert are_open(server, "a") == [0]


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(GOOD)],
        [chunk(GOOD + ERROR)],
        [chunk(GOOD[:5]), chunk(GOOD[5:]), chunk(ERROR)],
        [b"6;ext=1\r\ndata: \r\n", chunk(b'{"error":null}\n'), chunk(b"\n")],
        [chunk(b": comment\n\n"), chunk(b"event: ping\ndata: {}\n\n")],
        [chunk(b"data: not json at all, \"error\"\n\n")],
        [chunk(b"data: first\n\n" + b"data: " + b"y" * 30_000 + b"\n\n" + ERROR)],
        [chunk(b"data: " + b"z" * 100_000), chunk(b"\n\n")],
    ],
)  # fmt: skip
async def test_what_is_good_passes_byte_for_byte(provider, other, server, pieces):
    end = chunk(DONE) + b"0\r\n\r\n"
    provider.script = in_pieces(*pieces, end)
    client = await RawClient.connect(server)
    await client.post(body("two", STREAM))
    head = await client.head()
    assert b"\r\nX-Inferoute-Attempts: a:200:" in head
    whole = b"".join(pieces) + end
    assert await client.reader.readexactly(len(whole)) == whole
    assert other.connections == 0
    assert strikes(server) == [0, 0]
    assert deployment(server).row("chat", True).success.mean() == 1.0


@pytest.mark.parametrize("piece", [b"", chunk(b": hello\n\n"), chunk(GOOD), chunk(b"data: half")])
async def test_a_stream_that_ends_without_an_answer_while_it_is_held(provider, server, piece):
    provider.script = in_pieces(piece + b"0\r\n\r\n")
    reply = await ask(server, more=STREAM)
    assert (reply.story, reply.body) == ("a:reset, b:200", GOOD + DONE)
    assert strikes(server) == [1, 0]


async def test_only_the_first_event_is_waited_for(provider, server):
    provider.script = in_pieces(chunk(b": hello\n\n"), chunk(GOOD))  # and no end
    client = await RawClient.connect(server)
    await client.post(body("two", STREAM))
    await client.head()
    assert await client.reader.readuntil(GOOD + b"\r\n") == chunk(b": hello\n\n") + chunk(GOOD)
    assert deployment(server).row("chat", True).speed.typical_s() is not None


@pytest.mark.parametrize("held", [b"", chunk(b": hello\n\n"), chunk(b"data: half")])
async def test_it_is_not_held_for_ever(provider, other, server, held):
    provider.script = in_pieces(held)
    client = await RawClient.connect(server)
    await client.post(body("two", STREAM))
    await sending(server)
    running = exchange(server)
    await until(lambda: running.state == PEEKING and held in running.attempt.pending)
    now = monotonic()
    server.gateway.tick(now + 1.5)
    assert running.state == PEEKING
    server.gateway.tick(now + 2.1)
    await client.head()
    assert await client.reader.readexactly(len(held)) == held
    assert other.connections == 0
    assert (running.attempt.record.first_byte_at > 0) == bool(held)
    server.gateway.tick(monotonic() + 121)  # from here it is an answer like any other
    rest = await client.rest() if b"half" in held else await Call(client.reader, client.writer, 0).chunks()
    assert (b"provider_broke_off" in rest) == (b"half" not in held)


@pytest.mark.parametrize(
    "held", [b"", chunk(b": hello\n\n"), chunk(b"data: half"), b"5\r\nda", b"nonsense\r\n"]
)
async def test_a_provider_that_dies_meanwhile(provider, other, server, held):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(EVENT_STREAM + held)

    provider.script = script
    reply = await ask(server, more=STREAM)
    assert (reply.status, reply.story) == (200, "a:reset, b:200")
    assert reply.body == GOOD + b"data: [DONE]\n\n"
    assert [sent.replace(STREAM, b"") for _, sent in other.seen] == [SENT]
    assert strikes(server) == [1, 0]


async def test_both_are_errors(provider, other, server):
    provider.script, other.script = streams(ERROR), streams(NAMED_ERROR)
    reply = await ask(server, more=STREAM)
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story == "a:error, b:error"
    assert b"overloaded" not in reply.body


async def test_an_error_where_nothing_can_follow_passes(provider, other, server):
    provider.script = streams(ERROR, b"data: [DONE]\n\n")
    while server.gateway.budget.take(monotonic()):
        pass
    reply = await ask(server, more=STREAM)
    assert (reply.status, reply.body, reply.story) == (200, ERROR + b"data: [DONE]\n\n", "a:200")
    assert other.connections == 0
    assert strikes(server) == [1, 0]
    (seen,) = rows(server)
    assert (seen["status"], seen["attempts"]) == (200, 1)


@pytest.mark.parametrize("name", ["one", "a/m", "m"])
async def test_where_nobody_else_is_nothing_is_held(provider, other, start, name):
    """A pool of one, a pinned name; and a pool without ``peek``."""
    provider.script = in_pieces(b"1\r\n:")
    more = f'one = {{ models = ["a/m"], {PEEK} }}'
    server = await start('[routing]\nstrategy = "cost"\n' + config(provider, other, more=more))
    client = await RawClient.connect(server)
    await client.post(body(name, STREAM))
    await client.head()
    assert await client.reader.readexactly(4) == b"1\r\n:"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n",
    ],
)
async def test_what_can_not_be_read_is_not_held(provider, other, server, head):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(ERROR))
        await call.gone()

    provider.script = script
    client = await RawClient.connect(server)
    await client.post(body("two", STREAM))
    await client.head()
    assert await client.reader.readexactly(len(chunk(ERROR))) == chunk(ERROR)
    assert other.connections == 0


async def test_a_client_that_leaves_meanwhile(provider, other, server):
    left = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.send(EVENT_STREAM + chunk(b": hello\n\n"))
        await call.gone()
        left.set()

    provider.script = script
    client = await RawClient.connect(server)
    await client.post(body("two", STREAM))
    await sending(server)
    running = exchange(server)
    await until(lambda: running.state == PEEKING)
    client.close()
    await asyncio.wait_for(left.wait(), 5)
    assert other.connections == 0
    assert strikes(server) == [0, 0]
    (seen,) = rows(server)
    assert seen["status"] == CLIENT_LEFT
    row = deployment(server).row("chat", True)
    assert (row.in_flight, row.awaiting, row.success.mean()) == (0, 0, None)


async def test_an_http_1_0_client(provider, server):
    provider.script = in_pieces(chunk(b": hello\n\n"), chunk(GOOD), chunk(DONE) + b"0\r\n\r\n")
    client = await RawClient.connect(server)
    text = body("two", STREAM)
    await client.send(
        b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
    )
    assert (await client.rest()).partition(b"\r\n\r\n")[2] == b": hello\n\n" + GOOD + DONE


async def test_an_answer_that_ends_with_its_connection(provider, other, server):
    async def script(call: Call) -> None:
        await call.request()
        await call.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for at in range(0, len(sent), 9):
            await call.send(sent[at : at + 9])
            await asyncio.sleep(0.001)

    provider.script = script
    sent = GOOD + ERROR
    reply = await ask(server, more=STREAM)
    assert (reply.body, reply.story) == (sent, "a:200")
    sent = ERROR
    assert (await ask(server, more=STREAM)).story == "a:error, b:200"


async def test_while_the_head_itself_is_waited_for(provider, other, server):
    """A limit on the first event is none on the head."""
    provider.script = hangs
    asking = asyncio.ensure_future(ask(server, more=STREAM))
    await until(lambda: provider.seen)
    server.gateway.tick(monotonic() + 3)
    assert not asking.done()
    server.gateway.tick(monotonic() + 61)
    assert (await asking).story == "a:timeout, b:200"


async def test_an_error_of_the_head_is_no_matter_of_peeking(provider, server):
    provider.script = answers(b"{}", b"500 Oops")
    assert (await ask(server, more=STREAM)).story == "a:500, b:200"
    provider.script = answers(b"{}", b"404 None")
    reply = Reply(*await ask(server, more=STREAM))
    assert (reply.status, reply.story) == (404, "a:404")
