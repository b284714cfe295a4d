"""What follows a failed attempt where nobody else is left: the same member once more, or nothing."""

from __future__ import annotations

from time import monotonic

import pytest

from proxy.relay.exchange.exchange import CLIENT_LEFT
from proxy.relay.exchange.states import PAUSING
from tests.support.fakes import DONE, HELLO, Call, RawClient, Script, answers, hangs, post, streams, until
from tests.support.scripts import RESETS, says
from tests.support.two_providers import Reply, ask, body, config, deployment, exchange, rows

OK = answers(b'{"ok":1}')
OWN = b'{"error":{"message":"mine"}}'
NONSENSE = says(b"HTTP/9 huh\r\n\r\n")
STREAM = b',"stream":true'


def fails(status: str, wait_s: str = "") -> Script:
    return answers(OWN, status.encode() + b" Oops", f"Retry-After: {wait_s}\r\n".encode() if wait_s else b"")


def once(script: Script, then: Script = OK) -> Script:
    """Plays a script for the first request, and another for those after it."""
    asked = []

    async def play(call: Call) -> None:
        asked.append(call)
        await (script if len(asked) == 1 else then)(call)

    return play


@pytest.mark.parametrize("more", [b"", STREAM], ids=["plain", "streamed"])
@pytest.mark.parametrize(
    ("script", "what", "wait_s"),
    [
        (fails("500"), "500", 0.2), (fails("502"), "502", 0.2), (fails("503"), "503", 0.2),
        (fails("529"), "529", 0.2), (RESETS, "reset", 0.2), (says(), "reset", 0.2),
        (fails("429", "1"), "429", 1.0), (fails("503", "1"), "503", 1.0),
    ],
)  # fmt: skip
async def test_what_may_pass_by_itself_is_asked_once_more(provider, other, start, script, what, wait_s, more):
    provider.script = once(script, streams(HELLO, DONE) if more else OK)
    server = await start(config(provider, other, tables="[routing]\nretry_same = 1"))
    begun_at = monotonic()
    reply = await ask(server, "a/m", more=more)
    assert (reply.status, reply.story) == (200, f"a:{what}, a:200")
    assert monotonic() - begun_at >= wait_s
    assert len(provider.seen) == 2 and other.connections == 0
    assert rows(server)[0]["attempts"] == 2
    assert server.gateway.counters.retries == 1


@pytest.mark.parametrize(
    ("script", "what", "header"),
    [
        (fails("504"), "504", ""), (fails("404"), "404", ""), (fails("400"), "400", ""),
        (fails("429"), "429", ""), (fails("429", "3"), "429", ""), (fails("503", "3"), "503", ""),
        (NONSENSE, "reset", ""),
        (hangs, "timeout", "X-Inferoute-Timeout: 0.05"), (fails("500"), "500", "X-Inferoute-Timeout: 0.15"),
    ],
)  # fmt: skip
async def test_what_does_not_pass_is_not(provider, other, start, script, what, header):
    provider.script = once(script)
    server = await start(config(provider, other, tables="[routing]\nretry_same = 1"))
    assert (await ask(server, "a/m", *[header][: bool(header)])).story == f"a:{what}"


@pytest.mark.parametrize(
    ("tables", "story"),
    [
        ("retry_same = 1", "a:500, b:500, b:500"),
        ("retry_same = 3\nmax_attempts = 4", "a:500, b:500, b:500, b:500"),
        ("retry_same = 1\nmax_attempts = 2", "a:500, b:500"),
        ('retry_same = 1\ndeadline = "0.1s"', "a:500, b:500"),
        ("retry_same = 1\nfailover = false", "a:500"),
        ("retry_same = 0", "a:500, b:500"),
    ],
)
async def test_only_where_no_other_member_is_left(provider, other, start, tables, story):
    provider.script = other.script = fails("500")
    server = await start(config(provider, other, tables=f"[routing]\n{tables}"))
    reply = await ask(server)
    assert reply.story == story
    assert reply.status == (500 if story == "a:500" else 503)


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (fails("500"), (500, "a:500, a:500", OWN)),
        (fails("404"), (404, "a:500, a:404", OWN)),
        (RESETS, (502, "a:500, a:reset", None)),
    ],
)
async def test_one_member_s_own_answer_is_the_client_s(provider, other, start, then, expected):
    """However often it was asked."""
    provider.script = once(fails("500"), then)
    server = await start(config(provider, other, tables="[routing]\nretry_same = 1"))
    reply = await ask(server, "a/m")
    assert (reply.status, reply.story) == expected[:2]
    if expected[2] is None:
        assert reply.kind == (502, "provider_error", "provider_bad_answer")
    else:
        assert reply.body == expected[2]


async def test_it_needs_the_retry_budget(provider, other, start, caplog):
    provider.script = fails("500")
    server = await start(config(provider, other, tables="[routing]\nretry_same = 1\nretry_budget = 0"))
    while server.gateway.budget.take(monotonic()):
        pass
    assert (await ask(server, "a/m")).story == "a:budget, a:500"
    assert len(provider.seen) == 1
    assert "the retry budget is used up: provider a" in caplog.text


@pytest.mark.parametrize(("status", "story"), [("500", "a:500"), ("503", "a:503, a:200")])
async def test_what_makes_things_is_sent_again_only_if_it_was_not_taken(
    provider, other, start, status, story
):
    provider.script = once(fails(status, "1"))
    text = config(
        provider, other, a_more='endpoints = ["chat", "images"]', tables="[routing]\nretry_same = 1"
    )
    images = '[models."a/i"]\ncapabilities = ["images"]\n'
    server = await start(text.replace('[models."a/m"]', images + '[models."a/m"]'))
    client = await RawClient.connect(server)
    await client.post(b'{"model":"a/i","prompt":"x"}', b"/v1/images/generations")
    assert Reply(*await client.response()).story == story
    client.close()


@pytest.mark.parametrize("leaves", ["pausing", "after"])
async def test_a_client_may_leave_meanwhile(provider, other, start, leaves):
    provider.script = once(fails("429", "2" if leaves == "pausing" else "1"), hangs)
    server = await start(config(provider, other, tables="[routing]\nretry_same = 1"))
    client = await RawClient.connect(server)
    await client.send(post(body("a/m")))
    if leaves == "pausing":
        await until(lambda: provider.seen)
        await until(lambda: exchange(server).state == PAUSING)
    else:
        await until(lambda: len(provider.seen) == 2)
    client.close()
    await until(lambda: not server.gateway.connections)
    [row] = rows(server)
    assert (row["status"], row["attempts"]) == (CLIENT_LEFT, 1 + (leaves == "after"))
    assert deployment(server).row("chat", False).in_flight == 0


async def test_a_body_that_is_still_coming_waits_for_nothing(provider, other, start):
    async def early(call: Call) -> None:
        await call.head()
        await call.answer(OWN, b"503 Oops")

    provider.script = early
    server = await start(config(provider, other, tables="[routing]\nretry_same = 1"))
    client = await RawClient.connect(server)
    await client.send(post(body("a/m", b',"x":"' + b"x" * 100_000 + b'"'))[:70_000])
    status, _, _ = await client.response()
    assert status == 503
    client.close()
