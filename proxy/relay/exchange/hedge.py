"""Hedging: an attempt leaves the client waiting, so a second member is asked, and the first response wins."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from proxy.errors import GatewayError
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.relay.exchange.states import HEDGE_DUE, TRYING, step

log = logging.getLogger("tokenhub.routing")


def plan_hedge(exchange: ExchangeState, after: str | float) -> None:
    """Ask a second member later, if there is no response by then.

    :param after: seconds; or text, for longer than the first one usually takes.
    """
    attempt = exchange.attempt
    if attempt is None or exchange.state != TRYING:
        return
    delay_s = attempt.record.row.usual_wait_s() if isinstance(after, str) else after
    if delay_s is not None:
        exchange.hedge_timer = asyncio.get_running_loop().call_later(delay_s, _hedge, exchange)


def _hedge(exchange: ExchangeState) -> None:
    exchange.hedge_timer = None
    attempt, context = exchange.attempt, exchange.request.context
    if (
        exchange.state != TRYING
        or attempt is None
        or exchange.hedged_attempt is not None
        or exchange.request.body.held is None
    ):
        return
    # A body above the limit is not kept for a second attempt once it is sent.
    if exchange.request.body.size > context.replay_limit_bytes:
        return
    now = monotonic()
    if not exchange.may_cost_more(attempt, now):
        return
    chain = exchange.chain or exchange.begin_chain(attempt.pool, attempt.deployment)
    second = chain.next(exchange.request.facts_again, context.budget, context.rng, now, stay=True)
    if second is not None:
        exchange.state = step(exchange.state, HEDGE_DUE)
        context.counters.hedges += 1
        try:
            exchange.try_at(second, chain.pool, now, attempt)
        except GatewayError as error:
            log.debug("%s: not hedged: %s", exchange.request.request_id.decode(), error)
