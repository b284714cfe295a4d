"""Scripts of providers in one line: what comes after a request, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.support.fakes import ANSWER, EVENT_STREAM, Call, chunk, until

Part = bytes | float | asyncio.Event | Callable[[], object]


class Plays:
    """Reads a request and plays its parts in order: sends bytes; waits for seconds, an event, or a
    condition to hold.

    :param then: ``stays`` until the gateway closes, which sets ``left``; ``closes``; or ``resets``.
    :param reads: what it reads first: ``request``, or only its ``head``.
    """

    def __init__(self, *parts: Part, then: str = "stays", reads: str = "request") -> None:
        self.parts = parts
        self.then = then
        self.reads = reads
        self.left = asyncio.Event()

    async def __call__(self, call: Call) -> None:
        await (call.head() if self.reads == "head" else call.request())
        for part in self.parts:
            if isinstance(part, bytes):
                await call.send(part)
            elif isinstance(part, float):
                await asyncio.sleep(part)
            elif isinstance(part, asyncio.Event):
                await part.wait()
            else:
                await until(part)
        if self.then == "resets":
            call.reset()
        elif self.then == "stays":
            await call.gone()
            self.left.set()


def says(*parts: Part) -> Plays:
    """Plays its parts and closes."""
    return Plays(*parts, then="closes")


def in_pieces(*pieces: bytes, pause_s: float = 0.002) -> list[Part]:
    """Parts of which each is sent once the gateway has read the one before."""
    return [part for piece in pieces for part in (piece, pause_s)]


RESETS = Plays(then="resets")


def head(*lines: bytes, status: bytes = b"200 OK") -> bytes:
    """The head of an answer of these lines."""
    return b"\r\n".join([b"HTTP/1.1 " + status, *lines, b"", b""])


def answer(body: bytes = ANSWER, status: bytes = b"200 OK", *lines: bytes) -> bytes:
    """A whole answer, as :meth:`Call.answer` sends it."""
    kind = b"Content-Type: application/json"
    return head(kind, b"Content-Length: %d" % len(body), *lines, status=status) + body


def begun(*events: bytes) -> bytes:
    """A stream of events that has no end yet."""
    return EVENT_STREAM + b"".join(map(chunk, events))


LAST = b"0\r\n\r\n"  # the last chunk
