"""Clients that provoke failures, over real sockets: nobody is blamed for what is theirs; who fails is out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.control.steps import done
from proxy.deployments.breaker import CLOSED, OUT
from proxy.deployments.record import Record
from proxy.relay.exchange.failures import left
from proxy.relay.exchange.hold import REASON
from proxy.routing.retry_budget import FLOOR
from tests.support.deployments import NOW, succeed
from tests.support.deployments import deployment as member_of
from tests.support.fakes import DONE, HELLO, Call, RawClient, Script, answers, chunk, hangs, streams, until
from tests.support.keys import bearer, key_of, table_of
from tests.support.scripts import LAST, Plays, answer, begun, head
from tests.support.two_providers import Reply, ask, body, config, deployment, exchange, rows, strikes

OK = answers(b'{"ok":1}')
STREAM = b',"stream":true'
BAD = b',"messages":[{}]'
SECRETS = [b"th-" + bytes([letter]) * 43 for letter in b"abcd"]
TIMES = 30
LONG_END = b'event: response.completed\ndata: {"type":"response.completed","response":{"x":"' + b"y" * 40_000


def with_keys(server) -> None:
    server.gateway.take_keys(table_of(*(key_of(f"key_{i}", secret) for i, secret in enumerate(SECRETS))))


def header(secret: bytes) -> str:
    return bearer(secret).decode().strip()


CODED = b'{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}'
BEFORE_COMMIT = ["500", "429", "reset", "nonsense"]
LONG_HEAD = head(b"X-Request-Id: " + b"z" * 40_000)


def fails_at(fault: bytes | None, is_bad: Callable[[bytes], bool] = lambda sent: True) -> Script:
    """A provider that is well, but for what a bad request does to it."""

    async def script(call: Call) -> None:
        while True:
            if not is_bad(b"".join(await call.request())):
                await call.answer(b'{"ok":1}')
                continue
            if fault is None:
                call.reset()
            else:
                await call.send(fault)
            if fault is None or b"Content-Length" not in fault:
                raise ConnectionError

    return script


# What providers send that fail; None: a reset. Behind what is no whole answer they close.
REFUSES = answer(b'{"error":"Unauthorized"}', b"401 No")
FAULTS = {
    "500": answer(b"{}", b"500 Oops"),
    "reset": None,
    "nonsense": b"nonsense\r\n\r\n",
    "breaks off": begun(b'data: {"a":1}\n\n'),
    "401": REFUSES,
    "401 with a code": answer(CODED, b"401 No"),
}


@pytest.mark.parametrize("key", ["none", "only one", "one of many"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("names", [["a/m"], ["two"], ["a/m", "two", "m", "only"]])
async def test_one_bad_body_ejects_nobody(provider, other, start, key, fault, names):
    provider.script = other.script = fails_at(FAULTS[fault], lambda sent: BAD in sent)
    server = await start(config(provider, other, more='only = ["a/m"]'))
    lines = []
    if key != "none":
        with_keys(server) if key == "one of many" else server.gateway.take_keys(
            table_of(key_of("key_0", SECRETS[0]))
        )
        lines = [header(SECRETS[0])]
    for number in range(TIMES):
        reply = await ask(server, names[number % len(names)], *lines, more=BAD)
        assert reply.story and ("200" not in reply.story or fault == "breaks off")
    now = monotonic()
    for name in ("a/m", "b/m", "a/n", "b/n"):
        assert deployment(server, name).state(now) == CLOSED, name
        assert not deployment(server, name).breaker.ejected_count
    if key == "one of many":
        lines = [header(SECRETS[1])]
    assert (await ask(server, "two", *lines)).story == "a:200"  # everybody else is served as ever


async def test_no_key_uses_the_retry_budget_up_for_others(provider, other, start, caplog):
    bad_ones = [BAD]
    provider.script = fails_at(FAULTS["500"], lambda sent: any(bad in sent for bad in bad_ones))
    other.script = fails_at(FAULTS["500"], lambda sent: BAD in sent)
    server = await start(config(provider, other, tables="[routing]\nretry_budget = 0"))
    with_keys(server)
    bad, good = header(SECRETS[0]), header(SECRETS[1])
    assert (await ask(server, "two", good)).story == "a:200"
    stories = [(await ask(server, "two", bad, more=BAD)).story for _ in range(20)]
    # Five make a member one that is failing; then half of what the budget has is this key's.
    assert stories == ["a:500, b:500"] * 10 + ["b:budget, a:500"] * 10
    assert done(server.gateway.count(False)).totals["further",] == (10, 0, 0, 0, 10)
    said = [line for line in caplog.messages if "retry budget" in line]
    assert len(said) == 1 and said[0].endswith("provider b, which is failing, is not asked as well")
    bad_ones.append(b"messages")
    assert (await ask(server, "two", good)).story == "a:500, b:200"  # there is more for another


@pytest.mark.parametrize("key", ["none", "one"])
@pytest.mark.parametrize("names", [["a/m"], ["two"]])
async def test_a_clients_own_limit_ejects_nobody_and_costs_nobody_anything(
    provider, other, server, key, names
):
    provider.script, other.script = hangs, hangs
    lines = [] if key == "none" else [header(SECRETS[0])]
    if lines:
        with_keys(server)
    for _ in range(TIMES):
        reply = await ask(server, names[0], *lines, "X-Inferoute-Timeout: 0.01")
        assert set(reply.story.split(", ")) <= {"a:timeout", "b:timeout"}
    now = monotonic()
    for name in ("a/m", "b/m"):
        member = deployment(server, name)
        assert (member.state(now), member.breaker.failures) == (CLOSED, 0)
        assert member.row("chat", False).success.weight == 0.0
        assert member.row("chat", False).last_error is None
    budget = server.gateway.budget
    assert sum(budget.take(now) for _ in range(TIMES)) >= FLOOR  # what others need is all there
    assert not [labels for labels in done(server.gateway.count(False)).totals if labels[0] == "failures"]


async def test_a_limit_that_is_hardly_shorter_than_the_operators_is_the_clients_too(provider, server):
    """That the member is slow is learned, all the same."""
    provider.script = streams(HELLO, DONE)
    for _ in range(3):
        await ask(server, "a/m", more=STREAM)
    provider.script = hangs
    for connection in list(server.gateway.providers["a"].pool.open):
        connection.transport.abort()
    row = deployment(server).row("chat", True)
    usual_s = row.speed.mean_s
    asking = asyncio.ensure_future(ask(server, "a/m", "X-Inferoute-Timeout: 59.9", more=STREAM))
    await until(lambda: len(provider.seen) == 4)
    attempt = exchange(server).attempt
    row.waiting[attempt.record] -= 59.9  # so long it has waited
    exchange(server).client.wake_by(attempt.deadline_at)
    server.gateway.tick(attempt.deadline_at)
    assert (await asking).kind == (504, "provider_error", "provider_timeout")
    assert strikes(server, "a/m") == [0]
    assert row.success.mean() == 1.0
    assert row.speed.mean_s > usual_s


@pytest.mark.parametrize("limit", ["60", "100", None])
async def test_the_operators_own_limit_is_the_providers_matter(provider, server, limit):
    provider.script = hangs
    for count in range(1, 6):
        lines = [] if limit is None else [f"X-Inferoute-Timeout: {limit}"]
        asking = asyncio.ensure_future(ask(server, "a/m", *lines, more=STREAM))
        await until(lambda count=count: len(provider.seen) == count)
        server.gateway.tick(monotonic() + 60.1)
        assert (await asking).story == "a:timeout"
    assert deployment(server).state(monotonic()) == OUT  # and one body is enough for that


@pytest.mark.parametrize("is_long", [True, False])
async def test_what_the_chain_cuts_short_is_the_providers_if_it_had_its_time(
    provider, other, server, is_long
):
    provider.script = other.script = hangs
    asking = asyncio.ensure_future(ask(server, more=STREAM))
    await until(lambda: provider.seen)
    server.gateway.tick(monotonic() + 60.1)
    await until(lambda: other.seen)
    attempt = exchange(server).attempt
    attempt.deadline_at = attempt.record.asked_at + (59.0 if is_long else 20.0)
    exchange(server).client.wake_by(attempt.deadline_at)
    server.gateway.tick(attempt.deadline_at)
    assert (await asking).story == "a:timeout, b:timeout"
    assert strikes(server) == [1, int(is_long)]


async def test_an_upload_that_a_provider_does_not_take_is_judged_by_the_clients_limit_too(
    provider, server, client
):
    provider.script = Plays(reads="head")
    big = b',"x":"' + b"y" * (32 << 20) + b'"'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nX-Inferoute-Timeout: 0.2\r\n"
    whole = body("a/m", big)
    client.writer.write(head + b"Content-Length: %d\r\n\r\n" % len(whole) + whole)
    reply = Reply(*await client.response())
    assert reply.story == "a:timeout"
    assert strikes(server, "a/m") == [0]


# ---------------------------------------------------------------------- those that do fail


@pytest.mark.parametrize("fault", [*FAULTS][:4])
@pytest.mark.parametrize("by", ["bodies", "keys"])
async def test_a_provider_that_fails_is_out_as_soon_as_ever(provider, server, fault, by):
    provider.script = fails_at(FAULTS[fault])
    if by == "keys":
        with_keys(server)
    for number in range(5):
        assert deployment(server).state(monotonic()) == CLOSED
        lines = [header(SECRETS[number % 2])] if by == "keys" else []
        more = b"" if by == "keys" else b',"n":%d' % (number % 2)
        if fault == "breaks off" and by == "bodies":  # what is known of a body after the commit is its size
            more = b',"n":%d' % 10 ** (number % 2)
        await ask(server, "a/m", *lines, more=more)
    assert deployment(server).state(monotonic()) == OUT


async def test_an_operators_key_that_is_wrong_is_out_with_three_clients(provider, server, caplog):
    provider.script = fails_at(REFUSES)
    with_keys(server)
    for secret in SECRETS[:3]:
        assert deployment(server).state(monotonic()) == CLOSED
        assert (await ask(server, "a/m", header(secret))).kind == (
            502, "provider_error", "provider_auth_failed",
        )  # fmt: skip
    assert deployment(server).state(monotonic()) == OUT
    assert "provider a is ejected" in caplog.text


@pytest.mark.parametrize("confirms", ["code", "late code", "another member"])
async def test_it_is_out_within_two_minutes_with_one(provider, other, server, caplog, confirms):
    """The clock is the breaker's: it forgets that the last strike was just now."""
    late = Plays(
        b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(CODED[:20]),
        lambda: exchange(server).attempt.waits_for == REASON,
        chunk(CODED[20:]) + LAST,
        then="closes",
    )
    coded = fails_at(FAULTS["401 with a code"])
    provider.script = {"code": coded, "late code": late, "another member": fails_at(REFUSES)}[confirms]
    other.script = OK
    with_keys(server)
    name = "two" if confirms == "another member" else "a/m"
    for minute, times in enumerate((3, 3, 1)):
        assert deployment(server).key.refusals.strikes == minute
        for _ in range(times):
            reply = await ask(server, name, header(SECRETS[0]))
            assert reply.story in ("a:401", "a:401, b:200")
        deployment(server).key.refusals._struck.clear()
    assert deployment(server).state(monotonic()) == OUT
    assert caplog.text.count("provider a is ejected") == 1
    assert caplog.text.count("refused the operator's key (401)") == 7


