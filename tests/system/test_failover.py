"""Where a request goes next: pools, named fallbacks, limits, ejection and the way back.

The rules themselves are in tests/routing and tests/deployments, by direct calls.
"""

from __future__ import annotations

import asyncio
import re
from time import monotonic

import pytest

from proxy.deployments.breaker import CLOSED, DUE, OUT, TRIAL
from tests.support.fakes import DONE, HELLO, Call, RawClient, answers, chunk, echo, hangs, streams, until
from tests.support.scripts import LAST, Plays, answer, begun, says
from tests.support.two_providers import (
    SENT,
    Reply,
    ask,
    body,
    close_idle,
    config,
    deployment,
    exchange,
    rows,
    sending,
)

OK = answers(b'{"ok":1}')
FAILS = answers(b'{"e":1}', b"500 Oops")


def fallback(names: str) -> str:
    return f"X-Inferoute-Fallback: {names}"


def without_key(text: str, other) -> str:
    """The configuration, where b needs a key that there is not."""
    url = f'base_url = "{other.url}"\n'
    return text.replace(f'{url}auth = "none"', f'{url}api_key_env = "NO"')


# ---------------------------------------------------------------------- inside a pool


@pytest.mark.parametrize("model", ["two", "m", "auto", "all"])
async def test_every_kind_of_pool_fails_over(provider, other, start, model):
    provider.script, other.script = FAILS, OK
    more = 'all = ["two", "n"]'
    text = config(provider, other, more=more).replace("[aliases]", '[aliases]\nmine = ["m"]', 1)
    server = await start(f'[routing]\nstrategy = "cost"\n{text}')
    reply = await ask(server, model)
    # a/m is the cheapest, then b/m or a/n; whichever it is, b answers in the end.
    assert reply.status == 200
    assert re.fullmatch("a:500, (a:500, )?b:200", reply.story)
    assert reply.fields[b"x-inferoute-strategy"] == b"cost"
    assert {sent.count(b'"model" : "m" ') + sent.count(b'"model" : "n" ') for _, sent in provider.seen} == {1}


async def test_no_model_but_a_strategy_fails_over_too(provider, client):
    provider.script = FAILS
    await client.post(b'{"messages":[]}', extra=b"X-Inferoute-Strategy: cost\r\n")
    reply = Reply(*await client.response())
    assert (reply.status, reply.body, reply.story) == (200, b'{"model":"m","messages":[]}', "a:500, b:200")
    assert reply.fields[b"x-inferoute-strategy"] == b"cost"
    assert provider.seen[0][1] == reply.body


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_each_attempt_is_at_another_member_up_to_max_attempts(provider, other, start, limit):
    provider.script = other.script = FAILS
    tables = f"[routing]\nmax_attempts = {limit}"
    server = await start(config(provider, other, tables=tables, more='all = ["m", "n"]'))
    reply = await ask(server, "all")
    count = min(limit, 4)
    assert len(provider.seen) + len(other.seen) == reply.story.count("500") == count
    assert reply.status == (500 if limit == 1 else 503)  # a single one passes its own answer on
    assert limit == 1 or reply.kind == (503, "provider_error", "all_attempts_failed")
    assert rows(server)[0]["attempts"] == count
    asked = [
        (one, model) for one in (provider, other)
        for model in re.findall(b'"model" : "(.)"', b"".join(sent for _, sent in one.seen))
    ]  # fmt: skip
    assert len(set(asked)) == len(asked) == count


async def test_members_without_a_key_are_no_place_to_go(provider, other, start):
    provider.script = FAILS
    server = await start(without_key(config(provider, other, more='all = ["b/n", "a/m"]'), other))
    assert (await ask(server, "two")).story == "a:500"
    assert (await ask(server, "a/m", fallback("b/m"))).story == "a:500"
    reply = await ask(server, "b/m", fallback("a/m"))
    assert (reply.kind, reply.story) == ((503, "provider_error", "all_attempts_failed"), "b:no-key, a:500")
    assert "b has no key: set NO" in reply.error["message"]
    assert other.connections == 0


