"""The response's way to the client: its head, and its body framed as the client's HTTP version has it.

In the usual case both sides have the same framing and the received bytes are the sent bytes. Only where they
can't be (an HTTP/1.0 client of a chunked answer, a response that ends with the connection) is the payload
taken out and wrapped anew.

Beside the passing bytes the last few KiB of the payload are kept: the usage stands there, and what ends with
an empty line stands between two events of a stream. Of a compressed answer they are decoded, where that can
be done; what the client gets is not.

Where the end of the message is not believed (``ends_as``), and the stream did not say that it was at its
end, all but the end of the message passes: an event of ours can follow, or the client sees it cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from proxy.endpoints import HAS_CHOICES
from proxy.wire.decompress import SLICE_BYTES, Decoder, decoder_for
from proxy.wire.framing import Body, ChunkedBody, CloseBody, wrap_chunk
from proxy.wire.header_lines import FRAMING_NAMES, without
from proxy.wire.include_usage import UsageFilter
from proxy.wire.lead_in import LEAD_IN, LeadIn
from proxy.wire.outline import BROKEN, COLON_NEXT, LONGEST_KEY_BYTES, OUTSIDE, outline, value_at
from proxy.wire.response_head import ResponseHead
from proxy.wire.sse import EVENT_END, EVENT_ENDS
from proxy.wire.stream_end import UNENDED, WHOLE, begin_of_last, how_ended, is_ended, is_half

# How much of a response's end is kept, and how much may gather before it is cut back to that. An event with a
# usage is below 1 KiB; the upper bound counts towards the memory of every open stream.
TAIL_BYTES: Final = 8 << 10
_GATHERED_BYTES: Final = 16 << 10
_GATHERED_PIECES: Final = 256  # each is an object, however small
# The first event of a stream of the Anthropic API holds the input tokens.
_HEAD_BYTES: Final = 2 << 10

# Some put the usage in front of all that was written, or between large members. Whether it is the response's
# own shows from its beginning on: the outline goes through what leaves the tail. None is longer: most have
# 300 bytes, Anthropic's has an entry of 200 for each pass.
_USAGE_BYTES: Final = 4 << 10
_USAGE_KEYS: Final = (b'"usage"', b'"usageMetadata"', b'"meta"')
_TOLD: Final = bytes(byte in b"um" for byte in range(256))

# Of a stream that has events taken out: small events, each of which is looked at, take 3 ms.
FILTERED_SLICE_BYTES: Final = 32 << 10

# Where an event says why the response stopped, by endpoint: null, or a text.
_REASONS: Final = {
    "chat": b'"finish_reason"', "completions": b'"finish_reason"', "messages": b'"stop_reason"',
}  # fmt: skip
_A_TEXT: Final = re.compile(rb'\s*:\s*"[^"]')
_BACKSLASH: Final = 0x5C
# How event streams begin, and no JSON does.
_STREAM_BEGINS: Final = (b"data:", b"event:", b": ", b":\n", b"id:", b"retry:")

# How an event begins that repeats a whole response, as the last one of the Responses API: up to that.
_REPEATED: Final = re.compile(rb'(?:[^{}\[\]]*[\r\n])?data: ?\{[^{}\[\]]{0,400}?(?<!\\)"response"\s*:\s*\{')

AS_IT_CAME: Final = 0
REWRAPPED: Final = 1
UNWRAPPED: Final = 2
_USUAL_END: Final = b"\n\ndata: [DONE]\n\n"
# A usage with anything in it, as a key: in what a model wrote a backslash stands before the quotation marks.
_USAGE: Final = re.compile(rb'(?<!\\)"usage(?:Metadata)?"\s*+:\s*+\{')
_NO_CHOICE: Final = re.compile(rb'(?<!\\)"choices"\s*+:\s*+\[\s*+\]')
_CHOICE: Final = re.compile(rb'(?<!\\)"choices"\s*+:\s*+\[\s*+[^\]\s]')
KEEP_ALIVE_EVENT: Final = b": keep-alive\n\n"
# Of Anthropic's API, whose clients may wait for an event and take a comment for silence.
PING_EVENT: Final = b'event: ping\ndata: {"type": "ping"}\n\n'


class Response:
    """One answer on its way from a provider's connection to a client.

    :param minor: the client's HTTP minor version.
    :param takes_usage_out: of an event stream, what it says of usage is for us and not for the client.
    :param ends_as: of an event stream whose end shows by its events: the endpoint by which they are read.
    :param lead_in: follows an event stream that can be read until it shows output; None: nobody looks.
    :param believes: the end of the message is believed all the same. What the events say is still found out.

    ``ending``: what they said (:mod:`proxy.wire.stream_end`), once the message is at its end.
    ``is_unfinished``: it is, but the response was not, and the client has not got the end of the message.
    """

    __slots__ = (
        "_begin",
        "_believes",
        "_decoder",
        "_dropped",
        "_filter",
        "_finished",
        "_gathered",
        "_mode",
        "_open",
        "_seen",
        "aside",
        "body",
        "ending",
        "ends_as",
        "first",
        "head",
        "is_unfinished",
        "lead_in",
        "mode",
        "payload",
    )

    def __init__(
        self, head: ResponseHead, body: Body, minor: int, *,
        takes_usage_out: bool = False, ends_as: str = "", believes: bool = False,
        lead_in: LeadIn | None = None,
    ) -> None:  # fmt: skip
        self.head = head
        self.body = body
        self.ends_as = ends_as if head.event_stream and not head.encoded else ""
        self.ending = UNENDED
        self.is_unfinished = False
        self.lead_in = lead_in if head.event_stream and not head.encoded else None
        self._believes = believes
        self._finished = (
            False  # what has left the tail says why the response stopped, and no more of it since
        )
        self.payload: list[bytes] = []
        body.payload = self.payload
        self.first = b""  # the payload's first bytes, once they are no longer in the tail
        self.aside = b""  # the usage of JSON, or of a response within an event, where that left the tail
        # The outline of what has left the tail.
        self._open = b""
        self._mode = OUTSIDE
        self._begin = b""  # of the last event of a stream, where the tail begins within it
        self._gathered = 0
        self._dropped = 0  # bytes of the payload that are no longer kept
        self._seen = 0  # pieces of the payload that were there before the last feed
        self._decoder = decoder_for(head.encoding) if head.encoded else None
        self._filter = UsageFilter() if takes_usage_out and head.event_stream and not head.encoded else None
        if self._decoder is not None:
            body.slice_bytes = SLICE_BYTES
        elif self._filter is not None:
            body.slice_bytes = FILTERED_SLICE_BYTES
        is_bounded = (head.length is not None and self._filter is None) or body.done
        # A head that says that there are no bytes leaves no room for an event.
        is_empty = body.done and self.ends_as != "" and not believes
        if not minor and (not is_bounded or is_empty):
            self.mode = UNWRAPPED
        elif isinstance(body, CloseBody) or self._filter is not None or is_empty:
            self.mode = REWRAPPED
        else:
            self.mode = AS_IT_CAME

    def head_bytes(self, ours: bytes, keep_alive: bool, minor: int) -> bytes:
        """The response head for the client.

        :param ours: the gateway's own header lines, without a CRLF at the end.
        :param keep_alive: the client's connection stays open afterwards.
        """
        head = self.head
        lines = head.lines
        if self.mode != AS_IT_CAME or head.status == 204:  # a 204 has no framing (RFC 9110 8.6, 9112 6.1)
            lines = without(lines, FRAMING_NAMES)
            if self.mode == REWRAPPED:
                lines.append(b"Transfer-Encoding: chunked")
        if not keep_alive:
            connection = b"Connection: close\r\n\r\n"
        elif minor:
            connection = b"\r\n"
        else:
            connection = b"Connection: keep-alive\r\n\r\n"
        return b"\r\n".join((head.status_line, *lines, ours, connection))

    def is_self_delimiting(self) -> bool:
        """The client can tell the end of the response without the connection being closed."""
        return self.mode != UNWRAPPED

    def pass_on(self, data: bytes) -> bytes:
        """Return the bytes for the client made of ``data``, which ``self.body`` was just fed (and cut to what
        passes)."""
        body = self.body
        size = len(data)
        is_last = body.done and not (self.ends_as and self._lacks_end())
        if self.mode == AS_IT_CAME:
            if body.done and not is_last:
                data = self._without_end(data)
            elif body.closing:
                data += body.closing
        else:
            fresh = b"".join(self.payload[self._seen :])
            if self._filter is not None:
                fresh = self._filter.feed(fresh) + (self._filter.finish() if is_last else b"")
            data = fresh if self.mode == UNWRAPPED else wrap_chunk(fresh, is_last)
        if self.lead_in is not None and self.lead_in.verdict == LEAD_IN:
            self.lead_in.feed(b"".join(self.payload[self._seen :]))
        if self._decoder is not None:
            size = self._decode(self._decoder)
        self._gathered += size
        if self._gathered > _GATHERED_BYTES or len(self.payload) > _GATHERED_PIECES:
            self._cut_back()
        self._seen = len(self.payload)
        return data

    def _lacks_end(self) -> bool:
        """The message is at its end: see what its events say of that."""
        if b"".join(self.payload[-2:]).endswith(_USUAL_END):  # what how_ended would find too, for much more
            self.ending = WHOLE
            return False
        self.ending = how_ended(b"".join(self.payload), self._begin, self.ends_as, self._finished)
        self.is_unfinished = self.ending == UNENDED and not self._believes
        return self.is_unfinished

    def _without_end(self, data: bytes) -> bytes:
        """Return the part of a message's last bytes that passes, so that the client knows that more had to
        come."""
        body = self.body
        if isinstance(body, ChunkedBody):
            return data[: max(body.last_at, 0)]
        return data[:-1]  # of a length, which the client still waits for

    def _decode(self, decoder: Decoder) -> int:
        """Put what the fresh pieces decode to in their place; returns its size."""
        payload = self.payload
        fresh = b"".join(payload[self._seen :])
        decoded = decoder.feed(fresh)
        if decoder.failed:
            self._dropped += len(fresh)
        payload[self._seen :] = [decoded] if decoded else []
        return len(decoded)

    def _cut_back(self) -> None:
        kept = b"".join(self.payload)
        if not self.first and len(kept) > TAIL_BYTES:
            self.first = kept[:_HEAD_BYTES]
        goes = max(len(kept) - TAIL_BYTES, 0)
        if self.head.event_stream:
            self._note_finish(kept, goes)
            goes = self._follow(kept, goes)
        elif self._mode != BROKEN:
            goes = self._walk(kept, 0, goes)
        tail = kept[goes:]
        self._dropped += goes
        self.payload[:] = [tail]
        self._gathered = len(tail)

    def _note_finish(self, kept: bytes, count: int) -> None:
        """Read from the first ``count`` bytes kept, before they are dropped, why the response stopped.
        Some say it at the beginning of an event that is longer than what is kept."""
        key = _REASONS.get(self.ends_as)
        if key is None:
            return
        at = kept.rfind(key, 0, count)
        while at > 0 and kept[at - 1] == _BACKSLASH:  # in what a model wrote
            at = kept.rfind(key, 0, at)
        if at >= 0:
            self._finished = _A_TEXT.match(kept, at + len(key)) is not None

    def _follow(self, kept: bytes, count: int) -> int:
        """Of an event that is longer than what is kept: remember how it begins, and look through the first
        ``count`` bytes of what was kept, which are to go, for the usage of the response that it repeats.

        :returns: how many may go.
        """
        self._begin, begin = begin_of_last(kept, TAIL_BYTES, self._begin, is_first=not self._dropped)
        if begin < 0:
            return self._walk(kept, 0, count) if self._mode != BROKEN else count
        self._mode = BROKEN  # what was looked through is over
        match = _REPEATED.match(kept, begin) if self._begin else None
        if match is None:
            return count
        self._open, self._mode = b"", OUTSIDE
        return self._walk(kept, match.end() - 1, count) if match.end() <= count else begin

    def _walk(self, kept: bytes, start: int, count: int) -> int:
        """Outline the bytes up to ``count`` of what was kept, which are to go, and put a usage in them aside.

        Only one of the outermost object is its own: what a model calls a tool with may hold another.

        :returns: how many may go: where they end in a key or right behind one, those before it.
        """
        keys, self._open, mode = outline(kept[:count], start, self._open, self._mode, _TOLD)
        told = len(keys) - (2 if mode == COLON_NEXT else len(keys) & 1)
        if mode != BROKEN and told < len(keys):
            mode = OUTSIDE if count - keys[told] <= LONGEST_KEY_BYTES else BROKEN
            count = keys[told] if mode == OUTSIDE else count
        for at in range(0, told - 1, 2):
            start, stop = keys[at], keys[at + 1]
            key = kept[start:stop]
            is_better = key == _USAGE_KEYS[0] or not self.aside.startswith(_USAGE_KEYS[0])
            if is_better and key in _USAGE_KEYS and kept.startswith(b"{", value_at(kept, stop)):
                self.aside = kept[start : start + _USAGE_BYTES]
        self._mode = mode
        return count

    def tail(self) -> bytes:
        """The last bytes of the payload, decoded if :attr:`is_readable`; all of it if it was short."""
        if self._decoder is not None:  # a read with broken framing may have left pieces undecoded
            return b"".join(self.payload[: self._seen])
        return b"".join(self.payload)

    @property
    def is_readable_stream(self) -> bool:
        """An event stream whose events can be read."""
        return self.head.event_stream and not self.head.encoded

    @property
    def is_readable(self) -> bool:
        """The tail is text: the response came plain, or could be decoded so far."""
        return not self.head.encoded or (self._decoder is not None and not self._decoder.failed)

    @property
    def is_stream(self) -> bool:
        """Its payload is an event stream, by its type; without one that says so, by how it begins."""
        return self.head.event_stream or (self.first or self.tail()).lstrip()[:6].startswith(_STREAM_BEGINS)

    @property
    def passed_bytes(self) -> int:
        """Number of payload bytes passed on, without framing; decoded as far as possible."""
        size = self._dropped
        for piece in self.payload[: self._seen]:
            size += len(piece)
        return size

    def is_said_to_end(self) -> bool:
        """The last event of a stream has passed, if not yet the end of the message."""
        if not self.is_readable_stream:
            return False
        # Only what was passed on counts, as in is_between_events.
        return is_ended(b"".join(self.payload[: self._seen]), self._begin)

    def ending_at(self, endpoint: str) -> int:
        """Return the state of a stream after the part that has passed, by its events; see
        :func:`proxy.wire.stream_end.how_ended`."""
        if not self.is_readable_stream:
            return UNENDED
        return how_ended(b"".join(self.payload[: self._seen]), self._begin, endpoint, self._finished)

    def tells_all(self, endpoint: str, answers: Callable[[], int] | None = None) -> bool:
        """The usage that was told last is that of the whole response: it stands in the event that says why
        the answer stopped, or behind it; or beside no choice, behind all that have any, as OpenAI's API sends
        it ("chat.completion.chunk": the last one, for the entire request); or all events have passed. One
        before that may be a running total (vLLM's ``continuous_usage_stats``), or provisional
        (``message_start``).

        :param answers: tells how many there are; None: one. Of several, which may come one after another,
            only a usage beside no choice is of all.
        """
        if not self.is_readable_stream:
            return False
        text = b"".join(self.payload[: self._seen])
        if is_ended(text, self._begin):
            return True
        usages = list(_USAGE.finditer(text))
        if not usages:
            return False
        at = usages[-1].start()
        match = EVENT_END.search(text, at)
        begin, end = (
            max(text.rfind(close, 0, at) for close in EVENT_ENDS),
            match.end() if match else len(text),
        )
        event = text[max(begin, 0) : end]
        if endpoint in HAS_CHOICES and _NO_CHOICE.search(event):
            is_last = _CHOICE.search(text, end) is None and not is_half(text[end:] if match else event)
            return is_last and (_CHOICE.search(text, 0, max(begin, 0)) is not None or self._dropped > 0)
        is_whole = how_ended(text[:end], self._begin, endpoint) == WHOLE
        return is_whole and (endpoint == "messages" or answers is None or answers() == 1)

    def is_between_events(self) -> bool:
        """An event stream stands at the end of an event and of a chunk: an event of ours may follow."""
        if not self.is_readable_stream:
            return False
        if not self.body.at_boundary and not (self.is_unfinished and self._has_room()):
            return False
        if self._filter is not None and not self._filter.is_between_events:
            return False
        return self.ends_with_event()

    def ends_with_event(self) -> bool:
        """True if the received part of an event stream ends at the end of an event, or is empty."""
        # Only what was passed on counts: a read with broken framing may have left pieces behind it.
        seen = self._seen
        end = b"".join(self.payload[max(seen - 4, 0) : seen])[-4:]
        return not end or end.endswith(EVENT_ENDS)

    def _has_room(self) -> bool:
        """Of an unfinished stream: the client's framing can take more."""
        return self.mode != AS_IT_CAME or (isinstance(self.body, ChunkedBody) and self.body.last_at >= 0)

    def wrap_event(self, event: bytes, last: bool) -> bytes:
        """An event of ours, framed for the client. Only where :meth:`is_between_events`."""
        if self.mode == UNWRAPPED:
            return event
        return wrap_chunk(event, last)
