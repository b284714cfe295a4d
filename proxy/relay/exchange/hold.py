"""What a response is held for before the client gets any of it, and what is wrong with one that says 200.

Whether an attempt has failed shows by more than the head. Where another member or a fallback could follow, an
event stream is held until it shows output, and a plain answer to its end: nothing of a half is of any use to
a client. Where nothing could follow all passes as it comes, and what is wrong with it is recorded all the
same: a provider that answers nonsense at once must not be taken for a fast one.
"""

from __future__ import annotations

import time
from typing import Final

from proxy.deployments.record import RESET
from proxy.endpoints import WRITING
from proxy.errors import AttemptFailed
from proxy.relay.exchange.end_policy import NO_END
from proxy.relay.exchange.failures import bad_status, judge, log_refusal
from proxy.relay.exchange.request import Request
from proxy.relay.upstream.provider import Provider
from proxy.routing.fail_on import FailOn
from proxy.routing.pool import Pool
from proxy.wire.error_body import MOST_BYTES as ERROR_BYTES
from proxy.wire.lead_in import EMPTY, ERROR, LEAD_IN
from proxy.wire.lead_in import MOST_BYTES as LEAD_IN_BYTES
from proxy.wire.response import Response
from proxy.wire.response_head import ResponseHead
from proxy.wire.retry_after import retry_after_s
from proxy.wire.sse import holds_error

# What it is held for.
NOTHING: Final = 0
OUTPUT: Final = 1  # of an event stream
WHOLE: Final = 2  # a plain answer, to its end
REASON: Final = 3  # of an error, whose body says whether it is a failure
# Seconds from its head for which a stream is held, and an error.
PEEK_S: Final = 2.0
REASON_S: Final = 1.0
# A plain answer that is larger goes out as it comes.
_WHOLE_BYTES: Final = 1 << 20
# Endpoints whose plain answers are JSON, of which a half is of no use.
_JSON: Final = frozenset((
    "chat", "completions", "responses", "messages", "embeddings", "rerank", "moderations",
))  # fmt: skip
_NO_ANSWERS: Final = (b"", b"{}", b"[]", b"null")
_LONGEST_OF_THEM: Final = 64  # with white space around it


def most_held(waits_for: int) -> int:
    """Return the number of bytes that are held, the head not counted: what is larger goes out."""
    if waits_for == WHOLE:
        return _WHOLE_BYTES
    return LEAD_IN_BYTES if waits_for == OUTPUT else 2 * ERROR_BYTES


def read_head(
    request: Request, pool: Pool, provider: Provider, response: Response
) -> tuple[int, AttemptFailed | None]:
    """Return what a response is held for, by its head; and the failure, if it is one already."""
    head = response.head
    if head.status < 300:
        failure = _wrong_head(request, head)
        return (_held_for(request, pool, head), None) if failure is None else (NOTHING, failure)
    status, fail_on = head.status, pool.fail_on
    if status == 401:
        if provider.passthrough:
            return NOTHING, None
        log_refusal(provider.config, request.endpoint)
    if fail_on.needs_body(status):
        # Nothing is waited for while the client still sends what nobody reads.
        return (REASON, None) if request.body.done else (NOTHING, judge(response, fail_on))
    if not fail_on.by_status(status):
        return NOTHING, None
    wait_s = retry_after_s(head.lines, time.time()) if status in (429, 503) else None
    return NOTHING, bad_status(status, wait_s)


def _held_for(request: Request, pool: Pool, head: ResponseHead) -> int:
    if not request.can_retry or request.body.held is None:
        return NOTHING
    if head.event_stream:
        return OUTPUT if pool.peek and not head.encoded else NOTHING
    if request.streamed or head.status != 200 or request.endpoint not in _JSON:
        return NOTHING
    return WHOLE if head.length is None or head.length <= _WHOLE_BYTES else NOTHING


def is_unstreamed(request: Request, head: ResponseHead) -> bool:
    """Return whether a 200 is a plain answer to a request for a stream. It is one all the same: where it
    passes, it is charged."""
    return head.status == 200 and request.streamed and head.is_json and request.endpoint in WRITING


def _wrong_head(request: Request, head: ResponseHead) -> AttemptFailed | None:
    """The failure that a 200 is by its type: a page of somebody else's, or JSON where a stream was asked
    for."""
    if head.status != 200 or head.event_stream:
        return None
    if head.is_page:
        return _failed("web-page", "answered with a web page")
    if is_unstreamed(request, head):
        return _failed("not-a-stream", "answered without the stream that was asked for")
    return None


def decide(
    request: Request, fail_on: FailOn, response: Response, waits_for: int
) -> tuple[bool, AttemptFailed | None]:
    """Return whether a response shows by now what it is; and the failure, if it is one.

    :param waits_for: what it is held for.
    """
    is_whole = response.body.done
    if waits_for == REASON:
        if not is_whole and response.passed_bytes <= ERROR_BYTES:
            return False, None
        return True, judge(response, fail_on)
    if response.head.status >= 300:
        return True, None
    lead_in = response.lead_in
    if lead_in is not None:
        return _decide_stream(response, lead_in.finish() if is_whole else lead_in.verdict, waits_for)
    if response.head.event_stream:  # which can't be read
        return True, None
    return is_whole, _wrong_body(request, response) if is_whole else None


def _decide_stream(response: Response, verdict: int, waits_for: int) -> tuple[bool, AttemptFailed | None]:
    if verdict == ERROR:
        return True, _failed("error", "sent an error as its first event")
    if response.is_unfinished:  # the client has nothing of it yet, or is told that it broke off
        return True, AttemptFailed(RESET, NO_END, 502, "provider_bad_answer") if waits_for else None
    if verdict == EMPTY:
        return True, _failed("empty", "ended its stream without output")
    return verdict != LEAD_IN, None


def _wrong_body(request: Request, response: Response) -> AttemptFailed | None:
    """The failure that a plain 200 is by what it says: nothing, or an error. Errors are short."""
    if response.head.status != 200 or request.endpoint not in _JSON or response.first:
        return None
    if not response.is_readable:
        return None
    text = response.tail()
    if len(text) < _LONGEST_OF_THEM and text.strip() in _NO_ANSWERS:
        return _failed("empty", "gave an empty answer")
    if text.startswith(b"{") and not text.rstrip().endswith(b"}"):
        return _failed("reset", "gave a JSON answer without its end")
    return _failed("error", "gave an error with the status 200") if holds_error(text) else None


def _failed(outcome: str, what: str) -> AttemptFailed:
    failure = AttemptFailed(outcome, what, 502, "provider_failed")
    failure.has_response = True
    return failure
