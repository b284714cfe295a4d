"""The shapes of limits, and of what was used against them, of keys and groups alike."""

from __future__ import annotations

from proxy.access.key import LIMITS, MAX_COUNT, MAX_USD
from proxy.control.admin.schemas import Schema, nullable, object_of, plain

_LIMIT_ABOUT = {
    "rpm": "Requests a minute.",
    "tpm": "Tokens a minute.",
    "concurrency": "Requests at a time.",
    "daily_usd": "USD on a day, UTC, with up to nine decimals.",
    "daily_tokens": "Tokens on a day, UTC.",
    "monthly_usd": "USD in a calendar month, UTC, with up to nine decimals.",
    "monthly_tokens": "Tokens in a calendar month, UTC.",
    "max_tokens": "Tokens that one answer may ask for.",
}


def _limit(name: str) -> Schema:
    about = f"{_LIMIT_ABOUT[name]} Null: no limit."
    if name.endswith("_usd"):
        return nullable("number", about, exclusiveMinimum=0, maximum=MAX_USD)
    return nullable("integer", about, minimum=1, maximum=MAX_COUNT)


LIMIT_SCHEMAS: dict[str, Schema] = {name: _limit(name) for name in LIMITS}
SOFT = plain("boolean", "The limits of a day and a month raise alerts, and refuse no request.")
_TOKENS_USD = {
    "tokens": plain("integer", "Tokens, of prompts and answers."),
    "usd": plain("number", "What they cost, in USD."),
}
USED: dict[str, Schema] = {
    "last_used": nullable("number", "When it was last used, in Unix seconds."),
    "day": object_of("What it has used on this day, UTC.", _TOKENS_USD),
    "month": object_of("What it has used in this calendar month, UTC.", _TOKENS_USD),
}
SOFT_SETTING: Schema = SOFT | {"type": ["boolean", "null"]}
BELOW_LIMITS = object_of("The limits, as rows have them.", LIMIT_SCHEMAS, optional=LIMITS)
