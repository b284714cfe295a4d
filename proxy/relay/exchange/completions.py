"""The ends of requests: what one used is written down before the last bytes of its answer go out.

So what a client has seen finished is accounted for, whatever becomes of the process. Answers that end in one
turn of the event loop are dealt with together (:mod:`proxy.relay.exchange.batching`), and share one write to
the ledger.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from proxy.relay.exchange.batching import Soon, Turn
from proxy.relay.exchange.closing import close
from proxy.relay.exchange.outbox import MOST
from proxy.storage.ledger_files import Ledger
from proxy.usage.recent import Latest

if TYPE_CHECKING:
    from proxy.relay.exchange.attempt import Attempt
    from proxy.relay.exchange.exchange import Exchange

log = logging.getLogger("tokenhub.request")


class Endings:
    """See the module's text.

    :param ledger: where the lines go.
    :param soon: as of :class:`proxy.relay.exchange.batching.Turn`.
    """

    def __init__(self, ledger: Ledger, soon: Soon | None = None) -> None:
        self.latest = Latest()
        self._ledger = ledger
        self._held: list[Attempt] = []
        self._turn = Turn(self.let_go, soon)

    def hold(self, attempt: Attempt) -> None:
        """The answer of ``attempt`` is complete; its last bytes are in ``attempt.pending``."""
        self._held.append(attempt)
        if not self._turn.puts_off(attempt.progress_at) or len(self._held) >= MOST:
            self.let_go()

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
        """A request is over, but not by the end of an answer; see
        :func:`proxy.relay.exchange.closing.close`."""
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