async def test_patience_is_told_of_a_pool_that_has_some(provider, other, start):
    """Not of the members without a key that were named behind it."""
    provider.script = answers(b"{}", b"429 Slow", b"Retry-After: 1000\r\n")
    server = await start(without_key(config(provider, other, more='one = ["a/m"]'), other))
    assert (await ask(server, "one", fallback("b/m"))).story == "a:429"
    reply = await ask(server, "one", fallback("b/m"))
    assert reply.kind == (429, "rate_limit_error", "providers_cooling_down")
    assert "'one'" in reply.error["message"]
    assert int(reply.fields[b"retry-after"]) > 900
    await close_idle(server)
    provider.script = FAILS
    reply = await ask(server, "a/n", fallback("a/m, b/m"))
    assert reply.kind == (429, "rate_limit_error", "providers_cooling_down")
    assert reply.story == "a:500, a:500"


@pytest.mark.parametrize("hedged", [False, True])
async def test_a_body_that_the_second_would_misread(provider, other, start, hedged):
    async def script(call: Call) -> None:
        await call.request()
        if hedged:
            await until(lambda: running and running[0].chain is not None)
        await call.answer(b'{"e":1}', b"200 OK" if hedged else b"500 Oops")

    running: list = []
    provider.script = script
    text = config(provider, other, alias='hedge = "5ms"' if hedged else "")
    text = text.replace("[providers.b]", "[providers.b]\ncase_insensitive_keys = true")
    server = await start(text)
    asking = asyncio.ensure_future(ask(server, more=b',"MODEL":"x"'))
    if hedged:
        await until(lambda: provider.seen)
        running.append(exchange(server))
    reply = await asking
    assert reply.status == (200 if hedged else 400)
    assert other.connections == 0
    assert reply.story == ("a:200" if hedged else "")


# ---------------------------------------------------------------------- X-Inferoute-Fallback


@pytest.mark.parametrize(
    ("names", "story"),
    [
        ("b/m", "a:500, b:200"),
        ("b/n", "a:500, b:200"),
        ("a/n, b/m", "a:500, a:500, b:200"),
        (" a/n ,a/m,  b/m ", "a:500, a:500, b:200"),  # a/m was tried already
        ("n", "a:500, a:500, b:200"),
        ("two", "a:500, b:200"),
        ("auto", "a:500, b:200"),
    ],
)
async def test_names_of_each_kind_in_their_order(provider, other, start, names, story):
    provider.script, other.script = FAILS, echo
    server = await start('[routing]\nstrategy = "cost"\n' + config(provider, other))
    reply = await ask(server, "a/m", fallback(names))
    assert (reply.status, reply.story) == (200, story)
    model = reply.fields[b"x-inferoute-model"].decode()
    assert reply.body == body(model[2:])  # but for the model, what came
    pinned = "/" in names.split(",")[-1]
    assert reply.fields[b"x-inferoute-strategy"] == (b"pinned" if pinned else b"cost")
    assert rows(server)[0]["model_requested"] == "a/m"


async def test_what_works_needs_no_fallback(provider, server):
    reply = await ask(server, "a/m", fallback("b/m"))
    assert (reply.story, reply.body) == ("a:200", SENT)
    assert b"Inferoute" not in provider.seen[0][0]


@pytest.mark.parametrize(
    ("value", "status", "code"),
    [("b/m, nobody/knows", 404, "model_not_found"), ("b/m,", 400, "invalid_fallback")],
)
async def test_a_fallback_that_can_not_be_is_told_at_once(
    provider, other, server, client, value, status, code
):
    await client.post(body("a/m"), extra=b"X-Inferoute-Fallback: %b\r\n" % value.encode("latin-1"))
    reply = Reply(*await client.response())
    kind = "not_found_error" if status == 404 else "invalid_request_error"
    assert reply.kind == (status, kind, code)
    assert reply.error["param"] == "X-Inferoute-Fallback"
    assert reply.error["message"].startswith("X-Inferoute-Fallback")
    assert provider.connections == other.connections == 0
    assert [(seen["status"], seen["attempts"]) for seen in rows(server)] == [(status, 0)]
    await client.post(body("a/m"), extra=fallback(",".join(["b/m"] * 8)).encode() + b"\r\n")
    assert (await client.response())[0] == 200


