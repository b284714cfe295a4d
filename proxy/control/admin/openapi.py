"""The OpenAPI document of the control plane, as it is served at ``/admin/v1/openapi.json``.

3.1, since there a schema is JSON Schema as it is: null is a type, and what answers must not hold can be said.
The tests hold it to what is served: every route is here and nothing else, and what a generator of requests
gets for a response is as it says.
"""

from __future__ import annotations

import orjson

from proxy import __version__
from proxy.access.key import GROUP_NAME
from proxy.config.settings import STRATEGIES
from proxy.config.values import MAX_NAME_CHARS
from proxy.control.admin import group_schemas, key_schemas, schemas, usage_schemas
from proxy.control.admin.inputs import QUERIES
from proxy.control.admin.monitoring import MAX_WATCHERS
from proxy.control.admin.operations import JSON as _JSON
from proxy.control.admin.operations import answer as _answer
from proxy.control.admin.operations import header as _header
from proxy.control.admin.operations import json_of as _json
from proxy.control.admin.operations import link as _link
from proxy.control.admin.operations import operation as _operation
from proxy.control.admin.operations import read as _read
from proxy.control.admin.query_parameters import query_parameter
from proxy.control.admin.schemas import Schema, ref

PATH = "/admin/v1/openapi.json"

_OPENAPI = "3.1.0"
_ABOUT = """The API of the admin listener of a TokenHub gateway.

Responses are JSON, errors in one envelope, lists below `data`. A request that writes needs the header
`Content-Type: application/json`. Requests from a foreign page, or to a foreign host name, are refused (403).
An unknown path is a 404, a method that a path doesn't have a 405 with `Allow`. Dates are Unix seconds, money
is USD, months and days are those of UTC. In paths, all characters of a name but letters and digits are
percent-encoded, `/` as `%2F`."""
_TAGS = {
    "routing": "Deployments, aliases and the configuration.",
    "keys": "The gateway's own keys, and their groups.",
    "usage": "Usage by key, group, tag, alias, endpoint, provider, model and day.",
    "operation": "The process itself.",
}
_ERRORS = {
    "400": "The request can't be read: its query, or its body.",
    "401": "The token is missing or wrong.",
    "403": "The request is to a foreign host name, or from a foreign page.",
    "404": "Nothing has this name.",
    "409": "The file of the configuration can't be replaced, was changed by another program, or does not "
    "exist; or another key in use has the name, or another group; or a group has keys.",
    "413": "The body is too large.",
    "414": "The path is too long to name anything.",
    "415": "The body is not declared as JSON, or is compressed.",
    "422": "The request can be read but not done; the message names every mistake.",
    "500": "An internal error; the log has more.",
    "503": "The storage fails, and nothing was changed but as the message says.",
}
_WRITES = ("413", "415", "422")
_NAMED = ("404", "414")


# ---------------------------------------------------------------------- parameters

_ALIAS_NAME: Schema = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The alias.",
    # As proxy.config.values.name has it: printable ASCII but for spaces and commas.
    "schema": {"type": "string", "pattern": r"^[!-+\--~]+$", "minLength": 1, "maxLength": MAX_NAME_CHARS},
    "example": "premium",
}
_KEY_ID: Schema = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The key's id; or its name, where one in use has it alone.",
    "schema": {"type": "string", "minLength": 1},
    "example": "key_9f86d081884c7d65",
}
# What can be done with one that was made.
_KEY_OPERATIONS = ("showKey", "editKey", "rotateKey", "revokeKey")
_GROUP_NAME: Schema = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The group.",
    "schema": {"type": "string", "pattern": f"^{GROUP_NAME.pattern}$"},
    "example": "search",
}
_STRATEGY_HEADER: Schema = {
    "name": "X-Inferoute-Strategy",
    "in": "header",
    "description": "As in a request to the data plane.",
    "schema": {"type": "string", "enum": list(STRATEGIES)},
    "example": "cost",
}


# ---------------------------------------------------------------------- operations


