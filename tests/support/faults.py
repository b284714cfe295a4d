"""The faults of the matrix, the cells that make sense, and providers that play them.

A cell is a fault, a mode, a route and a client:

- **mode**: ``plain``; ``streamed``, with ``peek = false``; ``peeked``, a stream that is held until it shows
  output.
- **route**, who is faulty and who else is there: ``alone`` (a pinned name), ``failover`` (the first of two),
  ``second`` (the one that is asked after the first has failed), ``hedge`` (the first, when a second is asked
  already), ``rival`` (that second).
- **client**: ``stays``; ``slow`` reads in drips, behind small buffers; or it leaves while the gateway is
  ``connecting``, ``waiting`` for the answer, or in the middle of its ``body``.
"""

from __future__ import annotations

import asyncio
import gzip
import secrets
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count, product
from time import monotonic
from typing import Any, NamedTuple

from proxy.server.single import Server
from tests.support.fakes import Call, Script, ScriptedProvider, blackhole, chunk, dead_url
from tests.support.two_providers import config

# The first byte's time, and that between two. No test waits for it: Scene.silence() makes the gateway look at
# a moment behind it. After four times as long it closes idle connections.
LIMIT_S = 15
PATIENCE_S = 60
MODES = ("plain", "streamed", "peeked")
ROUTES = ("alone", "failover", "second", "hedge", "rival")
CLIENTS = ("stays", "slow", "leaves-connecting", "leaves-waiting", "leaves-body")
# Of an answer to nobody: no client may ever see it.
FOREIGN = b'{"foreign":"bytes"}'
NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(FOREIGN), FOREIGN)

# What the gateway makes of a fault.
FAILS = "fails"  # there is no answer
REFUSES = "refuses"  # an answer that is a failure
ANSWERS = "answers"  # an answer like any other
BREAKS = "breaks"  # an answer that comes to no end

Play = Callable[["Scene", Call, str], Awaitable[None]]


class Fault(NamedTuple):
    """What a provider does.

    :param play: its part, after it has read a request; None: there is nobody.
    :param outcome: of the attempt, as ``X-Inferoute-Attempts`` has it. :param status: of the answer to the
        client, if there is no other; and the ``code`` of the gateway's own. :param ends: what the client of a
        stream that breaks off sees: ``cut``, or ``event``, the error event.
    :param url: where there is nobody: ``refused``, ``never`` (picks up), ``no TLS``, ``no handshake``.
    :param reads: what it reads before it plays: ``nothing``, ``head`` or ``request``.
    :param is_late: it is the gateway's time limit that ends it. :param keeps: its connection can be used
        again. :param warm: its connection was used before. :param early: so it answers before the request is
        complete: the client has sent ``half``, or it is ``unread`` in the buffers.
    :param streams: in a stream it is in one. :param has_body: the answer has.
    :param is_lossy: what the gateway has not read yet when it happens may be lost.
    :param is_work: it is charged to the key, though no answer comes of it: its client may have made it so.
    :param peeked: what kind it is where its first event is looked at, if another.
    """

    name: str
    kind: str
    play: Play | None = None
    outcome: str = "reset"
    status: int = 502
    code: str = "provider_bad_answer"
    ends: str = "cut"
    url: str = ""
    reads: str = "request"
    is_late: bool = False
    keeps: bool = False
    warm: bool = False
    early: str = ""
    modes: tuple[str, ...] = MODES
    streams: bool = True
    has_body: bool = True
    is_lossy: bool = False
    peeked: str = ""
    is_work: bool = False


