"""The place of a client that has left, where the answer is read on for the sake of the provider's own usage.

That is ``on_disconnect = "drain"``, of a key or an alias. It is bounded in number and time, as tokens that
are generated for nobody cost money too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from proxy.endpoints import MADE_AT_ONCE as _AT_ONCE
from proxy.relay.exchange.timers import look_at

if TYPE_CHECKING:
    from proxy.errors import GatewayError
    from proxy.relay.downstream.gateway import Gateway
    from proxy.relay.exchange.attempt import Attempt
    from proxy.relay.exchange.exchange import Exchange

# So many at a time and process, and each for so long; what is above is charged by an estimate.
MAX_ABSENT: Final = 100
ABSENT_S: Final = 300.0


def is_wanted(exchange: Exchange, attempt: Attempt) -> bool:
    """Whether the rest of an answer is read on for a client that has left, if there is anything to come: what
    the key says counts, else what the alias does."""
    gateway = exchange.gateway
    runs = attempt.is_at_work() and not attempt.is_said_to_end() and exchange.rival is None
    if not runs or gateway.draining or gateway.absent >= MAX_ABSENT:
        return False
    wanted = None if exchange.grant is None else exchange.grant.key.on_disconnect
    if wanted is None and attempt.pool.alias is not None:
        wanted = attempt.pool.alias.on_disconnect
    at_once = exchange.endpoint in _AT_ONCE
    if (
        wanted is None
        and exchange.grant is not None
        and (not exchange.streamed or at_once or exchange.refers)
    ):
        # Of a plain answer, and of pictures, nothing is seen before the end: it must not be had for nothing.
        # Of a prompt whose size only the provider knows a whole window would be charged.
        return exchange.grant.key.monthly_nusd is not None
    return wanted == "drain"


class AbsentClient:
    """Takes what the client would get, and has the deadlines kept that its connection would keep."""

    __slots__ = ("_until", "exchange", "gateway", "is_full", "is_paused", "transport", "wake_at")

    def __init__(self, gateway: Gateway, exchange: Exchange, now: float) -> None:
        self.gateway = gateway
        self.exchange = exchange
        self.is_full = self.is_paused = False
        self._until = now + ABSENT_S
        self.wake_at = now  # the next tick looks at what is due
        self.transport = cast(asyncio.Transport, _Nowhere(self))
        gateway.connections.add(self)
        gateway.absent += 1

    def on_wake(self, now: float) -> None:
        """As of :class:`proxy.relay.downstream.connection.ClientConnection`."""
        self.wake_at = self._until
        if now >= self._until:
            self.stop()
        else:
            self.wake_by(look_at(self.exchange, now))

    def wake_by(self, when: float) -> None:
        """As of any client."""
        self.wake_at = min(self.wake_at, when)

    def stop(self) -> None:
        """End it before its time: what came until now is charged, by an estimate."""
        self.exchange.abandon()
        self._leave()

    def _leave(self) -> None:
        if self in self.gateway.connections:
            self.gateway.connections.discard(self)
            self.gateway.absent -= 1

    def send(self, data: bytes) -> None:
        """There is nobody to get it."""

    def send_soon(self, data: bytes, now: float) -> None:
        """Nor this."""

    def pause_reading(self, pause: bool) -> None:
        """There is nothing to read."""

    def keeps_alive(self) -> bool:
        """There is nobody to ask again."""
        return False

    def close_if_idle(self) -> None:
        """It never is."""

    def on_exchange_done(self, reusable: bool) -> None:
        """The answer has come to its end."""
        self._leave()

    def answer_error(self, error: GatewayError, request_id: bytes, names: bytes = b"") -> None:
        """There came none."""
        self._leave()

    def cut(self, gently: bool) -> None:
        """It was broken off."""
        self._leave()

    def refuse(self, error: GatewayError) -> None:
        """The request can't go on."""
        self.stop()

    def __repr__(self) -> str:
        return f"<AbsentClient {self.exchange!r}>"


class _Nowhere:
    """The transport of a client that has left."""

    __slots__ = ("_client",)

    def __init__(self, client: AbsentClient) -> None:
        self._client = client

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self._client.stop()
