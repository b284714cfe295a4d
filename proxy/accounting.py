"""What a finished answer teaches: its outcome, its usage and its price, into the live row."""

from __future__ import annotations

from proxy.answer import Answer
from proxy.catalog import Deployment
from proxy.meters import Row
from proxy.usage import price_nusd, read_events, read_plain


def account(
    row: Row,
    deployment: Deployment,
    answer: Answer,
    endpoint: str,
    prompt_bytes: int,
    output_s: float,
    now: float,
) -> None:
    """Feed the live row from an answer that has come to its end.

    :param prompt_bytes: size of the request's text, or 0 where it is not known.
    :param output_s: seconds from the answer's first to its last byte.
    :param now: monotonic seconds.
    """
    head = answer.head
    status = head.status
    # A request's own mistake (4xx) is a success of the provider; 408 and 429 are not the request's.
    if status >= 400:
        success = status < 500 and status not in (401, 408, 429)
        row.finished(now, success, None if success else f"HTTP {status}")
        return
    row.finished(now, True)
    if head.encoded:
        return
    if head.event_stream:
        usage = read_events(answer.tail(), endpoint, answer.first)
    else:
        usage = read_plain(answer.tail(), endpoint)
        output_s = 0.0
    if usage is not None:
        cost_nusd = price_nusd(usage, deployment.prices)
        row.charged(now, prompt_bytes, usage, None if cost_nusd is None else cost_nusd * 1e-9, output_s)
