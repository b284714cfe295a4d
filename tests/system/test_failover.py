"""Where a request goes next: pools, named fallbacks, budgets and limits, ejection and the way back."""

from __future__ import annotations

import asyncio
import re
from time import monotonic

import pytest

from proxy.deployments.breaker import CLOSED, DUE, OUT, TRIAL
from tests.support.fakes import (
    DONE,
    EVENT_STREAM,
    Call,
    RawClient,
    answers,
    chunk,
    dead_url,
    echo,
    hangs,
    until,
)
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
    strikes,
)

OK = answers(b'{"ok":1}')
FAILS = answers(b'{"e":1}', b"500 Oops")
# Failures without number: what is tested is something else than ejection.
PATIENT = "[routing.eject]\nconsecutive_failures = 1000\nerror_rate = 1.0\n"


def fallback(names: str) -> str:
    return f"X-Inferoute-Fallback: {names}"


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


async def test_no_model_but_a_strategy_fails_over_too(provider, other, start):
    provider.script = FAILS
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.post(b'{"messages":[]}', extra=b"X-Inferoute-Strategy: cost\r\n")
    reply = Reply(*await client.response())
    assert (reply.status, reply.body, reply.story) == (200, b'{"model":"m","messages":[]}', "a:500, b:200")
    assert provider.seen[0][1] == reply.body


async def test_each_attempt_is_at_another_member(provider, other, start):
    provider.script = other.script = FAILS
    server = await start(
        config(provider, other, tables="[routing]\nmax_attempts = 10", more='all = ["m","n"]')
    )
    reply = await ask(server, "all")
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert sorted(reply.story.split(", ")) == ["a:500", "a:500", "b:500", "b:500"]
    for one in (provider, other):
        assert sorted(re.findall(b'"model" : "(.)"', b"".join(s for _, s in one.seen))) == [b"m", b"n"]


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_max_attempts(provider, other, start, limit):
    provider.script = other.script = FAILS
    tables = f"[routing]\nmax_attempts = {limit}"
    server = await start(config(provider, other, tables=tables, more='all = ["m", "n"]'))
    reply = await ask(server, "all")
    assert len(provider.seen) + len(other.seen) == reply.story.count("500") == limit
    assert reply.status == (500 if limit == 1 else 503)  # a single one passes its own answer on
    assert rows(server)[0]["attempts"] == limit


async def test_failover_switched_off(provider, other, start):
    provider.script = FAILS
    server = await start(config(provider, other, tables="[routing]\nfailover = false"))
    reply = await ask(server)
    assert (reply.status, reply.body, reply.story) == (500, b'{"e":1}', "a:500")
    assert other.connections == 0
    reply = await ask(server, "two", fallback("b/m"))  # what the request itself asks for still goes
    assert (reply.status, reply.story) == (200, "a:500, b:200")


async def test_members_without_a_key_are_no_place_to_go(provider, other, start):
    provider.script = FAILS
    text = config(provider, other, more='all = ["b/n", "a/m"]')
    text = text.replace(
        f'base_url = "{other.url}"\nauth = "none"', f'base_url = "{other.url}"\napi_key_env = "NO"'
    )
    server = await start(text)
    assert (await ask(server, "two")).story == "a:500"
    assert (await ask(server, "a/m", fallback("b/m"))).story == "a:500"
    reply = await ask(server, "b/m", fallback("a/m"))
    assert (reply.kind, reply.story) == ((503, "provider_error", "all_attempts_failed"), "b:no-key, a:500")
    assert "b has no key: set NO" in reply.error["message"]
    assert other.connections == 0


async def test_patience_is_told_of_a_pool_that_has_some(provider, other, start):
    """Not of the members without a key that were named behind it."""
    provider.script = answers(b"{}", b"429 Slow", b"Retry-After: 1000\r\n")
    text = config(provider, other, more='one = ["a/m"]')
    text = text.replace(
        f'base_url = "{other.url}"\nauth = "none"', f'base_url = "{other.url}"\napi_key_env = "NO"'
    )
    server = await start(text)
    assert (await ask(server, "one", fallback("b/m"))).story == "a:429"
    reply = await ask(server, "one", fallback("b/m"))
    assert reply.kind == (429, "rate_limit_error", "providers_cooling_down")
    assert "'one'" in reply.error["message"]
    assert int(reply.fields[b"retry-after"]) > 900
    await close_idle(server)
    provider.script = FAILS
    reply = await ask(server, "a/m", fallback("a/n, b/m"))
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
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


