"""The control plane: configuration, admin API, simulator, and what is kept for the next start.

It is the same for a data plane in this process and for one in workers.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from proxy import __version__
from proxy.access.accounts import Accounts
from proxy.config.settings import Config, Listen
from proxy.control.admin.app import Requests, admin_app
from proxy.control.admin.monitoring import Monitor
from proxy.control.aiohttp_protocol import AdminConnections, ControlProtocol, Refusal
from proxy.control.alerts import Watch, payload
from proxy.control.certificates import read_certificate
from proxy.control.key_store import KeyStore
from proxy.control.live_feed import Count, LiveFeed
from proxy.control.periodic import Periodic
from proxy.control.prepare import Prepared, prepare, read_keys, simulates
from proxy.control.reload import Reloader, Spread, warn_of_missing, warn_of_open_files
from proxy.control.routes_file import RoutesFile
from proxy.control.slices import stepped
from proxy.control.usage_index import UsageIndex
from proxy.control.webhook import Webhook
from proxy.deployments.worker_sync import dump_rows, restore_rows
from proxy.errors import StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.upstream.tcp_keepalive import enable
from proxy.routing.catalog import Catalog
from proxy.server.listeners import listen_on, remove_socket, serve_on
from proxy.simulator.server import Simulator
from proxy.storage.database import Database, explain
from proxy.storage.schema_version import StateError

log = logging.getLogger("tokenhub.server")

_WAY_OUT = 'It is for the admin API: set [admin] listen to another address, or to "" to do without'

# How long requests at the admin listener get to end when the gateway does.
_SHUTDOWN_S = 0.5

WATCH_S = 0.5  # a change is applied at the second check that finds it
# How often what was learned is written: a process that is killed loses the rest.
SAVE_S = 30.0
# How often the causes of alerts are checked, and how many keys each time: a long list of keys takes several
# checks, since reading what each has used keeps the requests of this process waiting.
ALERT_S, ALERT_KEYS = 1.0, 250


class ControlPlane:
    """Governs a gateway. Calls, in this order: :meth:`prepare`, :meth:`govern`, :meth:`start`.

    :param environ: where keys are read from.
    :param file: where ``config`` comes from, already loaded; None: there is nothing to reload or write.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], file: RoutesFile | None) -> None:
        self.started = config
        self.environ = environ
        self.created = int(time.time())
        self.address: Listen | None = None  # of the admin API, with its port; None: it is switched off
        self.prepared: Prepared
        self.simulator_port = 0
        self.gateway: Gateway
        self.reloader: Reloader
        self.keys: KeyStore
        self._file = file
        self._admin: list[asyncio.Server] = []
        self._runner: web.AppRunner | None = None
        self._simulator: Simulator | None = None
        self._database = Database(config.state.path)
        self._webhook = Webhook()
        self._alerts = Watch()
        self.usage_index = UsageIndex(self._database, config)
        self._jobs: list[Periodic] = []
        self._has_started = False

    async def prepare(self, accounts: Accounts) -> Catalog:
        """Do everything that may fail, before anything listens. Returns the catalog, with what was known.

        :param accounts: what keys use; they are opened here.
        :raises StartError: the configuration can't be used.
        """
        config = self.started
        self._token = self._admin_token()
        keys = read_keys(config, self.environ)
        port = await self.simulator() if simulates(config, keys) else 0
        self.prepared = prepare(config, keys, port, None, read_certificate(config.server))
        warn_of_missing(self.prepared)
        warn_of_open_files(config)
        catalog = Catalog(config, self.prepared.usable, self.created)
        known = await self._open_state(accounts)
        if self.prepared.simulated:
            return catalog  # what is known of providers does not hold for simulated responses
        # Unix seconds, as a monotonic clock begins anew with each start of the machine.
        count = restore_rows(catalog.deployments, known, time.monotonic() - time.time())
        if count:
            log.info("restored the last run's live figures; models: %d", count)
        return catalog

    async def _open_state(self, accounts: Accounts) -> dict[int, dict[str, Any]]:
        """Open the keys, their usage, and what was learned, which is returned.

        :raises StartError: the database can't be read, so that the keys are unknown.
        """
        try:
            await self._database.open()
            used = await self.usage_index.open()
        except (StateError, sqlite3.Error) as error:
            raise StartError(explain(self.started.state.path, error)) from None
        self.keys = KeyStore(self._database, accounts, self.started)
        await self.keys.open(used)
        return await self._database.rows()

    def govern(self, gateway: Gateway, spread: Spread | None = None) -> None:
        """Govern this gateway. ``spread`` brings a new configuration to the workers."""
        self.gateway = gateway

        async def spread_all(config: Config, prepared: Prepared) -> None:
            self.usage_index.config = config
            if spread is not None:
                await spread(config, prepared)
            await self.keys.configure(config)

        self.reloader = Reloader(
            gateway, self.started, self.prepared, self.environ, self.created, self.simulator, self._file,
            spread_all,
        )  # fmt: skip

    async def start(self, requests: Requests, count: Count) -> None:
        """Open the admin API, and watch the file.

        :param requests: returns the rows of the latest requests that a query selects.
        :param count: collects the counts of all workers.
        :raises StartError: the admin API can't be opened.
        """
        if self.started.admin.listen is not None:
            live = LiveFeed(self.gateway, self.usage_index, count)
            monitor = Monitor(self.gateway, self.keys, live, count)
            await self._open(self.started.admin.listen, requests, monitor)
            self._jobs.append(live.sampling)
        if self._file is not None:
            self._jobs.append(Periodic(self.reloader.check, WATCH_S, "checking the configuration file", log))
        if self._database.is_kept:
            self._jobs.append(Periodic(self._save, SAVE_S, "saving what was learned", log))
            self._jobs.append(
                Periodic(self.keys.check, WATCH_S, "checking for keys changed by a command", log)
            )
        self._jobs.append(Periodic(self._check_alerts, ALERT_S, "checking for alerts", log, at_once=True))
        for job in self._jobs:
            job.start()
        self.usage_index.start()
        self._has_started = True

    def _admin_token(self) -> str:
        """The token that requests to the admin listener need; "" if they need no token."""
        admin = self.started.admin
        if admin.listen is None or not admin.token_env:
            return ""
        token = self.environ.get(admin.token_env, "").strip()
        if not token:
            raise StartError(
                f"[admin] token_env names {admin.token_env}, but that variable is empty: set it."
            )
        return token

    async def _open(self, listen: Listen, requests: Requests, monitor: Monitor) -> None:
        app = admin_app(
            self.gateway, self.reloader, self.keys, self.usage_index, requests, listen, self._token
        )
        monitor.add_to(app)
        runner = self._runner = web.AppRunner(app, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        server = runner.server
        assert server is not None
        [sockets], self.address = await listen_on(listen, self.started.server.socket_mode, way_out=_WAY_OUT)
        connections = AdminConnections()

        def connect() -> asyncio.Protocol:
            if not connections.make_room():
                return Refusal(self.gateway)
            return ControlProtocol(server, self.gateway, connections)

        for sock in sockets:
            enable(sock)
            self._admin.append(await serve_on(sock, connect))

    async def simulator(self) -> int:
        """Return the simulator's port. It is started when it is first needed, and runs until the end."""
        if self._simulator is None:
            simulator = Simulator(seed=self.started.simulator.seed)
            self.simulator_port = await simulator.start()
            self._simulator = simulator
        return self.simulator_port

    async def _check_alerts(self) -> None:
        url = self.gateway.config.alerts.webhook_url
        self._webhook.use(url)
        if not url:
            self._alerts = Watch()
            return
        unix_s = time.time()
        used = self.keys.used_in_turn(ALERT_KEYS)
        for alert in await stepped(self._alerts.steps(self.gateway.catalog, used, time.monotonic(), unix_s)):
            self._webhook.send(payload(alert, unix_s, socket.gethostname(), __version__))

    async def _save(self) -> None:
        if any(provider.simulated for provider in self.gateway.providers.values()):
            return  # simulated responses say nothing of providers
        rows = await stepped(dump_rows(self.gateway.catalog.deployments, time.time() - time.monotonic()))
        await self._database.save(rows)

    async def close(self) -> None:
        """End everything, and keep what was learned. Also after a start that failed."""
        await asyncio.gather(*(job.stop() for job in self._jobs))
        await self._webhook.close()
        for listener in self._admin:
            listener.close()
        if self.address is not None:
            remove_socket(self.address)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._simulator is not None:
            await self._simulator.close()
        if self._has_started:
            await self._save()
        await self.usage_index.close()
        await self._database.close()
