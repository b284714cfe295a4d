"""What does not reach a provider is counted, and named once in the log."""

from __future__ import annotations

import logging

import pytest

from proxy.config.forwarding import TOO_LONG
from proxy.config.parse import parse
from proxy.control.steps import done
from proxy.relay.upstream.dropped_names import MAX_NAMES, DroppedNames, count
from proxy.relay.upstream.provider import Provider
from proxy.usage.counters import Counters
from tests.support.fakes import RawClient, answers
from tests.support.heads import request
from tests.support.two_providers import ask, config

OK = answers(b'{"ok":1}')
PATH = b"/chat/completions"


@pytest.fixture
def provider_p(caplog) -> Provider:
    caplog.set_level(logging.INFO, "tokenhub.dropped")
    text = '[providers.p]\nbase_url = "http://a/v1"\ndrop_headers = ["accept"]\n[models."p/m"]\n'
    return Provider(parse(text).providers["p"], None, 1.0, simulated=False)


def test_a_head_that_loses_nothing(provider_p, caplog):
    head, names = request(b"User-Agent: a"), DroppedNames()
    prepared = names.prepare(head, provider_p, PATH)
    assert head.prepared == {provider_p: prepared}
    assert head.dropped is None
    assert caplog.messages == []


def test_each_name_is_told_once_and_without_its_value(provider_p, caplog):
    names = DroppedNames()
    line = b"POST /v1/chat/completions?a=s3cret&model=s3cret&beta=1 HTTP/1.1"
    for _ in range(3):
        head = request(b"X-Team: s3cret", b"x-TEAM: s3cret", b"X_A: s3cret", b"Cookie: s3cret", line=line)
        names.prepare(head, provider_p, PATH)
        assert head.dropped == {provider_p: (3, 2)}
    assert caplog.messages == [
        "the header 'x-team' of a client does not reach provider p: it is not on the list of what passes; "
        "'pass_headers' of the provider adds to it",
        "the header 'x_a' of a client does not reach provider p: it has a '_', which some servers read "
        "as '-'",
        "the parameter 'a' of a client does not reach provider p: it is not on the list of what passes; "
        "'pass_query' of the provider adds to it",
        "the parameter 'model' of a client does not reach provider p: it names a model or holds a secret",
    ]


def test_a_flood_of_names_fills_neither_log_nor_memory(provider_p, caplog):
    names = DroppedNames()
    for number in range(3 * MAX_NAMES):
        head = request(b"X-%d: 1" % number, line=b"POST /v1/chat/completions?q%d HTTP/1.1" % number)
        names.prepare(head, provider_p, PATH)
    assert len(caplog.messages) == MAX_NAMES + 1
    assert caplog.messages[-1].startswith("further headers and parameters")
    assert len(names._told) == MAX_NAMES + 1


@pytest.mark.parametrize("query", [b"sk-proj-abcdefghijklmnopqrstuvwxyz0123456789", b"%0aforged=1", b"%ff=1"])
def test_what_is_no_plain_name_is_not_shown(provider_p, caplog, query):
    head = request(line=b"POST /v1/chat/completions?%b HTTP/1.1" % query)
    DroppedNames().prepare(head, provider_p, PATH)
    [message] = caplog.messages
    assert message.startswith("the parameter '(not shown)' of a client")


def test_a_long_name_is_cut(provider_p, caplog):
    DroppedNames().prepare(request(b"x" * 3000 + b": 1"), provider_p, PATH)
    assert f"'{'x' * 60}'" in caplog.text


def test_count(provider_p):
    head, counters = request(b"X-Team: 1", b"X-B: 1"), Counters()
    DroppedNames().prepare(head, provider_p, PATH)
    for _ in range(2):
        count(head, provider_p, counters)
    assert done(counters.read())["dropped",] == (4, 0)


async def test_requests_are_counted_though_their_head_is_remembered(provider, server, client, caplog):
    caplog.set_level(logging.INFO, "tokenhub.dropped")
    provider.script = OK
    for _ in range(3):
        await client.post(b'{"model":"a/m"}', extra=b"X-Team: 1\r\nUser-Agent: a\r\n")
        assert (await client.response())[0] == 200
    await ask(server, "a/m")
    assert done(server.gateway.count(False)).totals["dropped",] == (3, 0)
    assert len([text for text in caplog.messages if "'x-team'" in text]) == 1
    assert all(b"x-team" not in head.lower() and b"User-Agent: a" in head for head, _ in provider.seen[:3])


async def test_each_provider_has_its_own(provider, other, start):
    provider.script = other.script = OK
    server = await start(config(provider, other, a_more='pass_headers = ["x-team"]'))
    client = await RawClient.connect(server)
    for model in (b"a/m", b"b/m", b"a/m", b"b/m"):
        await client.post(b'{"model":"%b"}' % model, extra=b"X-Team: 1\r\n")
        assert (await client.response())[0] == 200
    assert [b"\r\nX-Team: 1\r\n" in head for head, _ in provider.seen] == [True, True]
    assert [b"x-team" in head.lower() for head, _ in other.seen] == [False, False]
    assert done(server.gateway.count(False)).totals["dropped",] == (2, 0)


def test_a_value_that_is_too_long_is_counted_as_dropped(provider_p, caplog):
    head = request(b"X-Request-Id: " + b"z" * 600)
    DroppedNames().prepare(head, provider_p, PATH)
    assert head.dropped == {provider_p: (1, 0)}
    assert caplog.messages == [
        f"the header 'x-request-id' of a client does not reach provider p: it {TOO_LONG}"
    ]
