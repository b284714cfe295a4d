"""The simulated provider: an OpenAI-compatible server with made-up answers at the pace of the real models.

It stands in for the providers in demos and tests and under load tests of the gateway, so it is built as the
gateway's data plane is (:mod:`proxy.simulator.connection`): no task per request, a timer only where something
has to wait. Below any path prefix it answers ``POST …/chat/completions``, ``/completions``, ``/embeddings``,
``/responses`` with ``/compact`` and ``/input_tokens``, ``/messages``, ``/messages/count_tokens``,
``/moderations``, ``/rerank`` and ``GET …/models``, ``/models/{id}``. Every response carries ``x-simulated:
1``.

Request headers steer one answer; values that make no sense are a 400:

``x-sim-latency-ms``
    Time until the response head instead of the model's own. Never scaled by ``speed``.
``x-sim-delay-ms``
    Time from one content event of a stream to the next. Never scaled by ``speed``.
``x-sim-chunks``
    How many content events (tokens) the answer has; a limit in the request still cuts it.
``x-sim-status``
    400 to 599: answer with this status and the API's error envelope; a 429 has ``retry-after: 1``.
``x-sim-retry-after``
    The seconds of that ``retry-after``, on any of these statuses.

The client is trusted: it is this machine's own gateway or test. There is a cap on heads, bodies, pipelining
and length of answers, but no timeout for a client that says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

import uvloop

from proxy.errors import BadRequest, GatewayError
from proxy.simulator import number_apis, text_apis
from proxy.simulator.connection import Connection, ParsedRequest
from proxy.simulator.profiles import MAX_OUTPUT_TOKENS
from proxy.simulator.turns import Conditions, Json, SimulatedResponse, dumps, parse_body

MAX_WAIT_MS = 3_600_000  # an hour: longer is a typing mistake

Handler = Callable[[Json, Conditions], SimulatedResponse]

# The longer path first where one ends like another.
ENDPOINTS: tuple[tuple[str, Handler], ...] = (
    ("/chat/completions", text_apis.chat),
    ("/completions", text_apis.completions),
    ("/embeddings", number_apis.embeddings),
    ("/responses", text_apis.responses),
    ("/responses/compact", text_apis.compact),
    ("/responses/input_tokens", text_apis.input_tokens),
    ("/messages", text_apis.messages),
    ("/messages/count_tokens", text_apis.count_tokens),
    ("/moderations", number_apis.moderations),
    ("/rerank", number_apis.rerank),
)

_ERROR_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 403: "permission_error",
                404: "invalid_request_error", 429: "requests"}  # fmt: skip
_ERROR_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_ANTHROPIC_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
                    413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}  # fmt: skip


class Controls(NamedTuple):
    """The values of a request's ``x-sim-*`` headers; None: not given."""

    latency_s: float | None = None
    delay_s: float | None = None
    chunks: int | None = None
    status: int | None = None
    retry_after_s: int | None = None

    @classmethod
    def parse(cls, headers: dict[str, str] | None) -> Controls:
        """Read the headers. :raises BadRequest: a value is no whole number in its range."""
        if not headers:
            return _NO_CONTROLS
        latency_ms = _whole(headers, "x-sim-latency-ms", 0, MAX_WAIT_MS)
        delay_ms = _whole(headers, "x-sim-delay-ms", 0, MAX_WAIT_MS)
        return cls(
            None if latency_ms is None else latency_ms / 1000,
            None if delay_ms is None else delay_ms / 1000,
            _whole(headers, "x-sim-chunks", 0, MAX_OUTPUT_TOKENS),
            _whole(headers, "x-sim-status", 400, 599),
            _whole(headers, "x-sim-retry-after", 0, MAX_WAIT_MS),
        )


_NO_CONTROLS = Controls()


def _whole(headers: dict[str, str], name: str, low: int, high: int) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isdecimal() and len(text) < 10 and low <= int(text) <= high):
        raise BadRequest(f"{name} must be a whole number from {low} to {high}, not {text!r}.", param=name)
    return int(text)


@lru_cache(maxsize=64)
def _route(url: bytes) -> tuple[str, Handler | None]:
    """The decoded path of a request target, and the endpoint it ends in."""
    path = unquote(url.partition(b"?")[0].decode("latin-1"))
    return path, next((handler for suffix, handler in ENDPOINTS if path.endswith(suffix)), None)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Simulated"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def _simulated_error(status: int, retry_after_s: int | None) -> GatewayError:
    if status == 429 and retry_after_s is None:
        retry_after_s = 1
    return GatewayError(
        f"Simulated error: the request asked for status {status}.",
        status=status,
        type=_ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        code=_ERROR_CODES.get(status),
        retry_after_s=retry_after_s,
    )


