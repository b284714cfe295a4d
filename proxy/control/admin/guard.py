"""Access to the admin listener.

Anyone who reaches it controls the gateway. It is on loopback unless a token is set. A web page can make the
operator's browser send requests to any address, loopback too. So a request is served only if it names this
host (no foreign name that was made to lead here), comes from no other page, and, where it writes, says that
its body is JSON, which a page may not send without a preflight.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from proxy.config.listen import is_local
from proxy.config.settings import Listen
from proxy.config.values import is_loopback
from proxy.control.admin.inputs import check_query
from proxy.errors import DOWNSTREAM, BadRequest, GatewayError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# A host and maybe a port (RFC 9110 section 7.2), without what else a URL could have in this place.
_HOST = re.compile(r"(\[[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]+)(?::[0-9]{0,5})?")
# Pages and their parts: they hold no data, and ask for the token themselves.
_FREE = ("/", "/healthz")
_FREE_BELOW = "/assets/"


def guard(listen: Listen, token: str) -> Middleware:
    """The middleware that lets requests through to the application of the admin listener, or not.

    :param listen: its address, which decides the hosts it may be called by.
    :param token: what requests must bring as bearer token; "" for nothing.
    """

    @web.middleware
    async def let_through(request: web.Request, handler: Handler) -> web.StreamResponse:
        _check_encoding(request)
        _check_origin(request, listen, token)
        path = _path_served(request)
        if token and not _is_free(path or request.path) and not _has_token(request, token):
            raise GatewayError(
                "The admin API needs its token: Authorization: Bearer … with what [admin] token_env names.",
                status=401,
                type="authentication_error",
                code="invalid_admin_token",
                source=DOWNSTREAM,
            )
        if path:
            _check_kind(request)
            if path.startswith("/admin/"):
                check_query(request, path)
        return await handler(request)

    return let_through


def _path_served(request: web.Request) -> str:
    """The path of the route, such as ``/admin/v1/keys/{id}``; "": no route, which is answered later."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical


def _is_free(path: str) -> bool:
    return path in _FREE or path.startswith(_FREE_BELOW)


def _check_kind(request: web.Request) -> None:
    writes = request.method in ("PUT", "POST", "PATCH") or (
        request.method == "DELETE" and request.body_exists
    )
    if writes and not _is_json(request.headers.getall("Content-Type", [])):
        raise BadRequest(
            "Writes need the header Content-Type: application/json.",
            status=415,
            code="unsupported_media_type",
        )


def _is_json(types: list[str]) -> bool:
    """Read Content-Type. aiohttp's own reading takes 2.6 s for 16 KB of semicolons."""
    return [one.partition(";")[0].strip().lower() for one in types] == ["application/json"]


def _check_encoding(request: web.Request) -> None:
    """:raises BadRequest: the body is compressed. A little of it can be anything, unpacked."""
    given = request.headers.getall("Content-Encoding", [])
    if any(encoding.lower() not in ("", "identity") for encoding in given):
        text = "The admin API takes no compressed bodies: send it without Content-Encoding."
        raise BadRequest(text, status=415, code="unsupported_encoding")


def _check_origin(request: web.Request, listen: Listen, token: str) -> None:
    """:raises GatewayError: 403: the request comes by a foreign name or from a foreign page."""
    hosts = request.headers.getall("Host", [])
    # A page can't bring the token, and can't reach a Unix socket: there any name is as good as another.
    goes_by_any = bool(listen.path) or (bool(token) and not is_local(listen))
    # A target with a host of its own counts for more than the header (RFC 9112 section 3.2.2).
    named = hosts if request.raw_path.startswith("/") else [*hosts, _host_of(request.raw_path)]
    if len(hosts) != 1 or not (goes_by_any or all(_is_ours(host, listen) for host in named)):
        raise _forbidden("foreign_host", "The admin API goes by localhost or 127.0.0.1, not by this Host.")
    own = [f"{scheme}://{hosts[0].lower()}" for scheme in ("http", "https")]
    is_foreign = any(origin.lower() not in own for origin in request.headers.getall("Origin", []))
    # What a page only embeds comes without Origin; a link that is followed may come from anywhere.
    site = request.headers.get("Sec-Fetch-Site")
    if site in ("cross-site", "same-site") and request.headers.get("Sec-Fetch-Dest") != "document":
        is_foreign = True
    if is_foreign:
        raise _forbidden("foreign_origin", "The admin API takes no requests from other pages.")


def _host_of(target: str) -> str:
    try:
        return urlsplit(target).netloc
    except ValueError:
        return ""


def _is_ours(host: str, listen: Listen) -> bool:
    match = _HOST.fullmatch(host)
    name = match[1].strip("[]").lower() if match else ""
    # Not what is_loopback() takes besides: a resolver may be made to answer for x.localhost.
    return name in ("localhost", listen.host) or (is_loopback(name) and not name.endswith("localhost"))


def _forbidden(code: str, message: str) -> GatewayError:
    return GatewayError(message, status=403, type="permission_error", code=code, source=DOWNSTREAM)


def _has_token(request: web.Request, token: str) -> bool:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    is_equal = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), token.encode())
    return scheme.lower() == "bearer" and is_equal
