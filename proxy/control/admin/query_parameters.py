"""The parameters of queries to the control plane, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from proxy.config.settings import STRATEGIES
from proxy.config.usage_table import TAG_NAME
from proxy.control.admin.explain import EXPLAINED
from proxy.control.admin.keys import FORMATS
from proxy.control.admin.schemas import Schema
from proxy.control.admin.views import DEFAULT_REQUESTS, MAX_REQUESTS
from proxy.storage.usage_totals import DIMENSIONS, FILTERS, FORECASTS

_VALUES: dict[str, Schema] = {
    "strategy": {"type": "string", "enum": list(STRATEGIES)},
    "endpoint": {"type": "string", "enum": list(EXPLAINED)},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_REQUESTS, "default": DEFAULT_REQUESTS},
    "status": {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 999}, {"const": "error"}]},
    "by": {
        "type": "array",
        "items": {"type": "string", "pattern": f"^{TAG_NAME.pattern}$"},
        "uniqueItems": True,
    },
    **{name: {"type": "string", "minLength": 1} for name in FILTERS},
    "tag": {"type": "string", "pattern": "^[^=,]+=[^,]+"},
    "forecast": {"type": "string", "enum": list(FORECASTS)},
    "reprice": {"type": "boolean"},
    "since": {"type": "string", "pattern": "^([0-9]{4}-[0-9]{2}-[0-9]{2}|[1-9][0-9]{0,4}d)$"},
    "format": {"type": "string", "enum": list(FORMATS)},
}
_VALUES["until"] = _VALUES["since"]
_MEANINGS = {
    "strategy": "Before the one in the header, and this before the one in the body.",
    "endpoint": "Of explain: before the one in the body; without either it is chat. Of usage: only its "
    "requests.",
    "limit": "The maximum number of rows.",
    "key": "Only requests with the key of this name or id.",
    "model": "Only requests that went to this id; of the latest requests, also those that named it.",
    "group": "Only requests with a key of this group.",
    "alias": "Only requests that named this alias.",
    "provider": "Only requests that went to this provider.",
    "tag": "Only requests with these tags, such as team=search or team=search,feature=rag.",
    "forecast": "What was used in this month or day so far, UTC, and what it will be at its end.",
    "reprice": "Count at the prices of now what the ledger still has lines of. This reads all of them.",
    "status": "Only requests with this status; `error`: 400 and above.",
    "by": f"The dimensions of a row, of {', '.join(DIMENSIONS)} and the names of tags; without any there is "
    "one row of everything.",
    "since": "The first day, UTC, as YYYY-MM-DD, or as a number of days that end today: 7d.",
    "until": "The last day, in the same way.",
    "format": "Before the header Accept.",
}
_EXAMPLES: dict[str, Any] = {
    "strategy": "cost", "endpoint": "chat", "limit": 20, "key": "prod", "model": "openai/gpt-4o",
    "group": "search", "alias": "premium", "provider": "openai", "tag": "team=search", "forecast": "month",
    "reprice": True, "status": "error", "by": ["model", "day"], "since": "7d", "until": "2026-11-25",
    "format": "csv",
}  # fmt: skip


def query_parameter(name: str) -> Schema:
    """A parameter, as the document has it."""
    parameter: Schema = {
        "name": name,
        "in": "query",
        "description": _MEANINGS[name],
        "schema": _VALUES[name],
        "example": _EXAMPLES[name],
        "allowEmptyValue": True,  # counts as not given
    }
    if name == "by":
        parameter |= {"style": "form", "explode": False}
    return parameter
