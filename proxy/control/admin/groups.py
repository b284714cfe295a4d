"""Groups of keys in the admin API."""

from __future__ import annotations

from aiohttp import web

from proxy.control.admin.inputs import read_object
from proxy.control.admin.store_errors import refusals
from proxy.control.group_store import GroupStore
from proxy.control.http import json_response, rows_response
from proxy.control.key_store import KeyStore

_GROUP = "/admin/v1/groups/{name}"

_GROUPS = web.AppKey("groups", GroupStore)


def add_groups(app: web.Application, keys: KeyStore) -> None:
    """Add the routes to the application of the admin listener."""
    app[_GROUPS] = GroupStore(keys)
    app.router.add_get("/admin/v1/groups", _list)
    app.router.add_post("/admin/v1/groups", _create)
    app.router.add_get(_GROUP, _show)
    app.router.add_patch(_GROUP, _edit)
    app.router.add_delete(_GROUP, _delete)


async def _list(request: web.Request) -> web.StreamResponse:
    return await rows_response(request, request.app[_GROUPS].rows())


async def _show(request: web.Request) -> web.Response:
    groups = request.app[_GROUPS]
    with refusals("invalid_group"):
        return json_response(groups.row(groups.find(request.match_info["name"])))


async def _create(request: web.Request) -> web.Response:
    groups = request.app[_GROUPS]
    given = await read_object(request, "invalid_group")
    with refusals("invalid_group"):
        group = await groups.create(given)
    answer = json_response(groups.row(group), status=201)
    answer.headers["Location"] = f"/admin/v1/groups/{group.name}"
    return answer


async def _edit(request: web.Request) -> web.Response:
    groups = request.app[_GROUPS]
    given = await read_object(request, "invalid_group")
    with refusals("invalid_group"):
        return json_response(groups.row(await groups.edit(request.match_info["name"], given)))


async def _delete(request: web.Request) -> web.Response:
    with refusals("invalid_group"):
        return json_response(await request.app[_GROUPS].delete(request.match_info["name"]))