class Cell(NamedTuple):
    """See the module's text."""

    fault: Fault
    mode: str
    route: str
    client: str

    @property
    def id(self) -> str:
        return f"{self.fault.name}-{self.mode}-{self.route}-{self.client}"

    @property
    def kind(self) -> str:
        if self.fault.kind == BREAKS and (self.is_held_whole or self.is_overtaken):
            return FAILS
        return self.fault.peeked or self.fault.kind if self.mode == "peeked" else self.fault.kind

    @property
    def is_held_whole(self) -> bool:
        """A plain answer is, where another could follow; but not one that says that it is too long."""
        return self.mode == "plain" and self.route != "alone" and self.fault.name != "18 digits of length"

    @property
    def is_late(self) -> bool:
        """It is the gateway's time limit that ends the attempt, if no other does."""
        is_silent = self.is_held_whole and self.fault.name.endswith(", silent")
        return self.fault.is_late or is_silent or self.is_overtaken

    @property
    def is_overtaken(self) -> bool:
        """The other of a hedge shows output, while nothing follows on this one's head."""
        return self.is_hedged and self.mode == "peeked" and self.fault.name in NO_OUTPUT

    @property
    def is_followed(self) -> bool:
        """What another attempt may follow."""
        return self.kind in (FAILS, REFUSES)

    @property
    def is_hedged(self) -> bool:
        return self.route in ("hedge", "rival")

    @property
    def phase(self) -> str:
        """In which the client leaves; "" if it stays."""
        return self.client.partition("-")[2]

    @property
    def faulty(self) -> str:
        return "b" if self.route in ("second", "rival") else "a"

    @property
    def is_rescued(self) -> bool:
        """There is a good provider, and its answer is taken."""
        return self.is_followed and self.route not in ("alone", "second")

    @property
    def last(self) -> str:
        """Whose answer is taken, or would be."""
        return "ab".replace(self.faulty, "") if self.is_rescued else self.faulty

    def part(self, name: str) -> str:
        """What a provider plays."""
        if name == self.faulty or (self.route == "second" and self.is_followed and not self.fault.peeked):
            return "fault"
        return "500" if self.route == "second" else "good"

    def holds(self, name: str) -> bool:
        """The client leaves while this provider is at it."""
        if self.phase == "waiting":
            return self.route == "hedge" or name == (
                "a" if self.route == "alone" or self.fault.early else "b"
            )
        return name == self.faulty


def nonsense(cell: Cell) -> str:
    """Why there is no such cell; "" if there is."""
    fault, mode, route, client = cell
    answers = cell.kind in (ANSWERS, BREAKS) or (cell.kind == REFUSES and route == "alone")
    if mode not in fault.modes or (mode == "peeked" and (fault.kind == FAILS or not fault.streams)):
        return "the fault is none of such answers"
    if mode == "peeked" and route == "alone":
        return "what nothing can follow is not peeked at"
    if fault.early and route != {"half": "alone", "unread": "failover"}[fault.early]:
        return "only what may go elsewhere is held until it is complete; it is not kept, and nothing follows"
    if client != "stays" and route == "failover" and answers and not fault.early:
        return "nothing follows: as alone"
    if client == "slow" and not cell.is_rescued and not (answers and fault.has_body):
        return "there is nothing that fills a buffer"
    if client == "leaves-connecting" and (fault.url not in ("never", "no handshake") or cell.is_rescued):
        return "nobody is dialled for long, or it is all the same who else there is"
    if client != "stays" and route == "rival":
        return "both are waited for, and from the head on it is all the same whose it is: as hedge"
    if client == "slow" and route == "hedge" and cell.is_rescued:
        return "from its head on, the good answer is like any that follows: as failover"
    if client == "leaves-waiting" and fault.reads == "nothing" and route in ("alone", "second"):
        return "it happens before anybody can leave"
    if client == "leaves-body" and not fault.has_body and cell.kind in (ANSWERS, REFUSES):
        return "there is no body"
    is_held = cell.is_held_whole or (cell.is_hedged and mode == "peeked" and fault.peeked == FAILS)
    if client == "leaves-body" and is_held:
        return "it is held to its end: as while it is waited for"
    if client == "leaves-body" and cell.kind == FAILS and not fault.peeked:
        return "there is no body"
    if client == "leaves-body" and cell.kind == REFUSES and route != "alone":
        return "its body is not for the client"
    ends_late = cell.fault.outcome == "timeout" or (cell.is_held_whole and cell.is_late and not fault.is_late)
    if cell.mode == "plain" and ends_late and cell.route in ("failover", "second"):
        return "what was generated until 'total' was over is not asked for anew"
    return ""


async def soon(condition: Callable[[], object]) -> None:
    """As ``until``, but mostly without a wait, and longer: there are many cells, and machines are busy."""
    async with asyncio.timeout(PATIENCE_S):
        for turn in count():
            if condition():
                return
            await asyncio.sleep(0 if turn < 100 else 0.002)


