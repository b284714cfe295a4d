"""One attempt and its replacement: what is sent again, and when it is late.

Faults, and clients that leave, are played in tests/system/test_matrix.py.
"""

from __future__ import annotations

import asyncio
from socket import IPPROTO_TCP, TCP_USER_TIMEOUT
from time import monotonic

import pytest

from proxy.control.steps import done
from tests.support.fakes import (
    DONE,
    EVENT_STREAM,
    HELLO,
    Call,
    RawClient,
    answers,
    blackhole,
    chunk,
    dead_url,
    hangs,
    no_descriptors,
    post,
    streams,
    until,
)
from tests.support.scripts import LAST, RESETS, Plays, answer
from tests.support.two_providers import (
    SENT,
    Reply,
    are_open,
    ask,
    body,
    close_idle,
    config,
    deployment,
    exchange,
    rows,
    sending,
    strikes,
)

OK = answers(b'{"ok":1}')
FAILS = answers(b'{"e":1}', b"500 Oops")
TO_B = "X-Inferoute-Fallback: b/m"
STREAM = b',"stream":true'
LARGE = b',"a":"' + b"x" * 5000 + b'"'


# ---------------------------------------------------------------------- what is sent, and sent again


def as_chunks(data: bytes, size: int) -> bytes:
    return b"".join(chunk(data[at : at + size]) for at in range(0, len(data), size))


CHUNKED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n%b\r\n"


async def test_a_chunked_request_fails_over(provider, other, client):
    provider.script, other.script = FAILS, OK
    await client.send(CHUNKED % b"" + as_chunks(body(), 7) + LAST)
    assert Reply(*await client.response()).story == "a:500, b:200"
    assert [sent for _, sent in provider.seen + other.seen] == [SENT, SENT]


async def test_heads_differ_only_in_what_is_the_providers(provider, other, start):
    provider.script, other.script = FAILS, OK
    more = 'auth = "x-api-key"\napi_key_env = "A_KEY"\nheaders = { "x-team" = "search" }'
    server = await start(config(provider, other, a_more=more), A_KEY="sk-of-a")
    await ask(server, "two", "X-Title: 1", "Authorization: Bearer client", "traceparent: 00-1-2-01")
    (first, _), (second, _) = *provider.seen, *other.seen
    assert b"\r\nx-api-key: sk-of-a\r\n" in first
    assert b"\r\nx-team: search\r\n" in first
    common = b"\r\nX-Title: 1\r\ntraceparent: 00-1-2-01\r\n"
    assert common in first and common in second
    for head in (first, second):
        assert b"Content-Length: %d\r\n" % len(SENT) in head
        assert b"client" not in head and b"Inferoute" not in head
    assert b"sk-of-a" not in second and b"x-team" not in second
    assert b"\r\nHost: 127.0.0.1:%d\r\n" % other.port in second


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("fault", ["reset", "500", "garbage"])
async def test_an_upload_under_way_fails_over_with_what_came_and_what_follows(
    provider, other, server, client, chunked, fault
):
    whole = body("a/m", LARGE)
    cut = len(whole) - 1000
    failing = asyncio.Event()

    async def script(call: Call) -> None:
        await call.head()
        await call.reader.readuntil(b"xxxx")
        await failing.wait()
        if fault == "reset":
            call.reset()
        else:
            await call.send(answer(b"early", b"500 Oops") if fault == "500" else b"what?\r\n\r\n")
            await call.gone()

    provider.script = script
    extra = TO_B.encode() + b"\r\n"
    if chunked:
        await client.send(CHUNKED % extra + as_chunks(whole[:cut], 3000))
    else:
        await client.send(post(whole, extra=extra)[: cut - len(whole)])
    await until(lambda: provider.connections)
    failing.set()
    await until(lambda: other.connections)
    rest = whole[cut:]
    for piece in (rest[:300], rest[300:]):
        await client.send(chunk(piece) if chunked else piece)
    if chunked:
        await client.send(LAST)
    reply = Reply(*await client.response())
    assert (reply.status, reply.body) == (200, whole.replace(b'"a/m"', b'"m"'))
    assert reply.story == f"a:{'500' if fault == '500' else 'reset'}, b:200"
    assert strikes(server) == [int(fault == "500"), 0]
    await client.post(body("b/m"))
    assert (await client.response())[0] == 200  # framing was kept all along


