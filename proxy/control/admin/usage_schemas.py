"""The shapes of what the control plane says of usage and of finished requests."""

from __future__ import annotations

from proxy.config.usage_table import TAG_NAME
from proxy.control.admin.explain import EXPLAINED
from proxy.control.admin.schemas import Schema, list_of, nullable, object_of, plain
from proxy.storage.usage_totals import DIMENSIONS, columns

_USED = {
    "key": nullable("string", "The key's name; null: requests without a key."),
    "key_id": nullable("string", "Its id."),
    "model": nullable("string", "The model's id; null: requests that got to none."),
    "provider": nullable("string", "The provider."),
    "day": plain("string", "The day, UTC.", format="date"),
    "group": nullable("string", "The key's group; null: none."),
    "alias": nullable("string", "The alias that requests named; null: none."),
    "endpoint": nullable("string", "The endpoint; null: not known of earlier versions' totals."),
    "requests": plain("integer", "Finished requests that were sent to a provider."),
    "errors": plain("integer", "Of them, those that failed."),
    "input_tokens": plain("integer", "Tokens of prompts."),
    "cached_tokens": plain("integer", "Of them, those that the provider had cached."),
    "cache_write_tokens": plain("integer", "Of them, those that were written into its cache."),
    "output_tokens": plain("integer", "Tokens of answers."),
    "reasoning_tokens": plain("integer", "Of them, those of reasoning."),
    "usd": plain("number", "What they cost, in USD."),
    "saved_usd": plain("number", "What cached tokens would have cost more uncached, in USD."),
    "estimated": plain("integer", "Requests whose tokens are an estimate."),
}
# Where they are asked for.
_ASKED = {
    "charged_usd": plain("number", "What was charged for them; usd is at the prices of now."),
    "forecast_usd": nullable("number", "What it will be at the end of the window; null: too early to say."),
    "forecast_tokens": nullable("integer", "Tokens of prompts and answers at its end; null: as above."),
}
_ALWAYS = columns(())
_USAGE = object_of(
    "Totals. Of the first members there are those that were asked for with `by`.",
    {name: _USED[name] for name in columns(DIMENSIONS)} | _ASKED,
    optional=[*(name for name in columns(DIMENSIONS) if name not in _ALWAYS), *_ASKED],
    # Tags.
    patternProperties={f"^{TAG_NAME.pattern}$": {"type": ["string", "number", "null"]}},
    examples=[
        {
            "model": "openai/gpt-4o",
            "day": "2026-11-25",
            "requests": 1204,
            "errors": 3,
            "input_tokens": 482113,
            "cached_tokens": 51200,
            "cache_write_tokens": 0,
            "output_tokens": 257656,
            "reasoning_tokens": 0,
            "usd": 3.72,
            "saved_usd": 0.064,
            "estimated": 2,
        }
    ],
)
_REQUEST = object_of(
    "A finished request, without its content.",
    {
        "id": plain("string", "What X-Inferoute-Request-Id said."),
        "time": plain("number", "When it was finished, in Unix seconds."),
        "key": nullable("string", "The name of its key."),
        "key_id": nullable("string", "Its id."),
        "group": nullable("string", "The key's group; null: none."),
        "tags": plain("object", "Its tags.", additionalProperties={"type": "string"}),
        "endpoint": plain("string", "Where it was sent to.", enum=list(EXPLAINED)),
        "stream": plain("boolean", "It asked for a stream."),
        "model_requested": nullable("string", "The name in the request."),
        "alias": nullable("string", "This name, where it is an alias."),
        "model": nullable("string", "The id that it went to last; null: to none."),
        "provider": nullable("string", "The provider of this one."),
        "status": plain("integer", "What the client was answered; 499: it had left before."),
        "attempts": plain("integer", "How often it was sent."),
        "failed_attempts": plain("string", "Those that failed, as provider:reason:milliseconds."),
        "ttft_ms": nullable("number", "Until the first byte of the answer, in milliseconds."),
        "total_ms": plain("number", "Until its last byte, in milliseconds."),
        "overhead_us": nullable("integer", "What the gateway itself took before sending, in microseconds."),
        "input_tokens": nullable("integer", "Tokens of the prompt."),
        "cached_tokens": nullable("integer", "Of them, those that the provider had cached."),
        "output_tokens": nullable("integer", "Tokens of the answer."),
        "usd": nullable("number", "What it cost, in USD; null: its price is not known."),
        "usage_source": nullable("string", "Who counted the tokens.", enum=["provider", "estimated"]),
    },
    examples=[
        {
            "id": "req_018f3b2c4d5e6f70",
            "time": 1795624377.412,
            "key": "prod",
            "key_id": "key_9f86d081884c7d65",
            "group": None,
            "tags": {"team": "search"},
            "endpoint": "chat",
            "stream": True,
            "model_requested": "premium",
            "alias": "premium",
            "model": "anthropic/claude-3-5-sonnet",
            "provider": "anthropic",
            "status": 200,
            "attempts": 2,
            "failed_attempts": "openai:503:412ms",
            "ttft_ms": 812.4,
            "total_ms": 4120.5,
            "overhead_us": 183,
            "input_tokens": 412,
            "cached_tokens": 0,
            "output_tokens": 214,
            "usd": 0.0044,
            "usage_source": "provider",
        }
    ],
)

_TAG = object_of(
    "A tag that [usage] tags lists.",
    {
        "name": plain("string", "Its name.", pattern=f"^{TAG_NAME.pattern}$"),
        "values": plain("array", "The values that totals have, in order.", items={"type": "string"}),
    },
    examples=[{"name": "team", "values": ["ads", "search"]}],
)

SCHEMAS: dict[str, Schema] = {
    "Usage": _USAGE,
    "Totals": list_of("Usage", "A row for each combination of the asked dimensions."),
    "Request": _REQUEST,
    "Tag": _TAG,
    "Tags": list_of("Tag", "The tags."),
    "Requests": list_of("Request", "The latest finished requests, the newest first."),
}
