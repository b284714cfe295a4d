"""Listening: TCP addresses and Unix sockets, and what to say when one can't be had."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import stat
from collections.abc import Callable

from proxy.config import Listen
from proxy.values import is_loopback

_BACKLOG = 4096


class StartError(Exception):
    """The gateway can't start (or take on a new configuration); the text says why and what to do."""


def is_local(listen: Listen) -> bool:
    """Only processes of this machine can connect."""
    return bool(listen.path) or is_loopback(listen.host)


def show(listen: Listen) -> str:
    """An address for people."""
    if listen.path:
        return f"unix:{listen.path}"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"http://{host}:{listen.port}"


async def open_listener(
    listen: Listen, factory: Callable[[], asyncio.BaseProtocol], socket_mode: int
) -> tuple[asyncio.Server, Listen]:
    """Listen; returns the listener and its real address (port 0 is any free one).

    :raises StartError: the address can't be used.
    """
    loop = asyncio.get_running_loop()
    try:
        if listen.path:
            sock = _bind_unix(listen.path, socket_mode)
            return await loop.create_unix_server(factory, sock=sock, backlog=_BACKLOG), listen
        server = await loop.create_server(factory, listen.host, listen.port, backlog=_BACKLOG)
    except OSError as error:
        raise StartError(f"Can't listen on {show(listen)}: {error.strerror or error}") from None
    return server, dataclasses.replace(listen, port=server.sockets[0].getsockname()[1])


def remove_socket(listen: Listen) -> None:
    """Take a Unix socket's file away. To be called for what :func:`open_listener` returned, and only that:
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