CHAT, K = "chat/completions", 'api_key_env = "K"\n'
BY_ENDPOINT = 'auth = { messages = "x-api-key" }'


@pytest.mark.parametrize(
    ("settings", "path", "how"),
    [
        (K, CHAT, "it was sent as Authorization: Bearer"),
        (K + 'auth = "x-api-key"', CHAT, "it was sent as x-api-key"),
        (K + 'auth = "api-key"', CHAT, "it was sent as api-key"),
        (K + BY_ENDPOINT, "messages", "it was sent as x-api-key"),
        (K + BY_ENDPOINT, CHAT, "it was sent as Authorization: Bearer"),
        ('auth = "none"', CHAT, 'none was sent, as auth = "none"'),
        ('auth = "none"\nheaders = { Authorization = "Basic s3cret" }', CHAT,
         "none was sent, as auth = \"none\"; 'headers' of the provider set Authorization"),
    ],
)  # fmt: skip
async def test_the_log_says_how_a_refused_key_was_sent(provider, start, caplog, settings, path, how):
    provider.script = answers(b"{}", b"401 No")
    text = f"""
    [providers.a]
    base_url = "{provider.url}"
    endpoints = ["chat", "messages"]
    {settings}
    [models."a/m"]
    capabilities = ["chat", "messages"]
    """
    server = await start(text, K="s3cret")
    client = await RawClient.connect(server)
    await client.post(b'{"model":"a/m"}', b"/v1/" + path.encode())
    assert (await client.response())[0] == 502
    assert f"provider a refused the operator's key (401): {how}" in caplog.messages
    assert "s3cret" not in caplog.text


