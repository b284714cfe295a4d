#!/usr/bin/env python3
"""What each step of the hot path costs, without sockets.

Fake transports drive a client's and a provider's connection in this process, so that what is left is the
gateway's own work: no kernel, no event loop, no load generator. The figures are CPU time of this thread in
microseconds, the least of several rounds over all cases (a busy minute then spoils no case alone).

    stages.py                             every case
    stages.py --list
    stages.py --case pinned,routed --rounds 60
    stages.py --instructions              machine instructions instead of time, by valgrind: slow, but
                                          the same on a busy machine as on a quiet one
    stages.py --check                     hold them against instructions.json; a compiled build only
    stages.py --record                    write instructions.json
    stages.py --case pinned --profile     where the Python functions spend it
"""

from __future__ import annotations

import argparse
import atexit
import cProfile
import gc
import json
import pstats
import random
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import instructions
from comparison.bodies import body as request_body

from proxy.access.accounts import Accounts, memory_bytes
from proxy.access.grants import KeyTable
from proxy.access.group import Group
from proxy.access.key import Key, digest_of
from proxy.access.permits import Month
from proxy.config.parse import parse
from proxy.relay.downstream.connection import ClientConnection
from proxy.relay.downstream.gateway import Gateway
from proxy.relay.upstream.connection import ProviderConnection
from proxy.relay.upstream.provider import Provider
from proxy.routing.catalog import Catalog
from proxy.routing.strategy import Facts, choose
from proxy.storage.ledger_files import Ledger
from proxy.usage.response_usage import read_events, read_plain
from proxy.wire.model_scanner import ModelScanner
from proxy.wire.request_head import read_request_head
from proxy.wire.response_head import read_response_head

CONFIG = """
[auth]
required = false
[state]
path = ":memory:"
[providers.one]
base_url = "http://127.0.0.1:9/v1"
auth = "none"
[providers.two]
base_url = "http://127.0.0.1:9/v1"
auth = "none"
[models."one/mock-model"]
input_price = 1
output_price = 2
context_window = 128_000
capabilities = ["chat", "tools", "vision"]
[models."two/mock-model"]
input_price = 1
output_price = 2
context_window = 128_000
capabilities = ["chat", "tools", "vision"]
[models."two/small-model"]
input_price = 0.5
output_price = 1
context_window = 32_000
capabilities = ["chat"]
[aliases]
economy = { models = ["one/mock-model", "two/mock-model", "two/small-model"], strategy = "cost" }
"""
CROWD = 64
TURN = 16  # answers that end in one turn of the event loop
SECRET = b"th-" + b"x" * 43
LIMITS = {"rpm": 10**9, "tpm": 10**12, "concurrency": 1000, "monthly_nusd": 10**18, "monthly_tokens": 10**12}
DAILY = {"daily_nusd": 10**18, "daily_tokens": 10**12}
PINNED, SHORT, ALIAS = "one/mock-model", "mock-model", "economy"

PLAIN_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8080\r\n"
    b"Content-Type: application/json\r\n"
    b"Authorization: Bearer sk-bench\r\n"
)
# As the official Python SDK sends it.
SDK_HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\n"
    b"Host: 127.0.0.1:8080\r\n"
    b"Accept-Encoding: gzip, deflate\r\n"
    b"Connection: keep-alive\r\n"
    b"authorization: Bearer sk-bench\r\n"
    b"accept: application/json\r\n"
    b"content-type: application/json\r\n"
    b"user-agent: OpenAI/Python 1.109.1\r\n"
    b"x-stainless-lang: python\r\n"
    b"x-stainless-package-version: 1.109.1\r\n"
    b"x-stainless-os: Linux\r\n"
    b"x-stainless-arch: x64\r\n"
    b"x-stainless-runtime: CPython\r\n"
    b"x-stainless-runtime-version: 3.11.7\r\n"
    b"x-stainless-async: false\r\n"
    b"x-stainless-retry-count: 0\r\n"
    b"x-stainless-read-timeout: 600\r\n"
)
ANSWER_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: Thu, 09 Oct 2025 08:53:20 GMT\r\n"
    b"content-type: application/json\r\n"
    b"content-length: %d\r\n"
    b"server: mock\r\n"
    b"x-request-id: req-mock\r\n"
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: Thu, 09 Oct 2025 08:53:20 GMT\r\n"
    b"content-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\n"
    b"server: mock\r\n"
    b"x-request-id: req-mock\r\n"
)
USAGE = {
    "prompt_tokens": 187,
    "completion_tokens": 64,
    "total_tokens": 251,
    "prompt_tokens_details": {"cached_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0},
}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-mock0123456789abcdef",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "mock-model",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A reverse proxy stands in front. " * 8},
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }
).encode()


