"""Traces: which trace a request belongs to, what its attempts tell the provider, and when its spans are made.

One span for a request, one below it for each of its attempts. They are made at its end, of what is known of
it by then (:mod:`proxy.control.telemetry.spans`); spans that are kept while it runs cost eight times as much.
Until then there are only their ids, which a provider gets to know in ``traceparent`` (W3C Trace Context).

While traces are off there is no object of this module, nor is OpenTelemetry loaded: a request asks twice
whether there is.
"""

from __future__ import annotations

import logging
import re
from random import Random
from typing import Any, NamedTuple, Protocol

from proxy.wire.request_head import RequestHead

log = logging.getLogger("tokenhub.traces")

# What becomes of an attempt, where it is neither a response nor a failure.
HEDGED = "hedged"  # another one was faster
LEFT = "left"  # nobody waits for it any longer

SAMPLED = 1
_RANDOM = 2  # the trace's id is: Trace Context, level 2, has it passed on

# Version 00 ends here; a later one may go on after a dash, and is read as far as it is known.
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
# Longer ones need not be passed on (Trace Context, section 3.3.1.5), and would be sent to the collector too.
_MAX_STATE_CHARS = 512


class Parent(NamedTuple):
    """The client's span, as its ``traceparent`` and ``tracestate`` name it."""

    trace_id: int
    span_id: int
    flags: int
    state: str


class Tried:
    """One attempt in a trace: a span is made of it."""

    __slots__ = ("attempt", "ended_at", "outcome", "span_id", "what")

    def __init__(self, attempt: Any, span_id: int) -> None:
        self.attempt = attempt
        self.span_id = span_id
        self.ended_at = 0.0  # monotonic seconds; 0: it runs
        self.outcome = ""  # as of :meth:`proxy.relay.exchange.attempt.Attempt.fail`, or one of those above
        self.what = ""  # for people


class Trace:
    """A request's part of a trace."""

    __slots__ = ("flags", "parent", "span_id", "trace_id", "tried")

    def __init__(self, trace_id: int, span_id: int, flags: int, parent: Parent | None) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.parent = parent
        self.tried: list[Tried] = []


class _Asked(Protocol):
    @property
    def head(self) -> RequestHead: ...


class Traced(Protocol):
    """An exchange, as far as it matters here: above this module, so that only its shape is known."""

    trace: Trace | None

    @property
    def request(self) -> _Asked: ...


class Collector(Protocol):
    """The receiver of traces, which also decides what is traced:
    :class:`proxy.control.telemetry.otlp.Otlp`."""

    def samples(self, trace_id: int, parent: Parent | None) -> bool:
        """Return whether the spans of this trace are wanted."""

    def take(self, exchange: Any, trace: Trace, status: int, now: float) -> None:
        """A request is over."""

    async def close(self) -> None:
        """Send what is left, for a bounded time."""


class Tracing:
    """Trace and span ids of requests. Failures of the collector are logged, and cost no request."""

    def __init__(self, collector: Collector, rng: Random) -> None:
        self._collector = collector
        self._rng = rng

    def line_for(self, exchange: Traced, attempt: object) -> bytes:
        """The header line that names the attempt's span to a provider.

        To be called before anything is made of the head of the client: its own context is taken out of it.
        """
        trace = self._trace_of(exchange)
        span_id = self._tried(trace, attempt).span_id if trace.flags & SAMPLED else self._draw(64)
        return b"traceparent: 00-%032x-%016x-%02x\r\n" % (trace.trace_id, span_id, trace.flags)

    def failed(self, exchange: Traced, attempt: object, outcome: str, what: str, now: float) -> None:
        """An attempt failed. If its response is passed on, it ends with that."""
        self._note(exchange, attempt, outcome, what, now)

    def left(self, exchange: Traced, attempt: object, outcome: str, now: float) -> None:
        """Nobody waits for an attempt any longer. ``outcome``: ``HEDGED`` or ``LEFT``."""
        self._note(exchange, attempt, outcome, "", now)

    def end(self, exchange: Traced, last: object, is_answered: bool, status: int, now: float) -> None:
        """The request is over.

        :param last: the attempt it ended with; None: nobody was asked. :param is_answered: by that.
        :param status: of the response to the client.
        """
        trace = self._trace_of(exchange)
        exchange.trace = None  # it holds attempts, which hold the exchange
        if not trace.flags & SAMPLED:
            return
        if last is not None:
            tried = self._tried(trace, last)
            if not tried.ended_at or is_answered:
                tried.ended_at = now
        try:
            self._collector.take(exchange, trace, status, now)
        except Exception:
            log.exception("internal error in tracing: the spans of a request are lost")

    async def close(self) -> None:
        """Close the collector."""
        await self._collector.close()

    def _note(self, exchange: Traced, attempt: object, outcome: str, what: str, now: float) -> None:
        trace = self._trace_of(exchange)
        if trace.flags & SAMPLED:
            tried = self._tried(trace, attempt)
            tried.outcome, tried.what, tried.ended_at = outcome, what, now

    def _trace_of(self, exchange: Traced) -> Trace:
        trace = exchange.trace
        if trace is None:
            trace = exchange.trace = self._begin(exchange.request.head)
        return trace

    def _begin(self, head: RequestHead) -> Trace:
        parent = take_parent(head)
        trace_id = self._draw(128) if parent is None else parent.trace_id
        flags = 0 if parent is None else parent.flags & _RANDOM
        try:
            if self._collector.samples(trace_id, parent):
                flags |= SAMPLED
        except Exception:
            log.exception("internal error in tracing: a request goes on without spans")
        return Trace(trace_id, self._draw(64), flags, parent)

    def _tried(self, trace: Trace, attempt: object) -> Tried:
        for tried in trace.tried:
            if tried.attempt is attempt:
                return tried
        tried = Tried(attempt, self._draw(64))
        trace.tried.append(tried)
        return tried

    def _draw(self, bits: int) -> int:
        return self._rng.getrandbits(bits) or 1  # an id of zeros is none


def take_parent(head: RequestHead) -> Parent | None:
    """The client's span; None: it names none, or not as Trace Context has it.

    Its ``traceparent`` is taken out of the head, since the next one is ours. Its ``tracestate`` goes on, but
    for one that has no valid ``traceparent`` beside it: that says nothing of a new trace.
    """
    if head.repeats:
        return None  # heads that are shared by requests have no such lines
    parents: list[bytes] = []
    states: list[bytes] = []
    lines: list[bytes] = []
    for line in head.lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name == b"traceparent":
            parents.append(value.strip(b" \t"))
            continue
        if name == b"tracestate":
            states.append(line)
        lines.append(line)
    parent = None
    if len(parents) == 1:
        state = b",".join(line.partition(b":")[2].strip(b" \t") for line in states).decode("latin-1")
        parent = _read_parent(parents[0], state if len(state) <= _MAX_STATE_CHARS else "")
    head.lines = lines if parent is not None else [line for line in lines if line not in states]
    return parent


def _read_parent(value: bytes, state: str) -> Parent | None:
    match = _TRACEPARENT.fullmatch(value)
    if match is None or match[1] == b"ff" or (match[1] == b"00" and match[5]):
        return None
    parent = Parent(int(match[2], 16), int(match[3], 16), int(match[4], 16), state)
    return parent if parent.trace_id and parent.span_id else None
