"""The shapes of what the admin API says of groups of keys."""

from __future__ import annotations

from typing import Any

from proxy.access.group import FIELDS
from proxy.access.key import GROUP_NAME
from proxy.control.admin.key_schemas import EXAMPLE
from proxy.control.admin.limit_schemas import BELOW_LIMITS, LIMIT_SCHEMAS, SOFT, SOFT_SETTING, USED
from proxy.control.admin.schemas import Schema, list_of, object_of, plain

_GROUP_NAME: Schema = plain(
    "string", "What the group is called everywhere; it stays.", pattern=f"^{GROUP_NAME.pattern}$"
) | {"not": {"pattern": "^[Nn][Oo][Nn][Ee]$"}}
_GROUP_ROW: dict[str, Schema] = {
    "name": _GROUP_NAME,
    "created": plain("integer", "When it was made, in Unix seconds."),
    "limits": object_of("The limits that its keys share; max_tokens holds for each request.", LIMIT_SCHEMAS),
    "soft": SOFT,
    "keys": plain("integer", "Keys in it that are not revoked."),
    **USED,
}
_GROUP_EXAMPLE: dict[str, Any] = {
    "name": "search",
    "created": 1795624310,
    "limits": EXAMPLE["limits"],
    "soft": False,
    "keys": 3,
    "last_used": 1795624377.412,
    "day": EXAMPLE["day"],
    "month": EXAMPLE["month"],
}
_GROUP_CHANGES_OF: dict[str, Schema] = {**LIMIT_SCHEMAS, "soft": SOFT_SETTING, "limits": BELOW_LIMITS}
_GROUP_SETTINGS = object_of(
    "What a new group is set to.",
    {"name": _GROUP_NAME, **_GROUP_CHANGES_OF},
    optional=_GROUP_CHANGES_OF,
    examples=[{"name": "search", "rpm": 3000, "monthly_usd": 500}],
)
_GROUP_CHANGES = object_of(
    "What is to be changed of a group; what is not named stays, null lifts a limit.",
    _GROUP_CHANGES_OF,
    optional=_GROUP_CHANGES_OF,
    examples=[{"rpm": 6000, "daily_usd": 50}],
)
assert {"name", *_GROUP_CHANGES_OF} == {*FIELDS, "limits"}

SCHEMAS: dict[str, Schema] = {
    "Group": object_of("A group of keys.", _GROUP_ROW, examples=[_GROUP_EXAMPLE]),
    "Groups": list_of("Group", "All groups."),
    "GroupSettings": _GROUP_SETTINGS,
    "GroupChanges": _GROUP_CHANGES,
}
