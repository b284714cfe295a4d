"""The mixed traffic of a soak: slow streams held open, and beside them requests of every kind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from time import monotonic

import orjson

from soak.books import Books, Expected
from soak.client import ANSWER_S, Answer, Gate, Late, Wire, Wrong, judge, judge_refused, request
from soak.plans import Plan, is_stream, marker, plan

# Users that ask one thing after another. Few are ever busy at once, so that the rate is held.
USERS = 60
# How many slow streams are opened a second while they are being built up.
RAMP_PER_S = 200.0
# So many wrong answers are told in full.
EXAMPLES = 30
MEMBERS = {"safe": "fa", "hedged": "fb", "peeked": "fab", "flip": "ab", "m": "abf"}
BIG_BYTES = 1_000_000  # below replay_limit: kept for another attempt
KEEP_ALIVE_LINES = ("", "", "User-Agent: soak/1\r\n", "Accept: */*\r\nX-Custom: 1\r\n")
# Keys that are refused, and how.
REFUSED_KEYS = (
    ("revoked", 401, "invalid_api_key"),
    ("unknown", 401, "invalid_api_key"),
    ("models", 403, "model_not_allowed"),
    ("max_tokens", 422, "max_tokens_exceeded"),
    ("broke", 402, "monthly_limit_reached"),
)
POST = "POST /v1/chat/completions HTTP/1.1\r\nHost: soak\r\n"


class Keys:
    """Keys of the gateway: each kind's clear key, and its id."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[str, str]] = {}

    def key(self, kind: str) -> str:
        return self.of[kind][0]

    def id(self, kind: str) -> str:
        return self.of[kind][1]


