"""The aiohttp application of the admin listener: the live tables, aliases, explain, reload.

Whoever reaches this listener steers the gateway. It is on loopback unless a token is set; and since a web
page can make the browser of the operator ask any address, loopback too, a request counts only if it names
this host (no foreign name that was made to lead here), comes from no other page, and, where it writes, says
that its body is JSON, which no page may send without being asked first.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.app import json_response
from proxy.books import Books
from proxy.config import ConfigError, Listen
from proxy.edit import EditError, remove_alias, set_alias
from proxy.errors import DOWNSTREAM, BadRequest, GatewayError
from proxy.explain import explain_request
from proxy.gateway import Gateway
from proxy.keyadmin import add_keys
from proxy.keystore import KeyStore
from proxy.listeners import StartError, is_local
from proxy.reload import Reloader
from proxy.requestbody import read_object, unprocessable
from proxy.routesfile import Irreplaceable, Unreadable
from proxy.values import is_loopback
from proxy.views import alias_row, route_rows

log = logging.getLogger("tokenhub.admin")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_GATEWAY = web.AppKey("gateway", Gateway)
_RELOADER = web.AppKey("reloader", Reloader)
Requests = Callable[[Mapping[str, str]], Awaitable[list[dict[str, Any]]]]
_REQUESTS: web.AppKey[Requests] = web.AppKey("requests")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="tokenhub"'}


def admin_app(
    gateway: Gateway,
    reloader: Reloader,
    keys: KeyStore,
    books: Books,
    requests: Requests,
    listen: Listen,
    token: str,
) -> web.Application:
    """The application.

    :param books: the totals of what was used.
    :param requests: the rows of the latest requests that a query selects; ValueError: it is none.
    :param listen: where it is reached, which tells the hosts it may be called by.
    :param token: what requests must bring as bearer token; "" for nothing.
    """
    app = web.Application(
        middlewares=[_envelope, _guard(listen, token)], client_max_size=gateway.max_body_bytes
    )
    app[_GATEWAY], app[_RELOADER], app[_REQUESTS] = gateway, reloader, requests
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/admin/v1/routes", _routes)
    app.router.add_get("/admin/v1/aliases", _aliases)
    app.router.add_get("/admin/v1/aliases/{name:.+}", _alias)
    app.router.add_put("/admin/v1/aliases/{name:.+}", _set_alias)
    app.router.add_delete("/admin/v1/aliases/{name:.+}", _remove_alias)
    app.router.add_post("/admin/v1/explain", _explain)
    app.router.add_post("/admin/v1/reload", _reload)
    app.router.add_get("/admin/v1/requests", _requests)
    add_keys(app, gateway, keys, books)
    return app


# ---------------------------------------------------------------------- who may ask


def _guard(listen: Listen, token: str) -> Middleware:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_origin(request, listen, token)
        if token and request.path != "/healthz" and not _has_token(request, token):
            raise GatewayError(
                "The admin API needs its token: Authorization: Bearer … with what [admin] token_env names.",
                status=401,
                type="authentication_error",
                code="invalid_admin_token",
                source=DOWNSTREAM,
            )
        writes = request.method in ("PUT", "POST", "PATCH") or (
            request.method == "DELETE" and request.body_exists
        )
        if writes and request.content_type != "application/json":
            raise BadRequest(
                "Writes need the header Content-Type: application/json.",
                status=415,
                code="unsupported_media_type",
            )
        return await handler(request)

    return guard


def _check_origin(request: web.Request, listen: Listen, token: str) -> None:
    """:raises GatewayError: 403: the request comes by a foreign name or from a foreign page."""
    hosts = request.headers.getall("Host", [])
    # A page can't bring the token, and can't reach a Unix socket: there any name is as good as another.
    is_known = len(hosts) == 1 and (
        bool(listen.path) or (bool(token) and not is_local(listen)) or _is_ours(hosts[0], listen)
    )
    if not is_known:
        raise _forbidden("foreign_host", "The admin API goes by localhost or 127.0.0.1, not by this Host.")
    for origin in request.headers.getall("Origin", []):
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc.lower() != hosts[0].lower():
            raise _forbidden("foreign_origin", "The admin API takes no requests from other pages.")


def _is_ours(host: str, listen: Listen) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    # Not what is_loopback() takes besides: a resolver may be made to answer for x.localhost.
    return name in ("localhost", listen.host) or (is_loopback(name) and not name.endswith("localhost"))


def _forbidden(code: str, message: str) -> GatewayError:
    return GatewayError(message, status=403, type="permission_error", code=code, source=DOWNSTREAM)


def _has_token(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    is_equal = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return scheme.lower() == "bearer" and is_equal


@web.middleware
async def _envelope(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as the data plane gives them."""
    headers: dict[str, str] = {}
    try:
        return await handler(request)
    except GatewayError as error:
        answer = error
        if error.status == 401:
            headers |= _CHALLENGE
    except (Irreplaceable, EditError) as error:
        answer = BadRequest(_sentence(error), status=409, code="conflict")
    except (ConfigError, StartError, Unreadable) as error:
        answer = BadRequest(_sentence(error), status=422, code="invalid_configuration")
    except web.HTTPException as error:
        answer = _translate(request, error)
        if isinstance(error, web.HTTPMethodNotAllowed):
            headers["Allow"] = ",".join(sorted(error.allowed_methods))
    except Exception:
        log.exception("a fault in the answer to %s %s", request.method, request.path)
        answer = GatewayError("The gateway failed at this request; its log says more.")
    headers["x-request-id"] = request.app[_GATEWAY].next_request_id().decode()
    return web.Response(
        body=answer.envelope(), status=answer.status, content_type="application/json", headers=headers
    )


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}." if isinstance(error, Irreplaceable | EditError) else text


