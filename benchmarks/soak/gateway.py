"""The gateway of a soak and its provider as processes, and those who govern it while it runs.

That is edits of the file, signals, keys and aliases that come and go, watchers, and scrapes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import orjson

from soak.books import Families, children, read_metrics
from soak.client import Late, Wrong
from soak.plans import FIRST_BYTE_S, IDLE_S
from soak.provider import STALL

START_S = 60.0
STOP_S = 60.0
ADMIN_S = 60.0

CONFIG = """# edit {edit}
[server]
listen = ["127.0.0.1:{port}"]
workers = {workers}
tls_cert = "{cert}"
tls_key = "{key}"
[admin]
listen = "127.0.0.1:{admin_port}"
[auth]
required = false
[state]
path = "{state}"
[timeouts]
first_byte = "{first_byte_s:g}s"
total = "{first_byte_s:g}s"
idle = "{idle_s:g}s"
[routing]
retry_budget = 0.5
[routing.eject]
base = "2s"
max = "10s"
[log]
format = "json"
[providers.a]
base_url = "{upstream}/a/v1"
auth = "none"
[providers.b]
base_url = "{upstream}/b/v1"
auth = "none"
request_stream_usage = true
headers = {{ x-edit = "{b_edit}" }}
[providers.f]
base_url = "{upstream}/f/v1"
auth = "none"
headers = {{ x-edit = "{f_edit}" }}
[models."a/m"]
input_price = 1
output_price = 2
context_window = 1_000_000
[models."b/m"]
input_price = 2
output_price = 3
context_window = 1_000_000
[models."f/m"]
input_price = 0.5
output_price = 1
context_window = 1_000_000
[models."a/e"]
input_price = 0.1
capabilities = ["embeddings"]
[models."b/e"]
input_price = 0.1
capabilities = ["embeddings"]
[aliases]
safe = {{ models = ["f/m", "a/m"], strategy = "round-robin" }}
hedged = {{ models = ["f/m", "b/m"], strategy = "round-robin", hedge = "20ms" }}
peeked = {{ models = ["f/m", "a/m", "b/m"], strategy = "round-robin", peek = true }}
flip = ["{flip}/m"]
"""

# A line of the log that has one of these is a fault of ours.
FAULTS = re.compile(
    rb"a fault in the gateway|Traceback|\"exception\"|\"level\":\"critical\"|never awaited|was destroyed"
    rb"|never retrieved"
)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at the moment."""
    import socket

    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in socks]
    for sock in socks:
        sock.close()
    return ports


