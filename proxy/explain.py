"""Where a request would go, and why: the answer of the admin API's explain. Sends and changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from proxy.catalog import Catalog
from proxy.config import ENDPOINTS, STRATEGIES
from proxy.errors import BadRequest, UnknownModel
from proxy.forwarding import forwarding
from proxy.intake import RequestBody, facts_of
from proxy.outline import keys_of
from proxy.strategy import explain

UNITS = {"latency": "s", "cost": "USD", "availability": "ratio", "round-robin": "turns", "split": "share"}
EXPLAINED = (*ENDPOINTS, "count_tokens")


def explain_request(
    catalog: Catalog, sent: bytes, now: float, *, strategy: str | None = None, endpoint: str | None = None
) -> dict[str, Any]:
    """The choice among the candidates for a request, each with its score or the reason it is skipped.

    :param sent: a request's body as a client would send it, maybe with ``strategy`` in it; or
        ``{"body": …, "strategy": …, "endpoint": …, "headers": […], "query": …}``.
    :param now: monotonic seconds.
    :param strategy: goes before the one in ``sent``; so does ``endpoint``.
    :raises BadRequest: it is none, or can't be resolved. :raises UnknownModel: no such model.
    """
    try:
        document = orjson.loads(sent)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is no JSON: {error}.", code="malformed_json") from None
    if not isinstance(document, dict):
        raise BadRequest("The body must be a JSON object.", code="malformed_json")
    # Also where another goes before it: what can't be is not passed over.
    name = _text(document, "model")
    given_strategy = _choice(document, "strategy", STRATEGIES)
    given_endpoint = _choice(document, "endpoint", EXPLAINED)
    given_head: tuple[object, object] | None = None
    if "body" in document:
        if "headers" in document or "query" in document:
            given_head = document.get("headers"), document.get("query")
        document = document["body"]
        if not isinstance(document, dict):
            raise BadRequest("'body' must be an object: a request's body.", param="body")
        name = _text(document, "model")
        try:
            sent = orjson.dumps(document)
        except orjson.JSONEncodeError:  # it writes 254 levels, and reads more
            text = "The body is nested too deeply to stand inside of another."
            raise BadRequest(text, param="body") from None
    strategy = strategy or given_strategy
    endpoint = endpoint or given_endpoint or "chat"
    if endpoint not in EXPLAINED:
        raise BadRequest(f"'endpoint' must be one of {', '.join(EXPLAINED)}.", param="endpoint")
    streamed = document.get("stream") is True
    try:
        pool = catalog.resolve(name, endpoint, strategy)
    except UnknownModel as error:
        raise UnknownModel(error.name, catalog.nearest(error.name)) from None
    facts = facts_of(RequestBody.of(sent), sent, keys_of(sent), pool, endpoint, streamed, now)
    explanation = explain(pool, facts)
    members = [candidate.deployment for candidate in explanation.candidates]
    providers = {member.provider.name: member.provider for member in members}
    return {
        "model": name,
        "kind": pool.kind,
        "endpoint": endpoint,
        "stream": streamed,
        "strategy": pool.strategy,
        "choice": None if explanation.choice is None else explanation.choice.id,
        "why": explanation.why,
        "candidates": [
            {
                "id": candidate.deployment.id,
                "provider": candidate.deployment.provider.name,
                "score": candidate.score,
                "unit": UNITS.get(pool.strategy),
                "skipped": candidate.skipped,
                "row": row.snapshot(now)
                if (row := candidate.deployment.rows().get((endpoint, streamed)))
                else None,
            }
            for candidate in explanation.candidates
        ],
        "forwarding": None if given_head is None else forwarding(*given_head, providers.values()),
    }


def _text(document: dict[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is None or isinstance(value, str):
        return value
    raise BadRequest(f"'{name}' must be text.", param=name)


def _choice(document: dict[str, Any], name: str, known: Sequence[str]) -> str | None:
    value = _text(document, name)
    if value and value not in known:
        raise BadRequest(f"'{name}' must be one of {', '.join(known)}.", code=f"invalid_{name}", param=name)
    return value
