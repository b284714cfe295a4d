"""The messages between the supervisor and its workers, and the socket pair that carries them.

Both ends are this program, of the same version, and nobody else has the socket, so objects are pickled.
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
from proxy.relay.downstream.own_figures import Told

_LENGTH = Struct("<I")


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """A valid configuration with all that a worker needs to use it.

    :param keys: the operator's, by provider. :param simulator_port: 0: the simulator is off.
    :param certificate: of the listeners; None: plain HTTP.
    """

    config: Config
    keys: Mapping[str, str | None] = field(repr=False)
    simulator_port: int
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a worker.

    :param index: which of the ``workers`` it is.
    :param sockets: descriptors of the sockets to accept on. :param memory: descriptor of the common memory.
    :param accounts: descriptor of the keys' accounts. :param ledger: the directory to write to, if any.
    :param created: Unix seconds, for ``/v1/models``.
    :param learned: what is known already, by row; it includes all samples up to ``positions``, by worker.
    """

    worker_config: WorkerConfig
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
class ApplyConfig:
    """Use another configuration."""

    worker_config: WorkerConfig


@dataclass(frozen=True, slots=True)
class ApplyKeys:
    """Use other keys."""

    keyring: Keyring


@dataclass(frozen=True, slots=True)
class GetRecent:
    """Return the latest requests that a query selects."""

    query: dict[str, str]


@dataclass(frozen=True, slots=True)
class FindLine:
    """Return the line of a request, of the latest ones; None: it is not among them."""

    needle: bytes


@dataclass(frozen=True, slots=True)
class Question:
    """A worker's question, which a key has about itself: see :mod:`proxy.relay.downstream.own_figures`."""

    number: int
    kind: str
    key: str
    query: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """The supervisor's answer to the question of that number. Has no reply."""

    number: int
    told: Told


@dataclass(frozen=True, slots=True)
class Count:
    """Return counters and gauges: :meth:`proxy.relay.downstream.gateway.Gateway.count`."""

    brief: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Drain and exit, as after SIGTERM. Has no reply."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The worker's reply to a message. Replies come in the order of the messages.

    :param error: why the worker could not do it; "" if it could.
    """

    value: Any = None
    error: str = ""


class Channel:
    """One end of the socket pair between supervisor and worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Channel:
        """Open the end that is ``sock``."""
        return cls(*await asyncio.open_unix_connection(sock=sock))

    async def send(self, message: object) -> None:
        """Send a message. :raises ConnectionError: the other end is closed."""
        data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._writer.write(_LENGTH.pack(len(data)) + data)
        await self._writer.drain()

    async def receive(self) -> Any:
        """Receive the next message; None: the other end is closed."""
        try:
            [length] = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301  # only this program has the socket
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
