"""The ends of requests: what one used is written down before the last bytes of its response go out.

So what a client has seen finished is accounted for, whatever becomes of the process. Answers that end in one
turn of the event loop are dealt with together (:mod:`proxy.relay.exchange.batching`), and share one write to
the ledger.
"""

from __future__ import annotations

import logging

from proxy.relay.exchange.batching import LoopTurn, Soon
from proxy.relay.exchange.outbox import MOST
from proxy.storage.ledger_files import Ledger
from proxy.usage.recent import RecentRequests

log = logging.getLogger("tokenhub.request")


class Ending:
    """A complete response whose last bytes are not out yet: an exchange."""

    __slots__ = ()

    def settle(self) -> bytes:
        """Account for it; returns its line for the ledger."""
        raise NotImplementedError

    def send_end(self) -> None:
        """It is accounted for: its last bytes go out, if the client is still there."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """A fault of ours: close the client's connection."""
        raise NotImplementedError


class Completions:
    """Settles the exchanges that end in one turn together.

    :param ledger: where the lines go.
    :param soon: as of :class:`proxy.relay.exchange.batching.LoopTurn`.
    """

    def __init__(self, ledger: Ledger, soon: Soon | None = None) -> None:
        self.recent = RecentRequests()
        self._ledger = ledger
        self._held: list[Ending] = []
        self._turn = LoopTurn(self.flush, soon)

    def hold(self, ending: Ending, now: float) -> None:
        """Settle and end a response at the end of this turn; at once where it comes alone.

        :param now: monotonic seconds.
        """
        self._held.append(ending)
        if not self._turn.defer(now) or len(self._held) >= MOST:
            self.flush()

    def flush(self) -> None:
        """Account for all that is held, then send it."""
        held, self._held = self._held, []
        lines = []
        ended = []
        for ending in held:
            try:
                lines.append(ending.settle())
                ended.append(ending)
            except Exception:
                _cut_off(ending)
        self._write(lines)
        for ending in ended:
            try:
                ending.send_end()
            except Exception:
                _cut_off(ending)

    def note(self, line: bytes, was_sent: bool) -> None:
        """A request is over, but not by the end of a response.

        :param line: for the ledger.
        :param was_sent: a provider was asked, so there is something to account for.
        """
        if was_sent:
            self._write([line])
        else:
            self.recent.add(line, 1)

    def _write(self, lines: list[bytes]) -> None:
        if not lines:
            return
        block = b"".join(lines)
        self.recent.add(block, len(lines))
        self._ledger.write(block)


def _cut_off(ending: Ending) -> None:
    """A fault of ours with one answer must not keep the others waiting."""
    log.exception("internal error: the end of a response is lost")
    ending.cut_off()