async def test_what_comes_while_a_connection_is_dialled_waits(other, start):
    """The body goes on while nobody is there to take it: it waits, up to a bound."""
    with blackhole() as url:
        server = await start(config(url, other, tables='[timeouts]\nconnect = "300ms"'))
        client = await RawClient.connect(server)
        whole = body("a/m", b',"a":"' + b"x" * 20_000_000 + b'"')
        sending = post(whole, extra=TO_B.encode() + b"\r\n")
        cut = len(sending) - len(whole) + 100
        await client.send(sending[:cut])
        await until(lambda: are_open(server) == [1, 0])
        running = exchange(server)
        writing = asyncio.ensure_future(client.send(sending[cut:]))
        while not are_open(server)[1]:
            assert running.request.body.size < 1 << 20
            await asyncio.sleep(0.005)
        reply = Reply(*await client.response())
        assert (reply.story, reply.body == whole.replace(b"a/m", b"m")) == ("a:connect, b:200", True)
        await writing


@pytest.mark.parametrize("status", [b"500 Oops", b"413 Content Too Large"])
async def test_an_early_failure_passes_where_nothing_can_follow(provider, other, server, client, status):
    provider.script = Plays(answer(b"early", status), reads="head")
    await client.send(post(body("a/m") + b" " * 500_000)[:-400_000])
    reply = Reply(*await client.response())
    assert (reply.status, reply.body, reply.story) == (int(status[:3]), b"early", f"a:{reply.status}")
    assert reply.fields[b"connection"] == b"close"
    assert await client.rest() == b""
    await until(lambda: are_open(server) == [0, 0])
    assert other.connections == 0


SMALL_LIMIT = '[routing]\nreplay_limit = "1KiB"'


async def test_a_body_beyond_the_replay_limit_stays_with_the_first(provider, other, start):
    server = await start(config(provider, other, tables=SMALL_LIMIT))
    provider.script = FAILS
    reply = await ask(server, "a/m", TO_B, more=LARGE)
    assert (reply.status, reply.body, reply.story) == (500, b'{"e":1}', "a:500")
    await close_idle(server)
    provider.script = hangs
    reply = await ask(server, "a/m", TO_B, "X-Inferoute-Timeout: 0.05", more=LARGE)
    assert reply.kind == (504, "provider_error", "provider_timeout")
    provider.script = answers(b"{}", b"401 No")
    reply = await ask(server, "a/m", TO_B, more=LARGE)
    assert reply.kind == (502, "provider_error", "provider_auth_failed")
    assert other.connections == 0
    assert (await ask(server)).story == "a:401, b:200"  # below it, all is as ever


@pytest.mark.parametrize("room", ["64MiB", "3MiB"])
async def test_a_body_that_the_choice_needed_is_kept_whatever_its_size(provider, other, start, room):
    """Unless it takes more than half of the room that there is for those of all requests."""
    provider.script = FAILS
    text = config(provider, other, tables=SMALL_LIMIT)
    server = await start(f'[server]\nmax_buffered = "{room}"\nlisten = ["127.0.0.1:0"]\n{text}')
    more = b',"y":"' + b"y" * (2 << 20) + b'"'
    sent = body("two", more)
    client = await RawClient.connect(server)
    half = chunk(sent[:1000]), chunk(sent[1000:]) + LAST
    await client.send(
        post(b"", extra=b"Transfer-Encoding: chunked\r\n").replace(b"Content-Length: 0\r\n", b"")
    )
    for part in half:
        await client.send(part)
    reply = Reply(*await client.response())
    assert reply.story == ("a:500, b:200" if room == "64MiB" else "a:500")
    for asked in (provider, other) if room == "64MiB" else (provider,):
        [(head, got)] = asked.seen
        assert b"\r\nContent-Length: %d\r\n" % len(body("m", more)) in head
        assert got == body("m", more)
    client.close()
    await until(lambda: not server.gateway.connections)
    assert server.gateway.buffered_bytes == 0


