"""A client: it sends one request, and says in a few words what it has seen of the response."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from time import monotonic
from typing import Any

import orjson

from failover.provider import TOKENS

PATHS = {"chat": "chat/completions", "responses": "responses", "messages": "messages"}
# Longer than any limit of the gateway's.
PATIENCE_S = 150.0
_CHUNKED = b"\r\ntransfer-encoding: chunked"
_TOKEN = re.compile(rb"<([bg])(\d+)>")
_FINISHED = {
    "chat": rb'^data: \[DONE\]$|"finish_reason":"stop"',
    "responses": rb"^event: response\.completed$",
    "messages": rb'^event: message_stop$|"stop_reason":"end_turn"',
}
_ERROR = {
    "chat": rb'^data: \{"error":\{',
    "responses": rb'^event: error\ndata: \{.*"code":.*\n\nevent: response\.failed$',
    "messages": rb'^event: error\ndata: \{"type":"error","error":\{',
}


@dataclass(frozen=True, slots=True)
class Seen:
    """A response. ``word``: how it ended, by which member (``b`` or ``g``), after how many tokens.

    :param first_s: seconds until the first token, or the end where none came; ``took_s``: to the end.
    """

    word: str
    first_s: float
    took_s: float
    status: int = 0
    story: str = ""
    id: str = ""
    retry_after: str = ""


def word_of(data: bytes, endpoint: str, *, streamed: bool) -> str:
    """How a response ended, of all that came until its connection closed. ``silent``: it looks whole and is
    not; ``spliced``: it has tokens of two answers."""
    head, _, body = data.partition(b"\r\n\r\n")
    if _CHUNKED in head.lower():
        is_complete = body.endswith(b"\r\n0\r\n\r\n")
    else:
        is_complete = len(body) == int(_field(head, "content-length") or -1)
    if not is_complete:
        return _word("cut", body)
    status = int(head[9:12])
    if status >= 400:
        return f"error {status} {_code_of(body)}"
    is_finished = not streamed or re.search(_FINISHED[endpoint], body, re.M) is not None
    if re.search(_ERROR[endpoint], body, re.M):
        return _word("silent" if is_finished else "told", body)
    return _word("whole" if is_finished else "silent", body)


def _field(head: bytes, name: str) -> str:
    found = re.search(rb"(?i)\r\n%b: *([^\r]*)" % name.encode(), head)
    return found[1].decode() if found else ""


def _word(end: str, text: bytes) -> str:
    found = _TOKEN.findall(text)
    by = b"".join(sorted({letter for letter, _ in found})).decode()
    if len(by) > 1 or [int(number) for _, number in found] != list(range(len(found))):
        return "spliced"
    if end == "whole":
        return f"whole {by}" if len(found) == TOKENS else f"silent {by} {len(found)}"
    return f"{end} {by} {len(found)}"


def _code_of(body: bytes) -> str:
    with suppress(ValueError, KeyError, TypeError):
        error = orjson.loads(body)["error"]
        return str(error.get("code") or error["type"])
    return "?"


def body_of(
    model: str, endpoint: str, number: int, *, streamed: bool = True, prefilled: bool = False
) -> dict[str, Any]:
    """A request; each number has another text, so that no two of them count as one."""
    said = [{"role": "user", "content": f"Count to sixty. ({number})"}]
    if prefilled:
        said.append({"role": "assistant", "content": "One, two,"})
    body: dict[str, Any] = {"model": model, "input" if endpoint == "responses" else "messages": said}
    return (
        body
        | ({"max_tokens": 100} if endpoint == "messages" else {})
        | ({"stream": True} if streamed else {})
    )


async def ask(port: int, endpoint: str, body: dict[str, Any], headers: str = "") -> Seen:
    """Send it on a connection of its own."""
    data = orjson.dumps(body)
    request = (
        f"POST /v1/{PATHS[endpoint]} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"{headers}Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    came, first_at, begun, is_late = bytearray(), 0.0, monotonic(), False
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(request.encode() + data)
            while piece := await reader.read(1 << 16):
                came += piece
                if not first_at and _TOKEN.search(came):
                    first_at = monotonic()
    except TimeoutError:
        is_late = True
    except ConnectionError:
        pass
    writer.close()
    now, head = monotonic(), bytes(came).partition(b"\r\n\r\n")[0]
    told = [_field(head, name) for name in ("x-inferoute-attempts", "x-inferoute-request-id", "retry-after")]
    word = "late" if is_late else word_of(bytes(came), endpoint, streamed="stream" in body)
    return Seen(word, (first_at or now) - begun, now - begun, int(head[9:12] or 0), *told)


def has_sdks() -> bool:
    """The official SDKs are installed. They are loaded, which takes a second."""
    try:
        import anthropic  # noqa: F401
        import openai  # noqa: F401
    except ImportError:
        return False
    return True


@lru_cache
def _sdk(port: int, endpoint: str) -> Any:
    """The call of an SDK. To make one takes a tenth of a second."""
    import anthropic
    import openai

    url, options = f"http://127.0.0.1:{port}", {"api_key": "any", "max_retries": 0, "timeout": PATIENCE_S}
    if endpoint == "messages":
        return anthropic.Anthropic(base_url=url, **options).messages.create  # type: ignore[arg-type]
    sdk = openai.OpenAI(base_url=url + "/v1", **options)  # type: ignore[arg-type]
    return sdk.chat.completions.create if endpoint == "chat" else sdk.responses.create


def ask_by_sdk(port: int, endpoint: str, body: dict[str, Any]) -> Seen:
    """The same through the official SDK of the endpoint, which raises where a response is not whole. For a
    thread."""
    import anthropic
    import openai

    create, begun, first_s, text = _sdk(port, endpoint), monotonic(), 0.0, ""
    end, status = "whole", 200
    try:
        for event in create(**body):
            text += _text_of(event, endpoint)
            first_s = first_s or (monotonic() - begun if text else 0.0)
    except (openai.APIStatusError, anthropic.APIStatusError) as error:
        status = error.status_code  # of an error event it is that of the response
        end = "raised" if status == 200 else f"error {status} {_code_of(error.response.content)}"
    except Exception:  # of the SDK, of httpx or of a parser: the program notices
        end = "raised"
    took_s = monotonic() - begun
    return Seen(end if end[:5] == "error" else _word(end, text.encode()), first_s or took_s, took_s, status)


def _text_of(event: Any, endpoint: str) -> str:
    if endpoint == "chat":
        return (event.choices[0].delta.content or "") if event.choices else ""
    delta = getattr(event, "delta", "")
    return delta if isinstance(delta, str) else str(getattr(delta, "text", ""))
