"""Where another member could follow, a response is held until it shows output."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from proxy.relay.exchange.hold import OUTPUT
from tests.support.fakes import (
    DONE,
    EVENT_STREAM,
    HELLO,
    Call,
    RawClient,
    answers,
    chunk,
    hangs,
    post,
    streams,
    until,
)
from tests.support.scripts import LAST, Plays, head, in_pieces, says
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
GOOD = HELLO
STREAM = b',"stream":true'
PEEK = "peek = true"


def streams_in(*pieces: bytes, then: str = "stays") -> Plays:
    """A stream whose body comes in these pieces; the framing is theirs."""
    return Plays(EVENT_STREAM, *in_pieces(*pieces), then=then)


@pytest.fixture(name="server")
async def _server(provider, other, start):
    other.script = streams(GOOD, DONE)
    return await start(config(provider, other, alias=PEEK))


async def test_an_error_as_the_first_event(provider, other, server):
    for count, event in enumerate((ERROR, NAMED_ERROR), 1):
        provider.script = streams(event)
        reply = await ask(server, more=STREAM)
        assert (reply.status, reply.body, reply.story) == (200, GOOD + DONE, "a:error, b:200")
        assert reply.fields[b"x-inferoute-provider"] == b"b"
        assert [sent.replace(STREAM, b"") for _, sent in other.seen] == [SENT] * count
        assert strikes(server) == [count, 0]
    assert deployment(server).row("chat", True).speed.typical_s() is None
    assert "first event" in deployment(server).row("chat", True).last_error


@pytest.mark.parametrize(
    ("pieces", "outcome"),
    [
        ([chunk(ERROR[:9]), chunk(ERROR[9:-1]), chunk(ERROR[-1:])], "error"),
        ([chunk(ERROR)[:1], chunk(ERROR)[1:20], chunk(ERROR)[20:]], "error"),
        ([chunk(b": comment\n\n"), chunk(b": another\n\n"), chunk(ERROR)], "error"),
        ([chunk(b": comment\n\n" + ERROR[:-2]), chunk(b"\n"), chunk(b"\n")], "error"),
        ([chunk(ERROR.replace(b"\n", b"\r\n"))], "error"),
        ([b"".join(chunk(ERROR[i : i + 1]) for i in range(len(ERROR)))], "error"),
        ([chunk(ERROR + b"data: " + b"x" * 40_000 + b"\n\n" + GOOD)], "error"),
        # It ends, without an answer, while it is held.
        ([LAST], "reset"),
        ([chunk(b": hello\n\n") + LAST], "reset"),
        ([chunk(GOOD) + LAST], "reset"),
        ([chunk(b"data: half") + LAST], "reset"),
        ([b"nonsense\r\n"], "reset"),
        # The provider dies meanwhile.
        ([], "dies"),
        ([chunk(b": hello\n\n")], "dies"),
        ([chunk(b"data: half")], "dies"),
        ([b"5\r\nda"], "dies"),
    ],
)
async def test_in_whatever_pieces_it_comes(provider, server, pieces, outcome):
    provider.script = streams_in(*pieces, then="closes" if outcome == "dies" else "stays")
    reply = await ask(server, more=STREAM)
    assert (reply.status, reply.body) == (200, GOOD + DONE)
    assert reply.story == f"a:{'reset' if outcome == 'dies' else outcome}, b:200"
    assert strikes(server) == [1, 0]
    assert are_open(server, "a") == [0] or outcome == "reset"


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk(GOOD)],
        [chunk(GOOD + ERROR)],
        [chunk(GOOD[:5]), chunk(GOOD[5:]), chunk(ERROR)],
        [b"6;ext=1\r\ndata: \r\n", chunk(b'{"choices":[{"finish_reason":"stop"}]}\n'), chunk(b"\n")],
        [chunk(b": comment\n\n"), chunk(b"event: ping\ndata: {}\n\n"), chunk(GOOD)],
        [chunk(b"data: not json at all, \"error\"\n\n" + GOOD)],
        [chunk(GOOD + b"data: " + b"y" * 30_000 + b"\n\n" + ERROR)],
        [chunk(b"data: " + b"z" * 100_000), chunk(b"\n\n")],
    ],
)  # fmt: skip
async def test_what_is_good_passes_byte_for_byte(provider, other, server, client, pieces):
    end = chunk(DONE) + LAST
    provider.script = streams_in(*pieces, end)
    await client.post(body("two", STREAM))
    assert b"\r\nX-Inferoute-Attempts: a:200:" in await client.head()
    whole = b"".join(pieces) + end
    assert await client.reader.readexactly(len(whole)) == whole
    assert other.connections == 0
    assert strikes(server) == [0, 0]
    assert deployment(server).row("chat", True).success.mean() == 1.0


async def test_only_the_first_event_is_waited_for(provider, server, client):
    provider.script = streams_in(chunk(b": hello\n\n"), chunk(GOOD))  # and no end
    await client.post(body("two", STREAM))
    await client.head()
    assert await client.reader.readuntil(GOOD + b"\r\n") == chunk(b": hello\n\n") + chunk(GOOD)
    assert deployment(server).row("chat", True).speed.typical_s() is not None


@pytest.mark.parametrize("held", [b"", chunk(b": hello\n\n"), chunk(b"data: half")])
async def test_it_is_not_held_for_ever(provider, other, server, client, held):
    provider.script = streams_in(held)
    await client.post(body("two", STREAM))
    await sending(server)
    running = exchange(server)
    await until(lambda: running.attempt.waits_for == OUTPUT and held in running.attempt.pending)
    now = monotonic()
    server.gateway.tick(now + 1.5)
    assert running.attempt.waits_for == OUTPUT
    server.gateway.tick(now + 2.1)
    await client.head()
    assert await client.reader.readexactly(len(held)) == held
    assert other.connections == 0
    assert running.attempt.record.first_byte_at == 0
    server.gateway.tick(monotonic() + 121)  # from here it is an answer like any other
    rest = await client.rest() if b"half" in held else await Call(client.reader, client.writer, 0).chunks()
    assert (b"provider_broke_off" in rest) == (b"half" not in held)


async def test_both_are_errors(provider, other, server):
    provider.script, other.script = streams(ERROR), streams(NAMED_ERROR)
    reply = await ask(server, more=STREAM)
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story == "a:error, b:error"
    assert b"overloaded" not in reply.body


async def test_an_error_where_nothing_can_follow_passes(provider, other, server):
    provider.script = streams(ERROR, DONE)
    while server.gateway.budget.take(monotonic()):
        pass
    deployment(server, "b/m").breaker.failures = 5  # it is failing, so that it needs the budget
    reply = await ask(server, more=STREAM)
    assert (reply.status, reply.body, reply.story) == (200, ERROR + DONE, "b:budget, a:200")
    assert other.connections == 0
    assert strikes(server) == [1, 5]
    (seen,) = rows(server)
    assert (seen["status"], seen["attempts"]) == (200, 1)


@pytest.mark.parametrize("name", ["one", "a/m", "fast"])
async def test_where_nobody_else_is_nothing_is_held(provider, other, start, name):
    """A pool of one, a pinned name; and an alias without ``peek``."""
    provider.script = streams_in(b"1\r\n:")
    more = 'one = ["a/m"]\nfast = { models = ["a/m", "b/m"], peek = false }'
    server = await start('[routing]\nstrategy = "cost"\n' + config(provider, other, more=more))
    client = await RawClient.connect(server)
    await client.post(body(name, STREAM))
    await client.head()
    assert await client.reader.readexactly(4) == b"1\r\n:"


@pytest.mark.parametrize("lines", [b"text/event-stream\r\nContent-Encoding: gzip", b"application/x-ndjson"])
async def test_what_can_not_be_read_is_not_held(provider, other, client, lines):
    provider.script = Plays(head(b"Content-Type: " + lines, b"Transfer-Encoding: chunked") + chunk(ERROR))
    await client.post(body("two", STREAM))
    await client.head()
    assert await client.reader.readexactly(len(chunk(ERROR))) == chunk(ERROR)
    assert other.connections == 0


async def test_an_http_1_0_client(provider, client):
    provider.script = streams_in(chunk(b": hello\n\n"), chunk(GOOD), chunk(DONE) + LAST)
    await client.send(post(body("two", STREAM)).replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.rest()).partition(b"\r\n\r\n")[2] == b": hello\n\n" + GOOD + DONE


@pytest.mark.parametrize(
    ("sent", "passed", "story"),
    [(GOOD + ERROR, GOOD + ERROR, "a:200"), (ERROR, GOOD + DONE, "a:error, b:200")],
)
async def test_an_answer_that_ends_with_its_connection(provider, server, sent, passed, story):
    pieces = in_pieces(*(sent[at : at + 9] for at in range(0, len(sent), 9)), pause_s=0.001)
    provider.script = says(head(b"Content-Type: text/event-stream"), *pieces)
    reply = await ask(server, more=STREAM)
    assert (reply.body, reply.story) == (passed, story)


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
    provider.script = answers(b"{}", b"422 No")
    reply = Reply(*await ask(server, more=STREAM))
    assert (reply.status, reply.story) == (422, "a:422")
