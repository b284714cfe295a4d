"""An estimate of a stream's tokens, from the events at its end: for providers that send no usage.

Nothing is counted while a stream passes. Its last kilobytes are kept anyway; what the events in them carry
for each byte is taken for the whole of it, so wrapping of any size costs nothing.
"""

from __future__ import annotations

import re
from math import ceil
from typing import Any, Final

import orjson

from proxy.wire.sse import data_of, split_events

# Most providers send an event a token, which is a few letters; longer ones are several, at four letters each.
# Of short ones some have two or three in each (speculative decoding): so they are no fewer than their events,
# and no fewer than their letters make at five each, which is a word and its space.
_ONE_TOKEN_CHARS: Final = 16
_CHARS_A_TOKEN: Final = 4
_SHORT_CHARS_A_TOKEN: Final = 5
# Han, kana and Hangul are tokens by themselves, more or less: from here on each character counts.
_WIDE: Final = re.compile("[\u2e80-\U0010ffff]")
# The most events read, from the end: up to a millisecond's work, and enough for a mean.
_MOST_EVENTS: Final = 64
# Bytes of an event stream per token, where no event can be read: a chat chunk with one token has 200 to 300
# bytes, Anthropic's deltas carry several tokens in 120.
_UNREAD_BYTES_A_TOKEN: Final = 160
# Members of a delta that hold what a model wrote; in tool calls one level down.
_TEXTS: Final = (
    "content", "text", "reasoning_content", "reasoning", "refusal", "thinking", "partial_json", "arguments",
)  # fmt: skip


def stream_tokens(tail: bytes, passed_bytes: int, most_events: int = _MOST_EVENTS) -> int:
    """An estimate of the tokens that a stream has carried.

    :param tail: its last bytes; all of it where ``passed_bytes`` is not more.
    :param passed_bytes: how much there was.
    :param most_events: the most that are read, from the end.
    """
    blocks = split_events(tail)
    if passed_bytes > len(tail):
        del blocks[0]  # it may be cut
    tokens = size = short = letters = 0
    for block in blocks[-most_events:]:
        event = _data(block)
        if event is None:
            continue
        size += len(block) + 2
        chars, wide = _chars(event)
        if wide:
            tokens += wide + (chars - wide) // _CHARS_A_TOKEN
        elif chars > _ONE_TOKEN_CHARS:
            tokens += ceil(chars / _CHARS_A_TOKEN)
        elif chars:
            short += 1
            letters += chars
    tokens += max(short, letters // _SHORT_CHARS_A_TOKEN)
    if not size:
        return ceil(passed_bytes / _UNREAD_BYTES_A_TOKEN)
    if passed_bytes <= len(tail) and len(blocks) <= most_events:
        return tokens
    return ceil(tokens * passed_bytes / size)


def _data(block: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(data_of(block))
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _chars(event: dict[str, Any]) -> tuple[int, int]:
    """Count the letters a model wrote in an event of any API, and those of them that are wide."""
    texts: list[str] = []
    delta = event.get("delta")
    if isinstance(delta, str):  # Responses
        texts.append(delta)
    elif isinstance(delta, dict):  # Messages
        _texts_of(delta, texts)
    else:
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                delta = choice.get("delta")
                _texts_of(delta if isinstance(delta, dict) else choice, texts)
    text = "".join(texts)
    return len(text), 0 if text.isascii() else len(_WIDE.findall(text))


def _texts_of(delta: dict[str, Any], texts: list[str]) -> None:
    texts += [text for name in _TEXTS if isinstance(text := delta.get(name), str)]
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        for call in calls:
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                _texts_of(function, texts)
