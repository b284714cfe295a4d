"""``tokenhub chat``: one streamed answer through a running gateway, with its figures."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import aiohttp
import orjson
from aiohttp.http import HttpProcessingError

from proxy.cli.data_client import KEY_HINT, Events, Price, Target, content_of, not_there, price_of, session_of
from proxy.cli.parser import CommandError, message_of
from proxy.cli.tables import clean
from proxy.cli.terminal import print_json
from proxy.config.settings import Config
from proxy.usage.response_usage import read_plain
from proxy.usage.tokens import Usage

_RETRY_S = 0.1


class ChatError(CommandError):
    """The chat failed; the text says why and what to do."""


async def chat(
    model: str,
    prompt: str,
    *,
    target: Target,
    config: Config | None = None,
    key: str = "",
    strategy: str | None = None,
    system: str | None = None,
    wait_s: float = 0.0,
    as_json: bool = False,
) -> int:
    """Stream a response to stdout, and one line about it to stderr.

    :param config: of that gateway, if it is at hand: for the prices.
    :param key: the gateway's key, or "".
    :param system: the system message before the prompt.
    :param wait_s: seconds to wait for a gateway that is just starting.
    :param as_json: no stream, but one document about all of it.
    :returns: the exit code.
    :raises CommandError: no gateway was reached, or it answered with an error.
    """
    messages = [] if system is None else [{"role": "system", "content": system}]
    body = {
        "model": model,
        "messages": [*messages, {"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with session_of(target, key, strategy) as session:
        begun, response = await _post(session, target, body, wait_s)
        async with response:
            if response.status != 200:
                if "X-Inferoute-Request-Id" not in response.headers:
                    raise ChatError(
                        f"{response.status}, but not from TokenHub: something else listens at {target.name}, "
                        "or stands in front of it. --url names the gateway's address"
                    )
                hint = f" ({KEY_HINT})" if response.status == 401 else ""
                raise ChatError(f"{response.status}: {message_of(await response.read())}{hint}")
            answer = _Answer(begun, is_shown=not as_json)
            await answer.read(response)
        total_s = time.monotonic() - begun
        served = response.headers.get("X-Inferoute-Model", model)
        price = None
        if answer.usage is not None:
            price = await price_of(session, target, config, served, answer.usage)
    if response.headers.get("X-Inferoute-Simulated"):
        price = Price(0.0, False)
    if as_json:
        print_json(_document(response, answer, total_s, price))
    else:
        print(clean(f"[{'; '.join(_facts(response, answer, total_s, price))}]"), file=sys.stderr)
    return 0


async def _post(
    session: aiohttp.ClientSession, target: Target, body: dict[str, Any], wait_s: float
) -> tuple[float, aiohttp.ClientResponse]:
    """Send the request, waiting for a gateway that is starting. Returns the time of sending, and the
    response."""
    deadline = time.monotonic() + wait_s
    while True:
        begun = time.monotonic()
        try:
            return begun, await session.post(f"{target.url}/v1/chat/completions", json=body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            if begun >= deadline:
                raise not_there(target, error) from None
        await asyncio.sleep(_RETRY_S)


class _Answer:
    """A response as it is read. ``first_s``: seconds from the request to the first text."""

    def __init__(self, begun: float, *, is_shown: bool) -> None:
        self._begun = begun
        self._is_shown = is_shown
        self._parts: list[str] = []
        self.first_s: float | None = None
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self._parts)

    async def read(self, response: aiohttp.ClientResponse) -> None:
        """Read to the end. :raises ChatError: it broke off."""
        events = Events()
        try:
            while data := await response.content.readany():
                for event in events.feed(data):
                    self._take(event)
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise ChatError(f"the answer broke off: {error}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ChatError(f"the answer broke off: an event is not of the chat API ({error})") from None
        finally:
            if self._is_shown:
                print(flush=True)

    def _take(self, data: bytes) -> None:
        if data == b"[DONE]":
            return
        event = orjson.loads(data)
        if "error" in event:
            raise ChatError(f"the answer broke off: {message_of(data)}")
        if event.get("usage"):
            self.usage = read_plain(data, "chat")
        text = content_of(event)
        if not text:
            return
        if self.first_s is None:
            self.first_s = time.monotonic() - self._begun
        if self._is_shown:
            print(_harmless(text) if sys.stdout.isatty() else text, end="", flush=True)
        else:
            self._parts.append(text)


def _harmless(text: str) -> str:
    """Remove characters that control a terminal: a model may write anything."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def _facts(
    response: aiohttp.ClientResponse, answer: _Answer, total_s: float, price: Price | None
) -> list[str]:
    headers = response.headers
    attempts = headers.get("X-Inferoute-Attempts", "")
    facts = [
        f"{name} {headers.get(f'X-Inferoute-{name}', '?')}" for name in ("provider", "model", "strategy")
    ]
    if "," in attempts:
        facts.append(f"attempts {attempts}")
    facts.append(f"TTFT {answer.first_s * 1000:.0f} ms" if answer.first_s is not None else "no content")
    facts.append(f"total {total_s:.2f} s")
    if (usage := answer.usage) is not None:
        cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
        facts.append(f"tokens {usage.input_tokens} in{cached}, {usage.output_tokens} out")
    if headers.get("X-Inferoute-Simulated"):
        facts.append("SIMULATED, nothing was charged")
    elif price is None:
        facts.append("cost unknown")
    else:
        facts.append(f"cost {'at most ' if price.is_most else ''}${price.usd:.6f}")
    return facts


def _document(
    response: aiohttp.ClientResponse, answer: _Answer, total_s: float, price: Price | None
) -> dict[str, Any]:
    headers = response.headers
    usage = answer.usage
    return {
        "request_id": headers.get("X-Inferoute-Request-Id"),
        "provider": headers.get("X-Inferoute-Provider"),
        "model": headers.get("X-Inferoute-Model"),
        "strategy": headers.get("X-Inferoute-Strategy"),
        "attempts": headers.get("X-Inferoute-Attempts"),
        "simulated": bool(headers.get("X-Inferoute-Simulated")),
        "text": answer.text,
        "usage": usage and {
            "input_tokens": usage.input_tokens,
            "cached_tokens": usage.cached_tokens,
            "output_tokens": usage.output_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        },
        "ttft_ms": None if answer.first_s is None else round(answer.first_s * 1000, 3),
        "total_ms": round(total_s * 1000, 3),
        "usd": None if price is None else price.usd,
    }  # fmt: skip
