"""The shapes of what the control plane answers and takes, as JSON Schema (2020-12, which OpenAPI 3.1 uses).

What is answered has all its members and no others, so that a response with a member that is not described
here fails the tests. Limits, names and choices come from where they are enforced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy.access.key import ON_DISCONNECT
from proxy.config.forwarding import NOT_LISTED
from proxy.config.settings import STRATEGIES
from proxy.control.admin.explain import EXPLAINED
from proxy.control.admin.forwarding import KINDS
from proxy.deployments.breaker import STATES
from proxy.routing.strategy import BY_NAME

Schema = dict[str, Any]

_DURATION = r"^[0-9]{1,15}(\.[0-9]{1,9})? ?(ms|s|m|h)$"
_MAX_SHARE = 1_000_000
_ERROR_TYPES = (
    *("invalid_request_error", "authentication_error", "permission_error", "not_found_error"),
    *("provider_error", "api_error"),
)


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def plain(kind: str, about: str, **more: Any) -> Schema:
    """A value of one of JSON's types."""
    return {"type": kind, "description": about, **more}


def nullable(kind: str, about: str, **more: Any) -> Schema:
    """The schema of a simple type, or null."""
    if "enum" in more:
        more["enum"] = [*more["enum"], None]
    return {"type": [kind, "null"], "description": about, **more}


def object_of(about: str, members: dict[str, Schema], optional: Iterable[str] = (), **more: Any) -> Schema:
    """An object with these members and no others."""
    left = set(optional)
    required = [name for name in members if name not in left]
    return {
        "type": "object",
        "description": about,
        "properties": members,
        "required": required,
        "additionalProperties": False,
        **more,
    }


def list_of(name: str, about: str) -> Schema:
    return object_of(about, {"data": {"type": "array", "items": ref(name)}})


def either(about: str, name: str) -> Schema:
    """The component of a name, or null."""
    return {"description": about, "anyOf": [ref(name), {"type": "null"}]}


# ---------------------------------------------------------------------- errors

_ERROR = object_of(
    "What every error looks like.",
    {
        "error": object_of(
            "What is wrong.",
            {
                "message": plain("string", "What is wrong, and the way out, in words."),
                "type": plain("string", "The kind of error.", enum=list(_ERROR_TYPES)),
                "code": nullable("string", "The error itself, for programs."),
                "param": nullable("string", "The parameter or header at fault."),
            },
        )
    },
    examples=[
        {
            "error": {
                "message": "There is no alias 'premuim'.",
                "type": "not_found_error",
                "code": "alias_not_found",
                "param": None,
            }
        }
    ],
)

# ---------------------------------------------------------------------- routes

_LIVE_ROW = object_of(
    "What is known of a deployment's answers at one endpoint, streamed or not. Averages weigh what was seen "
    "lately; null: nothing was seen yet.",
    {
        "first_byte_s": nullable("number", "The usual time to the first output, in seconds."),
        "first_byte_samples": plain(
            "number", "What this average rests on; old samples count for less than one."
        ),
        "output_tokens_per_s": nullable("number", "The pace of an answer after its first byte."),
        "output_tokens": nullable("number", "The usual length of an answer, in tokens."),
        "tokens_per_byte": nullable("number", "Tokens of a prompt for each byte of it."),
        "cached_share": nullable("number", "The share of prompt tokens that the provider had cached."),
        "usd_per_request": nullable("number", "What a request is charged, in USD."),
        "success": plain("number", "The share of attempts that succeed.", minimum=0, maximum=1),
        "finished": plain("integer", "Attempts that have ended."),
        "in_flight": plain("integer", "Attempts under way."),
        "awaiting": plain("integer", "Of them, those without a first byte."),
        "oldest_waiting_s": nullable("number", "How long the oldest of these has waited, in seconds."),
        "age_s": nullable("number", "Seconds since the row was last used."),
        "last_error": nullable("string", "The latest failure."),
        "last_error_age_s": nullable("number", "Seconds since then."),
    },
)
_ROUTE = object_of(
    "A model at a provider, with one of its live rows.",
    {
        "id": plain("string", "The model's id, with its provider."),
        "provider": plain("string", "The provider."),
        "model": plain("string", "The id without the provider: the short name."),
        "usable": plain("boolean", "The provider has credentials."),
        "state": plain("string", "Whether it is asked now.", enum=sorted({*STATES, "no credentials"})),
        "reason": nullable("string", "Why it is not, or others go first."),
        "ejected_until": nullable("number", "When it may be asked again, in Unix seconds."),
        "endpoint": nullable("string", "The row's endpoint; null: it was never asked.", enum=list(EXPLAINED)),
        "stream": nullable("boolean", "The row is that of streamed answers."),
        "row": either("The row; null: it was never asked.", "LiveRow"),
    },
    examples=[
        {
            "id": "openai/gpt-4o",
            "provider": "openai",
            "model": "gpt-4o",
            "usable": True,
            "state": "ejected",
            "reason": "timeout: no first byte in 60 s",
            "ejected_until": 1795624310.25,
            "endpoint": "chat",
            "stream": True,
            "row": {
                "first_byte_s": 0.412,
                "first_byte_samples": 18.4,
                "output_tokens_per_s": 82.5,
                "output_tokens": 214.0,
                "tokens_per_byte": 0.24,
                "cached_share": 0.1,
                "usd_per_request": 0.0031,
                "success": 0.93,
                "finished": 1204,
                "in_flight": 3,
                "awaiting": 1,
                "oldest_waiting_s": 0.2,
                "age_s": 0.05,
                "last_error": "timeout: no first byte in 60 s",
                "last_error_age_s": 4.1,
            },
        }
    ],
)

