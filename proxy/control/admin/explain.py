"""Explains where a request would go, and why. Nothing is sent, and nothing is changed."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from proxy.config.settings import ENDPOINTS, SERVED_WITH, STRATEGIES
from proxy.control.admin.forwarding import forwarding
from proxy.control.admin.json_slices import Keys, find_keys, member_named, object_at, small_value, text_at
from proxy.errors import BadRequest, UnknownModel
from proxy.relay.exchange.request_body import RequestBody, facts_of
from proxy.routing.catalog import AUTO, Catalog
from proxy.routing.strategy import BY_NAME, explain
from proxy.wire.header_lines import MAX_HEAD_BYTES

EXPLAINED = (*ENDPOINTS, *SERVED_WITH)


def explain_request(
    catalog: Catalog, sent: bytes, now: float, *, strategy: str | None = None, endpoint: str | None = None
) -> Generator[None, None, dict[str, Any]]:
    """The choice among the candidates for a request, each with its score or the reason it is skipped.

    It is made in steps. The body is not parsed, as the data plane parses none.

    :param sent: a request's body as a client would send it, maybe with ``strategy`` in it; or
        ``{"body": …, "strategy": …, "endpoint": …, "headers": […], "query": …}``.
    :param now: monotonic seconds.
    :param strategy: goes before the one in ``sent``; so does ``endpoint``.
    :raises BadRequest: the body can't be read or resolved. :raises UnknownModel: no such model.
    """
    keys = yield from find_keys(sent)
    # Also where another goes before it: what can't be is not passed over.
    name = text_at(sent, keys, "model")
    given_strategy = _choice(sent, keys, "strategy", STRATEGIES)
    given_endpoint = _choice(sent, keys, "endpoint", EXPLAINED)
    given_head: tuple[object, object] | None = None
    at = member_named(sent, keys, "body")
    if at >= 0:
        given_head = _head_given(sent, keys)
        sent = object_at(sent, keys, at)
        if not sent:
            raise BadRequest("'body' must be an object: a request's body.", param="body")
        keys = yield from find_keys(sent)
        name = text_at(sent, keys, "model")
    strategy, endpoint = strategy or given_strategy, endpoint or given_endpoint or "chat"
    if endpoint not in EXPLAINED:
        raise BadRequest(f"'endpoint' must be one of {', '.join(EXPLAINED)}.", param="endpoint")
    stream = member_named(sent, keys, "stream")
    streamed = stream >= 0 and sent.startswith(b"true", stream)
    yield
    try:
        pool = catalog.resolve(name, endpoint, strategy)
    except UnknownModel as error:
        raise UnknownModel(error.name, catalog.nearest(error.name)) from None
    yield
    facts = facts_of(RequestBody.of(sent), sent, keys, pool, endpoint, streamed, now)
    yield
    explanation = explain(pool, facts)
    rows = []
    providers = {}
    for candidate in explanation.candidates:
        member = candidate.deployment
        providers[member.provider.name] = member.provider
        row = member.rows().get((endpoint, streamed))
        rows.append(
            {
                "id": member.id,
                "provider": member.provider.name,
                "score": candidate.score,
                "unit": BY_NAME[pool.strategy].unit,
                "skipped": candidate.skipped,
                "row": None if row is None else row.snapshot(now),
            }
        )
        yield
    return {
        "model": name,
        "default_model": pool.name if name is None and pool.name != AUTO else None,
        "kind": pool.kind,
        "endpoint": endpoint,
        "stream": streamed,
        "strategy": pool.strategy,
        "choice": None if explanation.choice is None else explanation.choice.id,
        "why": explanation.why,
        "candidates": rows,
        "forwarding": None if given_head is None else forwarding(*given_head, providers.values()),
    }


def _head_given(sent: bytes, keys: Keys) -> tuple[object, object] | None:
    """The members ``headers`` and ``query``; None where neither is there."""
    if member_named(sent, keys, "headers") < 0 and member_named(sent, keys, "query") < 0:
        return None
    # In JSON they may be six times as long.
    lines, query = (
        small_value(sent, keys, name, 6 * MAX_HEAD_BYTES, MAX_HEAD_BYTES) for name in ("headers", "query")
    )
    return lines, query


def _choice(sent: bytes, keys: Keys, name: str, known: Sequence[str]) -> str | None:
    value = text_at(sent, keys, name)
    if value and value not in known:
        raise BadRequest(f"'{name}' must be one of {', '.join(known)}.", code=f"invalid_{name}", param=name)
    return value
