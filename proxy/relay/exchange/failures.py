"""Failed attempts: who is to blame, and where that is recorded: rows, breakers, log, counters.

A client's own time limit blames nobody, and neither does a kept connection that closed as it was used again.
The request may have provoked a 5xx, a reset and a 401: :mod:`proxy.deployments.strikes` says when they count.
"""

from __future__ import annotations

import logging
from typing import Final

from proxy.config.settings import ProviderConfig
from proxy.deployments.deployment import Deployment
from proxy.deployments.escape import escape_s
from proxy.deployments.record import CONNECT, RESET, TIMEOUT, Record, confirm
from proxy.deployments.strikes import GONE, mark_of, names_account, says_gone
from proxy.endpoints import CLASSES, MAKING
from proxy.errors import AttemptFailed, CoolingDown, GatewayError, ProviderError
from proxy.relay.exchange.context import Context
from proxy.relay.exchange.request import Request
from proxy.relay.upstream.connection import ProviderConnection
from proxy.routing.candidates import are_cooling, cooling_left_s
from proxy.routing.fail_on import CONTEXT_LENGTH, FailOn
from proxy.routing.failover import Doubt, Failover
from proxy.routing.pool import Pool
from proxy.routing.verdict import common_status, is_transient
from proxy.wire.error_body import MOST_BYTES as ERROR_BYTES
from proxy.wire.error_body import error_words, named_window
from proxy.wire.header_lines import CREDENTIAL_HEADERS
from proxy.wire.response import Response
from proxy.wire.response_head import HEAD_TOO_LONG

log = logging.getLogger("tokenhub.provider")

# What a provider does that has waited long enough for the rest of a request, which is up to the client.
_TIRED_OF_WAITING: Final = frozenset((RESET, "408"))
REFUSED: Final = "refused the gateway's key"
_KEY_HEADERS: Final = {"bearer": "Authorization: Bearer", "x-api-key": "x-api-key", "api-key": "api-key"}
# Why an operator's side is refused, most often.
_CAUSES: Final = {
    "400": "is the model gone?",
    "402": "is the account's balance used up?",
    "403": "may the account use this model, and from here?",
    "410": "is the model gone?",
    "not-a-stream": "can it stream?",
}
# Outcomes after which nothing was made.
_NOT_TAKEN: Final = frozenset((CONNECT, "no-key", "401", "402", "403", "404", "405", "429"))
# While a request's last byte is not written, no provider can have acknowledged the whole of it.
_UNSENT_S: Final = 1.0


def may_follow(request: Request, failure: AttemptFailed) -> bool:
    """Return whether another attempt may follow one that has failed. What makes things is sent again only if
    nothing can have been made: the request was not all sent, or the response says that it was not taken."""
    if CLASSES[request.endpoint] != MAKING or not request.body.done:
        return True
    return failure.outcome in _NOT_TAKEN or (failure.outcome == "503" and failure.wait_s is not None)


def bad_status(status: int, wait_s: float | None) -> AttemptFailed:
    """A response with a status that is a failure of the provider's, whatever it says.

    :param wait_s: seconds the provider wants to be left alone.
    """
    failure = AttemptFailed(str(status), f"answered {status}", 502, "provider_failed")
    failure.has_response = True
    failure.is_refusal = status < 400
    failure.wait_s = wait_s
    return failure


def judge(response: Response, fail_on: FailOn) -> AttemptFailed | None:
    """The failure that an error is, with as much of its body as was waited for; None: it is an answer to what
    the client sent."""
    status = response.head.status
    words = error_words(response.tail()[:ERROR_BYTES]) if response.is_readable else frozenset()
    if not fail_on.is_failure(status, words):
        return None
    if status == 401:
        failure = AttemptFailed("401", REFUSED, 502, "provider_auth_failed")
    else:
        code = min(words & fail_on.words or words & GONE, default="")
        failure = AttemptFailed(
            str(status), f"answered {status}{f' ({code})' if code else ''}", 502, "provider_failed"
        )
        failure.has_response = True
        if status != 403 and CONTEXT_LENGTH in words:
            failure.is_of_size = True
            failure.window = named_window(response.tail()[:ERROR_BYTES])
    failure.is_refusal = not failure.is_of_size
    failure.is_confirmed = names_account(words)
    failure.is_gone = status != 401 and says_gone(words)
    return failure


def record_failure(request: Request, record: Record, failure: AttemptFailed, now: float) -> None:
    """Record that an attempt failed by the provider's fault, as far as is known. The record is over with it.

    :param now: monotonic seconds.
    """
    context, deployment = request.context, record.deployment
    outcome, what = failure.outcome, failure.what
    hint = _hint(request, deployment.provider, failure)
    log.warning("%s: provider %s %s%s", request.request_id.decode(), deployment.provider.name, what, hint)
    context.counters.failed(deployment.labels, outcome)
    if failure.is_of_size:
        if deployment.window.name(failure.window, now):
            log.warning(
                "%s: its provider names a context window of %d tokens, which is believed for an hour",
                deployment.id,
                failure.window,
            )
        record.finished(now)
        return
    if outcome in _TIRED_OF_WAITING and not request.body.done:
        record.left(now)
        return
    its_mark = mark(request, outcome, is_by_key=what.find(HEAD_TOO_LONG) >= 0)
    ejected = record.failed(
        now, outcome, context.rng, failure.wait_s, what, its_mark,
        failure.is_confirmed, failure.is_refusal, failure.is_gone,
    )  # fmt: skip
    _log_ejection(context, ejected, deployment, what, now)