# ---------------------------------------------------------------------- limits of it all


async def test_each_name_has_its_time(provider, other, server):
    provider.script = other.script = hangs
    reply = await ask(server, "a/m", fallback("b/m, a/n, b/n"), "X-Inferoute-Timeout: 0.1")
    assert reply.kind == (504, "provider_error", "all_attempts_failed")
    assert reply.story == "a:timeout, b:timeout, a:timeout, b:timeout"


STREAM = b',"stream":true'


@pytest.mark.parametrize("place", ["routing", "alias"])
async def test_a_deadline_bounds_the_whole_chain(provider, other, start, place):
    provider.script = other.script = hangs
    limits = {"alias": 'deadline = "50s"'} if place == "alias" else {"tables": '[routing]\ndeadline = "50s"'}
    server = await start(config(provider, other, **limits))
    asking = asyncio.ensure_future(ask(server, "two", "X-Inferoute-Timeout: 30"))
    await until(lambda: provider.seen)
    server.gateway.tick(exchange(server).attempt.deadline_at)  # after 30 s
    await until(lambda: other.seen)
    running = exchange(server)
    # The clock has not moved: 30 s are taken off the request's end, so that the deadline is 20 s away.
    running.request.ready_at -= 30.0
    running.attempt.deadline_at = running.request.ready_at + running.request.deadline_s
    server.gateway.tick(running.attempt.deadline_at)
    reply = await asking
    assert (reply.status, reply.story) == (504, "a:timeout, b:timeout")
    assert "within 30 s (limit: X-Inferoute-Timeout); b did" in reply.error["message"]
    assert "(limit: deadline)" in reply.error["message"]
    assert deployment(server, "b/m").breaker.failures == 0  # it had not had its time


@pytest.mark.parametrize(
    ("more", "limit_s", "whose", "story"),
    [
        (b"", 600, "[timeouts] total", "a:timeout"),  # it was being generated: nothing follows
        (STREAM, 60, "[timeouts] first_byte", "a:timeout, b:200"),
    ],
)
async def test_plain_responses_have_total_and_streams_first_byte(
    provider, other, server, more, limit_s, whose, story
):
    provider.script, other.script = hangs, streams(HELLO, DONE)
    asking = asyncio.ensure_future(ask(server, more=more))
    await until(lambda: provider.seen)
    attempt = exchange(server).attempt
    assert attempt.deadline_at - attempt.record.asked_at == pytest.approx(limit_s)
    server.gateway.tick(attempt.deadline_at)
    reply = await asking
    assert reply.story == story
    if reply.status == 504:
        assert (
            reply.error["message"] == f"The provider 'a' did not answer within {limit_s} s (limit: {whose})."
        )


async def test_an_alias_a_model_and_a_provider_have_limits_of_their_own(provider, other, start):
    provider.script = other.script = hangs
    text = config(
        provider, other, alias='total = "7s"', a_more='idle = "9s"\ntotal = "8s"\nconnect = "3s"',
        more='all = ["a/m"]',
    ).replace('[models."b/m"]', '[models."b/m"]\ntotal = "6s"')  # fmt: skip
    server = await start(text)
    found = {}
    for model in ("two", "all", "a/n", "b/m", "b/n"):
        asking = asyncio.ensure_future(ask(server, model))
        attempt = await sending(server)
        limits = attempt.limits
        found[model] = limits.answer_s, limits.answer_name, limits.idle_s, limits.connect_s
        server.gateway.tick(attempt.deadline_at)
        assert (await asking).status == 504
    assert found == {
        "two": (7.0, "total of alias 'two'", 9.0, 3.0),
        "all": (8.0, "total of provider 'a'", 9.0, 3.0),
        "a/n": (8.0, "total of provider 'a'", 9.0, 3.0),
        "b/m": (6.0, "total of model 'b/m'", 120.0, 5.0),
        "b/n": (600.0, "[timeouts] total", 120.0, 5.0),
    }


