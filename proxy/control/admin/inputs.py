"""The inputs of a request to the admin API: its query, and the JSON of its body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from proxy.control.admin.json_slices import parse_few
from proxy.control.admin.views import FILTERS
from proxy.errors import BadRequest, GatewayError
from proxy.storage.usage_totals import PARAMETERS
from proxy.wire.query import INVALID, QueryError

# The parameters of the paths that have any.
QUERIES: Mapping[str, tuple[str, ...]] = {
    "/admin/v1/explain": ("strategy", "endpoint"),
    "/admin/v1/requests": FILTERS,
    "/admin/v1/usage": (*PARAMETERS, "format"),
}
# Five thousand names of models fit in. More is no settings of anything, and not worth holding.
MAX_SETTINGS_BYTES = 1 << 20
# Names in them, and what else has a comma before it. Parsing as many takes 2 ms.
_MAX_VALUES = 20_000
MAX_EXPLAINED_BYTES = 4 << 20
# For any of these bodies, whole.
MAX_BODY_S = 30.0
# Longer than any browser's; what is behind it is not looked at.
_MAX_ACCEPT_CHARS = 1000
# Settings have three levels. What is nested like a trap is refused before anything goes into it.
_MAX_LEVELS = 16


def check_query(request: web.Request, path: str) -> None:
    """:raises BadRequest: a parameter that ``path`` has none of, or one that is given twice."""
    known = QUERIES.get(path, ())
    seen: set[str] = set()
    for name, _ in request.query.items():
        if name not in known:
            hint = f"there are {', '.join(known)}" if known else "there are none here"
            raise _no_query(f"There is no parameter '{name[:60]}': {hint}.", name[:60])
        if name in seen:
            raise _no_query(f"'{name}' is given more than once: give it once.", name)
        seen.add(name)


def query_of(request: web.Request) -> dict[str, str]:
    """The parameters of the query; an empty value counts as not given."""
    return {name: value for name, value in request.query.items() if value}


def refused(error: QueryError) -> BadRequest:
    """The response where a parameter has a value that it can't have; it names the parameter."""
    text = str(error)
    return _no_query(f"{text[0].upper()}{text[1:].removesuffix('.')}.", error.param)


def _no_query(text: str, param: str) -> BadRequest:
    return BadRequest(text, code=INVALID, param=param)


def prefers(accept: str, kind: str, other: str) -> bool:
    """Decide whether an ``Accept`` header prefers one media type to another (RFC 9110 section 12.5.1)."""
    weights = {}
    for part in accept[:_MAX_ACCEPT_CHARS].lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            weights[name] = float(weight)
        except ValueError:
            continue

    def weight_of(kind: str) -> float:
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        return next((weights[name] for name in ranges if name in weights), 0.0)

    return weight_of(kind) > weight_of(other)


async def read_body(request: web.Request, most_bytes: int, what: str) -> bytes:
    """The body.

    :param what: sets the limit, for people.
    :raises BadRequest: it is larger (413), not encoded as its head says (400), or not there in time (408).
    """
    body = bytearray()
    try:
        if (request.content_length or 0) <= most_bytes:
            async with asyncio.timeout(MAX_BODY_S):
                async for part in request.content.iter_any():
                    body += part
                    if len(body) > most_bytes:
                        break
                else:
                    return bytes(body)
    except TimeoutError:
        raise BadRequest(f"The body was not there within {MAX_BODY_S:g} s.", status=408) from None
    except web.RequestPayloadError as error:
        text = "The body can't be decoded as its Content-Encoding or Transfer-Encoding says."
        raise BadRequest(text, code="malformed_body") from error
    raise BadRequest(f"The body is larger than {what}.", status=413, code="body_too_large")


async def read_object(request: web.Request, code: str) -> dict[str, Any]:
    """The settings in the body.

    :param code: of the error where it is JSON, but no object.
    :raises BadRequest: it is not JSON (400), or not an object (422).
    """
    body = await read_body(request, MAX_SETTINGS_BYTES, "1 MiB, which is the limit for settings")
    try:
        found = parse_few(body, _MAX_VALUES)
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.", code="malformed_json") from None
    if not isinstance(found, dict):
        raise unprocessable("The body must be a JSON object.", code)
    if _is_deeper(found, _MAX_LEVELS):
        raise unprocessable(f"The body is nested deeper than {_MAX_LEVELS} levels.", code)
    return found


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(inner, levels - 1) for inner in inside)


def unprocessable(text: str, code: str) -> GatewayError:
    """The error for a request that can be read but not done."""
    return BadRequest(text, status=422, code=code)
