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
    r"|exceeds? the (?:model's )?context|maximum allowed (?:input|number of tokens)",
    re.IGNORECASE,
)


def error_words(body: bytes) -> frozenset[str]:
    """The codes and types in an error's body, in lower case; none: it is no error that is known.

    A prompt that is too long has ``context_length_exceeded`` among them, however it is said.
    """
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return frozenset()
    if isinstance(found, list) and len(found) == 1:  # Google's streams wrap their error so
        found = found[0]
    if not isinstance(found, dict):
        return frozenset()
    inner = found.get("error")
    error: dict[str, Any] = inner if isinstance(inner, dict) else found
    words = set(_said(error)) | set(_said(found))
    details = error.get("details")
    for detail in details[:_MOST_DETAILS] if isinstance(details, list) else ():
        if isinstance(detail, dict):
            words.update(_said(detail))
    message = inner if isinstance(inner, str) else error.get("message")
    if isinstance(message, str) and _TOO_LONG.search(message[:2000]):
        words.add("context_length_exceeded")
    if error.get("param") not in (None, "", "model"):
        words.discard("model_not_found")  # one that the request names itself, for a tool
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "flagged_input" in metadata:
        words.add("moderation")
    return frozenset(words)


def _said(error: dict[str, Any]) -> list[str]:
    words = [error.get(name) for name in _WORDS_AT]
    return [word.lower() for word in words if isinstance(word, str) and 0 < len(word) <= _MOST_WORD_CHARS]