# ---------------------------------------------------------------------- aliases

_UNITS = sorted(row.unit for row in BY_NAME.values() if row.unit)
_strategy = nullable("string", "How a member is picked; null: as [routing] says.", enum=list(STRATEGIES))
_split = nullable(
    "object",
    "Shares of the requests by model.",
    additionalProperties={"type": "integer", "minimum": 1, "maximum": _MAX_SHARE},
)
_sticky = nullable(
    "string", '"key" or "header:NAME": keeps a caller on one side of the split.', pattern="^(key|header:.+)$"
)
_peek = nullable("boolean", "A stream is held until it shows output; null: as [routing] says.")
_fail_on = nullable(
    "array",
    "Statuses, classes and error codes that are failures; null: as [routing] says.",
    items={"type": ["integer", "string"], "minimum": 300, "maximum": 599, "pattern": r"^[\w.-]{1,100}$"},
)
_hedge = nullable(
    "string",
    '"auto", "off", "p95" or a duration: when a second member is asked while the first is silent.',
    pattern=f"^(auto|off|p95)$|{_DURATION}",
)
_max_first_token = nullable(
    "string", "With cost: members slower than this to begin are left aside.", pattern=_DURATION
)
_keepalive = nullable(
    "string", "How long a stream is silent before a comment is sent into it.", pattern=_DURATION
)
_on_disconnect = nullable(
    "string", "What becomes of a request whose client has left.", enum=list(ON_DISCONNECT)
)
_model_names = {"type": "string", "minLength": 1}
# What an alias may set beside its members.
_OPTIONS = {
    "fallback": nullable("array", "Names that are tried after its members, in order.", items=_model_names),
    "strategy": _strategy,
    "split": _split,
    "sticky": _sticky,
    "peek": _peek,
    "fail_on": _fail_on,
    "hedge": _hedge,
    "max_first_token": _max_first_token,
    "keepalive": _keepalive,
    "on_disconnect": _on_disconnect,
    "deadline": nullable("string", "How long all attempts of a request may take.", pattern=_DURATION),
    **{
        name: nullable("string", f"As [timeouts] {name}.", pattern=_DURATION)
        for name in ("connect", "first_byte", "idle", "total")
    },
    "first_token": nullable("string", "As [timeouts] first_token.", pattern=f"^p99$|{_DURATION}"),
}

_ALIAS = object_of(
    "A name for several models. What is not set is null; the row can be sent back as it is.",
    {
        "name": plain("string", "The alias."),
        "models": plain("array", "Its members: ids, short names or aliases.", items=_model_names),
        **_OPTIONS,
    },
    examples=[
        {
            **dict.fromkeys(_OPTIONS),
            "name": "premium",
            "models": ["openai/gpt-4o", "anthropic/claude-3-5-sonnet"],
            "fallback": ["economy"],
            "strategy": "latency",
            "hedge": "auto",
            "keepalive": "15s",
        }
    ],
)
_ALIAS_SETTINGS = object_of(
    "What an alias is set to, as in routes.toml. It replaces what was set before; null is not set.",
    {
        "name": plain("string", "The alias, if at all the one in the path."),
        "models": {
            "type": ["array", "string", "null"],
            "description": "Its members, in order; or one of them.",
            "items": _model_names,
            "minItems": 1,
            "minLength": 1,
        },
        **_OPTIONS,
    },
    optional=["name", *_ALIAS["properties"]],
    anyOf=[{"required": ["models"]}, {"required": ["split"]}],
    examples=[
        {"models": ["openai/gpt-4o", "anthropic/claude-3-5-sonnet"], "strategy": "cost"},
        {"split": {"openai/gpt-4o": 90, "anthropic/claude-3-5-sonnet": 10}, "sticky": "header:x-user"},
    ],
)
_ALIAS_REMOVED = object_of(
    "An alias that was removed.",
    {"name": plain("string", "The alias."), "removed": {"const": True, "description": "It was removed."}},
    examples=[{"name": "premium", "removed": True}],
)
_CHANGES = object_of(
    "What a reload changed.",
    {
        "changed": plain("array", "In effect now, a line each.", items={"type": "string"}),
        "needs_restart": plain("array", "Settings that wait for a restart.", items={"type": "string"}),
    },
    examples=[{"changed": ["alias premium changed"], "needs_restart": ["server.workers"]}],
)