async def test_what_was_not_sent_at_all_may_go_elsewhere_however_large(other, start):
    server = await start(config(dead_url(), other, tables=SMALL_LIMIT))
    reply = await ask(server, more=LARGE)
    assert reply.story == "a:connect, b:200"
    assert reply.body == body("m", LARGE)


async def test_an_upload_that_grows_beyond_the_replay_limit(provider, other, start):
    provider.script = RESETS
    server = await start(config(provider, other, tables=SMALL_LIMIT))
    client = await RawClient.connect(server)
    whole = post(body("a/m", LARGE), extra=TO_B.encode() + b"\r\n")
    await client.send(whole[:500])
    await sending(server)
    assert exchange(server).request.body.held
    await client.send(whole[500:])
    reply = Reply(*await client.response())
    assert reply.kind == (502, "provider_error", "provider_bad_answer")
    assert reply.story == "a:reset"
    assert other.connections == 0


@pytest.mark.parametrize(("room", "story"), [("2MiB", "a:reset"), ("64MiB", "a:reset, b:200")])
async def test_what_is_kept_counts_in_max_buffered(provider, other, start, room, story):
    provider.script = RESETS
    tables = f'[server]\nlisten = ["127.0.0.1:0"]\nmax_buffered = "{room}"'
    server = await start(config(provider, other, tables=tables))
    client = await RawClient.connect(server)
    whole = post(body("a/m", b',"a":"' + b"x" * (3 << 20) + b'"'), extra=TO_B.encode() + b"\r\n")
    await client.send(whole[:500])
    await sending(server)  # from here on it passes through
    await client.send(whole[500:])
    assert Reply(*await client.response()).story == story
    assert not server.gateway.buffered_bytes


# ---------------------------------------------------------------------- a kept connection that was closed


def once_then(ending: str):
    """Answers; takes the next request on the same connection and goes away without a byte."""

    async def script(call: Call) -> None:
        await call.request()
        await call.answer(b"%d" % call.number)
        await call.request()
        if ending == "reset":
            call.reset()

    return script


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("name", ["a/m", "two"])
async def test_a_stale_connection_is_redialled_for_free(provider, other, server, ending, name):
    provider.script = once_then(ending)
    # The second and third each find a stale one.
    for number, story in ((b"0", "a:200"), (b"1", "a:redial, a:200"), (b"2", "a:redial, a:200")):
        reply = await ask(server, name)
        assert (reply.status, reply.body, reply.story) == (200, number, story)
    assert other.connections == 0
    assert strikes(server) == [0, 0]
    assert deployment(server).row("chat", False).success.mean() == 1.0
    assert [seen["attempts"] for seen in rows(server)] == [1, 1, 1]
    assert server.gateway.counters.redials == 2
    assert done(server.gateway.count(False)).totals["further",] == (0, 0, 0, 2, 0)


async def test_a_redial_that_finds_nobody(provider, server):
    async def script(call: Call) -> None:
        await call.request()
        await call.answer()
        provider._server.close()
        await call.request()

    provider.script = script
    assert (await ask(server)).story == "a:200"
    assert (await ask(server)).story == "a:redial, a:connect, b:200"


async def test_an_upload_under_way_is_sent_again_on_a_stale_connection(provider, server, client):
    stop = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.answer(call.seen[-1][1])
        if call.number == 0:
            await call.head()
            await stop.wait()
        else:
            await call.gone()

    provider.script = script
    assert (await ask(server, "a/m")).status == 200
    whole = post(body("a/m", LARGE))
    await client.send(whole[:-600])
    await sending(server)
    stop.set()
    await until(lambda: provider.connections == 2)
    await client.send(whole[-600:])
    reply = Reply(*await client.response())
    assert (reply.body, reply.story) == (body("m", LARGE), "a:redial, a:200")
    assert strikes(server) == [0, 0]


# ---------------------------------------------------------------------- in time


