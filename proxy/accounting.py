"""What a finished attempt used and cost: read from its answer where the provider says so, else estimated.

Only what the provider says teaches the live rows. Failed attempts are never charged for; who is closed before
its end (the client left or gave no time, another was faster) is, by an estimate of what it got and gave until
then.
"""

from __future__ import annotations

from typing import Final

import orjson

from proxy.admission import Most
from proxy.answer import Answer
from proxy.asked import LIMITS_AT
from proxy.peek import holds_error, is_error
from proxy.record import Record
from proxy.tokens import Usage
from proxy.usage import partial_usage, price_nusd, read_events, read_plain
from proxy.written import stream_tokens

# Where tokens are what is paid for, so that there is something to estimate.
_BY_TOKENS: Final = frozenset({"chat", "completions", "responses", "messages", "embeddings", "rerank"})
# How many bytes of text one byte of an answer stands for that can't be read, as it is compressed.
_UNPACKED: Final = 4
_BYTES_A_TOKEN: Final = 4
# How fast models write where nothing was seen: 100 tokens a second.
_USUAL_S_A_TOKEN: Final = 0.01
# More than so many times what was seen must have been written unseen: paces differ by less.
_HIDDEN: Final = 2

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
    tail = answer.tail()
    if head.event_stream or (tail[:1] != b"{" and answer.is_stream):
        usage = read_events(tail, endpoint, answer.first, answer.aside)
    else:
        usage = read_plain(tail, endpoint, answer.aside)
        output_s = 0.0
    # No prompt has no tokens: the event that counts them was too far away, or nothing was counted.
    if usage is None or (not usage.input_tokens and (endpoint == "messages" or not usage.output_tokens)):
        return NOTHING
    cost_nusd = price_nusd(usage, record.deployment.prices)
    usd = None if cost_nusd is None else cost_nusd * 1e-9
    record.row.charged(now, prompt_bytes, usage, usd, output_s, record.worked_s(now))
    return usage, cost_nusd


def estimated(
    record: Record,
    answer: Answer | None,
    endpoint: str,
    most: Most,
    now: float,
    *,
    is_over: bool,
    is_async: bool,
) -> Charge:
    """What an attempt is charged for whose provider does not, or can no longer, say what it used: by what
    came of its answer and by the time it took, and never more than ``most``.

    :param answer: as far as it came; None: not at all.
    :param is_over: the provider has sent all of it.
    :param is_async: it was asked for behind the client's back, so the provider goes on whatever happens here.
    """
    if endpoint not in _BY_TOKENS or (answer is not None and not _is_served(answer.head.status)):
        return NOTHING
    seen, written = None, 0
    if answer is not None:
        streamed = answer.is_stream
        tail = answer.tail()
        if answer.is_readable and (is_error(answer.first or tail) if streamed else holds_error(tail)):
            return NOTHING  # a failure, whatever its status says
        if not answer.is_readable:
            written = answer.passed_bytes * _UNPACKED // _BYTES_A_TOKEN
        elif streamed:
            seen = partial_usage(tail, answer.first, endpoint)
            written = stream_tokens(tail, answer.passed_bytes)
        else:
            written = answer.passed_bytes // _BYTES_A_TOKEN
    if endpoint not in LIMITS_AT:
        output = 0
    elif is_async or (answer is not None and is_over and (not answer.is_readable or _is_put_off(answer))):
        output = most.output
    else:
        output = min(_output(record, endpoint, written, now, is_over=is_over), most.output)
    usage = Usage(most.given, output_tokens=output, estimated=True)
    if seen is not None and endpoint == "responses":  # only their last event has one
        usage = seen
    elif seen is not None:
        given = seen.input_tokens or usage.input_tokens
        usage = seen._replace(
            input_tokens=given, output_tokens=max(seen.output_tokens, output), estimated=True
        )
    return usage, price_nusd(usage, record.deployment.prices)


def _output(record: Record, endpoint: str, written: int, now: float, *, is_over: bool) -> int:
    """Tokens written: those that were seen; or those of the time it had, where that is much more, as models
    think before they write, and plain answers come at their end."""
    pace_s = record.row.work_s_per_token.mean()
    if pace_s is None:  # an answer of the other kind takes as long
        pace_s = record.deployment.row(endpoint, not record.streamed).work_s_per_token.mean()
    if not pace_s:
        if is_over or written:
            return written
        pace_s = _USUAL_S_A_TOKEN
    timed = int(record.worked_s(now) / pace_s)
    return timed if timed > _HIDDEN * written else written


def _is_put_off(answer: Answer) -> bool:
    """The answer is a promise of one."""
    if answer.head.status == 202:
        return True
    try:
        found = orjson.loads(answer.tail())
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("status") in ("queued", "in_progress")


def _is_served(status: int) -> bool:
    """Whether an answer is one that is paid for: no error, no redirect, and with a body."""
    return 200 <= status < 300 and status not in (204, 205)
