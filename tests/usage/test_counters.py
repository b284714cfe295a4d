"""What a process counts of its requests."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.parse import parse
from proxy.control.steps import done
from proxy.routing.catalog import Catalog
from proxy.usage import counters as counters_module
from proxy.usage.counters import LAG_US, OVERHEAD_US, Counters, Histogram, Sums, counted_as, label_of
from proxy.usage.tokens import Usage
from proxy.wire.error_response import REASONS
from tests.support.fakes import Call, dead_url, hangs
from tests.support.keys import BODY, admin, ask, make, opened


@pytest.mark.parametrize("bounds", [counters_module.DURATION_S, counters_module.TOKENS, OVERHEAD_US, LAG_US])
def test_bounds_ascend(bounds):
    assert bounds == sorted(set(bounds))


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_a_value_falls_into_the_bucket_of_the_first_bound_that_is_no_lower(values):
    histogram = Histogram(OVERHEAD_US)
    expected = [0] * (len(OVERHEAD_US) + 1)
    for value in values:
        histogram.add(value)
        expected[bisect_left(OVERHEAD_US, value)] += 1
    *buckets, total = histogram.numbers()
    assert buckets == expected
    assert total == sum(values)


def test_merged_histograms():
    one, two = Histogram(LAG_US), Histogram(LAG_US)
    one.add(50)
    two.add(50)
    two.add(10**7)
    one.merge(two)
    assert one.numbers() == (2, *[0] * (len(LAG_US) - 1), 1, 100 + 10**7)


def test_sums_of_several_workers():
    into: Sums = {("a",): (1, 2), ("b", "x"): (5,)}
    counters_module.add_up(into, {("a",): (10, 20), ("c",): (7,)})
    assert into == {("a",): (11, 22), ("b", "x"): (5,), ("c",): (7,)}


def deployment():
    config = parse('[providers.p]\nbase_url = "http://h/v1"\nauth = "none"\n[models."p/m"]\n')
    return Catalog(config, {"p": True}, 0).deployments["p/m"]


def test_what_is_read_in_brief_is_what_is_read_in_full():
    counters, member = Counters(), deployment()
    for key, status, count in (("", 200, 3), ("key_1", 200, 2), ("key_1", 429, 1)):
        used = counters.used(member.labels, key, status)
        assert counters.used(member.labels, key, status) is used
        used.requests += count
        used.add(Usage(10, 4, 0, 20, 5), 7)
    counters.refused(400)
    told = counters.prefix(b"", member.labels, "chat")
    told.times.add(20, 10, Usage(10, 4, 0, 20, 5))
    counters.prefix(b"", member.labels, "embeddings").times.add(40, 30, None)
    full, brief = done(counters.read()), done(counters.brief())
    rows = {labels[1:]: numbers for labels, numbers in full.items() if labels[0] == "used"}
    assert rows == {
        ("p", "p/m", "", "200"): (3, 10, 4, 20, 5, 7), ("p", "p/m", "key_1", "200"): (2, 10, 4, 20, 5, 7),
        ("p", "p/m", "key_1", "429"): (1, 10, 4, 20, 5, 7), ("", "", "", "400"): (1, 0, 0, 0, 0, 0),
    }  # fmt: skip
    assert brief["all",] == (7, 2, 30, 60, 21)
    assert brief["first_byte",][-1] == 40
    assert full["first_byte", "p", "p/m", "chat"][-1] == 10
    assert full["whole", "p", "p/m", "embeddings"][-1] == 40
    assert full["input", "p", "p/m", "chat"][-1] == 10
    assert full["output", "p", "p/m", "embeddings"][-1] == 0


@pytest.mark.parametrize(("status", "label"), [
    *((status, str(status)) for status in (101, 200, 418, 499, 529)),
    *((207, "2xx"), (299, "2xx"), (310, "3xx"), (498, "4xx"), (530, "5xx"), (599, "5xx")),
    *((status, "other") for status in (600, 999, 1000, 0, -1)),
])  # fmt: skip
def test_the_label_of_a_status(status, label):
    assert label_of(status) == label
    assert counted_as(counted_as(status)) == counted_as(status)
    assert label_of(counted_as(status)) == label


def test_a_status_that_stands_for_others_is_an_error_where_they_are():
    for status in range(200, 1000):
        assert counters_module.is_error(label_of(status)) == (status >= 400) == (counted_as(status) >= 400)


def test_what_the_gateway_itself_answers_is_counted_by_its_number():
    assert set(REASONS) <= counters_module.STATUSES


# ---------------------------------------------------------------------- in a gateway


def totals_of(server) -> Sums:
    return done(server.gateway.count(False)).totals


def used_of(server) -> Sums:
    return {labels[1:]: numbers for labels, numbers in totals_of(server).items() if labels[0] == "used"}


async def test_a_provider_of_many_statuses_makes_few_counters(provider, start):
    statuses = [*range(205, 300), *range(430, 500), *range(530, 600), *range(900, 1000)]

    async def script(call: Call) -> None:
        for status in statuses:
            await call.request()
            await call.answer(b"{}", b"%d Odd" % status)

    provider.script = script
    more = "[routing.eject]\nconsecutive_failures = 1000\nerror_rate = 1.0"
    server, client = await opened(start, provider, more)
    for status in statuses:
        assert (await ask(client))[0] == status
    totals = totals_of(server)
    kinds = {labels[-1]: n for labels, (n, *_) in totals.items() if labels[0] == "used"}
    assert kinds == {"206": 1, "2xx": 94, "431": 1, "451": 1, "499": 1, "4xx": 67, "5xx": 70, "other": 100}
    reasons = {labels[-1]: n for labels, (n, *_) in totals.items() if labels[0] == "failures"}
    assert set(reasons) <= {"5xx", "other", "4xx"}
    told = [told for pool in server.gateway.catalog._pools.values() for told in pool.prefixes.values()]
    assert sum(len(one.by_key) for one in told) == len(kinds)


async def test_requests_and_what_they_used(provider, start):
    usage = (
        b'{"usage":{"prompt_tokens":40,"completion_tokens":60,"prompt_tokens_details":{"cached_tokens":10},'
        b'"completion_tokens_details":{"reasoning_tokens":20}}}'
    )

    async def script(call: Call) -> None:
        for _ in range(2):
            await call.request()
            await call.answer(usage)
        await call.request()
        await call.answer(b"{}", b"418 No")

    provider.script = script
    server, client = await opened(start, provider)
    id, secret = await make(server)
    for key, body, status in (
        (secret, BODY, 200), (secret, BODY, 200), (b"", BODY, 401), (secret, b'{"model":"none"}', 404),
        (secret, BODY, 418),
    ):  # fmt: skip
        assert (await ask(client, key, body))[0] == status
    nusd = 2 * (40 * 1000 + 60 * 2000)
    others = ("mock", "mock/m", id, "418"), ("", "", "", "401"), ("", "", id, "404")
    assert used_of(server) == {
        ("mock", "mock/m", id, "200"): (2, 80, 20, 120, 40, nusd),
        **dict.fromkeys(others, (1, 0, 0, 0, 0, 0)),
    }
    totals = totals_of(server)
    assert sum(totals["first_byte", "mock", "mock/m", "chat"][:-1]) == 2  # good answers only
    assert totals["input", "mock", "mock/m", "chat"][-1] == 80
    assert sum(totals["overhead",][:-1]) == 3  # those that were sent
    [row] = (await admin(server, "GET", "/usage"))[1]["data"]
    assert round(row["usd"] * 1e9) == nusd  # the ledger says the same


async def test_what_is_no_request_is_counted_too(start, provider):
    server, client = await opened(start, provider)
    await client.send(b"POST /v1/chat/completions HTTP/1.1\r\n\r\n")
    assert (await client.response())[0] == 400
    assert used_of(server) == {("", "", "", "400"): (1, 0, 0, 0, 0, 0)}


def another(name: str, url: str, models: str) -> str:
    """Another provider, and the alias ``both``."""
    provider = f'[providers.{name}]\nbase_url = "{url}"\nauth = "none"\n[models."{name}/m"]\n'
    return provider + f"[aliases]\nboth = {{ models = {models} }}\n"


async def test_failures_and_further_attempts(provider, start):
    more = another("dead", dead_url(), '["dead/m", "mock/m"], strategy = "round-robin"')
    server, client = await opened(start, provider, more)
    for _ in range(2):
        assert (await ask(client, body=b'{"model":"both"}'))[0] == 200
    fallback = b"X-Inferoute-Fallback: mock/m\r\n"
    assert (await ask(client, body=b'{"model":"dead/m"}', extra=fallback))[0] == 200
    totals = totals_of(server)
    assert totals["failures", "dead", "dead/m", "connect"] == (2,)
    assert totals["further",] == (1, 1, 0, 0, 0)


async def test_a_hedge(provider, other, start):
    provider.script = hangs
    more = another("b", other.url, '["mock/m", "b/m"], strategy = "round-robin", hedge = "10ms"')
    server, client = await opened(start, provider, more)
    assert (await ask(client, body=b'{"model":"both"}'))[0] == 200
    assert totals_of(server)["further",] == (0, 0, 1, 0, 0)
    requests = [n for labels, (n, *_) in used_of(server).items() if labels[0]]
    assert sum(requests) == 1  # the loser's tokens count, and no request of its own


async def test_what_is_so_now(provider, start):
    server, client = await opened(start, provider)
    await ask(client)
    levels = done(server.gateway.count(True)).levels
    assert levels == {("connections", "mock"): (1, 1), ("clients",): (1,), ("unwritten",): (0,)}
