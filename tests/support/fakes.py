"""What the tests put around the gateway: a scripted provider and a raw client, both on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import ClassVar, Self

from proxy.config.settings import Listen

Script = Callable[["Call"], Awaitable[None]]


ANSWER = b'{"id":"a"}'  # of a provider that has nothing particular to say


class Call:
    """One connection to the scripted provider, as its script sees it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
        seen: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # of the connection, from 0
        self.seen = seen  # where the requests are noted

    async def head(self) -> bytes:
        """The next request's head, with its empty line."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head and body (without chunk framing)."""
        head = await self.head()
        body = await self.body(head)
        if self.seen is not None:
            self.seen.append((head, body))
        return head, body

    async def body(self, head: bytes) -> bytes:
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if fields.get(b"transfer-encoding") == b"chunked":
            return await self.chunks()
        return await self.reader.readexactly(int(fields.get(b"content-length", b"0")))

    async def chunks(self) -> bytes:
        out = b""
        while size := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
            out += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return out

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():  # uvloop's own word for it is a RuntimeError
            raise ConnectionResetError
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = ANSWER, status: bytes = b"200 OK", extra: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), extra, body)
        )

    async def stream(self, *events: bytes, end: bool = True) -> None:
        """The head of an event stream, each event as a chunk, and the end unless there is more to come."""
        await self.send(EVENT_STREAM)
        for event in events:
            await self.send(chunk(event))
        if end:
            await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """Close so that the other side sees a reset: what it was sent before and has not read is lost."""
        sock = self.writer.get_extra_info("socket")
        if sock is None:  # closed already
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> bytes:
        """Read until the gateway closes; returns what came until then."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


class ScriptedProvider:
    """A provider that runs ``script`` for every connection.

    Its exceptions come out at the end of the test, but for the gateway closing a connection.

    :param tls: its certificate; None for plain HTTP.
    :param sock: where it listens; None: on a loopback port.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, sock: socket.socket | None = None) -> None:
        self.script: Script = echo
        self.connections = 0
        self.seen: list[tuple[bytes, bytes]] = []  # head and body of each request that was read
        self.port = 0
        self._tls = tls
        self._sock = sock
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> Self:
        sock = self._sock or socket.create_server(("127.0.0.1", 0))
        self._server = await asyncio.start_server(self._serve, sock=sock, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the listener and all connections."""
        self._server.close()
        await self._server.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._errors:
            raise self._errors[0]

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        call = Call(reader, writer, self.connections, self.seen)
        self.connections += 1
        try:
            await self.script(call)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._tasks.discard(task)


async def echo(call: Call) -> None:
    """Answers every request with the body it got."""
    while True:
        _, body = await call.request()
        await call.answer(body)


def answers(body: bytes = ANSWER, status: bytes = b"200 OK", extra: bytes = b"") -> Script:
    """Answers every request so."""

    async def script(call: Call) -> None:
        while True:
            await call.request()
            await call.answer(body, status, extra)

    return script


def streams(*events: bytes) -> Script:
    """Answers every request with these events."""

    async def script(call: Call) -> None:
        while True:
            await call.request()
            await call.stream(*events)

    return script


async def hangs(call: Call) -> None:
    """Reads a request and leaves it at that."""
    await call.request()
    await call.gone()


HELLO = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'  # output
DONE = b"data: [DONE]\n\n"
EVENT_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def dead_url() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


@contextlib.contextmanager
def blackhole() -> Iterator[str]:
    """An address where nobody ever picks up: a listener with a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            caller = stack.enter_context(socket.socket())
            caller.settimeout(0.05)
            try:
                caller.connect(listener.getsockname())
            except TimeoutError:
                break
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """This process can open nothing more meanwhile."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def stepped(step: asyncio.Event) -> Script:
    """A stream whose first event comes at once, and its end when ``step`` is set."""

    async def script(call: Call) -> None:
        await call.request()
        await call.stream(b"data: first\n\n", end=False)
        await step.wait()
        await call.send(chunk(DONE) + b"0\r\n\r\n")

    return script


class RawClient:
    """A client that sends just the bytes it is told to."""

    opened: ClassVar[list[RawClient]] = []  # closed by a fixture at the end of each test

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened.append(self)

    @classmethod
    async def connect(cls, server: object, index: int = 0) -> RawClient:
        return await cls.to(server.addresses[index])  # type: ignore[attr-defined]

    @classmethod
    async def to(cls, listen: Listen) -> RawClient:
        if listen.path:
            return cls(*await asyncio.open_unix_connection(listen.path, limit=1 << 24))
        return cls(*await asyncio.open_connection(listen.host, listen.port, limit=1 << 24))

    @classmethod
    async def slow(cls, server: object) -> RawClient:
        """One behind a small buffer: what it does not read stays with the gateway."""
        listen: Listen = server.addresses[0]  # type: ignore[attr-defined]
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (listen.host, listen.port))
        return cls(*await asyncio.open_connection(sock=sock, limit=8192))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def post(self, body: bytes, path: bytes = b"/v1/chat/completions", extra: bytes = b"") -> None:
        await self.send(post(body, path, extra))

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def response(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers (lower case; repeated ones joined by a comma) and body, chunks taken out."""
        head = await self.head()
        status = int(head.split(b" ", 2)[1])
        fields: dict[bytes, bytes] = {}
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip()
            fields[name] = fields[name] + b", " + value if name in fields else value
        if status in (204, 304):
            return status, fields, b""
        call = Call(self.reader, self.writer, 0)
        if fields.get(b"transfer-encoding") == b"chunked":
            return status, fields, await call.chunks()
        if b"content-length" in fields:
            return status, fields, await self.reader.readexactly(int(fields[b"content-length"]))
        return status, fields, await self.reader.read()

    async def rest(self) -> bytes:
        """Everything until the gateway closes."""
        out = b""
        with contextlib.suppress(ConnectionError):
            while data := await self.reader.read(65536):
                out += data
        return out

    def close(self) -> None:
        """Leave. At the end of a test all clients leave by themselves."""
        self.writer.close()


def post(body: bytes, path: bytes = b"/v1/chat/completions", extra: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n%b\r\n%b"
        % (
            path,
            len(body),
            extra,
            body,
        )
    )


async def until(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    """Let the loop run until ``condition`` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.005)
