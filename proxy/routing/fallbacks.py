"""The pools that are tried after a request's own: those of ``X-Inferoute-Fallback``, then the alias's.

What the client names has to be usable, or the client is told. What the operator names for an alias is left
out where a request can't use it: its key may not, the endpoint is not served, or models would mix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from proxy.config.settings import ONE_MODEL_ENDPOINTS
from proxy.errors import BadRequest, GatewayError
from proxy.routing.pool import Pool

HEADER: Final = "X-Inferoute-Fallback"
Find = Callable[[str], Pool]


def named_fallbacks(names: Sequence[str], pool: Pool, find: Find) -> list[Pool]:
    """The pools of the header's names.

    :param pool: where the request goes first. :param find: the pool of a name, for this request.
    :raises GatewayError: one of them can't be used here; it blames the header.
    """
    found = []
    for name in names:
        try:
            found.append(find(name))
        except GatewayError as error:
            error.blame_header(HEADER)
            raise
    for fallback in found:
        if is_other_model(pool, fallback):
            raise BadRequest(
                f"{HEADER} names '{fallback.name}', another model than '{pool.name}', and "
                f"{pool.endpoint} of different models don't mix.",
                code="mixed_models",
                param=HEADER,
            )
    return found


def own_fallbacks(pool: Pool, strategy: str | None, find: Find) -> list[Pool]:
    """The pools of the names that the operator put behind the pool's alias.

    They are worked out once: a pool is of one catalog and, where keys have lists of models, of one key.

    :param strategy: of ``X-Inferoute-Strategy``, which holds for fallbacks too.
    """
    found = pool.behind.get(strategy)
    if found is None:
        found = []
        for name in pool.fallback_names:
            try:
                fallback = find(name)
            except GatewayError:
                continue
            if not is_other_model(pool, fallback):
                found.append(fallback)
        pool.behind[strategy] = found
    return found


def is_other_model(pool: Pool, fallback: Pool) -> bool:
    """Return whether the results of the two can't stand for each other."""
    return pool.endpoint in ONE_MODEL_ENDPOINTS and fallback.members[0].short != pool.members[0].short
