"""The connections to one provider: which is used again, which is kept, and which is closed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from proxy.config.settings import ProviderConfig
from proxy.relay.upstream.connection import ConnectionOwner, ProviderConnection, Receiver
from proxy.relay.upstream.dial import dial
from proxy.relay.upstream.resolve import Addresses
from proxy.relay.upstream.tls import ProviderTLS

# Providers and the balancers before them close idle connections after 60 s and more. Leaving a little earlier
# keeps most requests off a connection that is being closed at that very moment.
IDLE_EXPIRY_S: Final = 55.0


class ConnectionPool(ConnectionOwner):
    """All connections to one provider. Idle ones are taken newest first, so that the oldest can expire."""

    def __init__(self, provider: ProviderConfig, tls: ProviderTLS | None, connect_s: float) -> None:
        super().__init__(provider.name)
        self.open: set[ProviderConnection] = set()
        self._host = provider.host
        self._addresses = Addresses(provider.host, provider.port)
        self._tls = tls
        self._connect_s = connect_s
        self._idle: list[ProviderConnection] = []
        self._dials: set[asyncio.Task[None]] = set()
        self._retired = False

    def take(self) -> ProviderConnection | None:
        """An idle connection, or None: then :meth:`dial`."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if not connection.transport.is_closing():
                return connection
        return None

    def opened(self, connection: ProviderConnection) -> None:
        """The connection is open."""
        self.open.add(connection)

    def put(self, connection: ProviderConnection, now: float) -> None:
        """Keep a connection whose exchange ended cleanly."""
        if self._retired:
            connection.transport.abort()
            return
        if self._tls is not None and connection.served == 1:
            self._tls.remember(connection.transport)
        if now > connection.kept_until:
            connection.transport.abort()
            return
        connection.idle_since = now
        self._idle.append(connection)

    def forget(self, connection: ProviderConnection) -> None:
        """The connection is closed."""
        self.open.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def dial(self, receiver: Receiver, connect_s: float = 0.0) -> asyncio.Task[None]:
        """Open a connection for ``receiver``, which hears of it through on_connected or on_connect_failed.

        :param connect_s: seconds it may take; 0: as is usual with this provider.
        """
        connection = ProviderConnection(self)
        limit_s = connect_s or self._connect_s
        dialling = dial(receiver, connection, self._addresses, self._tls, self._host, limit_s)
        task = asyncio.get_running_loop().create_task(dialling)
        self._dials.add(task)  # the loop keeps only weak references
        task.add_done_callback(self._dials.discard)
        return task

    def expire(self, now: float) -> None:
        """Close connections idle for too long. ``now`` is monotonic seconds."""
        idle = self._idle
        while idle and now - idle[0].idle_since > IDLE_EXPIRY_S:
            idle.pop(0).transport.abort()

    def retire(self) -> None:
        """The provider left the configuration, or changed: what runs may finish, nothing is kept."""
        self._retired = True
        for connection in self._idle.copy():
            connection.transport.abort()

    async def close(self) -> None:
        """Close everything."""
        for connection in list(self.open):
            connection.transport.abort()
        for task in list(self._dials):
            task.cancel()
        if self._dials:
            await asyncio.wait(self._dials)

    def is_busy(self) -> bool:
        """A connection is open, or being opened."""
        return bool(self.open or self._dials)

    def snapshot(self) -> dict[str, int]:
        """Counts for metrics and tests."""
        return {"open": len(self.open), "idle": len(self._idle), "dialling": len(self._dials)}

    def __repr__(self) -> str:
        return f"<ConnectionPool {self.name} {self.snapshot()}>"
