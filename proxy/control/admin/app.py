"""The aiohttp application of the admin listener: the dashboard, the live tables, aliases, explain, reload.

Who may ask is in :mod:`proxy.control.admin.guard`, what is described in :mod:`proxy.control.admin.openapi`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from proxy.config.alias_edit import EditError, remove_alias, set_alias
from proxy.config.settings import STRATEGIES, Listen
from proxy.config.tables import ConfigError
from proxy.control.admin import openapi
from proxy.control.admin.explain import explain_request
from proxy.control.admin.groups import add_groups
from proxy.control.admin.guard import Handler, guard
from proxy.control.admin.inputs import (
    MAX_EXPLAINED_BYTES,
    query_of,
    read_body,
    read_object,
    refused,
    unprocessable,
)
from proxy.control.admin.keys import add_keys
from proxy.control.admin.pages import add_pages
from proxy.control.admin.views import alias_row, route_rows
from proxy.control.http import error_response, json_response, nothing_at, rows_response
from proxy.control.key_store import KeyStore
from proxy.control.reload import Reloader
from proxy.control.routes_file import Irreplaceable, Unreadable
from proxy.control.slices import stepped
from proxy.control.usage_index import UsageIndex
from proxy.errors import BadRequest, Fault, GatewayError, NotFound, StartError
from proxy.relay.downstream.gateway import Gateway
from proxy.wire.query import QueryError

log = logging.getLogger("tokenhub.admin")

_GATEWAY = web.AppKey("gateway", Gateway)
_RELOADER = web.AppKey("reloader", Reloader)
Requests = Callable[[Mapping[str, str]], Awaitable[list[dict[str, Any]]]]
_REQUESTS: web.AppKey[Requests] = web.AppKey("requests")
_DOCUMENT = web.AppKey("document", bytes)
_FOR_BROWSERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def admin_app(
    gateway: Gateway,
    reloader: Reloader,
    keys: KeyStore,
    usage_index: UsageIndex,
    requests: Requests,
    listen: Listen,
    token: str,
) -> web.Application:
    """The application.

    :param usage_index: the totals of what was used.
    :param requests: the rows of the latest requests that a query selects; QueryError: it can't be read.
    :param listen: its address, which decides the hosts it may be called by.
    :param token: what requests must bring as bearer token; "" for nothing.
    """
    app = web.Application(middlewares=[_envelope, guard(listen, token)])
    app.on_response_prepare.append(_prepare)
    app[_GATEWAY], app[_RELOADER], app[_REQUESTS] = gateway, reloader, requests
    app[_DOCUMENT] = openapi.document_bytes(has_token=bool(token))
    app.router.add_get("/healthz", _healthz)
    app.router.add_get(openapi.PATH, _openapi)
    app.router.add_get("/admin/v1/routes", _routes)
    app.router.add_get("/admin/v1/aliases", _aliases)
    app.router.add_get("/admin/v1/aliases/{name:.+}", _alias)
    app.router.add_put("/admin/v1/aliases/{name:.+}", _set_alias)
    app.router.add_delete("/admin/v1/aliases/{name:.+}", _remove_alias)
    app.router.add_post("/admin/v1/explain", _explain)
    app.router.add_post("/admin/v1/reload", _reload)
    app.router.add_get("/admin/v1/requests", _requests)
    add_keys(app, gateway, keys, usage_index)
    add_groups(app, keys)
    add_pages(app)
    return app


# ---------------------------------------------------------------------- its errors


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as the data plane gives them."""
    headers: dict[str, str] = {}
    try:
        return await handler(request)
    except GatewayError as error:
        answer = error
    except (Irreplaceable, EditError) as error:
        answer = BadRequest(_sentence(error), status=409, code="conflict")
    except (ConfigError, StartError, Unreadable) as error:
        answer = BadRequest(_sentence(error), status=422, code="invalid_configuration")
    except web.HTTPException as error:
        answer = _translate(request, error)
        if isinstance(error, web.HTTPMethodNotAllowed):
            headers["Allow"] = ",".join(sorted(error.allowed_methods))
    except Exception:
        log.exception("internal error while answering %s %s", request.method, request.path)
        answer = Fault()
    return error_response(answer, request.app[_GATEWAY].next_request_id().decode(), headers)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}." if isinstance(error, Irreplaceable | EditError) else text


def _translate(request: web.Request, error: web.HTTPException) -> GatewayError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        text = f"{request.path} accepts {allow}, not {request.method}."
        return BadRequest(text, status=405, code="method_not_allowed")
    if error.status == 404:
        return nothing_at(request.path)
    return BadRequest(f"The request can't be served ({error.status}).", status=error.status)


