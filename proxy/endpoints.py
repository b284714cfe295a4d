"""The paths of the data listener: the API endpoint behind each, and what the gateway answers by itself.

Nothing but what stands in these tables is served. A path is looked up whole and never normalised, so that an
unknown one costs a hash of its bytes, however it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_to_bytes

# Of responses, but with a body of its own: OpenAI's reference has no ``max_output_tokens`` in it.
COMPACT_PATH: Final = b"/responses/compact"
# Path below the version prefix -> the endpoint whose rules and figures it shares.
PATHS: Final = {
    b"/chat/completions": "chat",
    b"/completions": "completions",
    b"/embeddings": "embeddings",
    b"/responses": "responses",
    COMPACT_PATH: "responses",
    b"/responses/input_tokens": "input_tokens",
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
    "input_tokens": FREE,
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
WELCOME: Final = 5
_OWN: Final[dict[bytes, int]] = {
    b"/healthz": HEALTH,
    b"/health": HEALTH,  # what vLLM, SGLang and llama.cpp have, and so what clients of those ask for
    b"/readyz": READY,
    b"/v1/models": MODELS,
    b"/models": MODELS,
    # Coding agents and balancers ask these for whether anybody is there.
    b"/": WELCOME,
    b"/v1": WELCOME,
    b"/v1/": WELCOME,
    b"/api/hello": WELCOME,
}
_MODEL_PREFIXES: Final = (b"/v1/models/", b"/models/")
# 200 bytes, each of which may be written as an escape of three.
MAX_ID_BYTES: Final = 600
# Where Anthropic's clients ask: below /v1, without it, and where their base URL has a /v1 too many.
_ANTHROPIC_PATHS: Final = (b"/v1/messages", b"/messages", b"/v1/v1/messages")
_VERSION: Final = b"anthropic-version:"
# Of a head that is no good, to see which path it is for.
_LOOKED_AT: Final = 256
# Endpoints of Anthropic's API.
ANTHROPIC: Final = frozenset({"messages", "count_tokens"})


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


def is_anthropic(path: bytes, lines: Iterable[bytes]) -> bool:
    """Whether who sends a request reads answers as Anthropic's API gives them: at its endpoints, and of the
    models that both APIs have at one path, where the request has the header of its version.

    :param lines: of the request's header.
    """
    for known in _ANTHROPIC_PATHS:
        if path.startswith(known) and path[len(known) : len(known) + 1] in (b"", b"/"):
            return True
    if own(path)[0] not in (MODELS, MODEL):
        return False
    return any(line[: len(_VERSION)].lower() == _VERSION for line in lines)


def path_of(begin: bytes) -> bytes:
    """The path in what there is of a head that can't be read, or is not whole; b"" where it can't be seen."""
    words = begin[:_LOOKED_AT].partition(b"\n")[0].split(b" ")
    target = words[1] if len(words) > 1 else b""
    if not target.startswith(b"/"):  # RFC 9112 section 3.2.2: with a scheme and a host
        _, slash, rest = target.partition(b"://")[2].partition(b"/")
        target = slash + rest
    return target.partition(b"?")[0].rstrip(b"\r")


def model_id(escaped: bytes) -> str:
    """The id of a model, its escapes decoded once. What is no UTF-8 becomes an id that no model has."""
    return unquote_to_bytes(escaped).decode("utf-8", "replace")