class Scene:
    """One cell as it is played.

    A request and its answer carry a ``marker``; ``said`` is what each provider has said of its body.
    """

    def __init__(self, cell: Cell, providers: dict[str, ScriptedProvider], stack: ExitStack) -> None:
        self.cell = cell
        self.providers = providers
        self.urls = {name: self._url(name, stack) for name in providers}
        self.marker = secrets.token_hex(8).encode()
        self.is_on = False  # else whoever is asked is good
        self.left = asyncio.Event()
        self.holding: set[str] = set()
        self.said: dict[str, bytes] = {}
        self.server: Server
        self.exchange: Any = None
        for name, provider in providers.items():
            provider.script = self._script(name)

    def _url(self, name: str, stack: ExitStack) -> str:
        where = self.cell.fault.url if self.cell.part(name) == "fault" else ""
        if where == "refused":
            return dead_url()
        if where == "never":
            return stack.enter_context(blackhole())
        return self.providers[name].url.replace("http:", "https:" if where else "http:")

    def reachable(self) -> list[str]:
        """Providers that a good request can go to."""
        return [name for name in "ab" if not (self.cell.fault.url and self.cell.part(name) == "fault")]

    def text(self, state: str) -> str:
        """The configuration."""
        # A real limit where it has to pass; else one that a busy machine does not come near.
        connect = "250ms" if self.cell.fault.url in ("never", "no handshake") else "20s"
        peek = f", peek = {'true' if self.cell.mode == 'peeked' else 'false'}"
        return config(
            self.urls["a"],
            self.urls["b"],
            alias=peek[2:],
            more=f'hedged = {{ models = ["a/m", "b/m"], strategy = "cost", hedge = "1ms"{peek} }}',
            tables='[server]\nlisten = ["127.0.0.1:0"]\n[timeouts]\n'
            f'first_byte = "{LIMIT_S}s"\ntotal = "{LIMIT_S}s"\nidle = "{LIMIT_S}s"\nconnect = "{connect}"\n'
            f'[state]\npath = "{state}"\n[admin]\nlisten = ""',
        )

    @property
    def model(self) -> str:
        return "a/m" if self.cell.route == "alone" else "hedged" if self.cell.is_hedged else "two"

    def body(self) -> bytes:
        """The request's."""
        stream = b"false" if self.cell.mode == "plain" else b"true"
        pad = b"x" * (8 << 20 if self.cell.fault.early == "unread" else 0)
        sent = b'{"model":"%b","id":"%b","stream":%b,"pad":"%b"}'
        return sent % (self.model.encode(), self.marker, stream, pad)

    # ------------------------------------------------------------------ the gateway, seen from inside

    def running(self) -> Any:
        """The request as the gateway has it; None: not yet, or not any more."""
        if self.exchange is None and self.is_on:
            found = [c._exchange for c in self.server.gateway.connections if c._exchange is not None]  # type: ignore[union-attr]
            self.exchange = found[0] if found else None
        return self.exchange

    def attempt(self, name: str) -> Any:
        """The one that runs at a provider; None if there is none."""
        exchange = self.running()
        running = () if exchange is None else (exchange.attempt, exchange.hedged_attempt)
        return next((one for one in running if one is not None and one.provider.config.name == name), None)

    def has_passed(self, name: str, size: int) -> bool:
        """So much of the answer's body has gone through, or nobody waits for it any longer."""
        attempt = self.attempt(name)
        if attempt is None:
            return True
        return attempt.response is not None and attempt.response.passed_bytes >= size

    def hedge_is_decided(self) -> bool:
        """One of the two has failed, or was closed."""
        exchange = self.running()
        return exchange is None or (exchange.chain is not None and exchange.hedged_attempt is None)

    # ------------------------------------------------------------------ the providers' side

    def _script(self, name: str) -> Script:
        async def script(call: Call) -> None:
            part = self.cell.part(name)
            if self.is_on and part == "fault" and self.cell.fault.reads == "nothing":
                await self._play(call, name)
                raise ConnectionError
            while True:
                if self.is_on and part == "fault" and self.cell.fault.reads == "head":
                    await call.head()
                    await self._at("waiting", name)
                    await self._play(call, name)
                    raise ConnectionError
                _, body = await call.request()
                if not self.is_on:
                    await call.answer(body)
                    continue
                if self.cell.is_hedged:
                    await soon(lambda: self.providers["b"].seen or self.is_decided_without(name))
                await self._at("waiting", name)
                await self._take_part(call, name, part)

        return script

    def is_decided_without(self, name: str) -> bool:
        """The other one has failed before it could read."""
        fault = self.cell.fault
        if fault.reads != "nothing" or name == self.cell.faulty:
            return False
        return self.server.gateway.counters.hedges > 0 and (self.cell.is_late or self.hedge_is_decided())

    async def _take_part(self, call: Call, name: str, part: str) -> None:
        if part == "500":
            await call.answer(b"{}", b"500 Oops")
        elif part == "fault":
            await self._play(call, name)
        else:
            if self.cell.is_hedged and not self.left.is_set() and not self.cell.is_late:
                await soon(lambda: self.hedge_is_decided() or self.attempt(name) is None)
            await self.say(call, name, *self.whole())

    async def _play(self, call: Call, name: str) -> None:
        play = self.cell.fault.play
        assert play is not None
        await play(self, call, name)

    async def _at(self, phase: str, name: str) -> None:
        """Here the client may leave."""
        if phase == self.cell.phase and self.cell.holds(name):
            self.holding.add(name)
            await self.left.wait()

    async def silence(self, call: Call, name: str) -> None:
        """Say nothing until the gateway closes, and have its time pass if it would wait."""
        if not self.left.is_set():
            gateway = self.server.gateway
            # While the client takes nothing, the provider's time rests.
            await soon(lambda: self.running() is None or not self.running().client_full_at)
            gateway.tick(monotonic() + LIMIT_S + 1)
            if self.attempt(name) is not None:  # a stream that was peeked at has another limit behind that
                gateway.tick(monotonic() + 2 * (LIMIT_S + 1))
        await call.gone()
        raise ConnectionError

    # ------------------------------------------------------------------ answers

    def pieces(self) -> tuple[list[bytes], bytes]:
        """An answer's body: what comes first, and the last piece."""
        pads = range(8 if self.cell.client == "slow" else 0)
        usage = b'"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}'
        if self.cell.mode == "plain":
            first = [b'{"to":"%b","pad":"' % self.marker, *(b"x" * 60_000 for _ in pads)]
            return first, b'",%b}' % usage
        events = [b'data: {"to":"%b","choices":[{"delta":{"content":"hi"}}]}\n\n' % self.marker]
        events += [b'data: {"pad":"%b"}\n\n' % (b"x" * 60_000) for _ in pads]
        return events, b'data: {"choices":[],%b}\n\ndata: [DONE]\n\n' % usage

    def whole(self, status: bytes = b"200 OK") -> tuple[bytes, list[bytes]]:
        """A good answer as the mode has it: head and pieces."""
        first, last = self.pieces()
        return self.head("length" if self.cell.mode == "plain" else "chunked", status), [*first, last]

    def head(self, framing: str, status: bytes = b"200 OK", extra: bytes = b"", size: int = -1) -> bytes:
        """The head of an answer with :meth:`pieces`."""
        first, last = self.pieces()
        size = len(b"".join(first) + last) if size < 0 else size
        kind = b"application/json" if self.cell.mode == "plain" else b"text/event-stream"
        line = {"length": b"Content-Length: %d\r\n" % size, "chunked": b"Transfer-Encoding: chunked\r\n"}
        return b"HTTP/1.1 %b\r\nContent-Type: %b\r\n%b%b\r\n" % (status, kind, line.get(framing, b""), extra)

    async def say(
        self, call: Call, name: str, head: bytes, pieces: list[bytes], behind: bytes | None = b""
    ) -> None:
        """An answer; the client may leave behind its first piece.

        :param behind: comes with the last piece, after what ends the body; None: the body does not end.
        """
        self.said[name] = b"".join(pieces)
        is_chunked = b"\r\nTransfer-Encoding: chunked" in head
        wire = [chunk(piece) for piece in pieces] if is_chunked else pieces.copy()
        if behind is not None:
            wire[-1:] = [b"".join(wire[-1:]) + (b"0\r\n\r\n" if is_chunked else b"") + behind]
        await call.send(head + b"".join(wire[:1] if len(wire) > 1 else ()))
        rest = wire[1:] if len(wire) > 1 else wire
        if behind is not None:
            await self._at("body", name)
        for piece in rest:
            await call.send(piece)
        if behind is None:
            await self._at("body", name)