@pytest.mark.parametrize(("asked", "limit"), [("5", "5"), ("100", "60"), ("0.5", "0.5")])
async def test_the_time_limit_is_per_attempt_and_capped(provider, other, server, asked, limit):
    provider.script = other.script = hangs
    asking = asyncio.ensure_future(ask(server, "two", f"X-Inferoute-Timeout: {asked}", more=STREAM))
    for one in (provider, other):
        await until(lambda one=one: one.seen)
        attempt = exchange(server).attempt
        assert attempt.deadline_at - attempt.record.begun_at == pytest.approx(float(limit))
        server.gateway.tick(attempt.deadline_at)
    reply = await asking
    assert reply.kind == (504, "provider_error", "all_attempts_failed")
    assert reply.story == "a:timeout, b:timeout"
    whose = "[timeouts] first_byte" if limit == "60" else "X-Inferoute-Timeout"
    words = f"did not answer within {limit} s (limit: {whose})"
    assert reply.error["message"] == f"All 2 attempts failed: a {words}; b {words}."


async def test_connecting_is_part_of_the_time(other, start):
    other.script = streams(HELLO, DONE)
    with blackhole() as url:
        server = await start(config(url, other))
        asking = asyncio.ensure_future(ask(server, more=STREAM))
        await until(lambda: are_open(server) == [1, 0])
        server.gateway.tick(monotonic() + 60.1)
        assert (await asking).story == "a:timeout, b:200"
        assert are_open(server, "a") == [0]


async def test_the_time_begins_with_the_end_of_the_request(provider, server, client):
    provider.script = hangs
    whole = post(body("a/m", STREAM))
    await client.send(whole[:-3])
    attempt = await sending(server)
    server.gateway.tick(monotonic() + 20)  # nothing is late yet, however late it is
    await client.send(whole[-3:])
    await until(lambda: provider.seen)
    assert attempt.deadline_at - attempt.record.asked_at == pytest.approx(60)
    server.gateway.tick(attempt.deadline_at)
    reply = Reply(*await client.response())
    assert reply.kind == (504, "provider_error", "provider_timeout")
    assert reply.error["message"] == (
        "The provider 'a' did not answer within 60 s (limit: [timeouts] first_byte)."
    )


async def test_a_slow_upload_is_not_the_providers_time(provider, other, start):
    provider.script = RESETS
    tables = '[server]\nlisten = ["127.0.0.1:0"]\nserver_timing = true'
    server = await start(config(provider, other, tables=tables))
    client = await RawClient.connect(server)
    whole = post(body("a/m"), extra=f"{TO_B}\r\nX-Inferoute-Timeout: 0.05\r\n".encode())
    await client.send(whole[:-3])
    await sending(server)
    await asyncio.sleep(0.2)  # longer than all attempts together may take
    await client.send(whole[-3:])
    reply = Reply(*await client.response())
    assert (reply.status, reply.story) == (200, "a:reset, b:200")
    (seen,) = rows(server)
    assert 0 <= seen["overhead_us"] < 200_000
    assert reply.fields[b"server-timing"].startswith(b"gateway;dur=")


async def test_a_provider_that_takes_nothing_of_an_upload(provider, other, start):
    async def script(call: Call) -> None:
        call.writer.transport.pause_reading()
        await asyncio.Event().wait()

    provider.script = script
    server = await start(config(provider, other, tables='[routing]\nreplay_limit = "64MiB"'))
    client = await RawClient.connect(server)
    whole = post(body("a/m") + b" " * (30 << 20), extra=TO_B.encode() + b"\r\n")
    writing = asyncio.ensure_future(client.send(whole))
    attempt = await sending(server)
    await until(lambda: attempt.upstream_full_at)
    server.gateway.tick(monotonic() + 60.1)
    reply = Reply(*await client.response())
    assert (reply.status, reply.story) == (200, "a:timeout, b:200")
    assert len(reply.body) == len(body("m")) + (30 << 20)
    await writing


# ---------------------------------------------------------------------- the request itself


def gone(server) -> tuple[int, float | None]:
    """Status of the latest request, and the failures that are held against anybody."""
    assert len(server.gateway.completions.recent) == 1
    for name in ("a/m", "b/m"):
        for row in deployment(server, name).rows().values():
            assert (row.in_flight, row.awaiting) == (0, 0)
            assert row.success.mean() is None
            assert row.last_error is None
    return rows(server)[0]["status"], sum(strikes(server))


