"""Responses that the data listener gives by itself: models, health, browsers' preflights, unknown paths.

Nothing of it is sent on, and no other program's code sees such a request. All is answered in the turn in
which it came, but for what a list of models, or a key's own list, still has to be made for
(:mod:`proxy.relay.downstream.sliced_jobs`), and what the control plane knows of a key
(:mod:`proxy.relay.downstream.own_figures`).
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

import orjson

from proxy.access.cors import Cors, preflight
from proxy.access.model_list import ListQuery
from proxy.access.model_pages import Paging, paging_of
from proxy.access.standing import own_figures
from proxy.endpoints import (
    HEALTH,
    MODEL,
    NOTHING,
    OWN_KEY,
    OWN_REQUEST,
    OWN_USAGE,
    READY,
    WELCOME,
    allowed_methods,
    is_anthropic,
    model_id,
    nearest_path,
    own,
)
from proxy.errors import BadRequest, ForeignOrigin, GatewayError, NotFound, Unauthorized, UnknownModel
from proxy.relay.downstream.own_figures import (
    REQUEST,
    USAGE,
    Give,
    OwnAnswer,
    read_parameters,
    unknown_request,
)
from proxy.relay.downstream.sliced_jobs import Again
from proxy.wire.query import flag
from proxy.wire.request_head import RequestHead

if TYPE_CHECKING:
    from proxy.access.grants import Grant
    from proxy.relay.downstream.gateway import Gateway

# Longer answers are shared by all who are sent them.
COPIED_BYTES: Final = 16 << 10
# Of a path or name that is told back.
_MAX_TOLD: Final = 200
_JSON: Final = b"Content-Type: application/json\r\n"
_USUALLY_WITH_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))
_WITHOUT_BODY: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"DELETE"))
_HEALTHY: Final = b'{"status":"ok"}'
_READY: Final = b'{"status":"ready"}'
_WELCOME: Final = (
    b'{"name":"TokenHub","what":"a gateway for LLM APIs","openai":"/v1/chat/completions",'
    b'"anthropic":"/v1/messages","models":"/v1/models"}'
)
_WHERE: Final = "The API is below /v1, such as /v1/chat/completions; docs/api.md lists its endpoints."


def own_answer(
    gateway: Gateway, again: Again, give: Give, head: RequestHead, raw_head: bytes
) -> OwnAnswer | None:
    """The answer to a request that is not proxied; None: it waits, and ``again`` is called to have it read
    again, or ``give`` with its answer.

    :raises GatewayError: it is an error.
    """
    method, path = head.method, head.path
    if method == b"OPTIONS" and gateway.cors is not None and head.origin:
        wanted = _first(raw_head, b"access-control-request-method")
        if wanted is not None:
            return _preflight(gateway, head, raw_head)
    kind, id = own(path)
    if kind == NOTHING or method not in (b"GET", b"HEAD"):
        raise _not_served(method, path)
    if head.expect not in (b"", b"100-continue"):
        raise BadRequest("The only Expect is 100-continue.", status=417, close=True)
    if kind in (HEALTH, WELCOME):
        return OwnAnswer(200, _JSON, _HEALTHY if kind == HEALTH else _WELCOME)
    if kind == READY:
        if gateway.is_ready():
            return OwnAnswer(200, _JSON, _READY)
        why = b"draining" if gateway.unready else b"no provider has a key"
        return OwnAnswer(503, _JSON, b'{"status":"not ready","reason":"%b"}' % why)
    if kind in (OWN_KEY, OWN_USAGE, OWN_REQUEST):
        return _of_key(gateway, give, head, kind, id)
    return _models(gateway, again, head, model_id(id) if kind == MODEL else None)


def may_be_followed(head: RequestHead, length: int | None, raw_head: bytes) -> bool:
    """Return whether every program on the way agrees where the request ends, so that another may follow it.

    Not if it has a body where others expect none (RFC 9110 section 9.3.1), has an unknown method, or asks for
    another protocol.
    """
    if head.method not in _USUALLY_WITH_BODY and (head.method not in _WITHOUT_BODY or length or head.chunked):
        return False
    return raw_head.lower().find(b"\nupgrade:") < 0


def _not_served(method: bytes, path: bytes) -> GatewayError:
    where, allow = path[:_MAX_TOLD].decode("latin-1"), allowed_methods(path)
    if not allow:
        close = nearest_path(path)
        text = f"There is nothing at {where}. {f'Did you mean {close}?' if close else _WHERE}"
        if path.startswith(b"/v1/v1/"):
            text = (
                f"There is nothing at {where}: it has /v1 twice. The client adds it by itself, so take /v1 "
                "off the end of its base URL."
            )
        return NotFound(text, "unknown_path")
    text = f"{method.decode('latin-1')} is not for {where}; allowed: {allow.decode()}."
    if own(path)[0] == WELCOME:
        text += f" {_WHERE}"
    error = BadRequest(text, status=405, code="method_not_allowed")
    error.headers = b"Allow: %b\r\n" % allow
    return error


def _preflight(gateway: Gateway, head: RequestHead, raw_head: bytes) -> OwnAnswer:
    """The answer to what a browser asks before it sends a page's request.

    :raises ForeignOrigin: pages of its origin may not call.
    """
    if not gateway.lets_pages_call(head.origin):
        raise ForeignOrigin
    return OwnAnswer(204, preflight(_first(raw_head, b"access-control-request-headers") or b""), b"")


def _first(raw_head: bytes, wanted: bytes) -> bytes | None:
    """The value of the first header of a name. Only preflights have these, so no table knows them."""
    for line in raw_head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon and name.lower() == wanted:
            return value.strip(b" \t")
    return None


def common_lines(head: RequestHead | None, cors: Cors | None, keep: bool) -> bytes:
    """Header lines that responses of our own have, each with its CRLF. ``keep``: the connection is kept."""
    if head is None:
        return b""
    lines = b"" if cors is None else cors.lines(head.origin)
    return lines + b"Connection: keep-alive\r\n" if keep and not head.minor else lines


def _models(gateway: Gateway, again: Again, head: RequestHead, id: str | None) -> OwnAnswer | None:
    """The list of models, or the one with ``id``.

    :raises GatewayError: 401, 402 or 429: the key is of no use, or a limit of it is reached; 404.
    """
    if gateway.overload.is_on:
        gateway.shed()
    now = monotonic()
    unix_s = now + gateway.unix_offset_s
    grant = gateway.keys.grant_of(head.credentials)
    if grant is not None:
        grant.check(unix_s)
    limited = grant if grant is not None and grant.limits_models else None
    is_all = bool(head.query) and flag(head.query, b"all")
    is_theirs = is_anthropic(head.path, head.lines)
    paging = paging_of(head.query) if is_theirs and id is None else Paging()
    routes = gateway.routes
    models = routes.models
    if limited is not None and not limited.is_ready(routes.catalog):
        if grant is not None and grant.account.is_limited:
            grant.account.look(now, unix_s)
        if not gateway.make_ready(limited, routes.catalog, again):
            return None
    if id is not None:
        row = models.one(id, limited, is_all=is_all, is_anthropic=is_theirs)
        if row is None:  # the caller counts what is refused
            # A hint might name a model that is not the key's.
            raise UnknownModel(id[:_MAX_TOLD], None if limited else gateway.hint(id))
        return OwnAnswer(200, _JSON + _count(grant, now, unix_s), row)
    wanted = ListQuery(None if limited is None else limited.key.models, is_all, is_theirs)
    if not models.has(wanted):
        if grant is not None and grant.account.is_limited:
            grant.account.look(now, unix_s)
        steps, is_there = models.build(wanted, limited), lambda: models.has(wanted)
        if not gateway.sliced_jobs.run((models, wanted), is_there, steps, again):
            return None
    found = models.get(wanted, paging)
    assert found is not None
    return OwnAnswer(200, _JSON + _count(grant, now, unix_s), found)


def _of_key(gateway: Gateway, give: Give, head: RequestHead, kind: int, id: bytes) -> OwnAnswer | None:
    """What a key may know of itself. Its limits can be read when they are used up: that costs no more than a
    health check. The rest counts as a request.

    :raises GatewayError: 401, 402 or 429, 503.
    """
    if gateway.overload.is_on:
        gateway.shed()
    now = monotonic()
    unix_s = now + gateway.unix_offset_s
    grant = gateway.keys.grant_of(head.credentials)
    if grant is None:
        raise Unauthorized("There is no API key in the request, and this tells of the key it is sent with.")
    grant.check(unix_s)
    if kind == OWN_KEY:
        return OwnAnswer(200, _JSON, orjson.dumps(own_figures(grant, now, unix_s)))
    figures = gateway.figures
    if figures is None:
        raise unknown_request()
    query = read_parameters(head.query) if kind == OWN_USAGE else {"id": id.decode("latin-1")}
    lines = _JSON + _count(grant, now, unix_s)
    figures.ask(USAGE if kind == OWN_USAGE else REQUEST, grant.id, query, lines, give)
    return None


def _count(grant: Grant | None, now: float, unix_s: float) -> bytes:
    """Count a request against its key. Returns the lines that tell what is left of its limits.

    :raises LimitReached: there is nothing left.
    """
    if grant is None:
        return b""
    account = grant.account
    if not account.is_limited:
        account.settle(None, unix_s, 0, 0)
        return b""
    permit = account.admit(now, unix_s, 0, 0)
    account.settle(permit, unix_s, 0, 0)
    return account.header_lines(permit, now, unix_s - now)
