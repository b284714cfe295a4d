"""aiohttp's side of a connection to the admin listener, and how many there may be.

Anyone who can connect reaches this code, with a token or without. So no body is decompressed here, a target
that would keep aiohttp's router busy never comes to it, and an idle connection gives way to others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from aiohttp import web

from proxy.control.http import error_response, nothing_at
from proxy.errors import BadRequest, Fault, GatewayError, Unavailable
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.downstream.wrong_protocol import TLS_BEGINS
from proxy.wire.error_response import gateway_response
from proxy.wire.header_lines import MAX_HEADERS

log = logging.getLogger("tokenhub.admin")

# Forty browsers with as many connections as they open, and a collector of metrics. Each may send a head of
# MAX_HEADERS such lines, which bounds the memory that clients without a token can make us allocate.
MAX_CONNECTIONS = 256
MAX_LINE_BYTES = 16 << 10
# aiohttp's router looks a path up once for each slash in it, each time with the whole rest
# (web_urldispatcher.py, UrlDispatcher.resolve): 32,000 slashes took 250 ms. The longest path that leads
# anywhere names an alias.
MAX_PATH_BYTES = 512
MAX_SLASHES = 16
# A client that connects has a request to send. Browsers open some connections ahead, and another when they
# need it.
FIRST_HEAD_S = 8.0
# How long the rest of a request that has its response is read and dropped.
LINGER_S = 2.0
# After these statuses only a short body is read and dropped: a client that sends it apart from the head would
# find the connection reset before it has read the response.
_UNHEARD: Final = frozenset((401, 403, 404, 405, 414, 415))
_DRAIN_BYTES = 64 << 10


class AdminConnections:
    """The connections to the admin listener, by state."""

    def __init__(self) -> None:
        # In order of arrival, or of the latest request.
        self._busy: dict[ControlProtocol, None] = {}
        self._idle: dict[ControlProtocol, None] = {}
        self._begun: dict[ControlProtocol, None] = {}  # a part of the first head is there
        self._silent: dict[ControlProtocol, None] = {}  # nothing is

    def make_room(self) -> bool:
        """Make room for one more. If all places are taken, the oldest connection that has sent nothing is
        closed; else the oldest without a whole request; else the one on which nothing was asked for the
        longest time. False: all are busy."""
        if len(self) < MAX_CONNECTIONS:
            return True
        for group in (self._silent, self._begun, self._idle):
            if group:
                oldest = next(iter(group))
                self.leave(oldest)
                oldest.abort()
                return True
        return False

    def enter(self, connection: ControlProtocol) -> None:
        """Add a connection that was made."""
        self._silent[connection] = None

    def begins(self, connection: ControlProtocol) -> bool:
        """Note that bytes came on a connection. Returns True for the first ones."""
        if connection not in self._silent:
            return False
        del self._silent[connection]
        self._begun[connection] = None
        return True

    def asks(self, connection: ControlProtocol) -> None:
        """Note that a request came on a connection."""
        self.leave(connection)
        self._busy[connection] = None

    def rests(self, connection: ControlProtocol) -> None:
        """Note that the request was answered."""
        if self._busy.pop(connection, False) is None:
            self._idle[connection] = None

    def leave(self, connection: ControlProtocol) -> None:
        """Remove a connection that has ended."""
        for group in (self._busy, self._idle, self._begun, self._silent):
            group.pop(connection, None)

    def __len__(self) -> int:
        return len(self._busy) + len(self._idle) + len(self._begun) + len(self._silent)


class ControlProtocol(web.RequestHandler):
    """A connection to the admin listener.

    What aiohttp's parser refuses, such as an unknown method, is answered in the error envelope, not in
    aiohttp's plain text.
    """

    __slots__ = ("_connections", "_gateway", "_head_timer")

    def __init__(self, server: web.Server, gateway: Gateway, connections: AdminConnections) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # its AppRunner passes None too
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            max_headers=MAX_HEADERS,
            keepalive_timeout=gateway.timeouts.keep_alive_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
        )
        self._gateway = gateway
        self._connections = connections
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection and limit the wait for its first head."""
        self._connections.enter(self)
        super().connection_made(transport)
        self._limit_head(FIRST_HEAD_S)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Unregister the connection."""
        self._limit_head(None)
        self._connections.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass bytes to the parser; the first ones show whether this is HTTP at all."""
        if self._connections.begins(self):
            if data[:1] == TLS_BEGINS and self.transport is not None:
                sockname = self.transport.get_extra_info("sockname")
                way_out = "put what speaks TLS in front of [admin] listen"
                self._gateway.wrong_protocol.tls_to_plain(sockname, time.monotonic(), way_out)
                self.force_close()
                return
            self._limit_head(self._gateway.timeouts.client_head_s)
        super().data_received(data)

    def _limit_head(self, limit_s: float | None) -> None:
        """Close the connection unless a whole head comes within ``limit_s``; None: it has come."""
        if self._head_timer is not None:
            self._head_timer.cancel()
        loop = asyncio.get_running_loop()
        self._head_timer = None if limit_s is None else loop.call_later(limit_s, self.force_close)

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        """Answer one request. Its target is checked before aiohttp's router sees it."""
        self._limit_head(None)
        self._connections.asks(self)
        try:
            refusal = refuse_target(request.raw_path)
            if refusal is None:
                response, reset = await super()._handle_request(request, start_time, request_handler)
            else:
                response, reset = await super()._handle_request(request, start_time, _refusing(self, refusal))
        finally:
            self._connections.rests(self)
        if response.status in _UNHEARD and not request.content.is_eof():
            length = request.content_length
            if length is None or length > _DRAIN_BYTES:
                self.force_close()  # once what was written is out
        return response, reset

    def abort(self) -> None:
        """Close at once and drop what was not sent."""
        transport = self.transport
        self.force_close()
        if transport is not None:
            transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Make the response where aiohttp can't parse a request, or fails by itself."""
        if status >= 500:
            log.error("internal error while answering a request", exc_info=exc)
            error: GatewayError = Fault(status=status)
        else:
            text = "The request has a method, a framing or an Expect that is not known here."
            error = BadRequest(text, status=status)
        return self._closing(error)

    def _closing(self, error: GatewayError) -> web.Response:
        response = error_response(error, self._gateway.next_request_id().decode())
        response.headers["Connection"] = "close"
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that breaks behind its response is the client's fault: a traceback would be a way to fill
        the log."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; one that aiohttp made before the application was asked is put in the envelope."""
        if resp.status >= 400 and resp.content_type != "application/json":
            resp = self.handle_error(request, resp.status)
        try:
            async with asyncio.timeout(self._gateway.timeouts.client_write_s):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:  # it takes nothing
            self.abort()
            return resp, True


def _refusing(
    protocol: ControlProtocol, error: GatewayError
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return protocol._closing(error)

    return refuse


def refuse_target(target: str) -> GatewayError | None:
    """The error for a target that can't lead anywhere; None: it may."""
    path = target.partition("?")[0]
    if len(path) > MAX_PATH_BYTES:
        return BadRequest(
            f"The path is longer than {MAX_PATH_BYTES} bytes. The admin API is below /admin/v1.", status=414
        )
    if path.count("/") > MAX_SLASHES:
        return nothing_at(path)
    return None


class Refusal(asyncio.Protocol):
    """Answers a connection that is one too many."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the error and close."""
        error = Unavailable("Too many connections.", code="overloaded", retry_after_s=1)
        answer = gateway_response(error, self._gateway.next_request_id(), close=True)
        cast(asyncio.Transport, transport).write(answer)
        transport.close()
