"""The APIs that answer with numbers: embeddings, moderations and rerank; and the list of models.

Pure functions from a parsed request to a :class:`~proxy.simulator.turns.SimulatedResponse`. Same input, same
numbers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

from proxy.errors import BadRequest
from proxy.simulator import profiles
from proxy.simulator.turns import (
    Conditions,
    Json,
    SimulatedResponse,
    count_of,
    dumps,
    list_of,
    missing,
    model_of,
)

MAX_EMBEDDING_INPUTS = 2048  # as OpenAI
MODELS_CREATED = 1_715_367_049  # one birthday for all listed models

# --- embeddings ------------------------------------------------------------------------------------------


def _embedding_inputs(body: Json) -> list[tuple[bytes, int]]:
    """Each input's bytes and token count: a string, strings, one token array or several."""
    value = body.get("input")
    if value is None:
        raise missing("input")
    many = isinstance(value, list) and (not value or not isinstance(value[0], int))
    items: list[Any] = value if many else [value]
    if not 0 < len(items) <= MAX_EMBEDDING_INPUTS:
        raise BadRequest(
            f"'input' must have 1 to {MAX_EMBEDDING_INPUTS} elements, not {len(items)}.", param="input"
        )
    inputs = []
    for item in items:
        if isinstance(item, str) and item:
            inputs.append((item.encode("utf-8", "surrogatepass"), profiles.text_tokens(item)))
        elif isinstance(item, list) and item and all(type(token) is int for token in item):
            inputs.append((repr(item).encode(), len(item)))
        else:
            raise BadRequest("'$.input' is invalid. Please check the API reference.", param="input")
    return inputs


def embeddings(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /embeddings."""
    model, inputs = model_of(body), _embedding_inputs(body)
    size, encoding = count_of(body, "dimensions"), body.get("encoding_format", "float")
    profile = profiles.profile_of(model)
    if size is not None and size > profile.dimensions:
        raise BadRequest(
            f"Invalid value for 'dimensions' = {size}. Must be less than or equal to {profile.dimensions}.",
            param="dimensions",
        )
    if encoding not in ("float", "base64", None):
        raise BadRequest("'encoding_format' must be 'float' or 'base64'.", param="encoding_format")
    chance = profiles.draw(profile, ctx.rng)
    data = []
    for index, (content, _) in enumerate(inputs):
        numbers = profiles.vector(model, content, size)
        packed = base64.b64encode(numbers).decode() if encoding == "base64" else numbers.tolist()
        data.append({"object": "embedding", "index": index, "embedding": packed})
    tokens = sum(count for _, count in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    delay_s = chance.ttft_s + tokens / profiles.PREFILL_TOKENS_PER_S
    reply = {"object": "list", "data": data, "model": model, "usage": usage}
    return SimulatedResponse(chance.id, dumps(reply), delay_s)


# --- moderations and rerank ------------------------------------------------------------------------------

_CATEGORIES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent",
    "self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors", "violence",
    "violence/graphic",
)  # fmt: skip


def moderations(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /moderations: nothing is ever flagged. A result per string, one for all parts of a message."""
    model, given = model_of(body, "omni-moderation-latest"), body.get("input")
    if given is None:
        raise missing("input")
    texts = given if isinstance(given, list) and all(isinstance(text, str) for text in given) else [given]
    chance = profiles.draw(profiles.profile_of(model), ctx.rng)
    results = []
    for text in texts:
        low = hashlib.shake_256(dumps(text)).digest(len(_CATEGORIES))
        results.append(
            {
                "flagged": False,
                "categories": dict.fromkeys(_CATEGORIES, False),
                "category_scores": {name: byte / 1e5 for name, byte in zip(_CATEGORIES, low, strict=True)},
                "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
            }
        )
    reply = {"id": f"modr-{chance.id}", "model": model, "results": results}
    return SimulatedResponse(chance.id, dumps(reply), chance.ttft_s)


_WORD = re.compile(r"\w+")


def rerank(body: Json, ctx: Conditions) -> SimulatedResponse:
    """POST /rerank, in the shape Cohere, Jina and Voyage share: most relevant first, by words in common."""
    model, query, documents = model_of(body), body.get("query"), list_of(body, "documents")
    if not isinstance(query, str):
        raise missing("query")
    top = count_of(body, "top_n") or len(documents)
    chance = profiles.draw(profiles.profile_of(model), ctx.rng)
    wanted = set(_WORD.findall(query.lower()))
    results = []
    for index, document in enumerate(documents):
        text = document.get("text") if isinstance(document, dict) else document
        if not isinstance(text, str):
            raise BadRequest(f"documents[{index}] is no text.", code="invalid_type", param="documents")
        words = set(_WORD.findall(text.lower()))
        row: Json = {"index": index, "relevance_score": len(wanted & words) / (len(wanted | words) or 1)}
        if body.get("return_documents") is True:
            row["document"] = {"text": text}
        results.append(row)
    results.sort(key=lambda row: (-row["relevance_score"], row["index"]))
    tokens = profiles.text_tokens(query) + profiles.content_tokens(documents)
    meta = {"billed_units": {"search_units": 1}}
    usage = {"total_tokens": tokens}
    reply = {"id": chance.id, "model": model, "results": results[:top], "meta": meta, "usage": usage}
    return SimulatedResponse(chance.id, dumps(reply), chance.ttft_s)


# --- models ----------------------------------------------------------------------------------------------


def model_list() -> bytes:
    """GET /models: a name per known profile."""
    return dumps({"object": "list", "data": [model_row(name) for name in sorted(profiles.PROFILES)]})


def model_row(name: str) -> Json:
    """GET /models/{id}. Any name has a row, as any model can be asked."""
    owner = profiles.profile_of(name).owned_by
    return {"id": name, "object": "model", "created": MODELS_CREATED, "owned_by": owner}
