"""What is due for an exchange at a point in time: limits that have passed, comments to keep a stream open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.answer import KEEP_ALIVE_EVENT

if TYPE_CHECKING:
    from proxy.exchange import Exchange

_NEVER = float("inf")


def look_at(exchange: Exchange, now: float) -> float:
    """Do what is due; returns when to look again. All times are monotonic seconds."""
    if exchange.answer is not None:
        return _answering(exchange, now)
    if not exchange.is_under_way():
        return _NEVER
    if not exchange.body.done:
        # The provider can't be late before it has the whole request; but it has to take it.
        exchange.deadline_at = (exchange.upstream_full_at or now) + exchange.first_byte_s
    if now < exchange.deadline_at:
        return exchange.deadline_at
    what = f"did not answer within {exchange.first_byte_s:g} s"
    exchange.fail("timeout", what, 504, "provider_timeout")
    return _NEVER


def _answering(exchange: Exchange, now: float) -> float:
    timeouts = exchange.gateway.timeouts
    if exchange.client_full_at:
        # The provider's limit rests while we are the ones who paused it.
        due = exchange.client_full_at + timeouts.client_write_s
        if now < due:
            return due
        exchange.abandon()
        exchange.client.cut(False)
        return _NEVER
    due = exchange.progress_at + timeouts.idle_s
    if now >= due:
        exchange.break_off(f"sent nothing for {timeouts.idle_s:g} s")
        return _NEVER
    return min(due, _keep_alive(exchange, now)) if exchange.keepalive_s else due


def _keep_alive(exchange: Exchange, now: float) -> float:
    """Put a comment into an event stream that has been silent, between two events only."""
    answer = exchange.answer
    assert answer is not None
    due = max(exchange.progress_at, exchange.kept_alive_at) + exchange.keepalive_s
    if now < due:
        return due
    if answer.is_between_events():
        exchange.client.transport.write(answer.wrap_event(KEEP_ALIVE_EVENT, last=False))
        exchange.kept_alive_at = now
    return now + exchange.keepalive_s