async def test_a_pool_comes_before_its_fallback(provider, other, start):
    provider.script = FAILS

    async def script(call: Call) -> None:
        while True:
            _, sent = await call.request()
            await call.answer(sent, b"200 OK" if b'"n"' in sent else b"502 Bad")

    other.script = script
    server = await start(config(provider, other))
    reply = await ask(server, "two", fallback("a/n, b/n"))
    assert (reply.status, reply.story) == (200, "a:500, b:502, a:500, b:200")


async def test_several_lines_are_one_list(provider, other, start):
    provider.script = FAILS
    server = await start(config(provider, other))
    reply = await ask(server, "a/m", fallback("a/n"), fallback("b/m"))
    assert reply.story == "a:500, a:500, b:200"


async def test_what_works_needs_no_fallback(provider, other, start):
    server = await start(config(provider, other))
    reply = await ask(server, "a/m", fallback("b/m"))
    assert (reply.story, reply.body) == ("a:200", SENT)
    assert b"Inferoute" not in provider.seen[0][0]
    assert (await ask(server, "b/m", fallback("b/m"))).story == "b:200"


async def test_a_fallback_that_is_the_model_itself(provider, other, start):
    provider.script = FAILS
    server = await start(config(provider, other))
    reply = await ask(server, "a/m", fallback("a/m"))
    assert (reply.status, reply.body, reply.story) == (500, b'{"e":1}', "a:500")


@pytest.mark.parametrize(
    ("value", "status", "code"),
    [
        ("nobody/knows", 404, "model_not_found"),
        ("b/m, nobody/knows", 404, "model_not_found"),
        ("b/m,", 400, "invalid_fallback"),
        (",", 400, "invalid_fallback"),
        ("", 400, "invalid_fallback"),
        ("b/m,,a/n", 400, "invalid_fallback"),
        ("\xff", 400, "invalid_fallback"),
        (",".join(["b/m"] * 9), 400, "invalid_fallback"),
    ],
)
async def test_a_fallback_that_can_not_be_is_told_at_once(provider, other, start, value, status, code):
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
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


async def test_vectors_of_two_models_do_not_mix(provider, other, start):
    provider.script = FAILS
    capable = 'capabilities = ["embeddings"]\n[models.'
    text = (
        config(provider, other).replace("[models.", capable).replace("[aliases]", capable[:-8] + "[aliases]")
    )
    server = await start(text.replace(capable[:-8], "", 1))
    path = {"path": b"/v1/embeddings"}
    reply = await ask(server, "a/m", fallback("b/n"), **path)
    assert reply.kind == (400, "invalid_request_error", "mixed_models")
    assert reply.error["param"] == "X-Inferoute-Fallback"
    assert provider.connections == 0
    reply = await ask(server, "a/m", fallback("b/m"), **path)
    assert (reply.status, reply.body, reply.story) == (200, SENT, "a:500, b:200")
    assert (await ask(server, "m", **path)).status == 200


async def test_the_clients_own_key_stays_with_its_provider(provider, other, start):
    provider.script = FAILS
    more = 'all = ["b/n", "a/m"]'
    server = await start(config(provider, other, a_more='auth = "passthrough"', more=more))
    own = "Authorization: Bearer of-the-client"
    reply = await ask(server, "a/m", own, fallback("b/m"))  # nothing follows it
    assert (reply.status, reply.body, reply.story) == (500, b'{"e":1}', "a:500")
    assert b"of-the-client" in provider.seen[0][0]
    assert (await ask(server, "two", own)).story == "a:500"
    assert other.connections == 0
    other.script = FAILS
    asked = provider.connections
    reply = await ask(server, "b/m", own, fallback("a/m, two, a/n"))  # and nothing leads to it
    assert (reply.status, reply.story) == (500, "b:500")
    assert provider.connections == asked
    assert all(b"of-the-client" not in head for head, _ in other.seen)


