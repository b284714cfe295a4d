"""A gateway without sockets: its real connections, with transports that only take what is written.

A :class:`Wire` has one client and two providers, ``a`` (asked first) and ``b``. The alias ``two`` fails over
from one to the other; ``a/m`` is one of them alone; ``a/u`` is asked for the usage of streams on the
gateway's own account. Turns of the event loop are ended by :meth:`Wire.end_turn`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

from proxy.config.parse import parse
from proxy.relay.downstream.connection import ClientConnection
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.upstream.connection import ProviderConnection
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog

CONFIG = parse("""
[auth]
required = false
[state]
path = ":memory:"
[routing]
retry_budget = 1.0
retry_same = 0
[providers.a]
base_url = "http://127.0.0.1:9/v1"
auth = "none"
[providers.b]
base_url = "http://127.0.0.1:9/v1"
auth = "none"
request_stream_usage = true
[models."a/m"]
input_price = 1
output_price = 1
[models."b/m"]
input_price = 100
output_price = 100
[aliases]
two = { models = ["a/m", "b/m"], strategy = "cost", peek = true }
""")


class Faults(logging.Handler):
    """What the gateway catches and logs as a fault of its own is one for us too."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.found.append(record.exc_info[1])

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[BaseException] = []


FAULTS = Faults()


@contextmanager
def silence() -> Iterator[None]:
    """Meanwhile the gateway's log hears nothing but faults."""
    log = logging.getLogger("tokenhub")
    before = log.handlers, log.propagate, log.level
    log.handlers, log.propagate = [FAULTS], False
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.handlers, log.propagate = before[:2]
        log.setLevel(before[2])


class Transport:
    """Takes what is written. ``is_over``: it was closed, or aborted, and then it is ``cut``."""

    def __init__(self, wire: Wire, protocol: Any) -> None:
        self.wire = wire
        self.protocol = protocol
        self.written = b""
        self.is_over = self.is_cut = self.is_half_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_half_closed, "written behind the end"
        if not self.is_over:
            self.written += data

    def writelines(self, parts: list[bytes | memoryview]) -> None:
        self.write(b"".join(parts))

    def write_eof(self) -> None:
        self.is_half_closed = True

    def can_write_eof(self) -> bool:
        return True

    def nothing(self, **_: int) -> None:
        pass

    set_write_buffer_limits = pause_reading = resume_reading = nothing

    def get_write_buffer_size(self) -> int:
        return 0

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return self.is_over

    def close(self) -> None:
        if not self.is_over:
            self.is_over = True
            self.wire.later.append(lambda: self.protocol.connection_lost(None))

    def abort(self) -> None:
        self.is_cut = True
        self.close()


class Dialled:
    """The task of dialling a connection, which is made in the next turn."""

    def __init__(self, wire: Wire, pool: Any, attempt: Any) -> None:
        self.is_cancelled = False

        def made() -> None:
            if not self.is_cancelled:
                attempt.on_connected(wire.upstream(pool))

        wire.later.append(made)

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """What connections ask of the event loop: to call something in its next turn."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire

    def call_soon(self, do: Callable[..., None], *args: Any) -> None:
        self.wire.later.append(lambda: do(*args))


class Wire:
    """See the module's text. ``asked``: the connections to providers, in the order they were opened."""

    def __init__(self) -> None:
        self._silence = silence()
        FAULTS.found.clear()
        self.later: list[Callable[[], None]] = []
        self.asked: list[ProviderConnection] = []
        providers = {
            name: Provider(dataclasses.replace(provider), None, 5.0, simulated=False)
            for name, provider in CONFIG.providers.items()
        }
        for provider in providers.values():
            pool = provider.pool
            pool.dial = lambda attempt, connect_s, pool=pool: Dialled(self, pool, attempt)  # type: ignore[assignment, method-assign, misc]
        self.gateway = Gateway(
            CONFIG, Catalog(CONFIG, dict.fromkeys(providers, True), 0), providers,
            random.Random(1), soon=self.later.append,
        )  # fmt: skip
        self.client = ClientConnection(self.gateway)
        self.out = Transport(self, self.client)
        self.client.connection_made(self.out)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        self._silence.__enter__()
        asyncio._set_running_loop(Loop(self))  # type: ignore[arg-type]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio._set_running_loop(None)
        self._silence.__exit__(None, None, None)

    def upstream(self, pool: Any) -> ProviderConnection:
        connection = ProviderConnection(pool)
        connection.connection_made(Transport(self, connection))  # type: ignore[arg-type]
        self.asked.append(connection)
        return connection

    def send(self, data: bytes) -> None:
        """The client's bytes."""
        if not self.out.is_over and not self.out.is_half_closed:
            self.out.protocol.data_received(data)
            self.end_turn()

    def end_turn(self) -> None:
        """As the event loop does, with what that puts off."""
        while self.later:
            self.later.pop(0)()
        self.check()

    def check(self) -> None:
        """No fault of ours so far."""
        if FAULTS.found:
            raise FAULTS.found[0]

    def busy(self) -> ProviderConnection | None:
        """The connection on which an answer is due."""
        return next((connection for connection in self.asked if connection.receiver is not None), None)

    def end(self) -> None:
        """The client leaves; nothing may be left running."""
        if not self.out.is_over:
            self.out.abort()
        self.end_turn()
        for connection in self.asked:
            assert connection.receiver is None
        for deployment in self.gateway.catalog.deployments.values():
            for row in deployment.rows().values():
                assert row.in_flight == 0 and row.awaiting == 0, row
        self.check()


def sent_on(connection: ProviderConnection) -> bytes:
    """What a provider was sent."""
    transport: Any = connection.transport
    return bytes(transport.written)
