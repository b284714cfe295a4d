"""A stand-in for the attempt, and pools of connections to one provider."""

from __future__ import annotations

from proxy.config import parse
from proxy.tls import ssl_context
from proxy.upstream import ConnectionPool, ProviderConnection


class Attempt:
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
        self.charged_at = 0.0

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

    def is_at_work(self) -> bool:
        return True

    def charge_so_far(self, now: float) -> None:
        self.charged_at = now

    def on_upstream_lost(self, why: str) -> None:
        self.lost = why
        assert self.connection is not None
        self.connection.attempt = None
        self.connection.transport.abort()


def pool_of(url: str, connect_s: float = 2.0) -> ConnectionPool:
    provider = parse(f'[providers.p]\nbase_url = "{url}"\n[models."p/m"]\n').providers["p"]
    return ConnectionPool(provider, ssl_context(provider), connect_s)
