"""Failures of providers that the matrix (test_matrix.py) does not play, and what is remembered of them:
addresses and certificates that are wrong, further statuses, refused keys, patience."""

from __future__ import annotations

import asyncio
import email.utils
import re
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import pytest
import trustme

from proxy.deployments.breaker import COOLING
from tests.support.fakes import Call, ScriptedProvider, answers, chunk, dead_url, until
from tests.support.scripts import RESETS, Plays, head, says
from tests.support.two_providers import SENT, Reply, are_open, ask, body, config, deployment, rows, strikes

OK = answers(b'{"ok":1}')


def passed_over(reply: Reply, server, other: ScriptedProvider, outcome: str) -> None:
    """The second member answered, got the same, and only the first is blamed."""
    assert (reply.status, reply.body, reply.story) == (200, b'{"ok":1}', f"a:{outcome}, b:200")
    assert reply.fields[b"x-inferoute-provider"] == b"b"
    assert reply.fields[b"x-inferoute-model"] == b"b/m"
    assert [sent for _, sent in other.seen] == [SENT]
    assert rows(server)[-1]["attempts"] == 2
    assert rows(server)[-1]["model"] == "b/m"


# ---------------------------------------------------------------------- no connection


@pytest.fixture(params=["unknown host", "wrong authority", "wrong host", "plain HTTP to a TLS port"])
async def unreachable(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[str, str, str]]:
    """A provider's address, its further keys, and what the client hears of it."""
    kind = request.param
    if kind == "unknown host":
        yield "http://nobody.invalid/v1", "", "could not be reached ("  # the resolver's words differ
        return
    ours, theirs = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    signer = theirs if kind == "wrong authority" else ours
    signer.issue_cert("example.com" if kind == "wrong host" else "127.0.0.1").configure_cert(tls)
    async with ScriptedProvider(tls) as secured:
        if kind.startswith("plain"):
            yield secured.url.replace("https:", "http:"), "", "gave no valid answer ("
        else:
            yield secured.url, f'ca_file = "{tmp_path / "ca.pem"}"', "could not be reached (TLS: "


async def test_no_connection(unreachable, other, start):
    url, more, words = unreachable
    server = await start(config(url, other, a_more=more))
    reply = await ask(server, "a/m")
    is_bad = "valid" in words
    code = "provider_bad_answer" if is_bad else "provider_unreachable"
    assert reply.kind == (502 if is_bad else 503, "provider_error", code)
    assert reply.error["message"].startswith(f"The provider 'a' {words}")
    assert reply.story == ("a:reset" if is_bad else "a:connect")
    assert other.connections == 0
    assert strikes(server) == [1, 0]
    other.script = OK
    passed_over(await ask(server), server, other, "reset" if is_bad else "connect")
    assert strikes(server) == [2, 0]
    assert are_open(server, "a") == [0]


# ---------------------------------------------------------------------- an answer that is a failure


@pytest.mark.parametrize("status", [b"502 Bad", b"504 Late", b"529 Overloaded", b"408 Late"])
async def test_an_error_of_the_providers(provider, other, server, status):
    provider.script, other.script = answers(b'{"error":"theirs"}', status, b"X-Theirs: 1\r\n"), OK
    reply = await ask(server, "a/m")
    assert (reply.status, reply.body) == (int(status[:3]), b'{"error":"theirs"}')
    assert reply.fields[b"x-theirs"] == b"1"
    assert b"x-should-retry" not in reply.fields
    assert reply.story == f"a:{reply.status}"
    assert (provider.connections, other.connections) == (1, 0)
    passed_over(await ask(server), server, other, str(reply.status))
    assert strikes(server) == [2, 0]


@pytest.mark.parametrize("status", [b"400 Bad", b"409 Conflict", b"413 Large", b"422 No", b"418 Teapot"])
@pytest.mark.parametrize("name", ["a/m", "two"])
async def test_what_is_about_the_request_passes_untouched(provider, other, server, client, status, name):
    answer = b'HTTP/1.1 %b\r\nX-a: 1\r\nx-A:  2\r\nContent-Length: 9\r\n\r\n{"e" :1}\n' % status
    provider.script = says(answer)
    await client.post(body(name))
    theirs, ours = (await client.head()).split(b"X-Inferoute-Request-Id: ")
    assert theirs + b"\r\n" == answer[: answer.index(b"{")]
    assert b"\r\nX-Inferoute-Attempts: a:%b:" % status[:3] in ours
    assert await client.reader.readexactly(9) == b'{"e" :1}\n'
    assert other.connections == 0
    assert strikes(server) == [0, 0]
    row = deployment(server).row("chat", False)
    assert row.success.mean() == 1.0
    assert row.speed.typical_s() is None  # refusing is no answering, however fast