def _aliases() -> dict[str, Schema]:
    alias = _answer("The alias as it is now.", _json("Alias"))
    return {
        "/admin/v1/aliases": {"get": _read("listAliases", "routing", "All aliases.", "Aliases")},
        "/admin/v1/aliases/{name}": {
            "parameters": [_ALIAS_NAME],
            "get": _read("showAlias", "routing", "One alias.", "Alias", errors=_NAMED),
            "put": _operation(
                "setAlias", "routing", "Set an alias, in routes.toml and for the next request.",
                {"200": alias, "201": alias | {"description": "The alias, which is new."}},
                [*_WRITES, *_NAMED, "409"], "AliasSettings",
            ),
            "delete": _operation(
                "removeAlias", "routing", "Remove an alias, in routes.toml and for the next request.",
                {"200": _answer("It is removed.", _json("AliasRemoved"))}, [*_NAMED, "409", "415", "422"],
            ),
        },
    }  # fmt: skip


def _routing() -> dict[str, Schema]:
    explain = [query_parameter(name) for name in QUERIES["/admin/v1/explain"]]
    return {
        "/admin/v1/routes": {
            "get": _read("listRoutes", "routing", "Every deployment with its live rows.", "Routes")
        },
        **_aliases(),
        "/admin/v1/explain": {
            "post": _operation(
                "explain", "routing", "Where a request would go, and why. Sends nothing.",
                {"200": _answer("The choice.", _json("Explanation"))}, ["404", "413", "415"],
                "ExplainRequest", [*explain, _STRATEGY_HEADER],
            )
        },
        "/admin/v1/reload": {
            "post": _operation(
                "reload", "routing", "Read routes.toml and the providers' keys anew, as SIGHUP does.",
                {"200": _answer("What changed.", _json("Changes"))}, [*_WRITES, "409"], "Nothing",
            )
        },
    }  # fmt: skip


def _keys() -> dict[str, Schema]:
    key = {"200": _answer("The key as it is now.", _json("Key"))}
    links = {name: _link(name, "id", "$response.body#/id") for name in _KEY_OPERATIONS}
    headers = {"Location": _header("Where the key is to be found.")}
    made = _answer("The new key.", _json("NewKey"), headers=headers, links=links)
    return {
        "/admin/v1/keys": {
            "get": _read("listKeys", "keys", "All keys.", "Keys"),
            "post": _operation(
                "createKey", "keys", "Make a key, which holds for the next request.", {"201": made},
                [*_WRITES, "409", "503"], "KeySettings",
            ),
        },
        "/admin/v1/keys/{id}": {
            "parameters": [_KEY_ID],
            "get": _read("showKey", "keys", "One key.", "Key", errors=_NAMED),
            "patch": _operation(
                "editKey", "keys", "Change a key, which holds for the next request.", key,
                [*_WRITES, *_NAMED, "409", "503"], "KeyChanges",
            ),
            "delete": _operation(
                "revokeKey", "keys", "Revoke a key, which holds for the next request. It stays in the list.",
                key, [*_NAMED, "415", "503"],
            ),
        },
        "/admin/v1/keys/{id}/rotate": {
            "parameters": [_KEY_ID],
            "post": _operation(
                "rotateKey", "keys",
                "Replace a key's secret, for the next request; the former one works on for a while.",
                {"200": _answer("The key with its new secret.", _json("RotatedKey"))},
                [*_WRITES, *_NAMED, "503"], "KeyRotation",
            ),
        },
    }  # fmt: skip


def _groups() -> dict[str, Schema]:
    group = {"200": _answer("The group as it is now.", _json("Group"))}
    links = {
        f"{verb}Group": _link(f"{verb}Group", "name", "$response.body#/name") for verb in ("show", "edit")
    }
    headers = {"Location": _header("Where the group is to be found.")}
    made = _answer("The new group.", _json("Group"), headers=headers, links=links)
    return {
        "/admin/v1/groups": {
            "get": _read("listGroups", "keys", "All groups of keys.", "Groups"),
            "post": _operation(
                "createGroup", "keys", "Make a group.", {"201": made}, [*_WRITES, "409", "503"],
                "GroupSettings",
            ),
        },
        "/admin/v1/groups/{name}": {
            "parameters": [_GROUP_NAME],
            "get": _read("showGroup", "keys", "One group.", "Group", errors=_NAMED),
            "patch": _operation(
                "editGroup", "keys", "Change a group, which holds for the next request.", group,
                [*_WRITES, *_NAMED, "503"], "GroupChanges",
            ),
            "delete": _operation(
                "deleteGroup", "keys", "Delete a group that has no keys but revoked ones.",
                {"200": _answer("The group as it was.", _json("Group"))}, [*_NAMED, "409", "415", "503"],
            ),
        },
    }  # fmt: skip


