"""The shapes of what the control plane says of keys, usage, finished requests, and of this moment."""

from __future__ import annotations

from typing import Any

from proxy.access.key import (
    FIELDS,
    GROUP_NAME,
    ID_FORM,
    MAX_MODELS,
    MAX_NAME_CHARS,
    MAX_OVERLAP_S,
    MAX_UNIX_S,
    MODEL_NAME,
    ON_DISCONNECT,
    OVERLAP,
)
from proxy.config.usage_table import MAX_TAG_VALUE_CHARS, MAX_TAGS, TAG_NAME
from proxy.control.admin.explain import EXPLAINED
from proxy.control.admin.limit_schemas import BELOW_LIMITS, LIMIT_SCHEMAS, SOFT, SOFT_SETTING, USED
from proxy.control.admin.schemas import SCHEMAS as ROUTES
from proxy.control.admin.schemas import Schema, either, list_of, nullable, object_of, plain, ref
from proxy.control.live_feed import KEPT
from proxy.usage.calendar import DAY_S

# ---------------------------------------------------------------------- keys

_WHO: dict[str, Schema] = {
    "id": plain("string", "What the key is called in paths and in the ledger."),
    "name": plain("string", "Whose key it is."),
}
_UNIX_S = {"minimum": 0, "maximum": MAX_UNIX_S}
_ROW: dict[str, Schema] = {
    **_WHO,
    "created": plain("integer", "When it was made, in Unix seconds."),
    "expires": nullable("integer", "When it ends, in Unix seconds.", **_UNIX_S),
    "revoked": nullable("integer", "When it was revoked, in Unix seconds."),
    "models": nullable(
        "array", "Ids, aliases and globs that it may use; null: all models.", items={"type": "string"}
    ),
    "group": nullable("string", "The group whose limits hold for it too; null: it is in none."),
    "limits": object_of("Its own limits.", LIMIT_SCHEMAS),
    "soft": SOFT,
    "on_disconnect": nullable(
        "string",
        "What becomes of a request whose client has left; null: as the alias says.",
        enum=list(ON_DISCONNECT),
    ),
    "tags": plain("object", "What its usage is told apart by.", additionalProperties={"type": "string"}),
    "rotated": nullable("integer", "When its secret was last replaced, in Unix seconds; null: never."),
    "old_secret_until": nullable(
        "integer", "When the secret before that ends or ended, in Unix seconds; null: there was none."
    ),
    **USED,
}
EXAMPLE: dict[str, Any] = {
    "id": "key_9f86d081884c7d65",
    "name": "prod",
    "created": 1795624310,
    "expires": 1830297600,
    "revoked": None,
    "last_used": 1795624377.412,
    "models": ["openai/*", "premium"],
    "group": "search",
    "limits": {
        "rpm": 600,
        "tpm": None,
        "concurrency": 20,
        "daily_usd": 25.0,
        "daily_tokens": None,
        "monthly_usd": 250.0,
        "monthly_tokens": None,
        "max_tokens": 4096,
    },
    "soft": False,
    "on_disconnect": None,
    "tags": {"team": "search"},
    "rotated": None,
    "old_secret_until": None,
    "day": {"tokens": 52317, "usd": 0.14},
    "month": {"tokens": 1204311, "usd": 3.42},
}
_SETTINGS: dict[str, Schema] = {
    "name": plain(
        "string",
        "Whose key it is; nothing that looks like an id.",
        minLength=1,
        maxLength=MAX_NAME_CHARS,
        pattern=r"\S",
    )
    | {"not": {"pattern": rf"^\s*{ID_FORM.pattern}\s*$"}},
    **LIMIT_SCHEMAS,
    "soft": SOFT_SETTING,
    "group": nullable(
        "string",
        "The group whose limits hold for it too; null: none.",
        pattern=rf"^\s*{GROUP_NAME.pattern}\s*$",
    ),
    "models": {
        "type": ["array", "string", "null"],
        "description": "Ids, aliases and globs such as openai/* that it may use, also as text with commas; "
        "null: all models.",
        "items": {"type": "string", "pattern": f"^{MODEL_NAME.pattern}$"},
        "minItems": 1,
        "maxItems": MAX_MODELS,
        "minLength": 1,
    },
    "expires": {
        "type": ["string", "number", "null"],
        "description": "When it ends: a date or time of ISO 8601, UTC where it says nothing else; a span "
        "from now such as 90d or 12h; or Unix seconds. Not in the past. Null: never.",
        **_UNIX_S,
    },
    "on_disconnect": _ROW["on_disconnect"],
    "tags": {
        "type": ["object", "string", "null"],
        "description": "Its tags, also as text such as team=search,feature=rag; null: none. Names are those "
        "that [usage] tags lists.",
        "maxProperties": MAX_TAGS,
        "propertyNames": {"pattern": f"^{TAG_NAME.pattern}$"},
        "additionalProperties": {
            "type": "string",
            "pattern": r"^[^\s,]([^,]*[^\s,])?$",
            "maxLength": MAX_TAG_VALUE_CHARS,
        },
        "pattern": "^[^=,]+=[^,]+",
    },
    "limits": BELOW_LIMITS,
}
assert _SETTINGS.keys() == {*FIELDS, "limits"}
_KEY_SETTINGS = object_of(
    "What a new key is set to.",
    _SETTINGS,
    optional=[name for name in _SETTINGS if name != "name"],
    examples=[{"name": "prod", "rpm": 600, "monthly_usd": 250, "models": ["openai/*"], "expires": "90d"}],
)
_KEY_CHANGES = object_of(
    "What is to be changed of a key; what is not named stays, null lifts a limit.",
    _SETTINGS,
    optional=_SETTINGS,
    examples=[{"rpm": 1200, "monthly_usd": None}],
)
_ROTATION = object_of(
    "How a secret is replaced.",
    {
        "overlap": {
            "type": ["string", "integer", "null"],
            "description": f"How long the former secret works on: a span such as 30m, 24h or 7d, up to "
            f"{MAX_OVERLAP_S // DAY_S}d; 0: not at all; null: {OVERLAP}.",
            "pattern": "^([0-9]{1,7}[smhd]|0)$",
            "minimum": 0,
            "maximum": 0,
        }
    },
    optional=["overlap"],
    examples=[{"overlap": "24h"}],
)
_WITH_SECRET = {
    **_ROW,
    "key": plain("string", "The key, for clients to send.", pattern="^th-[A-Za-z0-9_-]{43}$"),
}
_ROTATED_KEY = object_of(
    "A key whose secret is new. Its clear text is in this answer and in no other.",
    _WITH_SECRET,
    examples=[EXAMPLE | {"key": "th-" + "x" * 43}],
)
_NEW_KEY = object_of(
    "A new key. Its clear text is in this answer and in no other.",
    {
        **_WITH_SECRET,
        "closes_gateway": plain(
            "boolean",
            "It is the first key of a gateway that served requests without one until now: it ends that.",
        ),
    },
    examples=[EXAMPLE | {"key": "th-" + "x" * 43, "closes_gateway": False}],
)