async def test_a_fallback_has_its_time_even_where_one_attempt_is_the_limit(provider, other, start):
    provider.script, other.script = hangs, OK
    server = await start(config(provider, other, tables="[routing]\nmax_attempts = 1"))
    reply = await ask(server, "a/m", fallback("b/m"), "X-Inferoute-Timeout: 0.4")
    assert (reply.status, reply.story) == (200, "a:timeout, b:200")


# ---------------------------------------------------------------------- ejection, and the way back


async def failing(server, name: str, count: int = 5) -> None:
    """Each request is another one: a single one ejects nobody, however often it is sent."""
    for number in range(count):
        assert (await ask(server, name, more=b',"n":%d' % number)).status == 500


async def test_five_failures_in_a_row_eject(provider, other, server, caplog):
    provider.script, other.script = FAILS, OK
    await failing(server, "a/m", 4)
    assert (await ask(server)).story == "a:500, b:200"
    assert deployment(server).state(monotonic()) == OUT
    assert re.search(r"a/m is ejected for \d+\.\d s: it answered 500", caplog.text)
    asked = len(provider.seen)
    for _ in range(3):
        assert (await ask(server)).story == "b:200"
    assert len(provider.seen) == asked
    assert (await ask(server, "a/m")).status == 500  # pinned: always sent
    assert (await ask(server, "a/n")).status == 500  # another deployment is another matter
    assert deployment(server, "a/n").state(monotonic()) == CLOSED


SHORT = '[routing.eject]\nbase = "50ms"\n'


async def ejected_and_due(server, provider) -> None:
    provider.script = FAILS
    await failing(server, "a/m")
    assert deployment(server).breaker.ejections == 1
    await until(lambda: deployment(server).state(monotonic()) == DUE)
    await close_idle(server)


async def test_one_trial_brings_a_member_back(provider, other, start):
    server = await start(config(provider, other, tables=SHORT))
    await ejected_and_due(server, provider)
    go = asyncio.Event()
    provider.script, other.script = says(go, answer(b"back")), OK
    trying = asyncio.ensure_future(ask(server))
    await until(lambda: deployment(server).state(monotonic()) == TRIAL)
    assert [(await ask(server)).story for _ in range(3)] == ["b:200"] * 3  # one at a time
    go.set()
    assert (await trying).story == "a:200"
    assert deployment(server).state(monotonic()) == CLOSED
    assert deployment(server).breaker.ejections == 0
    assert (await ask(server)).story == "a:200"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (says(begun(b'data: {"error":{"message":"overloaded"}}\n\n') + LAST), "error"),
        (says(begun(b": hello\n\n")), "reset"),
        (Plays(begun(b": hello\n\n")), "silence"),
    ],
)
async def test_a_trial_whose_stream_is_an_error_in_disguise_fails(provider, other, start, script, outcome):
    """Its first byte is none of a good answer yet."""
    server = await start(config(provider, other, tables=SHORT, alias="peek = true"))
    await ejected_and_due(server, provider)
    provider.script, other.script = (
        script,
        says(begun(HELLO, DONE) + LAST),
    )
    asking = asyncio.ensure_future(ask(server, more=b',"stream":true'))
    if outcome != "silence":
        assert (await asking).story == f"a:{outcome}, b:200"
        assert deployment(server).breaker.ejections == 2
        assert deployment(server).row("chat", True).speed.typical_s() is None
        return
    await sending(server)
    await until(lambda: exchange(server).attempt.waits_for)
    assert deployment(server).state(monotonic()) == TRIAL
    # What was silent for so long is let through: then it is an answer like any other.
    server.gateway.tick(monotonic() + 2.1)
    assert deployment(server).state(monotonic()) == TRIAL  # it has shown nothing yet
    for connection in server.gateway.connections:
        connection.abort()
    with pytest.raises(asyncio.IncompleteReadError):
        await asking


