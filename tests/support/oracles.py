"""Parsers of others, which ours are held against: llhttp and h11."""

from __future__ import annotations

from typing import Any

import h11
import httptools

from proxy.wire.request_head import RequestHead
from proxy.wire.response_head import ResponseHead
from tests.support.heads import options_of


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a target in origin-form, absolute-form or asterisk-form."""
    if target[:1] not in (b"/", b"*"):
        rest = target.partition(b"://")[2]
        target = rest[min(rest.find(mark) if mark in rest else len(rest) for mark in (b"/", b"?")) :]
        target = target if target.startswith(b"/") else b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


def check_framing(
    theirs: Llhttp, ours: RequestHead | ResponseHead
) -> tuple[list[tuple[bytes, bytes]], set[bytes]]:
    """Llhttp takes a head and finds the same framing; returns its lines, and what Connection says in them."""
    assert theirs.has_head, theirs.error
    assert theirs.parser.get_http_version() == f"1.{ours.minor}"
    lower = [(name.lower(), value) for name, value in theirs.fields]
    lengths = [] if ours.length is None else [ours.length]
    assert [int(value) for name, value in lower if name == b"content-length"] == lengths
    assert [name for name, _ in lower].count(b"transfer-encoding") == ours.chunked
    options = options_of(lower)
    assert ours.keep_alive == (b"close" not in options and (ours.minor == 1 or b"keep-alive" in options))
    return lower, options


class Llhttp:
    """llhttp, strict, on the first message of ``data``: ``end`` is where that ends, None if it does not.

    ``error`` says why it was refused. ``has_head``: its head was accepted. Fed byte by byte, as it does not
    tell offsets otherwise; ``at_once`` does without the offset of the end.
    """

    def __init__(self, parser_class: Any, data: bytes, *, at_once: bool = False) -> None:
        self.target = self.reason = self.body = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.end: int | None = None
        self.error = ""
        self.has_head = False
        self._fed = head = max(data.find(b"\r\n\r\n") + 4, 4)
        step = max(len(data), 1) if at_once else 1
        self.parser = parser_class(self)
        try:
            self.parser.feed_data(data[:head])
            for at in range(head, len(data), step):
                if self.end is not None:
                    return
                self._fed = at + step
                self.parser.feed_data(data[at : at + step])
        except httptools.HttpParserUpgrade:
            pass  # it says so once the head is over, and goes no further
        except httptools.HttpParserError as error:
            self.error = str(error) or repr(error)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        (self.trailers if self.has_head else self.fields).append((name, value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        if self.end is None:
            self.end = self._fed


class H11:
    """h11 on the messages of ``data``. ``messages``: head event, body, whether it is complete, trailers.

    :param answers_to: None: these are requests; else the method of the requests that they answer.
    :param is_closed: nothing follows behind ``data``.
    """

    def __init__(
        self, data: bytes, *, answers_to: str | None = None, is_closed: bool = False, most: int = 20
    ) -> None:
        self.messages: list[list[Any]] = []
        self.error = ""
        self.left = b""  # behind the last message
        self.is_paused = False  # the connection is not to be used again
        try:
            self._read(data, answers_to, is_closed, most)
        except h11.RemoteProtocolError as error:
            self.error = str(error) or repr(error)

    def _read(self, data: bytes, answers_to: str | None, is_closed: bool, most: int) -> None:
        role = h11.SERVER if answers_to is None else h11.CLIENT
        parser = h11.Connection(role, max_incomplete_event_size=64 << 10)
        if answers_to is not None:
            self._ask(parser, answers_to)
        parser.receive_data(data)
        if is_closed:
            parser.receive_data(b"")
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA or isinstance(event, h11.ConnectionClosed):
                return
            if event is h11.PAUSED:
                self.is_paused = True
                self.left = parser.trailing_data[0]
                return
            if isinstance(event, h11.Request | h11.Response):
                self.messages.append([event, b"", False, []])
            elif isinstance(event, h11.Data):
                self.messages[-1][1] += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self.messages[-1][2:] = [True, list(event.headers)]
                self.left = parser.trailing_data[0]
                if len(self.messages) >= most or not self._begin_anew(parser, answers_to):
                    self.is_paused = True
                    return

    @staticmethod
    def _ask(parser: h11.Connection, method: str) -> None:
        parser.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        parser.send(h11.EndOfMessage())

    def _begin_anew(self, parser: h11.Connection, answers_to: str | None) -> bool:
        if answers_to is None and parser.our_state is h11.SEND_RESPONSE:
            parser.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            parser.send(h11.EndOfMessage())
        if parser.our_state is not h11.DONE or parser.their_state is not h11.DONE:
            return False
        parser.start_next_cycle()
        if answers_to is not None:
            self._ask(parser, answers_to)
        return True
