"""What the supervisor and its workers say to each other, and the socket pair they say it on.

Both ends are this program, of the same version, and nobody else has the socket: so objects go as they are.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Any

from proxy.config.settings import Config
from proxy.control.certificates import Certificate
from proxy.control.key_store import Keyring

_LENGTH = Struct("<I")


@dataclass(frozen=True, slots=True)
class Settled:
    """A configuration that can be used, with the operator's keys, the simulator's port (0: it rests), and the
    listeners' certificate (None: plain HTTP)."""

    config: Config
    keys: Mapping[str, str | None] = field(repr=False)
    simulator_port: int
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The first order to a worker.

    :param index: which of the ``workers`` it is.
    :param sockets: descriptors of the sockets to accept on. :param memory: that of the mapping.
    :param accounts: and that of the keys' accounts. :param ledger: the directory to write to, if any.
    :param created: Unix seconds, for ``/v1/models``.
    :param learned: what is known already, by row; it holds all samples up to ``positions``, by worker.
    """

    settled: Settled
    index: int
    workers: int
    sockets: tuple[int, ...]
    memory: int
    accounts: int
    ledger: str | None
    keyring: Keyring
    created: int
    learned: dict[int, dict[str, Any]]
    positions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakeOn:
    """Another configuration."""

    settled: Settled


@dataclass(frozen=True, slots=True)
class TakeKeys:
    """Other keys."""

    keyring: Keyring


@dataclass(frozen=True, slots=True)
class Tell:
    """The latest requests that a query selects."""

    query: dict[str, str]


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted, and what is so now: :meth:`proxy.relay.downstream.gateway.Gateway.count`."""

    brief: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Stop, as SIGTERM says."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The worker's answer to an order; each but :class:`Drain` has one, in their order. ``error``: it could
    not."""

    value: Any = None
    error: str = ""


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Channel:
        """The end that is ``sock``."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    async def send(self, message: object) -> None:
        """:raises ConnectionError: nobody is at the other end."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._writer.write(_LENGTH.pack(len(data)) + data)
        await self._writer.drain()

    async def receive(self) -> Any:
        """The next message; None: the other end is gone."""
        try:
            [length] = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301  # see the module's text
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
