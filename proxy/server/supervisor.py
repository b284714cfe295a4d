"""Several workers: the process that holds their sockets and their common memory, starts them, and governs.

    supervisor ── sockets, memory, orders ──► worker 0, worker 1, …
      admin API, configuration, simulator, state

The sockets stay open here: a connection that comes for a worker that has died waits for the next one. A
worker that dies is replaced, at once if it had served for a while, else after a pause that doubles. One that
starts later gets what the others have learned. The supervisor's child processes are exactly the workers.
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
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import proxy
from proxy.access.limits import Accounts
from proxy.access.limits import memory_bytes as accounts_bytes
from proxy.config.settings import Config, Listen
from proxy.control.admin.views import limit_of, select_requests
from proxy.control.key_store import Keyring
from proxy.control.prepare import Prepared
from proxy.control.routes_file import RoutesFile
from proxy.control.steps import done
from proxy.deployments.deployment import Deployment
from proxy.deployments.shared_memory import Part
from proxy.deployments.worker_sync import Knowledge, dump_rows, memory_bytes
from proxy.errors import StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.server.control_plane import ControlPlane
from proxy.server.data_plane import Stepper
from proxy.server.listeners import listen_on, remove_socket
from proxy.server.messages import Answer, Channel, Drain, Settled, Start, TakeKeys, TakeOn, Tell
from proxy.server.worker_handle import ORDER_S, Handle
from proxy.usage.counters import Counted, Sums, add_up

log = logging.getLogger("tokenhub.workers")

# How often what the workers told is taken in here, where nobody chooses by it.
STEP_S = 0.1
# How often it is asked what they have counted, whether somebody looks or not.
REMEMBER_S = 5.0
# A worker that serves by then is well; one that has served for so long died of something new.
START_S, STEADY_S = 30.0, 10.0
_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
# So many deaths in a row before a worker ever served, and there is no use in trying on.
MAX_FAILURES = 5
# What a worker may take after drain_timeout to close its connections.
_GRACE_S = 5.0


class Supervisor:
    """See the module's text.

    :param workers: how many, at least 2.
    """

    def __init__(
        self, config: Config, environ: Mapping[str, str], file: RoutesFile | None, workers: int
    ) -> None:
        self.addresses: list[Listen] = []
        self.handles: dict[int, Handle] = {}  # of the workers that live
        self.failed: asyncio.Future[str]  # done when there is no use in going on: why
        self._control = ControlPlane(config, environ, file)
        self._workers = workers
        self._sockets: list[list[socket.socket]] = [[] for _ in range(workers)]
        self._descriptor = self._accounts_descriptor = -1
        self._accounts: Accounts
        self._memory: mmap.mmap
        self._knowledge: Knowledge
        self._settled: Settled
        self._keepers: list[asyncio.Task[None]] = []
        self._stepper: Stepper | None = None
        self._stopping = asyncio.Event()
        self._failures = 0
        self._ended: dict[bool, Sums] = {
            False: {},
            True: {},
        }  # what workers counted that have; True: in brief

    @property
    def admin_address(self) -> Listen | None:
        """Of the admin API; None: it is switched off."""
        return self._control.address

    # ------------------------------------------------------------------ start

    async def start(self) -> None:
        """Listen, and start the workers; returns when all of them serve. :raises StartError: it can't."""
        if not hasattr(os, "memfd_create"):
            raise StartError("several workers need Linux: say workers = 1")
        control, loop = self._control, asyncio.get_running_loop()
        self.failed = loop.create_future()
        config = control.started
        self._accounts_descriptor, memory = _shared_memory("tokenhub-accounts", accounts_bytes(self._workers))
        self._accounts = Accounts(memoryview(memory), self._workers, None)
        catalog = await control.prepare(self._accounts)
        prepared = control.prepared
        self._descriptor, self._memory = _shared_memory("tokenhub", memory_bytes(self._workers))
        self._knowledge = Knowledge(memoryview(self._memory), self._workers, None, _log_ejection)
        gateway = Gateway(config, catalog, prepared.providers, random.Random(), self._knowledge)
        control.govern(gateway, self._spread)
        await control.keys.serve(self._spread_keys)
        self._settled = self._settle(config, prepared)
        for listen in config.server.listen:
            sockets, address = await listen_on(listen, config.server.socket_mode, self._workers)
            self.addresses.append(address)
            for own, more in zip(self._sockets, sockets, strict=True):
                own.extend(more)
        self._stepper = Stepper(self._knowledge, STEP_S)
        self._stepper.step()
        first = [loop.create_future() for _ in range(self._workers)]
        self._keepers = [loop.create_task(self._keep(index, serves)) for index, serves in enumerate(first)]
        self._keepers.append(loop.create_task(self._remember()))
        for serves in first:
            why = await serves
            if why:
                raise StartError(f"a worker can't start: {why}")
        await control.start(self.requests, self.count)

    async def _keep(self, index: int, first: asyncio.Future[str]) -> None:
        """Have a worker, and another one when it has died. ``first`` gets "" when it serves, or why not."""
        pause_s = 0.0
        while not self._stopping.is_set():
            begun_at, is_first = time.monotonic(), not first.done()
            why, end = await self._live(index, first)
            if self._stopping.is_set() or (is_first and why):
                return
            lived_s = time.monotonic() - begun_at
            is_steady = not why and lived_s >= STEADY_S
            pause_s = 0.0 if is_steady else min(max(_PAUSE_S, 2.0 * pause_s), _MAX_PAUSE_S)
            log.error(
                "worker %d %s%s after %.1f s: another one starts%s", index, end,
                f" at its start ({why})" if why else "", lived_s, f" in {pause_s:g} s" if pause_s else "",
            )  # fmt: skip
            self._failures = self._failures + 1 if why else 0
            if self._failures >= MAX_FAILURES and not self.handles and not self.failed.done():
                self.failed.set_result(f"{self._failures} workers in a row died at their start: {why}")
            await asyncio.sleep(pause_s)

    async def _live(self, index: int, first: asyncio.Future[str]) -> tuple[str, str]:
        """A worker's whole life: why it never served, or "", and how it ended."""
        try:
            handle = await self._spawn(index)
        except OSError as error:  # no memory, no descriptors, no interpreter any more
            why, end = str(error), "could not be started"
        else:
            why = await self._greet(handle)
            if why:
                handle.signal(signal.SIGKILL)
            elif not first.done():
                first.set_result("")
            code = await handle.process.wait()
            await self._bury(handle)
            end = f"(process {handle.process.pid}) {_end_of(code)}"
        if not first.done():
            first.set_result(why)
        return why, end

    async def _spawn(self, index: int) -> Handle:
        """:raises OSError: the system has no room for one more process."""
        ours, theirs = socket.socketpair()
        shared = self._descriptor, self._accounts_descriptor
        descriptors = [theirs.fileno(), *shared, *(s.fileno() for s in self._sockets[index])]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "proxy.server.worker", str(theirs.fileno()),
                pass_fds=descriptors, stdin=asyncio.subprocess.DEVNULL,
                env=_environment(self._settled.config),
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        handle = Handle(index, process, await Channel.open(ours))
        self.handles[index] = handle
        return handle

    async def _greet(self, handle: Handle) -> str:
        """Wait until it serves; why it doesn't, or ""."""
        index, knowledge = handle.index, self._knowledge
        Part(memoryview(self._memory), index).clear()
        knowledge.step(time.monotonic())
        learned = done(dump_rows(self._control.gateway.catalog.deployments))
        start = Start(
            self._settled, index, self._workers, tuple(s.fileno() for s in self._sockets[index]),
            self._descriptor, self._accounts_descriptor, self._ledger(), self._control.keys.keyring,
            self._control.created, learned, tuple(knowledge.positions),
        )  # fmt: skip
        try:
            answer = await asyncio.wait_for(handle.ask(start), START_S)
        except TimeoutError:
            return f"it doesn't serve within {START_S:g} s"
        return answer.error

    async def _bury(self, handle: Handle) -> None:
        if self.handles.get(handle.index) is handle:
            del self.handles[handle.index]
            for brief, ended in self._ended.items():
                add_up(ended, handle.counted[brief].totals)
        await handle.process.wait()
        Part(memoryview(self._memory), handle.index).clear()
        self._accounts.clear(handle.index)
        await handle.close()

    # ------------------------------------------------------------------ while it runs

    async def reload(self, why: str) -> None:
        """Read the configuration anew; what is wrong goes to the log."""
        await self._control.reloader.reload_and_log(why)

    async def _spread(self, config: Config, prepared: Prepared) -> None:
        """Bring a new configuration to all workers, and see that it is in effect there."""
        settled = self._settled = self._settle(config, prepared)
        await asyncio.gather(*(self._have_taken_on(handle, TakeOn(settled)) for handle in self._living()))

    def _settle(self, config: Config, prepared: Prepared) -> Settled:
        port = self._control.simulator_port if prepared.simulated else 0
        return Settled(config, prepared.keys, port, prepared.certificate)

    async def _spread_keys(self, keyring: Keyring) -> None:
        """Bring other keys to all workers, and see that they are in effect there."""
        await asyncio.gather(*(self._have_taken_on(handle, TakeKeys(keyring)) for handle in self._living()))

    async def _have_taken_on(self, handle: Handle, order: TakeOn | TakeKeys) -> None:
        try:
            answer = await asyncio.wait_for(handle.ask(order), ORDER_S)
        except TimeoutError:
            answer = Answer(error=f"no answer within {ORDER_S:g} s")
        if answer.error and handle.process.returncode is None:
            # It must not go on with what was before: the next one starts with what is now.
            what = "configuration" if isinstance(order, TakeOn) else "keys"
            log.error("worker %d can't take on the %s (%s): it is ended", handle.index, what, answer.error)
            handle.signal(signal.SIGKILL)

    def _ledger(self) -> str | None:
        directory = self._control.books.directory
        return None if directory is None else str(directory)

    async def requests(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """The latest requests that a query selects, of all workers. :raises QueryError: it is none."""
        done(select_requests((), query))
        asked = (asyncio.wait_for(handle.ask(Tell(dict(query))), ORDER_S) for handle in self._living())
        answers = await asyncio.gather(*asked, return_exceptions=True)
        found = [answer.value for answer in answers if isinstance(answer, Answer) and not answer.error]
        merged = heapq.merge(*found, key=_when, reverse=True)
        return list(merged)[: limit_of(query)]

    async def count(self, brief: bool = False) -> Counted:
        """What all workers have counted, and what is so now; ``brief``: over all labels."""
        await asyncio.gather(*(handle.count(brief) for handle in self._living()))
        sums = Counted(dict(self._ended[brief]), {("workers",): (len(self.handles),)})
        for handle in self._living():
            add_up(sums.totals, handle.counted[brief].totals)
            add_up(sums.levels, handle.counted[brief].levels)
        return sums

    async def _remember(self) -> None:
        """What a worker has counted outlives it, but for the last seconds."""
        while True:
            await asyncio.sleep(REMEMBER_S)
            try:
                await self.count()
            except Exception:
                log.exception("a fault in asking workers what they have counted")

    def _living(self) -> list[Handle]:
        return list(self.handles.values())

    # ------------------------------------------------------------------ stop

    async def drain(self) -> None:
        """Have all workers stop as the contract says, and end those that don't."""
        self._stopping.set()
        gateway = self._control.gateway
        server, gateway.unready = gateway.config.server, True
        for handle in self._living():
            with contextlib.suppress(ConnectionError):
                await handle.channel.send(Drain())
        limit_s = server.lame_duck_s + server.drain_timeout_s + _GRACE_S
        closing = asyncio.get_running_loop().create_task(self._stop_listening(server.lame_duck_s))
        waiting = [asyncio.create_task(handle.process.wait()) for handle in self._living()]
        try:
            if waiting:
                await asyncio.wait(waiting, timeout=limit_s)
        finally:
            for task in (closing, *waiting):
                task.cancel()

    async def _stop_listening(self, after_s: float) -> None:
        """Workers close theirs then; as long as a socket is open anywhere, connections queue up for it."""
        await asyncio.sleep(after_s)
        self._close_sockets()

    def _close_sockets(self) -> None:
        for sockets in self._sockets:
            for sock in sockets:
                sock.close()

    async def close(self) -> None:
        """End everything at once; also what a start that failed has begun."""
        self._stopping.set()
        for handle in self._living():
            handle.signal(signal.SIGKILL)
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for handle in self._living():
            await self._bury(handle)
        self._close_sockets()
        for listen in self.addresses:
            remove_socket(listen)
        if self._stepper is not None:
            self._stepper.close()
        await self._control.close()
        for descriptor in (self._descriptor, self._accounts_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._accounts_descriptor = -1


def _shared_memory(name: str, size: int) -> tuple[int, mmap.mmap]:
    descriptor = os.memfd_create(name)
    os.ftruncate(descriptor, size)
    return descriptor, mmap.mmap(descriptor, size)


def _environment(config: Config) -> dict[str, str]:
    """Such that a worker is this program, and not what lies in the current directory; without the secrets
    that the configuration names there: orders tell a worker what it needs of them."""
    here = str(Path(proxy.__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    secrets = {config.admin.token_env, *(provider.api_key_env for provider in config.providers.values())}
    kept = {name: value for name, value in os.environ.items() if name not in secrets}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _when(row: dict[str, Any]) -> float:
    return float(row["time"])


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"


def _log_ejection(deployment: Deployment, who: str, at: float) -> None:
    is_key = who == "key"
    name = f"provider {deployment.provider.name}" if is_key else deployment.id
    reason = deployment.key.reason if is_key else deployment.breaker.reason
    facts = {"provider": deployment.provider.name} | ({} if is_key else {"model": deployment.id})
    log.warning("%s is ejected for %.1f s: %s", name, deployment.free_at(at) - at, reason, extra=facts)