# ---------------------------------------------------------------------- what faults do


async def closes(scene: Scene, call: Call, name: str) -> None:
    raise ConnectionError


async def resets(scene: Scene, call: Call, name: str) -> None:
    call.reset()
    raise ConnectionError


async def is_silent(scene: Scene, call: Call, name: str) -> None:
    if scene.cell.is_hedged:  # the other one answers
        await call.gone()
        raise ConnectionError
    await scene.silence(call, name)


async def leaves_dialling(scene: Scene, call: Call, name: str) -> None:
    await call.gone()


async def speaks_no_tls(scene: Scene, call: Call, name: str) -> None:
    await call.reader.read(1)
    await call.send(NEXT)


def says(data: bytes, then: Play = closes) -> Play:
    """Sends bytes that are no answer."""

    async def play(scene: Scene, call: Call, name: str) -> None:
        await call.send(data)
        if then is is_silent and not scene.left.is_set():
            await soon(lambda: (one := scene.attempt(name)) is None or one.connection.reader._buffer)
        await then(scene, call, name)

    return play


def repeats(first: bytes, data: bytes) -> Play:
    """Sends the same over and over, far beyond all limits, as long as somebody takes it."""

    async def play(scene: Scene, call: Call, name: str) -> None:
        await call.send(first)
        for _ in range(1000):
            await call.send(data * 1000)
        await call.gone()

    return play