def _usage() -> dict[str, Schema]:
    table = {"text/csv": {"schema": {"type": "string", "description": "RFC 4180, with a header line."}}}
    return {
        "/admin/v1/usage": {
            "get": _operation(
                "usage", "usage", "Totals of the ledger, as JSON or as a table.",
                {"200": _answer("The totals.", _json("Totals") | table)}, ["503"],
                parameters=[query_parameter(name) for name in QUERIES["/admin/v1/usage"]],
            )
        },
        "/admin/v1/tags": {
            "get": _read(
                "listTags", "usage", "The tags that requests may carry, and their values.", "Tags",
                errors=["503"],
            )
        },
        "/admin/v1/requests": {
            "get": _read(
                "listRequests", "usage", "The latest finished requests.", "Requests",
                parameters=[query_parameter(name) for name in QUERIES["/admin/v1/requests"]],
            )
        },
    }  # fmt: skip


def _operations() -> dict[str, Schema]:
    events = "Server-sent events with JSON: a History as `history`, then each second a Sample as `sample`."
    metrics = {"text/plain": {"schema": {"type": "string"}}}
    event = {"contentMediaType": _JSON, "contentSchema": {"anyOf": [ref("History"), ref("Sample")]}}
    stream = {"text/event-stream": {"schema": {"type": "string", "description": events} | event}}
    retry = {"Retry-After": _header("Seconds.", "integer")}
    many = _answer(f"{MAX_WATCHERS} others watch already.", _json("Error"), headers=retry)
    parts: Schema = {"openapi": {"const": _OPENAPI}, "info": {"type": "object"}, "paths": {"type": "object"}}
    document = {_JSON: {"schema": {"type": "object", "properties": parts, "required": list(parts)}}}
    return {
        "/admin/v1/live": {
            "get": _operation(
                "live", "operation", "What happens, second by second.",
                {"200": _answer("A stream that doesn't end.", stream), "503": many},
            )
        },
        PATH: {
            "get": _operation("openapi", "operation", "This document.", {"200": _answer("It.", document)})
        },
        "/metrics": {
            "get": _operation(
                "metrics", "operation", "Metrics for Prometheus, of all workers.",
                {"200": _answer("Prometheus' text format.", metrics)},
            )
        },
        "/healthz": {
            "get": _read(
                "healthz", "operation", "Whether the process lives. Needs no token.", "Health", security=[]
            )
        },
    }  # fmt: skip


# ---------------------------------------------------------------------- the document


def _error(status: str) -> Schema:
    headers = {"x-request-id": _header("What the log calls it.")}
    if status == "401":
        headers["WWW-Authenticate"] = _header("Bearer.")
    return _answer(_ERRORS[status], _json("Error"), headers=headers)


def document(*, has_token: bool) -> Schema:
    """The document.

    :param has_token: requests need a bearer token.
    """
    paths = {**_routing(), **_keys(), **_groups(), **_usage(), **_operations()}
    found: Schema = {
        "openapi": _OPENAPI,
        "info": {
            "title": "TokenHub admin API",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The admin listener that this document is from."}],
        "tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas.SCHEMAS | key_schemas.SCHEMAS | group_schemas.SCHEMAS | usage_schemas.SCHEMAS,
            "responses": {f"Error{status}": _error(status) for status in _ERRORS},
        },
    }
    if has_token:
        about = "What the variable holds that [admin] token_env names."
        found["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": about}
        }
        found["security"] = [{"token": []}]
    else:
        _drop_token(found)
    return found


def _drop_token(found: Schema) -> None:
    del found["components"]["responses"]["Error401"]
    for operations in found["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict):
                operation["responses"].pop("401")
                operation.pop("security", None)


def document_bytes(*, has_token: bool) -> bytes:
    """The document as it is served."""
    return orjson.dumps(document(has_token=has_token), option=orjson.OPT_INDENT_2)
