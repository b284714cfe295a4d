"""Groups of keys in the admin API."""

from __future__ import annotations

from aiohttp import web

from proxy.access.key import KeySettingsError
from proxy.control.admin.inputs import read_object
from proxy.control.group_store import GroupStore
from proxy.control.http import json_response, rows_response
from proxy.control.key_store import KeyStore, NotStored
from proxy.errors import BadRequest, GatewayError, NotFound
from proxy.storage.group_table import GroupInUse, GroupTaken, UnknownGroup

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
    try:
        return json_response(groups.row(groups.find(request.match_info["name"])))
    except UnknownGroup as error:
        raise _translated(error) from None


async def _create(request: web.Request) -> web.Response:
    groups = request.app[_GROUPS]
    given = await read_object(request, "invalid_group")
    try:
        group = await groups.create(given)
    except _ERRORS as error:
        raise _translated(error) from None
    answer = json_response(groups.row(group), status=201)
    answer.headers["Location"] = f"/admin/v1/groups/{group.name}"
    return answer


async def _edit(request: web.Request) -> web.Response:
    groups = request.app[_GROUPS]
    given = await read_object(request, "invalid_group")
    try:
        return json_response(groups.row(await groups.edit(request.match_info["name"], given)))
    except _ERRORS as error:
        raise _translated(error) from None


async def _delete(request: web.Request) -> web.Response:
    try:
        return json_response(await request.app[_GROUPS].delete(request.match_info["name"]))
    except _ERRORS as error:
        raise _translated(error) from None


_ERRORS = (UnknownGroup, KeySettingsError, GroupTaken, GroupInUse, NotStored)


def _translated(error: Exception) -> GatewayError:
    text = str(error)
    if isinstance(error, UnknownGroup):
        return NotFound(text, "group_not_found")
    if isinstance(error, KeySettingsError):
        return BadRequest(text, status=422, code="invalid_group")
    if isinstance(error, GroupTaken):
        return BadRequest(text, status=409, code="group_name_taken", param="name")
    if isinstance(error, GroupInUse):
        return BadRequest(text, status=409, code="group_in_use", param="name")
    return GatewayError(text, status=503, code="storage_failed")
