"""The lines that the gateway adds to an answer."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from proxy.relay.exchange.response_headers import limits_left, stream_lines
from proxy.wire.response_head import read_response_head
from tests.support.fakes import DONE, HELLO, Call, answers
from tests.support.keys import SECRET, bearer, key_of, table_of
from tests.support.scripts import LAST, begun, says
from tests.support.two_providers import ask, close_idle, config

OK = answers()
FAILS = answers(b"{}", b"500 Oops")
BUFFERING, STORING = b"\r\nX-Accel-Buffering: no", b"\r\nCache-Control: no-cache"
KEY = bearer(SECRET).decode().strip()


def ours(reply) -> list[bytes]:
    return [name for name in reply.fields if name.startswith((b"x-inferoute", b"x-ratelimit", b"server-t"))]


async def test_an_answer_says_who_served_it(provider, other, start):
    provider.script = OK
    reply = await ask(await start(config(provider, other)))
    assert ours(reply) == [
        b"x-inferoute-request-id", b"x-inferoute-provider", b"x-inferoute-model", b"x-inferoute-strategy",
        b"x-inferoute-attempts",
    ]  # fmt: skip
    assert reply.fields[b"x-inferoute-model"] == b"a/m"
    assert reply.fields[b"x-inferoute-strategy"] == b"cost"


async def test_the_story_has_each_attempt_and_each_redial(provider, other, server):
    async def goes_stale(call: Call) -> None:
        await call.request()
        await call.answer()
        await call.request()

    async def fails_then_goes_stale(call: Call) -> None:
        if call.number == 1:
            await call.request()
            await call.answer(b"{}", b"500 Oops")
        else:
            await goes_stale(call)

    provider.script, other.script = fails_then_goes_stale, goes_stale
    for name in ("a/m", "b/m"):
        assert (await ask(server, name)).story in ("a:200", "b:200")
    reply = await ask(server)
    assert reply.story == "a:redial, a:500, b:redial, b:200"
    times = [int(ms) for ms in re.findall(rb":(\d+)ms", reply.fields[b"x-inferoute-attempts"])]
    assert times[0] <= times[1] and times[2] <= times[3]


async def test_what_is_left_of_a_keys_limits_stands_in_answers_and_errors(provider, other, server):
    provider.script = answers(b"{}", extra=b"X-RateLimit-Limit-Requests: 7\r\n")
    server.gateway.take_keys(table_of(key_of(rpm=50)))
    reply = await ask(server, "two", KEY)
    assert reply.fields[b"x-ratelimit-limit-requests"] == b"50"  # and not the provider's
    provider.script = other.script = FAILS
    await close_idle(server)
    reply = await ask(server, "two", KEY)
    assert reply.status == 503
    assert reply.fields[b"x-ratelimit-remaining-requests"] == b"48"


async def test_timing_is_told_where_it_is_asked_for(provider, other, start):
    provider.script = OK
    text = config(provider, other, tables='[server]\nlisten = ["127.0.0.1:0"]\nserver_timing = true')
    reply = await ask(await start(text))
    timing = reply.fields[b"server-timing"]
    assert re.fullmatch(rb"gateway;dur=\d+\.\d{3}, upstream;dur=\d+\.\d{3}", timing)


def test_without_a_permit_there_are_no_limits():
    class Nothing:
        request = SimpleNamespace(permit=None)

    assert limits_left(Nothing(), None, 0.0) == b""  # type: ignore[arg-type]


async def test_event_streams_are_not_to_be_held_by_proxies(provider, server):
    provider.script = says(begun(HELLO, DONE), LAST)
    reply = await ask(server, more=b',"stream":true')
    assert reply.fields[b"x-accel-buffering"] == b"no"
    assert reply.fields[b"cache-control"] == b"no-cache"
    provider.script = OK
    await close_idle(server)
    assert not {b"x-accel-buffering", b"cache-control"} & (await ask(server)).fields.keys()


@pytest.mark.parametrize(("given", "added"), [
    ((b"Date: x",), BUFFERING + STORING),
    ((b"CACHE-control: private",), BUFFERING),
    ((b"x-accel-buffering: yes",), STORING),
    ((b"X-Accel-Buffering: yes", b"Cache-Control: no-store"), b""),
    ((b"X-Accel-Buffering: yes", b"Cache-Control: no-store", b"Connection: cache-control"), STORING),
    ((b"Connection: x-accel-buffering", b"X-Accel-Buffering: yes"), BUFFERING + STORING),
])  # fmt: skip
def test_what_the_provider_says_of_its_stream_goes_before_ours(given, added):
    assert stream_lines(read_response_head(b"\r\n".join((b"HTTP/1.1 200 OK", *given)))) == added
