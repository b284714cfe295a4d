"""Request bodies. They are the same bytes in every run, so that results of different days compare."""

from __future__ import annotations

import base64
import json
from typing import Any

SIZES = ("1k", "100k", "2m")
_QUESTION = "Explain what a reverse proxy does, and when I would put one in front of a language model. " * 12
_SYSTEM = {
    "role": "system",
    "content": "You are a terse assistant for a network operations team. Answer in plain words.",
}


def body(size: str, model: str) -> bytes:
    """A chat request of about this size, the model first."""
    document = {"1k": _question, "100k": _conversation, "2m": _image}[size]()
    return json.dumps({"model": model, **document}, ensure_ascii=False).encode()


def stream_body(model: str, chunks: int, delay_ms: int) -> bytes:
    """A request for a stream. The prompt tells the mock its shape: gateways drop headers they don't know."""
    content = f"[mock chunks={chunks} delay={delay_ms}] {_QUESTION[:600]}"
    document = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "max_tokens": 256,
        "messages": [{"role": "user", "content": content}],
    }
    return json.dumps(document).encode()


def _question() -> dict[str, Any]:
    messages = [_SYSTEM, {"role": "user", "content": _QUESTION[:700]}]
    return {"messages": messages, "temperature": 0.7, "max_tokens": 256}


def _conversation() -> dict[str, Any]:
    # What JSON escapes, and what is longer in UTF-8 than in characters.
    paragraph = (
        'He said "look at line 12" and I did:\n\tif (x < 3) { return café; }\n'
        "but the log — all of it — shows the proxy closing early. "
    )
    messages, size, i = [_SYSTEM], 0, 0
    while size < 98000:
        text = (paragraph * 12)[: 900 + 37 * (i % 11)]
        messages.append({"role": "user" if i % 2 == 0 else "assistant", "content": text})
        size += len(json.dumps(text, ensure_ascii=False).encode()) + 34
        i += 1
    if messages[-1]["role"] == "assistant":
        messages.append({"role": "user", "content": "And now?"})
    return {"messages": messages, "temperature": 0.7, "max_tokens": 256}


def _image() -> dict[str, Any]:
    raw = bytes((i * 2654435761 >> 13) & 255 for i in range(1_500_000))
    url = "data:image/png;base64," + base64.b64encode(raw).decode()
    content = [
        {"type": "text", "text": "What is in this image?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    return {"messages": [_SYSTEM, {"role": "user", "content": content}], "max_tokens": 256}
