"""A supervisor with two workers in the test's own loop; the workers are real processes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from proxy.config.settings import Listen
from proxy.control.routes_file import RoutesFile
from proxy.server.supervisor import Supervisor
from tests.support.fakes import RawClient

TEXT = """
[server]
listen = ["127.0.0.1:0", "unix:{folder}/g.sock"]
drain_timeout = "10s"
[state]
path = "{folder}/t.db"
[admin]
listen = "127.0.0.1:0"
[providers.a]
base_url = "{a}"
auth = "none"
[providers.b]
base_url = "{b}"
auth = "none"
[models."a/m"]
[models."b/m"]
[aliases]
two = ["a/m", "b/m"]  # a comment
"""


class Running:
    """A supervisor with two workers, started from a file."""

    def __init__(self, folder: Path, a: str, b: str, text: str = TEXT) -> None:
        self.path = folder / "routes.toml"
        self.path.write_text(text.format(folder=folder, a=a, b=b))
        file = RoutesFile(self.path)
        self.supervisor = Supervisor(file.load(), {}, file, 2)
        self.addresses = self.supervisor.addresses

    @property
    def admin_address(self) -> Listen | None:
        return self.supervisor.admin_address

    @property
    def pids(self) -> list[int]:
        return [handle.process.pid for _, handle in sorted(self.supervisor.pool.handles.items())]

    def row(self, name: str, streamed: bool = False):
        gateway = self.supervisor._control.gateway
        return gateway.catalog.deployments[f"{name}/m"].row("chat", streamed)

    async def one_each(self, secret: bytes = b"") -> list[RawClient]:
        """A connection to each worker; a request id begins with its worker's own letters."""
        extra = b"Authorization: Bearer %b\r\n" % secret if secret else b""
        found: dict[bytes, RawClient] = {}
        async with asyncio.timeout(10):
            while len(found) < 2:
                client = await RawClient.connect(self)
                await client.send(b"GET /v1/none HTTP/1.1\r\nHost: g\r\n\r\n")  # closes the connection
                whose = (await client.response())[1][b"x-inferoute-request-id"][:-8]
                # The next connection may well be another worker's: it is told by its own answer.
                client = await RawClient.connect(self)
                await client.post(b'{"model":"none"}', extra=extra)
                whose = (await client.response())[1][b"x-inferoute-request-id"][:-8]
                found.setdefault(whose, client)
        return list(found.values())


def children() -> set[int]:
    """Of this process."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue
            state, parent = stat.rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                found.add(int(folder.name))
    return found
