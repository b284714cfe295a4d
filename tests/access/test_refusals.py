"""What a refused request counts against, and when it is told no more than that."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.access import refusals
from proxy.access.refusals import REFUSALS_A_MINUTE, Refusals, count_for_key, is_counted
from proxy.routing.catalog import Catalog
from proxy.routing.name_hints import TokenBucket
from proxy.server.single import Server
from proxy.wire.model_scanner import ModelScanner
from tests.support.fakes import RawClient, ScriptedProvider, answers, post, until
from tests.support.keys import BODY, CONFIG, UNIX_S, account_of, admin, ask, bearer, check_error, make, opened

NOW = 1000.0
FAULT = errors.UnknownModel("x", None)


COUNTED = [
    *(errors.BadRequest("x", status=status) for status in (400, 404, 405, 408, 413, 415, 422, 431)),
    errors.Unauthorized("x"), errors.NotAllowed("x"), errors.ForeignOrigin(), FAULT,
]  # fmt: skip
UNCOUNTED = [
    errors.LimitReached("x", "rpm", 1.0),
    errors.LimitReached("x", "monthly_usd", 9.0, "monthly_limit_reached"),
    errors.TooManyRefused(FAULT, 1.0), errors.CoolingDown("x", 1.0), errors.ProviderError("x", status=502),
    errors.Unavailable("x", code="overloaded", retry_after_s=1), errors.GatewayError("x"),
]  # fmt: skip


@pytest.mark.parametrize("error", [*COUNTED, *UNCOUNTED])
def test_faults_count_and_limits_and_others_faults_dont(error):
    assert is_counted(error) is (error in COUNTED)


# ---------------------------------------------------------------------- by address


def test_an_address_is_told_the_fault_so_often_a_minute():
    found = Refusals()
    for number in range(REFUSALS_A_MINUTE):
        assert found.count(FAULT, b"\x7f\0\0\1", NOW + number / 2) is FAULT
    error = found.count(FAULT, b"\x7f\0\0\1", NOW + 30)
    assert (error.status, error.type, error.code, error.param, error.source) == (
        429, "rate_limit_error", "too_many_refused_requests", None, "downstream",
    )  # fmt: skip
    assert (error.retry_after_s, error.should_retry) == (30, False)  # it would be refused again
    assert error.message == (
        "Too many refused requests from this address. Correct the request, or retry in 30 s. "
        "The fault of this one: The model 'x' does not exist here. GET /v1/models?all=true lists all models."
    )
    assert b"Retry-After: 30\r\n" in error.header_lines()
    # Others are not concerned, and the next minute begins with the next refusal.
    assert found.count(FAULT, b"\x7f\0\0\2", NOW + 30) is FAULT
    assert found.count(FAULT, b"\x7f\0\0\1", NOW + 59.99).status == 429
    for _ in range(REFUSALS_A_MINUTE):
        assert found.count(FAULT, b"\x7f\0\0\1", NOW + 200) is FAULT
    assert found.count(FAULT, b"\x7f\0\0\1", NOW + 259).retry_after_s == 1


def test_a_connection_that_has_to_close_closes():
    found = Refusals()
    for close in (True, False):
        fault = errors.BadRequest("x", status=413, close=close)
        for _ in range(REFUSALS_A_MINUTE):
            found.count(fault, b"", NOW)
        assert found.count(fault, b"", NOW).close is close


def test_the_table_of_addresses_is_bounded_and_forgets_the_oldest(monkeypatch):
    monkeypatch.setattr(refusals, "MAX_ADDRESSES", 3)
    found = Refusals()
    for name in (b"a", b"b", b"c") * REFUSALS_A_MINUTE:
        found.count(FAULT, name, NOW)
    assert found.count(FAULT, b"a", NOW + 60) is FAULT  # a new minute: now it is the newest
    assert found.count(FAULT, b"d", NOW + 59) is FAULT
    assert (len(found), found.count(FAULT, b"c", NOW + 59).status) == (3, 429)
    assert found.count(FAULT, b"b", NOW + 59) is FAULT  # forgotten
    assert len(found) == 3


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b""]), st.floats(0, 30)), max_size=300))
def test_never_more_than_the_bound_in_any_window(events):
    found, now = Refusals(), NOW
    told: dict[bytes, list[float]] = {}
    for client, wait_s in events:
        now += wait_s / 10
        error = found.count(FAULT, client, now)
        if error is FAULT:
            told.setdefault(client, []).append(now)
        else:
            assert error.retry_after_s is not None and 1 <= error.retry_after_s <= 60
            assert len([at for at in told[client] if at > now - 60]) >= REFUSALS_A_MINUTE // 2
    for times in told.values():
        for at in times:  # windows are not a grid, so two may meet
            assert len([one for one in times if at <= one < at + 60]) <= 2 * REFUSALS_A_MINUTE


# ---------------------------------------------------------------------- by key


def test_a_refusal_is_one_of_the_requests_of_a_minute():
    account = account_of(rpm=2)
    permit = account.admit(NOW, UNIX_S, 0, 0)
    fault = errors.NotAllowed("x")
    assert count_for_key(fault, account, NOW + 1, UNIX_S + 1) is fault
    assert b"X-RateLimit-Remaining-Requests: 0\r\n" in fault.header_lines()
    assert b"X-RateLimit-Reset-Requests: %d\r\n" % (UNIX_S + 60) in fault.header_lines()
    for _ in range(3):
        error = count_for_key(errors.BadRequest("x", close=True), account, NOW + 2, UNIX_S + 2)
        assert (error.status, error.code, error.param, error.retry_after_s, error.close) == (
            429, "rate_limit_exceeded", "rpm", 58, True,
        )  # fmt: skip
    with pytest.raises(errors.LimitReached):
        account.admit(NOW + 3, UNIX_S + 3, 0, 0)
    account.settle(permit, UNIX_S + 4, 5, 5)
    assert account.admit(NOW + 60, UNIX_S + 60, 0, 0).requests_left == 1


@pytest.mark.parametrize("limits", [
    {}, {"tpm": 1}, {"concurrency": 1}, {"monthly_nusd": 1}, {"max_tokens": 1},
])  # fmt: skip
def test_a_key_without_a_limit_of_requests_is_told_each_fault(limits):
    account = account_of(**limits)
    for _ in range(REFUSALS_A_MINUTE * 2):
        fault = errors.BadRequest("x")
        assert count_for_key(fault, account, NOW, UNIX_S) is fault
        assert fault.headers == b""


# ---------------------------------------------------------------------- a gateway


def text(provider: ScriptedProvider, more: str = "") -> str:
    return CONFIG.format(url=provider.url, more=more)


async def from_another_address(server: Server) -> RawClient:
    listen = server.addresses[0]
    reader, writer = await asyncio.open_connection(listen.host, listen.port, local_addr=("127.0.0.2", 0))
    return RawClient(reader, writer)


UNKNOWN = b'{"model":"mock/mm"}'
MALFORMED = b'{"messages":['
BEGIN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n"
# What is wrong with a request: the body, or all of it, for a key's lines; the status of its refusal.
FAULTS = {
    "malformed": (lambda lines: post(MALFORMED, extra=lines), 400),
    "no model": (lambda lines: post(b"{}", extra=lines), 400),
    "unknown model": (lambda lines: post(UNKNOWN, extra=lines), 404),
    "not its model": (lambda lines: post(b'{"model":"mock/n"}', extra=lines), 403),
    "endpoint": (lambda lines: post(BODY, b"/v1/rerank", lines), 400),
    "header": (lambda lines: post(BODY, extra=lines + b"X-Inferoute-Timeout: soon\r\n"), 400),
    "encoding": (lambda lines: post(BODY, extra=lines + b"Content-Encoding: gzip\r\n"), 400),
    "expect": (lambda lines: post(BODY, extra=lines + b"Expect: tea\r\n"), 417),
    "too large": (lambda lines: BEGIN + lines + b"Content-Length: 2000000000\r\n\r\n", 413),
    "no length": (lambda lines: BEGIN + lines + b"\r\n", 411),
    "broken chunks": (lambda lines: BEGIN + lines + b"Transfer-Encoding: chunked\r\n\r\n!\r\n", 400),
    "max_tokens": (lambda lines: post(BODY[:-1] + b',"max_tokens":99}', extra=lines), 422),
}


async def once(server: Server, sent: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    client = await RawClient.connect(server)
    await client.send(sent)
    answer = await client.response()
    client.close()
    return answer


@pytest.mark.parametrize("fault", FAULTS)
async def test_what_is_refused_before_it_is_let_in_counts_for_its_key(provider, start, fault):
    provider.script = answers()
    server = await start(text(provider))
    _, key = await make(server, rpm=3, models="mock/m", max_tokens=50)
    make_request, status = FAULTS[fault]
    for left in (b"2", b"1"):
        got, fields, _ = await once(server, make_request(bearer(key)))
        assert (got, fields[b"x-ratelimit-remaining-requests"]) == (status, left)
    got, fields, _ = await once(server, post(BODY, extra=bearer(key)))
    assert (got, fields[b"x-ratelimit-remaining-requests"]) == (200, b"0")
    for _ in range(3):  # told as such, whatever is wrong with it
        answer = await once(server, make_request(bearer(key)))
        check_error(answer, 429, "rate_limit_error", "rate_limit_exceeded", "rpm")
        assert (await once(server, post(BODY, extra=bearer(key))))[0] == 429
    assert len(provider.seen) == 1
    assert len(server.gateway.refusals) == 0  # a valid key is nobody's address
    assert server.gateway.keys.grant_of([(b"x-api-key", key)]).account._own.requests == 3


async def test_what_was_let_in_and_limits_count_no_more_than_once(provider, start):
    provider.script = answers(b"{}", b"404 Not There")
    server, client = await opened(start, provider)
    _, key = await make(server, rpm=3)
    for left in (b"2", b"1", b"0"):  # a provider's own refusal
        await client.post(BODY, extra=bearer(key))
        status, fields, _ = await client.response()
        assert (status, fields[b"x-ratelimit-remaining-requests"]) == (404, left)
    # It is let in, and then its body turns out to be wrong.
    _, key = await make(server, name="late", rpm=3)
    await client.send(BEGIN + b"%bContent-Length: 60\r\n\r\n%b" % (bearer(key), b'{"model":"mock/m","x":"'))
    account = server.gateway.keys.grant_of([(b"x-api-key", key)]).account
    await until(lambda: account._own.requests == 1)
    await client.send(b'y","model":"mock/n"' + b" " * 17 + b"}")
    assert (await client.response())[0] == 400
    assert (account._own.requests, account._own.running) == (1, 0)


async def test_a_spent_month_is_told_as_such_and_counts_for_nothing(provider, start):
    provider.script = answers(b'{"usage":{"prompt_tokens":5,"completion_tokens":5,"total_tokens":10}}')
    server = await start(text(provider))
    _, key = await make(server, rpm=5, monthly_tokens=1)
    assert (await once(server, post(BODY, extra=bearer(key))))[0] == 200
    for _ in range(10):
        assert (await once(server, post(BODY, extra=bearer(key))))[0] == 402


@pytest.mark.parametrize("body", [UNKNOWN, MALFORMED, b"no JSON", b"{}"])
async def test_a_flood_of_refusals_by_one_key_leaves_others_alone(provider, start, monkeypatch, body):
    """Eight connections of a key with one request a minute, and one of somebody else between them."""
    provider.script = answers()
    server = await start(text(provider))
    hints: list[str] = []
    nearest = server.gateway.catalog.nearest
    monkeypatch.setattr(Catalog, "nearest", lambda _, name: hints.append(name) or nearest(name))
    scanned: list[bytes] = []
    scan = ModelScanner.feed
    monkeypatch.setattr(ModelScanner, "feed", lambda self, *args: scanned.append(b"") or scan(self, *args))
    _, key = await make(server, rpm=1)
    _, good = await make(server, name="good")
    flood = [await RawClient.connect(server) for _ in range(8)]
    other = await RawClient.connect(server)
    statuses = []
    for _ in range(20):
        for client in flood:
            await client.send(5 * post(body, extra=bearer(key)))
        assert (await ask(other, good))[0] == 200
        for client in flood:
            statuses += [(await client.response())[0] for _ in range(5)]
    assert statuses[0] in (400, 404)
    assert set(statuses[1:]) == {429}
    assert len(hints) <= 2
    # The first of them, and the one that met the limit: from there a head is all that is read of each.
    assert len(scanned) == 20 + 2


async def test_hints_are_given_at_a_bounded_rate_and_then_the_same_error_without(
    provider, start, monkeypatch
):
    server, client = await opened(start, provider)
    _, key = await make(server)
    now = 1000.0
    monkeypatch.setattr("proxy.relay.downstream.gateway.time.monotonic", lambda: now)
    server.gateway._hints = TokenBucket(5.0, 10)
    told = []
    for _ in range(15):
        answer = await ask(client, key, UNKNOWN)
        message = check_error(answer, 404, "not_found_error", "model_not_found", "model")
        told.append("Did you mean 'mock/m'?" in message)
    assert told == [True] * 10 + [False] * 5
    now += 0.2
    assert b"Did you mean" in (await ask(client, key, UNKNOWN))[2]
    _, listed = await make(server, name="listed", models="mock/m")
    now += 60
    assert b"Did you mean" not in (await ask(client, listed, UNKNOWN))[2]


async def test_wrong_keys_are_told_so_often_a_minute_by_address(provider, start):
    provider.script = answers()
    server = await start(text(provider))
    _, key = await make(server)
    id, gone = await make(server, name="gone", rpm=100)
    assert (await admin(server, "DELETE", f"/keys/{id}"))[0] == 200
    client = await RawClient.connect(server)
    wrong = [b"", b"sk-x", b"th-x", b"th-" + b"x" * 43, gone]
    for number in range(REFUSALS_A_MINUTE):
        answer = await ask(client, wrong[number % 5])
        check_error(answer, 401, "authentication_error", "invalid_api_key")
    for secret in wrong:
        answer = await ask(client, secret)
        message = check_error(answer, 429, "rate_limit_error", "too_many_refused_requests")
        assert "API key" in message or "key of this gateway" in message
        assert answer[1][b"x-should-retry"] == b"false"
        # On the same connection a valid key is served, and its faults are its own.
        assert (await ask(client, key))[0] == 200
        assert (await ask(client, key, UNKNOWN))[0] == 404
    other = await from_another_address(server)
    assert (await ask(other, b"sk-x"))[0] == 401


async def test_without_keys_good_requests_are_served_whatever_was_refused(provider, start):
    provider.script = answers()
    server, client = await opened(start, provider)
    for number in range(REFUSALS_A_MINUTE + 20):
        status = (await ask(client, body=(MALFORMED, UNKNOWN)[number % 2]))[0]
        assert status == ((400, 404)[number % 2] if number < REFUSALS_A_MINUTE else 429)
        assert (await ask(client))[0] == 200
    assert (await ask(await from_another_address(server), body=UNKNOWN))[0] == 404


async def test_heads_that_can_not_be_read_count_by_address(provider, start):
    server = await start(text(provider))
    for number in range(REFUSALS_A_MINUTE + 5):
        client = await RawClient.connect(server)
        await client.send(b"GARBAGE\r\n\r\n")
        status, fields, body = await client.response()
        assert status == (400 if number < REFUSALS_A_MINUTE else 429)
        assert fields[b"connection"] == b"close"
        assert await client.rest() == b""
    assert b"The request line is not HTTP/1.1." in body


async def test_all_clients_of_a_unix_socket_are_one_address(provider, start, tmp_path):
    path = tmp_path / "gateway.sock"
    server = await start(text(provider).replace(
        "[providers.mock]", f'[server]\nlisten = ["unix:{path}"]\n[providers.mock]', 1))  # fmt: skip
    for number in range(REFUSALS_A_MINUTE + 2):
        client = await RawClient.connect(server)
        status = (await ask(client, body=UNKNOWN))[0]
        assert status == (404 if number < REFUSALS_A_MINUTE else 429)
        client.close()
    assert len(server.gateway.refusals) == 1
