"""Stands in for a client that has left, so that the response is drained and billed by the provider's count.

That is ``on_disconnect = "drain"``, of a key or an alias. It is bounded in number and time, as tokens that
are generated for nobody cost money too.
"""

from __future__ import annotations

from typing import Final

from proxy.endpoints import MADE_AT_ONCE
from proxy.errors import GatewayError
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.client import Client
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.relay.exchange.timers import look_at

# At most this many per process at a time, and each for this long; beyond that an estimate is charged.
MAX_DETACHED: Final = 100
DETACHED_S: Final = 300.0


def should_drain(exchange: ExchangeState, attempt: Attempt) -> bool:
    """Return whether a response is drained for a client that has left, if there is anything to come: the key
    decides, else the alias."""
    context = exchange.request.context
    runs = attempt.is_at_work() and not attempt.is_said_to_end() and exchange.hedged_attempt is None
    if not runs or context.draining or context.detached >= MAX_DETACHED:
        return False
    wanted = None if exchange.request.grant is None else exchange.request.grant.key.on_disconnect
    if wanted is None and attempt.pool.alias is not None:
        wanted = attempt.pool.alias.on_disconnect
    at_once = exchange.request.endpoint in MADE_AT_ONCE
    if (
        wanted is None
        and exchange.request.grant is not None
        and (not exchange.request.streamed or at_once or exchange.request.refers)
    ):
        # Of a plain response, and of pictures, nothing is seen before the end: it must not be had for
        # nothing. Of a prompt whose size only the provider knows a whole window would be charged.
        return exchange.request.grant.limits_money
    return wanted == "drain"


class DetachedClient(Client):
    """Stands in for a client that has left: what is sent is dropped, and the deadlines of its response are
    kept as a connection keeps them."""

    __slots__ = ("_until", "exchange")

    def __init__(self, exchange: ExchangeState, now: float) -> None:
        super().__init__()
        self.exchange = exchange
        self._until = now + DETACHED_S
        self.wake_at = now  # the next tick looks at what is due
        context = exchange.request.context
        context.connections.add(self)
        context.detached += 1

    def on_wake(self, now: float) -> None:
        self.wake_at = self._until
        if now >= self._until:
            self.abort()
        else:
            self.wake_by(look_at(self.exchange, now))

    def abort(self) -> None:
        """End it before its time: what came until now is charged, by an estimate."""
        self.exchange.abandon()
        self._leave()

    def _leave(self) -> None:
        context = self.exchange.request.context
        if self in context.connections:
            context.connections.discard(self)
            context.detached -= 1

    def is_closing(self) -> bool:
        return False

    def send(self, data: bytes) -> None:
        """Nothing is sent."""

    def send_soon(self, data: bytes, now: float) -> None:
        """Nothing is sent."""

    def pause_reading(self, pause: bool) -> None:
        """Nothing is read."""

    def keeps_alive(self) -> bool:
        return False

    def close_if_idle(self) -> None:
        """It is never idle: its response is still to come."""

    def on_exchange_done(self, reusable: bool) -> None:
        self._leave()

    def answer_error(self, error: GatewayError, request_id: bytes, names: bytes = b"") -> None:
        self._leave()

    def cut(self, gently: bool) -> None:
        self._leave()

    def refuse(self, error: GatewayError) -> None:
        self.abort()

    def __repr__(self) -> str:
        return f"<DetachedClient {self.exchange!r}>"
