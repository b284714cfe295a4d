"""The gateway in one process: data plane and control plane on one event loop."""

from __future__ import annotations

import mmap
import time
from collections.abc import Mapping
from typing import Any

from proxy.access.accounts import Accounts, memory_bytes
from proxy.config.settings import Config, Listen
from proxy.control.admin.views import select_requests
from proxy.control.own_figures import KeyFigures
from proxy.control.prepare import Prepared, open_tracing
from proxy.control.reload import Reloader
from proxy.control.routes_file import RoutesFile
from proxy.control.slices import stepped
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.downstream.own_figures import OwnFigures
from proxy.server.control_plane import ControlPlane
from proxy.server.data_plane import DataPlane
from proxy.server.listeners import listen_on, remove_socket
from proxy.storage.ledger_files import Ledger
from proxy.storage.ledger_search import needle_of
from proxy.usage.counters import Counted
from proxy.usage.line import row


class Server:
    """A running gateway in this process and loop.

    :param environ: where keys are read from.
    :param file: where ``config`` comes from, already loaded; None: there is nothing to reload or write.
    """

    def __init__(self, config: Config, environ: Mapping[str, str], file: RoutesFile | None = None) -> None:
        self.addresses: list[Listen] = []  # listened on, with the ports filled in
        self._control = ControlPlane(config, environ, file)
        self._plane: DataPlane | None = None

    @property
    def gateway(self) -> Gateway:
        """The gateway that the connections share."""
        return self._control.gateway

    @property
    def reloader(self) -> Reloader:
        """The part that changes the configuration."""
        return self._control.reloader

    @property
    def admin_address(self) -> Listen | None:
        """Of the admin API; None: it is switched off."""
        return self._control.address

    async def start(self) -> None:
        """Start to serve. :raises StartError: it can't."""
        control = self._control
        config = control.started
        accounts = Accounts(memoryview(mmap.mmap(-1, memory_bytes(1))), 1, 0)
        catalog = await control.prepare(accounts)
        plane = self._plane = DataPlane(
            config,
            catalog,
            control.prepared.providers,
            keyring=control.keys.keyring,
            accounts=accounts,
            ledger=Ledger(control.usage_index.directory, 0, int(time.time() * 1000)),
            tracing=open_tracing(config.traces, None),
            tls=control.prepared.tls,
        )

        async def apply(_config: Config, prepared: Prepared) -> None:
            plane.apply_certificate(prepared.tls)

        control.govern(plane.gateway, apply)
        plane.gateway.figures = OwnFigures(KeyFigures(control.usage_index, self._find_latest).answer)
        await control.keys.serve(plane.apply_keys)
        await plane.start()
        for listen in config.server.listen:
            [sockets], address = await listen_on(listen, config.server.socket_mode)
            self.addresses.append(address)
            for sock in sockets:
                await plane.accept(sock)
        await control.start(self.requests, self.count)

    async def requests(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """The latest requests that a query selects. :raises QueryError: it can't be read."""
        return await recent_requests(self.gateway, query)

    async def _find_latest(self, id: str) -> bytes | None:
        return self.gateway.completions.recent.find(needle_of(id))

    async def count(self, brief: bool = False) -> Counted:
        """The counters and gauges of this process; ``brief``: summed over all labels."""
        counted = await stepped(self.gateway.count(brief))
        counted.levels["workers",] = (1,)
        return counted

    async def reload(self, why: str) -> None:
        """Read the configuration anew; what is wrong goes to the log."""
        await self.reloader.reload_and_log(why)

    async def drain(self) -> None:
        """Let running requests end; see :meth:`proxy.server.data_plane.DataPlane.drain`."""
        assert self._plane is not None
        await self._plane.drain()

    async def close(self) -> None:
        """Close everything at once; also after a start that failed."""
        for listen in self.addresses:
            remove_socket(listen)
        if self._plane is not None:
            await self._plane.close()
        await self._control.close()


async def recent_requests(gateway: Gateway, query: Mapping[str, str]) -> list[dict[str, Any]]:
    """Select the latest requests of this process by a query, newest first.

    :raises QueryError: the query can't be read.
    """
    name_of = gateway.keys.name_of
    lines = list(gateway.completions.recent)
    return await stepped(select_requests((row(line, name_of) for line in lines), query))
