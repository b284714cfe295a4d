#!/usr/bin/env python3
"""What the running gateway needs: memory per open stream, and time to start.

Starts the installed gateway in front of a small provider in this process and opens many event streams through
it. Each gets its head and one event, and then nothing more. The memory is the gateway's resident set (RSS);
per stream: RSS with the streams open less RSS after one request, over their number. Then all are closed, and
opened again: further rounds show whether memory that was used before costs more.

    memory.py                                   1,000 streams, plain and TLS upstream; start-up time
    memory.py --streams 200 --only tls
    memory.py --only tls --burst 512            each stream got 512 KiB before it fell silent
    memory.py --only tls --env MALLOC_MMAP_THRESHOLD_=131072
    memory.py --only start

Streams take two file descriptors each here, and two in the gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STARTS = 5
OPENING = 32  # so many streams are being opened at a time
SETTLE_S = 0.7
READY_WAIT_S = 15.0
STOP_WAIT_S = 5.0

CONFIG = """
[server]
listen = ["127.0.0.1:{port}"]
[admin]
listen = "127.0.0.1:{admin_port}"
[auth]
required = false
[state]
path = ":memory:"
[timeouts]
idle = "10m"
[providers.mock]
base_url = "{url}"
auth = "none"
ca_file = "{ca_file}"
[models."mock/mock-model"]
input_price = 1
output_price = 2
context_window = 128_000
capabilities = ["chat"]
"""
BODY = b'{"model":"mock/mock-model","stream":true,"messages":[{"role":"user","content":"Say nothing."}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\n"
    b"Host: 127.0.0.1\r\n"
    b"Content-Type: application/json\r\n"
    b"Authorization: Bearer sk-bench\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n'
LAST = b"data: last before the silence\n\n"


# ------------------------------------------------------------------ the provider


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Provider:
    """Answers every request with an event stream that begins and does not end.

    :param burst_bytes: how much of the stream comes before the silence.
    :param events: in how many events, 2 ms apart.
    """

    def __init__(self, burst_bytes: int, events: int) -> None:
        self.event = chunked(EVENT % (b"x" * max(burst_bytes // events, 100)))
        self.events = events
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(HEAD)
            for _ in range(self.events):
                writer.write(self.event)
                await writer.drain()
                await asyncio.sleep(0.002)
            writer.write(chunked(LAST))
            await reader.read()  # until the gateway closes
        writer.close()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A throw-away certificate for 127.0.0.1, and the server's settings with it."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return cert, context


# ------------------------------------------------------------------ the gateway


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at the moment."""
    socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(sock.getsockname()[1]) for sock in socks]
    for sock in socks:
        sock.close()
    return ports


class GatewayProcess:
    """A gateway of our own; ``ready_s`` is the time from its spawn to the first 200 of /readyz."""

    def __init__(self, folder: Path, url: str, ca_file: str, environ: dict[str, str]) -> None:
        self.port, admin_port = free_ports(2)
        file = folder / "routes.toml"
        file.write_text(CONFIG.format(port=self.port, admin_port=admin_port, url=url, ca_file=ca_file))
        self.log = folder / "log"
        self.command = [sys.executable, "-m", "proxy", "serve", "--config", str(file)]
        self.environ = {**os.environ, **environ}
        self.ready_s = 0.0

    async def __aenter__(self) -> GatewayProcess:
        begun = time.monotonic()
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environ
            )
        try:
            while not await self._is_ready():
                if self.process.returncode is not None or time.monotonic() - begun > READY_WAIT_S:
                    raise SystemExit(f"the gateway did not start:\n{self.log.read_text()[-2000:]}")
                await asyncio.sleep(0.002)
        except BaseException:
            await self._stop()
            raise
        self.ready_s = time.monotonic() - begun
        return self

    async def _is_ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
        return line.startswith(b"HTTP/1.1 200 ")

    async def _stop(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_WAIT_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def rss_kib(self) -> float:
        """Resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * PAGE_BYTES / 1024

    def sockets(self) -> int:
        """How many sockets it has open."""
        count = 0
        for entry in os.scandir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(OSError):
                count += os.readlink(entry.path).startswith("socket:")
        return count

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@asynccontextmanager
async def running(upstream: str, args: argparse.Namespace) -> AsyncIterator[GatewayProcess]:
    """A provider (``plain`` or ``tls``) and a gateway in front of it."""
    environ = dict(pair.split("=", 1) for pair in args.env)
    with tempfile.TemporaryDirectory() as name:
        folder, ca_file, context = Path(name), "", None
        if upstream == "tls":
            cert, context = certificate(folder)
            ca_file = str(cert)
        provider = Provider(args.burst * 1024, args.events)
        server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, ssl=context, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        url = f"{'https' if context else 'http'}://127.0.0.1:{port}/v1"
        try:
            async with GatewayProcess(folder, url, ca_file, environ) as gateway:
                yield gateway
        finally:
            server.close()
            for task in list(provider.tasks):
                task.cancel()
            await asyncio.gather(*provider.tasks, return_exceptions=True)


# ------------------------------------------------------------------ the client


async def open_stream(port: int, gate: asyncio.Semaphore) -> asyncio.StreamWriter:
    """A stream that has had all of its events."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST)
        status = await reader.readline()
        if not status.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"the gateway answered {status!r}")
        tail = b""
        while LAST not in tail:
            data = await reader.read(1 << 18)
            if not data:
                raise SystemExit(f"the gateway closed a stream; it ended with {tail[-200:]!r}")
            tail = (tail + data)[-(1 << 18) - len(LAST) :]
    return writer


