"""What comes alone is done at once, what comes together at the end of the turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from proxy.turn import LONG_S, TOGETHER_S, Rest, Turn


def test_together_is_at_the_end_of_a_turn_and_alone_at_once():
    done: list[str] = []
    ends: list[Callable[[], None]] = []
    turn = Turn(lambda: done.append("done"), ends.append)
    assert not turn.puts_off(1.0)
    assert not turn.puts_off(1.0 + 1.1 * TOGETHER_S)
    assert turn.puts_off(1.0 + 1.2 * TOGETHER_S)
    assert turn.puts_off(2.0)  # a long turn: it waits with what waits already
    assert (len(ends), done) == (1, [])
    ends.pop()()
    assert done == ["done"]
    assert turn.puts_off(2.0 + 0.5 * TOGETHER_S)
    assert len(ends) == 1
    ends.pop()()
    assert not turn.puts_off(3.0)


async def test_the_event_loop_ends_turns():
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    turn = Turn(lambda: ended.set_result(None))
    turn.puts_off(1.0)
    assert turn.puts_off(1.0)
    await asyncio.wait_for(ended, 5)


def turn_of(begun_at: float) -> tuple[Turn, list[Callable[[], None]]]:
    ends: list[Callable[[], None]] = []
    turn = Turn(lambda: None, ends.append)
    turn.puts_off(begun_at)
    turn.puts_off(begun_at)
    return turn, ends


@pytest.mark.interpreted
def test_how_long_a_turn_lasts():
    turn, [end] = turn_of(5.0)
    assert turn.lasted_s(5.25) == 0.25
    end()
    assert turn.lasted_s(6.0) == 0.0
    assert turn.longest_s == pytest.approx(monotonic() - 5.0, abs=60)
    longest = turn.longest_s
    turn.puts_off(6.0)
    turn._due_at = monotonic()
    turn._end()
    assert turn.longest_s == longest  # and not the last


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
    rest = Rest(turn, ends.append)
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
    assert not Rest(turn).takes(one, 9.0)
    assert one.told == []
