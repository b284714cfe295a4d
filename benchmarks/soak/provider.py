"""The provider of a soak: answers each request as its plan says, faults included. A process of its own.

    python benchmarks/soak/provider.py --seed 1 --slow 10,120 --seen FILE

It prints its port, serves until it is told to end (SIGTERM), and writes the number of each request that it
has read whole to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import httptools
import orjson
import uvloop

if __name__ == "__main__":  # started by its path: the folder is a package
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from soak.plans import (
    BEAT_S,
    BEFORE,
    DONE,
    LATE_S,
    TOLD,
    answer,
    error,
    event,
    is_stream,
    last_events,
    marker,
    plan,
)

BACKLOG = 4096
NUMBER = struct.Struct("<Q")
STALL = struct.Struct("<dd")  # monotonic seconds, which all processes share
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n"
    return head % (status, more, len(body)) + body


class Book:
    """What all connections share."""

    def __init__(self, seed: int, slow_s: tuple[float, float], seen: BinaryIO) -> None:
        self.seed = seed
        self.slow_s = slow_s
        self.seen = seen


class Serving(asyncio.Protocol):
    """A connection of the gateway's. One request at a time: the gateway does not pipeline."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body: list[bytes] = []
        self.timer: asyncio.TimerHandle | None = None
        self.is_full = False
        self.steps: Callable[[], None] | None = None  # what waits for the gateway to read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.steps = None

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        if self.steps is not None:
            steps, self.steps = self.steps, None
            steps()

    def on_message_begin(self) -> None:
        if self.timer is not None:  # it was to be closed, but is in use again
            self.timer.cancel()
            self.timer = None
        self.url, self.body = b"", []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        asked = orjson.loads(b"".join(self.body))
        self.body = []
        number, kind = asked["soak"]
        self.number, self.kind = number, kind
        self.provider = self.url[1:2].decode()
        options = asked.get("stream_options") or {}
        self.tells_usage = self.provider != "b" or bool(options.get("include_usage"))
        self.book.seen.write(NUMBER.pack(number))
        self.plan = plan(self.book.seed, number, self.provider, kind, self.book.slow_s)
        if self.plan.wait_s:
            self.later(self.plan.wait_s, self.begin)
        else:
            self.begin()

    def later(self, delay_s: float, what: Callable[[], None]) -> None:
        self.timer = self.loop.call_later(delay_s, what)

    def begin(self) -> None:
        self.timer = None
        fate = self.plan.fate
        if fate in BEFORE:
            self.fail(fate)
        elif not is_stream(self.kind):
            self.answer_whole(fate)
        else:
            self.transport.write(_STREAM)
            self.at = 0
            self.next_event()

    def fail(self, fate: str) -> None:
        if fate == "reset":
            self.transport.abort()
        elif fate == "garbage":
            self.transport.write(b"\x00\x01 this is not HTTP\r\n\r\n")
            self.transport.close()
        elif fate != "stall":  # that one says nothing, until the gateway has had enough
            status = int(fate[1:])
            more = {503: b"Retry-After: 1\r\n", 429: b"retry-after-ms: 200\r\n"}.get(status, b"")
            body = error(self.number, self.provider, status)
            self.transport.write(whole(b"%d Soak" % status, body, more))
            self.end()

    def answer_whole(self, fate: str) -> None:
        data = whole(b"200 OK", answer(self.number, self.provider, self.kind, self.plan))
        if fate == "good":
            self.transport.write(data)
            self.end()
        else:
            self.transport.write(data[:-20])
            self.break_off(fate)

    def break_off(self, fate: str) -> None:
        """In the midst of an answer."""
        if fate == "reset_within":
            self.later(0.05, self.transport.abort)
        elif fate == "cut_within":
            self.transport.close()
        elif fate == "garbage_within":
            if is_stream(self.kind):
                self.transport.write(b"zz\r\nno chunk\r\n")
            self.transport.close()

    def next_event(self) -> None:
        self.timer = None
        while True:
            fate, planned = self.plan.fate, self.plan
            if fate != "good" and self.at >= planned.at:
                self.go_wrong(fate)
                return
            if self.at >= planned.events:
                self.end_stream()
                return
            data = event(
                self.number, self.provider, self.at, self.kind, self.provider == "b" and self.tells_usage
            )
            self.at += 1
            self.transport.write(chunk(data))
            if planned.gap_s:
                self.later(planned.gap_s, self.next_event)
                return
            if self.is_full:
                self.steps = self.next_event
                return

    def end_stream(self) -> None:
        last = last_events(self.number, self.plan) if self.tells_usage else b""
        self.transport.write((chunk(last) if last else b"") + chunk(DONE) + b"0\r\n\r\n")
        self.end()

    def go_wrong(self, fate: str) -> None:
        if fate == TOLD:
            said = orjson.dumps(
                {"error": {"message": marker(self.number, self.provider), "code": "soak_told"}}
            )
            self.transport.write(chunk(b"data: " + said + b"\n\n") + b"0\r\n\r\n")
            self.end()
            return
        if self.number % 2:  # in the midst of an event
            self.transport.write(b'20\r\ndata: {"half":')
        self.break_off(fate)

    def end(self) -> None:
        closes_s = self.plan.closes_s
        if closes_s == 0.0:
            self.transport.close()
        elif closes_s is not None:
            self.later(closes_s, self.transport.close)


async def note_stalls(file: BinaryIO) -> None:
    """Write down when this process did not get to run: what it answered late then is nobody's fault."""
    while True:
        begun = time.monotonic()
        await asyncio.sleep(BEAT_S)
        if time.monotonic() - begun > BEAT_S + LATE_S:
            file.write(STALL.pack(begun, time.monotonic()))


async def serve(args: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    least, most = map(float, args.slow.split(","))
    paths = Path(args.seen), Path(args.seen + ".late")
    with paths[0].open("wb") as seen, paths[1].open("wb") as late:
        book = Book(args.seed, (least, most), seen)
        server = await loop.create_server(lambda: Serving(book), "127.0.0.1", 0, backlog=BACKLOG)
        print(server.sockets[0].getsockname()[1], flush=True)
        beating = loop.create_task(note_stalls(late))
        await ended.wait()
        beating.cancel()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--slow", required=True, help="how long a slow stream takes: at least, at most, in s")
    parser.add_argument("--seen", required=True, metavar="FILE")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(args))


if __name__ == "__main__":
    main()