async def open_streams(port: int, count: int) -> list[asyncio.StreamWriter]:
    gate = asyncio.Semaphore(OPENING)
    return list(await asyncio.gather(*(open_stream(port, gate) for _ in range(count))))


async def close_streams(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(SETTLE_S)


async def measure_streams(upstream: str, args: argparse.Namespace) -> None:
    async with running(upstream, args) as gateway:
        at_start = gateway.rss_kib()
        await close_streams(await open_streams(gateway.port, 1))
        base = gateway.rss_kib()
        print(f"{upstream:6} RSS {at_start / 1024:6.1f} MiB after start, {base / 1024:.1f} after one request")
        for number in range(1, args.rounds + 1):
            cpu_s = gateway.cpu_s()
            writers = await open_streams(gateway.port, args.streams)
            await asyncio.sleep(SETTLE_S)
            cpu_s = gateway.cpu_s() - cpu_s
            rss = gateway.rss_kib()
            if gateway.sockets() < 2 * args.streams:
                raise SystemExit(
                    f"only {gateway.sockets()} sockets are open: not all streams run to the provider"
                )
            await close_streams(writers)
            print(
                f"       round {number}: {(rss - base) / args.streams:6.1f} KiB per open stream "
                f"({rss / 1024:.1f} MiB with {args.streams}), "
                f"{gateway.rss_kib() / 1024:.1f} MiB after closing; "
                f"CPU {cpu_s / args.streams * 1000:.2f} ms a stream",
                flush=True,
            )


async def measure_start(args: argparse.Namespace) -> None:
    times = []
    for _ in range(STARTS):
        async with running("plain", args) as gateway:
            times.append(gateway.ready_s)
    least, most = min(times), max(times)
    print(
        f"start  {statistics.median(times) * 1000:.0f} ms from spawn to the first 200 of /readyz, "
        f"median of {STARTS} ({least * 1000:.0f} to {most * 1000:.0f})"
    )


# ------------------------------------------------------------------ main


async def measure(args: argparse.Namespace) -> int:
    try:
        async with asyncio.timeout(args.limit):
            for what in args.only.split(","):
                if what == "start":
                    await measure_start(args)
                else:
                    await measure_streams(what, args)
    except TimeoutError:
        print(f"not done within {args.limit:g} s (--limit); the gateway was stopped", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000, metavar="N")
    parser.add_argument("--only", default="start,plain,tls", help="with commas; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="how often the streams are opened and closed")
    parser.add_argument(
        "--burst", type=int, default=0, metavar="KIB", help="what a stream gets before its silence"
    )
    parser.add_argument("--events", type=int, default=1, metavar="N", help="in so many events, 2 ms apart")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for the gateway; repeatable"
    )
    parser.add_argument("--limit", type=float, default=60.0, metavar="S", help="seconds for everything")
    args = parser.parse_args()
    if not set(args.only.split(",")) <= {"start", "plain", "tls"}:
        parser.error("--only takes start, plain and tls")
    if args.streams < 1 or args.events < 1 or not all("=" in pair for pair in args.env):
        parser.error("--streams and --events must be 1 or more, --env NAME=VALUE")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return asyncio.run(measure(args))


if __name__ == "__main__":
    raise SystemExit(main())
