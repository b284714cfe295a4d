"""A stream that breaks, as official SDKs take it: through the gateway, and asked directly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest

from proxy.broken import last_event
from proxy.errors import ProviderError
from tests.fakes import EVENT_STREAM, Call, chunk

CONFIG = """
[providers.p]
base_url = "{url}"
auth = "none"
endpoints = ["chat", "completions", "responses", "messages"]
[timeouts]
idle = "{idle}"
[models."p/m"]
capabilities = ["chat", "completions", "responses", "messages"]
"""
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
    "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
}  # fmt: skip
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
RESPONSE = {"id": "resp_1", "object": "response", "status": "in_progress", "output": [], "model": "m"}
DELTA = {
    "type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0,
    "delta": "Hello", "sequence_number": 1, "logprobs": [],
}  # fmt: skip
CHAT = {
    "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}],
}  # fmt: skip
TEXT = {
    **CHAT,
    "object": "text_completion",
    "choices": [{"index": 0, "text": "Hello", "finish_reason": None}],
}
EVENTS: dict[str, list[dict[str, Any]]] = {
    "chat": [CHAT, CHAT],
    "completions": [TEXT, TEXT],
    "responses": [{"type": "response.created", "response": RESPONSE, "sequence_number": 0}, DELTA],
    "messages": [
        {"type": "message_start", "message": MESSAGE},
        BLOCK,
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    ],
}


def stream(endpoint: str) -> bytes:
    parts = []
    for event in EVENTS[endpoint]:
        name = b"event: %b\n" % event["type"].encode() if "type" in event else b""
        parts.append(name + b"data: %b\n\n" % json.dumps(event).encode())
    return b"".join(parts)


def breaks(endpoint: str, how: str) -> Callable[[Call], Any]:
    async def script(call: Call) -> None:
        await call.request()
        await call.send(EVENT_STREAM + chunk(stream(endpoint)))
        await asyncio.sleep(0)  # on its own in a packet, or not: both are to be taken
        if how == "half an event":
            await call.send(chunk(b'data: {"half'))
        if how == "idle":
            await call.gone()
        raise ConnectionError

    return script


async def ask(endpoint: str, url: str) -> list[Any]:
    """The events that an SDK hands out, until it raises."""
    got: list[Any] = []
    if endpoint == "messages":
        async with anthropic.AsyncAnthropic(
            api_key="k", base_url=url.removesuffix("/v1"), max_retries=0
        ) as client:
            messages = [{"role": "user", "content": "hi"}]
            async for event in await client.messages.create(
                model="m", max_tokens=9, messages=messages, stream=True
            ):
                got.append(event)
        return got
    async with openai.AsyncOpenAI(api_key="k", base_url=url, max_retries=0) as client:
        if endpoint == "chat":
            messages = [{"role": "user", "content": "hi"}]
            events: Any = await client.chat.completions.create(model="m", messages=messages, stream=True)
        elif endpoint == "completions":
            events = await client.completions.create(model="m", prompt="hi", stream=True)
        else:
            events = await client.responses.create(model="m", input="hi", stream=True)
        async for event in events:
            got.append(event)
    return got


async def error_of(endpoint: str, url: str) -> Exception:
    with pytest.raises(Exception) as caught:  # which one is what is asked
        await ask(endpoint, url)
    return caught.value


@pytest.mark.parametrize("endpoint", EVENTS)
@pytest.mark.parametrize("how", ["reset", "half an event", "idle"])
async def test_a_stream_that_breaks_raises_in_the_official_sdks(provider, start, endpoint, how):
    provider.script = breaks(endpoint, how)
    server = await start(CONFIG.format(url=provider.url, idle="1s" if how == "idle" else "60s"))
    url = f"http://127.0.0.1:{server.addresses[0].port}/v1"
    error = await error_of(endpoint, url)
    if how == "half an event":  # the connection is cut, which is what the SDK sees of the provider itself
        assert type(error) is type(await error_of(endpoint, provider.url))
    elif endpoint == "messages":
        assert isinstance(error, anthropic.APIStatusError)
        assert "The provider 'p'" in str(error)
    else:
        assert isinstance(error, openai.APIError)
        assert "The provider 'p'" in str(error)


@pytest.mark.parametrize("endpoint", EVENTS)
def test_the_last_event(endpoint):
    error = ProviderError("The provider 'p' broke off.", status=502, code="provider_broke_off")
    blocks = last_event(error, endpoint, b"req_1").split(b"\n\n")
    assert blocks.pop() == b""
    for block in blocks:
        name, _, data = block.rpartition(b"data: ")
        told = json.loads(data)
        assert (b"event: %b\n" % told["type"].encode() if "type" in told else b"") == name
    if endpoint == "messages":
        assert told["error"] == {"type": "api_error", "message": error.message, "code": error.code}
        assert told["request_id"] == "req_1"
    elif endpoint == "responses":
        first = json.loads(blocks[0].rpartition(b"data: ")[2])
        own = {"type": "provider_error", "code": error.code, "message": error.message, "param": None}
        assert first == {**own, "type": "error", "sequence_number": 0, "error": own}
        assert (told["type"], told["response"]["status"]) == ("response.failed", "failed")
    else:
        assert told == json.loads(error.envelope())