async def test_an_error_in_pieces_passes_whole(provider, server, client):
    arrived = asyncio.Event()
    begin = head(b"Transfer-Encoding: chunked", status=b"500 Oops")
    provider.script = Plays(begin, arrived, chunk(b"their") + b"4\r\n er", b"r\r\n0\r\n\r\n")
    await client.post(body("a/m"))
    assert (await client.head()).startswith(b"HTTP/1.1 500 Oops\r\n")
    arrived.set()  # it is not held until its body comes
    assert await Call(client.reader, client.writer, 0).chunks() == b"their err"
    await until(lambda: are_open(server) == [1, 0])  # and its connection is good for another


@pytest.mark.parametrize(
    ("first", "outcome", "words"),
    [
        (answers(b"{}", b"503 Busy"), "503", r"answered 503"),
        (None, "connect", r"could not be reached \(.*refused.*\)"),
    ],
)
async def test_all_fail(provider, other, start, first, outcome, words):
    provider.script, other.script = first, RESETS
    server = await start(config(provider if first else dead_url(), other))
    reply = await ask(server)
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story == f"a:{outcome}, b:reset"
    message = reply.error["message"]
    assert re.match(rf"All 2 attempts failed: a {words}; b gave no valid answer \(", message)
    assert reply.fields[b"x-inferoute-provider"] == b"b"  # the last
    assert b"retry-after" not in reply.fields


# ---------------------------------------------------------------------- a key that is refused


async def test_a_key_refused_three_times_takes_the_provider_out(provider, other, start, caplog):
    provider.script, other.script = answers(b'{"secret":"sk-1"}', b"401 No"), OK
    server = await start(config(provider, other, more='twice = ["a/n", "b/n"]\n'))
    for number, name in enumerate(("a/m", "a/n", "a/m")):  # three different requests
        reply = await ask(server, name, more=b',"n":%d' % number)
        assert reply.kind == (502, "provider_error", "provider_auth_failed")
        assert reply.error["message"] == "The provider 'a' refused the gateway's key."
    assert "provider a refused the operator's key" in caplog.text
    assert "secret" not in caplog.text
    assert "provider a is ejected" in caplog.text
    asked = provider.connections
    for name in ("two", "twice"):  # all its deployments are out
        assert (await ask(server, name)).story == "b:200"
    assert provider.connections == asked
    assert (await ask(server, "a/n")).story == "a:401"  # but a pinned request is always sent


# ---------------------------------------------------------------------- patience


def in_a_while(seconds: float) -> str:
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("status", [b"429 Slow", b"503 Busy"])
@pytest.mark.parametrize(
    ("header", "about_s"),
    [
        (lambda: "Retry-After: 1000", 1000),
        (lambda: f"Date: {in_a_while(-500)}\r\nRetry-After: {in_a_while(500)}", 1000),
        (lambda: f"Retry-After: {in_a_while(1000)}", 1000),
        (lambda: "retry-after-ms: 1000000\r\nRetry-After: 5", 1000),
        (lambda: "Retry-After: 99999999", 1800),
    ],
)
async def test_patience_is_kept_and_no_strike(provider, other, server, status, header, about_s):
    provider.script, other.script = answers(b"{}", status, f"{header()}\r\n".encode()), OK
    passed_over(await ask(server), server, other, status[:3].decode())
    member = deployment(server)
    assert member.state(monotonic()) == COOLING
    assert about_s - 60 < member.free_at(monotonic()) - monotonic() <= about_s
    assert strikes(server) == [0, 0]
    assert member.row("chat", False).success.mean() is None
    assert (await ask(server)).story == "b:200"
    assert len(provider.seen) == 1
    assert (await ask(server, "a/m")).story == f"a:{status[:3].decode()}"  # pinned: always sent


async def test_all_ask_for_patience(provider, other, server):
    provider.script = answers(b"{}", b"429 Slow", b"Retry-After: 2000\r\n")
    other.script = answers(b"{}", b"429 Slow", b"Retry-After: 1000\r\n")
    for told in ("a:429, b:429", ""):
        reply = await ask(server)
        assert reply.kind == (429, "rate_limit_error", "providers_cooling_down")
        assert reply.story == told
        assert 900 < int(reply.fields[b"retry-after"]) <= 1000
    assert (len(provider.seen), len(other.seen)) == (1, 1)  # the second time nobody was asked
    assert [seen["attempts"] for seen in rows(server)] == [2, 0]
    assert [seen["status"] for seen in rows(server)] == [429, 429]


async def test_a_pool_that_cools_down_goes_to_the_fallback(provider, other, start):
    provider.script = answers(b"{}", b"429 Slow", b"Retry-After: 2000\r\n")
    server = await start(config(provider, other, more='one = ["a/m", "a/n"]\n'))
    for told in ("a:429, a:429, b:200", "b:200"):
        reply = await ask(server, "one", "X-Inferoute-Fallback: b/m")
        assert (reply.status, reply.story) == (200, told)
