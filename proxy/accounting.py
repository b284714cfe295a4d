"""What a finished attempt used and cost: read from its answer where the provider says so, else estimated.

Only what the provider says teaches the live rows. Failed attempts are never charged for; who is closed before
its end (the client left, another was faster) is, by an estimate of what it got and gave until then.
"""

from __future__ import annotations

from typing import Final

from proxy.answer import Answer
from proxy.peek import holds_error, is_error
from proxy.record import Record
from proxy.usage import Usage, estimate, partial_usage, price_nusd, read_events, read_plain

# Where tokens are what is paid for, so that there is something to estimate.
_BY_TOKENS: Final = frozenset({"chat", "completions", "responses", "messages", "embeddings", "rerank"})
# How many bytes of text one byte of an answer stands for that can't be read, as it is compressed.
_UNPACKED: Final = 4

Charge = tuple[Usage | None, int | None]
NOTHING: Final[Charge] = (None, None)


def account(
    record: Record, answer: Answer, endpoint: str, prompt_bytes: int, output_s: float, now: float
) -> Charge:
    """End the record of an answer that has come to its end.

    :param prompt_bytes: size of the request's text, or 0 where it is not known: then it teaches nothing.
    :param output_s: seconds from the answer's first to its last byte.
    :param now: monotonic seconds.
    :returns: what the provider says it used, and its price in nano-USD, as far as known.
    """
    head = answer.head
    record.finished(now)
    if not _is_served(head.status) or not answer.is_readable:
        return NOTHING
    if head.event_stream:
        usage = read_events(answer.tail(), endpoint, answer.first)
    else:
        usage = read_plain(answer.tail(), endpoint, answer.aside)
        output_s = 0.0
    # No prompt has no tokens: the event that counts them was too far away.
    if usage is None or (endpoint == "messages" and not usage.input_tokens):
        return NOTHING
    cost_nusd = price_nusd(usage, record.deployment.prices)
    record.charged(now, prompt_bytes, usage, None if cost_nusd is None else cost_nusd * 1e-9, output_s)
    return usage, cost_nusd


def estimated(record: Record, answer: Answer | None, endpoint: str, prompt_bytes: int, now: float) -> Charge:
    """What an attempt is charged for whose provider does not, or can no longer, say what it used.

    :param answer: as far as it came; None: not at all.
    :param prompt_bytes: size of the request's text, or of all of it.
    """
    if endpoint not in _BY_TOKENS or (answer is not None and not _is_served(answer.head.status)):
        return NOTHING
    output_bytes, streamed, seen = 0, False, None
    if answer is not None:
        streamed = answer.head.event_stream
        output_bytes = answer.passed_bytes
        if not answer.is_readable:
            output_bytes *= _UNPACKED
        elif is_error(answer.first or answer.tail()) if streamed else holds_error(answer.tail()):
            return NOTHING  # a failure, whatever its status says
        elif streamed:
            seen = partial_usage(answer.tail(), answer.first, endpoint)
    writes = endpoint not in ("embeddings", "rerank")
    per_byte = record.row.tokens_per_byte(now)
    usage = estimate(prompt_bytes, per_byte, output_bytes if writes else 0, streamed=streamed)
    if seen is not None and endpoint == "responses":  # only their last event has one
        usage = seen
    elif seen is not None:
        output = max(seen.output_tokens, usage.output_tokens)
        given = seen.input_tokens or usage.input_tokens
        usage = seen._replace(input_tokens=given, output_tokens=output, estimated=True)
    return usage, price_nusd(usage, record.deployment.prices)


def _is_served(status: int) -> bool:
    """Whether an answer is one that is paid for: no error, no redirect, and with a body."""
    return 200 <= status < 300 and status not in (204, 205)
