"""A worker: the data plane in a process of its own, under a supervisor (:mod:`proxy.server.supervisor`).

It is started with the number of a descriptor, over which it gets its orders. When the other end is gone, so
is the supervisor: the worker takes nothing new, and ends when what runs has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import signal
import socket
import sys
import time
from pathlib import Path

import uvloop

from proxy.access.limits import Accounts
from proxy.access.limits import memory_bytes as accounts_bytes
from proxy.control import allocator
from proxy.control.allocator import growing
from proxy.control.prepare import Prepared, open_tracing, prepare
from proxy.control.reload import take_on
from proxy.control.slices import stepped
from proxy.control.telemetry.logs import configure, set_up_logging
from proxy.deployments.worker_sync import Knowledge, memory_bytes, restore_rows
from proxy.errors import StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.routing.catalog import Catalog
from proxy.server.data_plane import DataPlane
from proxy.server.file_lock import FileLock
from proxy.server.messages import Answer, Channel, Count, Drain, Settled, Start, TakeKeys, TakeOn, Tell
from proxy.server.single import latest
from proxy.storage.ledger_files import Ledger

log = logging.getLogger("tokenhub.workers")


class Worker:
    """See the module's text."""

    def __init__(self, channel: Channel, start: Start) -> None:
        self._channel = channel
        self._start = start
        self._prepared = _prepared(start.settled)
        self._memory = mmap.mmap(start.memory, memory_bytes(start.workers))
        knowledge = Knowledge(memoryview(self._memory), start.workers, start.index)
        catalog = Catalog(start.settled.config, self._prepared.usable, start.created)
        restore_rows(catalog.deployments, start.learned)
        knowledge.positions = [at for index, at in enumerate(start.positions) if index != start.index]
        accounts = memoryview(mmap.mmap(start.accounts, accounts_bytes(start.workers)))
        self._plane = DataPlane(
            start.settled.config,
            catalog,
            self._prepared.providers,
            keyring=start.keyring,
            accounts=Accounts(accounts, start.workers, start.index, FileLock(start.accounts)),
            ledger=Ledger(_path(start.ledger), start.index, int(time.time() * 1000)),
            tls=self._prepared.tls,
            knowledge=knowledge,
            tracing=open_tracing(start.settled.config.traces, start.index),
        )
        self._stop = asyncio.Event()

    @property
    def _gateway(self) -> Gateway:
        return self._plane.gateway

    async def run(self) -> None:
        """Serve until it is told to stop, or the supervisor is gone."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._plane.start()
        for number in self._start.sockets:
            await self._plane.accept(socket.socket(fileno=number))
        await self._channel.send(Answer())
        allocator.settle()
        orders = loop.create_task(self._obey())
        await self._stop.wait()
        await self._plane.drain()
        orders.cancel()
        await asyncio.gather(orders, return_exceptions=True)
        await self._plane.close()

    async def _obey(self) -> None:
        try:
            while (order := await self._channel.receive()) is not None:
                if isinstance(order, Drain):
                    self._stop.set()
                    continue
                await self._channel.send(await self._answer(order))
        except ConnectionError:
            pass  # nobody waits for the answer any more
        finally:  # without orders it must not serve on for ever
            if not self._stop.is_set():
                log.error("the supervisor is gone: draining")
                self._stop.set()

    async def _answer(self, order: TakeOn | TakeKeys | Tell | Count) -> Answer:
        try:
            if isinstance(order, TakeKeys):
                await self._plane.take_keys(order.keyring)
                return Answer()
            if isinstance(order, Tell):
                return Answer(await latest(self._gateway, order.query))
            if isinstance(order, Count):
                return Answer(await stepped(self._gateway.count(order.brief)))
            with growing():
                prepared = await asyncio.to_thread(_prepared, order.settled, self._prepared)
                config = order.settled.config
                await take_on(self._gateway, config, prepared, self._prepared, self._start.created)
                self._plane.take_certificate(prepared.tls)
                self._prepared = prepared
            return Answer()
        except Exception as error:
            log.exception("a fault in an order of the supervisor")
            return Answer(error=str(error) or type(error).__name__)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _prepared(settled: Settled, previous: Prepared | None = None) -> Prepared:
    return prepare(settled.config, settled.keys, settled.simulator_port, previous, settled.certificate)


async def _work(number: int) -> int:
    # What a terminal sends goes to all its processes: the supervisor decides what becomes of it.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    channel = await Channel.open(socket.socket(fileno=number))
    start = await channel.receive()
    if start is None:
        return 1
    set_up_logging(start.index)
    configure(start.settled.config.log)
    try:
        await Worker(channel, start).run()
    except (StartError, OSError) as error:
        with contextlib.suppress(ConnectionError):
            await channel.send(Answer(error=str(error)))
        return 1
    finally:
        channel.close()
    return 0


def main() -> int:
    """Run with the descriptor that the command line names. Returns the exit code."""
    return uvloop.run(_work(int(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
