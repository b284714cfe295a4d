"""The ends of requests: what one used is written down before the last bytes of its answer go out.

So what a client has seen finished is accounted for, whatever becomes of the process. Answers that end in one
turn of the event loop are held until its end, and dealt with together: they share one write to the ledger,
and the same work done for many in a row finds its code in the processor's caches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.closing import close
from proxy.ledger import Ledger
from proxy.recent import Latest

if TYPE_CHECKING:
    from proxy.attempt import Attempt
    from proxy.exchange import Exchange

log = logging.getLogger("tokenhub.endings")

# Answers that end so soon after each other most likely do in one turn. One that ends alone is not held, as
# another turn costs calls of the system.
_TOGETHER_S: Final = 100e-6


class Endings:
    """See the module's text.

    :param ledger: where the lines go.
    :param soon: has something called in the next turn; None: the way of the running event loop.
    """

    def __init__(self, ledger: Ledger, soon: Callable[[Callable[[], None]], object] | None = None) -> None:
        self.latest = Latest()
        self._ledger = ledger
        self._soon = soon
        self._held: list[Attempt] = []
        self._last_at = 0.0  # when the last one ended

    def hold(self, attempt: Attempt) -> None:
        """The answer of ``attempt`` is complete; its last bytes are in ``attempt.pending``."""
        held, now = self._held, attempt.progress_at
        is_alone = now - self._last_at > _TOGETHER_S
        self._last_at = now
        held.append(attempt)
        if len(held) > 1:
            return
        if is_alone:
            self.let_go()
        else:
            # Not by the end of this one: the loop sends what was written before it calls anything.
            (self._soon or asyncio.get_running_loop().call_soon)(self.let_go)

    def let_go(self) -> None:
        """Account for all that is held, then send it."""
        held, self._held = self._held, []
        lines = []
        ended = []
        for attempt in held:
            try:
                lines.append(attempt.exchange.settle(attempt))
                ended.append(attempt)
            except Exception:
                _cut_off(attempt)
        self._write(lines)
        for attempt in ended:
            try:
                attempt.exchange.on_end(attempt)
            except Exception:
                _cut_off(attempt)

    def note(self, exchange: Exchange, status: int, now: float, others: int) -> None:
        """A request is over, but not by the end of an answer; see :func:`proxy.closing.close`."""
        was_sent = exchange.attempt is not None
        line = close(exchange, status, now, others)
        if was_sent:
            self._write([line])
        else:  # nobody was asked: there is nothing to account for
            self.latest.add(line, 1)

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        block = b"".join(lines)
        self.latest.add(block, len(lines))
        self._ledger.write(block)


def _cut_off(attempt: Attempt) -> None:
    """A fault of ours with one answer must not keep the others waiting."""
    log.exception("a fault in the gateway: the end of an answer is lost")
    attempt.client.cut(False)