# ---------------------------------------------------------------------- and what else has to hold


async def test_comments_keep_the_stream_of_a_second_member_open(provider, other, start):
    provider.script, other.script = FAILS, Plays(begun(b"data: a\n\n"))
    server = await start(config(provider, other, alias='keepalive = "15s"'))
    client = await RawClient.connect(server)
    await client.post(body("two", b',"stream":true'))
    await client.reader.readuntil(b"data: a\n\n\r\n")
    running = exchange(server)  # a long answer must not hold what is only needed before it
    assert (running.request.body.held, running.hedged_attempt, running.hedge_timer) == (None, None, None)
    server.gateway.tick(monotonic() + 16)
    assert await client.reader.readuntil(b"\n\n\r\n") == chunk(b": keep-alive\n\n")


async def test_timing_counts_the_failed_attempts_to_the_providers(provider, other, start):
    provider.script = Plays(0.06, then="resets")
    tables = '[server]\nlisten = ["127.0.0.1:0"]\nserver_timing = true'
    server = await start(config(provider, other, tables=tables))
    reply = await ask(server)
    assert reply.story == "a:reset, b:200"
    timing = reply.fields[b"server-timing"]
    told = re.fullmatch(rb"gateway;dur=(\d+\.\d{3}), upstream;dur=(\d+\.\d{3})", timing)
    assert told is not None
    assert float(told[2]) >= 50
    (seen,) = rows(server)
    assert seen["ttft_ms"] >= 50
    assert abs(seen["overhead_us"] / 1000 - float(told[1])) < 0.01


async def test_the_table_of_requests(provider, other, server, client):
    async def script(call: Call) -> None:
        _, sent = await call.request()
        if b"hang" in sent:
            await call.gone()
        elif b"fail" in sent:
            call.reset()
        else:
            usage = b'{"usage":{"prompt_tokens":1000,"completion_tokens":1000,"total_tokens":2000}}'
            await call.answer(usage)

    provider.script, other.script = script, OK
    for name, more, status in (
        ("two", b"", 200), ("a/m", b',"fail":1', 502), ("two", b',"fail":1', 200), ("nobody", b"", 404),
    ):  # fmt: skip
        assert (await ask(server, name, more=more)).status == status
    await client.post(body("a/m", b',"hang":1,"stream":true'))
    await until(lambda: len(provider.seen) == 4)
    client.close()
    await until(lambda: len(server.gateway.completions.recent) == 5)
    listed = rows(server)
    columns = ("model_requested", "model", "status", "attempts", "stream")
    assert [tuple(row[column] for column in columns) for row in listed] == [
        ("two", "a/m", 200, 1, False),
        ("a/m", "a/m", 502, 1, False),
        ("two", "b/m", 200, 2, False),
        ("nobody", None, 404, 0, False),
        ("a/m", "a/m", 499, 1, True),
    ]
    assert (listed[0]["usd"], listed[0]["input_tokens"], listed[0]["output_tokens"]) == (0.002, 1000, 1000)
    failed = [re.sub(r"\d+ms", "", row["failed_attempts"]) for row in listed]
    assert failed == ["", "a:reset:", "a:reset:", "", ""]
    assert len({row["id"] for row in listed}) == 5
    assert all(row["total_ms"] >= 0 for row in listed)
    assert [row["ttft_ms"] is None for row in listed] == [False, True, False, True, True]