async def test_what_a_second_member_refuses_or_finds_wrong_confirms_nothing(provider, other, server):
    provider.script = fails_at(REFUSES)
    other.script = answers(b"{}", b"400 Bad")
    for number in range(9):
        assert (await ask(server, "two", more=b',"n":%d' % (number % 2))).story == "a:401, b:400"
    assert deployment(server).key.refusals.strikes == 0


@pytest.mark.parametrize("ending", ["silence", "endless", "reset", "garbage", "encoded"])
async def test_a_refusals_body_is_not_waited_for_without_end(provider, other, server, ending):
    async def script(call: Call) -> None:
        await call.request()
        encoded = b"Content-Encoding: br\r\n" if ending == "encoded" else b""
        await call.send(b"HTTP/1.1 401 No\r\n%bTransfer-Encoding: chunked\r\n\r\n" % encoded + chunk(b"x"))
        await until(lambda: exchange(server).attempt.waits_for == REASON)
        if ending == "silence":
            now = monotonic()
            assert exchange(server).attempt.deadline_at < now + 1.1
            server.gateway.tick(now + 1.2)
        elif ending == "endless":
            for _ in range(40):
                await call.send(chunk(b"x" * 1000))
        elif ending == "garbage":
            await call.send(b"garbage\r\n")
        elif ending == "encoded":
            await call.send(b"0\r\n\r\n")
        else:
            call.reset()
        await call.gone()

    provider.script, other.script = script, OK
    reply = await ask(server, "a/m")
    assert reply.kind == (502, "provider_error", "provider_auth_failed")
    assert (await ask(server, "two")).story == "a:401, b:200"
    assert deployment(server).key.failures == 2
    assert rows(server)[0]["status"] == 502


