"""The charge of a finished attempt: read from its response where the provider says it, else estimated.

Only what the provider says teaches the live rows. Failed attempts are never charged for; who is closed before
its end (the client left or gave no time, another was faster) is, by an estimate of what it got and gave until
then: the larger of the text that was seen and of the time that passed, and never more than was reserved. Time
counts from the request on, since models think in silence, and also while a client reads nothing, since
engines go on. It is taken at the pace that was learned of one answer (:func:`_pace_of`), as often as answers
were wanted.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import orjson

from proxy.access.admission import Most
from proxy.deployments.deployment import Deployment
from proxy.deployments.record import Record
from proxy.endpoints import HAS_TOKENS, OUTPUTS
from proxy.relay.exchange.request import Request
from proxy.usage.media_tokens import spoken, usually_spoken
from proxy.usage.pricing import price_nusd
from proxy.usage.response_usage import partial_usage, read_events, read_plain
from proxy.usage.stream_tokens import stream_tokens
from proxy.usage.tokens import Usage
from proxy.wire.response import Response
from proxy.wire.sse import holds_error, is_error

_TYPE: Final = b"content-type:"
# How many bytes of text one byte of a response stands for that can't be read, as it is compressed.
_UNPACKED: Final = 4
_BYTES_A_TOKEN: Final = 4
# How fast models write where nothing was learned, in tokens a second of one answer: the upper end of what is
# common. Large models on GPUs write 20 to 150, small hosted ones (Gemini's Flash, GPT's mini and nano) 150 to
# 250 by public measurements such as Artificial Analysis'. Dedicated chips write up to 2,000: three answers
# that tell their usage teach that.
USUAL_PACE: Final = 250.0
# The fewest tokens behind the first that make a pace: fewer show how they were packed into events.
_PACE_TOKENS: Final = 16
# The number of its last events that are read for that: a tenth of a millisecond.
_PACE_EVENTS: Final = 12
# The events' tokens are an estimate: with more than this share of those told, they are the same.
_SEEN_SHARE: Final = 0.7
# Of a plain response its wait is in its time too, so it has to be longer.
_PLAIN_TOKENS: Final = 128
# Over less time the pace of a response that was left says nothing of all of it.
_OWN_S: Final = 0.25
# A few milliseconds by which bytes are late would show in the pace over less time; and a buffer that is
# emptied at once is none.
_LEAST_S: Final = 0.1

Charge = tuple[Usage | None, int | None]
NO_CHARGE: Final[Charge] = (None, None)


class Extra(NamedTuple):
    """A charge beside the response's: an attempt that lost a hedge. Always an estimate."""

    deployment: Deployment
    usage: Usage
    cost_nusd: int | None


class Asker(Protocol):
    """A request, as far as it matters here."""

    @property
    def key_id(self) -> str: ...  # of its gateway key; empty without one

    @property
    def is_text(self) -> bool: ...  # its prompt has nothing but the text of its body

    def answers(self) -> int: ...  # how many it wants


def charge_of(
    record: Record, request: Request, response: Response | None, answered_at: float, now: float, *,
    is_told: bool, is_simulated: bool,
) -> Charge:  # fmt: skip
    """Charge an attempt what its provider says that it used, else an estimate.

    :param answered_at: when the first byte of the response's body came.
    :param is_told: the response has come so far that its usage was told, if it is told at all.
    """
    charge = NO_CHARGE
    if is_told and response is not None:
        took_s = now - answered_at
        charge = account(record, response, request.endpoint, request.learn_bytes, took_s, now, request)
    if charge[0] is None:
        charge = estimated(
            record, response, request.endpoint, request.most_used(), now,
            is_over=is_told, is_async=request.wants().is_async,
        )  # fmt: skip
    return charge if not is_simulated or charge[0] is None else (charge[0], 0)


