"""What comes alone is done at once, what comes together at the end of the turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from proxy.relay.exchange.batching import TOGETHER_S, LoopTurn
from tests.support.receiver import turn_of


def test_together_is_at_the_end_of_a_turn_and_alone_at_once():
    done: list[str] = []
    ends: list[Callable[[], None]] = []
    turn = LoopTurn(lambda: done.append("done"), ends.append)
    assert not turn.defer(1.0)
    assert not turn.defer(1.0 + 1.1 * TOGETHER_S)
    assert turn.defer(1.0 + 1.2 * TOGETHER_S)
    assert turn.defer(2.0)  # a long turn: it waits with what waits already
    assert (len(ends), done) == (1, [])
    ends.pop()()
    assert done == ["done"]
    assert turn.defer(2.0 + 0.5 * TOGETHER_S)
    assert len(ends) == 1
    ends.pop()()
    assert not turn.defer(3.0)


async def test_the_event_loop_ends_turns():
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    turn = LoopTurn(lambda: ended.set_result(None))
    turn.defer(1.0)
    assert turn.defer(1.0)
    await asyncio.wait_for(ended, 5)


@pytest.mark.interpreted
def test_how_long_a_turn_lasts():
    turn, [end] = turn_of(5.0)
    assert turn.lasted_s(5.25) == 0.25
    end()
    assert turn.lasted_s(6.0) == 0.0
    assert turn.longest_s == pytest.approx(monotonic() - 5.0, abs=60)
    longest = turn.longest_s
    turn.defer(6.0)
    turn._due_at = monotonic()
    turn._end()
    assert turn.longest_s == longest  # and not the last