class Traffic:
    """See the module's text.

    :param slow_s: how long a slow stream takes, at least and at most.
    :param rate: requests a second beside the slow streams.
    """

    def __init__(
        self, gate: Gate, books: Books, keys: Keys, seed: int, slow_s: tuple[float, float], rate: float
    ) -> None:
        self.gate = gate
        self.books = books
        self.keys = keys
        self.seed = seed
        self.slow_s = slow_s
        self.rate = rate
        self.rng = Random(seed)
        self.number = 0
        self.became: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.examples: list[str] = []
        self.late: list[tuple[float, str]] = []  # to be explained by a process that did not get to run
        self.open_streams = 0
        self.stopping = False
        self.tasks: set[asyncio.Task[None]] = set()
        self.kinds: list[tuple[float, Callable[[], Awaitable[None]]]] = [
            (25, self.plain), (8, self.with_key), (6, self.limited), (5, self.refused_key), (8, self.embed),
            (8, self.failover), (5, self.hedged), (4, self.peeked), (2, self.big), (12, self.quick),
            (8, self.leaves), (1, self.slow_reader), (6, self.malformed), (4, self.chunked),
            (3, self.pipelined), (3, self.fallback), (2, self.flipped), (2, self.drained), (2, self.looks),
        ]  # fmt: skip

    # ------------------------------------------------------------------ running

    def start(self, streams: int) -> None:
        for at in range(streams):
            self._spawn(self._hold_streams(at / RAMP_PER_S))
        for _ in range(USERS):
            self._spawn(self._use())

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)  # type: ignore[arg-type]
        task.add_done_callback(self.tasks.discard)  # type: ignore[arg-type]

    async def stop(self) -> None:
        """Begin nothing new, leave what is open, and wait until all of it is accounted for."""
        self.stopping = True
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.gate.close()

    async def _hold_streams(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while not self.stopping:
            kind, provider = "slow", self.rng.choice("aaaaabbbbf")
            leaves_s = self.rng.uniform(0, self.slow_s[1]) if self.rng.random() < 0.1 else None
            await self._guarded(self._hold(kind, provider, leaves_s))

    async def _hold(self, kind: str, provider: str, leaves_s: float | None) -> None:
        self.open_streams += 1
        try:
            await self.ask(kind, f"{provider}/m", leaves_s=leaves_s, fresh=True)
        finally:
            self.open_streams -= 1

    async def _use(self) -> None:
        weights = [weight for weight, _ in self.kinds]
        acts = [act for _, act in self.kinds]
        while not self.stopping:
            await asyncio.sleep(self.rng.expovariate(self.rate / USERS))
            await self._guarded(self.rng.choices(acts, weights)[0]())

    async def _guarded(self, act: Awaitable[None]) -> None:
        try:
            await act
        except Late as fault:
            self.late.append((monotonic(), str(fault)))
        except Wrong as fault:
            self.note_wrong("wrong", str(fault))
        except OSError as fault:
            self.note_wrong("connection", repr(fault))
            await asyncio.sleep(0.2)

    def note_wrong(self, kind: str, text: str) -> None:
        self.wrong[kind] += 1
        if len(self.examples) < EXAMPLES or self.wrong[kind] == 1:
            self.examples.append(f"{kind}: {text}")

    # ------------------------------------------------------------------ one request

    def body(self, kind: str, model: str, number: int, **more: object) -> bytes:
        said: dict[str, object] = {"model": model, "soak": [number, kind], **more}
        if kind == "embed":
            said["input"] = f"text {number}"
        else:
            text = "z" * int(more.get("fill", 0) or self.rng.randrange(20, 900))  # type: ignore[call-overload]
            said.pop("fill", None)
            said["messages"] = [{"role": "user", "content": text}]
            said["stream"] = is_stream(kind)
        if self.rng.random() < 0.5:  # the model last, as some clients send it
            said["model"] = said.pop("model")
        return orjson.dumps(said)

    def next(self) -> int:
        self.number += 1
        return self.number

    def plan(self, number: int, provider: str, kind: str) -> Plan:
        return plan(self.seed, number, provider, kind, self.slow_s)

    def marks(self, number: int, members: str) -> dict[str, bytes]:
        return {provider: marker(number, provider).encode() for provider in members}

    async def ask(
        self, kind: str, model: str, *, key: str = "", more: str = "", chunked: bool = False,
        leaves_s: float | None = None, fresh: bool = False, members: str = "",
        refusals: set[tuple[int, str]] | None = None, slow_reading: bool = False, **extra: object,
    ) -> str:  # fmt: skip
        """One request, judged. ``refusals``: how the gateway may refuse it beside all else."""
        number = self.next()
        path = "/v1/embeddings" if kind == "embed" else "/v1/chat/completions"
        clear, id = self.keys.of[key] if key else ("", "")
        sent = request(self.body(kind, model, number, **extra), path, clear, more, chunked)
        wire = await (self.gate.connect() if fresh else self.gate.take())
        answer = wire.begin(self.marks(number, members or model[0]))
        wire.transport.write(sent)
        is_kept = False
        try:
            if slow_reading:
                await self._read_slowly(wire, answer)
            await asyncio.wait([answer.ended], timeout=ANSWER_S if leaves_s is None else leaves_s)
            is_kept = answer.ended.done()
            if not is_kept and leaves_s is None:
                raise Wrong(f"no end within {ANSWER_S:g} s: {kind} {model} {number}")
        finally:
            if not is_kept:
                wire.transport.abort()
            try:
                word = self.settle(answer, number, kind, id, not is_kept, not members, refusals)
            except Wrong:
                wire.transport.abort()
                raise
            self.gate.give(wire)
        self.became[word] += 1
        return word

    async def _read_slowly(self, wire: Wire, answer: Answer) -> None:
        # Not before the head: who takes nothing at all, and is cut, has nothing that could be judged.
        await asyncio.wait([answer.headed], timeout=ANSWER_S)
        for _ in range(8):
            if wire.transport.is_closing():
                return
            wire.transport.pause_reading()
            await asyncio.sleep(self.rng.uniform(0.2, 1.0))
            if wire.transport.is_closing():
                return
            wire.transport.resume_reading()
            await asyncio.sleep(0.02)

    def settle(
        self, answer: Answer, number: int, kind: str, key: str | None, left: bool, pinned: bool,
        refusals: set[tuple[int, str]] | None,
    ) -> str:  # fmt: skip
        """Tell the books, and judge what came."""
        books = self.books
        if left and not answer.status:
            books.expect_maybe(number)
            return "left early"
        if not answer.status and not answer.wrong:
            books.expect_maybe(number)
            raise Wrong(f"no answer to request {number} ({kind}): the connection closed")
        planned = self.plan(number, answer.provider or "a", kind)
        tokens = None
        try:
            if answer.wrong:
                raise Wrong(answer.wrong)
            if left:
                return "left within"
            if answer.is_ours and refusals and not answer.was_sent:
                return judge_refused(answer, refusals)
            if pinned and answer.is_ours and not answer.provider and not answer.was_sent:
                word = judge_refused(answer, set())
            else:
                word = judge(answer, number, kind, planned, pinned=pinned)
            if word == "whole":
                tokens = planned.input_tokens, 0 if kind == "embed" else planned.output_tokens
            return word
        except Wrong as fault:
            text = f"{answer.id.decode()} request {number} {kind} at {answer.provider}: {fault}"
            raise type(fault)(text) from None
        finally:
            if answer.was_sent:
                books.expect(answer.id, Expected(number, answer.status, tokens, key or None))
            elif answer.id:
                books.expect_none(answer.id)

    # ------------------------------------------------------------------ kinds of requests

    def pinned(self) -> str:
        return f"{self.rng.choice('aaabbf')}/m"

    async def plain(self) -> None:
        await self.ask("plain", self.pinned(), key="", more=self.rng.choice(KEEP_ALIVE_LINES))

    async def with_key(self) -> None:
        await self.ask(self.rng.choice(["plain", "quick"]), self.pinned(), key="good")

    async def drained(self) -> None:
        await self.ask("quick", self.pinned(), key="drain", leaves_s=self.rng.uniform(0.0, 0.2), fresh=True)

    async def limited(self) -> None:
        key = self.rng.choice(["rpm", "tpm", "concurrency"])
        refusals = {(429, "rate_limit_exceeded")}
        await self.ask(self.rng.choice(["plain", "quick"]), self.pinned(), key=key, refusals=refusals)

    async def refused_key(self) -> None:
        key, status, code = self.rng.choice(REFUSED_KEYS)
        refusals = {(status, code)}
        if key == "broke":  # what is left of its month may be held by requests that still run
            refusals.add((429, "rate_limit_exceeded"))
        word = await self.ask("plain", "a/m", key=key, refusals=refusals, max_tokens=100)
        if key != "broke" and not word.startswith(("refused", "shed")):
            raise Wrong(f"a request with the key '{key}' was served: {word}")

    async def embed(self) -> None:
        await self.ask("embed", f"{self.rng.choice('ab')}/e")

    async def failover(self) -> None:
        await self.ask(self.rng.choice(["plain", "quick"]), "safe", members=MEMBERS["safe"])

    async def hedged(self) -> None:
        await self.ask(self.rng.choice(["plain", "quick"]), "hedged", members=MEMBERS["hedged"])

    async def peeked(self) -> None:
        await self.ask("quick", "peeked", members=MEMBERS["peeked"])

    async def flipped(self) -> None:
        """An alias that leads to another provider after each edit of the configuration."""
        await self.ask("plain", "flip", members=MEMBERS["flip"])

    async def big(self) -> None:
        size = BIG_BYTES + self.rng.randrange(1000)
        model = self.rng.choice(["a/m", "b/m", "safe"])
        members = MEMBERS.get(model, "")
        await self.ask("plain", model, members=members, chunked=self.rng.random() < 0.3, fill=size)

    async def quick(self) -> None:
        await self.ask("quick", self.pinned())

    async def slow_reader(self) -> None:
        await self.ask("bulk", f"{self.rng.choice('ab')}/m", fresh=True, slow_reading=True)

    async def chunked(self) -> None:
        await self.ask("plain", self.pinned(), chunked=True)

    async def fallback(self) -> None:
        more = "X-Inferoute-Fallback: a/m, b/m\r\nX-Inferoute-Timeout: 5\r\n"
        await self.ask(self.rng.choice(["plain", "quick"]), "f/m", members="fab", more=more)

    async def pipelined(self) -> None:
        """Two requests in one write; the answers come in order."""
        first, second = self.next(), self.next()
        wire = await self.gate.connect()
        answers = [(number, wire.begin(self.marks(number, "a"))) for number in (first, second)]
        wire.transport.write(
            b"".join(request(self.body("plain", "a/m", number)) for number in (first, second))
        )
        try:
            for _, answer in answers:
                await asyncio.wait([answer.ended], timeout=ANSWER_S)
        finally:
            ended = [answer.ended.done() for _, answer in answers]
            wire.transport.abort()
            words = []
            if ended[1] and not answers[1][1].status:  # the connection was closed behind the first
                self.books.expect_maybe(answers.pop()[0])
            # The last one first: where the first is wrong, the second is accounted for.
            for (number, answer), is_there in reversed(list(zip(answers, ended, strict=False))):
                words.append(self.settle(answer, number, "plain", None, not is_there, True, None))
            self.became.update(words)

    async def leaves(self) -> None:
        """A client that goes away, in some phase of its request."""
        number = self.next()
        kind = self.rng.choice(["plain", "quick", "bulk"])
        model = self.rng.choice(["a/m", "b/m", "f/m", "safe", "hedged", "peeked"])
        size = self.rng.choice([0, 0, 200_000])
        sent = request(self.body(kind, model, number, fill=size), key=self.keys.key("good"))
        wire = await self.gate.connect()
        members = MEMBERS.get(model, model[0])
        answer = wire.begin(self.marks(number, members))
        phase = self.rng.choice(["connected", "head", "body", "sent", "waits", "headed", "within"])
        cut = {
            "connected": 0,
            "head": self.rng.randrange(1, 80),
            "body": len(sent) - self.rng.randrange(1, 15),
        }
        try:
            wire.transport.write(sent[: cut.get(phase, len(sent))])
            if phase in ("connected", "head", "body", "waits"):
                await asyncio.sleep(self.rng.uniform(0, 0.05))
            elif phase in ("headed", "within"):
                await asyncio.wait([answer.headed], timeout=ANSWER_S)
                if phase == "within":
                    await asyncio.sleep(self.rng.uniform(0, 0.1))
        finally:
            ended = answer.ended.done()
            if self.rng.random() < 0.5:
                wire.transport.abort()
            else:
                wire.transport.close()
            id = self.keys.id("good")
            self.became[self.settle(answer, number, kind, id, not ended, "/" in model, None)] += 1

    async def malformed(self) -> None:
        """What is refused before any provider is asked."""
        body = self.body("plain", "a/m", 0)
        sent, status, code = self.rng.choice([
            (b"nonsense\r\n\r\n", 400, "bad_head"),
            (f"{POST}Content-Length: 1\r\nContent-Length: 2\r\n\r\n".encode(), 400, "bad_head"),
            (f"{POST}A: {'x' * 40_000}\r\n\r\n".encode(), 431, ""),
            (f"{POST}\r\n".encode(), 411, ""),
            (f"{POST}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(), 400, "bad_framing"),
            (request(b"{no json"), 400, "malformed_json"),
            (request(b'{"messages":[]}'), 400, "model_required"),
            (request(b'{"model":"a/m","x":1,"model":"b/m"}'), 400, "duplicate_model"),
            (request(b'{"model":"none/%d"}' % self.rng.randrange(10**9)), 404, "model_not_found"),
            (request(body, "/v1/nothing"), 404, "unknown_path"),
            (request(body, more="X-Inferoute-Strategy: best\r\n"), 400, "invalid_strategy"),
            (request(body, more="Content-Encoding: gzip\r\n"), 400, "unsupported_content_encoding"),
        ])  # fmt: skip
        wire = await self.gate.connect()
        answer = wire.begin({})
        wire.transport.write(sent)
        try:
            await asyncio.wait([answer.ended], timeout=ANSWER_S)
        finally:
            wire.transport.abort()
        allowed = {(status, code), (status, "None")} if not code else {(status, code)}
        self.became[judge_refused(answer, allowed)] += 1
        if answer.id:
            self.books.expect_none(answer.id)

    async def looks(self) -> None:
        """What is not proxied: it goes to the other plane, connection and all."""
        path = self.rng.choice(["/v1/models", "/v1/models/a/m", "/healthz", "/readyz"])
        wire = await self.gate.take()
        answer = wire.begin({})
        wire.transport.write(f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode())
        try:
            await asyncio.wait([answer.ended], timeout=ANSWER_S)
        finally:
            wire.transport.abort()
        if answer.status != 200 or not answer.complete:
            raise Wrong(f"GET {path}: {answer.status}")
        self.became["looked"] += 1
