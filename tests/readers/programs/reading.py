"""A reading of a request: what a server would run. Shared by the programs in Python.

``{"how": ..., "model": ..., "limits": {...}, "stream": ..., "evil": [...]}``; a request that a server would
refuse, as it finds no JSON object, gives none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

WORDS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of")
# Part of each value of a header that is not to reach a reader.
EVIL = "evil"


def reading(how: str, found: Any, query: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What a server makes of a parsed body, and of a query that counts for more, as it does in FastAPI."""
    if not isinstance(found, Mapping):
        return None
    said = {**found, **(query or {})}
    limits = {word: number(said[word]) for word in WORDS if said.get(word) is not None}
    model = said.get("model")
    return {
        "how": how, "model": text_of(model), "limits": limits, "stream": bool(said.get("stream")), "evil": [],
    }  # fmt: skip


def first_of_each(found: Any) -> dict[str, Any]:
    """What simdjson finds of an object: the first of several keys, where as a dictionary it has the last."""
    known = set(found.keys())
    return {key: found[key] for key in ("model", "stream", *WORDS) if key in known}


def text_of(model: Any) -> str | None:
    """The model as text that can be sent anywhere."""
    if model is None:
        return None
    text = model if isinstance(model, str) else repr(model)
    return text.encode("utf-8", "backslashreplace").decode()


def number(value: Any) -> float | str:
    """A limit as Python's own words for conversion have it; text where they have no number for it."""
    for convert in (int, float):
        try:
            converted = convert(value)
        except (TypeError, ValueError, OverflowError):
            continue
        return converted if isinstance(converted, int) or math.isfinite(converted) else str(converted)
    return ascii(value)


def evil_in(fields: Iterable[tuple[str, str]]) -> list[str]:
    """Names of the fields that hold what was not to come."""
    return sorted(name for name, value in fields if EVIL in value)
