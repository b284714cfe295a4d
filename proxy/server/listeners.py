"""Opens listening sockets: TCP addresses and Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy.config.listen import show
from proxy.config.settings import Listen
from proxy.config.values import MAX_SECONDS
from proxy.errors import StartError

_BACKLOG = 4096
# For the handshake of TLS: some round trips, and a signature. Nothing else bounds a client that begins a
# handshake and sends nothing more.
_HANDSHAKE_S = 10.0
# How long the event loop waits for a closed TLS connection to send its rest and end.
# Our own `client_write` bounds that, so this must only be longer than its highest value.
_FLUSH_S = 2 * MAX_SECONDS


WAY_OUT = "Set [server] listen to another address, or start with --listen"


async def listen_on(
    listen: Listen, socket_mode: int, workers: int = 1, way_out: str = WAY_OUT
) -> tuple[list[list[socket.socket]], Listen]:
    """Open an address: listening sockets by worker, and the real address (port 0 is any free one).

    Several workers have a TCP socket each, over which the kernel spreads the connections, and share a Unix
    socket. A name such as ``localhost`` may stand for several addresses, and so for several sockets.

    :param way_out: what the error says can be done.
    :raises StartError: the address can't be used.
    """
    try:
        if listen.path:
            return [[_listening(_bind_unix(listen.path, socket_mode))]] * workers, listen
        return await _listen_tcp(listen, workers)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EADDRINUSE and listen.port:
            why += _holder_of(listen.port)
        raise StartError(f"Can't listen on {show(listen)}: {why}. {way_out}.") from None


def _holder_of(port: int) -> str:
    """The process that listens on a port, in words; "" if that can't be seen: it belongs to another user, or
    this is not Linux.

    ``/proc/net/tcp`` has a line per socket: its address in hexadecimal is the second column, its state the
    fourth (0A: it listens), its inode the tenth.
    """
    try:
        text = "".join(Path("/proc/net", name).read_text() for name in ("tcp", "tcp6"))
        lines = map(str.split, text.splitlines())
        sockets = {
            f"socket:[{words[9]}]"
            for words in lines
            if words[1].endswith(f":{port:04X}") and words[3] == "0A"
        }
        for held in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):  # it has ended, or is closed by now
                if os.readlink(held) in sockets:
                    process = held.parents[1]
                    return f" by process {process.name} ({(process / 'comm').read_text().strip()})"
    except OSError:
        pass
    return ""


async def serve_on(
    sock: socket.socket, factory: Callable[[], asyncio.BaseProtocol], tls: ssl.SSLContext | None = None
) -> asyncio.Server:
    """Accept connections on a socket of :func:`listen_on`. Closing the server closes the socket.

    :param tls: for TCP; a Unix socket does not leave the machine.
    """
    loop = asyncio.get_running_loop()
    if sock.family == socket.AF_UNIX:
        return await loop.create_unix_server(factory, sock=sock, backlog=_BACKLOG)
    if tls is None:
        return await loop.create_server(factory, sock=sock, backlog=_BACKLOG)
    return await loop.create_server(
        factory, sock=sock, backlog=_BACKLOG, ssl=tls,
        ssl_handshake_timeout=_HANDSHAKE_S, ssl_shutdown_timeout=_FLUSH_S,
    )  # fmt: skip


async def _listen_tcp(listen: Listen, workers: int) -> tuple[list[list[socket.socket]], Listen]:
    found = await asyncio.get_running_loop().getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    port = listen.port
    by_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            # A port that is shared may be shared with strangers too, such as a gateway started twice. So ask
            # for it alone first.
            first = _bind_tcp(family, (address[0], port, *address[2:]), shared=False)
            port = first.getsockname()[1]
            if workers == 1:
                by_worker[0].append(_listening(first))
                continue
            first.close()
            for sockets in by_worker:
                sock = _bind_tcp(family, (address[0], port, *address[2:]), shared=True)
                sockets.append(_listening(sock))
    except BaseException:
        for sockets in by_worker:
            for sock in sockets:
                sock.close()
        raise
    return by_worker, dataclasses.replace(listen, port=port)


def _listening(sock: socket.socket) -> socket.socket:
    sock.listen(_BACKLOG)
    sock.setblocking(False)
    return sock


def _bind_tcp(family: int, address: tuple[Any, ...], *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def remove_socket(listen: Listen) -> None:
    """Take a Unix socket's file away. To be called for what :func:`listen_on` returned, and only that:
    the file of a listener that could not be opened belongs to another process."""
    if listen.path:
        with contextlib.suppress(OSError):
            os.unlink(listen.path)


def _bind_unix(path: str, mode: int) -> socket.socket:
    """A Unix socket with its mode from the first moment; a socket nobody listens on is replaced.

    :raises OSError: the path can't be used, or somebody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                try:
                    sock.connect(path)
                except ConnectionRefusedError:
                    os.unlink(path)
                else:
                    raise OSError(98, "somebody listens there already")
                finally:
                    sock.close()
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        finally:
            os.umask(before)
    except BaseException:
        sock.close()
        raise
    return sock
