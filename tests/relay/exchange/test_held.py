"""How long a response is held."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from proxy.relay.exchange.hold import OUTPUT, WHOLE
from tests.support.fakes import DONE, EVENT_STREAM, HELLO, RawClient, answers, chunk, post, streams, until
from tests.support.scripts import LAST, Plays, head
from tests.support.two_providers import body, config, exchange, strikes

STREAM = b',"stream":true'
SILENT = Plays(EVENT_STREAM + chunk(b": hello\n\n"))


async def held(server, client, waits_for: int, more: bytes):
    """The request's exchange, once its response is held."""
    await client.post(body("two", more))
    await until(lambda: server.gateway.providers["a"].pool.snapshot()["open"])
    await until(lambda: exchange(server).attempt.waits_for == waits_for)
    return exchange(server)


@pytest.mark.parametrize(("limit", "story"), [("5s", "a:first-token, b:200"), ("0s", "a:200")])
async def test_a_limit_on_the_first_output(provider, other, start, limit, story):
    """With one the attempt has failed; without, what is held goes out."""
    provider.script, other.script = SILENT, streams(HELLO, DONE)
    server = await start(config(provider, other, alias=f'first_token = "{limit}", hedge = "off"'))
    client = await RawClient.connect(server)
    await held(server, client, OUTPUT, STREAM)
    now = monotonic()
    server.gateway.tick(now + 1.9)
    assert exchange(server).attempt.waits_for == OUTPUT
    server.gateway.tick(now + 5.1)
    told = (await client.head()).partition(b"X-Inferoute-Attempts: ")[2].partition(b"\r\n")[0]
    assert [part.rpartition(":")[0] for part in told.decode().split(", ")] == story.split(", ")
    assert strikes(server) == [int("first-token" in story), 0]
    client.close()


async def test_a_stream_is_held_until_behind_an_operators_hedge(provider, other, start):
    provider.script, other.script = SILENT, streams(HELLO, DONE)
    server = await start(config(provider, other, alias='hedge = "30s"'))
    client = await RawClient.connect(server)
    await held(server, client, OUTPUT, STREAM)
    server.gateway.tick(monotonic() + 29)
    assert other.connections == 0
    assert exchange(server).attempt.waits_for == OUTPUT
    server.gateway.tick(monotonic() + 31)
    status, _, got = await client.response()
    assert (status, got) == (200, HELLO + DONE)
    client.close()


@pytest.mark.parametrize("then", ["output", "nothing"])
async def test_a_head_and_silence_win_nothing_of_a_member_that_works(provider, other, start, then):
    """The other of a hedge is waited for; but not for longer than a response may take to begin."""
    go = asyncio.Event()
    provider.script = SILENT
    other.script = Plays(go, EVENT_STREAM + chunk(HELLO) + chunk(DONE) + LAST)
    server = await start(config(provider, other, alias='hedge = "5ms"'))
    client = await RawClient.connect(server)
    begun_at = monotonic()
    await client.post(body("two", STREAM))
    await until(lambda: other.seen)
    running = exchange(server)
    await until(lambda: running.hedged_attempt.waits_for == OUTPUT)
    for seconds in (9, 20, 40, 59):
        server.gateway.tick(begun_at + seconds)
        assert running.hedged_attempt is not None
    if then == "output":
        go.set()
    else:
        server.gateway.tick(monotonic() + 61)
    told = (await client.head()).partition(b"X-Inferoute-Attempts: ")[2].partition(b"\r\n")[0]
    assert [part.rpartition(":")[0] for part in told.decode().split(", ")] == (
        ["a:hedged", "b:200"] if then == "output" else ["b:hedged", "a:200"]
    )
    client.close()


async def test_the_end_of_an_upload_gives_a_held_stream_no_more_time(provider, other, start):
    provider.script = Plays(EVENT_STREAM + chunk(b": hello\n\n"), reads="head")
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    request = post(body("a/m", STREAM), extra=b"X-Inferoute-Fallback: b/m\r\n")
    await client.send(request[:-4])
    await until(lambda: server.gateway.providers["a"].pool.snapshot()["open"])
    await until(lambda: exchange(server).attempt.waits_for == OUTPUT)
    running = exchange(server)
    await client.send(request[-4:])
    await until(lambda: running.request.body.done)
    server.gateway.tick(monotonic() + 2.1)
    assert b"200 OK" in await client.head()
    client.close()


async def test_where_nobody_is_left_a_stream_runs_on_behind_its_limit(provider, other, start):
    provider.script = SILENT
    server = await start(config(provider, other, alias='first_token = "5s", hedge = "off"'))
    client = await RawClient.connect(server)
    running = await held(server, client, OUTPUT, STREAM)
    running.request.can_retry = False  # as where the body is not kept
    server.gateway.tick(monotonic() + 5.1)
    assert b"200 OK" in await client.head()
    assert strikes(server, "a/m") == [0]
    client.close()


async def test_a_plain_answer_that_stalls(provider, other, start):
    provider.script = Plays(head(b"Content-Length: 90") + b'{"half":')
    other.script = answers()
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    running = await held(server, client, WHOLE, b"")
    await until(lambda: running.attempt.pending)
    running.attempt.progress_at += 100.0  # more came later
    server.gateway.tick(monotonic() + 121)
    assert running.attempt.waits_for == WHOLE
    server.gateway.tick(monotonic() + 221)
    status, _, got = await client.response()
    assert (status, got) == (200, b'{"id":"a"}')
    assert strikes(server) == [1, 0]
    client.close()


@pytest.mark.parametrize(
    ("limits", "status", "story"),
    [
        ('total = "20s"', 504, "a:timeout"), ('deadline = "20s"', 504, "a:timeout"),
        ('idle = "20s"', 200, "a:timeout, b:200"),
    ],
)  # fmt: skip
async def test_no_plain_answer_is_held_longer_than_it_may_take(provider, other, start, limits, status, story):
    """However often a byte of it comes, where it is not silence that ends it."""
    provider.script = Plays(head(b"Content-Length: 90") + b'{"half":')
    other.script = answers()
    server = await start(config(provider, other, alias=limits))
    client = await RawClient.connect(server)
    running = await held(server, client, WHOLE, b"")
    await until(lambda: running.attempt.pending)
    if "idle" not in limits:
        running.attempt.progress_at += 19.0
    server.gateway.tick(monotonic() + 19)
    assert running.attempt.waits_for == WHOLE
    server.gateway.tick(monotonic() + 20.5)
    got = await client.response()
    assert got[0] == status
    told = got[1][b"x-inferoute-attempts"].decode()
    assert [part.rpartition(":")[0] for part in told.split(", ")] == story.split(", ")
    client.close()


async def test_no_stream_is_held_behind_the_deadline(provider, other, start):
    provider.script = SILENT
    server = await start(config(provider, other, alias='first_token = "60s", deadline = "20s"'))
    client = await RawClient.connect(server)
    await held(server, client, OUTPUT, STREAM)
    server.gateway.tick(monotonic() + 19)
    assert exchange(server).attempt.waits_for == OUTPUT
    server.gateway.tick(monotonic() + 20.5)
    assert b"200 OK" in await client.head()
    client.close()
