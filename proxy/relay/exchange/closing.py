"""The end of a request: a line that says all about it, for the ledger and for the latest requests; its key's
account; and what is counted for metrics.

It comes before the last bytes of the response go out, so that what a client has seen finished is accounted
for.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.access.grants import Grant
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.charge import Extra
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.relay.exchange.request import Request
from proxy.routing.pool import Pool
from proxy.usage.counters import NOBODY, CountedPrefix, counted_as
from proxy.usage.line import any_line, asked_of, hundredths, overtaken, sent_to, used, usual_line
from proxy.usage.pricing import saved_nusd

# Model names are shorter than this; unknown names are cut.
_MAX_NAME_CHARS: Final = 200


def close(exchange: ExchangeState, status: int, now: float, others: int) -> bytes:
    """Write the ledger line of a request, count it, and settle its key. Drops the attempts, which refer back
    to the exchange.

    :param status: of the response to the client.
    :param now: monotonic seconds.
    :param others: attempts that did not fail.
    """
    request, attempt = exchange.request, exchange.attempt
    grant, context, was_sent = request.grant, request.context, exchange.was_sent()
    if context.tracing is not None:
        context.tracing.end(exchange, attempt, exchange.response is not None, status, now)
    exchange.attempt = exchange.hedged_attempt = None
    unix_s = now + context.unix_offset_s
    tokens = nusd = 0
    try:
        if attempt is None:
            line, tokens, nusd = _unusual(exchange, None, None, status, now, others, unix_s)
            _count_refusal(exchange, status)
            _count_hedge_charges(exchange, status)
        else:
            usage, cost_nusd = attempt.charge
            begun_at, answered_at, pool = request.begun_at, _shown_at(attempt), request.pool
            assert pool is not None
            prefix = pool.prefixes.get((attempt.deployment, request.streamed)) or _prefix(
                exchange, attempt, pool
            )
            if (
                usage is None or cost_nusd is None or not answered_at or exchange.chain is not None
                or usage.cached_tokens or usage.cache_write_tokens or usage.reasoning_tokens
                or usage.audio_input_tokens or usage.audio_output_tokens
            ):  # fmt: skip
                line, tokens, nusd = _unusual(exchange, attempt, prefix, status, now, others, unix_s)
            else:
                tokens, nusd = usage.input_tokens + usage.output_tokens, cost_nusd
                line = usual_line(
                    request.request_id, unix_s, _who(request), prefix.members,
                    status, others, hundredths(now - begun_at), hundredths(answered_at - begun_at),
                    int((request.sent_at - request.settled_at) * 1e6), usage, nusd,
                )  # fmt: skip
            _count(exchange, attempt, prefix, status, now)
            _count_hedge_charges(exchange, status)
    finally:  # whatever fails, what the request held of its key's limits is let go of
        if grant is not None and (was_sent or request.permit is not None):
            grant.account.settle(request.permit, unix_s, tokens, nusd)
    return line


def _unusual(
    exchange: ExchangeState, attempt: Attempt | None, prefix: CountedPrefix | None, status: int, now: float,
    others: int, unix_s: float,
) -> tuple[bytes, int, int]:  # fmt: skip
    """The line with whatever else there is, or without what there is not; the tokens and nano-USD in it."""
    chain, begun_at = exchange.chain, exchange.request.begun_at
    rest: dict[str, Any] = {}
    tokens = nusd = 0
    if exchange.request.sent_at:
        rest["overhead_us"] = int((exchange.request.sent_at - exchange.request.settled_at) * 1e6)
    if attempt is not None:
        if shown_at := _shown_at(attempt):
            rest["ttft_ms"] = round((shown_at - begun_at) * 1000.0, 2)
        usage, cost_nusd = attempt.charge
        if usage is not None:
            tokens, nusd = usage.input_tokens + usage.output_tokens, cost_nusd or 0
            rest |= used(usage, cost_nusd)
            if usage.cached_tokens and (saved := saved_nusd(usage, attempt.deployment.prices)):
                rest["saved"] = saved
    if chain is not None:
        others += len(chain.failures)
        rest["failed"] = chain.story().decode()
    if exchange.hedge_charges:
        rest["hedged"] = [_charge(extra) for extra in exchange.hedge_charges]
        tokens += sum(
            extra.usage.input_tokens + extra.usage.output_tokens for extra in exchange.hedge_charges
        )
        nusd += sum(extra.cost_nusd or 0 for extra in exchange.hedge_charges)
    what = _asked(exchange) if prefix is None else prefix.members
    request = exchange.request
    took = hundredths(now - begun_at)
    return any_line(request.request_id, unix_s, _who(request), what, status, others, took, rest), tokens, nusd


def _who(request: Request) -> bytes:
    """The line's value of ``key``, and the members behind it that say for whom a request was."""
    tagged = request.tagged
    if tagged is not None:
        return tagged.members
    grant = request.grant
    return b"null" if grant is None else grant.who


