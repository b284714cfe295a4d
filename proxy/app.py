"""The aiohttp application behind the data listener: everything but proxied requests.

A connection comes here with its first such request and is closed after the answer; see
:meth:`proxy.downstream.ClientConnection._hand_over`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from proxy.errors import BadRequest, GatewayError, UnknownModel
from proxy.gateway import PROXIED, Gateway

log = logging.getLogger("tokenhub.app")
GATEWAY = web.AppKey("gateway", Gateway)
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


async def _models(request: web.Request) -> web.Response:
    return json_response({"object": "list", "data": request.app[GATEWAY].catalog.models()})


async def _model(request: web.Request) -> web.Response:
    name = request.match_info["id"]
    model = request.app[GATEWAY].catalog.model(name)
    if model is None:
        raise UnknownModel(name, None)
    return json_response(model)


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
    response.headers["X-Inferoute-Request-Id"] = request[_REQUEST_ID]
    response.force_close()


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in the envelope that SDKs know."""
    request[_REQUEST_ID] = request.app[GATEWAY].next_request_id().decode()
    allow = ""
    try:
        return await handler(request)
    except GatewayError as error:
        answer = error
    except web.HTTPException as error:
        if error.status == 404 and request.path.encode() in PROXIED:
            allow = "POST"
        elif isinstance(error, web.HTTPMethodNotAllowed):
            allow = ",".join(sorted(error.allowed_methods))
        answer = _translate(request, error.status, allow)
    except Exception:
        log.exception("a fault in the answer to %s %s", request.method, request.path)
        answer = GatewayError("The gateway failed at this request; its log says more.")
    headers = {
        "x-request-id": request[_REQUEST_ID],
        "x-should-retry": "true" if answer.should_retry else "false",
    }
    if allow:
        headers["Allow"] = allow
    return web.Response(
        body=answer.envelope(), status=answer.status, content_type="application/json", headers=headers
    )


def _translate(request: web.Request, status: int, allow: str) -> GatewayError:
    if allow:
        return BadRequest(
            f"{request.method} is not for {request.path}; allowed: {allow}.", status=405, code="method_not_allowed"
        )
    if status == 404:
        return GatewayError(
            f"There is nothing at {request.path[:200]}. The API is below /v1, such as /v1/chat/completions.",
            status=404,
            type="not_found_error",
            code="unknown_path",
        )
    return BadRequest(f"The request can't be served ({status}).", status=status)
