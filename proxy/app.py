"""The aiohttp application behind the data listener: everything but proxied requests.

A connection comes here with its first such request and is closed after the answer; see
:meth:`proxy.downstream.ClientConnection._hand_over`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import orjson
from aiohttp import web

from proxy.catalog import Allows
from proxy.cors import preflight
from proxy.endpoints import PROXIED
from proxy.error_response import gateway_response
from proxy.errors import BadRequest, ForeignOrigin, GatewayError, Unavailable, UnknownModel
from proxy.gateway import Gateway
from proxy.headers import MAX_HEAD_BYTES, MAX_HEADERS

log = logging.getLogger("tokenhub.app")
GATEWAY = web.AppKey("gateway", Gateway)
# What is still to come of a request that has its answer is read and dropped for so long.
LINGER_S = 2.0
_REQUEST_ID = web.RequestKey("request_id", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def data_app(gateway: Gateway) -> web.Application:
    """The application for the data listener."""
    app = web.Application(middlewares=[_envelope])
    app[GATEWAY] = gateway
    for prefix in ("/v1", ""):
        app.router.add_get(f"{prefix}/models", _models)
        app.router.add_get(prefix + "/models/{id:.+}", _model)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.on_response_prepare.append(_prepare)
    return app


class ControlProtocol(web.RequestHandler):
    """aiohttp's side of a connection that was handed over, or of one to the admin listener.

    :param held: has it from its beginning to its end.
    :param max_line: bytes of a request line or header.

    Heads were checked before, so its limits are ours; and what its parser still doesn't take (an unknown
    method, say) is answered in the envelope, not in aiohttp's plain text.
    """

    __slots__ = ("_gateway", "_held")

    def __init__(
        self, server: web.Server, gateway: Gateway, held: set[object], *, max_line: int = MAX_HEAD_BYTES
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # its AppRunner passes None too
            max_line_size=max_line,
            max_field_size=max_line,
            max_headers=MAX_HEADERS,
            keepalive_timeout=gateway.timeouts.keep_alive_s,
            lingering_time=LINGER_S,
        )
        self._gateway = gateway
        self._held = held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As of any protocol."""
        self._held.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """As of any protocol."""
        self._held.discard(self)
        self._gateway.door.leave(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what aiohttp can't parse, or fails at by itself."""
        if status >= 500:
            log.error("a fault in the answer to a request", exc_info=exc)
            error = GatewayError("The gateway failed at this request; its log says more.", status=status)
        else:
            text = "The request has a method, a framing or an Expect that is not known here."
            error = BadRequest(text, status=status)
        response = _error_response(error, self._gateway.next_request_id().decode())
        response.headers["X-Inferoute-Request-Id"] = response.headers["x-request-id"]
        response.headers["Connection"] = "close"
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that breaks behind its answer is the client's fault: a traceback would be a way to fill the
        log."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; one that aiohttp made before the application was asked is put in the envelope."""
        if resp.status >= 400 and resp.content_type != "application/json":
            resp = self.handle_error(request, resp.status)
        return await super().finish_response(request, resp, start_time)


class Refusal(asyncio.Protocol):
    """Tells a client that there are too many."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Everything happens here."""
        error = Unavailable("Too many connections.", code="overloaded", retry_after_s=1)
        answer = gateway_response(error, self._gateway.next_request_id(), close=True)
        cast(asyncio.Transport, transport).write(answer)
        transport.close()


async def _models(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    return json_response({"object": "list", "data": gateway.catalog.models(_allows(request, gateway))})


async def _model(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    gateway = request.app[GATEWAY]
    allows = _allows(request, gateway)
    model = gateway.catalog.model(name, allows)
    if model is None:
        raise UnknownModel(name, None if allows else gateway.hint(name))
    return json_response(model)


def _allows(request: web.Request, gateway: Gateway) -> Allows | None:
    """What the request's key may use; None: all. :raises Unauthorized: it needs one, or another."""
    credentials = [
        (name.lower().encode(), value.encode("utf-8", "surrogateescape"))
        for name, value in request.headers.items()
    ]
    grant = gateway.keys.grant_of(credentials)
    if grant is None:
        return None
    grant.check(time.time())
    if not grant.limits_models:
        return None
    means = gateway.catalog.means
    return lambda name, ids: grant.allows(name, ids, means)


async def _healthz(_request: web.Request) -> web.Response:
    return json_response({"status": "ok"})


async def _readyz(request: web.Request) -> web.Response:
    gateway = request.app[GATEWAY]
    if gateway.is_ready():
        return json_response({"status": "ready"})
    why = "draining" if gateway.unready else "no provider has a key"
    return json_response({"status": "not ready", "reason": why}, status=503)


def json_response(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


async def _prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Every answer has an id; and the connection can't return to the data plane, so it closes."""
    cors = request.app[GATEWAY].cors
    if cors is not None:
        for name, value in _pairs(cors.lines(_origin(request))):
            response.headers.setdefault(name, value)
    if _REQUEST_ID in request:
        response.headers["X-Inferoute-Request-Id"] = request[_REQUEST_ID]
    response.headers["Connection"] = "close"  # aiohttp has written its own headers before this
    response.force_close()


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the envelope that SDKs know."""
    request[_REQUEST_ID] = request.app[GATEWAY].next_request_id().decode()
    allow = ""
    try:
        return _preflight(request) if _is_preflight(request) else await handler(request)
    except GatewayError as error:
        answer = error
    except web.HTTPException as error:
        if error.status == 404 and request.rel_url.raw_path.encode() in PROXIED:
            allow = "POST"
        elif isinstance(error, web.HTTPMethodNotAllowed):
            allow = ",".join(sorted(error.allowed_methods))
        answer = _translate(request, error.status, allow)
    except Exception:
        log.exception("a fault in the answer to %s %s", request.method, request.path)
        answer = GatewayError("The gateway failed at this request; its log says more.")
    response = _error_response(answer, request[_REQUEST_ID])
    if allow:
        response.headers["Allow"] = allow
    return response


def _error_response(error: GatewayError, request_id: str) -> web.Response:
    headers = {"x-request-id": request_id, "x-should-retry": "true" if error.should_retry else "false"}
    headers.update(_pairs(error.header_lines()))
    return web.Response(
        body=error.envelope(), status=error.status, content_type="application/json", headers=headers
    )


def _pairs(lines: bytes) -> Iterator[tuple[str, str]]:
    """Header lines, each with its CRLF, as names and values."""
    for line in lines.decode("latin-1").splitlines():
        name, _, value = line.partition(": ")
        yield name, value


def _origin(request: web.Request) -> bytes:
    return "".join(request.headers.getall("Origin", [])).encode("utf-8", "surrogateescape")


def _preflight(request: web.Request) -> web.Response:
    """The answer to what a browser asks before it sends a page's request.

    :raises GatewayError: pages of its origin may not call.
    """
    if not request.app[GATEWAY].lets_pages_call(_origin(request)):
        raise ForeignOrigin
    headers = preflight(request.headers.get("Access-Control-Request-Headers", ""))
    return web.Response(status=204, headers=headers)


def _is_preflight(request: web.Request) -> bool:
    asked = "Origin" in request.headers and "Access-Control-Request-Method" in request.headers
    return request.method == "OPTIONS" and asked and request.app[GATEWAY].cors is not None


def _translate(request: web.Request, status: int, allow: str) -> GatewayError:
    if allow:
        return BadRequest(
            f"{request.method} is not for {request.path}; allowed: {allow}.",
            status=405,
            code="method_not_allowed",
        )
    if status == 404:
        return GatewayError(
            f"There is nothing at {request.path[:200]}. The API is below /v1, such as /v1/chat/completions.",
            status=404,
            type="not_found_error",
            code="unknown_path",
        )
    return BadRequest(f"The request can't be served ({status}).", status=status)
