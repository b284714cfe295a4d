"""The data plane of one process: listeners, the gateway's connections, and the tick."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import cast

from proxy.access.accounts import Accounts
from proxy.access.grants import KeyTable
from proxy.config.listen import show
from proxy.config.settings import Config
from proxy.control.key_store import Keyring
from proxy.control.periodic import Periodic
from proxy.deployments.worker_sync import STEP_S, WorkerSync
from proxy.errors import BadRequest
from proxy.relay.downstream.connection import ClientConnection
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.downstream.listener_tls import listener_tls
from proxy.relay.exchange.tracing import Tracing
from proxy.relay.upstream.provider import Provider
from proxy.relay.upstream.tcp_keepalive import DEAD_S, enable
from proxy.routing.catalog import Catalog
from proxy.server.acceptor import Acceptor
from proxy.server.machine import usable_memory_bytes
from proxy.storage.ledger_files import Ledger
from proxy.wire.error_response import gateway_response

log = logging.getLogger("tokenhub.server")

TICK_S = 0.1
# A tick this late means that the process was suspended. Data may have arrived meanwhile, so deadlines wait
# one more tick.
STALL_S = 1.0
_DRAIN_POLL_S = 0.05
# What may be held of requests and responses where the configuration sets no limit: a quarter of the memory.
_MEMORY_SHARE = 4
_MOST_BUFFERED_BYTES = 1 << 30


def worker_syncing(step: Callable[[float], None], every_s: float) -> Periodic:
    """The job that exchanges samples with the other workers. While it fails, each worker uses its own."""

    async def sync() -> None:
        step(time.monotonic())

    return Periodic(sync, every_s, "exchanging samples with the other workers", log, at_once=True)


class DataPlane:
    """Serves clients.

    :param keyring: the keys it serves for. :param accounts: what they use.
    :param ledger: finished requests are written to it. :param tls: for its TCP listeners; None: plain HTTP.
    :param knowledge: shared with the other workers; None: this is the only process.
    :param tracing: makes spans of requests; None: traces are off.
    """

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        providers: Mapping[str, Provider],
        *,
        keyring: Keyring,
        accounts: Accounts,
        ledger: Ledger,
        tls: ssl.SSLContext | None = None,
        knowledge: WorkerSync | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._accounts = accounts
        self.gateway = Gateway(
            config,
            catalog,
            providers,
            random.Random(),
            knowledge,
            self._table(keyring),
            ledger,
            usual_buffered_bytes=min(usable_memory_bytes() // _MEMORY_SHARE, _MOST_BUFFERED_BYTES),
        )
        self.gateway.tracing = tracing
        self._tls = None if tls is None else listener_tls(tls, self._max_connections, self._answer_in_clear)
        self._acceptors: list[Acceptor] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._vanished_s = 0.0  # without a sign of life for this long, a client has vanished
        self._has_stalled = False  # at the last tick
        self._tick_due = 0.0  # monotonic seconds; how much later it comes is the loop's lag
        self._syncing = None if knowledge is None else worker_syncing(self._sync, STEP_S)

    def _sync(self, now: float) -> None:
        """Exchange with the other workers what is held and what was learned."""
        gateway, knowledge = self.gateway, self.gateway.knowledge
        assert knowledge is not None
        gateway.buffered_elsewhere = knowledge.share_buffered(gateway.buffered_bytes)
        knowledge.step(now)

    def _table(self, keyring: Keyring, before: KeyTable | None = None) -> KeyTable:
        return KeyTable(
            keyring.keys, self._accounts, is_open=keyring.is_open, groups=keyring.groups, before=before
        )

    async def apply_keys(self, keyring: Keyring) -> None:
        """Use these keys from the next request on."""
        self.gateway.take_keys(self._table(keyring, self.gateway.keys))

    def apply_certificate(self, tls: ssl.SSLContext | None) -> None:
        """Use this certificate for new connections. Only a restart changes between TLS and plain HTTP."""
        if self._tls is not None and tls is not None:
            self._tls.current = tls

    def _max_connections(self) -> int:
        return self.gateway.config.server.max_connections

    def _answer_in_clear(self) -> bytes:
        """Make the response to a client that speaks plain HTTP to a listener with TLS."""
        gateway, listen = self.gateway, self.gateway.config.server.listen
        gateway.wrong_protocol.http_to_tls(
            [show(one, "https") for one in listen if not one.path], time.monotonic()
        )
        error = BadRequest(
            "This listener speaks TLS: use https:// in the base_url.", code="https_required", close=True
        )
        gateway.counters.refused(error.status)
        return gateway_response(error, gateway.next_request_id(), close=True)

    async def start(self) -> None:
        """Start everything but listening."""
        self._tick()
        if self._syncing is not None:
            self._syncing.start()

    async def accept(self, sock: socket.socket) -> None:
        """Serve the clients of a listening socket."""
        self._watch_clients(sock)
        acceptor = Acceptor(sock, self._client, self._tls)
        self._acceptors.append(acceptor)
        await acceptor.start()

    def _watch_clients(self, *listening: socket.socket) -> None:
        """Detect clients that vanish, for whom tokens would be generated in vain. Connections inherit this
        from the listening socket. A client that only takes nothing for a while has a limit of its own."""
        self._vanished_s = max(DEAD_S, self.gateway.timeouts.client_write_s)
        for sock in listening:
            enable(sock, self._vanished_s)

    def _client(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, ClientConnection(self.gateway))

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        now = time.monotonic()
        late_s = max(0.0, now - self._tick_due) if self._tick_due else 0.0
        self.gateway.counters.lag.add(int(late_s * 1e6))
        self._tick_due = now + TICK_S
        self._has_stalled = late_s > STALL_S and not self._has_stalled
        if self._has_stalled:
            # What has come meanwhile is read first. Only once: deadlines hold in a gateway that is always
            # late, too.
            return
        if self._vanished_s != max(DEAD_S, self.gateway.timeouts.client_write_s):  # another configuration
            self._watch_clients(*(acceptor.sock for acceptor in self._acceptors))
        self.gateway.tick(now)
        for acceptor in self._acceptors:
            acceptor.adapt(self.gateway.longest_turn_s, now)

    async def drain(self) -> None:
        """Drain: be unready, wait for lame_duck, accept nothing new, let running exchanges end."""
        gateway, server = self.gateway, self.gateway.config.server
        gateway.unready = True
        if server.lame_duck_s:
            await asyncio.sleep(server.lame_duck_s)
        gateway.draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        for connection in list(gateway.connections):
            connection.close_if_idle()
        deadline = time.monotonic() + server.drain_timeout_s
        while gateway.connections and time.monotonic() < deadline:
            await asyncio.sleep(_DRAIN_POLL_S)
        if gateway.connections:
            log.warning("drain_timeout is over: closing %d connections", len(gateway.connections))

    async def close(self) -> None:
        """Close everything at once."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._ticker is not None:
            self._ticker.cancel()
        await self.gateway.close()
        self.gateway.ledger.close()
        if self._syncing is not None:
            await self._syncing.stop()
            await self._syncing.run()  # the last samples reach the others
        if self.gateway.tracing is not None:
            await self.gateway.tracing.close()
