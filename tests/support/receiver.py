"""A stand-in for the attempt, and pools of connections to one provider."""

from __future__ import annotations

from collections.abc import Callable

from proxy.config.parse import parse
from proxy.relay.exchange.batching import LoopTurn
from proxy.relay.upstream.connection import ProviderConnection, Receiver
from proxy.relay.upstream.pool import ConnectionPool
from proxy.relay.upstream.tls import ssl_context
from proxy.wire.response_head import HEAD_TOO_LONG
from tests.support.fakes import Call, until

REQUEST = b"POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Attempt(Receiver):
    """Records what a connection tells its attempt."""

    def __init__(self) -> None:
        self.connection: ProviderConnection | None = None
        self.failed: str | None = None
        self.is_ours = False
        self.lost: str | None = None
        self.head = None
        self.data = b""
        self.done = False
        self.is_full = False
        self.is_charged = False

    def on_connected(self, connection: ProviderConnection) -> None:
        self.connection = connection

    def on_connect_failed(self, why: str, is_ours: bool = False) -> None:
        self.failed, self.is_ours = why, is_ours

    def on_response_head(self, head, body, more) -> bool:
        self.head = head
        return True

    def on_response_data(self, data, body) -> None:
        self.data += data + (body.closing if body.done else b"")
        self.done = self.done or body.done

    def on_upstream_full(self, full: bool) -> None:
        self.is_full = full

    def on_head_too_long(self, is_success: bool) -> None:
        self.is_charged = is_success
        self.on_upstream_lost(HEAD_TOO_LONG)

    def on_upstream_lost(self, why: str) -> None:
        self.lost = why
        assert self.connection is not None
        self.connection.receiver = None
        self.connection.transport.abort()


def pool_of(url: str, connect_s: float = 2.0) -> ConnectionPool:
    provider = parse(f'[providers.p]\nbase_url = "{url}"\n[models."p/m"]\n').providers["p"]
    return ConnectionPool(provider, ssl_context(provider), connect_s)


async def dial(pool: ConnectionPool) -> ProviderConnection:
    attempt = Attempt()
    await pool.dial(attempt)
    assert attempt.connection is not None, attempt.failed
    return attempt.connection


def begin(connection: ProviderConnection) -> Attempt:
    """An attempt on a connection; nothing is sent yet."""
    attempt = Attempt()
    attempt.connection = connection
    connection.start(attempt)
    return attempt


async def ask(connection: ProviderConnection) -> Attempt:
    """One request on a connection; returns its attempt, once it is over one way or the other."""
    attempt = begin(connection)
    connection.transport.write(REQUEST)
    await until(lambda: attempt.done or attempt.lost)
    return attempt


def answering(answer: bytes, then_close: bool = False):
    async def script(call: Call) -> None:
        while True:
            await call.request()
            await call.send(answer)
            if then_close:
                return

    return script


async def answer_early(call: Call) -> None:
    """Before the end of the request."""
    await call.head()
    await call.send(PLAIN)
    await call.gone()


def turn_of(begun_at: float) -> tuple[LoopTurn, list[Callable[[], None]]]:
    ends: list[Callable[[], None]] = []
    turn = LoopTurn(lambda: None, ends.append)
    turn.defer(begun_at)
    turn.defer(begun_at)
    return turn, ends
