"""The simulator's side of one HTTP/1.1 connection.

Parsing and answering are apart: the callbacks of llhttp only collect requests into a queue, and
:meth:`Connection._pump` answers them one by one in order, so that pipelined requests wait for the one before
and a fault in an answer is never taken for a fault of the HTTP. At most one timer is pending per connection,
and it dies with it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from proxy.errors import BadRequest, GatewayError
from proxy.simulator.turns import SimulatedResponse

MAX_HEAD_BYTES = 64 << 10  # far more than any SDK sends; a head inside one read may pass it by that read
MAX_BODY_BYTES = 64 << 20  # the gateway's own default
MAX_PIPELINE = 64  # requests read ahead on one connection before reading pauses
BURST_EVENTS = 256  # events of a stream without delays, sent before other connections get their turn


class ParsedRequest:
    """One request as the parser collects it, or the mistake (``error``) that ends its connection."""

    __slots__ = ("controls", "error", "http10", "keep_alive", "method", "pieces", "size", "url")

    def __init__(self) -> None:
        self.method = b""
        self.url = b""
        self.pieces: list[bytes] = []
        self.size = 0
        self.controls: dict[str, str] | None = None  # the x-sim-* headers
        self.keep_alive = False
        self.http10 = False
        self.error: GatewayError | None = None

    @classmethod
    def refused(cls, error: GatewayError) -> ParsedRequest:
        request = cls()
        request.error = error
        return request


class _Current:
    """The request being answered."""

    __slots__ = ("answer", "due", "left", "request", "started")

    def __init__(self, request: ParsedRequest, answer: SimulatedResponse) -> None:
        self.request = request
        self.answer = answer
        self.started = False  # the head is out
        self.left = answer.count  # deltas still to come
        self.due = 0.0  # when the last one was, on the loop's clock


class Host(Protocol):
    """The simulator, as a connection sees it."""

    requests: int
    streams: int
    active: int
    aborted: int
    connections: set[Connection]

    def respond(self, request: ParsedRequest) -> SimulatedResponse: ...

    def head(self, answer: SimulatedResponse, framing: bytes) -> bytes: ...

    def gone(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """Reads requests and writes answers, in order, each when it is due."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._reading = ParsedRequest()
        self._refusal: GatewayError | None = None
        self._head_bytes = 0  # received since the parser last said anything
        self._expects = False  # the request being read waits for 100 Continue
        self._deaf = False  # nothing more is read: a refused request, or an upgrade nobody takes
        self._queue: deque[ParsedRequest] = deque()
        self._current: _Current | None = None
        self._timer: asyncio.Handle | None = None
        self._paused = False
        self._reads_paused = False

    def __repr__(self) -> str:
        state = "idle" if self._current is None else "streaming" if self._current.started else "waiting"
        return f"<Connection {state} queued={len(self._queue)} paused={self._paused}>"

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports don't inherit from it
        self._host.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._drop()
        self._host.gone(self)

    def eof_received(self) -> None:
        # A half-closed connection and a client that left look the same until something is written. The
        # gateway only ever leaves, so no answer is paced out for nobody; what is written is still flushed.
        self._drop()

    def abort(self) -> None:
        """Cut the connection: nothing buffered is sent any more."""
        self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._timer is None:
            if self._current is not None:
                self._advance(self._current)
            self._pump()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._deaf = True  # not taken: the request is answered, what follows is another protocol
            if self._queue:
                self._queue[-1].keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._refusal or BadRequest("The request is not valid HTTP/1.1."))
        else:
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_too_large_head())
        if len(self._queue) > MAX_PIPELINE and not self._reads_paused:
            self._reads_paused = True
            self._transport.pause_reading()
        self._pump()

    # --- httptools callbacks

    def on_url(self, url: bytes) -> None:
        self._reading.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(name) > 5:
            if name[:6].lower() == b"x-sim-":
                controls = self._reading.controls
                if controls is None:
                    controls = self._reading.controls = {}
                controls[name.decode("latin-1").lower()] = value.decode("latin-1").strip()
            elif len(name) == 6 and name.lower() == b"expect":
                self._expects = value.lower() == b"100-continue"

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
        request, parser = self._reading, self._parser
        request.method = parser.get_method()
        request.keep_alive = parser.should_keep_alive()
        request.http10 = parser.get_http_version() == "1.0"
        if self._expects and not request.http10 and self._current is None and not self._queue:
            self._continue()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._expects = False  # it did not wait
        request = self._reading
        request.size += len(body)
        if request.size > MAX_BODY_BYTES:
            self._refusal = BadRequest("The request body is too large.", status=413)
            raise self._refusal
        request.pieces.append(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        self._expects = False
        self._queue.append(self._reading)
        self._reading = ParsedRequest()

    def _continue(self) -> None:
        self._expects = False
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, error: GatewayError) -> None:
        """Answer everything before the mistake, then the mistake, then close."""
        self._deaf = True
        self._queue.append(ParsedRequest.refused(error))

    # --- answering

    def _pump(self) -> None:
        """Answer what is queued, until something has to wait."""
        while self._queue and self._current is None and not self._paused:
            self._begin(self._queue.popleft())
        if self._current is not None or self._queue or self._transport.is_closing():
            return
        if self._expects:
            self._continue()
        if self._reads_paused:
            self._reads_paused = False
            self._transport.resume_reading()

    def _begin(self, request: ParsedRequest) -> None:
        host = self._host
        host.requests += 1
        host.active += 1
        answer = host.respond(request)
        self._current = current = _Current(request, answer)
        if answer.delay_s > 0:
            self._timer = self._loop.call_later(answer.delay_s, self._wake, current)
        else:
            self._start(current)

    def _wake(self, current: _Current) -> None:
        """The timer's callback: the head or the next event is due."""
        self._timer = None
        if current.started:
            self._advance(current)
        else:
            self._start(current)
        self._pump()

    def _start(self, current: _Current) -> None:
        """Send the head, and with it the body or the opening of the stream."""
        request, answer, host = current.request, current.answer, self._host
        ending = _ENDING[request.keep_alive, request.http10]
        if answer.deltas is None:
            length = b"content-length: %d\r\n" % len(answer.body)
            body = b"" if request.method == b"HEAD" else answer.body
            self._transport.write(host.head(answer, _PLAIN_HEAD + length + ending) + body)
            self._finish(current)
            return
        host.streams += 1
        if request.http10:  # no chunks before HTTP/1.1: the stream ends with the connection
            request.keep_alive = False
            framing = _STREAM_HEAD + _ENDING[False, True]
        else:
            framing = _STREAM_HEAD + b"transfer-encoding: chunked\r\n" + ending
        self._transport.write(host.head(answer, framing))
        for event in answer.opening:
            self._write(request, event)
        current.started = True
        current.due = self._loop.time()
        self._advance(current)

    def _advance(self, current: _Current) -> None:
        """Send the events that are due; arranges for the next ones."""
        request, answer = current.request, current.answer
        if answer.deltas is None:
            return
        for _ in range(BURST_EVENTS):
            if self._paused:
                return  # resume_writing goes on from here
            event = next(answer.deltas, None)
            if event is None:
                self._end_stream(current)
                return
            self._write(request, event)
            current.left -= 1
            if answer.gap_s > 0 and current.left > 0:
                # due times follow from each other, so that late timers don't slow the stream down
                current.due = max(current.due + answer.gap_s, self._loop.time())
                self._timer = self._loop.call_at(current.due, self._wake, current)
                return
        self._timer = self._loop.call_soon(self._wake, current)

    def _end_stream(self, current: _Current) -> None:
        for event in current.answer.closing:
            self._write(current.request, event)
        if not current.request.http10:
            self._transport.write(b"0\r\n\r\n")
        self._finish(current)

    def _write(self, request: ParsedRequest, event: bytes) -> None:
        if request.http10:
            self._transport.write(event)
        else:
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))

    def _finish(self, current: _Current) -> None:
        self._current = None
        self._host.active -= 1
        if not current.request.keep_alive:
            self._deaf = True
            self._queue.clear()
            self._transport.close()

    def _drop(self) -> None:
        """The client left: nothing more is answered."""
        self._deaf = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._current is not None:
            self._current = None
            self._host.active -= 1
            self._host.aborted += 1


_PLAIN_HEAD = b"content-type: application/json\r\n"
_STREAM_HEAD = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"

# (keep alive, HTTP/1.0) → the line that says so, where the version's default doesn't
_ENDING = {
    (True, False): b"",
    (True, True): b"connection: keep-alive\r\n",
    (False, False): b"connection: close\r\n",
    (False, True): b"connection: close\r\n",
}


def _too_large_head() -> GatewayError:
    return BadRequest("The request head is too large.", status=431)