def _hint(request: Request, provider: ProviderConfig, failure: AttemptFailed) -> str:
    """What to look at first, for the log: empty where there is nothing to be said."""
    if failure.outcome == "401" or not (
        failure.is_refusal or failure.outcome in ("web-page", "not-a-stream")
    ):
        return ""
    cause = _CAUSES.get(failure.outcome, "is base_url or upstream right?")
    return f" to POST {provider.base_url}{request.path.decode('latin-1')}: {cause}"


def no_budget(request: Request, provider: str, now: float) -> None:
    """Count that the retry budget refused a further attempt, and say so in the log: once in a while, as in an
    outage there are many.

    :param provider: where that attempt would have been.
    """
    context = request.context
    context.counters.budget_refusals += 1
    if context.budget.tells(now):
        log.warning(
            "%s: the retry budget is used up: provider %s, which is failing, is not asked as well",
            request.request_id.decode(), provider,
        )  # fmt: skip


def all_failed(chain: Failover, now: float) -> GatewayError:
    """The error after several attempts that all failed."""
    outcomes = [failure.outcome for failure in chain.failures]
    status = common_status(outcomes)
    if status == 429 or are_cooling(chain.pool, now):
        return CoolingDown(chain.pool.name, max(cooling_left_s(chain.pool, now), 1.0))
    return ProviderError(
        chain.message(), status=status, code="all_attempts_failed", should_retry=is_transient(outcomes)
    )


def log_refusal(config: ProviderConfig, endpoint: str) -> None:
    """Log that a provider responds with 401, and how the key was sent, which is the first thing to check;
    never the key itself."""
    way = config.auth_of(endpoint)
    name = _KEY_HEADERS.get(way)
    how = f'none was sent, as auth = "{way}"' if name is None else f"it was sent as {name}"
    sets = [other for other, _ in config.headers if other.lower().encode() in CREDENTIAL_HEADERS]
    if sets:
        how += f"; 'headers' of the provider set {', '.join(sets)}"
    log.error("provider %s refused the operator's key (401): %s", config.name, how)


def settle_doubts(context: Context, doubts: list[Doubt], now: float) -> None:
    """Confirm refusals of a request that another deployment has served since: they were about the key."""
    for deployment, row, its_mark, outcome in doubts:
        ejected = confirm(deployment, row, its_mark, now, context.rng.random(), outcome)
        what = REFUSED if outcome == "401" else f"answered {outcome}"
        _log_ejection(context, ejected, deployment, what, now)


def run_out(request: Request, record: Record, what: str, now: float) -> None:
    """End a record whose client's own time limit has passed, or what the chain had left: no strike and no
    failure."""
    name = record.deployment.provider.name
    log.info("%s: provider %s %s; no strike", request.request_id.decode(), name, what)
    record.left(now)


def left(request: Request, record: Record, pool: Pool, now: float, *, is_beaten: bool) -> None:
    """End a record whose attempt is left: for a quicker one (``is_beaten``), or since its client left."""
    rows = pool.streamed_rows if request.streamed else pool.plain_rows
    is_late = is_beaten and now - record.asked_at > escape_s(record.row, record.prompt_bytes, rows)
    ejected = record.left(now, is_late=is_late)
    _log_ejection(request.context, ejected, record.deployment, "was silent while others answered", now)


def none_can_be_opened(record: Record, why: str, now: float) -> AttemptFailed:
    """End a record for whose attempt this machine has no room for a connection, which is no fault of the
    provider's."""
    log.error("no connection to provider %s can be opened: %s", record.deployment.provider.name, why)
    record.left(now)
    what = f"could not be asked, as the gateway can open no connection ({why})"
    return AttemptFailed(CONNECT, what, 503, "provider_unreachable")


def is_stale(
    request: Request, record: Record, connection: ProviderConnection, now: float, *, is_reset: bool
) -> bool:
    """Return whether the provider closed a kept connection just as it was used again: then it can't have
    taken the request. What makes things is never sent twice.

    To be asked before the connection is closed on this side too.
    """
    if not connection.served or connection.answered or request.body.held is None:
        return False
    if CLASSES[request.endpoint] == MAKING:
        return False
    if connection.unsent or not request.body.done:
        return now - record.begun_at <= _UNSENT_S
    return now - record.asked_at <= connection.stale_s(is_reset)


def mark(request: Request, outcome: str, *, is_by_key: bool = False) -> int:
    """The mark of a request, where that may have provoked the failure; else 0.

    :param is_by_key: whatever its body is: no client can provoke it twice.
    """
    if outcome in (CONNECT, TIMEOUT):
        return 0
    body, grant = request.body, request.grant
    start, end = (0, 0) if body.found is None else (body.found.start, body.found.end)
    key_id = "" if grant is None else grant.id
    if is_by_key:
        return mark_of(key_id, 0, 0, 0, None)
    return mark_of(key_id, request.length or 0, start, end, body.held if body.done else None)


def _log_ejection(
    context: Context, ejected: str | None, deployment: Deployment, what: str, now: float
) -> None:
    if ejected is not None and context.knowledge is None:  # else the supervisor logs it
        name = deployment.id if ejected == "deployment" else f"provider {deployment.provider.name}"
        log.warning("%s is ejected for %.1f s: it %s", name, deployment.free_at(now) - now, what)