def answers(status: bytes, extra: bytes = b"", before: bytes = b"") -> Play:
    """Answers so, in whatever mode, with JSON in one piece."""

    async def play(scene: Scene, call: Call, name: str) -> None:
        first, last = scene.pieces()
        pieces = [b'{"error":{"message":"%b' % scene.marker, *first, last]
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        await scene.say(call, name, before + head % (status, len(b"".join(pieces)), extra), pieces)

    return play


async def is_good_after_interim(scene: Scene, call: Call, name: str) -> None:
    head, pieces = scene.whole()
    await scene.say(
        call, name, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hint\r\na: b\r\n\r\n" + head, pieces
    )


def has_none(status: bytes) -> Play:
    """An answer that can have no body has one."""

    async def play(scene: Scene, call: Call, name: str) -> None:
        scene.said[name] = b""
        await call.send(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(FOREIGN), FOREIGN))
        await call.gone()

    return play


def goes_on(framing: str, behind: bytes, later: bool = False) -> Play:
    """More bytes than the answer has, with its last ones or a moment later."""

    async def play(scene: Scene, call: Call, name: str) -> None:
        first, last = scene.pieces()
        await scene.say(call, name, scene.head(framing), [*first, last], b"" if later else behind)
        if later:
            await soon(lambda: scene.attempt(name) is None)
            await call.send(behind)
        await call.gone()

    return play


async def answers_early(scene: Scene, call: Call, name: str) -> None:
    await scene.say(call, name, *scene.whole())
    await soon(lambda: scene.attempt(name) is None)
    # Whoever reads what is left of the request must find its end, if that is not the connection's.
    await call.gone()


async def dies_on_reuse(scene: Scene, call: Call, name: str) -> None:
    if call.number < 1:
        raise ConnectionError
    await scene.say(call, name, *scene.whole())


async def is_disguised(scene: Scene, call: Call, name: str) -> None:
    event = b'data: {"error":{"message":"%b"}}\n\n' % scene.marker
    first, last = scene.pieces()
    await scene.say(call, name, scene.head("chunked"), [event, *first, last])


def breaks(framing: str, what: str, end: str, extra: bytes = b"") -> Play:
    """An answer that breaks off.

    :param what: has come of its body: ``nothing``, ``half`` (in the middle of an event and of a chunk),
        ``chunks`` (of an event, but not of a chunk), ``inside`` (the other way round), ``events`` (neither).
    :param end: ``close``, ``reset``, ``silence``, or bytes that are none of the framing.
    """

    async def play(scene: Scene, call: Call, name: str) -> None:
        first, last = scene.pieces()
        pieces = {"nothing": [], "events": first}.get(what, [*first, last[:20]])
        head = scene.head(framing, extra=extra)
        if what in ("half", "inside") and framing == "chunked":
            await scene.say(call, name, head, first, None)
            piece = last[:20] if what == "half" else first[0]
            scene.said[name] += piece
            await call.send(b"%x\r\n%b" % (len(piece) + 10, piece))
        else:
            await scene.say(call, name, head, pieces, None)
        if end == "close":
            raise ConnectionError
        if scene.cell.client != "slow" or end == "silence":
            size = len(scene.said[name])
            await soon(lambda: scene.has_passed(name, size))
        if end == "silence" and scene.cell.is_late:
            await is_silent(scene, call, name)
        elif end == "silence":
            await scene.silence(call, name)
        elif end == "reset":
            call.reset()
            raise ConnectionError
        await call.send(end.encode())
        await call.gone()

    return play


