"""Starts the gateway from a configuration, listens, and stops without dropping what runs."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import logging
import os
import random
import resource
import signal
import socket
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop
from aiohttp import web

from proxy.app import ControlProtocol, data_app
from proxy.catalog import Catalog
from proxy.config import Config, Listen, ProviderConfig
from proxy.downstream import ClientConnection
from proxy.gateway import Gateway, Provider
from proxy.simulator import Simulator
from proxy.values import is_loopback

log = logging.getLogger("tokenhub.server")

TICK_S = 0.1
_BACKLOG = 4096
_DRAIN_POLL_S = 0.05
# What was handed to aiohttp is answered at once; it may only still wait for a body that nobody wants.
_HANDED_OVER_S = 0.5


class StartError(Exception):
    """The gateway can't start; the text says why and what to do."""


def is_local(listen: Listen) -> bool:
    """Only processes of this machine can connect."""
    return bool(listen.path) or is_loopback(listen.host)


def read_key(provider: ProviderConfig, environ: Mapping[str, str]) -> str | None:
    """The operator's key for a provider; None if the configuration names none or it is not set.

    :raises StartError: the key's file can't be read, or the key can't be a header's value.
    """
    key = ""
    if provider.api_key_env:
        key = environ.get(provider.api_key_env, "")
    elif provider.api_key_file:
        try:
            key = Path(provider.api_key_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise StartError(
                f"The key of provider '{provider.name}' can't be read: {reason}: {provider.api_key_file}"
            ) from None
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise StartError(
            f"The key of provider '{provider.name}' holds white space or other characters no key has."
        )
    return key or None


def simulates(config: Config, keys: Mapping[str, str | None]) -> bool:
    """Whether the simulator answers in the providers' place.

    In ``auto`` mode only where nothing real could be reached anyway and nobody outside can be misled: no
    provider has a key (or does without one), and every listener is local.
    """
    mode = config.simulator.mode
    if mode != "auto":
        return mode == "always"
    keyless = all(p.auth not in ("none", "passthrough") for p in config.providers.values())
    return keyless and not any(keys.values()) and all(map(is_local, config.server.listen))


def check_auth(config: Config) -> None:
    """A listener that others can reach needs authentication, or the word that it is not wanted.

    :raises StartError: it has neither.
    """
    public = [show(listen) for listen in config.server.listen if not is_local(listen)]
    if public and config.auth.required:
        raise StartError(
            f"{', '.join(public)} can be reached by others, and this version has no keys yet to keep them "
            "out. Listen on 127.0.0.1 or a Unix socket, or say [auth] required = false."
        )


def show(listen: Listen) -> str:
    """An address for people."""
    if listen.path:
        return f"unix:{listen.path}"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"http://{host}:{listen.port}"


class Server:
    """A running gateway in this process and loop.

    :param environ: where keys are read from.
    """

    def __init__(self, config: Config, environ: Mapping[str, str]) -> None:
        self.config = config
        self.addresses: list[Listen] = []  # what is really listened on, ports filled in
        self._environ = environ
        self._listeners: list[asyncio.Server] = []
        self._simulator: Simulator | None = None
        self._runner: web.AppRunner | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self.gateway: Gateway

    async def start(self) -> None:
        """Listen. :raises StartError: it can't."""
        config = self.config
        check_auth(config)
        keys = {name: read_key(provider, self._environ) for name, provider in config.providers.items()}
        simulated = simulates(config, keys)
        port = 0
        if simulated:
            self._simulator = Simulator(seed=config.simulator.seed)
            port = await self._simulator.start()
            log.warning("SIMULATED: no provider is asked; the built-in simulator answers for all of them")
        providers = {
            name: self._provider(provider, keys[name], port) for name, provider in config.providers.items()
        }
        for provider in providers.values():
            if not provider.has_credentials:
                log.warning("provider %s has no key: it is left out", provider.config.name)
        usable = {name: provider.has_credentials for name, provider in providers.items()}
        catalog = Catalog(config, usable, int(time.time()))
        self.gateway = Gateway(config, catalog, providers, self._control, random.Random())
        self._runner = web.AppRunner(data_app(self.gateway), shutdown_timeout=_HANDED_OVER_S)
        await self._runner.setup()
        for listen in config.server.listen:
            await self._listen(listen)
        self._tick()

    def _provider(self, provider: ProviderConfig, key: str | None, simulator_port: int) -> Provider:
        connect_s = self.config.timeouts.connect_s
        if simulator_port:
            provider = dataclasses.replace(
                provider,
                scheme="http",
                host="127.0.0.1",
                port=simulator_port,
                base_path=f"/{provider.name}/v1",
                auth="none",
                ca_file="",
            )
            return Provider(provider, None, connect_s, simulated=True)
        try:
            return Provider(provider, key, connect_s, simulated=False)
        except OSError as error:  # ssl.SSLError is one
            raise StartError(f"ca_file of provider '{provider.name}' can't be used: {error}") from None

    def _control(self) -> asyncio.Protocol:
        assert self._runner is not None and self._runner.server is not None
        return ControlProtocol(self._runner.server, self.gateway)

    async def _listen(self, listen: Listen) -> None:
        loop = asyncio.get_running_loop()
        factory: Callable[[], ClientConnection] = lambda: ClientConnection(self.gateway)  # noqa: E731
        try:
            if listen.path:
                sock = _bind_unix(listen.path, self.config.server.socket_mode)
                self._listeners.append(await loop.create_unix_server(factory, sock=sock, backlog=_BACKLOG))
                self.addresses.append(listen)
            else:
                server = await loop.create_server(factory, listen.host, listen.port, backlog=_BACKLOG)
                self._listeners.append(server)
                port = server.sockets[0].getsockname()[1]
                self.addresses.append(dataclasses.replace(listen, port=port))
        except OSError as error:
            raise StartError(f"Can't listen on {show(listen)}: {error.strerror or error}") from None

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_S, self._tick)
        self.gateway.tick(time.monotonic())

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
        """Close everything at once."""
        for listener in self._listeners:
            listener.close()
        for listen in self.addresses:  # not the configured ones: another process may own those
            if listen.path:
                with contextlib.suppress(OSError):
                    os.unlink(listen.path)
        if self._ticker is not None:
            self._ticker.cancel()
        await self.gateway.close()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._simulator is not None:
            await self._simulator.close()


def _bind_unix(path: str, mode: int) -> socket.socket:
    """A Unix socket with its mode from the first moment; a socket nobody listens on is replaced.

    :raises OSError: the path can't be used, or somebody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                try:
                    sock.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
                else:
                    raise OSError(98, "somebody listens there already")
                finally:
                    sock.close()
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
    except BaseException:
        sock.close()
        raise
    return sock


async def _serve(config: Config) -> int:
    server = Server(config, os.environ)
    stop: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.put_nowait, number)
    loop.add_signal_handler(
        signal.SIGHUP, log.warning, "SIGHUP: this version can't reload; restart to apply changes"
    )
    await server.start()
    for listen in server.addresses:
        log.info("listening on %s", show(listen))
    # What was made so far lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    number = await stop.get()
    log.info("%s: draining, %g s at most", number.name, config.server.drain_timeout_s)
    drain = loop.create_task(server.drain())
    second = loop.create_task(stop.get())
    await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
    for task in (drain, second):
        task.cancel()
    await asyncio.gather(drain, second, return_exceptions=True)
    await server.close()
    log.info("stopped")
    return 0


def serve(config: Config) -> int:
    """Run until SIGTERM or SIGINT. Returns the process's exit code.

    :raises StartError: the gateway can't start.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return uvloop.run(_serve(config))
