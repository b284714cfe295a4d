"""What the tests put around the gateway: a scripted provider and a raw client, both on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import ClassVar, Self

Script = Callable[["Call"], Awaitable[None]]


class Call:
    """One connection to the scripted provider, as its script sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number  # of the connection, from 0

    async def head(self) -> bytes:
        """The next request's head, with its empty line."""
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head and body (without chunk framing)."""
        head = await self.head()
        return head, await self.body(head)

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
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes = b"{}", status: bytes = b"200 OK", extra: bytes = b"") -> None:
        await self.send(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), extra, body)
        )

    def reset(self) -> None:
        self.writer.transport.abort()

    async def gone(self) -> bytes:
        """Read until the gateway closes; returns what came until then."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


class ScriptedProvider:
    """A provider on a loopback port that runs ``script`` for every connection.

    Its exceptions come out at the end of the test, but for the gateway closing a connection.
    """

    def __init__(self) -> None:
        self.script: Script = echo
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._errors:
            raise self._errors[0]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        call = Call(reader, writer, self.connections)
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


class RawClient:
    """A client that sends just the bytes it is told to."""

    opened: ClassVar[list[RawClient]] = []  # closed by a fixture at the end of each test

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.opened.append(self)

    @classmethod
    async def connect(cls, server: object, index: int = 0) -> RawClient:
        listen = server.addresses[index]  # type: ignore[attr-defined]
        if listen.path:
            return cls(*await asyncio.open_unix_connection(listen.path, limit=1 << 24))
        return cls(*await asyncio.open_connection(listen.host, listen.port, limit=1 << 24))

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
