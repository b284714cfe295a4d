"""The rest of a request that has its answer: dropped where it is short and known, so that the connection
stays usable, else given a moment to end.

Both sides of :class:`proxy.relay.downstream.connection.ClientConnection` need it: what it refuses, and what
it answers by itself.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from proxy.relay.downstream.client_flow import ClientFlow
from proxy.relay.downstream.wrong_protocol import TLS_BEGINS
from proxy.wire.framing import ChunkedBody, LengthBody
from proxy.wire.request_head import RequestHead

if TYPE_CHECKING:
    from proxy.relay.downstream.gateway import Gateway

READING: Final = 0
BODY: Final = 1
WAITING: Final = 2
REFUSED: Final = 3
CLOSED: Final = 4

# So much of a refused body is read for the connection to stay usable.
_DRAIN_BYTES: Final = 64 << 10
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# What a request waits for is made long before.
_MADE_S: Final = 30.0
# Time for a client that still sends while it is refused to read the response before a reset destroys it.
_LINGER_S: Final = 2.0
# The same while the gateway stops.
DRAIN_LINGER_S: Final = 0.5


class RequestFlow(ClientFlow):
    """The request that is on a client's connection, as far as it has come. The phases are drawn in
    :mod:`proxy.relay.downstream.connection`."""

    __slots__ = ("_body", "_buffer", "_head", "_head_begun", "_payload", "_phase")

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._phase = READING
        self._buffer = b""
        self._head_begun = False
        self._head: RequestHead | None = None
        self._body: LengthBody | ChunkedBody | None = None
        self._payload: list[bytes] = []

    def keeps_alive(self) -> bool:
        """The client wants the connection kept, and so do we."""
        return self._head is not None and self._head.keep_alive and not self.gateway.draining

    def _await_head(self, now: float) -> None:
        self._phase, self._head_begun = READING, False
        self.wake_at = now + self.gateway.timeouts.keep_alive_s

    def close_if_idle(self) -> None:
        """Close a connection without a request in it. Of one that has its answer, the rest gets no more
        time."""
        if self._phase == READING and not self._head_begun and not self._buffer:
            self.close()
        elif self._phase == REFUSED:
            self.wake_by(monotonic() + DRAIN_LINGER_S)

    def _wait(self, data: bytes) -> None:
        """Put a request off: what it needs is being made, and then its ``data`` is read again."""
        self._phase, self._buffer = WAITING, data
        self.wake_at = monotonic() + _MADE_S

    def _set_body(self, head: RequestHead, length: int | None) -> None:
        if head.chunked:
            self._body = ChunkedBody()
            self._payload = self._body.payload = []
        else:
            self._body = LengthBody(length or 0)

    def _begin_body(self, head: RequestHead, length: int | None, *, is_asked: bool) -> None:
        """More of the body is to come. ``is_asked``: only when it is asked for."""
        self._set_body(head, length)
        self._phase = BODY
        if is_asked:
            self.transport.write(_CONTINUE)

    def _pass_over(self, head: RequestHead, length: int | None, data: bytes, begin: int) -> None:
        """The body of a request will not be looked at: drop what of it has come."""
        self._set_body(head, length)
        body = self._body
        if isinstance(body, LengthBody):
            stop = begin + body.feed(data[begin:])
            if body.done:
                self._phase = WAITING
                self._buffer = data[stop:]

    def _may_keep(self) -> bool:
        """The connection can be used again behind an answer that is given now."""
        return (self._phase == WAITING or self._can_drain()) and self.keeps_alive()

    def _common_lines(self, keep: bool) -> bytes:
        """Header lines that answers of our own have, each with its CRLF."""
        head, cors = self._head, self.gateway.cors
        if head is None:
            return b""
        lines = b"" if cors is None else cors.lines(head.origin)
        return lines + b"Connection: keep-alive\r\n" if keep and not head.minor else lines

    def _can_drain(self) -> bool:
        """Return whether the rest of the request is small, of known size, and sent without our asking for
        it."""
        body = self._body
        asked = self._head is None or not self._head.expect
        return asked and isinstance(body, LengthBody) and body.remaining <= _DRAIN_BYTES

    def _linger(self) -> None:
        """Close, but let a client that still sends read the answer first (RFC 9112 section 9.6)."""
        if self.transport.can_write_eof():
            self.transport.write_eof()
        elif self._phase == WAITING:  # TLS can't be closed in one direction: else the client, or time, does
            self.transport.close()
        self._phase = REFUSED
        self._buffer = b""
        self.wake_at = monotonic() + _LINGER_S
        self.pause_reading(False)

    def close(self) -> None:
        """Close the connection; nothing that still comes is looked at."""
        self._phase = CLOSED
        super().close()

    def _ends_as_tls(self, data: bytes) -> bool:
        """Close a connection whose client speaks TLS to a plain listener: all it understands is the close.
        Returns whether it does."""
        transport = self.transport
        if data[:1] != TLS_BEGINS or transport.get_extra_info("sslcontext") is not None:
            return False
        way_out = "set [server] tls_cert and tls_key"
        self.gateway.wrong_protocol.tls_to_plain(transport.get_extra_info("sockname"), monotonic(), way_out)
        self.close()
        return True
