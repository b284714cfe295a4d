"""Changes a running gateway's configuration: by its file, by a signal, by the admin API.

All ways lead through one lock and one order: read, parse, prepare; then replace the old configuration in one
turn of the event loop. A failure before that leaves everything as it was. Running requests keep the
configuration that they started with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from proxy.config.changes import Changes, changed, effective, needs_restart
from proxy.config.settings import Config
from proxy.config.tables import ConfigError
from proxy.control.allocator import growing
from proxy.control.certificates import read_certificate
from proxy.control.prepare import Prepared, prepare, read_keys, simulates
from proxy.control.routes_file import Irreplaceable, RoutesFile, Unreadable, files_beside, is_open_to_all
from proxy.control.slices import Slices, stepped
from proxy.control.telemetry.logs import configure
from proxy.errors import StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.routing.catalog import Catalog

log = logging.getLogger("tokenhub.config")

# Brings a configuration that is in effect here to the workers, and returns when it is in effect there too.
Spread = Callable[[Config, Prepared], Awaitable[None]]

# Changes that one line of the log names.
_MOST_LOGGED = 50

NO_FILE = "this gateway was not started from a file, so there is nothing to reload or write"


class Reloader:
    """Changes the configuration of a running gateway.

    :param started: the configuration the gateway was started with.
    :param created: Unix seconds, for ``/v1/models``.
    :param file: None: there is nothing to reload.
    :param simulator: starts the simulator if it doesn't run, and returns its port.
    :param spread: None: there are no workers beside this process.
    """

    def __init__(
        self,
        gateway: Gateway,
        started: Config,
        prepared: Prepared,
        environ: Mapping[str, str],
        created: int,
        simulator: Callable[[], Awaitable[int]],
        file: RoutesFile | None,
        spread: Spread | None = None,
    ) -> None:
        self._gateway = gateway
        self._started = started
        self._prepared = prepared
        self._environ = environ
        self._created = created
        self._simulator = simulator
        self._file = file
        self._spread = spread
        self._lock = asyncio.Lock()

    async def check(self) -> None:
        """Check the file, and those with keys and certificates, and reload after a change."""
        file = self._file
        if file is None or self._lock.locked():
            return
        if file.has_changed(files_beside(self._gateway.config)):
            await self.reload_and_log("the file changed")

    async def reload_and_log(self, why: str) -> None:
        """Reload, and log mistakes."""
        try:
            changes = await self.reload()
        except (ConfigError, StartError, Unreadable, Irreplaceable) as error:
            log.error("%s, but the configuration stays as it was:", why)
            for line in str(error).splitlines():
                log.error("%s", line)
        else:
            if not changes:
                log.info("%s: nothing to change", why)

    async def reload(self) -> Changes:
        """Read the file, the keys and the certificate anew.

        :raises ConfigError: the file holds mistakes. :raises Unreadable: it can't be read.
        :raises StartError: the rest of it can't be used (a key's file, a certificate).
        :raises Irreplaceable: there is no file.
        """
        file = self._file
        if file is None:
            raise Irreplaceable(NO_FILE)
        async with self._lock:
            with growing():
                return await self._reload(file)

    async def _reload(self, file: RoutesFile) -> Changes:
        reading = await asyncio.to_thread(file.read)
        file.saw(reading.stamp, files_beside(self._gateway.config))
        # In a thread: a long file takes its time, and streams go on meanwhile.
        given = await asyncio.to_thread(file.parse, reading.text)
        file.saw(reading.stamp, files_beside(given))
        config, prepared = await self._prepare(given)
        file.text = reading.text
        return await self._adopt(given, config, prepared)

    async def edit(self, change: Callable[[str], str]) -> Changes:
        """Change the file's text, and with it what runs.

        :param change: makes the new text; what it raises comes out.
        :raises ConfigError, StartError, Unreadable: as :meth:`reload`; nothing was written.
        :raises Irreplaceable: the file can't be replaced, or was changed by somebody else.
        """
        file = self._file
        if file is None:
            raise Irreplaceable(NO_FILE)
        async with self._lock:
            with growing():
                text = await asyncio.to_thread(change, file.text)
                given = await asyncio.to_thread(file.parse, text)
                config, prepared = await self._prepare(given)
                stamp = await asyncio.to_thread(file.replace, text)
                file.text = text
                file.seen[str(file.path)] = stamp
                return await self._adopt(given, config, prepared)

    async def _prepare(self, given: Config) -> tuple[Config, Prepared]:
        config = effective(given, self._started)
        keys = read_keys(config, self._environ)
        port = await self._simulator() if simulates(config, keys) else 0
        certificate = read_certificate(config.server)
        # In a thread: reading the system's certificates takes some 10 ms a provider.
        return config, await asyncio.to_thread(prepare, config, keys, port, self._prepared, certificate)

    async def _adopt(self, given: Config, config: Config, prepared: Prepared) -> Changes:
        old, before = self._prepared, self._gateway.config
        found = await asyncio.to_thread(changed, before, config)
        found += [
            f"key of provider {name} changed"
            for name, key in prepared.keys.items()
            if name in old.keys and old.keys[name] != key
        ]
        found += [
            f"the authorities in ca_file of provider {name} changed"
            for name, held in prepared.authorities.items()
            if old.authorities.get(name, held) != held
        ]
        if prepared.certificate != old.certificate:
            found.append("the TLS certificate changed")
        if prepared.simulated != old.simulated:
            found.append(f"the simulator is {'on' if prepared.simulated else 'off'}")
        changes = Changes(found, needs_restart(given, self._started))
        if found:
            await apply_config(self._gateway, config, prepared, old, self._created)
            self._prepared = prepared
            if self._spread is not None:
                await self._spread(config, prepared)
            await asyncio.sleep(0)  # the former configuration is freed here, which is enough for one turn
            more = f", and {len(found) - _MOST_LOGGED} more" if len(found) > _MOST_LOGGED else ""
            log.info("changed: %s%s", ", ".join(found[:_MOST_LOGGED]), more)
            warn_of_missing(prepared, old)
            warn_of_open_files(config, before)
        if changes.needs_restart:
            log.warning("needs a restart: %s", ", ".join(changes.needs_restart))
        return changes


async def apply_config(
    gateway: Gateway, config: Config, prepared: Prepared, old: Prepared, created: int
) -> None:
    """Put a prepared configuration in the place of the former one, for the next request on.

    The catalog, which may be large, is made before that in slices. What was learned stays, but simulated
    responses teach nothing about real ones, nor the other way round.
    """
    before = gateway.catalog if prepared.simulated == old.simulated else None
    same = [name for name, made in prepared.providers.items() if old.providers.get(name) is made]
    catalog = Catalog(config, prepared.usable, created, before, same, in_steps=True)
    await stepped(catalog.steps)
    if gateway.knowledge is not None:
        await stepped(gateway.knowledge.prepare(catalog.deployments))
    left = gateway.catalog.parts()
    gateway.adopt(config, catalog, prepared.providers)
    configure(config.log)
    del before, catalog
    slices = Slices()
    while left:  # to free all of it at once takes as long as to read it
        left.pop()
        await slices.step()


def warn_of_missing(prepared: Prepared, before: Prepared | None = None) -> None:
    """Log which providers are left out, and that the simulator answers, where that is new."""
    if prepared.simulated and not (before and before.simulated):
        log.warning("SIMULATED: requests do not reach providers; the built-in simulator answers all of them")
    for name, provider in prepared.providers.items():
        known = before is not None and name in before.providers and not before.providers[name].has_credentials
        if not provider.has_credentials and not known:
            log.warning("provider %s %s; it is left out", name, provider.config.no_key)


def warn_of_open_files(config: Config, before: Config | None = None) -> None:
    """Log which files with secrets every user of this machine can read, where that is new."""
    files = _secret_files(config) - (set() if before is None else _secret_files(before))
    for file in sorted(filter(is_open_to_all, files)):
        log.warning("%s holds a secret, and every user of this machine can read it: chmod o-r", file)


def _secret_files(config: Config) -> set[str]:
    keys = {provider.api_key_file for provider in config.providers.values()}
    return (keys | {config.server.tls_key}) - {""}
