"""Timers of an exchange: time limits that have passed, and comments that keep a stream open."""

from __future__ import annotations

from typing import Final

from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.exchange_state import NEVER, ExchangeState
from proxy.relay.exchange.hedge import hedge
from proxy.relay.exchange.held import held_too_long
from proxy.relay.exchange.states import ANSWERING, PAUSING, TRYING
from proxy.relay.exchange.time_is_up import time_is_up
from proxy.wire.response import KEEP_ALIVE_EVENT, PING_EVENT

# A body that comes a byte at a time, just often enough never to be silent for too long, holds its connection
# without end. Any line is faster than this.
SLOWEST_BYTES_PER_S: Final = 1024
# What a body may take beside that, in units of the longest silence.
PATIENCE: Final = 10


def body_due(begun_at: float, size: int, silence_s: float) -> float:
    """The time by which a body of which ``size`` bytes have come must be complete, if no more of it comes.

    :param begun_at: monotonic seconds. :param silence_s: the longest that is allowed within it.
    """
    return begun_at + PATIENCE * silence_s + size / SLOWEST_BYTES_PER_S


def body_late(
    exchange: ExchangeState, came_at: float, resumed_at: float, silence_s: float
) -> tuple[float, str]:
    """The time at which a request's body is too late, if no more of it comes, and the error's text.

    :param came_at: when the last of it came, or could have come; ``resumed_at``: since when it is read from.
    """
    due = body_due(max(exchange.request.begun_at, resumed_at), exchange.request.body.size, silence_s)
    silent = came_at + silence_s
    if silent <= due:
        return silent, f"Nothing of the body came for {silence_s:g} s."
    return due, "The body is too slow."


def look_at(exchange: ExchangeState, now: float) -> float:
    """Do what is due; returns when to look again. All times are monotonic seconds."""
    attempt = exchange.attempt
    if attempt is None:
        return _pausing(exchange, now) if exchange.state == PAUSING else NEVER
    if exchange.response is not None:
        return _answering(exchange, attempt, now)
    if exchange.state == TRYING:
        for running in (exchange.hedged_attempt, attempt):  # in the order they began
            if running is not None and exchange.state == TRYING:
                _trying(exchange, running, now)
    if exchange.state == TRYING and now >= exchange.hedge_at:
        hedge(exchange)
    if exchange.state == TRYING:
        both = (exchange.attempt, exchange.hedged_attempt)
        return min([exchange.hedge_at, *[one.deadline_at for one in both if one is not None]])
    # What was held may have gone out: from here its own limits count.
    return now + exchange.request.context.timeouts.idle_s if exchange.state == ANSWERING else NEVER


def _pausing(exchange: ExchangeState, now: float) -> float:
    chain = exchange.chain
    assert chain is not None
    if now < chain.again_at:
        return chain.again_at
    exchange.resume(now)
    return look_at(exchange, now)


def _trying(exchange: ExchangeState, attempt: Attempt, now: float) -> None:
    if attempt.response is None and not exchange.request.body.done:
        # The provider can't be late before it has the whole request; but it has to take it.
        attempt.deadline_at = time_is_up(exchange.request, attempt.limits, attempt.upstream_full_at or now)
    if now < attempt.deadline_at:
        return
    if attempt.waits_for and attempt.response is not None:
        held_too_long(exchange, attempt, attempt.response, now)
    else:
        attempt.on_deadline()


def _answering(exchange: ExchangeState, attempt: Attempt, now: float) -> float:
    if exchange.client_full_at:
        # The provider's limit rests while we are the ones who paused it.
        due = exchange.client_full_at + exchange.request.context.timeouts.client_write_s
        if now < due:
            return due
        client = exchange.client
        exchange.on_client_gone()
        client.cut(False)
        return NEVER
    limits, record = attempt.limits, attempt.record
    due = attempt.progress_at + limits.idle_s
    if now >= due:
        exchange.break_off(attempt, f"sent nothing for {limits.idle_s:g} s")
        return NEVER
    if limits.is_total:  # white space that a provider sends meanwhile is no progress
        due = min(due, record.asked_at + limits.answer_s + record.held_s)
        if now >= due:
            what = f"was not done within {limits.answer_s:g} s (limit: {limits.answer_name})"
            exchange.break_off(attempt, what)
            return NEVER
    keepalive_s = attempt.pool.keepalive_s
    return min(due, _keep_alive(exchange, attempt, now, keepalive_s)) if keepalive_s else due


def _keep_alive(exchange: ExchangeState, attempt: Attempt, now: float, keepalive_s: float) -> float:
    """Put a comment, at `messages` a ping, into a silent event stream, between two events only."""
    response = exchange.response
    assert response is not None
    due = max(attempt.progress_at, exchange.kept_alive_at) + keepalive_s
    if now < due:
        return due
    if response.is_between_events():
        event = PING_EVENT if exchange.request.endpoint == "messages" else KEEP_ALIVE_EVENT
        exchange.client.send(response.wrap_event(event, last=False))
        exchange.kept_alive_at = now
    return now + keepalive_s