async def test_a_request_that_is_wrong_after_all_stops_what_runs(provider, other, server, client):
    provider.script = Plays(reads="head")
    whole = post(body("a/m", b',"model":"b/m"'), extra=TO_B.encode() + b"\r\n")
    at = whole.index(b',"model":"b/m"')
    await client.send(whole[:at])
    await until(lambda: provider.connections)
    await client.send(whole[at:])
    assert (await client.response())[0] == 400
    await asyncio.wait_for(provider.script.left.wait(), 5)
    assert gone(server) == (400, 0)
    assert other.connections == 0


async def test_its_name_says_what_it_does(provider, other, start):
    with blackhole() as url:
        server = await start(config(url, provider))
        client = await RawClient.connect(server)
        await client.post(body(more=STREAM))
        await until(lambda: are_open(server) == [1, 0])
        attempt = exchange(server).attempt
        assert repr(attempt) == "<Attempt a/m dialling>"
        provider.script = hangs
        server.gateway.tick(monotonic() + 61)
        assert repr(attempt) == "<Attempt a/m over>"
        await until(lambda: provider.seen)
        assert repr(exchange(server).attempt) == "<Attempt b/m awaiting>"


@pytest.mark.parametrize(
    ("size", "pieces", "patient"), [(1_000, 1, False), (40_000, 1, True), (1_000, 2, True)]
)
async def test_a_provider_may_read_a_large_body_late(provider, server, client, size, pieces, patient):
    """And no body that comes in pieces is known to be small."""
    whole = post(body("a/m", b',"a":"' + b"x" * size + b'"'))
    if pieces == 2:
        await client.send(whole[:-100])
        await until(lambda: provider.connections)
        whole = whole[-100:]
    await client.send(whole)
    assert (await client.response())[0] == 200
    [connection] = server.gateway.providers["a"].pool.open
    limit_ms = connection.transport.get_extra_info("socket").getsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT)
    assert (connection.is_patient, limit_ms) == (patient, 0 if patient else 20_000)


# ---------------------------------------------------------------------- what is nobody's fault but ours


async def test_no_descriptor_for_a_provider_is_no_strike(provider, other, server, client):
    provider.script = other.script = OK
    await until(lambda: server.gateway.connections)
    with no_descriptors():
        await client.post(body("a/m"))
        reply = Reply(*await client.response())
    assert reply.kind == (503, "provider_error", "provider_unreachable")
    assert "the gateway can open no connection (Too many open files)" in reply.error["message"]
    assert strikes(server) == [0, 0]
    assert deployment(server).rows()["chat", False].success.weight == 0
    await client.post(body("a/m"))
    assert (await client.response())[0] == 200


async def test_a_member_with_a_connection_is_asked_where_no_other_can_be_opened(
    provider, other, server, client
):
    provider.script = other.script = OK
    await client.post(body("b/m"))
    assert (await client.response())[0] == 200
    with no_descriptors():
        await client.post(body())
        reply = Reply(*await client.response())
    assert (reply.status, reply.story) == (200, "a:connect, b:200")
    assert strikes(server) == [0, 0]


async def test_a_stream_tells_its_size_and_its_pace(provider, server):
    """Its prompt's size goes with the record, and while it runs it is looked at."""
    steps = [asyncio.Event() for _ in range(2)]

    async def play(call: Call) -> None:
        await call.request()
        await call.send(EVENT_STREAM + chunk(b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'))
        for step in steps:
            await step.wait()
            await call.send(chunk(b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n'))
        await call.send(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    provider.script = play
    sent = body("a/m", b',"stream":true')
    asked = asyncio.create_task(ask(server, "a/m", more=b',"stream":true'))
    attempt = await sending(server)
    record = attempt.record
    assert record.prompt_bytes == len(sent)
    await until(lambda: record.first_byte_at)
    steps[0].set()
    await until(lambda: record.looked_at)
    looked_at, looked_bytes = record.looked_at, record.looked_bytes
    record.looked_at -= 2.0  # so that its next bytes come more than a second later
    steps[1].set()
    assert (await asked).status == 200
    assert record.looked_at >= looked_at
    assert record.looked_bytes > looked_bytes
