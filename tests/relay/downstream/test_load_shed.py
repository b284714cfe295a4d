"""When requests are turned away: by the rule alone, and in a gateway that has more to do than it can."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.relay.downstream.load_shed import SPAN_S, Overload
from tests.support.fakes import RawClient

LIMIT_S = 0.1
STEP_S = 0.1


def looks(overload: Overload, lengths: list[float], begin: float = 0.0) -> list[bool]:
    told = []
    for count, length in enumerate(lengths):
        overload.look(length, begin + count * STEP_S)
        told.append(overload.is_on)
    return told


def test_a_second_of_long_turns_is_an_overload_and_a_burst_is_none():
    overload = Overload(LIMIT_S)
    assert not any(looks(overload, [0.0, 5.0, 0.0, *[LIMIT_S] * 9, 0.09, *[9.0] * 9]))
    overload = Overload(LIMIT_S)
    told = looks(overload, [0.0, *[LIMIT_S] * 20])
    assert told.index(True) == round(SPAN_S / STEP_S)
    assert all(told[10:])


def test_it_begins_and_ends_once():
    overload = Overload(LIMIT_S)
    changes = [overload.look(length, at * STEP_S) for at, length in enumerate([0.0, *[1.0] * 15, 0.0, 0.0])]
    assert [at for at, change in enumerate(changes) if change] == [10, 16]


def test_while_it_is_on_turns_of_a_quarter_end_it():
    overload = Overload(LIMIT_S)
    looks(overload, [0.0, *[1.0] * 12])
    overload.look(LIMIT_S / 4, 1.3)
    assert overload.is_on  # else it would go on and off with each turn that is shorter for it
    overload.look(LIMIT_S / 4 - 1e-6, 1.4)
    assert not overload.is_on


def test_no_limit_no_overload():
    overload = Overload(float("inf"))
    assert not any(looks(overload, [1e9] * 50))


def let_in_s(overload: Overload) -> float:
    """For how long of a turn requests are let in."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if overload.turns_away(middle) else (middle, high)
    return low


@pytest.mark.parametrize("weight", [0.9, 1.1, 1.3, 1.5])
def test_turns_become_half_as_long_as_the_limit(weight):
    """What is let in has further work in the same turn, and there is a rest that is always there."""
    overload = Overload(LIMIT_S)
    looks(overload, [0.0, *[1.0] * 10])
    for count in range(60):
        overload.look(0.01 + weight * let_in_s(overload), 1.1 + count * STEP_S)
    assert overload.is_on
    assert 0.01 + weight * let_in_s(overload) == pytest.approx(LIMIT_S / 2, rel=0.25)


@given(st.lists(st.floats(0, 100), max_size=60))
def test_some_are_let_in_whatever_happens(lengths):
    overload = Overload(LIMIT_S)
    looks(overload, [0.0, *[1.0] * 11, *lengths])
    assert 0.25 * LIMIT_S - 1e-9 <= let_in_s(overload) <= 0.5 * LIMIT_S + 1e-9


def test_what_it_shows():
    assert repr(Overload(LIMIT_S)) == "<Overload off limit=100ms share=0.50>"


CONFIG = """
[server]
listen = ["127.0.0.1:0"]
shed_after = "20ms"
[providers.p]
base_url = "{url}"
auth = "none"
[models."p/m"]
"""


class Lasting(Overload):
    """It is on, and stays on."""

    def __init__(self) -> None:
        super().__init__(LIMIT_S)
        self.is_on = True

    def look(self, longest_s: float, now: float) -> bool:
        return False


@pytest.mark.interpreted
async def test_a_request_is_turned_away_and_the_connection_stays(start, provider):
    server = await start(CONFIG.format(url=provider.url))
    gateway = server.gateway
    assert gateway.overload.limit_s == 0.02
    gateway.overload = Lasting()
    gateway.outbox.turn.lasted_s = lambda now: 1.0  # a turn whose end is far
    client = await RawClient.connect(server)
    await client.post(b'{"model":"p/m"}')
    status, headers, body = await client.response()
    assert (status, headers[b"retry-after"], headers[b"x-should-retry"]) == (503, b"1", b"true")
    assert json.loads(body)["error"]["code"] == "overloaded"
    assert b"connection" not in headers
    # A body that is still on its way is read and dropped.
    await client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 15\r\n\r\n")
    assert (await client.response())[0] == 503
    await client.send(b'{"model":"p/m"}')
    del gateway.outbox.turn.lasted_s
    await client.post(b'{"model":"p/m"}')
    assert (await client.response())[0] == 200
    assert (gateway.counters.shed, provider.connections) == (2, 1)


async def test_the_gateway_looks_at_each_tick_and_says_what_it_finds(start, provider, caplog):
    server = await start(CONFIG.format(url=provider.url))
    gateway = server.gateway
    at = 1e9  # of a clock of its own: what is real comes between, and is earlier
    for count in range(12):
        gateway.outbox.turn.longest_s = 0.05 if count else 0.0
        gateway.tick(at + count * STEP_S)
        assert gateway.outbox.turn.longest_s == 0.0
    assert "overloaded: requests wait 50 ms; shedding load with 503" in caplog.text
    gateway.counters.shed += 7
    gateway.tick(at + 1.2)
    assert "overload is over; 7 requests were answered 503" in caplog.text


async def test_a_limit_of_zero_is_none(start, provider):
    server = await start(CONFIG.format(url=provider.url).replace("20ms", "0s"))
    assert server.gateway.overload.limit_s == float("inf")
