"""A client of a soak: connections, answers as they come, and whether an answer is what it has to be."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import cast

import httptools
import orjson

from soak.plans import BEFORE, DONE, TOLD, WITHIN, Plan, error, is_stream, marker

# Longer than any answer takes by its plan; what is not there by then is lost.
ANSWER_S = 240.0
# Connections that are kept for another request, and for how long: less than the gateway keeps them, so that
# none is used just as it closes it.
KEPT = 50
KEPT_S = 30.0


class Wrong(Exception):
    """An answer is not what it has to be."""


class Late(Wrong):
    """The gateway waited in vain for a provider that was well: unless it was starved, that is wrong."""


@dataclass(slots=True)
class Answer:
    """What came, as far as it came. The payload of a stream is checked as it comes, and not kept.

    :param marks: by provider: what is in each numbered event, if it is that one which answers.
    """

    headed: asyncio.Future[None]
    ended: asyncio.Future[None]  # also where it never will be complete
    marks: dict[str, bytes]
    status: int = 0
    fields: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)  # of a stream: what is not a whole event yet
    events: list[bytes] = field(default_factory=list)  # of a stream: those that are not numbered ones
    numbered: int = 0
    complete: bool = False
    wrong: str = ""

    @property
    def id(self) -> bytes:
        return self.fields.get(b"x-inferoute-request-id", b"")

    @property
    def provider(self) -> str:
        return self.fields.get(b"x-inferoute-provider", b"").decode()

    @property
    def is_ours(self) -> bool:
        """An error of the gateway's own."""
        return b"x-should-retry" in self.fields

    @property
    def was_sent(self) -> bool:
        """Some provider was asked, so that there is a line in the ledger."""
        return b"x-inferoute-attempts" in self.fields

    @property
    def is_stream(self) -> bool:
        return self.fields.get(b"content-type", b"").startswith(b"text/event-stream")

    def over(self) -> None:
        for waiting in (self.headed, self.ended):
            if not waiting.done():
                waiting.set_result(None)

    def take_events(self) -> None:
        """Each event is this request's, and the next in order, or one of the few without a number."""
        body, mark = self.body, self.marks.get(self.provider, b"(nobody)")
        begin = 0
        while (end := body.find(b"\n\n", begin)) >= 0:
            event = bytes(body[begin : end + 2])
            begin = end + 2
            at = event.find(mark)
            if at < 0 or event.startswith(b'data: {"error":'):
                self.events.append(event)
                if b"soak-" in event and at < 0:
                    self.wrong = self.wrong or f"an event of another request: {event[:200]!r}"
                continue
            expected = b" %d x" % self.numbered
            if self.events:
                self.wrong = self.wrong or f"an event behind the last one: {event[:200]!r}"
            if not event.startswith(expected, at + len(mark)):
                self.wrong = self.wrong or f"event {self.numbered} is missing or out of order"
            self.numbered += 1
        if begin:
            del body[:begin]


class Wire(asyncio.Protocol):
    """A connection to the gateway."""

    def __init__(self) -> None:
        self.answers: deque[Answer] = deque()  # that are to come
        self.answer: Answer | None = None  # that comes, or has come
        self.parser = httptools.HttpResponseParser(self)
        self.is_open = False
        self.used_at = 0.0
        self.stray = b""  # what came though nothing was asked

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def begin(self, marks: dict[str, bytes]) -> Answer:
        """The answer to a request that is about to be sent; see :class:`Answer`."""
        loop = asyncio.get_running_loop()
        answer = Answer(loop.create_future(), loop.create_future(), marks)
        self.answers.append(answer)
        return answer

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as fault:
            if self.answer is not None and not self.answer.complete:
                self.answer.wrong = self.answer.wrong or f"not HTTP: {fault}: {data[:100]!r}"
            else:
                self.stray = data[:200]
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        for answer in ([] if self.answer is None else [self.answer], self.answers):
            for one in answer:
                one.over()

    def on_message_begin(self) -> None:
        if not self.answers:
            raise httptools.HttpParserError("an answer that nobody asked for")
        self.answer = self.answers.popleft()

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self.answer is not None
        self.answer.fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        assert self.answer is not None
        self.answer.status = self.parser.get_status_code()
        if not self.answer.headed.done():
            self.answer.headed.set_result(None)

    def on_body(self, data: bytes) -> None:
        answer = self.answer
        assert answer is not None
        answer.body += data
        if answer.is_stream:
            answer.take_events()

    def on_message_complete(self) -> None:
        answer = self.answer
        assert answer is not None
        answer.complete = True
        answer.over()
        if not self.parser.should_keep_alive():
            self.transport.close()

    def can_go_on(self) -> bool:
        """For another request."""
        is_free = not self.answers and (self.answer is None or self.answer.complete)
        return self.is_open and is_free and not self.stray and not self.transport.is_closing()