def _translate(request: web.Request, error: web.HTTPException) -> GatewayError:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allow = ", ".join(sorted(error.allowed_methods))
        text = f"{request.method} is not for {request.path}; allowed: {allow}."
        return BadRequest(text, status=405, code="method_not_allowed")
    if error.status == 404:
        text = f"There is nothing at {request.path[:200]}. The admin API is below /admin/v1."
        return _not_found(text, "unknown_path")
    if error.status == 413:
        return BadRequest("The body is larger than [server] max_body.", status=413, code="body_too_large")
    return BadRequest(f"The request can't be served ({error.status}).", status=error.status)


def _not_found(text: str, code: str) -> GatewayError:
    return GatewayError(text, status=404, type="not_found_error", code=code, source=DOWNSTREAM)


# ---------------------------------------------------------------------- what it answers


async def _healthz(_request: web.Request) -> web.Response:
    return json_response({"status": "ok"})


async def _routes(request: web.Request) -> web.Response:
    rows = route_rows(request.app[_GATEWAY].catalog, time.monotonic(), time.time())
    return json_response({"data": rows})


async def _aliases(request: web.Request) -> web.Response:
    aliases = request.app[_GATEWAY].config.aliases.values()
    return json_response({"data": [alias_row(alias) for alias in aliases]})


async def _alias(request: web.Request) -> web.Response:
    return json_response(_alias_of(request))


def _alias_of(request: web.Request) -> dict[str, Any]:
    name = request.match_info["name"]
    alias = request.app[_GATEWAY].config.aliases.get(name)
    if alias is None:
        raise _not_found(f"There is no alias '{name[:200]}'.", "alias_not_found")
    return alias_row(alias)


async def _set_alias(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    settings = await read_object(request, "invalid_alias")
    if settings.pop("name", name) != name:
        raise _invalid("'name' is not the one in the path; to rename, set the new and remove the old.")
    # As rows show it: null (and a peek that is off) is what is not set.
    settings = {key: value for key, value in settings.items() if value is not None}
    if settings.get("peek") is False:
        del settings["peek"]
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
        raise _not_found(f"There is no alias '{name[:200]}'.", "alias_not_found") from None
    except ConfigError as error:
        raise _mistakes(error) from None
    return json_response({"name": name, "removed": True})


async def _explain(request: web.Request) -> web.Response:
    query = request.query
    answer = explain_request(
        request.app[_GATEWAY].catalog,
        await request.read(),
        time.monotonic(),
        strategy=query.get("strategy"),
        endpoint=query.get("endpoint"),
    )
    return json_response(answer)


async def _reload(request: web.Request) -> web.Response:
    changes = await request.app[_RELOADER].reload()
    return json_response(changes._asdict())


async def _requests(request: web.Request) -> web.Response:
    try:
        rows = await request.app[_REQUESTS](request.query)
    except ValueError as error:
        raise BadRequest(str(error), code="invalid_query") from None
    return json_response({"data": rows})


def holds_null(value: object) -> bool:
    """Whether there is a null anywhere in a JSON value: TOML has none."""
    if isinstance(value, dict):
        return any(map(holds_null, value.values()))
    return any(map(holds_null, value)) if isinstance(value, list) else value is None


def _mistakes(error: ConfigError) -> GatewayError:
    """Without their places: those are in a text that was never written."""
    return _invalid("; ".join(mistake.message for mistake in error.mistakes) + ".")


def _invalid(text: str) -> GatewayError:
    return unprocessable(text, "invalid_alias")
