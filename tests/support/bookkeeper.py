"""A provider that keeps books of its own: what it was made to do, at its own prices, by who made it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

from tests.support.chats import END, event
from tests.support.fakes import EVENT_STREAM, Call

# USD per million tokens.
INPUT_PRICE, OUTPUT_PRICE = 1, 10
TOKENS_A_SECOND = 1000
# What an earlier response counts that is gone on with.
EARLIER_TOKENS = 90_000
# What it writes where nobody says how much, and how many requests it is at a time.
MOST_OUTPUT = 300
BYTES_A_TOKEN = 4


class Bookkeeper:
    """Answers chat, completions, responses, embeddings, images and speech. Whose a request is stands in
    ``user``; what is asked of it beside in ``metadata``: ``think``, tokens that nobody sees; ``silent``, no
    word of what was used; ``waits``, seconds before it speaks; ``prefill_ms``, before it writes; ``word`` and
    ``per_event``, what an event has and how many tokens that is; ``pad``, bytes of log probabilities in each;
    ``pause_ms``, before it tells the usage of a stream; ``never_done``, behind which it stays silent.

    ``nusd`` and ``requests``: by user. ``running``: requests that are not booked yet.
    """

    def __init__(self) -> None:
        self.nusd: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.running = 0

    async def script(self, call: Call) -> None:
        while True:
            head, body = await call.request()
            self.running += 1
            try:
                await self._answer(call, head.split(b" ")[1], body)
            finally:
                self.running -= 1

    async def _answer(self, call: Call, path: bytes, body: bytes) -> None:
        asked = json.loads(body)
        if b"/embeddings" in path:
            self._book(asked, len(asked["input"]), 0)
            await _gone(call)
            raise ConnectionError
        if b"/images" in path:
            await self._draw(call, asked, body)
        elif b"/speech" in path:
            await self._speak(call, asked, body)
        elif b"/responses" in path:
            await self._respond(call, asked, body)
        else:
            await self._write(call, asked, body, is_chat=b"/chat/" in path)

    def _book(self, asked: dict[str, Any], given: int, written: int) -> None:
        self.requests[asked["user"]] += 1
        self.nusd[asked["user"]] += 1000 * (INPUT_PRICE * given + OUTPUT_PRICE * written)

    async def _draw(self, call: Call, asked: dict[str, Any], body: bytes) -> None:
        """Pictures, which are made whole, whoever waits."""
        given, written = len(body) // BYTES_A_TOKEN, asked.get("n", 1) * MOST_OUTPUT
        self._book(asked, given, written)
        usage = {"input_tokens": given, "output_tokens": written, "total_tokens": given + written}
        gone = asyncio.ensure_future(_gone(call))
        if asked.get("stream"):
            await call.send(EVENT_STREAM)
        await asyncio.wait([gone], timeout=0.2)
        if not gone.done():
            answer = {"data": [{"b64_json": "AAAA" * 9000}], "usage": usage}
            if asked.get("metadata", {}).get("silent"):
                del answer["usage"]
            if asked.get("stream"):
                await call.send(event(answer) + END)
            else:
                await call.answer(json.dumps(answer).encode())
        await _give_up(gone)

    async def _speak(self, call: Call, asked: dict[str, Any], body: bytes) -> None:
        """MP3 of 128 kbit/s: six tokens of sound for one of text, at 1,250 a minute. Nobody tells a usage."""
        written = len(asked["input"]) // BYTES_A_TOKEN * 6
        self._book(asked, len(body) // BYTES_A_TOKEN, written)
        await asyncio.sleep(asked.get("metadata", {}).get("waits", 0))
        sound = b"\xff\xfb" + b"x" * (written * 60 * 16_000 // 1250)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: %d\r\n\r\n"
        await call.send(head % len(sound) + sound)

    async def _respond(self, call: Call, asked: dict[str, Any], body: bytes) -> None:
        """Behind the client's back: it writes all of it, whoever waits."""
        given = len(body) // BYTES_A_TOKEN + EARLIER_TOKENS * ("previous_response_id" in asked)
        self._book(asked, given, asked.get("max_output_tokens", MOST_OUTPUT))
        answer = {"id": "resp_1", "object": "response", "status": "queued", "usage": None}
        if asked.get("stream"):
            await call.send(EVENT_STREAM + event({"type": "response.created", "response": answer}))
            await _gone(call)
            raise ConnectionError
        await call.answer(json.dumps(answer).encode())

    async def _write(self, call: Call, asked: dict[str, Any], body: bytes, *, is_chat: bool) -> None:
        given = len(b" ".join(body.split())) // BYTES_A_TOKEN  # white space is hardly any
        own = asked.get("metadata", {})
        limit = _number(asked.get("max_tokens"))
        if is_chat and not own.get("knows_one_word"):
            limit = _number(asked.get("max_completion_tokens")) or limit
        limit = min(limit or MOST_OUTPUT, MOST_OUTPUT)
        prompts = asked.get("prompt") if not is_chat else None
        several = len(prompts) if isinstance(prompts, list) else 1
        answers = max(_number(asked.get("n")) or 1, asked.get("best_of", 1)) * several
        think = own.get("think", 0)
        whole = think + min(limit, own.get("say", limit))
        gone = asyncio.ensure_future(_gone(call))
        is_done, is_counted = False, own.get("never_done", False)
        begun = time.monotonic() + own.get("prefill_ms", 0) / 1000
        try:
            if asked.get("stream") is True:
                is_done = await self._stream(call, asked, gone, given, think, whole, answers, begun)
            else:
                await asyncio.wait([gone], timeout=begun + whole / TOKENS_A_SECOND - time.monotonic())
                is_done = not gone.done()
        finally:
            by_time = max(0, int((time.monotonic() - begun) * TOKENS_A_SECOND))
            written = whole if is_done or is_counted else min(whole, by_time)
            self._book(asked, given, written * answers)
            await _give_up(gone)
        if not is_done:
            raise ConnectionError
        if asked.get("stream") is not True:
            usage = {"prompt_tokens": given, "completion_tokens": written * answers}
            text = "word " * (whole - think)
            answer: dict[str, Any] = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
            if not own.get("silent"):
                answer["usage"] = usage
            await call.answer(json.dumps(answer).encode())

    async def _stream(
        self,
        call: Call,
        asked: dict[str, Any],
        gone: asyncio.Future[None],
        given: int,
        think: int,
        whole: int,
        answers: int,
        begun: float,
    ) -> bool:
        await call.send(EVENT_STREAM)
        own = asked.get("metadata", {})
        word, each, pad = own.get("word", "word "), own.get("per_event", 1), "x" * own.get("pad", 0)
        sent = think
        while sent < whole:
            await asyncio.wait([gone], timeout=0.005)
            if gone.done():
                return False
            due = min(whole, int((time.monotonic() - begun) * TOKENS_A_SECOND))
            if due - sent >= each or due == whole > sent:
                events = -(-(due - sent) // each) if due == whole else (due - sent) // each
                delta = {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
                await call.send(event(delta | ({"logprobs": pad} if pad else {})) * events)
                sent = min(whole, sent + events * each)
        await call.send(event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        await asyncio.wait([gone], timeout=own.get("pause_ms", 0) / 1000)
        if (asked.get("stream_options") or {}).get("include_usage"):
            counts = {"prompt_tokens": given, "completion_tokens": whole * answers}
            await call.send(event({"choices": [], "usage": counts}))
        if own.get("never_done"):
            await asyncio.wait([gone])
            return False
        await call.send(event(b"[DONE]") + END)
        return True


def _number(value: Any) -> int | None:
    """As lenient programs read numbers: vLLM takes "2000" and 2000.0 for 2000."""
    return None if value is None else int(float(value))


async def _gone(call: Call) -> None:
    """Until the other side closes."""
    while not call.reader.at_eof() and not call.reader._buffer:  # type: ignore[attr-defined]  # a further request
        await call.reader._wait_for_data("gone")  # type: ignore[attr-defined]


async def _give_up(task: asyncio.Future[None]) -> None:
    """Until it has really ended: two may not wait for one reader."""
    task.cancel()
    await asyncio.wait([task])
