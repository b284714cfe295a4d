"""A response that is held and has had its time: it goes out, or its attempt has failed."""

from __future__ import annotations

from time import monotonic

from proxy.deployments.escape import usual_most_s
from proxy.deployments.record import TIMEOUT
from proxy.errors import AttemptFailed
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.relay.exchange.failures import judge
from proxy.relay.exchange.hold import OUTPUT, PEEK_S, REASON, REASON_S
from proxy.wire.response import Response


def due_at(exchange: ExchangeState, attempt: Attempt, now: float) -> float:
    """Return until when a response is held whose head has just come. Monotonic seconds.

    A stream is held for the operator's limit, where one is set; else for two seconds, or for as long behind
    the moment at which another member is asked beside it.
    """
    if attempt.waits_for != OUTPUT:
        return now + (REASON_S if attempt.waits_for == REASON else attempt.limits.idle_s)
    limit_s = _limit_s(attempt)
    if limit_s:
        return now + limit_s
    begins_at = exchange.hedge_at if now < exchange.hedge_at < attempt.deadline_at else now
    return begins_at + PEEK_S


def _limit_s(attempt: Attempt) -> float:
    """The operator's limit on the first output, in seconds from the head; 0: none is set."""
    limit_s = attempt.limits.first_token_s
    if limit_s >= 0.0:
        return limit_s
    record = attempt.record
    return usual_most_s(record.row, record.prompt_bytes, attempt.pool.streamed_rows)


def held_too_long(exchange: ExchangeState, attempt: Attempt, response: Response, now: float) -> None:
    """Nothing more comes of a response that is held, or not what it is held for.

    :param now: when that was looked at. What follows begins at the time that it is by then.
    """
    begun_at = monotonic()
    if attempt.waits_for == REASON:
        if attempt.settle(judge(response, attempt.pool.fail_on), begun_at):
            attempt.flush()
    elif attempt.waits_for == OUTPUT:
        limit_s = _limit_s(attempt)
        what = f"showed no output within {limit_s:.3g} s (limit: first_token)"
        failure = AttemptFailed("first-token", what, 504, "provider_timeout")
        if not limit_s or not exchange.leave(attempt, failure, begun_at):
            exchange.commit(attempt, begun_at)
            attempt.flush()
    else:
        idle_s = attempt.limits.idle_s
        if now < attempt.progress_at + idle_s:
            attempt.deadline_at = attempt.progress_at + idle_s
        else:
            what = f"sent nothing for {idle_s:g} s"
            attempt.fail(AttemptFailed(TIMEOUT, what, 504, "provider_timeout"), begun_at)