class Gate:
    """Where the gateway is, and connections to it that can be used again.

    :param tls: of the listener; None: it has none.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self.tls = tls
        self.idle: list[Wire] = []

    async def connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, "127.0.0.1", self.port, ssl=self.tls)
        return wire

    async def take(self) -> Wire:
        """An idle connection, or a new one."""
        now = monotonic()
        while self.idle:
            wire = self.idle.pop()
            if wire.can_go_on() and now - wire.used_at < KEPT_S:
                return wire
            wire.transport.abort()
        return await self.connect()

    def give(self, wire: Wire) -> None:
        """Keep it for another, if it can be."""
        wire.used_at = monotonic()
        if wire.can_go_on() and len(self.idle) < KEPT:
            self.idle.append(wire)
        else:
            wire.transport.abort()

    def close(self) -> None:
        while self.idle:
            self.idle.pop().transport.abort()


def request(
    body: bytes, path: str = "/v1/chat/completions", key: str = "", more: str = "", chunked: bool = False
) -> bytes:
    """A POST. ``more``: header lines, each with its CRLF."""
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n{auth}{more}"
    if not chunked:
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"


# ---------------------------------------------------------------------- judging

# What the gateway may say when it asked several, or could ask nobody.
_ALL_FAILED = {(503, "all_attempts_failed"), (429, "providers_cooling_down")}
# It may refuse when there is too much to do; counted apart.
_SHED = (503, "overloaded")
# What is refused to one address more often than 60 times a minute.
_TOO_MANY_REFUSED = (429, "too_many_refused_requests")


def judge(answer: Answer, number: int, kind: str, planned: Plan, *, pinned: bool) -> str:
    """In a word what became of a request that some provider had to answer.

    :param planned: of the provider that the answer names; any where it names none.
    :param pinned: nobody else could be asked.
    :raises Wrong: it is nothing that may become of it.
    """
    if answer.wrong:
        raise Wrong(answer.wrong)
    if not answer.status:
        raise Wrong("no answer")
    if not answer.id.startswith(b"req_"):
        raise Wrong("no request id")
    if answer.is_ours:
        return _judge_ours(answer, planned, pinned)
    fate, provider = planned.fate, answer.provider
    if fate in BEFORE:
        status, code = BEFORE[fate]
        if code or answer.status != status or bytes(answer.body) != error(number, provider, status):
            raise Wrong(f"{answer.status} of a provider whose fate was {fate}")
        if not answer.complete:
            raise Wrong("a cut error")
        return f"passed {status}"
    if answer.status != 200:
        raise Wrong(f"status {answer.status} of a provider whose fate was {fate}")
    if is_stream(kind):
        return _judge_stream(answer, number, planned)
    if fate in WITHIN:
        if answer.complete:
            raise Wrong(f"a whole answer of a provider whose fate was {fate}")
        return "cut"
    if not answer.complete:
        raise Wrong("cut, though the provider was well")
    if marker(number, provider).encode() not in answer.body:
        raise Wrong("an answer to another request")
    return "whole"


def _judge_ours(answer: Answer, planned: Plan, pinned: bool) -> str:
    if not answer.complete:
        raise Wrong("a cut error of the gateway")
    told = answer.status, code_of(answer)
    if told == _SHED:
        return "shed"
    if pinned:
        allowed = {BEFORE[planned.fate]} if planned.fate in BEFORE else set()
        if planned.fate in WITHIN:  # before a byte of it could be passed on
            allowed = {(502, "provider_bad_answer"), (504, "provider_timeout")}
    else:
        allowed = _ALL_FAILED | {pair for pair in BEFORE.values() if pair[1]}
    if told not in allowed:
        kind = Late if told == BEFORE["stall"] else Wrong
        raise kind(f"{told} of a provider whose fate was {planned.fate}: {bytes(answer.body[:300])!r}")
    return f"told {told[0]}"


def code_of(answer: Answer) -> str:
    """Of an error; "" where it is none."""
    try:
        return str(orjson.loads(bytes(answer.body))["error"]["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


def _judge_stream(answer: Answer, number: int, planned: Plan) -> str:
    fate, last = planned.fate, answer.events
    if fate == "good":
        if not answer.complete:
            raise Wrong("cut, though the provider was well")
        if answer.numbered != planned.events:
            raise Wrong(f"{answer.numbered} of {planned.events} events")
        usage = b'"usage":{"prompt_tokens":%d,' % planned.input_tokens
        shown = last[:-1]
        if not last or last[-1] != DONE or len(shown) > 1 or any(usage not in event for event in shown):
            raise Wrong(f"the stream ends with {last!r}")
        if (answer.provider != "b") != bool(shown):
            raise Wrong("usage that was not asked for, or none though it is always told")
        return "whole"
    if answer.numbered > planned.at:
        raise Wrong("events after the fault")
    if not answer.complete:
        if fate == TOLD:
            raise Wrong("cut, though the message was whole")
        return "cut"
    if len(last) != 1 or not last[0].startswith(b'data: {"error":'):
        raise Wrong(f"a stream that broke off looks whole: {last!r}")
    if fate == TOLD:
        if marker(number, answer.provider).encode() not in last[0]:
            raise Wrong("an error of another request")
    elif b"provider_broke_off" not in last[0]:
        raise Wrong(f"a stream that broke off ends with {last!r}")
    return "told within"


def judge_refused(answer: Answer, allowed: set[tuple[int, str]]) -> str:
    """A request that no provider may have seen.

    :param allowed: statuses, with the codes of their envelopes.
    :raises Wrong: it was answered otherwise.
    """
    if answer.wrong:
        raise Wrong(answer.wrong)
    told = answer.status, code_of(answer)
    if told == _SHED:
        return "shed"
    if told == _TOO_MANY_REFUSED and any(400 <= status < 500 for status, _ in allowed):
        allowed = {told}
    if told not in allowed or not answer.complete or answer.was_sent:
        raise Wrong(f"{told} instead of {allowed}: {bytes(answer.body[:200])!r}")
    if answer.status == 429 and b"retry-after" not in answer.fields:
        raise Wrong("a 429 that does not say until when")
    return f"refused {answer.status}"