async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
    """For browsers: what is answered here is of this moment, is what it says it is, and is no part of another
    page. A response that knows better keeps its own."""
    for name, value in _FOR_BROWSERS.items():
        response.headers.setdefault(name, value)


# ---------------------------------------------------------------------- what it answers


async def _healthz(_request: web.Request) -> web.Response:
    return json_response({"status": "ok"})


async def _openapi(request: web.Request) -> web.Response:
    return web.Response(body=request.app[_DOCUMENT], content_type="application/json")


async def _routes(request: web.Request) -> web.StreamResponse:
    rows = route_rows(request.app[_GATEWAY].catalog, time.monotonic(), time.time())
    return await rows_response(request, rows)


async def _aliases(request: web.Request) -> web.StreamResponse:
    aliases = request.app[_GATEWAY].config.aliases.values()
    return await rows_response(request, map(alias_row, aliases))


async def _alias(request: web.Request) -> web.Response:
    return json_response(_alias_of(request))


def _alias_of(request: web.Request) -> dict[str, Any]:
    name = request.match_info["name"]
    alias = request.app[_GATEWAY].config.aliases.get(name)
    if alias is None:
        raise NotFound(f"There is no alias '{name[:200]}'.", "alias_not_found")
    return alias_row(alias)


async def _set_alias(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    settings = await read_object(request, "invalid_alias")
    if settings.pop("name", name) != name:
        raise _invalid("'name' is not the one in the path; to rename, set the new and remove the old.")
    # As rows show it: null is what is not set.
    settings = {key: value for key, value in settings.items() if value is not None}
    if holds_null(settings):
        raise _invalid("There is a null inside of a setting; the file knows none.")
    existed = name in request.app[_GATEWAY].config.aliases
    try:
        await request.app[_RELOADER].edit(lambda text: set_alias(text, name, settings))
    except ConfigError as error:
        raise _mistakes(error) from None
    return json_response(_alias_of(request), status=200 if existed else 201)


async def _remove_alias(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    _alias_of(request)  # 404
    try:
        await request.app[_RELOADER].edit(lambda text: remove_alias(text, name))
    except KeyError:  # removed by somebody else a moment ago
        raise NotFound(f"There is no alias '{name[:200]}'.", "alias_not_found") from None
    except ConfigError as error:
        aliases = request.app[_GATEWAY].config.aliases.values()
        users = [alias.name for alias in aliases if name in alias.models]
        if name in dict(request.app[_GATEWAY].config.routing.default_models).values():
            users.append("[routing] default_models")
        if not users:
            raise _mistakes(error) from None
        text = f"The alias '{name}' is in use: take it out of {', '.join(users)} first."
        raise _invalid(text) from None
    return json_response({"name": name, "removed": True})


async def _explain(request: web.Request) -> web.Response:
    query = query_of(request)
    strategy = query.get("strategy")
    if strategy is not None and strategy not in STRATEGIES:
        text = f"'strategy' must be one of {', '.join(STRATEGIES)}."
        raise BadRequest(text, code="invalid_strategy", param="strategy")
    gateway = request.app[_GATEWAY]
    work = explain_request(
        gateway.catalog,
        await read_body(request, *_limit(gateway)),
        time.monotonic(),
        strategy=strategy or request.headers.get("X-Inferoute-Strategy"),
        endpoint=query.get("endpoint"),
    )
    return json_response(await stepped(work))


def _limit(gateway: Gateway) -> tuple[int, str]:
    """Check that a body may be explained, and what sets the limit."""
    if gateway.max_body_bytes < MAX_EXPLAINED_BYTES:
        return gateway.max_body_bytes, "[server] max_body"
    return MAX_EXPLAINED_BYTES, "4 MiB, which is the limit for explain"


async def _reload(request: web.Request) -> web.Response:
    given = await read_object(request, "invalid_reload") if request.body_exists else {}
    if given:
        text = f"There is nothing to set here, such as '{min(given)[:60]}': send an empty object."
        raise unprocessable(text, "invalid_reload")
    changes = await request.app[_RELOADER].reload()
    return json_response(changes._asdict())


async def _requests(request: web.Request) -> web.StreamResponse:
    try:
        rows = await request.app[_REQUESTS](query_of(request))
    except QueryError as error:
        raise refused(error) from None
    return await rows_response(request, rows)


def holds_null(value: object) -> bool:
    """Find a null anywhere in a JSON value: TOML has no null."""
    if isinstance(value, dict):
        return any(map(holds_null, value.values()))
    return any(map(holds_null, value)) if isinstance(value, list) else value is None


def _mistakes(error: ConfigError) -> GatewayError:
    """Without their places: those are in a text that was never written."""
    return _invalid("; ".join(mistake.message for mistake in error.mistakes) + ".")


def _invalid(text: str) -> GatewayError:
    return unprocessable(text, "invalid_alias")
