"""Hedging: an attempt shows no output for long, so a second member is asked, and the first output wins.

``auto`` is the default for streams. It looks at the clock with the other time limits, every tenth of a
second, as the times it waits for are longer; a time that an operator sets has a timer of its own. An
operator's time is taken as it is; ``auto`` asks nobody who is much dearer, and sends nothing twice that acts
by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import Final

from proxy.deployments.deployment import Deployment
from proxy.deployments.escape import escape_s
from proxy.endpoints import CLASSES, MAKING
from proxy.errors import GatewayError
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.exchange_state import NEVER, ExchangeState
from proxy.relay.exchange.states import HEDGE_DUE, TRYING, step
from proxy.routing.cost import too_dear_beside

log = logging.getLogger("tokenhub.routing")

AUTO: Final = "auto"
# Seconds until the retry budget is asked again, where it was used up: it comes back with time and requests.
_AGAIN_S: Final = 0.5
# In bodies of Responses and Messages: what goes on by itself, or acts on something, at the provider.
_ACTS: Final = (
    b'"background"', b'"conversation"', b'"web_search', b'"web_fetch', b'"file_search', b'"code_',
    b'"image_generation', b'"computer', b'"mcp', b'"local_shell', b'"shell', b'"bash_', b'"text_editor',
)  # fmt: skip
_ACTING: Final = frozenset(("responses", "messages"))
# A larger body of these is not looked through, as that would hold up others, and is not hedged.
_MOST_LOOKED_BYTES: Final = 256 << 10


def plan_hedge(exchange: ExchangeState, attempt: Attempt) -> None:
    """Ask a second member later, if there is no output by then of an attempt that has just begun."""
    request, pool = exchange.request, attempt.pool
    if not (request.streamed or pool.hedges_plain) or CLASSES[request.endpoint] == MAKING:
        return
    if exchange.attempt is not attempt or exchange.state != TRYING:  # it is over already
        return
    after, row = pool.hedge, attempt.record.row
    if after == AUTO:
        rows = pool.streamed_rows if request.streamed else pool.plain_rows
        exchange.hedge_at = attempt.record.begun_at + escape_s(row, attempt.record.prompt_bytes, rows)
        exchange.client.wake_by(exchange.hedge_at)
        return
    delay_s = row.usual_wait_s() if isinstance(after, str) else after
    if delay_s is not None:
        exchange.hedge_at = attempt.record.begun_at + delay_s
        exchange.hedge_timer = asyncio.get_running_loop().call_later(delay_s, hedge, exchange)


def drop_hedge(exchange: ExchangeState) -> None:
    """Ask no second member of its own accord, unless that is planned anew."""
    exchange.hedge_at = NEVER
    if exchange.hedge_timer is not None:
        exchange.hedge_timer.cancel()
        exchange.hedge_timer = None


def hedge(exchange: ExchangeState) -> None:
    """Ask a second member now, if anything speaks for it."""
    drop_hedge(exchange)
    attempt, request = exchange.attempt, exchange.request
    context, held = request.context, request.body.held
    if exchange.state != TRYING or attempt is None or exchange.hedged_attempt is not None or held is None:
        return
    # A body above the limit is not kept for a second attempt once it is sent.
    if request.body.size > context.replay_limit_bytes:
        return
    pool = attempt.pool
    now = monotonic()
    if not context.budget.is_left(now, request.share):
        exchange.hedge_at = now + _AGAIN_S
        exchange.client.wake_by(exchange.hedge_at)
        return
    barred: Sequence[Deployment] = ()
    if pool.hedge == AUTO:
        if request.endpoint in _ACTING and (request.body.size > _MOST_LOOKED_BYTES or _acts(held)):
            return
        barred = too_dear_beside(pool, attempt.deployment, request.facts_again(pool))
    if not exchange.may_cost_more(attempt, now):
        return
    chain = exchange.chain or exchange.begin_chain(pool, attempt.deployment)
    second = chain.next(request.facts_again, context.budget, context.rng, now, stay=True, barred=barred)
    if second is not None:
        exchange.state = step(exchange.state, HEDGE_DUE)
        context.counters.hedges += 1
        try:
            exchange.try_at(second, chain.pool, now, attempt)
        except GatewayError as error:
            log.debug("%s: not hedged: %s", request.request_id.decode(), error)


def _acts(held: list[bytes]) -> bool:
    text = b"".join(held)
    return any(text.find(word) >= 0 for word in _ACTS)
