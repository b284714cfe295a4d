"""The worker processes: started, replaced when they die, and reaped.

A worker that dies is replaced, at once if it had served for a while, else after a pause that doubles. The
child processes of this process are exactly the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import proxy
from proxy.config.settings import Config
from proxy.errors import StartError
from proxy.relay.downstream.own_figures import Ask
from proxy.server.messages import Channel, Start
from proxy.server.worker_handle import WorkerHandle

log = logging.getLogger("tokenhub.workers")

# A worker that serves by then is well; one that has served for STEADY_S died of something new.
START_S, STEADY_S = 30.0, 10.0
_PAUSE_S, _MAX_PAUSE_S = 0.5, 30.0
# After this many deaths in a row before a worker ever served, the gateway gives up.
MAX_FAILURES = 5


class WorkerPool:
    """A fixed number of workers that are kept running.

    :param descriptors: of what a worker inherits, by its index.
    :param environment: the environment variables of the next worker.
    :param first_message: makes the message that a worker starts by.
    :param answer: answers workers' questions.
    :param on_exit: called when a worker has ended, before it is replaced.
    """

    def __init__(
        self,
        size: int,
        *,
        descriptors: Callable[[int], Sequence[int]],
        environment: Callable[[], dict[str, str]],
        first_message: Callable[[int], Start],
        answer: Ask,
        on_exit: Callable[[WorkerHandle], None],
    ) -> None:
        self.handles: dict[int, WorkerHandle] = {}  # of the workers that live, by index
        self.failed: asyncio.Future[str]  # done when it has given up: why
        self._size = size
        self._descriptors = descriptors
        self._environment = environment
        self._first_message = first_message
        self._answer = answer
        self._on_exit = on_exit
        self._tasks: list[asyncio.Task[None]] = []
        self._is_stopping = False
        self._failures = 0  # in a row

    @property
    def living(self) -> list[WorkerHandle]:
        """The workers that live now."""
        return list(self.handles.values())

    async def start(self) -> None:
        """Start the workers; returns when all of them serve. :raises StartError: one can't."""
        loop = asyncio.get_running_loop()
        self.failed = loop.create_future()
        first: list[asyncio.Future[str]] = [loop.create_future() for _ in range(self._size)]
        self._tasks = [loop.create_task(self._keep_running(*one)) for one in enumerate(first)]
        for serves in first:
            why = await serves
            if why:
                raise StartError(f"a worker can't start: {why}")

    async def _keep_running(self, index: int, first: asyncio.Future[str]) -> None:
        """Run a worker, and another one when it has died. ``first`` gets "" when it serves, or why not."""
        pause_s = 0.0
        while not self._is_stopping:
            begun_at, is_first = time.monotonic(), not first.done()
            why, end = await self._run_once(index, first)
            if self._is_stopping or (is_first and why):
                return
            lived_s = time.monotonic() - begun_at
            is_steady = not why and lived_s >= STEADY_S
            pause_s = 0.0 if is_steady else min(max(_PAUSE_S, 2.0 * pause_s), _MAX_PAUSE_S)
            log.error(
                "worker %d %s%s after %.1f s: restarting%s", index, end,
                f" at its start ({why})" if why else "", lived_s, f" in {pause_s:g} s" if pause_s else "",
            )  # fmt: skip
            self._failures = self._failures + 1 if why else 0
            if self._failures >= MAX_FAILURES and not self.handles and not self.failed.done():
                self.failed.set_result(f"{self._failures} workers in a row died at their start: {why}")
            await asyncio.sleep(pause_s)

    async def _run_once(self, index: int, first: asyncio.Future[str]) -> tuple[str, str]:
        """Run one worker to its end. Returns why it never served, or "", and how it ended."""
        try:
            handle = await self._spawn(index)
        except OSError as error:  # no memory, no descriptors, no interpreter any more
            why, end = str(error), "could not be started"
        else:
            why = await self._wait_until_it_serves(handle)
            if why:
                handle.signal(signal.SIGKILL)
            elif not first.done():
                first.set_result("")
            code = await handle.process.wait()
            await self._reap(handle)
            end = f"(process {handle.process.pid}) {_end_of(code)}"
        if not first.done():
            first.set_result(why)
        return why, end

    async def _spawn(self, index: int) -> WorkerHandle:
        """:raises OSError: the system has no room for one more process."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "proxy.server.worker", str(theirs.fileno()),
                pass_fds=[theirs.fileno(), *self._descriptors(index)], stdin=asyncio.subprocess.DEVNULL,
                env=self._environment(),
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        handle = WorkerHandle(index, process, await Channel.open(ours), self._answer)
        self.handles[index] = handle
        return handle

    async def _wait_until_it_serves(self, handle: WorkerHandle) -> str:
        """Returns why it doesn't, or ""."""
        try:
            reply = await asyncio.wait_for(handle.call(self._first_message(handle.index)), START_S)
        except TimeoutError:
            return f"it doesn't serve within {START_S:g} s"
        return reply.error

    async def _reap(self, handle: WorkerHandle) -> None:
        await handle.process.wait()
        if self.handles.get(handle.index) is handle:
            del self.handles[handle.index]
            self._on_exit(handle)
        await handle.close()

    def stop_replacing(self) -> None:
        """Let workers end from now on without another one in their place."""
        self._is_stopping = True

    async def wait(self, limit_s: float) -> None:
        """Wait until all workers have ended, up to ``limit_s``."""
        waiting = [asyncio.create_task(handle.process.wait()) for handle in self.living]
        try:
            if waiting:
                await asyncio.wait(waiting, timeout=limit_s)
        finally:
            for task in waiting:
                task.cancel()

    async def close(self) -> None:
        """Kill and reap all workers."""
        self._is_stopping = True
        for handle in self.living:
            handle.signal(signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for handle in self.living:
            await self._reap(handle)


def worker_environment(config: Config) -> dict[str, str]:
    """The environment in which a worker is this program, and not what lies in the current directory.

    The secrets that the configuration names are left out: messages bring a worker what it needs of them.
    """
    here = str(Path(proxy.__file__).parents[1])
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    secrets = {config.admin.token_env, *(provider.api_key_env for provider in config.providers.values())}
    kept = {name: value for name, value in os.environ.items() if name not in secrets}
    return {**kept, "PYTHONPATH": os.pathsep.join(paths)}


def _end_of(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