# ---------------------------------------------------------------------- explain

_EXPLAIN = {
    "type": "object",
    "description": "A request's body as a client would send it, maybe with `strategy` and `endpoint` in it; "
    "or that below `body`, with these two beside it.",
    "properties": {
        "model": nullable("string", "An id, short name, alias or `auto`."),
        "strategy": nullable("string", "As X-Inferoute-Strategy.", enum=list(STRATEGIES)),
        "endpoint": nullable("string", "Where it would be sent; null: chat.", enum=list(EXPLAINED)),
        "body": {"type": "object", "description": "The body, where it is not this object itself."},
        "headers": {
            "description": "Beside `body` only: the request's headers, as `Name: value` each.",
        },
        "query": {"description": "Beside `body` only: its query, as it stands in an address."},
    },
    "additionalProperties": True,
    "examples": [
        {"model": "premium", "messages": [{"role": "user", "content": "Hello"}], "stream": True},
        {"body": {"model": "auto", "messages": []}, "strategy": "cost", "endpoint": "chat"},
        {"body": {"model": "premium"}, "headers": ["X-Team: search"], "query": "beta=true"},
    ],
}
_CANDIDATE = object_of(
    "A member of the pool.",
    {
        "id": plain("string", "The model's id, with its provider."),
        "provider": plain("string", "The provider."),
        "score": nullable("number", "What the strategy goes by; null: nothing, or nothing is known."),
        "unit": nullable("string", "The unit of the score.", enum=_UNITS),
        "skipped": nullable("string", "Why it can't have the request; null: it can."),
        "row": either("Its live row; null: it was never asked.", "LiveRow"),
    },
)
_FORWARDING = object_of(
    "A header or a parameter of a request, and a provider.",
    {
        "provider": plain("string", "The provider."),
        "kind": plain("string", "What it is.", enum=list(KINDS)),
        "name": plain("string", "Its name, as the request has it; never its value."),
        "passes": plain("boolean", "The provider gets it."),
        "reason": nullable("string", "Why the provider doesn't; null: it does."),
    },
)
_EXPLANATION = object_of(
    "Where a request would go, and why.",
    {
        "model": nullable("string", "The name in the request."),
        "default_model": nullable("string", "What stands for it where it names none; null: nothing does."),
        "kind": plain("string", "What kind of a name it is.", enum=["pinned", "short", "alias", "auto"]),
        "endpoint": plain("string", "The endpoint.", enum=list(EXPLAINED)),
        "stream": plain("boolean", "The answer would be streamed."),
        "strategy": plain("string", "What picks.", enum=[*STRATEGIES, "split", "pinned"]),
        "choice": nullable("string", "The id of the member it would go to; null: none can be asked."),
        "why": plain("string", "Why that one, or none."),
        "candidates": plain("array", "The members of the pool.", items=ref("Candidate")),
        "forwarding": nullable(
            "array",
            "What of the request's head reaches which provider; null: no head was given.",
            items=ref("Forwarding"),
        ),
    },
    examples=[
        {
            "model": "premium",
            "default_model": None,
            "kind": "alias",
            "endpoint": "chat",
            "stream": True,
            "strategy": "cost",
            "choice": "openai/gpt-4o",
            "why": "the lowest expected price",
            "candidates": [
                {
                    "id": "openai/gpt-4o",
                    "provider": "openai",
                    "score": 0.0021,
                    "unit": "USD",
                    "skipped": None,
                    "row": None,
                },
                {
                    "id": "anthropic/claude-3-5-sonnet",
                    "provider": "anthropic",
                    "score": None,
                    "unit": "USD",
                    "skipped": "provider anthropic has no key: set ANTHROPIC_API_KEY; it is left out",
                    "row": None,
                },
            ],
            "forwarding": [
                {
                    "provider": "openai",
                    "kind": "header",
                    "name": "X-Team",
                    "passes": False,
                    "reason": NOT_LISTED,
                },
            ],
        }
    ],
)

SCHEMAS: dict[str, Schema] = {
    "Error": _ERROR,
    "Health": object_of(
        "The process lives.",
        {"status": {"const": "ok", "description": "It does."}},
        examples=[{"status": "ok"}],
    ),
    "Nothing": object_of("Nothing can be set.", {}, examples=[{}]),
    "LiveRow": _LIVE_ROW,
    "Route": _ROUTE,
    "Routes": list_of(
        "Route", "A row for each endpoint that a deployment was asked at, and for each that was not."
    ),
    "Alias": _ALIAS,
    "Aliases": list_of("Alias", "All aliases, as in routes.toml."),
    "AliasSettings": _ALIAS_SETTINGS,
    "AliasRemoved": _ALIAS_REMOVED,
    "Changes": _CHANGES,
    "ExplainRequest": _EXPLAIN,
    "Candidate": _CANDIDATE,
    "Forwarding": _FORWARDING,
    "Explanation": _EXPLANATION,
}
