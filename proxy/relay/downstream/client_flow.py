"""Pace and end of a client's connection: pausing and resting, sending, the ways to close it."""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING

from proxy.relay.exchange.client import Client

if TYPE_CHECKING:
    from proxy.relay.downstream.gateway import Gateway


class ClientFlow(Client):
    """Sending, pausing and closing, whatever is asked on the connection. All times are monotonic seconds.

    No subclass of :class:`asyncio.Protocol`, though it is one: so it can be compiled (:mod:`setup`)."""

    __slots__ = ("gateway", "is_full", "is_paused", "is_resting", "resumed_at", "transport")

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self.gateway = gateway
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set before anything else happens
        self.is_paused = False  # nothing is read from the client for now
        self.is_resting = False  # nor in this turn of the event loop
        self.is_full = False  # the client takes nothing more for now
        self.resumed_at = 0.0  # when reading went on after a pause

    def pause_reading(self, pause: bool) -> None:
        if pause != self.is_paused and not self.transport.is_closing():
            self.is_paused = pause
            if not pause:
                self.resumed_at = monotonic()
            if self.is_resting:
                return
            if pause:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def rest(self) -> None:
        """Read nothing more in this turn of the event loop."""
        if not self.is_resting and not self.transport.is_closing():
            self.is_resting = True
            if not self.is_paused:
                self.transport.pause_reading()
            self.gateway.rest.until_next_turn(self.end_rest)

    def end_rest(self) -> None:
        """Read on, unless something else is against it."""
        if self.is_resting:
            self.is_resting = False
            if not self.is_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        self.gateway.outbox.let_go()
        self.transport.write(data)

    def send_soon(self, data: bytes, now: float) -> None:
        self.gateway.outbox.write(self.transport, data, now)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def abort(self) -> None:
        self.transport.abort()

    def close(self) -> None:
        """Close once what was sent is out; a client that does not read it is cut after a while."""
        self.gateway.outbox.let_go()
        self.wake_at = monotonic() + self.gateway.timeouts.client_write_s
        self.transport.close()

    def reset(self) -> None:
        """Close with a reset, where a plain close, or TLS's close_notify, would look like an answer's end
        (RFC 9112 section 8)."""
        self.gateway.outbox.let_go()
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
