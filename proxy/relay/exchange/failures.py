"""Who is to blame for an attempt that came to nothing, and who hears of it: tables, log, counters, traces.

A client's own time limit blames nobody, and neither does a kept connection that closed as it was used again.
The request may have provoked a 5xx, a reset and a 401: :mod:`proxy.deployments.strikes` says when they count.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxy.deployments.deployment import Deployment
from proxy.deployments.record import CONNECT, RESET, TIMEOUT, confirm
from proxy.deployments.strikes import mark_of, names_account
from proxy.endpoints import CLASSES, MAKING
from proxy.routing.failover import Doubt
from proxy.wire.header_lines import CREDENTIAL_HEADERS
from proxy.wire.response_head import HEAD_TOO_LONG

if TYPE_CHECKING:
    from proxy.relay.exchange.attempt import Attempt
    from proxy.relay.upstream.connection import ProviderConnection

log = logging.getLogger("tokenhub.provider")

# What a provider does that has waited long enough for the rest of a request, which is up to the client.
_TIRED_OF_WAITING: Final = frozenset((RESET, "408"))
REFUSED: Final = "refused the gateway's key"
_KEY_HEADERS: Final = {"bearer": "Authorization: Bearer", "x-api-key": "x-api-key", "api-key": "api-key"}
# The body of a refusal is waited for, for its code: so long, and so much of it.
REFUSAL_S: Final = 1.0
REFUSAL_BYTES: Final = 16 << 10
# A later attempt gets what is left of the chain's time. With less than this share of first_byte, its time-out
# says nothing of the provider.
_FAIR_SHARE: Final = 0.9
# While a request's last byte is not written, no provider can have acknowledged the whole of it.
_UNSENT_S: Final = 1.0


def blame(
    attempt: Attempt, outcome: str, what: str, now: float, wait_s: float | None = None,
    is_confirmed: bool = False,
) -> None:  # fmt: skip
    """The attempt failed by the provider's fault, as far as is known. The attempt is over with it.

    :param outcome: a status, or ``connect``, ``timeout``, ``reset``, ``error``.
    :param what: what the provider did, for people.
    :param now: monotonic seconds.
    :param wait_s: seconds the provider wants to be left alone.
    :param is_confirmed: of a 401, that it is about the operator's key.
    """
    exchange = attempt.exchange
    gateway = exchange.gateway
    log.warning("%s: provider %s %s", exchange.request_id.decode(), attempt.provider.config.name, what)
    gateway.counters.failed(attempt.deployment.labels, outcome)
    if gateway.tracing is not None:
        gateway.tracing.failed(attempt, outcome, what, now)
    if outcome in _TIRED_OF_WAITING and not exchange.body.done:
        attempt.left(now)
        return
    its_mark = mark(attempt, outcome, is_by_key=what.find(HEAD_TOO_LONG) >= 0)
    ejected = attempt.failed(now, outcome, gateway.rng, wait_s, what, its_mark, is_confirmed)
    _tell_ejected(attempt, ejected, attempt.deployment, what, now)


def refuse(attempt: Attempt, now: float) -> None:
    """A provider refused the attempt with a 401, and as much of the body is there as is waited for: its code
    may say that the key is the reason."""
    answer = attempt.answer
    assert answer is not None
    is_confirmed = answer.is_readable and names_account(answer.tail())
    if not is_confirmed:
        attempt.doubt = Doubt(attempt.deployment, attempt.row, mark(attempt, "401"))
    blame(attempt, "401", REFUSED, now, is_confirmed=is_confirmed)


def tell_refused(attempt: Attempt) -> None:
    """Log that a provider answers 401, and how the key was sent, which is the first thing to check; never the
    key itself."""
    config = attempt.provider.config
    way = config.auth_of(attempt.exchange.endpoint)
    name = _KEY_HEADERS.get(way)
    how = f'none was sent, as auth = "{way}"' if name is None else f"it was sent as {name}"
    sets = [other for other, _ in config.headers if other.lower().encode() in CREDENTIAL_HEADERS]
    if sets:
        how += f"; 'headers' of the provider set {', '.join(sets)}"
    log.error("provider %s refused the operator's key (401): %s", config.name, how)


def settle_doubts(attempt: Attempt, doubts: list[Doubt], now: float) -> None:
    """The attempt is answered: those that refused the same request before it did so for their key."""
    rng = attempt.exchange.gateway.rng
    for deployment, row, its_mark in doubts:
        ejected = confirm(deployment, row, its_mark, now, rng.random())
        _tell_ejected(attempt, ejected, deployment, REFUSED, now)


def run_out(attempt: Attempt, what: str, now: float) -> None:
    """A client's own time limit has passed: the member is left as if the client had gone. It is no strike and
    no failure.
    """
    exchange = attempt.exchange
    name = attempt.provider.config.name
    log.info("%s: provider %s %s, which is the client's limit", exchange.request_id.decode(), name, what)
    if exchange.gateway.tracing is not None:
        exchange.gateway.tracing.failed(attempt, TIMEOUT, what, now)
    attempt.left(now)


def none_can_be_opened(attempt: Attempt, why: str, now: float) -> str:
    """This machine has no room for a connection: no fault of the provider's. Returns what happened."""
    log.error("no connection to provider %s can be opened: %s", attempt.provider.config.name, why)
    attempt.left(now)
    return f"could not be asked, as the gateway can open no connection ({why})"


def is_providers_time(attempt: Attempt) -> bool:
    """Whether the operator's time limit has passed, and not one that the client made shorter."""
    exchange = attempt.exchange
    limit_s = exchange.routes.config.timeouts.first_byte_s
    if exchange.first_byte_s < limit_s:
        return False
    since = attempt.asked_at if exchange.body.done else attempt.upstream_full_at
    return attempt.deadline_at - since >= _FAIR_SHARE * limit_s


def is_stale(attempt: Attempt, connection: ProviderConnection, now: float, *, is_reset: bool) -> bool:
    """Whether the provider closed a kept connection just as it was used again: then it can't have taken the
    request. What makes things is never sent twice.

    To be asked before the connection is closed on this side too.
    """
    exchange = attempt.exchange
    if not connection.served or connection.answered or attempt.redialled or exchange.body.held is None:
        return False
    if CLASSES[exchange.endpoint] == MAKING:
        return False
    if connection.unsent or not exchange.body.done:
        return now - attempt.begun_at <= _UNSENT_S
    return now - attempt.asked_at <= connection.stale_s(is_reset)


def mark(attempt: Attempt, outcome: str, *, is_by_key: bool = False) -> int:
    """The mark of the attempt's request, where that may have provoked the failure; else 0.

    :param is_by_key: whatever its body is: no client can provoke it twice.
    """
    if outcome in (CONNECT, TIMEOUT):
        return 0
    exchange = attempt.exchange
    body, grant = exchange.body, exchange.grant
    start, end = (0, 0) if body.found is None else (body.found.start, body.found.end)
    key_id = "" if grant is None else grant.id
    if is_by_key:
        return mark_of(key_id, 0, 0, 0, None)
    return mark_of(key_id, exchange.length or 0, start, end, body.held if body.done else None)


def _tell_ejected(
    attempt: Attempt, ejected: str | None, deployment: Deployment, what: str, now: float
) -> None:
    if ejected is not None and attempt.exchange.gateway.knowledge is None:  # else the supervisor says so
        who = deployment.id if ejected == "deployment" else f"provider {deployment.provider.name}"
        log.warning("%s is ejected for %.1f s: it %s", who, deployment.free_at(now) - now, what)
