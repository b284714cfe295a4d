"""Connections rest until a long turn has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from proxy.relay.downstream.resume_queue import LONG_S, ResumeQueue
from tests.support.receiver import turn_of


class Connection:
    def __init__(self) -> None:
        self.told: list[bool | str] = []

    def pause_reading(self, pause: bool) -> None:
        self.told.append(pause)

    def read_on(self) -> None:
        self.told.append("on")


@pytest.mark.interpreted
def test_connections_rest_in_a_long_turn_only():
    turn, _ = turn_of(5.0)
    ends: list[Callable[[], None]] = []
    rest = ResumeQueue(turn, ends.append)
    one: Any = Connection()
    other: Any = Connection()
    assert not rest.takes(one, 5.0 + 0.9 * LONG_S)
    assert rest.takes(one, 5.0 + 1.1 * LONG_S)
    assert rest.takes(other, 5.0 + 1.2 * LONG_S)
    assert (one.told, other.told) == ([True], [True])
    [end] = ends
    end()
    assert (one.told, other.told) == ([True, "on"], [True, "on"])
    assert rest.takes(one, 5.0 + 1.3 * LONG_S)
    assert len(ends) == 2


@pytest.mark.interpreted
def test_nothing_rests_between_turns():
    turn, [end] = turn_of(5.0)
    end()
    one: Any = Connection()
    assert not ResumeQueue(turn).takes(one, 9.0)
    assert one.told == []
