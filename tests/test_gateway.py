"""What is prepared from the configuration: request heads, the names of an answer, ids."""

from __future__ import annotations

import random

import pytest

from proxy.catalog import Catalog
from proxy.config import parse
from proxy.gateway import Gateway
from proxy.headers import recall_request_head
from proxy.provider import Provider


def gateway(text: str, simulated: bool = False) -> Gateway:
    config = parse(text)
    providers = {
        name: Provider(each, "k", 1.0, simulated=simulated) for name, each in config.providers.items()
    }
    catalog = Catalog(config, dict.fromkeys(providers, True), 0)
    return Gateway(config, catalog, providers, lambda: None, random.Random(0))


TEXT = """
[providers.p]
base_url = "http://127.0.0.1:9/v1"
api_key_env = "K"
[models."p/m"]
[aliases]
a = ["p/m"]
"""


def test_request_ids_never_repeat():
    one, other = gateway(TEXT), gateway(TEXT)
    ids = [made.next_request_id() for made in (one, other) for _ in range(5000)]
    assert len(set(ids)) == len(ids)
    assert all(len(id) == 24 and id.startswith(b"req_") for id in ids)


@pytest.mark.parametrize(
    ("name", "strategy", "told"), [("p/m", None, b"pinned"), ("a", None, b"latency"), ("m", "cost", b"cost")]
)
@pytest.mark.parametrize("simulated", [False, True])
def test_the_names_of_an_answer(name, strategy, told, simulated):
    made = gateway(TEXT, simulated)
    pool = made.catalog.resolve(name, "chat", strategy)
    names = made.routes.response_names(pool.members[0], pool)
    assert set(names.split(b"\r\n")) == {
        b"X-Inferoute-Provider: p",
        b"X-Inferoute-Model: p/m",
        b"X-Inferoute-Strategy: " + told,
        b"X-Inferoute-Attempts: ",
        *([b"X-Inferoute-Simulated: 1"] if simulated else []),
    }
    assert names.endswith(b"X-Inferoute-Attempts: ")  # the story goes on from here


def test_ready_needs_one_provider_with_credentials():
    text = TEXT + '[providers.q]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "Q"\n[models."q/m"]\n'
    config = parse(text)
    for keys, ready in (({}, False), ({"p": "k"}, True), ({"p": "k", "q": "k"}, True)):
        providers = {
            n: Provider(each, keys.get(n), 1.0, simulated=False) for n, each in config.providers.items()
        }
        made = Gateway(config, Catalog(config, {}, 0), providers, lambda: None, random.Random(0))
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
    assert before.catalog.model("b") is None
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
    head = recall_request_head(text)[0]
    assert recall_request_head(text)[0] is head
    adopt(made, MORE, keep=False)
    assert recall_request_head(text)[0] is not head


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