def event(text: str | None, usage: bool = False) -> bytes:
    """One event of a stream, about 200 bytes."""
    chunk = {
        "id": "chatcmpl-mock0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "mock-model",
        "choices": [] if text is None else [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
        **({"usage": USAGE} if usage else {}),
    }
    return b"data: %b\n\n" % json.dumps(chunk).encode()


def chunked(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


CHUNK = chunked(event(" proxy stands in front of servers"))
STREAM_START = STREAM_HEAD + b"\r\n"
STREAM_TAIL = event("end") + event(None, usage=True) + b"data: [DONE]\n\n"
STREAM_END = (
    chunked(event("end")) + chunked(event(None, usage=True)) + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"
)


class FakeTransport:
    """Takes what is written. ``wire`` hears which protocol wrote last."""

    def __init__(self, wire: Wire, protocol: ClientConnection | ProviderConnection) -> None:
        self.wire = wire
        self.protocol = protocol
        self.written: list[bytes] | None = None  # a list: keep what is written, for the check

    def write(self, data: bytes) -> None:
        self.wire.last = self.protocol
        if self.written is not None:
            self.written.append(data)

    def writelines(self, parts: list[bytes]) -> None:
        self.wire.last = self.protocol
        if self.written is not None:
            self.written.extend(parts)

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        raise AssertionError("the gateway cut a connection: the benchmark's bytes are not what it expects")

    close = abort


class Wire:
    """A gateway with one client and one idle connection to each of two providers."""

    def __init__(self, key: Key | None = None, *, ledger: bool = False, group: Group | None = None) -> None:
        self.last: ClientConnection | ProviderConnection | None = None
        self.later: list[Callable[[], None]] = []  # what is to be called in the event loop's next turn
        config = parse(CONFIG)
        providers = {
            name: Provider(provider, None, 5.0, simulated=False)
            for name, provider in config.providers.items()
        }
        self.catalog = Catalog(config, dict.fromkeys(providers, True), 0)
        accounts = Accounts(memoryview(bytearray(memory_bytes(1))), 1, 0)
        keys = None
        if key is not None:
            for slot in range(2):
                accounts.open(slot, time.time(), Month(0, 0, 0.0))
            groups = () if group is None else ((group, 1),)
            keys = KeyTable([(key, 0)], accounts, is_open=False, groups=groups)
        directory = Path(tempfile.mkdtemp(prefix="stages-", dir=".")) if ledger else None
        if directory is not None:
            atexit.register(shutil.rmtree, directory)
        self.gateway = Gateway(
            config, self.catalog, providers, random.Random(1), None, keys, Ledger(directory),
            self.later.append,
        )  # fmt: skip
        self.transports: list[FakeTransport] = []
        for provider in providers.values():
            connection = ProviderConnection(provider.pool)
            self.connect(connection)
            connection.served = 1
            provider.pool.put(connection, time.monotonic())
        self.client = ClientConnection(self.gateway)
        self.connect(self.client)

    def connect(self, protocol: ClientConnection | ProviderConnection) -> None:
        transport = FakeTransport(self, protocol)
        self.transports.append(transport)
        protocol.connection_made(transport)  # type: ignore[arg-type]

    def ask(self, *reads: bytes) -> ProviderConnection:
        """A client's request, which ends a turn of the event loop; the connection it was sent on."""
        for data in reads:
            self.client.data_received(data)
        self.end_turn()
        assert isinstance(self.last, ProviderConnection), "the request did not reach a provider"
        return self.last

    def answer(self, upstream: ProviderConnection, data: bytes) -> None:
        """The end of a provider's answer, and of the turn of the event loop."""
        upstream.data_received(data)
        self.end_turn()

    def end_turn(self) -> None:
        """As the event loop does."""
        later = self.later
        while later:
            later.pop()()

    def check(self, exchange: Callable[[], None]) -> None:
        """One exchange with everything written looked at, so that no broken path is timed."""
        for transport in self.transports:
            transport.written = []
        exchange()
        sent = b"".join(b"".join(map(bytes, t.written or ())) for t in self.transports[:-1])
        got = b"".join(self.transports[-1].written or ())
        for transport in self.transports:
            transport.written = None
        assert re.search(rb'"model": ?"(mock|small)-model"', sent), sent[:500]
        assert got.startswith(b"HTTP/1.1 200 "), got[:500]
        assert b"X-Inferoute-Model: " in got and b'"usage"' in got, got[:2000]


def with_length(head: bytes, data: bytes) -> bytes:
    return b"%bContent-Length: %d\r\n\r\n" % (head, len(data))


def body_of(model: str, size: str = "1k", *, first: bool = True, stream: bool = False) -> bytes:
    """A body of the comparison harness; ``first``: the model stands in front of the messages."""
    document = json.loads(request_body(size, model))
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    if not first:
        document["model"] = document.pop("model")
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


# ------------------------------------------------------------------ the whole path


def plain(
    model: str,
    *,
    first: bool = True,
    size: str = "1k",
    sdk: bool = False,
    ledger: bool = False,
    limits: dict[str, int] | None = None,
    grouped: bool = False,
) -> Callable[[], None]:
    """A request and its answer, not streamed.

    :param sdk: the SDK's headers, head and body a read each. :param ledger: a line on disk for each.
    :param limits: those of the key it brings; None: it brings none.
    :param grouped: the key is in a group with the same limits.
    """
    key = None if limits is None else Key("key_1", "bench", digest_of(SECRET), 0, **limits)
    group = None
    if key is not None and grouped:
        key, group = replace(key, group="g"), Group(name="g", created=0, **(limits or {}))
    wire = Wire(key, ledger=ledger, group=group)
    data = body_of(model, size, first=first)
    head = SDK_HEAD if sdk else PLAIN_HEAD
    head = with_length(head.replace(b"sk-bench", SECRET) if key is not None else head, data)
    reads = (head, data) if sdk else (head + data,)
    answer = ANSWER_HEAD % len(ANSWER) + b"\r\n" + ANSWER

    def exchange() -> None:
        wire.answer(wire.ask(*reads), answer)

    wire.check(exchange)
    return exchange


def crowd(model: str) -> Callable[[], None]:
    """As plain(), with ``CROWD`` clients at once: whoever waited longest is answered, ``TURN`` in a turn."""
    wire = Wire()
    data = body_of(model)
    request = with_length(PLAIN_HEAD, data) + data
    answer = ANSWER_HEAD % len(ANSWER) + b"\r\n" + ANSWER
    clients = deque([wire.client])
    for _ in range(CROWD + TURN - 1):
        clients.append(ClientConnection(wire.gateway))
        wire.connect(clients[-1])
    for provider in wire.gateway.providers.values():
        for _ in range(CROWD + TURN):
            connection = ProviderConnection(provider.pool)
            wire.connect(connection)
            connection.served = 1
            provider.pool.put(connection, time.monotonic())
    waiting: deque[ProviderConnection] = deque()

    def ask() -> None:
        client = clients[0]
        client.data_received(request)
        clients.rotate(-1)
        asked = client._exchange
        assert asked is not None and asked.attempt is not None and asked.attempt.connection is not None
        waiting.append(asked.attempt.connection)

    for _ in range(CROWD - 1):
        ask()
    answered = 0

    def exchange() -> None:
        nonlocal answered
        ask()
        waiting.popleft().data_received(answer)
        answered += 1
        if answered % TURN == 0:
            wire.end_turn()

    exchange()
    return exchange


def stream(chunks: bool) -> Callable[[], None]:
    """A chunk of an endless stream, or everything of a stream but such chunks."""
    wire = Wire()
    data = body_of(PINNED, stream=True)
    request = with_length(PLAIN_HEAD, data) + data

    def exchange() -> None:
        upstream = wire.ask(request)
        upstream.data_received(STREAM_START)
        wire.answer(upstream, STREAM_END)

    wire.check(exchange)
    if not chunks:
        return exchange
    upstream = wire.ask(request)
    upstream.data_received(STREAM_START)
    passed = 0

    def chunk() -> None:
        nonlocal passed
        upstream.data_received(CHUNK)
        passed += 1
        if passed % TURN == 0:
            wire.end_turn()

    return chunk


# ------------------------------------------------------------------ stages alone


def head_reading(head: bytes) -> Callable[[], object]:
    data = with_length(head, b"x" * 900)[:-4]
    return lambda: read_request_head(data)


def scanning(size: str, first: bool) -> Callable[[], object]:
    data = body_of(PINNED, size, first=first)

    def scan() -> None:
        scanner = ModelScanner()
        scanner.feed(data, True)

    scan()
    return scan


def resolving(name: str) -> Callable[[], object]:
    catalog = Wire().catalog
    return lambda: catalog.resolve(name, "chat", None)


def choosing(name: str) -> Callable[[], object]:
    """The choice among members that all have been seen: the rows were filled by exchanges."""
    wire = Wire()
    data = body_of(name)
    request, answer = with_length(PLAIN_HEAD, data) + data, ANSWER_HEAD % len(ANSWER) + b"\r\n" + ANSWER
    for _ in range(200):
        wire.answer(wire.ask(request), answer)
    pool, rng = wire.catalog.resolve(name, "chat", None), wire.gateway.rng
    now = time.monotonic()
    facts = Facts("chat", False, len(data), images=False, tools=False, now=now)
    return lambda: choose(pool, facts, rng)


def sending() -> Callable[[], object]:
    """The request head for the provider, the body with its model replaced, the write."""
    wire = Wire()
    data = body_of(PINNED, first=False)
    connection = wire.ask(with_length(SDK_HEAD, data), data)
    attempt = connection.receiver
    assert attempt is not None
    transport = next(t for t in wire.transports if t.protocol is connection)

    def send() -> None:
        attempt._send(connection, [data])
        wire.end_turn()

    transport.written = []
    send()
    sent = b"".join(map(bytes, transport.written))
    assert sent.startswith(b"POST ") and sent.endswith(b'"model":"mock-model"}'), sent
    transport.written = None
    return send


def usage_plain() -> Callable[[], object]:
    assert read_plain(ANSWER, "chat") is not None
    return lambda: read_plain(ANSWER, "chat")


def usage_events() -> Callable[[], object]:
    tail = (event(" proxy stands in front of servers") * 60)[-8000:] + STREAM_TAIL
    assert read_events(tail, "chat") is not None
    return lambda: read_events(tail, "chat")


def response_head(head: bytes) -> Callable[[], object]:
    data = head.replace(b"%d", b"633").rstrip()
    return lambda: read_response_head(data)


# name: what it is, what one call is, how to make the call
CASES: dict[str, tuple[str, str, Callable[[], Callable[[], object]]]] = {
    "pinned": ("pinned model, first in the body", "request", lambda: plain(PINNED)),
    "sdk": ("the SDK's headers, head and body a read each", "request", lambda: plain(PINNED, sdk=True)),
    "sdk-behind": (
        "the same, model behind the messages",
        "request",
        lambda: plain(PINNED, first=False, sdk=True),
    ),
    "routed": ("short name at 2 providers, latency", "request", lambda: plain(SHORT)),
    "alias": ("alias of 3 models, cost", "request", lambda: plain(ALIAS)),
    "ledger": ("pinned, with a line in the ledger", "request", lambda: plain(PINNED, ledger=True)),
    "keyed": (
        "the same, with a key without limits",
        "request",
        lambda: plain(PINNED, ledger=True, limits={}),
    ),
    "limited": (
        "the same, with every limit that holds by the minute and month",
        "request",
        lambda: plain(PINNED, ledger=True, limits=LIMITS),
    ),
    "grouped": (
        "the same, with those of a day too, of the key and of its group",
        "request",
        lambda: plain(PINNED, ledger=True, limits=LIMITS | DAILY, grouped=True),
    ),
    "pinned-crowd": (f"pinned model, {CROWD} under way", "request", lambda: crowd(PINNED)),
    "routed-crowd": (f"short name at 2 providers, {CROWD} under way", "request", lambda: crowd(SHORT)),
    "100k": ("100 KB conversation, model first", "request", lambda: plain(PINNED, size="100k")),
    "2m": ("2 MB image, model first", "request", lambda: plain(PINNED, size="2m")),
    "limited-100k": (
        "100 KB conversation, everything on",
        "request",
        lambda: plain(SHORT, size="100k", ledger=True, limits=LIMITS),
    ),
    "limited-2m": (
        "2 MB image, everything on",
        "request",
        lambda: plain(SHORT, size="2m", ledger=True, limits=LIMITS),
    ),
    "stream": ("stream without its chunks", "request", lambda: stream(False)),
    "chunk": ("one chunk of a stream", "chunk", lambda: stream(True)),
    "head": ("read_request_head, 4 headers", "call", lambda: head_reading(PLAIN_HEAD)),
    "head-sdk": ("read_request_head, the SDK's 17 headers", "call", lambda: head_reading(SDK_HEAD)),
    "scan": ("ModelScanner, 1 KB, model first", "call", lambda: scanning("1k", True)),
    "scan-behind": ("ModelScanner, 1 KB, model last", "call", lambda: scanning("1k", False)),
    "scan-100k": ("ModelScanner, 100 KB, model last", "call", lambda: scanning("100k", False)),
    "resolve": ("catalog.resolve", "call", lambda: resolving(SHORT)),
    "choose": ("choose, 2 members, latency", "call", lambda: choosing(SHORT)),
    "choose-cost": ("choose, 3 members, cost", "call", lambda: choosing(ALIAS)),
    "send": ("request head, body spliced and written (SDK)", "call", sending),
    "answer-head": ("read_response_head", "call", lambda: response_head(ANSWER_HEAD)),
    "usage": ("read_plain, 0.7 KB", "call", usage_plain),
    "usage-events": ("read_events, 8 KB tail", "call", usage_events),
    "empty": ("an empty call, contained in each figure above", "call", lambda: lambda: None),
}
WHOLE = (
    "pinned", "pinned-crowd", "sdk", "sdk-behind", "routed", "routed-crowd", "alias", "100k", "2m", "stream",
    "chunk",
)  # fmt: skip


def calibrate(call: Callable[[], object]) -> int:
    """How many calls take about 20 ms; the caches are warm after it."""
    count = 16
    while cpu_seconds(call, count) < 0.01:
        count *= 2
    return count * 2


def cpu_seconds(call: Callable[[], object], count: int) -> float:
    begun = time.thread_time()
    for _ in range(count):
        call()
    return time.thread_time() - begun


# ------------------------------------------------------------------ instructions


def print_instructions(names: list[str]) -> int:
    print("machine instructions of one call, start-up taken off")
    for name, count in instructions.count_all(names):
        print(f"{name:14} {count:12,}  per {CASES[name][1]:8} {CASES[name][0]}", flush=True)
    return 0


def check_instructions(*, is_to_record: bool) -> int:
    """Hold the cases that are kept against the record, or put them there."""
    if not instructions.is_compiled():
        print(
            "This is not a compiled build, and only one is on record: in a copy of the repository say "
            "TOKENHUB_COMPILE=1 python setup.py build_ext --inplace, and here set PYTHONPATH to the copy.",
            file=sys.stderr,
        )
        return 1
    counts = dict(instructions.count_all(instructions.KEPT))
    new = instructions.Record(instructions.environment(), instructions.packages(), counts)
    old = instructions.read_record() if instructions.RECORD.exists() else new._replace(instructions={})
    rows = instructions.compare(old.instructions, counts)
    print(instructions.table(rows))
    if is_to_record:
        new.write()
        print(f"on record: {instructions.RECORD}")
        return 0
    is_well, why = instructions.verdict(rows, old, new)
    print(why)
    return 0 if is_well else 1


# ------------------------------------------------------------------ main


def main() -> int:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = "names, with commas; default: all (--instructions: the whole path)"
    parser.add_argument("--case", default="", help=default)
    parser.add_argument(
        "--rounds", type=int, default=15, help="each is about 20 ms per case, the least counts"
    )
    parser.add_argument("--instructions", action="store_true", help="count instructions with valgrind")
    parser.add_argument("--check", action="store_true", help="hold instructions against instructions.json")
    parser.add_argument("--record", action="store_true", help="write instructions.json")
    parser.add_argument("--profile", action="store_true", help="show where the time goes, case by case")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--only-run", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.case.split(",") if args.case else list(WHOLE if args.instructions else CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        parser.error(f"no such case: {', '.join(unknown)} (--list names them)")
    if args.list:
        for name, (title, unit, _) in CASES.items():
            print(f"{name:14} per {unit:8} {title}")
        return 0
    if args.instructions or args.check or args.record:
        if shutil.which("valgrind") is None:
            print(
                "valgrind is not installed: no instruction counts (apt-get install valgrind)", file=sys.stderr
            )
            return 1
        if args.instructions:
            return print_instructions(names)
        return check_instructions(is_to_record=args.record)
    calls = {name: CASES[name][2]() for name in names}
    # As the gateway does when it has started.
    gc.collect()
    gc.freeze()
    if args.only_run is not None:
        for call in calls.values():
            cpu_seconds(call, args.only_run)
    elif args.profile:
        print_profiles(calls)
    else:
        print_times(calls, args.rounds)
    return 0


def print_times(calls: dict[str, Callable[[], object]], rounds: int) -> None:
    counts = {name: calibrate(call) for name, call in calls.items()}
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            least[name] = min(least[name], cpu_seconds(call, counts[name]) / counts[name])
    for name, seconds in least.items():
        title, unit, _ = CASES[name]
        print(f"{name:14} {seconds * 1e6:10.2f} µs per {unit:8} {title}")


def print_profiles(calls: dict[str, Callable[[], object]]) -> None:
    for name, call in calls.items():
        profiler = cProfile.Profile()
        profiler.runcall(cpu_seconds, call, 5000)
        print(f"== {name}: {CASES[name][0]}")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    raise SystemExit(main())
