"""Hedging: an attempt leaves the client waiting, so a second member is asked, and the first answer wins."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from proxy.errors import GatewayError
from proxy.relay.exchange.states import HEDGE_DUE, TRYING, step

if TYPE_CHECKING:
    from proxy.relay.exchange.exchange import Exchange

log = logging.getLogger("tokenhub.routing")


def plan_hedge(exchange: Exchange, after: str | float) -> None:
    """Ask a second member later, if there is no answer by then.

    :param after: seconds; or text, for longer than the first one usually takes.
    """
    attempt = exchange.attempt
    if attempt is None or exchange.state != TRYING:
        return
    delay_s = attempt.row.usual_wait_s() if isinstance(after, str) else after
    if delay_s is not None:
        exchange.hedge_timer = asyncio.get_running_loop().call_later(delay_s, _hedge, exchange)


def _hedge(exchange: Exchange) -> None:
    exchange.hedge_timer = None
    attempt, gateway = exchange.attempt, exchange.gateway
    if (
        exchange.state != TRYING
        or attempt is None
        or exchange.rival is not None
        or exchange.body.held is None
    ):
        return
    if exchange.body.size > gateway.replay_limit_bytes:  # once it is sent, it is not kept for a second
        return
    now = monotonic()
    if not exchange.may_cost_more(attempt, now):
        return
    chain = exchange.chain or exchange.begin_chain(attempt.pool, attempt.deployment)
    second = chain.next(exchange.facts_again, gateway.budget, gateway.rng, now, stay=True)
    if second is not None:
        _, exchange.state = step(exchange.state, HEDGE_DUE)
        gateway.counters.hedges += 1
        try:
            exchange.try_at(second, chain.pool, now, attempt)
        except GatewayError as error:
            log.debug("%s: not hedged: %s", exchange.request_id.decode(), error)
