"""The paths of the data listener: the API endpoint behind each, and what the gateway answers by itself.

Nothing but what stands in these tables is served. A path is looked up whole and never normalised, so that an
unknown one costs a hash of its bytes, however it is made.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote_to_bytes

# Path below the version prefix -> the endpoint whose rules and figures it shares.
PATHS: Final = {
    b"/chat/completions": "chat",
    b"/completions": "completions",
    b"/embeddings": "embeddings",
    b"/responses": "responses",
    b"/messages": "messages",
    b"/messages/count_tokens": "count_tokens",
    b"/images/generations": "images",
    b"/audio/speech": "speech",
    b"/moderations": "moderations",
    b"/rerank": "rerank",
}
# Clients forget the /v1 all the time.
PROXIED: Final[dict[bytes, tuple[str, bytes]]] = {
    prefix + path: (endpoint, path) for path, endpoint in PATHS.items() for prefix in (b"/v1", b"")
}

# What may be sent again (the contract, section 24). FREE: it costs little and makes nothing. GENERATION: it
# costs tokens. MAKING: it makes things that stay, such as images.
FREE: Final = "free"
GENERATION: Final = "generation"
MAKING: Final = "making"
CLASSES: Final[dict[str, str]] = {
    "chat": GENERATION,
    "completions": GENERATION,
    "responses": GENERATION,
    "messages": GENERATION,
    "speech": GENERATION,
    "images": MAKING,
    "count_tokens": FREE,
    "moderations": FREE,
    "embeddings": FREE,
    "rerank": FREE,
}

# What the gateway answers a GET or HEAD with.
NOTHING: Final = 0
HEALTH: Final = 1
READY: Final = 2
MODELS: Final = 3
MODEL: Final = 4
_OWN: Final[dict[bytes, int]] = {
    b"/healthz": HEALTH,
    b"/health": HEALTH,  # what vLLM, SGLang and llama.cpp have, and so what clients of those ask for
    b"/readyz": READY,
    b"/v1/models": MODELS,
    b"/models": MODELS,
}
_MODEL_PREFIXES: Final = (b"/v1/models/", b"/models/")
# 200 bytes, each of which may be written as an escape of three.
MAX_ID_BYTES: Final = 600


def own(path: bytes) -> tuple[int, bytes]:
    """What the gateway answers a GET of a path with, one of the kinds above; the id of a model, as it is in
    the path."""
    kind = _OWN.get(path, NOTHING)
    if kind == NOTHING:
        for prefix in _MODEL_PREFIXES:
            if path.startswith(prefix) and 0 < len(path) - len(prefix) <= MAX_ID_BYTES:
                return MODEL, path[len(prefix) :]
    return kind, b""


def allowed_methods(path: bytes) -> bytes:
    """The methods of a path, as ``Allow`` has them; b"": the path is unknown."""
    if path in PROXIED:
        return b"POST"
    return b"GET,HEAD" if own(path)[0] != NOTHING else b""


def model_id(escaped: bytes) -> str:
    """The id of a model, its escapes decoded once. What is no UTF-8 becomes an id that no model has."""
    return unquote_to_bytes(escaped).decode("utf-8", "replace")
