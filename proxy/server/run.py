"""``tokenhub serve``: one process or several, the signals, and the exit code."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal

import uvloop

from proxy.config.listen import show
from proxy.config.settings import Config
from proxy.control import allocator
from proxy.control.routes_file import RoutesFile
from proxy.control.telemetry import logs
from proxy.server import systemd
from proxy.server.machine import usable_cores
from proxy.server.single import Server
from proxy.server.supervisor import Supervisor

log = logging.getLogger("tokenhub.server")


def serve(config: Config, file: RoutesFile | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the process's exit code.

    :param file: where ``config`` was loaded from.
    :raises StartError: the gateway can't start.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _keep_out_of_cores()
    logs.configure(config.log)
    try:
        return uvloop.run(_serve(config, file))
    finally:
        logs.flush()


def _keep_out_of_cores() -> None:
    """Forbid core dumps: the operator's keys and prompts are in memory. Workers inherit that.

    The limit is 1: with 0 the kernel still hands cores to a program, where it is set so (Linux,
    fs/coredump.c). To get one all the same: ``prlimit --pid … --core=unlimited:`` on the running process.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it: serve all the same
        resource.setrlimit(resource.RLIMIT_CORE, (1 if hard else 0, hard))


async def _serve(config: Config, file: RoutesFile | None) -> int:
    workers = config.server.workers or usable_cores()
    server: Server | Supervisor
    if workers == 1:
        server = Server(config, os.environ, file)
    else:
        server = Supervisor(config, os.environ, file, workers)
    loop = asyncio.get_running_loop()
    stop: asyncio.Queue[str] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.put_nowait, number.name)
    reloads: set[asyncio.Task[None]] = set()
    has_started = False

    def reload() -> None:
        if has_started:  # else the file has just been read
            task = loop.create_task(_reload(server))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    starting = loop.create_task(server.start())
    stopping = loop.create_task(stop.get())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            log.info("%s during the start", stopping.result())
            return 0
        await starting
        has_started = True
        _log_start(server, workers, "https" if config.server.tls_cert else "http")
        return await _run(server, stop, stopping)
    finally:
        for task in (starting, stopping, *reloads):
            task.cancel()
        await asyncio.gather(starting, stopping, *reloads, return_exceptions=True)
        await server.close()
        log.info("stopped")


def _log_start(server: Server | Supervisor, workers: int, scheme: str) -> None:
    if server.admin_address is not None:
        log.info("admin API at %s", show(server.admin_address))
    if workers > 1:
        log.info("%d workers", workers)
    for listen in server.addresses:
        log.info("listening on %s", show(listen, scheme))
    allocator.tune()
    systemd.ready()


async def _run(server: Server | Supervisor, stop: asyncio.Queue[str], stopping: asyncio.Task[str]) -> int:
    """Run until a signal comes; then until all is drained, or a second signal. Ends if workers can't
    start."""
    code = 0
    if isinstance(server, Supervisor):
        await asyncio.wait((stopping, server.failed), return_when=asyncio.FIRST_COMPLETED)
        if server.failed.done():
            log.critical("giving up: %s", server.failed.result())
            code = 1
    else:
        await stopping
    if stopping.done():
        log.info("%s: draining", stopping.result())
        systemd.stopping()
        loop = asyncio.get_running_loop()
        drain, second = loop.create_task(server.drain()), loop.create_task(stop.get())
        await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
        for task in (drain, second):
            task.cancel()
        await asyncio.gather(drain, second, return_exceptions=True)
    return code


async def _reload(server: Server | Supervisor) -> None:
    systemd.reloading()
    try:
        await server.reload("SIGHUP")
    finally:
        systemd.ready()