# ---------------------------------------------------------------------- limits of it all


async def test_the_retry_budget_keeps_an_outage_from_multiplying(provider, other, start):
    provider.script = other.script = FAILS
    server = await start(config(provider, other, tables=PATIENT))
    count = 100
    replies = await asyncio.gather(*(ask(server) for _ in range(count)))
    asked = len(provider.seen) + len(other.seen)
    assert count + 10 < asked <= count + 10 + 0.2 * count
    alone = [reply for reply in replies if reply.story == "a:500"]
    assert len(alone) == 2 * count - asked
    assert {(reply.status, reply.body) for reply in alone} == {(500, b'{"e":1}')}
    told = {reply.kind for reply in replies if reply not in alone}
    assert told == {(503, "provider_error", "all_attempts_failed")}


async def test_a_budget_of_nothing_leaves_the_floor(provider, other, start):
    provider.script = FAILS
    server = await start(config(provider, other, tables=f"[routing]\nretry_budget = 0\n{PATIENT}"))
    stories = [(await ask(server)).story for _ in range(12)]
    assert stories[:10] == ["a:500, b:200"] * 10
    assert stories[-1] == "a:500"


async def test_the_whole_chain_has_an_end(provider, other, start):
    """However many members are named: the limit of one attempt as often as pools are, or ``max_attempts``."""
    provider.script = other.script = hangs
    server = await start(config(provider, other))
    asking = asyncio.ensure_future(ask(server, "a/m", fallback("b/m, a/n, b/n"), "X-Inferoute-Timeout: 0.1"))
    reply = await asking
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story in (
        "a:timeout, b:timeout",
        "a:timeout, b:timeout, a:timeout",
        "a:timeout, b:timeout, a:timeout, b:timeout",
    )


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


async def test_five_failures_in_a_row_eject(provider, other, start, caplog):
    provider.script, other.script = FAILS, OK
    server = await start(config(provider, other))
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


async def test_a_success_between_starts_the_count_anew(provider, other, start):
    server = await start(config(provider, other))
    for _ in range(2):
        provider.script = FAILS
        await failing(server, "a/m", 4)
        await close_idle(server)
        provider.script = OK
        assert (await ask(server, "a/m")).status == 200
        await close_idle(server)
    assert strikes(server) == [0, 0]


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

    async def script(call: Call) -> None:
        await call.request()
        await go.wait()
        await call.answer(b"back")

    provider.script = script
    other.script = OK
    trying = asyncio.ensure_future(ask(server))
    await until(lambda: deployment(server).state(monotonic()) == TRIAL)
    assert [(await ask(server)).story for _ in range(3)] == ["b:200"] * 3  # one at a time
    go.set()
    assert (await trying).story == "a:200"
    assert deployment(server).state(monotonic()) == CLOSED
    assert deployment(server).breaker.ejections == 0
    assert (await ask(server)).story == "a:200"


async def test_a_trial_that_fails_ejects_for_longer(provider, other, start):
    server = await start(config(provider, other, tables=SHORT))
    await ejected_and_due(server, provider)
    reply = await ask(server)
    assert (reply.status, reply.story) == (200, "a:500, b:200")
    assert deployment(server).breaker.ejections == 2
    assert not deployment(server).breaker.on_trial


@pytest.mark.parametrize("fault", ["error event", "reset before it", "silence"])
async def test_a_trial_whose_stream_is_an_error_in_disguise_fails(provider, other, start, fault):
    """Its first byte is none of a good answer yet."""

    async def script(call: Call) -> None:
        await call.request()
        if fault == "error event":
            await call.stream(b'data: {"error":{"message":"overloaded"}}\n\n')
        else:
            await call.stream(b": hello\n\n", end=False)
        if fault == "silence":
            await call.gone()

    async def good(call: Call) -> None:
        await call.request()
        await call.stream(b"data: {}\n\n", DONE)

    server = await start(config(provider, other, tables=SHORT, alias="peek = true"))
    await ejected_and_due(server, provider)
    provider.script, other.script = script, good
    asking = asyncio.ensure_future(ask(server, more=b',"stream":true'))
    if fault == "silence":
        await until(lambda: any(c._exchange and c._exchange.peek_until for c in server.gateway.connections))
        assert deployment(server).state(monotonic()) == TRIAL
        # What was silent for so long is let through: then it is an answer like any other.
        server.gateway.tick(monotonic() + 2.1)
        assert deployment(server).state(monotonic()) == CLOSED
        for connection in server.gateway.connections:
            connection.abort()
        with pytest.raises(asyncio.IncompleteReadError):
            await asking
    else:
        assert (await asking).story == f"a:{'error' if fault == 'error event' else 'reset'}, b:200"
        assert deployment(server).breaker.ejections == 2
        assert deployment(server).row("chat", True).speed.typical_s() is None