def account(
    record: Record, response: Response, endpoint: str, prompt_bytes: int, output_s: float, now: float,
    asker: Asker | None = None,
) -> Charge:  # fmt: skip
    """End the record of a response that has come to its end.

    :param prompt_bytes: size of the request's text, or 0 where it is not known: then it teaches nothing.
    :param output_s: seconds from the response's first to its last byte.
    :param now: monotonic seconds.
    :param asker: whose request it is; None: nobody's in particular, and for one answer.
    :returns: what the provider says it used, and its price in nano-USD, as far as known.
    """
    head = response.head
    record.finished(now)
    if not _is_served(head.status) or not response.is_readable:
        return NO_CHARGE
    tail = response.tail()
    is_stream = head.event_stream or (tail[:1] != b"{" and response.is_stream)
    if is_stream:
        if not response.body.done and not response.tells_all(
            endpoint, None if asker is None else asker.answers
        ):
            return NO_CHARGE  # a running total at most
        usage = read_events(tail, endpoint, response.first, response.aside)
    else:
        usage = read_plain(tail, endpoint, response.aside)
        output_s = 0.0
    # No prompt has no tokens: the event that counts them was too far away, or nothing was counted.
    if usage is None or (not usage.input_tokens and (endpoint == "messages" or not usage.output_tokens)):
        return NO_CHARGE
    cost_nusd = price_nusd(usage, record.deployment.prices)
    usd = None if cost_nusd is None else cost_nusd * 1e-9
    window = record.deployment.window
    window.taken = max(window.taken, usage.input_tokens)
    row, key_id = record.row, "" if asker is None else asker.key_id
    voter = key_id if asker is None or asker.is_text else None
    passed_bytes = response.passed_bytes if is_stream else 0
    row.charged(now, prompt_bytes, usage, usd, output_s, voter, passed_bytes)
    if usage.output_tokens > _PACE_TOKENS and not record.held_s and row.wants_pace(now):
        took_s = record.worked_s(now)
        pace = (
            _pace_of(response, tail, usage, output_s, took_s) if is_stream else _plain_pace_of(usage, took_s)
        )
        if pace and (asker is None or asker.answers() == 1):
            row.paced(now, pace, key_id)
    return usage, cost_nusd


def _pace_of(response: Response, tail: bytes, usage: Usage, output_s: float, took_s: float) -> float:
    """Tokens a second of a stream, between its first and its last output; 0: it does not show.

    What it waited for is not in it, so that a long prompt or a queue teaches nothing. Of hidden reasoning,
    which came before, neither the tokens are in it: where the events have far fewer than were told, theirs
    count. Where even all the time that it took makes more, that counts.
    """
    if output_s < _LEAST_S or took_s < output_s:  # or it was answered before it was asked to the end
        return 0.0
    told, seen = (
        usage.output_tokens - usage.reasoning_tokens,
        stream_tokens(tail, response.passed_bytes, _PACE_EVENTS),
    )
    behind = (told if seen > _SEEN_SHARE * told else seen) - 1
    if behind < _PACE_TOKENS:
        return 0.0
    return max(behind / output_s, usage.output_tokens / took_s)


def _plain_pace_of(usage: Usage, took_s: float) -> float:
    """Tokens a second of a plain response, its wait included; 0: it is too short to tell."""
    tokens = usage.output_tokens
    return 0.0 if tokens < _PLAIN_TOKENS or took_s < _LEAST_S else tokens / took_s


