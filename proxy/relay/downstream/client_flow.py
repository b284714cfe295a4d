"""Pace and end of a client's connection: pausing and resting, sending, whether it is kept, the ways to close
it.

The phases are drawn in :mod:`proxy.relay.downstream.connection`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.relay.downstream.wrong_protocol import TLS_BEGINS
from proxy.relay.exchange.client import Client
from proxy.wire.request_reader import RequestReader

if TYPE_CHECKING:
    from proxy.relay.downstream.gateway import Gateway

READING: Final = 0
BODY: Final = 1
WAITING: Final = 2
REFUSED: Final = 3
CLOSED: Final = 4

# Time for a client that still sends while it is refused to read the response before a reset destroys it.
_LINGER_S: Final = 2.0
# The same while the gateway stops.
DRAIN_LINGER_S: Final = 0.5


class ClientFlow(Client):
    """Sending, pausing and closing, whatever is asked on the connection. All times are monotonic seconds.

    No subclass of :class:`asyncio.Protocol`, though it is one: so it can be compiled (:mod:`setup`)."""

    __slots__ = (
        "_phase",
        "gateway",
        "is_full",
        "is_paused",
        "is_resting",
        "reader",
        "resumed_at",
        "transport",
    )

    def __init__(self, gateway: Gateway) -> None:
        super().__init__()
        self.gateway = gateway
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set first
        self.reader = RequestReader(gateway.heads.recall)
        self._phase = READING
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
            self.gateway.resume_queue.until_next_turn(self.end_rest)

    def end_rest(self) -> None:
        """Read on, unless something else is against it."""
        if self.is_resting:
            self.is_resting = False
            if not self.is_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        self.gateway.outbox.flush()
        self.transport.write(data)

    def send_soon(self, data: bytes, now: float) -> None:
        self.gateway.outbox.write(self.transport, data, now)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def abort(self) -> None:
        self.transport.abort()

    def keeps_alive(self) -> bool:
        """The client wants the connection kept, and so do we."""
        head = self.reader.head
        return head is not None and head.keep_alive and not self.gateway.draining

    def _drop_body(self) -> None:
        """Nobody will look at the request's body."""
        if self.reader.drop_body():
            self._phase = WAITING

    def _may_keep(self) -> bool:
        """The connection can be used again behind a response that is given now."""
        return (self._phase == WAITING or self.reader.can_drain()) and self.keeps_alive()

    def close(self) -> None:
        """Close once what was sent is out, and look at nothing that still comes; a client that does not
        read is cut after a while."""
        self._phase = CLOSED
        self.gateway.outbox.flush()
        self.wake_at = monotonic() + self.gateway.timeouts.client_write_s
        self.transport.close()

    def close_if_idle(self) -> None:
        """Close a connection without a request in it. Of one that has its response, the rest gets no more
        time."""
        if self._phase == READING and not self.reader.unread:
            self.close()
        elif self._phase == REFUSED:
            self.wake_by(monotonic() + DRAIN_LINGER_S)

    def _end(self, is_read: bool) -> None:
        """Close behind a response. Where the client may send more, a reset would answer that, and destroy
        what of the response is still on its way.

        :param is_read: all of the request was read.
        """
        if is_read and not self.reader.unread and not self.gateway.draining:
            self.close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Close, but let a client that still sends read the response first (RFC 9112 section 9.6)."""
        self.gateway.outbox.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif self._phase == WAITING:  # TLS can't be closed in one direction: else the client, or time, does
            self.transport.close()
        self._phase = REFUSED
        self.reader.unread = b""
        self.wake_at = monotonic() + (DRAIN_LINGER_S if self.gateway.draining else _LINGER_S)
        self.pause_reading(False)

    def _ends_as_tls(self) -> bool:
        """Close a connection whose client speaks TLS to a plain listener: all it understands is the close.
        Returns whether it does."""
        transport = self.transport
        if self.reader.unread[:1] != TLS_BEGINS or transport.get_extra_info("sslcontext") is not None:
            return False
        way_out = "set [server] tls_cert and tls_key"
        self.gateway.wrong_protocol.tls_to_plain(transport.get_extra_info("sockname"), monotonic(), way_out)
        self.close()
        return True

    def reset(self) -> None:
        """Close with a reset, where a plain close, or TLS's close_notify, would look like a response's end
        (RFC 9112 section 8)."""
        self.gateway.outbox.flush()
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
