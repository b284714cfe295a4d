"""The process that governs several workers.

    supervisor ── sockets, memory, messages ──► worker 0, worker 1, …
      admin API, configuration, simulator, state

It holds the workers' sockets and their common memory. The sockets stay open here: a connection that comes
for a worker that has died waits for the next one. A worker that starts later gets what the others have
learned. The processes themselves are the business of :mod:`proxy.server.worker_pool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import mmap
import os
import random
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any

from proxy.access.accounts import Accounts
from proxy.access.accounts import memory_bytes as accounts_bytes
from proxy.config.settings import Config, Listen
from proxy.control.admin.views import limit_of, select_requests
from proxy.control.key_store import Keyring
from proxy.control.own_figures import KeyFigures
from proxy.control.periodic import Periodic
from proxy.control.prepare import Prepared
from proxy.control.routes_file import RoutesFile
from proxy.control.steps import done
from proxy.deployments.deployment import Deployment
from proxy.deployments.shared_memory import WorkerSegment
from proxy.deployments.worker_sync import WorkerSync, dump_rows, memory_bytes
from proxy.errors import StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.downstream.own_figures import Told
from proxy.server.control_plane import ControlPlane
from proxy.server.data_plane import worker_syncing
from proxy.server.listeners import listen_on, remove_socket
from proxy.server.messages import (
    ApplyConfig,
    ApplyKeys,
    Drain,
    FindLine,
    GetRecent,
    Reply,
    Start,
    WorkerConfig,
)
from proxy.server.worker_handle import REPLY_S, WorkerHandle
from proxy.server.worker_pool import WorkerPool, worker_environment
from proxy.storage.ledger_search import needle_of
from proxy.usage.counters import Counted, Sums, add_up

log = logging.getLogger("tokenhub.workers")

# How often the workers' samples are read here, where nothing is chosen by them.
SYNC_S = 0.1
# How often the counts of workers are collected, whether anybody reads them or not.
COUNT_S = 5.0
# What a worker may take after drain_timeout to close its connections.
_GRACE_S = 5.0


class Supervisor:
    """A running gateway with several workers: their configuration, their counts, their end.

    :param workers: how many, at least 2.
    """

    def __init__(
        self, config: Config, environ: Mapping[str, str], file: RoutesFile | None, workers: int
    ) -> None:
        self.addresses: list[Listen] = []
        self.pool = WorkerPool(
            workers,
            descriptors=self._descriptors,
            environment=lambda: worker_environment(self._worker_config.config),
            first_message=self._first_message,
            answer=self._answer,
            on_exit=self._on_exit,
        )
        self._control = ControlPlane(config, environ, file)
        self._figures = KeyFigures(self._control.usage_index, self._find_latest)
        self._workers = workers
        self._sockets: list[list[socket.socket]] = [[] for _ in range(workers)]
        self._descriptor = self._accounts_descriptor = -1
        self._accounts: Accounts
        self._memory: mmap.mmap
        self._knowledge: WorkerSync
        self._worker_config: WorkerConfig
        self._syncing: Periodic | None = None
        # A worker's counts are lost with it, but for those that were collected before.
        self._counting = Periodic(self.count, COUNT_S, "collecting the counts of workers", log)
        # Final counts of workers that have exited: in full, and in brief.
        self._ended: dict[bool, Sums] = {False: {}, True: {}}

    @property
    def admin_address(self) -> Listen | None:
        """Of the admin API; None: it is switched off."""
        return self._control.address

    @property
    def failed(self) -> asyncio.Future[str]:
        """Done when workers can't be started any more: why."""
        return self.pool.failed

    # ------------------------------------------------------------------ start

    async def start(self) -> None:
        """Listen, and start the workers; returns when all of them serve. :raises StartError: it can't."""
        if not hasattr(os, "memfd_create"):
            raise StartError("several workers need Linux: say workers = 1")
        control = self._control
        config = control.started
        self._accounts_descriptor, memory = _shared_memory("tokenhub-accounts", accounts_bytes(self._workers))
        self._accounts = Accounts(memoryview(memory), self._workers, None)
        catalog = await control.prepare(self._accounts)
        prepared = control.prepared
        self._descriptor, self._memory = _shared_memory("tokenhub", memory_bytes(self._workers))
        self._knowledge = WorkerSync(memoryview(self._memory), self._workers, None, _log_ejection)
        gateway = Gateway(config, catalog, prepared.providers, random.Random(), self._knowledge)
        control.govern(gateway, self._apply_config)
        await control.keys.serve(self._apply_keys)
        self._worker_config = self._config_of_workers(config, prepared)
        for listen in config.server.listen:
            sockets, address = await listen_on(listen, config.server.socket_mode, self._workers)
            self.addresses.append(address)
            for own, more in zip(self._sockets, sockets, strict=True):
                own.extend(more)
        self._syncing = worker_syncing(self._knowledge.step, SYNC_S)
        self._syncing.start()
        self._counting.start()
        await self.pool.start()
        await control.start(self.requests, self.count)

    def _descriptors(self, index: int) -> list[int]:
        return [self._descriptor, self._accounts_descriptor, *self._socket_descriptors(index)]

    def _socket_descriptors(self, index: int) -> tuple[int, ...]:
        return tuple(sock.fileno() for sock in self._sockets[index])

    def _first_message(self, index: int) -> Start:
        """Everything that a worker needs to serve, with what is known by now."""
        WorkerSegment(memoryview(self._memory), index).clear()
        self._knowledge.step(time.monotonic())
        directory = self._control.usage_index.directory
        return Start(
            self._worker_config,
            index,
            self._workers,
            self._socket_descriptors(index),
            self._descriptor,
            self._accounts_descriptor,
            None if directory is None else str(directory),
            self._control.keys.keyring,
            self._control.created,
            done(dump_rows(self._control.gateway.catalog.deployments)),
            tuple(self._knowledge.positions),
        )

    def _on_exit(self, handle: WorkerHandle) -> None:
        """Keep what a worker has counted, and free what it held in the common memory."""
        for brief, ended in self._ended.items():
            add_up(ended, handle.counted[brief].totals)
        WorkerSegment(memoryview(self._memory), handle.index).clear()
        self._accounts.clear(handle.index)

    # ------------------------------------------------------------------ configuration and keys

    async def reload(self, why: str) -> None:
        """Read the configuration anew; what is wrong goes to the log."""
        await self._control.reloader.reload_and_log(why)

    async def _apply_config(self, config: Config, prepared: Prepared) -> None:
        """Bring a new configuration to all workers; returns when it is in effect there."""
        self._worker_config = self._config_of_workers(config, prepared)
        await self._broadcast(ApplyConfig(self._worker_config), "configuration")

    def _config_of_workers(self, config: Config, prepared: Prepared) -> WorkerConfig:
        port = self._control.simulator_port if prepared.simulated else 0
        return WorkerConfig(config, prepared.keys, port, prepared.certificate)

    async def _apply_keys(self, keyring: Keyring) -> None:
        """Bring other keys to all workers; returns when they are in effect there."""
        await self._broadcast(ApplyKeys(keyring), "keys")

    async def _broadcast(self, message: ApplyConfig | ApplyKeys, what: str) -> None:
        await asyncio.gather(*(_apply(handle, message, what) for handle in self.pool.living))

    # ------------------------------------------------------------------ requests and counts

    async def requests(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """The latest requests that a query selects, of all workers. :raises QueryError: it can't be read."""
        done(select_requests((), query))
        message = GetRecent(dict(query))
        calls = (asyncio.wait_for(handle.call(message), REPLY_S) for handle in self.pool.living)
        replies = await asyncio.gather(*calls, return_exceptions=True)
        found = [reply.value for reply in replies if isinstance(reply, Reply) and not reply.error]
        merged = heapq.merge(*found, key=_time_of, reverse=True)
        return list(merged)[: limit_of(query)]

    async def _answer(self, kind: str, key: str, query: Mapping[str, str]) -> Told:
        return await self._figures.answer(kind, key, query)

    async def _find_latest(self, id: str) -> bytes | None:
        """The line of a request, of the latest ones of all workers."""
        message = FindLine(needle_of(id))
        calls = (asyncio.wait_for(handle.call(message), REPLY_S) for handle in self.pool.living)
        replies = await asyncio.gather(*calls, return_exceptions=True)
        found = [reply.value for reply in replies if isinstance(reply, Reply) and reply.value]
        return found[0] if found else None

    async def count(self, brief: bool = False) -> Counted:
        """The counters and gauges of all workers; ``brief``: summed over all labels."""
        await asyncio.gather(*(handle.count(brief) for handle in self.pool.living))
        sums = Counted(dict(self._ended[brief]), {("workers",): (len(self.pool.handles),)})
        for handle in self.pool.living:
            add_up(sums.totals, handle.counted[brief].totals)
            add_up(sums.levels, handle.counted[brief].levels)
        return sums

    # ------------------------------------------------------------------ stop

    async def drain(self) -> None:
        """Have all workers drain, and wait for their end, up to ``drain_timeout`` and a little."""
        self.pool.stop_replacing()
        gateway = self._control.gateway
        server, gateway.unready = gateway.config.server, True
        for handle in self.pool.living:
            with contextlib.suppress(ConnectionError):
                await handle.channel.send(Drain())
        closing = asyncio.get_running_loop().create_task(self._stop_listening(server.lame_duck_s))
        try:
            await self.pool.wait(server.lame_duck_s + server.drain_timeout_s + _GRACE_S)
        finally:
            closing.cancel()

    async def _stop_listening(self, after_s: float) -> None:
        """Workers close theirs then; while a socket is open anywhere, connections queue up for it."""
        await asyncio.sleep(after_s)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for sockets in self._sockets:
            for sock in sockets:
                sock.close()

    async def close(self) -> None:
        """End everything at once; also after a start that failed."""
        await self.pool.close()
        self._close_sockets()
        for listen in self.addresses:
            remove_socket(listen)
        await self._counting.stop()
        if self._syncing is not None:
            await self._syncing.stop()
            await self._syncing.run()  # what workers learned last is kept
        await self._control.close()
        for descriptor in (self._descriptor, self._accounts_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._accounts_descriptor = -1


async def _apply(handle: WorkerHandle, message: ApplyConfig | ApplyKeys, what: str) -> None:
    """Send a worker its new configuration or keys. One that can't apply them is killed: it must not go on
    with the former ones, and the next one starts with the new."""
    try:
        reply = await asyncio.wait_for(handle.call(message), REPLY_S)
    except TimeoutError:
        reply = Reply(error=f"no reply within {REPLY_S:g} s")
    if reply.error and handle.process.returncode is None:
        log.error("worker %d can't apply the new %s (%s): killing it", handle.index, what, reply.error)
        handle.signal(signal.SIGKILL)


def _shared_memory(name: str, size: int) -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create(name)
    os.ftruncate(descriptor, size)
    return descriptor, mmap.mmap(descriptor, size)


def _time_of(row: dict[str, Any]) -> float:
    return float(row["time"])


def _log_ejection(deployment: Deployment, who: str, at: float) -> None:
    is_key = who == "key"
    name = f"provider {deployment.provider.name}" if is_key else deployment.id
    reason = deployment.key.reason if is_key else deployment.breaker.reason
    facts = {"provider": deployment.provider.name} | ({} if is_key else {"model": deployment.id})
    log.warning("%s is ejected for %.1f s: %s", name, deployment.free_at(at) - at, reason, extra=facts)
