"""Which trace a request belongs to, and what its providers are told of it."""

from __future__ import annotations

import re
from random import Random

import pytest

from proxy.relay.exchange.tracing import Parent, Tracing, take_parent
from proxy.wire.request_head import read_request_head
from tests.support.fakes import answers, hangs, until
from tests.support.traces import PARENT_ID, STATE, TRACE_ID, Traced, told, traceparent
from tests.support.two_providers import ask

IDS = b"0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
OK = answers(b'{"ok":1}')


def head_with(*lines: bytes):
    return read_request_head(b"\r\n".join([b"POST /v1/chat/completions HTTP/1.1", b"Host: g", *lines]))


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"00-" + IDS + b"-01", 1),
        (b"00-" + IDS + b"-00", 0),
        (b"  00-" + IDS + b"-03\t", 3),
        (b"cc-" + IDS + b"-01", 1),  # of a version to come
        (b"cc-" + IDS + b"-01-what-the-future-holds", 1),
    ],
)
def test_a_valid_traceparent(value, flags):
    head = head_with(
        b"Accept: a", b"TraceParent:" + value, b"tracestate: a=1", b"X-Title: y", b"Tracestate: b=2"
    )
    assert take_parent(head) == Parent(TRACE_ID, PARENT_ID, flags, "a=1,b=2")
    assert head.lines == [b"Accept: a", b"tracestate: a=1", b"X-Title: y", b"Tracestate: b=2"]


@pytest.mark.parametrize(
    "lines",
    [
        [b"traceparent: 00-" + IDS],
        [b"traceparent: 00-" + IDS + b"-01-more"],
        [b"traceparent: 00-" + IDS + b"-01-"],
        [b"traceparent: cc-" + IDS + b"-01more"],
        [b"traceparent: ff-" + IDS + b"-01"],
        [b"traceparent: 00-" + IDS.upper() + b"-01"],
        [b"traceparent: 00-" + b"0" * 32 + b"-b7ad6b7169203331-01"],
        [b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01"],
        [b"traceparent: 00-" + IDS + b"-1"],
        [b"traceparent: "],
        [b"traceparent: 00-" + IDS + b"-01", b"traceparent: 00-" + IDS + b"-01"],
        [],
    ],
)
def test_an_invalid_traceparent_is_none_and_takes_its_state_along(lines):
    head = head_with(b"Accept: a", *lines, b"tracestate: a=1")
    assert take_parent(head) is None
    assert head.lines == [b"Accept: a"]


def test_a_state_that_is_too_long_is_passed_on_but_not_kept():
    state = b"tracestate: a=" + b"1" * 600
    head = head_with(b"traceparent: 00-" + IDS + b"-01", state)
    assert take_parent(head) == Parent(TRACE_ID, PARENT_ID, 1, "")
    assert head.lines == [state]


def test_a_head_without_is_left_alone():
    head = head_with(b"Accept: a")
    lines = head.lines
    assert take_parent(head) is None
    assert head.lines is lines


async def test_the_provider_is_told_of_the_attempts_span(provider, server, client):
    provider.script = OK
    traced = Traced(server)
    for _ in range(2):  # the head is remembered, with what was prepared of it
        await client.post(b'{"model":"a/m"}')
        assert (await client.response())[0] == 200
    lines = [told(head) for head, _ in provider.seen]
    attempts = [span for span in traced.spans if span.parent is not None]
    assert [span.parent.is_remote for span in attempts] == [False, False]
    assert lines == [[traceparent(span.context.trace_id, span.context.span_id)] for span in attempts]
    assert lines[0] != lines[1]


async def test_the_clients_trace_goes_on(provider, server):
    provider.script = OK
    traced = Traced(server)
    reply = await ask(server, "a/m", traceparent(), STATE)
    assert reply.status == 200
    request, [attempt] = traced.tree()
    assert (request.context.trace_id, request.parent.span_id) == (TRACE_ID, PARENT_ID)
    assert request.parent.is_remote
    assert request.context.trace_state.get("rojo") == "00f067aa0ba902b7"
    [(head, _)] = provider.seen
    assert told(head) == [traceparent(span_id=attempt.context.span_id), STATE]


async def test_while_traces_are_off_the_clients_lines_pass_as_they_are(provider, server):
    provider.script = OK
    assert server.gateway.tracing is None
    assert (await ask(server, "a/m", traceparent(), STATE)).status == 200
    assert told(provider.seen[0][0]) == [traceparent(), STATE]


@pytest.mark.parametrize(
    ("sample", "flags", "has_spans"),
    [(1.0, 0, False), (0.0, 1, True), (0.0, None, False), (1.0, None, True), (0.0, 3, True)],
)
async def test_the_flag_of_the_client_has_the_last_word(provider, server, sample, flags, has_spans):
    provider.script = OK
    traced = Traced(server, sample)
    headers = [] if flags is None else [traceparent(flags=flags)]
    assert (await ask(server, "a/m", *headers)).status == 200
    assert bool(traced.spans) == has_spans
    [line] = told(provider.seen[0][0])
    match = re.fullmatch("traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-(..)", line)
    sent = int(match[3], 16)
    assert bool(sent & 1) == has_spans
    assert sent & ~1 == (flags or 0) & 2  # the random flag goes on, and nothing else
    if flags is not None:
        assert int(match[1], 16) == TRACE_ID
        assert int(match[2], 16) != PARENT_ID


async def test_both_attempts_of_a_failover_tell_of_their_own_span(provider, other, server):
    provider.script, other.script = answers(status=b"500 No"), OK
    traced = Traced(server)
    assert (await ask(server, "two", traceparent())).story == "a:500, b:200"
    _, attempts = traced.tree()
    for asked, span in zip((provider, other), attempts, strict=True):
        assert told(asked.seen[0][0]) == [traceparent(span_id=span.context.span_id)]


async def test_a_request_that_is_over_holds_nothing(provider, server, client):
    provider.script = hangs
    Traced(server)
    await client.post(b'{"model":"a/m"}')
    await until(lambda: provider.seen)
    [connection] = server.gateway.connections
    exchange = connection._exchange
    assert [tried.attempt for tried in exchange.trace.tried] == [exchange.attempt]
    client.close()
    await until(lambda: not server.gateway.connections)
    assert exchange.trace is exchange.attempt is None


class Faulty:
    """A collector that always fails."""

    def samples(self, trace_id, parent):
        if parent is None:
            raise ValueError("nonsense")
        return True

    def take(self, exchange, trace, status, now):
        raise ValueError("nonsense")

    async def close(self):
        """There is nothing to close."""


@pytest.mark.parametrize("headers", [[], [traceparent()]])
async def test_a_fault_costs_no_request(provider, server, caplog, headers):
    provider.script = OK
    server.gateway.tracing = Tracing(Faulty(), Random(1))
    assert (await ask(server, "a/m", *headers)).status == 200
    assert "internal error in tracing" in caplog.text


def test_an_id_is_never_zero():
    class Zeros(Random):
        def getrandbits(self, k):
            return 0

    assert Tracing(Faulty(), Zeros())._draw(64) == 1