def _asked(exchange: ExchangeState) -> bytes:
    """The members of the line that say what was asked."""
    found, pool = exchange.request.body.found, exchange.request.pool
    if pool is not None:
        name: str | None = pool.name
        alias = "" if pool.alias is None else pool.alias.name
    else:
        name = None if found is None or found.name is None else found.name[:_MAX_NAME_CHARS]
        alias = ""
    return asked_of(exchange.request.endpoint, exchange.request.streamed, name, alias)


def _prefix(exchange: ExchangeState, attempt: Attempt, pool: Pool) -> CountedPrefix:
    """The part of the line that all requests of a pool and deployment share: kept with the pool."""
    deployment = attempt.deployment
    what = sent_to(_asked(exchange), deployment.id, deployment.provider.name)
    prefix = exchange.request.context.counters.prefix(what, deployment.labels, exchange.request.endpoint)
    pool.prefixes[deployment, exchange.request.streamed] = prefix
    return prefix


def _charge(extra: Extra) -> dict[str, object]:
    return overtaken(extra.deployment.id, extra.deployment.provider.name, extra.usage, extra.cost_nusd)


def _count(exchange: ExchangeState, attempt: Attempt, prefix: CountedPrefix, status: int, now: float) -> None:
    """A request that was sent to somebody."""
    request = exchange.request
    counters, grant = request.context.counters, request.grant
    key = b"" if grant is None else grant.id_json
    kind = counted_as(status)
    counter = prefix.by_key.get((key, kind))
    if counter is None:
        counter = prefix.by_key[key, kind] = counters.used(attempt.deployment.labels, _id(grant), status)
    counter.requests += 1
    usage, cost_nusd = attempt.charge
    if usage is not None:
        counter.add(usage, cost_nusd or 0)
    if request.tagged is not None:
        for tag_counter in request.tagged.counters:
            tag_counter.requests += 1
            if usage is not None:
                tag_counter.add(usage, cost_nusd or 0)
    if request.sent_at:
        counters.overhead.add(int((request.sent_at - request.settled_at) * 1e6))
    shown_at = _shown_at(attempt)
    if status < 400 and shown_at:
        took, waited = hundredths(now - request.begun_at), hundredths(shown_at - request.begun_at)
        prefix.times.add(took, waited, usage)


def _count_hedge_charges(exchange: ExchangeState, status: int) -> None:
    """Attempts beside the one that the request ended with."""
    for extra in exchange.hedge_charges:
        counter = exchange.request.context.counters.used(
            extra.deployment.labels, _id(exchange.request.grant), status
        )
        counter.add(extra.usage, extra.cost_nusd or 0)
        if exchange.request.tagged is not None:
            for tag_counter in exchange.request.tagged.counters:
                tag_counter.add(extra.usage, extra.cost_nusd or 0)


def _count_refusal(exchange: ExchangeState, status: int) -> None:
    """A request that no attempt ended."""
    request = exchange.request
    request.context.counters.used(NOBODY, _id(request.grant), status).requests += 1
    if request.tagged is not None:
        for tag_counter in request.tagged.counters:
            tag_counter.requests += 1


def _shown_at(attempt: Attempt) -> float:
    """When the response showed its first output; of one that has none, its first byte; 0: it has none."""
    return attempt.record.first_byte_at or attempt.answered_at


def _id(grant: Grant | None) -> str:
    return "" if grant is None else grant.id
