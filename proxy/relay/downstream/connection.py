"""A client's connection: which request is on it, for how long, and what its client gets.

    READING   ──head of a proxied POST──►  BODY  ──end of the request──►  WAITING  ──answer sent──►  READING
       └─ any other request is answered at once (own_responses), or waits (sliced_jobs)
    REFUSED   a response was given before the request's end: what is left of it is read and dropped, a
              little of it for the sake of the connection, else until the client closes

Bytes are read by :mod:`proxy.wire.request_reader`, and what a request means is the exchange's business. Only
one exchange runs at a time; bytes of a further request wait until it is done.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from proxy.endpoints import PROXIED
from proxy.errors import BadRequest, Fault, GatewayError
from proxy.relay.downstream.client_flow import (
    BODY,
    CLOSED,
    READING,
    REFUSED,
    WAITING,
    ClientFlow,
)
from proxy.relay.downstream.own_figures import OwnAnswer
from proxy.relay.downstream.own_responses import COPIED_BYTES, common_lines, may_be_followed, own_answer
from proxy.relay.exchange.client import NEVER
from proxy.relay.exchange.exchange import Exchange
from proxy.relay.exchange.timers import body_late
from proxy.relay.upstream.connection import HIGH_WATER_BYTES, LARGE_READ_BYTES
from proxy.relay.upstream.known_head import KnownHead
from proxy.wire.error_response import gateway_response, own_head
from proxy.wire.framing import FramingError
from proxy.wire.request_head import RequestHead

if TYPE_CHECKING:
    from proxy.relay.downstream.gateway import Gateway

log = logging.getLogger("tokenhub.client")

# Bytes of pipelined requests that wait; above it, reading stops.
_PIPELINE_BYTES: Final = 64 << 10
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
# What a request waits for is made long before.
_MADE_S: Final = 30.0


class ClientConnection(ClientFlow):
    """One connection of a client. All times are monotonic seconds."""

    __slots__ = ("_body_at", "_exchange")

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        self._body_at = 0.0  # when the last piece of the body came
        self._exchange: Exchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are that without being a subclass
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        error = self.gateway.enter(self, self.transport)
        if error is None:
            self._await_head(monotonic())
        elif not transport.is_closing():
            self.refuse(error)

    def data_received(self, data: bytes) -> None:
        if len(data) > LARGE_READ_BYTES:
            self.rest()
        try:
            self._receive(data)
        except Exception:  # it must not leave the client waiting, nor take the process with it
            log.exception("internal error while handling a request")
            self.refuse(Fault(close=True))

    def _receive(self, data: bytes) -> None:
        phase, reader = self._phase, self.reader
        if phase == BODY:
            if reader.unread:  # behind what waits for the next turn
                reader.unread += data
            else:
                self._on_body(data)
        elif phase == READING:
            self._on_head(data)
        elif phase == WAITING:
            reader.unread += data
            if len(reader.unread) > _PIPELINE_BYTES:
                self.pause_reading(True)
        elif phase == REFUSED and reader.drain(data):
            self._next()

    def end_rest(self) -> None:
        super().end_rest()
        if self._phase == BODY and self.reader.unread:
            data, self.reader.unread = self.reader.unread, b""
            self.data_received(data)

    def eof_received(self) -> bool:
        return False  # a client that has closed its side is taken to have left: both look the same

    def connection_lost(self, exc: Exception | None) -> None:
        self.gateway.connection_limits.leave(self)
        self._phase, self.wake_at = CLOSED, NEVER
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.on_client_gone()

    def pause_writing(self) -> None:
        self.is_full = True
        if self._exchange is not None:
            self._exchange.on_client_full(True)

    def resume_writing(self) -> None:
        self.is_full = False
        if self._exchange is not None:
            self._exchange.on_client_full(False)
        elif self._phase == WAITING:
            self._next()

    def _on_head(self, data: bytes) -> None:
        """More of a head. ``data`` is empty where it is unread already."""
        reader = self.reader
        seen = reader.seen
        try:
            is_whole = reader.read_head(data)
        except GatewayError as error:
            if not self._ends_as_tls():
                self.refuse(error)
            return
        if is_whole:
            self._on_request()
        elif not self._ends_as_tls() and reader.seen and not seen:
            # From here the shorter limit counts, however slowly the rest drips.
            self.wake_at = monotonic() + self.gateway.timeouts.client_head_s

    def _on_request(self) -> None:
        """Start an exchange."""
        reader = self.reader
        head = cast(KnownHead, reader.head)  # HeadCache makes no others
        route = PROXIED.get(head.path) if head.method == b"POST" else None
        if route is None:
            self._on_own(head)
            return
        endpoint, path = route
        try:
            if self.gateway.overload.is_on:
                self.gateway.shed()
            exchange = self._exchange = Exchange(self.gateway, self, head, reader.length, endpoint, path)
            exchange.request.begin()
            unready = exchange.request.unready_grant()
            if unready is not None and not self.gateway.make_ready(
                unready, exchange.request.routes.catalog, self.ask_again
            ):
                self._exchange = None
                self._wait()
                return
        except GatewayError as error:
            self._drop_body()
            self.refuse(error)
            return
        body = reader.whole_body()
        if body is not None:
            self._phase = WAITING
            self._pass_body(exchange, body, True)
            return
        begun = reader.begin_body()
        self._phase = BODY
        if head.expect and not begun:
            self.transport.write(_CONTINUE)
        if begun or reader.length == 0:
            self._on_body(begun)
        else:
            self._await_body(monotonic())

    def _wait(self) -> None:
        """Put a request off: what it needs is being made, and then it is read again."""
        self._phase = WAITING
        self.wake_at = monotonic() + _MADE_S

    def _await_head(self, now: float) -> None:
        self._phase = READING
        self.wake_at = now + self.gateway.timeouts.keep_alive_s

    def _await_body(self, now: float) -> None:
        self._body_at = now
        self.wake_by(now + self.gateway.timeouts.client_body_s)

    def _on_body(self, data: bytes) -> None:
        reader, exchange = self.reader, self._exchange
        body = reader.body
        assert body is not None and exchange is not None
        if len(data) > body.slice_bytes:
            self.rest()
        try:
            piece = reader.read_body(data)
        except FramingError as error:
            self.refuse(BadRequest(f"The body's framing is broken: {error}.", code="bad_framing", close=True))
            return
        if body.done:
            self._phase = WAITING
            # It may be paused for the body's sake, and a client that leaves has to be noticed.
            self.pause_reading(False)
        self._pass_body(exchange, piece, body.done)
        if not body.done and self._phase == BODY:
            self._await_body(monotonic())

    def _pass_body(self, exchange: Exchange, piece: bytes, done: bool) -> None:
        try:
            exchange.on_body(piece, done)
        except GatewayError as error:
            self.refuse(error)

    def _on_own(self, head: RequestHead) -> None:
        """A request that is not proxied."""
        try:
            response = own_answer(self.gateway, self.ask_again, self.give, head, self.reader.raw_head())
        except GatewayError as error:
            self._drop_if_followed(head)
            self.refuse(error)
            return
        if response is None:
            self._wait()
            return
        self._drop_if_followed(head)
        self._give(head, response)

    def _give(self, head: RequestHead, response: OwnAnswer) -> None:
        keep = self._may_keep()
        body = b"" if head.method == b"HEAD" else response.body
        begins = own_head(
            response.status, self.gateway.next_request_id(),
            response.lines + common_lines(head, self.gateway.cors, keep), len(response.body), close=not keep,
        )  # fmt: skip
        if len(body) < COPIED_BYTES:
            self.send(begins + body)
        else:
            self.send(begins)
            self.transport.write(body)
        if self._phase == WAITING:
            self.on_exchange_done(True)
        else:
            self._conclude(keep)

    def _drop_if_followed(self, head: RequestHead) -> None:
        """Drop the body, so that the connection may be kept, where all agree on where it ends."""
        if may_be_followed(head, self.reader.length, self.reader.raw_head()):
            self._drop_body()

    def ask_again(self, error: GatewayError | None = None) -> None:
        """Read the waiting request again: what it waited for is there, or there is an ``error`` in its
        place."""
        if self._phase == WAITING and self._exchange is None:  # else its client has left
            if error is not None:
                self.give(error)
                return
            self._phase = READING
            self.pause_reading(False)
            self._on_pipelined()

    def give(self, answer: OwnAnswer | GatewayError) -> None:
        """Answer the waiting request."""
        if self._phase != WAITING or self._exchange is not None:  # its client has left
            return
        self._phase = READING
        head = self.reader.head
        assert head is not None  # it waits
        self._drop_if_followed(head)
        if isinstance(answer, OwnAnswer):
            self._give(head, answer)
        else:  # its key's limits have counted it already
            self.gateway.counters.refused(answer.status)
            self.answer_error(answer, self.gateway.next_request_id())

    def on_exchange_done(self, reusable: bool) -> None:
        """The response is out. ``reusable``: the request was read to its end, and the answer told its own."""
        keep = reusable and self.keeps_alive()
        self._exchange = None
        self.reader.end()
        if keep:
            self._next()
        else:
            self._end(self._phase == WAITING)

    def _next(self) -> None:
        """Go on to the next request, once the client has taken enough of the last response."""
        if self.gateway.draining:
            self._end(True)
            return
        if self.is_full:
            self._phase = WAITING
            self.wake_at = monotonic() + self.gateway.timeouts.client_write_s
            return
        self._await_head(now := monotonic())
        if not self.gateway.resume_queue.takes(self, now):
            self.read_on()

    def read_on(self) -> None:
        self.pause_reading(False)
        if self.reader.unread:
            # Not from here: the stack would grow with every request of a long pipeline.
            asyncio.get_running_loop().call_soon(self._on_pipelined)

    def _on_pipelined(self) -> None:
        if self._phase == READING and self.reader.unread:
            self.data_received(b"")

    def answer_error(self, error: GatewayError, request_id: bytes, names: bytes = b"") -> None:
        """Answer with an error of the gateway's own. ``names``: further header lines, each with its CRLF."""
        keep = not error.close and self._may_keep()
        head = self.reader.head
        names += common_lines(head, self.gateway.cors, keep)
        response = gateway_response(error, request_id, head, self.reader.unread, extra=names, close=not keep)
        self.send(response)
        self._conclude(keep)

    def _conclude(self, keep: bool) -> None:
        """A response of our own is out; what is left of its request goes nowhere."""
        if keep and self._phase == WAITING:
            self.on_exchange_done(True)
            return
        self._exchange = None
        if keep:
            self._phase = REFUSED
            self.wake_at = monotonic() + self.gateway.timeouts.client_body_s
            self.pause_reading(False)
        else:
            self.reader.end()
            self._linger()

    def cut(self, gently: bool) -> None:
        """End a connection in the middle of a response, so that nobody takes what came for the whole of it.

        :param gently: the framing shows the cut, so what is written may still go out. Otherwise the client
            is told with a reset, as a plain close would be the end of the response (RFC 9112 section 8).
        """
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.client is self:
            exchange.abandon()
        if gently:
            self.close()
        else:
            self.reset()

    def refuse(self, error: GatewayError) -> None:
        """Stop what runs for the request, and tell the client what is wrong with it.

        Where its response has begun already, that can only be cut.
        """
        exchange = self._exchange
        if exchange is not None and exchange.response is not None:
            self.cut(False)
            return
        request = None if exchange is None else exchange.request
        error = self.gateway.count_refusal(error, request, self.reader.head, self.transport)
        if exchange is None:
            self.gateway.counters.refused(error.status)
        else:
            exchange.abandon(error.status)
        id = self.gateway.next_request_id() if request is None else request.request_id
        self.answer_error(error, id)

    def on_wake(self, now: float) -> None:
        """The time asked for with ``wake_at`` has come (or passed: the ticks are 100 ms apart)."""
        self.wake_at = NEVER
        phase = self._phase
        if phase == READING and self.reader.seen:
            limit = self.gateway.timeouts.client_head_s
            self.refuse(BadRequest(f"No whole head within {limit:g} s.", status=408, close=True))
        elif phase == READING:
            self.close()
        elif self._exchange is not None:
            self._wake_exchange(now)
        elif phase == REFUSED:  # its client had its time; what it has not read yet still goes out
            self.close()
        else:
            self.transport.abort()

    def _wake_exchange(self, now: float) -> None:
        exchange = self._exchange
        assert exchange is not None
        due = NEVER
        if self._phase == BODY and not self.is_paused and exchange.response is None:
            limit = self.gateway.timeouts.client_body_s
            due, late = body_late(exchange, max(self._body_at, self.resumed_at), self.resumed_at, limit)
            if now >= due:
                self.refuse(BadRequest(late, status=408, close=True))
                return
        self.wake_by(min(due, exchange.on_wake(now)))

    def __repr__(self) -> str:
        names = ("reading", "body", "waiting", "refused", "closed")
        return f"<ClientConnection {names[self._phase]} {self._exchange!r}>"
