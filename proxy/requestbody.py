"""The JSON object that a request to the admin API brings."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from proxy.errors import BadRequest, GatewayError


async def read_object(request: web.Request, code: str) -> dict[str, Any]:
    """The body.

    :param code: of the error where it is JSON, but no object.
    :raises BadRequest: it is no JSON (400), or no object (422).
    """
    try:
        found = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {error}.", code="malformed_json") from None
    if not isinstance(found, dict):
        raise unprocessable("The body must be a JSON object.", code)
    return found


def unprocessable(text: str, code: str) -> GatewayError:
    """What was sent can be read, but not be done."""
    return BadRequest(text, status=422, code=code)
