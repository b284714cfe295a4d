"""Connections that are not read from until a long turn of the event loop has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from proxy.relay.exchange.batching import LoopTurn, Soon
from proxy.relay.exchange.client import Client

# A turn that has lasted longer is a long one.
LONG_S: Final = 0.01


class ResumeQueue:
    """Connections that are not read from until a long turn has ended, so that it ends.

    :param turn: the turn. :param soon: as of :class:`proxy.relay.exchange.batching.LoopTurn`.
    """

    def __init__(self, turn: LoopTurn, soon: Soon | None = None) -> None:
        self._turn = turn
        self._soon = soon
        self._connections: list[Client] = []

    def until_next_turn(self, go_on: Callable[[], None]) -> None:
        """Have ``go_on`` called in the next turn, before anything is read in it."""
        (self._soon or asyncio.get_running_loop().call_soon)(go_on)

    def takes(self, connection: Client, now: float) -> bool:
        """Return whether the connection may not be read from now; it is told when it may."""
        if self._turn.lasted_s(now) <= LONG_S:
            return False
        if not self._connections:
            (self._soon or asyncio.get_running_loop().call_soon)(self._end)
        self._connections.append(connection)
        connection.pause_reading(True)
        return True

    def _end(self) -> None:
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.read_on()
