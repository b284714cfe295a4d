"""JSON responses and the error envelope of the admin listener."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from aiohttp import web

from proxy.control.slices import json_rows
from proxy.errors import GatewayError, NotFound

_PIECE_BYTES = 256 << 10
_CHALLENGE = 'Bearer realm="tokenhub"'


def json_response(value: Any, status: int = 200) -> web.Response:
    """Make a response of a JSON value."""
    return json_bytes(orjson.dumps(value), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """Make a response of JSON bytes."""
    return web.Response(body=body, status=status, content_type="application/json")


async def rows_response(
    request: web.Request, rows: Iterable[Any], headers: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Send ``{"data": […]}`` of rows, made in slices. A large one is sent in pieces, too: to copy
    megabytes at once would keep other requests waiting."""
    pieces = await json_rows(rows)
    size = sum(map(len, pieces))
    if size <= _PIECE_BYTES or request.method == "HEAD":
        return web.Response(body=b"".join(pieces), content_type="application/json", headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_type = "application/json"
    response.content_length = size
    await response.prepare(request)
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > _PIECE_BYTES:
            await response.write(b"".join(held))
            held, size = [], 0
            await asyncio.sleep(0)
    await response.write(b"".join(held))
    await response.write_eof()
    return response


def nothing_at(path: str) -> GatewayError:
    """The error for a path of the admin listener that leads nowhere."""
    return NotFound(
        f"There is nothing at {path[:200]}. The admin API is below /admin/v1; its paths are "
        "in /admin/v1/openapi.json.",
        "unknown_path",
    )


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
