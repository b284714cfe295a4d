"""The end of an attempt's time: when it is, whose limit it was, and what the client is told."""

from __future__ import annotations

from typing import Final

from proxy.deployments.record import TIMEOUT, Record
from proxy.errors import AttemptFailed
from proxy.relay.exchange.request import Request
from proxy.routing.time_limits import Limits

# A later attempt gets what is left of the chain's time. With less than this share of its limit, its time-out
# says nothing of the provider.
_FAIR_SHARE: Final = 0.9


def time_is_up(request: Request, limits: Limits, since: float) -> float:
    """Return when an attempt has had its time, if no response comes. Monotonic seconds.

    :param since: when the member got all of the request, or stopped taking it.
    """
    if not request.body.done:
        return since + min(limits.take_s, request.client_limit_s)
    limit_s = min(limits.answer_s, request.client_limit_s)
    return min(since + limit_s, request.ready_at + request.deadline_s)


def timed_out(
    request: Request, record: Record, limits: Limits, deadline_at: float, upstream_full_at: float
) -> AttemptFailed:
    """The failure of an attempt whose time is up, which names the limit.

    It is the provider's where the operator's limit for a member has passed, and not one that the client, or
    what the chain had left, made shorter.

    :param deadline_at: of the attempt. :param upstream_full_at: since when the provider takes nothing.
    """
    if request.body.done:
        since, own_s, name = record.asked_at, limits.answer_s, limits.answer_name
    else:
        since, own_s, name = upstream_full_at, limits.take_s, limits.take_name
    is_own = request.client_limit_s >= own_s
    is_final = is_own and limits.is_total and request.body.done
    if not is_own:
        name = "X-Inferoute-Timeout"
    if request.body.done and deadline_at >= request.ready_at + request.deadline_s:
        name, is_final = "deadline", True
    what = f"did not answer within {max(deadline_at - record.asked_at, 0.0):.3g} s (limit: {name})"
    failure = AttemptFailed(TIMEOUT, what, 504, "provider_timeout")
    failure.is_clients = not is_own or deadline_at - since < _FAIR_SHARE * own_s
    failure.is_final = is_final
    return failure
