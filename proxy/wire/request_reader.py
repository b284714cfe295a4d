"""Requests on a client's connection: bytes in; heads, pieces of bodies, and what was pipelined, out.

read_head ──a whole head──►  whole_body   all of it came at once
                             begin_body   it comes in pieces, each through read_body
                             drop_body    nobody will look at it: what is left goes to drain
end, or the end of drain: the next head
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxy.errors import BadRequest
from proxy.wire.framing import ChunkedBody, LengthBody
from proxy.wire.header_lines import MAX_HEAD_BYTES, without_empty_lines
from proxy.wire.request_head import RequestHead

# As much of a refused body is read for the connection to stay usable.
_DRAIN_BYTES: Final = 64 << 10


class RequestReader:
    """Reads one request after another, in whatever pieces they come.

    ``head`` and ``length``: of the request that is on the connection, once its head is whole; the length is
    None where the head tells none. ``body``: follows the framing, where it comes in pieces or is dropped.
    ``unread``: what has come and is not read yet. ``seen``: bytes of a head that has not come to its end.

    :param recall: reads a head, or knows it from before:
        :meth:`proxy.relay.exchange.head_cache.HeadCache.recall`.
    """

    __slots__ = ("_begin", "_last", "_payload", "_recall", "body", "head", "length", "seen", "unread")

    def __init__(self, recall: Callable[[bytes], tuple[RequestHead, int | None]]) -> None:
        self.head: RequestHead | None = None
        self.length: int | None = None
        self.body: LengthBody | ChunkedBody | None = None
        self.unread = b""
        self.seen = 0
        self._recall = recall
        self._last: RequestHead | None = None  # of the request before, since most are the same
        self._begin = 0  # of the body, in what is unread
        self._payload: list[bytes] = []

    def read_head(self, data: bytes) -> bool:
        """Take the next bytes, which are empty where what is unread is to be read. Returns whether the head
        is whole; the body is unread then.

        :raises BadRequest: 431 for a head that is too long, or as
            :func:`proxy.wire.request_head.read_request_head`; what is unread tells for which path it was.
        """
        if self.unread:
            data = self.unread + data
        head, begin = self._last, 0
        length: int | None = None
        if head is not None:
            length, begin = head.again(data)
        if not begin:
            seen, self.seen = self.seen, 0
            if data[:2] == b"\r\n":  # RFC 9112 2.2: some clients end a body with an extra line
                data, seen = without_empty_lines(data), 0
            self.unread = data
            end = data.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0, MAX_HEAD_BYTES)
            if end < 0:
                if len(data) >= MAX_HEAD_BYTES:
                    raise BadRequest("The head is larger than 32 KiB.", status=431, close=True)
                self.seen = 0 if data == b"\r" else len(data)  # of an extra line, it may be
                return False
            head, length = self._recall(data[:end])
            begin = end + 4
        self.head = self._last = head
        self.length = length
        self.unread, self._begin, self.seen = data, begin, 0
        return True

    def raw_head(self) -> bytes:
        """The head's bytes, with the empty line; before its body is read."""
        return self.unread[: self._begin]

    def whole_body(self) -> bytes | None:
        """The body, if all of it has come with the head."""
        data, begin = self.unread, self._begin
        if not self.length or len(data) - begin < self.length:
            return None
        stop = begin + self.length
        self.unread = data[stop:]
        return data[begin:stop]

    def begin_body(self) -> bytes:
        """More of the body is to come. Returns what has come, which is to be read next."""
        self._frame()
        data, self.unread = self.unread[self._begin :], b""
        return data

    def read_body(self, data: bytes) -> bytes:
        """Take the next bytes of the body. Returns the piece without its framing.

        What is too much for one turn of the event loop stays unread, as does what follows the body.

        :raises proxy.wire.framing.FramingError: the framing is broken.
        """
        body = self.body
        assert body is not None
        if len(data) > body.slice_bytes:
            data, self.unread = data[: body.slice_bytes], data[body.slice_bytes :]
        taken = body.feed(data)
        if taken < len(data):
            data, self.unread = data[:taken], data[taken:] + self.unread
        if isinstance(body, ChunkedBody):
            data = b"".join(self._payload)
            self._payload.clear()
        return data

    def drop_body(self) -> bool:
        """Drop what has come of the body. Returns whether that was all of it."""
        self._frame()
        data, begin, body = self.unread, self._begin, self.body
        self.unread = b""
        if not isinstance(body, LengthBody):
            return False
        stop = begin + body.feed(data[begin:])
        if body.done:
            self.unread = data[stop:]
        return body.done

    def can_drain(self) -> bool:
        """Return whether the rest of the body is small, of known size, and sent without our asking for it."""
        body = self.body
        asked = self.head is None or not self.head.expect
        return asked and isinstance(body, LengthBody) and body.remaining <= _DRAIN_BYTES

    def drain(self, data: bytes) -> bool:
        """Drop the next bytes of the body. Returns whether it has ended, and the next request begins."""
        body = self.body
        if body is None:
            return False
        taken = body.feed(data)
        if body.done:
            self.unread = data[taken:]
            self.end()
            return True
        return False

    def end(self) -> None:
        """The request is over."""
        self.head = self.body = None

    def _frame(self) -> None:
        head = self.head
        assert head is not None
        if head.chunked:
            self.body = ChunkedBody()
            self._payload = self.body.payload = []
        else:
            self.body = LengthBody(self.length or 0)
