"""Limits on connections of clients: in total, and from one address."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from proxy.errors import Unavailable

if TYPE_CHECKING:
    import asyncio

    from proxy.config.settings import ServerConfig

# Those above the limit are told so, and keep their connection for the two seconds that this may take. If they
# are more than this, they are closed without a word: each takes a descriptor, and providers need some too.
MAX_TOLD = 1000
# A network gives a host a /64 of its own (RFC 6177), so that is what counts as one client.
_IPV6_BYTES = 8


class ConnectionLimits:
    """Counts the connections of clients, and refuses those above the limits.

    :param connections: those that there are; they are added and taken out here.
    """

    def __init__(self, connections: set[Any]) -> None:
        self.connections = connections
        self._inside: dict[object, bytes] = {}  # whose client is counted, by connection
        self._count: dict[bytes, int] = {}

    def enter(
        self, connection: object, transport: asyncio.Transport, server: ServerConfig, elsewhere: int,
        is_draining: bool = False,
    ) -> Unavailable | None:  # fmt: skip
        """Admit a client that has connected, or return why it can't stay.

        Where there are too many even to say so, the transport is closed.

        :param elsewhere: connections to other workers.
        """
        self.connections.add(connection)
        if is_draining:
            return Unavailable("The gateway is shutting down.", code="overloaded", retry_after_s=1)
        above = self.count() + elsewhere - server.max_connections
        if above > 0:
            if above > MAX_TOLD:
                transport.abort()
            return Unavailable("Too many connections.", code="overloaded", retry_after_s=1)
        most = server.max_connections_per_client
        if most:
            client = client_of(transport.get_extra_info("peername"))
            count = self._count.get(client, 0)
            if client and count >= most:
                text = f"Too many connections from one address: max_connections_per_client is {most}."
                return Unavailable(text, code="overloaded", retry_after_s=1)
            self._inside[connection] = client
            self._count[client] = count + 1
        return None

    def count(self) -> int:
        """Connections of clients to this process."""
        return len(self.connections)

    def leave(self, connection: object) -> None:
        """It has ended."""
        self.connections.discard(connection)
        if not self._inside:
            return
        client = self._inside.pop(connection, None)
        if client is not None:
            left = self._count[client] - 1
            if left:
                self._count[client] = left
            else:
                del self._count[client]


def client_of(peername: object) -> bytes:
    """The identity of a client: an IPv4 address, or the first half of an IPv6 one; b"" for a Unix socket."""
    if not isinstance(peername, tuple):
        return b""  # a Unix socket
    host = peername[0]
    if ":" not in host:
        return socket.inet_aton(host)
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:_IPV6_BYTES]
