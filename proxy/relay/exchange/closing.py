"""The end of a request: a line that says all about it, for the ledger and for the latest requests; its key's
account; and what is counted for metrics.

It comes before the last bytes of the answer go out, so that what a client has seen finished is accounted for.
The line is kept as it is written, and not built of objects: what is usual is one format, which costs half of
what a dictionary made into JSON does where caches are full of other things, as under load.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.access.grants import Grant
from proxy.relay.exchange.attempt import Attempt
from proxy.relay.exchange.charge import Extra
from proxy.relay.exchange.exchange_state import ExchangeState
from proxy.routing.failover import story
from proxy.routing.pool import Pool
from proxy.usage.counters import NOBODY, Told, counted_as
from proxy.usage.tokens import Usage

# Model names are shorter than this; unknown names are cut.
_MAX_NAME_CHARS: Final = 200
# Fractions come from tables: a float takes six times as long to write as two integers.
_START: Final = b'{"id":"%b","t":%d.%b,"key":%b,%b,"status":%d,"attempts":%d,"ms":%d.%b'
_USUAL: Final = (
    _START + b',"ttft_ms":%d.%b,"overhead_us":%d,"input":%d,"output":%d,"nusd":%d,"source":"%b"}\n'
)
_HUNDREDTHS: Final = [b"%02d" % number for number in range(100)]
_THOUSANDTHS: Final = [b"%03d" % number for number in range(1000)]
_SOURCES: Final = (b"provider", b"estimated")


def close(exchange: ExchangeState, status: int, now: float, others: int) -> bytes:
    """Write the ledger line of a request, count it, and settle its key. Drops the attempts, which refer back
    to the exchange.

    :param status: of the answer to the client.
    :param now: monotonic seconds.
    :param others: attempts that did not fail.
    """
    request, attempt = exchange.request, exchange.attempt
    grant, context = request.grant, request.context
    if context.tracing is not None:
        context.tracing.end(exchange, attempt, exchange.answer is not None, status, now)
    exchange.attempt = exchange.rival = None
    unix_s = now + context.unix_offset_s
    tokens = nusd = 0
    try:
        if attempt is None:
            line, tokens, nusd = _unusual(exchange, None, None, status, now, others, unix_s)
            _count_refusal(exchange, status)
        else:
            usage, cost_nusd = attempt.charge
            begun_at, answered_at, pool = request.begun_at, attempt.answered_at, request.pool
            assert pool is not None
            told = pool.told.get((attempt.deployment, request.streamed)) or _tell(exchange, attempt, pool)
            if (
                usage is None or cost_nusd is None or not answered_at or exchange.chain is not None
                or usage[1] or usage[2] or usage[4]
            ):  # fmt: skip
                line, tokens, nusd = _unusual(exchange, attempt, told, status, now, others, unix_s)
            else:
                tokens, nusd = usage[0] + usage[3], cost_nusd
                at_ms, took, waited = _clocks(unix_s, now - begun_at, answered_at - begun_at)
                line = _USUAL % (
                    request.request_id, at_ms // 1000, _THOUSANDTHS[at_ms % 1000],
                    b"null" if grant is None else grant.id_json, told.what, status, others,
                    took // 100, _HUNDREDTHS[took % 100], waited // 100, _HUNDREDTHS[waited % 100],
                    int((request.sent_at - request.settled_at) * 1e6), usage[0], usage[3], nusd,
                    _SOURCES[usage[5]],
                )  # fmt: skip
            _count(exchange, attempt, told, status, now)
    finally:  # whatever fails, what the request held of its key's limits is let go of
        if grant is not None and (attempt is not None or request.permit is not None):
            grant.account.settle(request.permit, unix_s, tokens, nusd)
    return line


def _clocks(unix_s: float, took_s: float, waited_s: float) -> tuple[int, int, int]:
    """Milliseconds since 1970, and two durations in hundredths of one."""
    return int(unix_s * 1000.0 + 0.5), int(took_s * 1e5 + 0.5), int(waited_s * 1e5 + 0.5)


def _unusual(
    exchange: ExchangeState, attempt: Attempt | None, told: Told | None, status: int, now: float, others: int,
    unix_s: float,
) -> tuple[bytes, int, int]:  # fmt: skip
    """The line with whatever else there is, or without what there is not; the tokens and nano-USD in it."""
    chain, grant, begun_at = exchange.chain, exchange.request.grant, exchange.request.begun_at
    rest: dict[str, Any] = {}
    tokens = nusd = 0
    if exchange.request.sent_at:
        rest["overhead_us"] = int((exchange.request.sent_at - exchange.request.settled_at) * 1e6)
    if attempt is not None:
        if attempt.answered_at:
            rest["ttft_ms"] = round((attempt.answered_at - begun_at) * 1000.0, 2)
        usage, cost_nusd = attempt.charge
        if usage is not None:
            tokens, nusd = usage.input_tokens + usage.output_tokens, cost_nusd or 0
            rest |= {"input": usage.input_tokens, "output": usage.output_tokens, "nusd": cost_nusd}
            rest["source"] = _SOURCES[usage.estimated].decode()
            rest |= _parts(usage)
    if chain is not None:
        others += len(chain.failures)
        rest["failed"] = story(chain.failures).decode()
    if exchange.extras:
        rest["hedged"] = [_charge(extra) for extra in exchange.extras]
        tokens += sum(extra.usage.input_tokens + extra.usage.output_tokens for extra in exchange.extras)
        nusd += sum(extra.cost_nusd or 0 for extra in exchange.extras)
    key = b"null" if grant is None else grant.id_json
    what = _asked(exchange) if told is None else told.what
    at_ms, took, _ = _clocks(unix_s, now - begun_at, 0.0)
    start = _START % (
        exchange.request.request_id, at_ms // 1000, _THOUSANDTHS[at_ms % 1000], key, what, status, others,
        took // 100, _HUNDREDTHS[took % 100],
    )  # fmt: skip
    more = b"," + orjson.dumps(rest)[1:-1] if rest else b""
    return start + more + b"}\n", tokens, nusd


def _asked(exchange: ExchangeState) -> bytes:
    """The members of the line that say what was asked."""
    found, pool = exchange.request.body.found, exchange.request.pool
    if pool is not None:
        name: str | None = pool.name
    else:
        name = None if found is None or found.name is None else found.name[:_MAX_NAME_CHARS]
    said = {"endpoint": exchange.request.endpoint, "stream": exchange.request.streamed, "asked": name}
    return orjson.dumps(said)[1:-1]


def _tell(exchange: ExchangeState, attempt: Attempt, pool: Pool) -> Told:
    """The part of the line that all requests of a pool and deployment share: kept with the pool."""
    deployment = attempt.deployment
    who = orjson.dumps({"model": deployment.id, "provider": deployment.provider.name})
    what = b"%b,%b" % (_asked(exchange), who[1:-1])
    told = exchange.request.context.counters.tell(what, deployment.labels, exchange.request.endpoint)
    pool.told[deployment, exchange.request.streamed] = told
    return told


def _parts(usage: Usage) -> dict[str, int]:
    """Parts of the tokens, where there are any."""
    parts = {
        "cached": usage.cached_tokens,
        "cache_write": usage.cache_write_tokens,
        "reasoning": usage.reasoning_tokens,
    }
    return {name: tokens for name, tokens in parts.items() if tokens}


def _charge(extra: Extra) -> dict[str, object]:
    deployment, usage, cost_nusd = extra
    return {
        "model": deployment.id,
        "provider": deployment.provider.name,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "nusd": cost_nusd,
    }


def _count(exchange: ExchangeState, attempt: Attempt, told: Told, status: int, now: float) -> None:
    """A request that was sent to somebody."""
    request = exchange.request
    counters, grant = request.context.counters, request.grant
    key = b"" if grant is None else grant.id_json
    kind = counted_as(status)
    used = told.by_key.get((key, kind))
    if used is None:
        used = told.by_key[key, kind] = counters.used(attempt.deployment.labels, _id(grant), status)
    used.requests += 1
    usage, cost_nusd = attempt.charge
    if usage is not None:
        used.add(usage, cost_nusd or 0)
    if request.sent_at:
        counters.overhead.add(int((request.sent_at - request.settled_at) * 1e6))
    if status < 400 and attempt.answered_at:
        _, took, waited = _clocks(0.0, now - request.begun_at, attempt.answered_at - request.begun_at)
        told.times.add(took, waited, usage)
    for extra in exchange.extras:
        counters.used(extra.deployment.labels, _id(grant), status).add(extra.usage, extra.cost_nusd or 0)


def _count_refusal(exchange: ExchangeState, status: int) -> None:
    """A request that was sent to nobody."""
    exchange.request.context.counters.used(NOBODY, _id(exchange.request.grant), status).requests += 1


def _id(grant: Grant | None) -> str:
    return "" if grant is None else grant.id
