"""Accepts connections, also while the event loop is busy.

From one descriptor, the event loop accepts one connection in each of its turns (libuv since 1.45, pull
request 3696). While turns are long, new connections would wait for seconds, those of health checks among
them. The loop is then given the same socket by many descriptors. It is not given them always: each of them is
tried for each connection, so that a connection that comes alone costs twice as much.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from proxy.relay.downstream.resume_queue import LONG_S
from proxy.server.listeners import serve_on

# Connections accepted in a turn then, in place of one.
DESCRIPTORS = 64
# How long the descriptors are kept after the last long turn.
KEPT_S = 10.0


class Acceptor:
    """Accepts the connections of one listening socket.

    :param sock: closed with this. :param factory, tls: see :func:`proxy.server.listeners.serve_on`.
    """

    def __init__(
        self, sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None
    ) -> None:
        self.sock = sock
        self._factory = factory
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._more: list[asyncio.Server] = []
        self._opening: asyncio.Task[None] | None = None
        self._long_at = 0.0

    async def start(self) -> None:
        """Accept connections from now on."""
        self._server = await serve_on(self.sock, self._factory, self._tls)

    def adapt(self, longest_s: float, now: float) -> None:
        """Adapt to how long turns take.

        :param longest_s: the longest turn since the call before. :param now: monotonic seconds.
        """
        if longest_s > LONG_S:
            self._long_at = now
            if self._opening is None and self._server is not None:
                self._opening = asyncio.get_running_loop().create_task(self._open())
        elif self._opening is not None and now - self._long_at > KEPT_S:
            self._close_more()

    async def _open(self) -> None:
        try:
            while len(self._more) < DESCRIPTORS - 1:
                same = self.sock.dup()
                try:
                    self._more.append(await serve_on(same, self._factory, self._tls))
                except BaseException:
                    same.close()
                    raise
        except OSError:
            pass  # no descriptors are left; clients need them more

    def _close_more(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        for server in self._more:
            server.close()
        self._more.clear()

    def close(self) -> None:
        """Stop accepting."""
        self._close_more()
        if self._server is not None:
            self._server.close()
            self._server = None

    def __repr__(self) -> str:
        return f"<Acceptor descriptors={(self._server is not None) + len(self._more)}>"
