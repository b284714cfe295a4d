"""What is due, with a clock that the test holds. The same over real sockets is in test_matrix.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxy.config.settings import TimeoutsConfig
from proxy.relay.exchange.states import ANSWERING, DONE, HOLDING, TRYING
from proxy.relay.exchange.timers import PATIENCE, SLOWEST_BYTES_PER_S, body_due, look_at
from proxy.routing.time_limits import default_limits

NEVER = float("inf")


class Exchange:
    """As much of an exchange as is looked at; it notes what is done to it."""

    def __init__(self, state: int = TRYING, **facts: Any) -> None:
        self.did: list[object] = []
        self.state = state
        self.response = None
        self.hedge_at = float("inf")
        self.attempt: Attempt | None = None
        self.hedged_attempt: Attempt | None = None
        context = SimpleNamespace(timeouts=TimeoutsConfig(idle_s=120, client_write_s=50))
        body = facts.pop("body", SimpleNamespace(done=True))
        self.request = SimpleNamespace(
            body=body, client_limit_s=NEVER, context=context, begun_at=facts.pop("begun_at", 0.0)
        )
        self.client_full_at = self.kept_alive_at = 0.0
        self.client = SimpleNamespace(
            cut=lambda gently: self.did.append(("cut", gently)), send=self.did.append
        )
        self.__dict__.update(facts)

    def break_off(self, attempt: Attempt, what: str) -> None:
        assert attempt is self.attempt
        self.did.append(what)

    def on_client_gone(self) -> None:
        self.did.append("gone")


class Attempt:
    """As much of an attempt; ``then`` is what follows its deadline in the exchange."""

    def __init__(self, exchange: Exchange, deadline_at: float = 100.0, **facts: Any) -> None:
        self.exchange = exchange
        self.deadline_at = deadline_at
        self.limits = default_limits("chat")[0]
        self.upstream_full_at = self.progress_at = 0.0
        self.response = None
        self.waits_for = 0
        self.record = SimpleNamespace(asked_at=0.0, held_s=0.0)
        self.pool = SimpleNamespace(keepalive_s=0.0)
        self.then = {"state": DONE}
        self.__dict__.update(facts)

    def on_deadline(self) -> None:
        self.exchange.did.append(self)
        self.exchange.__dict__.update(self.then)


def trying(**facts: Any) -> tuple[Exchange, Attempt]:
    exchange = Exchange(**facts)
    attempt = exchange.attempt = Attempt(exchange)
    return exchange, attempt


def answering(between: bool = True, keepalive_s: float = 0.0, **facts: Any) -> Exchange:
    answer = SimpleNamespace(is_between_events=lambda: between, wrap_event=lambda event, last: event)
    exchange = Exchange(ANSWERING, response=answer, **facts)
    pool = SimpleNamespace(keepalive_s=keepalive_s)
    exchange.attempt = Attempt(exchange, progress_at=10.0, pool=pool)
    return exchange


def test_before_the_answer():
    exchange, attempt = trying()
    assert look_at(exchange, 99.9) == 100.0
    assert exchange.did == []
    assert look_at(exchange, 100.0) == NEVER
    assert exchange.did == [attempt]


def test_the_next_attempt_has_its_own_time():
    exchange, attempt = trying()
    attempt.then = {"attempt": Attempt(exchange, 160.0)}
    assert look_at(exchange, 100.0) == 160.0
    assert exchange.did == [attempt]


@pytest.mark.parametrize("state", [HOLDING, DONE])
def test_nothing_is_due_where_nobody_is_asked(state):
    assert look_at(Exchange(state), 1e9) == NEVER
    exchange, _ = trying(state=state)
    assert look_at(exchange, 1e9) == NEVER
    assert exchange.did == []


def test_of_two_the_one_that_is_late():
    exchange, second = trying()
    first = exchange.hedged_attempt = Attempt(exchange, 50.0, then={"hedged_attempt": None})
    assert look_at(exchange, 49.0) == 50.0
    assert exchange.did == []
    assert look_at(exchange, 50.0) == 100.0
    assert exchange.did == [first]
    assert look_at(exchange, 100.0) == NEVER
    assert exchange.did == [first, second]


def test_of_two_both():
    exchange, second = trying()
    first = exchange.hedged_attempt = Attempt(exchange, 50.0, then={"hedged_attempt": None})
    assert look_at(exchange, 1000.0) == NEVER
    assert exchange.did == [first, second]


def test_a_request_on_its_way_is_not_late_but_has_to_be_taken():
    exchange, attempt = trying(body=SimpleNamespace(done=False))
    assert look_at(exchange, 500.0) == 560.0
    attempt.upstream_full_at = 500.0
    assert look_at(exchange, 559.0) == 560.0
    assert exchange.did == []
    assert look_at(exchange, 560.0) == NEVER
    assert exchange.did == [attempt]


def test_a_silent_answer():
    exchange = answering()
    assert look_at(exchange, 129.0) == 130.0
    assert look_at(exchange, 130.0) == NEVER
    assert exchange.did == ["sent nothing for 120 s"]


@pytest.mark.parametrize("held_s", [0.0, 5.0])
def test_white_space_is_no_progress_of_a_plain_answer(held_s):
    """Its time is that to its end, without what its client made it wait. The client's own limit is for its
    first byte."""
    exchange = answering()
    exchange.request.client_limit_s, due = 20.0, 600.0 + held_s
    exchange.attempt.progress_at, exchange.attempt.record.held_s = due - 1.0, held_s
    assert look_at(exchange, due - 0.5) == due
    assert exchange.did == []
    assert look_at(exchange, due) == NEVER
    assert exchange.did == ["was not done within 600 s (limit: [timeouts] total)"]


def test_the_providers_limit_rests_while_the_client_is_full():
    exchange = answering(client_full_at=200.0)
    assert look_at(exchange, 249.0) == 250.0
    assert exchange.did == []
    assert look_at(exchange, 250.0) == NEVER
    assert exchange.did == ["gone", ("cut", False)]


@pytest.mark.parametrize(
    ("endpoint", "between", "sent"),
    [
        ("chat", True, [b": keep-alive\n\n"]), ("chat", False, []),
        ("messages", True, [b'event: ping\ndata: {"type": "ping"}\n\n']), ("messages", False, []),
    ],
)  # fmt: skip
def test_comments_and_pings_keep_a_stream_open(endpoint, between, sent):
    exchange = answering(between, keepalive_s=15.0)
    exchange.request.endpoint = endpoint
    assert look_at(exchange, 24.0) == 25.0
    assert exchange.did == []
    assert look_at(exchange, 25.0) == 40.0
    assert exchange.did == sent
    assert look_at(exchange, 126.0) == 130.0  # comments are no sign of life of the provider


def test_when_a_whole_body_has_to_be_there():
    assert body_due(100.0, 0, 30.0) == 100.0 + PATIENCE * 30.0
    # What comes at the slowest pace has the same patience left, however much it is.
    for seconds in (1, 60, 3600):
        assert body_due(0.0, seconds * SLOWEST_BYTES_PER_S, 2.0) - seconds == PATIENCE * 2.0
