"""The body of a provider's error: the words that say what is wrong, in the shapes of many APIs.

- OpenAI and those like it, Azure: ``{"error":{"code","type"}}``.
- Anthropic: ``{"type":"error","error":{"type"}}``.
- Google: ``{"error":{"code":400,"status","details":[{"reason"}]}}``, of a stream in a list.
- vLLM: ``{"object":"error","type","code"}``, or as OpenAI. Ollama: ``{"error":"text"}``.
- OpenRouter tells in ``metadata`` that its moderation refused a request.

That a prompt is too long is said by a code only at OpenAI and Azure; elsewhere by the message.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

# More of an error is not read.
MOST_BYTES: Final = 64 << 10
_MOST_DETAILS: Final = 8
_MOST_WORD_CHARS: Final = 100
_WORDS_AT: Final = ("code", "type", "status", "reason")
_TOO_LONG: Final = re.compile(
    r"maximum context length|prompt is too long|input token count .{0,40}exceeds|context window of this model"
    r"|exceeds? the (?:model's |available )?context|exceeds? context limit|longer than the model's context"
    r"|maximum allowed (?:input|number of tokens)",
    re.IGNORECASE,
)
# The figure of the window, as OpenAI, Azure, vLLM and OpenRouter write it; Mistral; SGLang; Anthropic,
# without and with the response's tokens; Google.
_WINDOW: Final = re.compile(
    r"maximum context length (?:is|of) ([0-9]{3,8})\b"
    r"|([0-9]{3,8}) maximum context length"
    r"|context length \(([0-9]{3,8})\b|tokens > ([0-9]{3,8}) maximum"
    r"|context limit: [0-9 +]{1,40}> ([0-9]{3,8})\b|tokens allowed \(([0-9]{3,8})\b",
    re.IGNORECASE,
)
_MOST_MESSAGE_CHARS: Final = 2000


def error_words(body: bytes) -> frozenset[str]:
    """The codes and types in an error's body, in lower case; none: it is no error that is known.

    A prompt that is too long has ``context_length_exceeded`` among them, however it is said.
    """
    found = _object(body)
    inner = found.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else found
    words = set(_said(error)) | set(_said(found))
    details = error.get("details")
    for detail in details[:_MOST_DETAILS] if isinstance(details, list) else ():
        if isinstance(detail, dict):
            words.update(_said(detail))
    if _TOO_LONG.search(_message(found)):
        words.add("context_length_exceeded")
    if error.get("param") not in (None, "", "model"):
        words.discard("model_not_found")  # one that the request names itself, for a tool
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        words.add("moderation")
    return frozenset(words)


def named_window(body: bytes) -> int:
    """The context window, in tokens, that an error names which says that the prompt is too long; 0: none."""
    found = _object(body)
    named = _WINDOW.search(_message(found))
    if named is not None:
        return int(named[named.lastindex or 0])
    inner = found.get("error")
    window = inner.get("n_ctx") if isinstance(inner, dict) else None  # llama.cpp has it as a field
    return window if isinstance(window, int) and 0 < window < 10**8 else 0


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if isinstance(found, list) and len(found) == 1:  # Google's streams wrap their error so
        found = found[0]
    return found if isinstance(found, dict) else {}


def _message(found: dict[str, Any]) -> str:
    inner = found.get("error")
    message = (
        inner if isinstance(inner, str) else (inner if isinstance(inner, dict) else found).get("message")
    )
    return message[:_MOST_MESSAGE_CHARS] if isinstance(message, str) else ""


def _said(error: dict[str, Any]) -> list[str]:
    words = [error.get(name) for name in _WORDS_AT]
    return [word.lower() for word in words if isinstance(word, str) and 0 < len(word) <= _MOST_WORD_CHARS]