async def breaks_packed(scene: Scene, call: Call, name: str) -> None:
    """Compressed, and cut in the middle of that."""
    first, last = scene.pieces()
    packed = gzip.compress(b"".join([*first, last]), 0)
    head = scene.head("length", extra=b"Content-Encoding: gzip\r\n", size=len(packed))
    await scene.say(call, name, head, [packed[: len(packed) // 2], packed[len(packed) // 2 : -40]], None)
    raise ConnectionError


async def has_no_end(scene: Scene, call: Call, name: str) -> None:
    """One event, for long."""
    pieces = [b'data: {"to":"%b","pad":"' % scene.marker, *(b"x" * 50_000 for _ in range(20))]
    await scene.say(call, name, scene.head("chunked"), pieces, None)
    raise ConnectionError


OK = b"HTTP/1.1 200 OK\r\n"
PATIENCE = b"Retry-After: 30\r\n"
NO_OUTPUT = ("head, silent", "head of a stream, silent")
YEARS = b"Content-Length: 1" + b"0" * 17 + b"\r\n"
BOTH = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello"
STREAMS = ("streamed", "peeked")
CONNECT = {"outcome": "connect", "status": 503, "code": "provider_unreachable", "reads": "nothing"}
LATE = {"outcome": "timeout", "status": 504, "code": "provider_timeout", "is_late": True}
EVENT = {"ends": "event", "modes": STREAMS}

FAULTS = [
    # No connection.
    Fault("refused", FAILS, url="refused", **CONNECT),
    Fault("never picks up", FAILS, url="never", is_late=True, **CONNECT),
    Fault("no TLS", FAILS, speaks_no_tls, url="no TLS", **CONNECT),
    Fault("no TLS handshake", FAILS, leaves_dialling, url="no handshake", is_late=True, **CONNECT),
    # No answer.
    Fault("never speaks", FAILS, is_silent, **LATE),
    Fault("closes at once", FAILS, closes, reads="nothing"),
    Fault("resets at once", FAILS, resets, reads="nothing"),
    Fault("closes", FAILS, closes),
    Fault("resets", FAILS, resets),
    Fault("garbage", FAILS, says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")),
    Fault("half a head, closes", FAILS, says(OK + b"Content-Le")),
    Fault("half a head, silent", FAILS, says(OK + b"Content-Le", is_silent), **LATE),
    Fault("two lengths", FAILS, says(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")),
    Fault("length and chunked", FAILS, says(OK + BOTH)),
    Fault(
        "large head", FAILS, says(OK + b"X: " + b"y" * 40_000 + b"\r\nContent-Length: 2\r\n\r\n{}"),
        is_work=True,
    ),
    Fault("endless headers", FAILS, repeats(OK, b"X-Header: value\r\n"), is_work=True),
    Fault("endless interim", FAILS, repeats(b"", b"HTTP/1.1 100 Continue\r\n\r\n")),
    Fault("101", FAILS, says(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n")),
    Fault("wrong version", FAILS, says(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")),
    Fault("wrong status", FAILS, says(b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}")),
    Fault("too large a length", FAILS, says(OK + b"Content-Length: 1" + b"0" * 18 + b"\r\n\r\n{}")),
    Fault("dies on reuse, and again", FAILS, closes, warm=True),
    Fault("401", FAILS, answers(b"401 No"), outcome="401", code="provider_auth_failed"),
    # An answer that is a failure.
    Fault("500", REFUSES, answers(b"500 Oops"), "500", 500, keeps=True, streams=False),
    Fault("503", REFUSES, answers(b"503 Busy", PATIENCE), "503", 503, keeps=True, streams=False),
    Fault("429", REFUSES, answers(b"429 Slow", PATIENCE), "429", 429, keeps=True, streams=False),
    Fault("302", REFUSES, answers(b"302 There", b"Location: /x\r\n"), "302", 302, keeps=True, streams=False),
    # An answer like any other.
    Fault("400", ANSWERS, answers(b"400 Bad"), "400", 400, keeps=True, streams=False),
    Fault("204 with a body", ANSWERS, has_none(b"204 None"), "204", 204, streams=False, has_body=False),
    Fault("304 with a body", REFUSES, has_none(b"304 Same"), "304", 304, streams=False, has_body=False),
    Fault("interim first", ANSWERS, is_good_after_interim, "200", 200, keeps=True),
    Fault("longer than its length", ANSWERS, goes_on("length", b"more"), "200", 200),
    Fault("more than its chunks", ANSWERS, goes_on("chunked", b"more"), "200", 200),
    Fault("a second answer", ANSWERS, goes_on("length", NEXT), "200", 200),
    Fault("a second answer later", ANSWERS, goes_on("chunked", NEXT, later=True), "200", 200),
    Fault("early", ANSWERS, answers_early, "200", 200, reads="head", early="half"),
    Fault("unread", ANSWERS, answers_early, "200", 200, reads="head", early="unread"),
    Fault("dies on reuse", ANSWERS, dies_on_reuse, "200", 200, warm=True, keeps=True),
    Fault("an error as first event", ANSWERS, is_disguised, "200", 200, modes=STREAMS, keeps=True,
          peeked=REFUSES),
    # An answer that breaks off.
    Fault("head, silent", BREAKS, breaks("length", "nothing", "silence"), "200", 200, has_body=False),
    Fault("head of a stream, silent", BREAKS, breaks("chunked", "nothing", "silence"), "200", 200, **EVENT,
          has_body=False),
    Fault("head of a stream, closes", BREAKS, breaks("chunked", "nothing", "close"), "200", 200, **EVENT,
          has_body=False, peeked=FAILS),
    Fault("half a length, closes", BREAKS, breaks("length", "half", "close"), "200", 200),
    Fault("half a length, resets", BREAKS, breaks("length", "half", "reset"), "200", 200, is_lossy=True),
    Fault("half a length, silent", BREAKS, breaks("length", "half", "silence"), "200", 200),
    Fault("18 digits of length", BREAKS, breaks("", "half", "close", YEARS), "200", 200),
    Fault("half a chunk, closes", BREAKS, breaks("chunked", "half", "close"), "200", 200),
    Fault("half a chunk, resets", BREAKS, breaks("chunked", "half", "reset"), "200", 200, is_lossy=True),
    Fault("half a chunk, silent", BREAKS, breaks("chunked", "half", "silence"), "200", 200),
    Fault("half an event, closes", BREAKS, breaks("chunked", "chunks", "close"), "200", 200),
    Fault("event inside a chunk, closes", BREAKS, breaks("chunked", "inside", "close"), "200", 200),
    Fault("event inside a chunk, too long", BREAKS, breaks("chunked", "inside", "x" * 20), "200", 200,
          is_lossy=True),
    Fault("events, closes", BREAKS, breaks("chunked", "events", "close"), "200", 200, **EVENT),
    Fault("events, resets", BREAKS, breaks("chunked", "events", "reset"), "200", 200, **EVENT, is_lossy=True),
    Fault("events, silent", BREAKS, breaks("chunked", "events", "silence"), "200", 200, **EVENT),
    Fault("no chunk's size", BREAKS, breaks("chunked", "events", "nonsense\r\n"), "200", 200, **EVENT,
          is_lossy=True),
    Fault("no chunk's size in half an event", BREAKS, breaks("chunked", "chunks", "nonsense\r\n"), "200", 200,
          is_lossy=True),
    Fault("longer than its chunk", BREAKS, breaks("chunked", "events", "5\r\nhello, you"), "200", 200,
          **EVENT, is_lossy=True),
    Fault("no framing, resets", BREAKS, breaks("", "half", "reset"), "200", 200, is_lossy=True),
    Fault("events without framing, reset", BREAKS, breaks("", "events", "reset"), "200", 200, **EVENT,
          is_lossy=True),
    Fault("packed, closes", BREAKS, breaks_packed, "200", 200),
    Fault("an event without end", BREAKS, has_no_end, "200", 200, modes=STREAMS),
]  # fmt: skip

ALL = [Cell(*parts) for parts in product(FAULTS, MODES, ROUTES, CLIENTS)]
CELLS = [cell for cell in ALL if not nonsense(cell)]
