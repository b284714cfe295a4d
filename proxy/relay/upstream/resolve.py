"""From a provider's host to an open socket: the look-up of its name, and which of its addresses picks up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Sequence
from typing import Any, Final

from proxy.relay.upstream.tcp_keepalive import enable

# Family, type, protocol, canonical name, address: as of socket.getaddrinfo.
Address = tuple[int, int, int, str, Any]
# A look-up's failure is its result: those who asked may have given up, and nobody is left to hear of it.
_Found = Sequence[Address] | Exception

# If an address has not picked up after this long, the next is tried beside it (RFC 8305 section 5).
NEXT_AFTER_S: Final = 0.25


class Addresses:
    """The addresses of a host, as the system's resolver tells them whenever a connection is opened.

    One look-up at a time, which all that ask meanwhile share, in a thread of its own. The event loop's own
    look-ups have four threads together: one name whose servers are silent would keep all other names from
    being looked up, and the process from ending.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._lookup: asyncio.Future[_Found] | None = None
        self._fixed: Sequence[Address] = ()
        with contextlib.suppress(OSError, UnicodeError):
            self._fixed = self._ask(socket.AI_NUMERICHOST)  # asks nobody

    async def find(self) -> Sequence[Address]:
        """In the order in which they are to be tried; at least one.

        :raises OSError: there is none. :raises UnicodeError: the host can't be a name.
        """
        if self._fixed:
            return self._fixed
        if self._lookup is None:
            self._lookup = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._look_up, args=(self._lookup,), daemon=True, name="look-up").start()
        found = await asyncio.shield(self._lookup)
        if isinstance(found, Exception):
            raise found
        return found

    def _ask(self, flags: int = 0) -> Sequence[Address]:
        return socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=flags)

    def _look_up(self, lookup: asyncio.Future[_Found]) -> None:
        found: _Found
        try:
            found = self._ask()
        except Exception as error:
            found = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            lookup.get_loop().call_soon_threadsafe(self._found, lookup, found)

    def _found(self, lookup: asyncio.Future[_Found], found: _Found) -> None:
        self._lookup = None
        lookup.set_result(found)


async def reach(addresses: Sequence[Address]) -> socket.socket:
    """A connection to the first address that picks up. One that is silent keeps the next waiting for
    :data:`NEXT_AFTER_S` only, one that refuses not at all.

    :raises OSError: none does; why the first that said so didn't.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0])
    loop = asyncio.get_running_loop()
    left = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    failure: BaseException | None = None
    try:
        while left or running:
            if left:
                running.add(loop.create_task(_connect(left.pop(0))))
            limit_s = NEXT_AFTER_S if left else None
            done, _ = await asyncio.wait(running, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                failed = task.exception()
                if failed is None:  # another that is done is still among the running ones, and is closed
                    return task.result()
                failure = failure or failed
    finally:
        for task in running:
            task.add_done_callback(_close)
            task.cancel()
    assert failure is not None
    raise failure


def _close(task: asyncio.Task[socket.socket]) -> None:
    """Of a connection that nobody needs, as another was faster."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connect(address: Address) -> socket.socket:
    family, kind, protocol, _, where = address
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        enable(sock)
        with contextlib.suppress(BlockingIOError):
            sock.connect(where)
        # Not by the loop's sock_connect: it looks the address up once more.
        settled = loop.create_future()
        loop.add_writer(sock, _settle, settled)
        try:
            await settled
        finally:
            loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def _settle(settled: asyncio.Future[None]) -> None:
    if not settled.done():
        settled.set_result(None)