# ---------------------------------------------------------------------- this moment

_PERCENTILES = object_of(
    "Read from histograms, over the last minute.",
    {
        name: plain("number", f"The {number}th percentile.")
        for name, number in (("p50", 50), ("p95", 95), ("p99", 99))
    },
)


_SAMPLE_ROUTE = object_of(
    "A live row, in brief.",
    {
        "id": plain("string", "The model's id, with its provider."),
        "endpoint": nullable("string", "The row's endpoint; null: it was never asked.", enum=list(EXPLAINED)),
        "stream": nullable("boolean", "The row is that of streamed answers."),
        "state": ROUTES["Route"]["properties"]["state"],
        "usable": plain("boolean", "Requests go to it now."),
        "in_flight": plain("integer", "Attempts under way."),
        "awaiting": plain("integer", "Of them, those without a first byte."),
        "ttft_ms": nullable("number", "The usual time to the first output, in milliseconds."),
        "ms_per_output_token": nullable(
            "number", "The usual pace of an answer, in milliseconds for each token."
        ),
        "success": nullable("number", "The share of attempts that succeed."),
        "usd_per_request": nullable("number", "What a request is charged, in USD."),
    },
)
_SAMPLE_EXAMPLE: dict[str, Any] = {
    "time": 1795624377.412,
    "requests_per_s": 12.0,
    "errors_per_s": 0.0,
    "input_tokens_per_s": 4812.0,
    "output_tokens_per_s": 2570.0,
    "usd_today": 3.72,
    "ttft_ms": {"p50": 412.0, "p95": 1210.0, "p99": 1830.0},
    "overhead_us": {"p50": 180.0, "p95": 310.0, "p99": 520.0},
    "in_flight": 3,
    "connections": 10,
    "workers": 1,
    "event_loop_lag_ms": 0.1,
    "ready": True,
    "simulated": False,
    "routes": [
        {
            "id": "openai/gpt-4o",
            "endpoint": "chat",
            "stream": True,
            "state": "ok",
            "usable": True,
            "in_flight": 3,
            "awaiting": 1,
            "ttft_ms": 412.0,
            "ms_per_output_token": 12.1,
            "success": 0.99,
            "usd_per_request": 0.0031,
        }
    ],
}
_SAMPLE = object_of(
    "What happened in a second.",
    {
        "time": plain("number", "When it ended, in Unix seconds."),
        "requests_per_s": plain("number", "Requests that were finished."),
        "errors_per_s": plain("number", "Of them, those with a status of 400 or more."),
        "input_tokens_per_s": plain("number", "Tokens of their prompts."),
        "output_tokens_per_s": plain("number", "Tokens of their answers."),
        "usd_today": plain("number", "What this day has cost, UTC, in USD."),
        "ttft_ms": either(
            "Until the first byte of an answer, in milliseconds; null: nothing was finished.", "Percentiles"
        ),
        "overhead_us": either(
            "What the gateway itself took, in microseconds; null: nothing was finished.", "Percentiles"
        ),
        "in_flight": plain("integer", "Requests sent and not finished."),
        "connections": plain("integer", "Connections of clients."),
        "workers": plain("integer", "Processes that serve."),
        "event_loop_lag_ms": nullable("number", "The largest lag of an event loop, in milliseconds."),
        "ready": plain("boolean", "As /readyz says."),
        "simulated": plain("boolean", "The simulator answers."),
        "routes": {"type": "array", "items": ref("SampleRoute"), "description": "The live rows."},
    },
    examples=[_SAMPLE_EXAMPLE],
)
_HISTORY = object_of(
    "The last minutes.",
    {
        "samples": {
            "type": "array",
            "items": ref("Sample"),
            "maxItems": KEPT,
            "description": "The oldest first. Not all of them have the rows.",
        }
    },
    examples=[{"samples": [_SAMPLE_EXAMPLE | {"routes": []}]}],
)

SCHEMAS: dict[str, Schema] = {
    "Key": object_of("A key of the gateway.", _ROW, examples=[EXAMPLE]),
    "Keys": list_of("Key", "All keys, revoked ones included."),
    "NewKey": _NEW_KEY,
    "RotatedKey": _ROTATED_KEY,
    "KeySettings": _KEY_SETTINGS,
    "KeyChanges": _KEY_CHANGES,
    "KeyRotation": _ROTATION,
    "Percentiles": _PERCENTILES,
    "SampleRoute": _SAMPLE_ROUTE,
    "Sample": _SAMPLE,
    "History": _HISTORY,
}