async def test_the_next_request_on_the_same_connection(provider, other, client):
    """Errors of each kind leave the client's connection in order, pipelined requests included."""
    provider.script = other.script = FAILS
    names = {"two": 503, "a/m": 500, "nobody": 404, "m": 503, "b/m": 500}
    for name in names:
        await client.post(body(name))
    assert [(await client.response())[0] for _ in names] == [*names.values()]


async def test_order_asks_the_first_while_it_is_healthy(provider, other, start):
    provider.script, other.script = OK, OK
    server = await start(
        config(provider, other, more='backed = { models = ["b/m", "a/m"], strategy = "order" }')
    )
    assert [(await ask(server, "backed")).story for _ in range(3)] == ["b:200"] * 3
    assert (await ask(server, "two", "X-Inferoute-Strategy: order")).fields[
        b"x-inferoute-strategy"
    ] == b"order"
    other.script = FAILS
    await close_idle(server)
    assert (await ask(server, "backed")).story == "b:500, a:200"


async def test_the_fallback_of_an_alias_follows_the_header_s(provider, other, start):
    provider.script, other.script = FAILS, OK
    more = (
        'backed = { models = ["a/m"], fallback = ["deep"] }\ndeep = { models = ["a/n"], fallback = ["b/n"] }'
    )
    server = await start(config(provider, other, more=more))
    assert (await ask(server, "backed")).story == "a:500, a:500, b:200"
    reply = await ask(server, "backed", fallback("b/m"))
    assert (reply.story, reply.fields[b"x-inferoute-model"]) == ("a:500, b:200", b"b/m")


async def test_a_pinned_name_with_a_fallback_passes_over_a_member_that_is_out(provider, other, start):
    provider.script, other.script = answers(b"{}", b"429 Slow", b"Retry-After: 1000\r\n"), OK
    server = await start(config(provider, other))
    assert (await ask(server, "a/m")).status == 429
    assert (await ask(server, "a/m", fallback("b/m"))).story == "b:200"
    deployment(server, "b/m").breaker.cool_down(60.0, monotonic(), 0.0)
    assert (await ask(server, "a/m", fallback("b/m"))).story == "b:200"  # no better, but no worse
    provider.script = OK
    await close_idle(server)
    assert (await ask(server, "a/m")).story == "a:200"  # alone it is always sent


async def test_a_success_ends_a_cool_down(provider, other, start):
    provider.script, other.script = answers(b"{}", b"429 Slow", b"Retry-After: 1000\r\n"), OK
    server = await start(config(provider, other))
    assert (await ask(server)).story == "a:429, b:200"
    provider.script = OK
    await close_idle(server)
    assert (await ask(server)).story == "b:200"
    assert (await ask(server, "a/m")).story == "a:200"  # a pinned name is always sent
    assert (await ask(server)).story == "a:200"


async def test_a_429_that_names_no_time_lets_others_go_first(provider, other, start):
    provider.script, other.script = answers(b"{}", b"429 Slow"), OK
    server = await start(config(provider, other, more='one = ["a/m"]'))
    assert (await ask(server)).story == "a:429, b:200"
    assert (await ask(server)).story == "b:200"
    assert deployment(server).breaker.failures == 0
    assert (await ask(server, "one")).status == 429  # alone it is asked, and says so itself


async def test_a_hung_member_is_out_from_when_its_attempt_ends(provider, other, server):
    provider.script, other.script = hangs, streams(HELLO, DONE)
    asking = asyncio.ensure_future(ask(server, more=STREAM))
    await until(lambda: provider.seen)
    attempt = exchange(server).attempt
    attempt.record.begun_at -= 60.0  # so long ago it began
    attempt.record.asked_at -= 60.0
    attempt.record.row.waiting[attempt.record] -= 60.0
    attempt.deadline_at -= 60.0
    exchange(server).client.wake_by(attempt.deadline_at)
    server.gateway.tick(monotonic())
    assert (await asking).story == "a:timeout, b:200"
    member = deployment(server)
    assert member.breaker.until_s - member.breaker.ejected_at_s >= 5.0