def estimated(
    record: Record,
    response: Response | None,
    endpoint: str,
    most: Most,
    now: float,
    *,
    is_over: bool,
    is_async: bool,
) -> Charge:
    """Estimate the charge of an attempt whose provider does not, or can no longer, say what it used: by what
    came of its response and by the time it took, and never more than ``most``.

    :param answer: as far as it came; None: not at all.
    :param is_over: the provider has sent all of it.
    :param is_async: it was asked for behind the client's back, so the provider goes on whatever happens here.
    """
    if endpoint not in HAS_TOKENS or (response is not None and not _is_served(response.head.status)):
        return NO_CHARGE
    seen, written = None, 0
    if response is not None:
        streamed = response.is_stream
        tail = response.tail()
        if response.is_readable and (is_error(response.first or tail) if streamed else holds_error(tail)):
            return NO_CHARGE  # a failure, whatever its status says
        if not response.is_readable:
            written = response.passed_bytes * _UNPACKED // _BYTES_A_TOKEN
        elif streamed:
            seen = partial_usage(tail, response.first, endpoint)
            written = stream_tokens(tail, response.passed_bytes)
        else:
            written = response.passed_bytes // _BYTES_A_TOKEN
    if endpoint in OUTPUTS:
        output = min(_made(endpoint, response, most, is_over=is_over), most.output)
    elif is_async or (
        response is not None and is_over and (not response.is_readable or _is_put_off(response))
    ):
        output = most.output
    else:
        output = min(_output(record, endpoint, written, most.answers, now, is_over=is_over), most.output)
    usage = _parted(most, output)
    if seen is not None and endpoint == "responses":  # only their last event has one
        usage = seen
    elif seen is not None:
        usage = _parted(most, max(seen.output_tokens, output))
        if seen.input_tokens:
            usage = Usage(
                seen.input_tokens, seen.cached_tokens, seen.cache_write_tokens, usage.output_tokens,
                seen.reasoning_tokens, True, seen.audio_input_tokens, usage.audio_output_tokens,
            )  # fmt: skip
    return usage, price_nusd(usage, record.deployment.prices)


def _output(record: Record, endpoint: str, written: int, answers: int, now: float, *, is_over: bool) -> int:
    """Tokens written: those that were seen, or those of the time it had, whichever are more, as models think
    before they write, and plain answers come at their end.

    :param written: those seen, of all ``answers`` together.
    """
    pace = _learned_pace(record, endpoint)
    time_s = record.worked_s(now)
    if is_over:
        if not pace:
            return written  # there is no pace to go by, so only the text is counted
        time_s -= record.held_s  # it was ready by then
    else:
        seen_s = now - record.first_byte_at if record.first_byte_at and not record.held_s else 0.0
        own = 0.0  # as fast as this one was seen to be written, it was written before that too
        if seen_s >= _OWN_S and written > _PACE_TOKENS * answers:
            own = written / answers / seen_s
        pace = max(pace, own) if pace else min(own or USUAL_PACE, USUAL_PACE)
    return max(written, int(time_s * pace) * answers)


def _learned_pace(record: Record, endpoint: str) -> float:
    """Tokens a second of one answer at the member; 0: not known well enough. Streams tell it best: of plain
    answers the wait is in it. At other endpoints it is the same model."""
    deployment = record.deployment
    for row in (deployment.row(endpoint, True), deployment.row(endpoint, False)):
        if row.pace.is_enough:
            return row.pace.typical
    others = [row.pace.typical for row in deployment.rows().values() if row.pace.is_enough]
    return max(others, default=0.0)


def _parted(most: Most, output: int) -> Usage:
    """An estimate, with what has a price of its own as far as it shows from the request."""
    given, heard = most.expected, min(most.heard, most.expected)
    written = given - heard if most.writes_cache else 0
    spoken_tokens = output if most.speaks else 0
    return Usage(given, 0, written, output, 0, True, heard, spoken_tokens)


def _made(endpoint: str, response: Response | None, most: Most, *, is_over: bool) -> int:
    """Tokens of what is no text: all pictures that were asked for, as they are made whole; of speech how much
    came. Before its end that is at least what the text usually makes: providers are faster than listeners."""
    if endpoint == "images":
        return most.output
    tokens, kind = 0, b""
    if response is not None and response.is_readable and not response.is_stream:
        for line in response.head.lines:
            if line[: len(_TYPE)].lower() == _TYPE:
                kind = line[len(_TYPE) :]
        tokens = spoken(kind, response.passed_bytes)
    return tokens if is_over and tokens else max(tokens, usually_spoken(most.given))


def _is_put_off(response: Response) -> bool:
    """The response is a promise of one."""
    if response.head.status == 202:
        return True
    try:
        found = orjson.loads(response.tail())
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("status") in ("queued", "in_progress")


def _is_served(status: int) -> bool:
    """Return whether a response is paid for: no error, no redirect, and with a body."""
    return 200 <= status < 300 and status not in (204, 205)
