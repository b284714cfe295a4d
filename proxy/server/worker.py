"""A worker: the data plane in a process of its own, under a supervisor (:mod:`proxy.server.supervisor`).

It is started with the number of a descriptor, over which messages come. If the other end is closed, the
supervisor has died: the worker drains and ends.
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

from proxy.access.accounts import Accounts
from proxy.access.accounts import memory_bytes as accounts_bytes
from proxy.control import allocator
from proxy.control.allocator import growing
from proxy.control.prepare import Prepared, open_tracing, prepare
from proxy.control.reload import apply_config
from proxy.control.slices import stepped
from proxy.control.telemetry.logs import configure, set_up_logging
from proxy.deployments.worker_sync import WorkerSync, memory_bytes, restore_rows
from proxy.errors import StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.downstream.own_figures import OwnFigures
from proxy.routing.catalog import Catalog
from proxy.server.data_plane import DataPlane
from proxy.server.file_lock import FileLock
from proxy.server.messages import (
    Answer,
    ApplyConfig,
    ApplyKeys,
    Channel,
    Count,
    Drain,
    FindLine,
    GetRecent,
    Reply,
    Start,
    WorkerConfig,
)
from proxy.server.questions import Questions
from proxy.server.single import recent_requests
from proxy.storage.ledger_files import Ledger

log = logging.getLogger("tokenhub.workers")


class Worker:
    """A data plane that does what the supervisor's messages say.

    :param start: the first message.
    """

    def __init__(self, channel: Channel, start: Start) -> None:
        self._channel = channel
        self._start = start
        self._prepared = _prepare(start.worker_config)
        self._memory = mmap.mmap(start.memory, memory_bytes(start.workers))
        knowledge = WorkerSync(memoryview(self._memory), start.workers, start.index)
        config = start.worker_config.config
        catalog = Catalog(config, self._prepared.usable, start.created)
        restore_rows(catalog.deployments, start.learned)
        knowledge.positions = [at for index, at in enumerate(start.positions) if index != start.index]
        accounts = memoryview(mmap.mmap(start.accounts, accounts_bytes(start.workers)))
        self._plane = DataPlane(
            config,
            catalog,
            self._prepared.providers,
            keyring=start.keyring,
            accounts=Accounts(accounts, start.workers, start.index, FileLock(start.accounts)),
            ledger=Ledger(_path(start.ledger), start.index, int(time.time() * 1000)),
            tls=self._prepared.tls,
            knowledge=knowledge,
            tracing=open_tracing(config.traces, start.index),
        )
        self._questions = Questions(channel)
        self._plane.gateway.figures = OwnFigures(self._questions.ask)
        self._stop = asyncio.Event()

    @property
    def _gateway(self) -> Gateway:
        return self._plane.gateway

    async def run(self) -> None:
        """Serve until SIGTERM, a message to drain, or the supervisor's death; then drain."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._plane.start()
        for number in self._start.sockets:
            await self._plane.accept(socket.socket(fileno=number))
        await self._channel.send(Reply())
        allocator.tune()
        messages = loop.create_task(self._handle_messages())
        await self._stop.wait()
        await self._plane.drain()
        messages.cancel()
        await asyncio.gather(messages, return_exceptions=True)
        await self._plane.close()

    async def _handle_messages(self) -> None:
        try:
            while (message := await self._channel.receive()) is not None:
                if isinstance(message, Drain):
                    self._stop.set()
                    continue
                if isinstance(message, Answer):
                    self._questions.answer(message)
                    continue
                await self._channel.send(await self._handle(message))
        except ConnectionError:
            pass  # the reply has no reader any more
        finally:  # without a supervisor it must not serve on for ever
            if not self._stop.is_set():
                log.error("the supervisor has died: draining")
                self._stop.set()

    async def _handle(self, message: ApplyConfig | ApplyKeys | GetRecent | FindLine | Count) -> Reply:
        try:
            value: object = None
            if isinstance(message, ApplyKeys):
                await self._plane.apply_keys(message.keyring)
            elif isinstance(message, GetRecent):
                value = await recent_requests(self._gateway, message.query)
            elif isinstance(message, FindLine):
                value = self._gateway.completions.recent.find(message.needle)
            elif isinstance(message, Count):
                value = await stepped(self._gateway.count(message.brief))
            else:
                await self._apply_config(message.worker_config)
            return Reply(value)
        except StartError as refused:  # an unusable configuration: the supervisor logs why
            return Reply(error=str(refused))
        except Exception as error:
            log.exception("internal error while handling a message of the supervisor")
            return Reply(error=str(error) or type(error).__name__)

    async def _apply_config(self, worker_config: WorkerConfig) -> None:
        with growing():
            prepared = await asyncio.to_thread(_prepare, worker_config, self._prepared)
            config, created = worker_config.config, self._start.created
            await apply_config(self._gateway, config, prepared, self._prepared, created)
            self._plane.apply_certificate(prepared.tls)
            self._prepared = prepared


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _prepare(new: WorkerConfig, previous: Prepared | None = None) -> Prepared:
    return prepare(new.config, new.keys, new.simulator_port, previous, new.certificate)


async def _work(number: int) -> int:
    # A terminal sends these to all its processes: the supervisor decides what they mean.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    channel = await Channel.open(socket.socket(fileno=number))
    start = await channel.receive()
    if start is None:
        return 1
    set_up_logging(start.index)
    configure(start.worker_config.config.log)
    try:
        await Worker(channel, start).run()
    except (StartError, OSError) as error:
        with contextlib.suppress(ConnectionError):
            await channel.send(Reply(error=str(error)))
        return 1
    finally:
        channel.close()
    return 0


def main() -> int:
    """Run a worker on the descriptor that the command line names. Returns the exit code."""
    return uvloop.run(_work(int(sys.argv[1])))


if __name__ == "__main__":
    sys.exit(main())
