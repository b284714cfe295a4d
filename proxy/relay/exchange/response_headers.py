"""The header lines that the gateway adds to a response: who served it, the story of its attempts, limits.

docs/api.md has their names. All functions take the exchange as it stands when the head goes out.
"""

from __future__ import annotations

from proxy.endpoints import ANTHROPIC
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.routing.failover import redial_part
from proxy.wire.header_lines import without
from proxy.wire.response import Response
from proxy.wire.response_head import ResponseHead


def response_lines(exchange: ExchangeState, attempt: Attempt, response: Response, now: float) -> bytes:
    """The lines for a provider's answer, without a CRLF at the end.

    :param now: monotonic seconds, at the response's head.
    """
    request, context, chain = exchange.request, exchange.request.context, exchange.chain
    names = served_by(exchange, attempt)
    if chain is not None and (chain.failures or chain.refused):
        names += chain.story() + b", "
    if attempt.redialled:
        names += redial_part(attempt.provider.name, attempt.redial_s) + b", "
    if request.permit is not None:
        names = limits_left(exchange, response, now) + names
    took_ms = int((now - attempt.record.begun_at) * 1000)
    ours = b"X-Inferoute-Request-Id: %b\r\n%b%b:%d:%dms" % (
        request.request_id, names, attempt.provider.name, response.head.status, took_ms,
    )  # fmt: skip
    if request.endpoint in ANTHROPIC and not response.head.has_request_id:  # where its SDKs look for it
        ours += b"\r\nrequest-id: " + request.request_id
    if response.head.event_stream and response.head.status < 400:
        ours += stream_lines(response.head)
    if context.server_timing:
        own_ms = (request.sent_at - request.settled_at) * 1000
        upstream_ms = (now - request.sent_at) * 1000
        ours += b"\r\nServer-Timing: gateway;dur=%.3f, upstream;dur=%.3f" % (own_ms, upstream_ms)
    if context.cors is not None and request.head.origin:
        ours = context.cors.lines(request.head.origin) + ours
    return ours


def stream_lines(head: ResponseHead) -> bytes:
    """The lines that keep proxies from holding or storing an event stream, each with a CRLF before it. The
    provider's own go before ours."""
    lines = b"" if head.tells_buffering else b"\r\nX-Accel-Buffering: no"
    return lines if head.tells_caching else lines + b"\r\nCache-Control: no-cache"


def failure_lines(exchange: ExchangeState, attempt: Attempt) -> bytes:
    """The lines for an error of the gateway's own after the last attempt, with a CRLF at the end."""
    assert exchange.chain is not None
    return served_by(exchange, attempt) + exchange.chain.story() + b"\r\n"


def served_by(exchange: ExchangeState, attempt: Attempt) -> bytes:
    """The lines that name provider, model and strategy, up to where the story of the attempts begins."""
    return exchange.request.routes.response_names(attempt.deployment, attempt.pool)


def limits_left(exchange: ExchangeState, response: Response | None, now: float) -> bytes:
    """The lines for the rest of the key's limits; the provider's own lines by these names are dropped.

    :param now: monotonic seconds.
    """
    if exchange.request.permit is None:
        return b""
    assert exchange.request.grant is not None
    account = exchange.request.grant.account
    if response is not None and response.head.tells_limits:
        response.head.lines = without(response.head.lines, account.header_names)
    return account.header_lines(exchange.request.permit, now, exchange.request.context.unix_offset_s)