async def test_a_refusal_before_the_request_is_complete_is_not_waited_for(provider, client):
    provider.script = Plays(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n", reads="head")
    whole = body("a/m")
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % len(whole)
    await client.send(head + whole[:-1])
    assert (await client.response())[0] == 502


async def test_a_client_may_leave_while_a_refusal_is_read(provider, server, client):
    provider.script = Plays(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\n")
    await client.post(body("a/m"))
    await until(lambda: provider.seen and exchange(server).attempt.waits_for == REASON)
    client.close()
    await until(lambda: not server.gateway.connections)
    assert rows(server)[0]["status"] == 499
    assert deployment(server).key.failures == 0


# ---------------------------------------------------------------------- redials


def slow_to_close(after: Callable[[], None] = lambda: None, ending: str = "close") -> Script:
    """Answers; has the next request on the same connection for a while, and goes away without a byte."""

    async def script(call: Call) -> None:
        await call.request()
        await call.answer(b"%d" % call.number)
        if call.number:
            await call.gone()
            return
        await call.request()
        after()
        if ending == "reset":
            call.reset()

    return script


def was_asked(server, seconds: float) -> Callable[[], None]:
    """Have the request that runs be out for so long."""

    def move() -> None:
        exchange(server).attempt.record.asked_at -= seconds

    return move


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize(("model", "story"), [("a/m", "a:reset"), ("two", "a:reset, b:200")])
async def test_what_a_provider_has_had_for_long_is_not_sent_again(
    provider, other, server, ending, model, story
):
    provider.script, other.script = slow_to_close(was_asked(server, 0.2), ending), OK
    assert (await ask(server, "a/m")).body == b"0"
    reply = await ask(server, model)
    assert reply.story == story
    assert len(provider.seen) == 2
    assert strikes(server, "a/m") == [1]
    assert server.gateway.counters.redials == 0


@pytest.mark.parametrize(("waited_s", "is_redialled"), [(0.5, True), (1.1, False)])
async def test_a_request_that_is_not_all_sent_can_not_have_been_taken(
    provider, other, start, waited_s, is_redialled
):
    async def script(call: Call) -> None:
        await call.request()
        await call.answer()
        if call.number == 0:
            await call.head()
            attempt = exchange(server).attempt
            await until(lambda: attempt.connection.unsent)
            attempt.record.begun_at -= waited_s
            attempt.record.asked_at -= waited_s

    provider.script = script
    server = await start(config(provider, other, tables='[routing]\nreplay_limit = "32MiB"'))
    await ask(server, "a/m")
    reply = await ask(server, "two", more=b',"x":"' + b"y" * (16 << 20) + b'"')
    assert reply.story == ("a:redial, a:200" if is_redialled else "a:reset, b:200")


async def test_what_makes_things_is_never_sent_twice(provider, other, start):
    async def ask_for_images(server) -> Reply:
        client = await RawClient.connect(server)
        await client.post(b'{"model":"a/i","prompt":"x"}', b"/v1/images/generations")
        return Reply(*await client.response())

    provider.script = slow_to_close()
    more = '[models."a/i"]\ncapabilities = ["images"]\n'
    text = config(provider, other, a_more='endpoints = ["chat", "images"]', tables="")
    server = await start(text.replace('[models."a/m"]', more + '[models."a/m"]'))
    assert (await ask_for_images(server)).status == 200
    assert (await ask_for_images(server)).story == "a:reset"
    assert len(provider.seen) == 2


# ---------------------------------------------------------------------- ends


@pytest.mark.parametrize(
    "last",
    [
        LONG_END + b'"}}\n\n',
        b'event: response.failed\ndata: {"type":"response.failed","response":{}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop","amazon-bedrock-invocationMetrics":{"a":1}}\n\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["close", "reset", "silence"])
async def test_a_close_behind_the_last_event_is_no_failure(provider, other, start, last, ending):
    go = asyncio.Event()

    async def script(call: Call) -> None:
        await call.request()
        await call.stream(b'data: {"type":"response.output_text.delta","delta":"hi"}\n\n', end=False)
        for at in range(0, len(last), 3000):
            await call.send(chunk(last[at : at + 3000]))
        await go.wait()
        if ending == "reset":
            call.reset()
        elif ending == "silence":
            await call.gone()

    provider.script = script
    server = await start(config(provider, other, a_more='endpoints = ["chat", "responses"]'))
    client = await RawClient.connect(server)
    await client.post(b'{"model":"a/m","stream":true,"input":"x"}', b"/v1/responses")
    await client.head()
    await until(exchange(server).attempt.is_said_to_end)
    go.set()
    if ending == "silence":
        await until(exchange(server).attempt.is_said_to_end)
        server.gateway.tick(monotonic() + 121)
    events = await Call(client.reader, client.writer, 0).chunks()
    assert events.endswith(last)
    assert strikes(server, "a/m") == [0]
    assert deployment(server).row("responses", True).success.mean() == 1.0


@pytest.mark.parametrize(
    "script", [Plays(then="resets", reads="head"), Plays(answer(b"{}", b"408 Too slow"), reads="head")]
)
async def test_a_request_that_its_client_does_not_finish_ejects_nobody(provider, server, script):
    """Bodies that differ, so that no rule about equal requests helps."""
    provider.script = script
    for number in range(TIMES):
        client = await RawClient.connect(server)
        begin = b'{"model":"a/m","number":%d,"messages":[' % number
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
            % (9000 + number, begin)
        )
        assert (await client.response())[0] in (408, 502, 503)
        client.close()
    member = deployment(server, "a/m")
    assert (member.state(monotonic()), member.breaker.failures) == (CLOSED, 0)


async def test_a_head_that_is_too_long_is_held_against_nobody_for_one_key_alone(provider, other, server):
    """A client can make it so, where a provider repeats what it gets."""
    provider.script = other.script = fails_at(
        head(b"X-Request-Id: " + b"z" * 40_000), lambda sent: b"long" in sent
    )
    with_keys(server)
    for number in range(TIMES):
        reply = await ask(server, "a/m", header(SECRETS[0]), more=b',"user":"long%d"' % number)
        assert (reply.status, reply.story) == (502, "a:reset")
    assert deployment(server, "a/m").state(monotonic()) == CLOSED
    for number in range(TIMES):
        await ask(server, "a/m", header(SECRETS[number % 2]), more=b',"user":"long%d"' % number)
    assert deployment(server, "a/m").state(monotonic()) != CLOSED


@pytest.mark.parametrize(
    ("waited_s", "is_beaten", "known", "struck"),
    [
        (3.0, True, "own", 1),
        (3.0, True, "pool", 1),  # as hedges do, where its own answers are too few
        (3.0, True, "", 0),
        (0.2, True, "own", 0),  # an operator's hedge came early
        (3.0, False, "own", 0),  # its client left
    ],
)
def test_who_is_beaten_in_silence_is_struck(waited_s, is_beaten, known, struck):
    member, other = member_of("a"), member_of("b")
    for _ in range(12):
        succeed(member if known == "own" else other)
    rows = [member.row("chat", True), *([other.row("chat", True)] if known == "pool" else [])]
    pool: Any = SimpleNamespace(streamed_rows=rows)
    record = Record(member, "chat", True, NOW + 1.0)
    request: Any = SimpleNamespace(streamed=True, context=None)
    left(request, record, pool, NOW + 1.0 + waited_s, is_beaten=is_beaten)
    assert member.breaker.failures == struck
