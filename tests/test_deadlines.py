"""What is due, with a clock that the test holds. The same over real sockets is in test_exchange.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from proxy.config import TimeoutsConfig
from proxy.deadlines import look_at

NEVER = float("inf")


class Exchange:
    """As much of an exchange as is looked at; it notes what is done to it."""

    def __init__(self, **facts: object) -> None:
        self.did: list[object] = []
        self.answer = None
        self.body = SimpleNamespace(done=True)
        self.first_byte_s = 60.0
        self.deadline_at = 100.0
        self.upstream_full_at = self.client_full_at = self.progress_at = self.kept_alive_at = 0.0
        self.keepalive_s = 0.0
        self.gateway = SimpleNamespace(timeouts=TimeoutsConfig(idle_s=120, client_write_s=50))
        self.client = SimpleNamespace(
            cut=lambda gently: self.did.append(("cut", gently)),
            transport=SimpleNamespace(write=self.did.append),
        )
        self.under_way = True
        self.__dict__.update(facts)

    def is_under_way(self) -> bool:
        return self.under_way

    def fail(self, outcome: str, what: str, status: int, code: str) -> None:
        self.did.append((outcome, status, code))

    def break_off(self, what: str) -> None:
        self.did.append(what)

    def abandon(self) -> None:
        self.did.append("abandoned")


def answer(between: bool = True) -> SimpleNamespace:
    return SimpleNamespace(is_between_events=lambda: between, wrap_event=lambda event, last: event)


def test_before_the_answer():
    exchange = Exchange()
    assert look_at(exchange, 99.9) == 100.0
    assert exchange.did == []
    assert look_at(exchange, 100.0) == NEVER
    assert exchange.did == [("timeout", 504, "provider_timeout")]


def test_nothing_is_due_while_the_body_gathers():
    assert look_at(Exchange(under_way=False), 1e9) == NEVER


def test_a_request_on_its_way_is_not_late_but_has_to_be_taken():
    exchange = Exchange(body=SimpleNamespace(done=False))
    assert look_at(exchange, 500.0) == 560.0
    exchange.upstream_full_at = 500.0
    assert look_at(exchange, 559.0) == 560.0
    assert look_at(exchange, 560.0) == NEVER
    assert exchange.did == [("timeout", 504, "provider_timeout")]


def test_a_silent_answer():
    exchange = Exchange(answer=answer(), progress_at=10.0)
    assert look_at(exchange, 129.0) == 130.0
    assert look_at(exchange, 130.0) == NEVER
    assert exchange.did == ["sent nothing for 120 s"]


def test_the_providers_limit_rests_while_the_client_is_full():
    exchange = Exchange(answer=answer(), progress_at=10.0, client_full_at=200.0)
    assert look_at(exchange, 249.0) == 250.0
    assert exchange.did == []
    assert look_at(exchange, 250.0) == NEVER
    assert exchange.did == ["abandoned", ("cut", False)]


@pytest.mark.parametrize("between", [True, False])
def test_comments_keep_a_stream_open(between):
    exchange = Exchange(answer=answer(between), progress_at=10.0, keepalive_s=15.0)
    assert look_at(exchange, 24.0) == 25.0
    assert exchange.did == []
    assert look_at(exchange, 25.0) == 40.0
    assert exchange.did == ([b": keep-alive\n\n"] if between else [])
    assert look_at(exchange, 126.0) == 130.0  # comments are no sign of life of the provider
