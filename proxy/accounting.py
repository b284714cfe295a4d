"""What a finished answer teaches: its outcome, its usage and its price, into the live tables."""

from __future__ import annotations

from proxy.answer import Answer
from proxy.record import Record
from proxy.usage import Usage, price_nusd, read_events, read_plain


def account(
    record: Record, answer: Answer, endpoint: str, prompt_bytes: int, output_s: float, now: float
) -> tuple[Usage | None, int | None]:
    """End the record of an answer that has come to its end.

    :param prompt_bytes: size of the request's text, or 0 where it is not known.
    :param output_s: seconds from the answer's first to its last byte.
    :param now: monotonic seconds.
    :returns: what the provider says it used, and its price in nano-USD, as far as known.
    """
    head = answer.head
    record.finished(now)
    if head.status >= 400 or head.encoded:
        return None, None
    if head.event_stream:
        usage = read_events(answer.tail(), endpoint, answer.first)
    else:
        usage = read_plain(answer.tail(), endpoint)
        output_s = 0.0
    if usage is None:
        return None, None
    cost_nusd = price_nusd(usage, record.deployment.prices)
    record.charged(now, prompt_bytes, usage, None if cost_nusd is None else cost_nusd * 1e-9, output_s)
    return usage, cost_nusd
