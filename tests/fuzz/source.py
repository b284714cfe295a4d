"""What targets share: how input is cut into reads, how a corpus is kept, and parsers of others as oracles."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import h11
import httptools

HERE = Path(__file__).parent
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.py") if path.stem != "__init__")


def load(name: str) -> ModuleType:
    """The module of a target: it has ``test_one(data)`` and ``SEEDS``."""
    return importlib.import_module(f"tests.fuzz.targets.{name}")


def pieces(data: bytes, how: int) -> list[bytes]:
    """``data`` in reads, as one byte says: 0: whole; up to 127: of so many bytes; above: cut once."""
    if how == 0 or not data:
        return [data]
    if how < 128:
        return [data[at : at + how] for at in range(0, len(data), how)]
    at = min(how - 128, len(data))
    return [data[:at], data[at:]] if 0 < at < len(data) else [data]


# --- the corpus: a file for each target, a line for each input ------------------------------------------


def corpus_of(name: str) -> list[bytes]:
    """The inputs kept for a target."""
    path = HERE / "corpus" / f"{name}.txt"
    return [_decoded(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def keep(name: str, inputs: list[bytes]) -> None:
    """Keep these, the smallest first, in place of those that were kept."""
    lines = [data.decode("latin-1").encode("unicode_escape").decode("ascii") for data in inputs]
    text = "".join(line + "\n" for line in sorted(set(lines), key=lambda line: (len(line), line)))
    (HERE / "corpus" / f"{name}.txt").write_text(text, "ascii")


def _decoded(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def crashes_of(name: str) -> list[Path]:
    """Inputs at which a target once failed."""
    return sorted((HERE / "crashes" / name).glob("*"))


# --- oracles -------------------------------------------------------------------------------------------


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
