"""What follows an attempt that has failed: another member, the same one after a pause, or nothing."""

from __future__ import annotations

import logging

from proxy.deployments.deployment import Deployment
from proxy.errors import AttemptFailed
from proxy.relay.exchange import failures
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.routing.failover import Failover, pause_s

log = logging.getLogger("tokenhub.provider")


def what_follows(
    exchange: ExchangeState, attempt: Attempt, failure: AttemptFailed, now: float
) -> Deployment | None:
    """Return the member that is asked next, which counts as begun. None: nobody is, or the same one after the
    pause that ``again`` of the chain has."""
    chain = exchange.chain or exchange.begin_chain(attempt.pool, attempt.deployment)
    request, following = exchange.request, None
    if failure.is_of_size:
        chain.too_small = max(chain.too_small, attempt.deployment.window.tokens(now) or 0)
    if (
        exchange.hedged_attempt is None
        and (request.can_retry or request.repeats)
        and not failure.is_final
        and failures.may_follow(request, failure)
        and request.body.held is not None
        and exchange.may_cost_more(attempt, now)
    ):
        context = request.context
        following = chain.next(
            request.facts_again, context.budget, context.rng, now, is_clients=failure.is_clients
        )
        if following is None and not chain.refused:
            _plan_repeat(exchange, chain, attempt, failure, now)
    if following is None and chain.refused:
        failures.no_budget(request, chain.refused, now)
    return following


def _plan_repeat(
    exchange: ExchangeState, chain: Failover, attempt: Attempt, failure: AttemptFailed, now: float
) -> None:
    """See whether the member that has failed may be asked once more. A body that is still coming, or a client
    with less time, can't wait for it."""
    request, context = exchange.request, exchange.request.context
    after_s = pause_s(failure, now - attempt.record.begun_at, context.rng)
    if (
        request.body.done
        and after_s < request.client_limit_s
        and chain.repeat(attempt.deployment, attempt.pool, context.budget, now, after_s, request.repeats)
    ):
        name = attempt.deployment.provider.name
        log.info("%s: provider %s is asked once more in %.2f s", request.request_id.decode(), name, after_s)
