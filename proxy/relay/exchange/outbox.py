"""Batches small writes to clients and providers: they go out together at the end of a turn."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from proxy.relay.exchange.batching import LoopTurn, Soon

log = logging.getLogger("tokenhub.request")

# Larger ones cost more than waking their reader does, and would be held in memory by the hundred.
_SMALL_BYTES: Final = 16 << 10
# More gain nothing by going out together, and while turns are long the first of them would wait for long.
MOST: Final = 64


class WriteBatch:
    """Writes that wait. Nothing overtakes what waits: code that writes to a transport itself, or closes it,
    calls :meth:`flush` before.

    :param soon: as of :class:`proxy.relay.exchange.batching.LoopTurn`.
    """

    def __init__(self, soon: Soon | None = None) -> None:
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []
        self.turn = LoopTurn(self.flush, soon)

    def write(self, transport: asyncio.Transport, data: bytes, now: float) -> None:
        """Write at the end of the turn; at once what is large or comes alone.

        :param now: monotonic seconds.
        """
        if len(data) <= _SMALL_BYTES and self.turn.defer(now):
            self._waiting.append((transport, data))
            if len(self._waiting) >= MOST:
                self.flush()
            return
        if self._waiting:
            self.flush()
        transport.write(data)

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        for transport, data in waiting:
            if transport.is_closing():
                continue
            try:
                transport.write(data)
            except Exception:  # a fault with one must not lose what is for the others
                log.exception("internal error: a message is lost")
                transport.abort()