async def test_a_client_that_leaves_a_trial_leaves_it_to_the_next(provider, other, start):
    server = await start(config(provider, other, tables=SHORT))
    await ejected_and_due(server, provider)
    provider.script = hangs
    client = await RawClient.connect(server)
    await client.post(body())
    await until(lambda: deployment(server).state(monotonic()) == TRIAL)
    client.close()
    await until(lambda: deployment(server).state(monotonic()) == DUE)
    provider.script = OK
    assert (await ask(server)).story == "a:200"
    assert deployment(server).state(monotonic()) == CLOSED


async def test_a_pool_of_ejected_members_fails_open(provider, other, start):
    provider.script = other.script = FAILS
    server = await start(config(provider, other))
    await failing(server, "a/m")
    await failing(server, "b/m")
    now = monotonic()
    first = min((deployment(server, name) for name in ("a/m", "b/m")), key=lambda d: d.free_at(now))
    await close_idle(server)
    provider.script = other.script = OK
    reply = await ask(server)
    assert reply.status == 200
    assert reply.fields[b"x-inferoute-model"].decode() == first.id


async def test_what_began_before_the_ejection_does_not_end_it(provider, other, start):
    go = asyncio.Event()

    async def script(call: Call) -> None:
        _, sent = await call.request()
        if b"slow" in sent:
            await go.wait()
            await call.answer(b"late")
        else:
            await call.answer(b"{}", b"500 Oops")

    provider.script = script
    server = await start(config(provider, other))
    slow = asyncio.ensure_future(ask(server, "a/m", more=b',"slow":1'))
    await until(lambda: provider.seen)
    await failing(server, "a/m")
    go.set()
    assert (await slow).body == b"late"
    assert deployment(server).state(monotonic()) == OUT


# ---------------------------------------------------------------------- and what else has to hold


async def test_a_split_sticks_to_the_caller(provider, other, start):
    more = 'ab = { split = { "a/m" = 50, "b/m" = 50 }, sticky = "header:x-user" }\n'
    more += 'ak = { split = { "a/m" = 50, "b/m" = 50 }, sticky = "key" }'
    server = await start(config(provider, other, more=more, tables=PATIENT))
    for name, header in (("ab", "X-User: u{}"), ("ak", "Authorization: Bearer u{}")):
        homes = {}
        for user in range(30):
            told = {(await ask(server, name, header.format(user))).story for _ in range(2)}
            assert len(told) == 1, user
            homes[user] = told.pop()
        assert set(homes.values()) == {"a:200", "b:200"}
        assert (await ask(server, name, header.format(0))).fields[b"x-inferoute-strategy"] == b"split"
        await close_idle(server)
        provider.script = FAILS
        for user in range(0, 30, 4):  # one side is out: only its own users move
            told = (await ask(server, name, header.format(user))).story
            assert told == ("b:200" if homes[user] == "b:200" else "a:500, b:200")
        await close_idle(server)
        provider.script = echo


async def test_a_split_keeps_its_shares(provider, other, start):
    more = 'ab = { split = { "a/m" = 90, "b/m" = 10 } }'
    server = await start(config(provider, other, more=more))
    server.gateway.rng.seed(7)
    client = await RawClient.connect(server)
    served = []
    for _ in range(400):
        await client.post(body("ab"))
        served.append((await client.response())[1][b"x-inferoute-provider"])
    assert 340 <= served.count(b"a") <= 380