def certificate(folder: Path) -> tuple[Path, Path]:
    """A throw-away certificate for 127.0.0.1, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


class GatewayProcess:
    """``tokenhub serve`` with a configuration and a state of its own.

    :param upstream: the provider's address.
    """

    def __init__(self, folder: Path, upstream: str, workers: int, tls: bool) -> None:
        self.port, self.admin_port = free_ports(2)
        self.state = folder / "state.db"
        self.ledger = folder / "state.db-ledger"
        self.log = folder / "gateway.log"
        self.file = folder / "routes.toml"
        self.tls: ssl.SSLContext | None = None
        cert = key = ""
        if tls:
            paths = certificate(folder)
            cert, key = map(str, paths)
            self.tls = ssl.create_default_context(cafile=cert)
        self.values: dict[str, Any] = {
            "port": self.port, "admin_port": self.admin_port, "workers": workers, "state": self.state,
            "upstream": upstream, "cert": cert, "key": key, "first_byte_s": FIRST_BYTE_S, "idle_s": IDLE_S,
            "edit": 0, "b_edit": 0, "f_edit": 0, "flip": "a",
        }  # fmt: skip
        self.write()

    def write(self, more: str = "") -> None:
        """Replace the configuration in one step, as editors do."""
        new = self.file.with_suffix(".new")
        new.write_text(CONFIG.format(**self.values) + more)
        new.replace(self.file)

    async def start(self) -> None:
        program = Path(sys.executable).with_name("tokenhub")
        environ = {name: value for name, value in os.environ.items() if "TOKENHUB" not in name}
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(program), "serve", "--config", str(self.file),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ,
            )  # fmt: skip
        begun = time.monotonic()
        while True:
            with contextlib.suppress(OSError, Wrong):
                await self.admin("GET", "/healthz")
                return
            if self.process.returncode is not None or time.monotonic() - begun > START_S:
                raise SystemExit(f"the gateway did not start:\n{self.log.read_text()[-2000:]}")
            await asyncio.sleep(0.05)

    def pids(self) -> list[int]:
        """Of all its processes, the governing one first."""
        return [self.process.pid, *children(self.process.pid)]

    async def admin(self, method: str, path: str, body: object = None) -> bytes:
        """What the admin listener answers. :raises Wrong: it is no success, or nothing."""
        try:
            async with asyncio.timeout(ADMIN_S):
                return await self._admin(method, path, body)
        except TimeoutError:
            raise Wrong(f"{method} {path}: no whole answer within {ADMIN_S:g} s") from None

    async def _admin(self, method: str, path: str, body: object) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin_port, limit=1 << 24)
        try:
            data = b"" if body is None else orjson.dumps(body)
            kind = "" if body is None else "Content-Type: application/json\r\n"
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{kind}"
                f"Content-Length: {len(data)}\r\n\r\n".encode()
                + data
            )
            answer = await reader.read(-1)
        finally:
            writer.close()
        head, _, payload = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise Wrong(f"{method} {path}: {head[:40]!r} {payload[:300]!r}")
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            payload = _unchunked(payload)
        return payload

    async def metrics(self) -> Families:
        return read_metrics((await self.admin("GET", "/metrics")).decode())

    async def make_key(self, name: str, **settings: object) -> tuple[str, str]:
        """The clear key, and its id."""
        made = orjson.loads(await self.admin("POST", "/admin/v1/keys", {"name": name, **settings}))
        return made["key"], made["id"]

    async def usage(self) -> list[dict[str, Any]]:
        """The totals by key, model and provider, as ``tokenhub usage`` prints them."""
        program = Path(sys.executable).with_name("tokenhub")
        asked = ["--by", "key,model,provider", "--json", "--admin", f"http://127.0.0.1:{self.admin_port}"]
        process = await asyncio.create_subprocess_exec(
            str(program), "usage", "--config", str(self.file), *asked, stdout=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(ADMIN_S):
                out, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            raise Wrong(f"tokenhub usage does not end within {ADMIN_S:g} s") from None
        if process.returncode:
            raise Wrong(f"tokenhub usage exits with {process.returncode}")
        told = orjson.loads(out)
        return list(told["data"] if isinstance(told, dict) else told)

    async def stop(self) -> int:
        """Its exit code; -9 where it had to be killed."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            return await self.process.wait()

    def log_faults(self) -> list[str]:
        """Lines of the log that must not be there."""
        with self.log.open("rb") as file:
            return [line.decode(errors="replace").strip()[:1000] for line in file if FAULTS.search(line)]


def _unchunked(data: bytes) -> bytes:
    pieces, at = [], 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(data[end + 2 : end + 2 + size])
        at = end + 4 + size


class ProviderProcess:
    """The provider; see provider.py."""

    def __init__(self, folder: Path, seed: int, slow_s: tuple[float, float]) -> None:
        self.seen = folder / "seen"
        script = Path(__file__).with_name("provider.py")
        self.command = [sys.executable, str(script), "--seed", str(seed), "--seen", str(self.seen)]
        self.command += ["--slow", "{:g},{:g}".format(*slow_s)]

    async def start(self) -> str:
        """Its address."""
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        return f"http://127.0.0.1:{int(await self.process.stdout.readline())}"

    def stalls(self) -> list[tuple[float, float]]:
        """When it did not get to run: from, to, in monotonic seconds. After its end."""
        data = Path(f"{self.seen}.late").read_bytes()
        return [STALL.unpack_from(data, at) for at in range(0, len(data), STALL.size)]

    async def stop(self) -> set[int]:
        """The numbers of the requests that it has read whole. :raises Wrong: it did not end."""
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            raise Wrong(f"the provider does not end within {STOP_S:g} s") from None
        data = self.seen.read_bytes()
        return {int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)}


