"""JSON and the error envelope, as the admin listener answers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from proxy.errors import GatewayError

_CHALLENGE = 'Bearer realm="tokenhub"'


def json_response(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return json_bytes(orjson.dumps(value), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """The same of what is JSON already."""
    return web.Response(body=body, status=status, content_type="application/json")


def error_response(
    error: GatewayError, request_id: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An error in the envelope that SDKs know.

    :param headers: beside those that errors have.
    """
    all_headers = {"x-request-id": request_id, **(headers or {})}
    if error.status == 401:
        all_headers["WWW-Authenticate"] = _CHALLENGE
    if error.retry_after_s is not None:
        all_headers["Retry-After"] = str(error.retry_after_s)
    return web.Response(
        body=error.envelope(), status=error.status, content_type="application/json", headers=all_headers
    )
