"""Providers that fail by a script, all in one server: the first part of the path names the provider."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

import orjson

PROMPT_TOKENS, TOKENS, BROKEN_AT = 7, 60, 40
NEVER_S = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """One response. The status 0 is a reset before the head.

    :param wait_s: before the head. :param silence_s: between the head and the first token.
    :param tokens: after which it ends so: ``whole``; ``no-done``, ``no-finish``: without the last events;
        ``reset``; ``half``, in the middle of an event; ``stall``: never. :param is_malformed: one event is.
    """

    status: int = 200
    code: str = ""
    retry_after: str = ""
    wait_s: float = 0.0
    silence_s: float = 0.0
    tokens: int = TOKENS
    gap_s: float = 0.005
    end: str = "whole"
    is_malformed: bool = False


def _typed(type: str, members: bytes) -> bytes:
    return b'event: %b\ndata: {"type":"%b",%b}\n\n' % (type.encode(), type.encode(), members)


# At each endpoint: what comes before the first token, a token, what says why the response ends, and its end.
_ALL = b'"total_tokens":%d}' % (PROMPT_TOKENS + TOKENS)
_USAGE = b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,%b' % (PROMPT_TOKENS, TOKENS, _ALL)
_IO = b'"usage":{"input_tokens":%d,"output_tokens":%d' % (PROMPT_TOKENS, TOKENS)
_CHAT = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
)
_RESPONSE = b'"response":{"id":"r","object":"response","created_at":7,"model":"m","output":[],"status":"'
_MESSAGE = (
    b'"message":{"id":"m","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,'
)
_PARTS = {
    "chat": (
        _CHAT + b'{"role":"assistant","content":""},"finish_reason":null}]}\n\n',
        _CHAT + b'{"content":"%b"},"finish_reason":null}]}\n\n',
        _CHAT + b'{},"finish_reason":"stop"}],' + _USAGE + b"}\n\n",
        b"data: [DONE]\n\n",
    ),
    "responses": (
        _typed("response.created", b'"sequence_number":0,' + _RESPONSE + b'in_progress"}'),
        _typed("response.output_text.delta", b'"sequence_number":1,"item_id":"i","output_index":0,'
               b'"content_index":0,"logprobs":[],"delta":"%b"'),
        b"",
        _typed("response.completed", b'"sequence_number":9,%bcompleted",%b,%b}' % (_RESPONSE, _IO, _ALL)),
    ),
    "messages": (
        _typed("message_start", b'%b"stop_sequence":null,%b}}' % (_MESSAGE, _IO))
        + _typed("content_block_start", b'"index":0,"content_block":{"type":"text","text":""}'),
        _typed("content_block_delta", b'"index":0,"delta":{"type":"text_delta","text":"%b"}'),
        _typed("content_block_stop", b'"index":0')
        + _typed("message_delta", b'"delta":{"stop_reason":"end_turn","stop_sequence":null},%b}' % _IO),
        _typed("message_stop", b'"x":0'),
    ),
    "plain": (
        b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"',
        b"%b",
        b'"},"finish_reason":"stop"}],' + _USAGE,
        b"}",
    ),
}  # fmt: skip


def _head(status: int, kind: bytes, length: int | None, more: bytes = b"") -> bytes:
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return b"HTTP/1.1 %d Scripted\r\nContent-Type: %b\r\n%b\r\n%b\r\n" % (status, kind, framing, more)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _reset(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _passes(seconds: float, reader: asyncio.StreamReader) -> bool:
    """Wait. False: the gateway has closed the connection."""
    try:
        async with asyncio.timeout(seconds):
            return bool(await reader.read(1))
    except TimeoutError:
        return True


class Provider:
    """A server of providers. ``plans`` has a function for each name, of the number of its request."""

    def __init__(self) -> None:
        self.plans: dict[str, Callable[[int], Plan]] = {}
        # Of each provider: when it was asked, and the body.
        self.calls: defaultdict[str, list[tuple[float, dict[str, Any]]]] = defaultdict(list)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        self._port = self._server.sockets[0].getsockname()[1]

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self._port}/{name}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, RuntimeError, asyncio.IncompleteReadError):  # it is closed
            while await self._answer(reader, writer):
                pass
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection may be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        body = orjson.loads(await reader.readexactly(size))
        _, name, _, path = head.split(b" ")[1].decode().split("/", 3)
        plan = self.plans[name](len(self.calls[name]))
        self.calls[name].append((monotonic(), body))
        if plan.wait_s and not await _passes(plan.wait_s, reader):
            return False
        if not plan.status:
            return _reset(writer)
        if plan.status == 200:
            kind = path.partition("/")[0] if body.get("stream") else "plain"
            return await _respond(plan, kind, name[-1], reader, writer)
        more = b"Retry-After: %b\r\n" % plan.retry_after.encode() if plan.retry_after else b""
        told = {"message": "scripted", "type": "scripted", "code": plan.code or None, "param": None}
        error = orjson.dumps({"error": told})
        writer.write(_head(plan.status, b"application/json", len(error), more) + error)
        return True


async def _respond(
    plan: Plan, kind: str, letter: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    lead_in, token, finish, last = _PARTS[kind]
    tokens = [token.replace(b"%b", b"<%b%d>" % (letter.encode(), number)) for number in range(TOKENS)]
    if plan.is_malformed:
        tokens[TOKENS // 2] = b'data: {"choices":[{"delta":{"content":\n\n' + tokens[TOKENS // 2]
    framed: Callable[[bytes], bytes] = bytes if kind == "plain" else _chunk
    length = sum(map(len, (lead_in, *tokens, finish, last))) if kind == "plain" else None
    type = b"application/json" if kind == "plain" else b"text/event-stream"
    writer.write(_head(200, type, length) + framed(lead_in))
    if plan.silence_s and not await _passes(plan.silence_s, reader):
        return False
    for piece in tokens[: plan.tokens]:
        writer.write(framed(piece))
        if plan.gap_s:
            await asyncio.sleep(plan.gap_s)
    if plan.end == "half":
        writer.write(framed(tokens[-1][:20]))
    if plan.end == "stall":
        return await _passes(NEVER_S, reader)
    if plan.end in ("half", "reset"):
        await asyncio.sleep(0.1)  # a reset drops what its reader has not read yet
        return _reset(writer)
    ends = b"" if plan.end == "no-finish" else framed(finish)
    ends += framed(last) if plan.end == "whole" else b""
    writer.write(ends + (b"" if kind == "plain" else b"0\r\n\r\n"))
    return True
