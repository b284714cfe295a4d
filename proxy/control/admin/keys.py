"""Keys and their usage in the admin API."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from aiohttp import web

from proxy.control.admin.inputs import prefers, query_of, read_object, refused
from proxy.control.admin.store_errors import refusals, storage_failed
from proxy.control.http import json_response, rows_response
from proxy.control.key_store import KeyStore
from proxy.control.slices import sliced
from proxy.control.usage_index import UsageIndex
from proxy.relay.downstream.gateway import Gateway
from proxy.storage.usage_totals import csv_lines
from proxy.wire.query import QueryError

FORMATS = ("json", "csv")

# A name may hold slashes; a path that ends as one of another route does is not a key's.
_KEY = r"/admin/v1/keys/{id:.+(?<!/rotate)}"

_GATEWAY = web.AppKey("keys_gateway", Gateway)
_KEYS = web.AppKey("keys", KeyStore)
_USAGE_INDEX = web.AppKey("usage_index", UsageIndex)


def add_keys(app: web.Application, gateway: Gateway, keys: KeyStore, usage_index: UsageIndex) -> None:
    """Add the routes to the application of the admin listener."""
    app[_GATEWAY], app[_KEYS], app[_USAGE_INDEX] = gateway, keys, usage_index
    app.router.add_get("/admin/v1/keys", _list)
    app.router.add_post("/admin/v1/keys", _create)
    app.router.add_post("/admin/v1/keys/{id:.+}/rotate", _rotate)
    app.router.add_get(_KEY, _show)
    app.router.add_patch(_KEY, _edit)
    app.router.add_delete(_KEY, _revoke)
    app.router.add_get("/admin/v1/usage", _usage)
    app.router.add_get("/admin/v1/tags", _tags)


async def _list(request: web.Request) -> web.StreamResponse:
    return await rows_response(request, request.app[_KEYS].rows())


async def _show(request: web.Request) -> web.Response:
    keys = request.app[_KEYS]
    with refusals("invalid_key"):
        return json_response(keys.row(keys.find(request.match_info["id"])))


async def _create(request: web.Request) -> web.Response:
    keys = request.app[_KEYS]
    given = await read_object(request, "invalid_key")
    was_open = keys.is_open
    with refusals("invalid_key"):
        key, secret = await keys.create(given, _names(request))
    closes = was_open and not keys.is_open
    answer = json_response({**keys.row(key), "key": secret, "closes_gateway": closes}, status=201)
    answer.headers["Location"] = f"/admin/v1/keys/{key.id}"
    return answer


async def _edit(request: web.Request) -> web.Response:
    keys = request.app[_KEYS]
    given = await read_object(request, "invalid_key")
    with refusals("invalid_key"):
        return json_response(keys.row(await keys.edit(request.match_info["id"], given, _names(request))))


async def _rotate(request: web.Request) -> web.Response:
    keys = request.app[_KEYS]
    given = await read_object(request, "invalid_key")
    with refusals("invalid_key"):
        key, secret = await keys.rotate(request.match_info["id"], given)
    return json_response({**keys.row(key), "key": secret})


async def _revoke(request: web.Request) -> web.Response:
    keys = request.app[_KEYS]
    with refusals("invalid_key"):
        return json_response(keys.row(await keys.revoke(request.match_info["id"])))


def _names(request: web.Request) -> Iterable[str]:
    return request.app[_GATEWAY].catalog.names()


async def _usage(request: web.Request) -> web.StreamResponse:
    query = query_of(request)
    wanted = "csv" if prefers(request.headers.get("Accept", ""), "text/csv", "application/json") else "json"
    form = query.pop("format", wanted)
    if form not in FORMATS:
        raise refused(QueryError("format", f"'format' must be {' or '.join(FORMATS)}"))
    try:
        asked, rows = await request.app[_USAGE_INDEX].usage(query, request.app[_KEYS].names())
    except QueryError as error:
        raise refused(error) from None
    except sqlite3.Error as error:
        raise storage_failed(f"The totals can't be read: {error}.") from None
    vary = {"Vary": "Accept"}
    if form == "json":
        return await rows_response(request, rows, vary)
    text = "".join(await sliced(csv_lines(rows, asked)))
    return web.Response(text=text, content_type="text/csv", charset="utf-8", headers=vary)


async def _tags(request: web.Request) -> web.StreamResponse:
    try:
        values = await request.app[_USAGE_INDEX].tag_values()
    except sqlite3.Error as error:
        raise storage_failed(f"The totals can't be read: {error}.") from None
    names = dict(request.app[_GATEWAY].config.usage.tags)
    return await rows_response(request, [{"name": name, "values": values.get(name, [])} for name in names])
