"""What is prepared from the configuration: request heads, the names of an answer, ids."""

from __future__ import annotations

import random

import pytest

from proxy.access.refusals import REFUSALS_A_MINUTE
from proxy.config.parse import parse
from proxy.errors import BadRequest, GatewayError
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog
from tests.support.gateway import TEXT, gateway
from tests.support.keys import SECRET, key_of, table_of


def test_request_ids_never_repeat():
    one, other = gateway(TEXT), gateway(TEXT)
    ids = [made.next_request_id() for made in (one, other) for _ in range(5000)]
    assert len(set(ids)) == len(ids)
    assert all(len(id) == 24 and id.startswith(b"req_") for id in ids)


def test_ready_needs_one_provider_with_credentials():
    text = TEXT + '[providers.q]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "Q"\n[models."q/m"]\n'
    config = parse(text)
    for keys, ready in (({}, False), ({"p": "k"}, True), ({"p": "k", "q": "k"}, True)):
        providers = {
            n: Provider(each, keys.get(n), 1.0, simulated=False) for n, each in config.providers.items()
        }
        made = Gateway(config, Catalog(config, {}, 0), providers, random.Random(0))
        assert made.is_ready() is ready
        made.unready = True
        assert not made.is_ready()


def test_a_tick_wakes_who_is_due():
    class Connection:
        def __init__(self, wake_at: float) -> None:
            self.wake_at = wake_at
            self.woken: list[float] = []

        def on_wake(self, now: float) -> None:
            self.woken.append(now)
            made.connections.discard(self)

    made = gateway(TEXT)
    early, due, late = connections = [Connection(at) for at in (1.0, 2.0, 2.1)]
    made.connections.update(connections)
    made.tick(2.0)
    assert (early.woken, due.woken, late.woken) == ([2.0], [2.0], [])
    assert made.connections == {late}


# ------------------------------------------------------------------ another configuration

MORE = """
[routing]
max_attempts = 7
retry_budget = 0.5
replay_limit = "2KiB"
[timeouts]
first_byte = "3s"
"""
MORE += TEXT + 'b = ["p/m"]'


def adopt(made: Gateway, text: str, keep: bool) -> Provider:
    """Another configuration, with the same provider or a new one; returns the one before."""
    before = made.providers["p"]
    config = parse(text)
    providers = {"p": before if keep else Provider(config.providers["p"], "k2", 1.0, simulated=False)}
    made.adopt(config, Catalog(config, {"p": True}, 0, made.catalog), providers)
    return before


def test_what_comes_goes_by_the_new_configuration_and_what_runs_by_the_old():
    made = gateway(TEXT)
    before = made.routes
    adopt(made, MORE, keep=True)
    assert (made.max_attempts, made.timeouts.first_byte_s, made.replay_limit_bytes) == (7, 3.0, 2048)
    assert made.budget.share == 0.5
    assert made.catalog.resolve("b", "chat", None).name == "b"
    assert not before.catalog.members("b")
    assert before.config is not made.config is made.routes.config


@pytest.mark.parametrize("keep", [True, False])
def test_a_provider_that_stays_keeps_its_connections(keep):
    made = gateway(TEXT)
    before = adopt(made, MORE, keep)
    assert (made.providers["p"] is before) is keep
    assert before.pool._retired is not keep


def test_the_budget_of_a_lasting_outage_outlives_a_reload():
    made = gateway(TEXT)
    while made.budget.take(1.0):
        pass
    adopt(made, TEXT, keep=False)
    assert not made.budget.is_left(1.0)


def test_heads_prepared_for_the_providers_before_are_forgotten():
    made = gateway(TEXT)
    text = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g"
    head = made.heads.recall(text)[0]
    assert made.heads.recall(text)[0] is head
    adopt(made, MORE, keep=False)
    assert made.heads.recall(text)[0] is not head


async def test_providers_of_the_past_are_let_go_of_once_they_are_idle():
    made = gateway(TEXT)
    made.providers["p"].pool.open.add(object())  # an answer runs
    busy = adopt(made, MORE, keep=False)
    adopt(made, MORE, keep=False)
    assert made._retired == [busy]
    busy.pool.open.clear()
    adopt(made, MORE, keep=True)
    assert made._retired == []
    await made.close()


class Peer:
    """A transport of which only the client's address is asked."""

    def __init__(self, host: str = "10.0.0.1") -> None:
        self.host = host

    def get_extra_info(self, name: str) -> tuple[str, int]:
        assert name == "peername"
        return self.host, 1


def nothing_there() -> BadRequest:
    return BadRequest("There is nothing at /v2.", status=404)


def test_a_refusal_without_a_request_is_its_keys_by_the_head():
    made = gateway(TEXT)
    keys = (
        key_of(rpm=1),
        key_of("gone", b"th-" + b"g" * 43, rpm=1, revoked=1),
        key_of("old", b"th-" + b"o" * 43, rpm=1, expires=1),
    )
    made.keys = table_of(*keys, is_open=True)

    def refused(secret: bytes) -> GatewayError:
        lines = b"GET /v2 HTTP/1.1\r\nHost: g" + (b"\r\nx-api-key: " + secret if secret else b"")
        head = made.heads.recall(lines)[0]
        return made.count_refusal(nothing_there(), None, head, Peer())

    first = refused(SECRET)
    assert first.status == 404 and b"X-RateLimit-Remaining-Requests: 0" in first.header_lines()
    assert (refused(SECRET).status, refused(SECRET).code) == (429, "rate_limit_exceeded")
    assert len(made.refusals) == 0
    others = [b"", b"sk-own", b"th-unknown", b"th-" + b"g" * 43, b"th-" + b"o" * 43]
    for number in range(REFUSALS_A_MINUTE):
        assert refused(others[number % 5]).status == 404
    assert {refused(secret).code for secret in others} == {"too_many_refused_requests"}
    # A head that was not read is nobody's key; and each address is for itself.
    assert made.count_refusal(nothing_there(), None, None, Peer()).status == 429
    assert made.count_refusal(nothing_there(), None, None, Peer("10.0.0.2")).status == 404
    assert len(made.refusals) == 2


def test_hosts_of_one_ipv6_network_are_one_address():
    made = gateway(TEXT)
    hosts = [f"2001:db8:1:2::{number:x}" for number in range(REFUSALS_A_MINUTE)]
    assert {made.count_refusal(nothing_there(), None, None, Peer(host)).status for host in hosts} == {404}
    assert made.count_refusal(nothing_there(), None, None, Peer("2001:db8:1:2:ffff::1")).status == 429
    assert made.count_refusal(nothing_there(), None, None, Peer("2001:db8:1:3::1")).status == 404


@pytest.mark.parametrize("status", [402, 429, 500, 502, 503, 504])
def test_limits_and_faults_of_others_are_not_counted(status):
    made = gateway(TEXT)
    error = GatewayError("x", status=status)
    for _ in range(REFUSALS_A_MINUTE + 1):
        assert made.count_refusal(error, None, None, Peer()) is error
    assert len(made.refusals) == 0