def _error_answer(error: GatewayError, path: str, id: str) -> SimulatedResponse:
    """The error in the envelope of the API that was asked."""
    if path.endswith(("/messages", "/messages/count_tokens")):
        default = "api_error" if error.status >= 500 else "invalid_request_error"
        kind = _ANTHROPIC_TYPES.get(error.status, default)
        value: Json = {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": id}
    else:
        value = {
            "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
        }
    extra = b"" if error.retry_after_s is None else b"retry-after: %d\r\n" % error.retry_after_s
    if error.status == 405:
        extra += b"allow: POST\r\n"
    return SimulatedResponse(id, dumps(value), status=error.status, extra_head=extra)


class Simulator:
    """The simulated provider: any number of connections on the running loop.

    :param seed: same seed and same sequence of requests: same answers (but for dates) and same latencies.
    :param speed: factor on all times of the models; 0: no delay at all, 2: twice as slow.
    :param clock: Unix seconds, for ``created`` and ``date``.
    """

    def __init__(self, *, seed: int = 0, speed: float = 1.0, clock: Callable[[], float] = time.time) -> None:
        if speed < 0:
            raise ValueError("speed is a factor on times: 0 or more")
        self.speed = speed
        self.clock = clock
        self.rng = random.Random(seed)
        self.requests = 0
        self.streams = 0
        self.active = 0
        self.aborted = 0
        self.connections: set[Connection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._path = ""
        self._empty: asyncio.Future[None] | None = None
        self._second = -1
        self._date = b""

    def __repr__(self) -> str:
        return f"<Simulator {self.snapshot()}>"

    def snapshot(self) -> dict[str, int]:
        """Counters: requests and streams begun, those under way, those whose client left before the end."""
        return {
            "requests": self.requests,
            "streams": self.streams,
            "active": self.active,
            "aborted": self.aborted,
            "connections": len(self.connections),
        }

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, path: str = "") -> int:
        """Listen on a TCP port, or on a Unix socket where ``path`` is given.

        :returns: the port (0 for a Unix socket).
        """
        loop = asyncio.get_running_loop()
        if path:
            self._server = await loop.create_unix_server(lambda: Connection(self, loop), path)
            self._path = path
            return 0
        server = await loop.create_server(lambda: Connection(self, loop), host, port, backlog=2048)
        self._server = server
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening and cut all connections; returns when all are closed."""
        if self._server is None:
            return
        self._server.close()
        if self.connections:
            self._empty = asyncio.get_running_loop().create_future()
            for connection in list(self.connections):
                connection.abort()
            await self._empty
        await self._server.wait_closed()
        self._server = None
        if self._path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)

    def gone(self, connection: Connection) -> None:
        """Remove a connection that has closed."""
        self.connections.discard(connection)
        if self._empty is not None and not self.connections and not self._empty.done():
            self._empty.set_result(None)

    def respond(self, request: ParsedRequest) -> SimulatedResponse:
        """The answer, with its final times."""
        path, handler = _route(request.url)
        controls = _NO_CONTROLS
        try:
            if request.error is not None:
                raise request.error
            controls = Controls.parse(request.controls)
            answer = self._answer(request, path, handler, controls)
        except GatewayError as error:
            answer = _error_answer(error, path, f"{self.rng.getrandbits(128):032x}")
        answer.delay_s = answer.delay_s * self.speed if controls.latency_s is None else controls.latency_s
        answer.gap_s = answer.gap_s * self.speed if controls.delay_s is None else controls.delay_s
        return answer

    def _answer(
        self, request: ParsedRequest, path: str, handler: Handler | None, controls: Controls
    ) -> SimulatedResponse:
        if controls.status is not None:
            raise _simulated_error(controls.status, controls.retry_after_s)
        method = request.method.decode()
        if handler is not None:
            if method != "POST":
                raise BadRequest(
                    f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to make a POST request?)",
                    status=405,
                    code="method_not_supported",
                )
            body = parse_body(b"".join(request.pieces))
            return handler(body, Conditions(self.rng, self._now(), controls.chunks))
        if method in ("GET", "HEAD"):
            if path.endswith("/models"):
                return SimulatedResponse(f"{self.rng.getrandbits(128):032x}", number_apis.model_list())
            _, found, name = path.partition("/models/")
            if found and name:
                return SimulatedResponse(
                    f"{self.rng.getrandbits(128):032x}", dumps(number_apis.model_row(name))
                )
        raise BadRequest(f"Invalid URL ({method} {path})", status=404)

    def _now(self) -> int:
        """Unix seconds; renews the ``date`` header with them."""
        now = int(self.clock())
        if now != self._second:
            self._second = now
            self._date = b"date: " + formatdate(now, usegmt=True).encode() + _STATIC_HEAD
        return now

    def head(self, answer: SimulatedResponse, framing: bytes) -> bytes:
        """The response head; ``framing`` are the lines that end it."""
        self._now()
        return b"%b%bx-request-id: req_%b\r\nopenai-processing-ms: %d\r\n%b%b\r\n" % (
            _status_line(answer.status),
            self._date,
            answer.id.encode(),
            answer.delay_s * 1000,
            answer.extra_head,
            framing,
        )


_STATIC_HEAD = (
    b"\r\nserver: tokenhub-simulator\r\nx-simulated: 1\r\nopenai-version: 2020-10-01\r\n"
    b"x-ratelimit-limit-requests: 10000\r\nx-ratelimit-remaining-requests: 9999\r\n"
    b"x-ratelimit-reset-requests: 6ms\r\nx-ratelimit-limit-tokens: 30000000\r\n"
    b"x-ratelimit-remaining-tokens: 29999000\r\nx-ratelimit-reset-tokens: 2ms\r\n"
)


async def _run_until_signalled(host: str, port: int, seed: int, speed: float) -> None:
    simulator = Simulator(seed=seed, speed=speed)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    bound = await simulator.start(host, port)
    name = f"[{host}]" if ":" in host else host
    print(f"simulator: http://{name}:{bound}/v1 (seed {seed}, speed {speed:g})", file=sys.stderr, flush=True)
    await stop.wait()
    await simulator.close()


def main_simulate(host: str, port: int, seed: int, speed: float) -> int:
    """Serve on uvloop until SIGINT or SIGTERM; the address goes to stderr as one line.

    :returns: the exit code: 0, or 1 where the address can't be had.
    """
    try:
        uvloop.run(_run_until_signalled(host, port, seed, speed))
    except OSError as error:
        print(f"simulator: cannot listen on {host}:{port}: {error}", file=sys.stderr)
        return 1
    return 0
