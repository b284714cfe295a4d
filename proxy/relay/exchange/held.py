"""A response that is held and has had its time: it goes out, or its attempt has failed."""

from __future__ import annotations

from time import monotonic

from proxy.deployments.escape import usual_most_s
from proxy.deployments.record import TIMEOUT
from proxy.errors import AttemptFailed
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.relay.exchange.failures import judge
from proxy.relay.exchange.hold import OUTPUT, PEEK_S, REASON, REASON_S, WHOLE
from proxy.wire.response import Response


def due_at(exchange: ExchangeState, attempt: Attempt, now: float) -> float:
    """Return until when a response is held whose head has just come. Monotonic seconds.

    A stream is held for the operator's limit, where one is set; else for two seconds, or for as long behind
    the moment at which another member is asked beside it, and while that one runs: a member that has sent a
    head and falls silent must not win. Nothing is held longer than the request has.
    """
    limit_s = _limit_s(attempt) if attempt.waits_for == OUTPUT else 0.0
    if attempt.waits_for == REASON:
        due = now + REASON_S
    elif attempt.waits_for == WHOLE:
        due = now + attempt.limits.idle_s
    elif limit_s:
        due = now + limit_s
    else:
        due = PEEK_S + (exchange.hedge_at if now < exchange.hedge_at < attempt.deadline_at else now)
    return min(due, _ends_at(attempt))


def _ends_at(attempt: Attempt) -> float:
    """When the time is up that all attempts have, or a plain response. Monotonic seconds."""
    request, limits = attempt.request, attempt.limits
    ends_at = request.ready_at + request.deadline_s
    if attempt.waits_for == WHOLE and limits.is_total:
        ends_at = min(ends_at, attempt.record.asked_at + min(limits.answer_s, request.client_limit_s))
    return ends_at


def _limit_s(attempt: Attempt) -> float:
    """The operator's limit on the first output, in seconds from the head; 0: none is set."""
    limit_s = attempt.limits.first_token_s
    if limit_s >= 0.0:
        return limit_s
    record = attempt.record
    return usual_most_s(record.row, record.prompt_bytes, attempt.pool.streamed_rows)


def _is_beside_another(exchange: ExchangeState, attempt: Attempt, now: float) -> bool:
    """The other attempt of a hedge runs, and the time in which a response has to begin is not over."""
    return exchange.hedged_attempt is not None and now < attempt.record.asked_at + attempt.limits.answer_s


def held_too_long(exchange: ExchangeState, attempt: Attempt, response: Response, now: float) -> None:
    """Nothing more comes of a response that is held, or not what it is held for.

    :param now: when that was looked at. What follows begins at the time that it is by then.
    """
    begun_at = monotonic()
    if attempt.waits_for == REASON:
        if attempt.settle(judge(response, attempt.pool.fail_on), begun_at):
            attempt.flush()
    elif attempt.waits_for == OUTPUT:
        limit_s = 0.0 if now >= _ends_at(attempt) else _limit_s(attempt)
        if not limit_s and _is_beside_another(exchange, attempt, now):
            # The first output wins, not the first head.
            attempt.deadline_at = min(now + PEEK_S, _ends_at(attempt))
            return
        what = f"showed no output within {limit_s:.3g} s (limit: first_token)"
        failure = AttemptFailed("first-token", what, 504, "provider_timeout")
        if not limit_s or not exchange.leave(attempt, failure, begun_at):
            exchange.commit(attempt, begun_at)
            attempt.flush()
    else:
        idle_s, ends_at = attempt.limits.idle_s, _ends_at(attempt)
        if now >= ends_at:
            attempt.deadline_at = ends_at
            attempt.on_deadline()
        elif now < attempt.progress_at + idle_s:
            attempt.deadline_at = min(attempt.progress_at + idle_s, ends_at)
        else:
            what = f"sent nothing for {idle_s:g} s"
            attempt.fail(AttemptFailed(TIMEOUT, what, 504, "provider_timeout"), begun_at)