async def test_comments_keep_the_stream_of_a_second_member_open(provider, other, start):
    provider.script = FAILS

    async def script(call: Call) -> None:
        await call.request()
        await call.send(EVENT_STREAM + chunk(b"data: a\n\n"))
        await call.gone()

    other.script = script
    server = await start(config(provider, other, alias='keepalive = "15s"'))
    client = await RawClient.connect(server)
    await client.post(body("two", b',"stream":true'))
    await client.reader.readuntil(b"data: a\n\n\r\n")
    server.gateway.tick(monotonic() + 16)
    assert await client.reader.readuntil(b"\n\n\r\n") == chunk(b": keep-alive\n\n")


async def test_timing_counts_the_failed_attempts_to_the_providers(provider, other, start):
    async def script(call: Call) -> None:
        await call.request()
        await until(lambda: failing_now)
        call.reset()

    failing_now: list[bool] = []
    provider.script = script
    tables = '[server]\nlisten = ["127.0.0.1:0"]\nserver_timing = true'
    server = await start(config(provider, other, tables=tables))
    asking = asyncio.ensure_future(ask(server))
    await until(lambda: provider.seen)
    await asyncio.sleep(0.05)
    failing_now.append(True)
    reply = await asking
    assert reply.story == "a:reset, b:200"
    told = re.fullmatch(
        rb"gateway;dur=(\d+\.\d{3}), upstream;dur=(\d+\.\d{3})", reply.fields[b"server-timing"]
    )
    assert told is not None
    assert float(told[2]) >= 50
    (seen,) = rows(server)
    assert seen["ttft_ms"] >= 50
    assert abs(seen["overhead_us"] / 1000 - float(told[1])) < 0.01


async def test_the_table_of_requests(provider, other, start):
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
    server = await start(config(provider, other))
    assert (await ask(server, "two")).status == 200
    assert (await ask(server, "a/m", more=b',"fail":1')).status == 502
    assert (await ask(server, "two", more=b',"fail":1')).status == 200
    assert (await ask(server, "nobody")).status == 404
    client = await RawClient.connect(server)
    await client.post(body("a/m", b',"hang":1,"stream":true'))
    await until(lambda: len(provider.seen) == 4)
    client.close()
    await until(lambda: len(server.gateway.endings.recent) == 5)
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
    assert [re.sub(r"\d+ms", "", row["failed_attempts"]) for row in listed] == [
        "",
        "a:reset:",
        "a:reset:",
        "",
        "",
    ]
    assert len({row["id"] for row in listed}) == 5
    assert all(row["total_ms"] >= 0 for row in listed)
    assert [row["ttft_ms"] is None for row in listed] == [False, True, False, True, True]


async def test_nothing_of_it_is_left_in_the_exchange(provider, other, start):
    """A long answer must not hold what is only needed before it."""
    provider.script = FAILS

    async def script(call: Call) -> None:
        await call.request()
        await call.stream(b"data: a\n\n", end=False)
        await call.gone()

    other.script = script
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    await client.post(body("two", b',"stream":true'))
    await client.reader.readuntil(b"data: a\n\n")
    running = exchange(server)
    assert (running.request.body.held, running.rival, running.hedge_timer) == (None, None, None)


async def test_the_next_request_on_the_same_connection(provider, other, start):
    """Errors of each kind leave the client's connection in order, pipelined requests included."""
    provider.script, other.script = FAILS, FAILS
    server = await start(config(provider, other))
    client = await RawClient.connect(server)
    names = ["two", "a/m", "nobody", "two", "b/m"]
    for name in names:
        await client.post(body(name))
    got = [(await client.response())[0] for _ in names]
    assert got == [503, 500, 404, 503, 500]


async def test_a_dead_pool(start):
    server = await start(config(dead_url(), dead_url()))
    reply = await ask(server)
    assert reply.kind == (503, "provider_error", "all_attempts_failed")
    assert reply.story == "a:connect, b:connect"
    words = r"could not be reached \(.*onnection refused.*\)"
    assert re.fullmatch(rf"All 2 attempts failed: a {words}; b {words}\.", reply.error["message"])
