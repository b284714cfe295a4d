"""The end of a request: one line that says all about it, for the ledger and for the latest requests, and its
key's account.

It comes before the last bytes of the answer go out, so that what a client has seen finished is accounted for.
The line is kept as it is written: one object for each request, and nothing is worked out for rows that nobody
may ask for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from proxy.recent import Extra
from proxy.retry import story

if TYPE_CHECKING:
    from proxy.exchange import Exchange


def close(exchange: Exchange, status: int, now: float, others: int) -> None:
    """From here no attempt is held, since it holds the exchange.

    :param status: of the answer to the client.
    :param now: monotonic seconds.
    :param others: attempts that did not fail.
    """
    attempt, found, chain, grant = exchange.attempt, exchange.body.found, exchange.chain, exchange.grant
    exchange.attempt = exchange.rival = None
    gateway, begun_at, sent_at = exchange.gateway, exchange.begun_at, exchange.sent_at
    unix_s = now + gateway.unix_offset_s
    line: dict[str, Any] = {
        "id": exchange.request_id.decode(),
        "t": unix_s,
        "key": None if grant is None else grant.id,
        "endpoint": exchange.endpoint,
        "stream": exchange.streamed,
        "asked": None if found is None else found.name,
        "status": status,
        "attempts": others,
        "ms": (now - begun_at) * 1000.0,
    }
    if chain is not None:
        line["attempts"] += len(chain.failures)
        line["failed"] = story(chain.failures).decode()
    if sent_at:
        line["overhead_us"] = (sent_at - exchange.settled_at) * 1e6
    tokens = nusd = 0
    if attempt is not None:
        deployment, answered_at = attempt.deployment, attempt.answered_at
        line["model"] = deployment.id
        line["provider"] = deployment.provider.name
        if answered_at:
            line["ttft_ms"] = (answered_at - begun_at) * 1000.0
        usage, cost_nusd = attempt.charge
        if usage is not None:
            given, cached, written, output, reasoning, is_estimated, *_ = usage
            tokens, nusd = given + output, cost_nusd or 0
            line["input"] = given
            line["output"] = output
            line["nusd"] = cost_nusd
            line["source"] = "estimated" if is_estimated else "provider"
            if cached:
                line["cached"] = cached
            if written:
                line["cache_write"] = written
            if reasoning:
                line["reasoning"] = reasoning
    for extra in exchange.extras:
        line.setdefault("hedged", []).append(_charge(extra))
        tokens += extra.usage.input_tokens + extra.usage.output_tokens
        nusd += extra.cost_nusd or 0
    if grant is not None and (attempt is not None or exchange.permit is not None):
        grant.account.settle(exchange.permit, unix_s, tokens, nusd)
    written_line = orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    gateway.finished.append(written_line)
    if attempt is not None:  # else it was sent to nobody: there is nothing to account for
        gateway.ledger.write(written_line)


def _charge(extra: Extra) -> dict[str, object]:
    deployment, usage, cost_nusd = extra
    return {
        "model": deployment.id,
        "provider": deployment.provider.name,
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "nusd": cost_nusd,
    }
