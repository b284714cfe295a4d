"""The state of an exchange: its calls are the exchange's, and room is asked for beside what costs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxy.relay.exchange.attempt import AttemptOwner
from proxy.relay.exchange.charge import NO_CHARGE
from proxy.relay.exchange.completions import Ending
from proxy.relay.exchange.exchange import Exchange
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.usage.tokens import Usage


def test_the_exchange_has_all_calls():
    for base in (Ending, AttemptOwner, ExchangeState):
        calls = {name for name, value in vars(base).items() if callable(value) and not name.startswith("_")}
        lacking = {name for name in calls if getattr(Exchange, name) is getattr(base, name)}
        assert lacking <= {"may_cost_more", "was_sent"}


@pytest.mark.parametrize(
    ("is_over", "charge", "asks"),
    [
        (True, NO_CHARGE, False),  # a failure, which costs nothing
        (False, NO_CHARGE, True),
        (True, (Usage(1, 0, 0, 1), 5), True),
    ],
)
def test_room_is_asked_for_beside_what_costs(is_over, charge, asks):
    asked: list[Any] = []

    class Request:
        def may_cost_more(self, pool: str, now: float) -> bool:
            asked.append((pool, now))
            return False

    state = ExchangeState(Request(), None)  # type: ignore[arg-type]
    attempt: Any = SimpleNamespace(record=SimpleNamespace(is_over=is_over), charge=charge, pool="pool")
    assert state.may_cost_more(attempt, 3.0) is not asks
    assert asked == ([("pool", 3.0)] if asks else [])
