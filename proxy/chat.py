"""``tokenhub chat``: one streamed answer through a running gateway, and what it took."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from proxy.config import Listen

_RETRY_S = 0.1


class ChatError(Exception):
    """The chat failed; the text says why and what to do."""


async def chat(
    model: str,
    prompt: str,
    *,
    url: str | None,
    listen: Listen | None,
    key: str,
    strategy: str | None,
    wait_s: float = 0.0,
) -> int:
    """Stream an answer to stdout, and one line about it to stderr.

    :param url: the gateway; None: it is at ``listen``.
    :param key: the gateway's key, or "".
    :param wait_s: seconds to wait for a gateway that is just starting.
    :returns: the exit code.
    :raises ChatError: no gateway there, or it answered with an error.
    """
    connector: aiohttp.BaseConnector | None = None
    if url is None:
        assert listen is not None
        if listen.path:
            connector = aiohttp.UnixConnector(listen.path)
            url = "http://localhost"
        else:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
            url = f"http://[{host}]:{listen.port}" if ":" in host else f"http://{host}:{listen.port}"
    url = url.rstrip("/").removesuffix("/v1")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if strategy:
        headers["X-Inferoute-Strategy"] = strategy
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as session:
        begun, response = await _post(session, url, body, wait_s)
        async with response:
            if response.status != 200:
                raise ChatError(f"{response.status}: {_message(await response.read())}")
            first_s, usage = await _print_stream(response, begun)
        served = response.headers.get("X-Inferoute-Model", "?")
        cost = await _cost(session, url, served, usage)
    parts = [
        f"model {served}",
        f"strategy {response.headers.get('X-Inferoute-Strategy', '?')}",
        f"TTFT {first_s * 1000:.0f} ms" if first_s is not None else "no content",
        f"total {time.monotonic() - begun:.2f} s",
    ]
    if usage:
        parts.append(
            f"tokens {usage.get('prompt_tokens', '?')} in, {usage.get('completion_tokens', '?')} out"
        )
    parts.append(f"cost ${cost:.6f}" if cost is not None else "cost unknown")
    if response.headers.get("X-Inferoute-Simulated"):
        parts.append("SIMULATED, nothing was charged")
    print(f"[{'; '.join(parts)}]", file=sys.stderr)
    return 0


async def _post(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], wait_s: float
) -> tuple[float, aiohttp.ClientResponse]:
    """When the request went out, and its response; a gateway that is not there yet is waited for."""
    deadline = time.monotonic() + wait_s
    while True:
        begun = time.monotonic()
        try:
            return begun, await session.post(f"{url}/v1/chat/completions", json=body)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            if begun >= deadline:
                raise ChatError(f"no gateway at {url} ({error}); start one with 'tokenhub serve'") from None
        await asyncio.sleep(_RETRY_S)


async def _print_stream(
    response: aiohttp.ClientResponse, begun: float
) -> tuple[float | None, dict[str, Any] | None]:
    """Print the content as it comes; returns seconds to the first of it, and the usage."""
    first_s: float | None = None
    usage: dict[str, Any] | None = None
    try:
        async for line in response.content:
            data = line.removeprefix(b"data:").strip()
            if not line.startswith(b"data:") or data == b"[DONE]":
                continue
            event = orjson.loads(data)
            if "error" in event:
                raise ChatError(f"the answer broke off: {_message(data)}")
            usage = event.get("usage") or usage
            for choice in event.get("choices") or ():
                text = (choice.get("delta") or {}).get("content")
                if text:
                    first_s = time.monotonic() - begun if first_s is None else first_s
                    print(text, end="", flush=True)
    except (aiohttp.ClientError, HttpProcessingError) as error:
        raise ChatError(f"the answer broke off: {error}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ChatError(f"the answer broke off: an event is none of the chat API ({error})") from None
    finally:
        print()
    return first_s, usage


async def _cost(
    session: aiohttp.ClientSession, url: str, model: str, usage: dict[str, Any] | None
) -> float | None:
    """USD by the gateway's list prices; None where it has none."""
    if not usage:
        return None
    try:
        async with session.get(f"{url}/v1/models/{quote(model)}") as response:
            pricing = (await response.json()).get("pricing") or {}
    except (aiohttp.ClientError, ValueError):
        return None
    prices = pricing.get("input"), pricing.get("output")
    if None in prices:
        return None
    tokens = usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)
    return float(sum(price * count for price, count in zip(prices, tokens, strict=True))) / 1e6


def _message(body: bytes) -> str:
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return body[:200].decode(errors="replace")
