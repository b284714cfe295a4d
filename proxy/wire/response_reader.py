"""Responses on a connection to a provider: bytes in; a head, and how its body is framed, out."""

from __future__ import annotations

import re
from typing import Final

from proxy.wire.framing import Body, ChunkedBody, CloseBody, LengthBody
from proxy.wire.header_lines import MAX_HEAD_BYTES, HeadError
from proxy.wire.response_head import HEAD_TOO_LONG, ResponseHead, read_response_head

_SUCCESS: Final = re.compile(rb"HTTP/1\.[01] 2")
# Interim responses before the real one. None is useful to us; many are an attack.
_MAX_INTERIM: Final = 8


class HeadTooLong(HeadError):
    """The head is longer than we take. ``is_success``: its status says 2xx."""

    def __init__(self, is_success: bool) -> None:
        super().__init__(HEAD_TOO_LONG)
        self.is_success = is_success


class ResponseReader:
    """Reads the head of a response that comes in pieces, after interim ones (1xx), which are dropped.

    ``head`` and ``body``: of the response, once its head is whole; ``body`` follows its framing.
    """

    __slots__ = ("_buffer", "_interim", "body", "head")

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.body: Body | None = None
        self._buffer = b""
        self._interim = 0

    def begin(self) -> None:
        """The next response is to come."""
        self.head = self.body = None
        self._interim = 0

    def read_head(self, data: bytes) -> bytes | None:
        """Take the next bytes of the connection. Returns what follows the head; None: it is not whole yet.

        :raises HeadTooLong: it is longer than we take.
        :raises HeadError: it is not HTTP/1.x, or its framing is ambiguous.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while True:
            end = data.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
            if end < 0:
                if len(data) >= MAX_HEAD_BYTES:
                    raise HeadTooLong(_SUCCESS.match(data) is not None)
                self._buffer = data
                return None
            head = read_response_head(data[:end])
            data = data[end + 4 :]
            body = self._body_of(head)
            if body is not None:
                self.head, self.body = head, body
                return data

    def _body_of(self, head: ResponseHead) -> Body | None:
        """How the body of a response is framed (RFC 9112 section 6.3); None for an interim one."""
        status = head.status
        if status < 200:
            self._interim += 1
            if status == 101 or self._interim > _MAX_INTERIM:
                raise HeadError("the provider answered with a protocol switch or too many interim answers")
            return None
        if status in (204, 304):
            return LengthBody(0)
        if head.chunked:
            return ChunkedBody()
        if head.length is not None:
            return LengthBody(head.length)
        head.keep_alive = False
        return CloseBody()