class Governors:
    """Those who steer and watch a gateway that runs.

    :param pace: 1 for a long run; less, and all comes as much more often.
    """

    def __init__(
        self, gateway: GatewayProcess, traffic: Any, seed: int, pace: float, key_every_s: float
    ) -> None:
        self.gateway = gateway
        self.traffic = traffic
        self.rng = Random(seed)
        self.pace = pace
        self.key_every_s = key_every_s
        self.done = {
            "edits": 0,
            "bad edits": 0,
            "signals": 0,
            "keys": 0,
            "aliases": 0,
            "watchers": 0,
            "scrapes": 0,
        }
        self.last: Families = {}
        self.file_lock = asyncio.Lock()
        self.tasks: list[asyncio.Task[None]] = []
        self.is_stopping = False

    def start(self) -> None:
        acts = (
            (60, self.edit),
            (45, self.hang_up),
            (self.key_every_s, self.key),
            (30, self.alias),
            (8, self.watch),
            (15, self.scrape),
        )
        self.tasks = [asyncio.ensure_future(self._every(every_s * self.pace, act)) for every_s, act in acts]

    async def stop(self) -> None:
        self.is_stopping = True
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _every(self, every_s: float, act: Any) -> None:
        # Not until it is cancelled: a fault that an act meets at that moment would come in place of it.
        while not self.is_stopping:
            await asyncio.sleep(every_s * self.rng.uniform(0.7, 1.3))
            try:
                await act()
            except Late as fault:
                self.traffic.late.append((time.monotonic(), str(fault)))
            except (Wrong, OSError, TimeoutError) as fault:
                self.traffic.note_wrong("governing", f"{act.__name__}: {fault!r}")

    async def edit(self) -> None:
        """The file changes; one in four times into one that is wrong, and has to be refused."""
        gateway = self.gateway
        async with self.file_lock:
            if self.rng.random() < 0.25:
                gateway.write("\n[aliases.wrong]\nmodels = 3\n")
                self.done["bad edits"] += 1
                await asyncio.sleep(min(3.0, 10 * self.pace))
            values = gateway.values
            values["edit"] += 1
            values["flip"] = "b" if values["flip"] == "a" else "a"
            # A provider that is another one gets new connections; those of streams that run end with them.
            values["f_edit"] = values["edit"]
            if values["edit"] % 3 == 0:
                values["b_edit"] = values["edit"]
            gateway.write()
            self.done["edits"] += 1

    async def hang_up(self) -> None:
        self.gateway.process.send_signal(signal.SIGHUP)
        self.done["signals"] += 1

    async def key(self) -> None:
        """A key is made, works, is revoked, and works no more, with the very next request."""
        clear, id = await self.gateway.make_key("passing", models=["a/*"])
        self.traffic.keys.of["passing"] = clear, id
        word = await self.traffic.ask("plain", "a/m", key="passing")
        if word.startswith("refused"):
            raise Wrong("a new key is refused")
        await self.gateway.admin("DELETE", f"/admin/v1/keys/{id}")
        word = await self.traffic.ask("plain", "a/m", key="passing", refusals={(401, "invalid_api_key")})
        if not word.startswith(("refused", "shed")):
            raise Wrong(f"a revoked key is served: {word}")
        self.done["keys"] += 1

    async def alias(self) -> None:
        """An alias comes and goes by the admin API."""
        async with self.file_lock:
            await self.gateway.admin(
                "POST", "/admin/v1/reload", {}
            )  # else an edit may not have been seen yet
            await self.gateway.admin("PUT", "/admin/v1/aliases/made", {"models": ["a/m"]})
            word = await self.traffic.ask("plain", "made", members="a")
            await self.gateway.admin("DELETE", "/admin/v1/aliases/made")
        if word.startswith("refused"):
            raise Wrong("a new alias is refused")
        self.done["aliases"] += 1

    async def watch(self) -> None:
        """Somebody looks at the dashboard's stream for a while, and goes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.gateway.admin_port, limit=1 << 24)
        try:
            writer.write(b"GET /admin/v1/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            # In Python 3.11 wait_for() goes on where it is cancelled just as what it waits for is there.
            async with asyncio.timeout(ADMIN_S):
                begin = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in begin[:20]:
                raise Wrong(f"/admin/v1/live: {begin[:100]!r}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.rng.uniform(0.5, 8) * self.pace):
                    while await reader.read(1 << 16):
                        pass
                    raise Wrong("/admin/v1/live ended")
        finally:
            writer.transport.abort()
        await self.gateway.admin("GET", "/admin/v1/requests?limit=50")
        self.done["watchers"] += 1

    async def scrape(self) -> None:
        self.last = await self.gateway.metrics()
        self.done["scrapes"] += 1
