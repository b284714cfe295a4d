"""Starts the gateway from a configuration, listens, and stops without dropping what runs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import signal
import time
from collections.abc import Mapping

import uvloop
from aiohttp import web

from proxy.admin import admin_app
from proxy.app import ControlProtocol, data_app
from proxy.catalog import Catalog
from proxy.config import Config, Listen
from proxy.downstream import ClientConnection
from proxy.gateway import Gateway
from proxy.listeners import StartError, open_listener, remove_socket, show
from proxy.prepare import check_auth, prepare, read_keys, simulates
from proxy.reload import Reloader, warn_of_missing
from proxy.routesfile import RoutesFile
from proxy.simulator import Simulator

log = logging.getLogger("tokenhub.server")

TICK_S = 0.1
WATCH_S = 0.5  # a change is taken on at the second look that finds it
_DRAIN_POLL_S = 0.05
# What was handed to aiohttp is answered at once; it may only still wait for a body that nobody wants.
_HANDED_OVER_S = 0.5


class Server:
    """A running gateway in this process and loop.

    :param environ: where keys are read from.
    :param file: where ``config`` comes from, already loaded; None: there is nothing to reload or write.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], file: RoutesFile | None = None) -> None:
        self.addresses: list[Listen] = []  # what is really listened on, ports filled in
        self.admin_address: Listen | None = None  # likewise; None: switched off
        self._started = config
        self._environ = environ
        self._file = file
        self._listeners: list[asyncio.Server] = []
        self._admin: asyncio.Server | None = None
        self._simulator: Simulator | None = None
        self._runner: web.AppRunner | None = None
        self._admin_runner: web.AppRunner | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.gateway: Gateway
        self.reloader: Reloader

    @property
    def config(self) -> Config:
        """The configuration that runs."""
        gateway: Gateway | None = getattr(self, "gateway", None)
        return self._started if gateway is None else gateway.config

    async def start(self) -> None:
        """Listen. :raises StartError: it can't."""
        config, created = self._started, int(time.time())
        check_auth(config)
        token = self._admin_token()
        keys = read_keys(config, self._environ)
        port = await self._simulator_port() if simulates(config, keys) else 0
        prepared = prepare(config, keys, port)
        warn_of_missing(prepared)
        catalog = Catalog(config, prepared.usable, created)
        self.gateway = Gateway(config, catalog, prepared.providers, self._control, random.Random())
        self.reloader = Reloader(
            self.gateway, config, prepared, self._environ, created, self._simulator_port, self._file
        )
        self._runner = web.AppRunner(data_app(self.gateway), shutdown_timeout=_HANDED_OVER_S)
        await self._runner.setup()
        for listen in config.server.listen:
            listener, address = await open_listener(
                listen, lambda: ClientConnection(self.gateway), config.server.socket_mode
            )
            self._listeners.append(listener)
            self.addresses.append(address)
        if config.admin.listen is not None:
            await self._open_admin(config.admin.listen, token)
        self._tick()
        if self._file is not None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch())

    def _admin_token(self) -> str:
        """What requests to the admin listener have to bring; "" for nothing."""
        admin = self._started.admin
        if admin.listen is None or not admin.token_env:
            return ""
        token = self._environ.get(admin.token_env, "").strip()
        if not token:
            raise StartError(
                f"[admin] token_env names {admin.token_env}, but that variable is empty: set it."
            )
        return token

    async def _open_admin(self, listen: Listen, token: str) -> None:
        app = admin_app(self.gateway, self.reloader, listen, token)
        runner = self._admin_runner = web.AppRunner(app, shutdown_timeout=_HANDED_OVER_S)
        await runner.setup()
        server = runner.server
        assert server is not None
        try:
            self._admin, self.admin_address = await open_listener(
                listen, lambda: ControlProtocol(server, self.gateway), self._started.server.socket_mode
            )
        except StartError as error:
            raise StartError(
                f'{error}. It is for the admin API: set [admin] listen to another address, or to "" to do '
                "without."
            ) from None

    async def _simulator_port(self) -> int:
        """The simulator's port; it is started when it is first needed, and then runs on until the end."""
        if self._simulator is None:
            simulator = Simulator(seed=self._started.simulator.seed)
            self._port = await simulator.start()
            self._simulator = simulator
        return self._port

    def _control(self) -> asyncio.Protocol:
        assert self._runner is not None and self._runner.server is not None
        return ControlProtocol(self._runner.server, self.gateway)

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self.gateway.tick(time.monotonic())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.reloader.check()
            except Exception:
                log.exception("a fault in taking on a changed file; it is looked at again when it changes")

    async def drain(self) -> None:
        """Stop as the contract says: unready, lame duck, nothing new, running exchanges to their end."""
        gateway, server = self.gateway, self.config.server
        gateway.unready = True
        if server.lame_duck_s:
            await asyncio.sleep(server.lame_duck_s)
        gateway.draining = True
        for listener in self._listeners:
            listener.close()
        for connection in list(gateway.connections):
            connection.close_if_idle()
        deadline = time.monotonic() + server.drain_timeout_s
        while gateway.connections and time.monotonic() < deadline:
            await asyncio.sleep(_DRAIN_POLL_S)
        if gateway.connections:
            log.warning("drain_timeout is over: %d connections are cut", len(gateway.connections))

    async def close(self) -> None:
        """Close everything at once; also what a start that failed has opened."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        for listener in [*self._listeners, self._admin]:
            if listener is not None:
                listener.close()
        for listen in [*self.addresses, self.admin_address]:
            if listen is not None:
                remove_socket(listen)
        if self._ticker is not None:
            self._ticker.cancel()
        if hasattr(self, "gateway"):
            await self.gateway.close()
        for runner in (self._runner, self._admin_runner):
            if runner is not None:
                await runner.cleanup()
        if self._simulator is not None:
            await self._simulator.close()


async def _serve(config: Config, file: RoutesFile | None) -> int:
    server = Server(config, os.environ, file)
    stop: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.put_nowait, number)
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        if hasattr(server, "reloader"):  # else the file has just been read
            task = loop.create_task(server.reloader.reload_and_log("SIGHUP"))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await server.start()
    except StartError:
        await server.close()
        raise
    if server.admin_address is not None:
        log.info("admin API at %s", show(server.admin_address))
    for listen in server.addresses:
        log.info("listening on %s", show(listen))
    # What was made so far lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    number = await stop.get()
    log.info("%s: draining, %g s at most", number.name, server.config.server.drain_timeout_s)
    drain = loop.create_task(server.drain())
    second = loop.create_task(stop.get())
    await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
    for task in (drain, second):
        task.cancel()
    await asyncio.gather(drain, second, return_exceptions=True)
    await server.close()
    log.info("stopped")
    return 0


def serve(config: Config, file: RoutesFile | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the process's exit code.

    :param file: where ``config`` was loaded from.
    :raises StartError: the gateway can't start.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return uvloop.run(_serve(config, file))
