"""The API endpoints, one row each, and the paths of the data listener.

Whatever the gateway does differently from endpoint to endpoint is a column of :data:`ROWS`; tables and sets
by endpoint, here and elsewhere, are made of it. What the rows do not have is in ``wire``: how a request and a
response of each API are written.

Only these paths are served. A path is looked up whole and never normalised, so that an unknown one costs a
hash of its bytes, however it is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

# What may be sent again. FREE: it costs little and makes nothing. GENERATION: it
# costs tokens. MAKING: it makes things that stay, such as images.
FREE: Final = "free"
GENERATION: Final = "generation"
MAKING: Final = "making"

# Of responses, but with a body of its own: OpenAI's reference has no ``max_output_tokens`` in it.
COMPACT_PATH: Final = b"/responses/compact"


class Endpoint(NamedTuple):
    """One API endpoint.

    ``name``: in settings, metrics and the ledger. ``paths``: below the version prefix, its own first; others
    share its rules and figures. ``resent_as``: its class for a further attempt. ``operation``: its name in
    OpenTelemetry's conventions; ours, where these have none.

    ``served_with``: the endpoint whose settings it shares: served where that is, authenticated and defaulted
    as that. It has live rows of its own, as it is quick and writes nothing. ``also_served_by``: a capability
    besides the one of its own name that serves it.

    ``is_one_model``: the outputs of two models don't mix: vectors, scores, voices.
    ``is_one_prompt``: the body is one prompt, to be held against a context window; a batch of embeddings is
    many. ``takes_tokens``: a prompt may be a list of tokens. ``takes_references``: a prompt may refer to
    files, URLs or earlier responses. ``takes_count``: a request may ask for several answers.

    ``writes``: it writes text, as a stream that says when it is complete. ``has_choices``: in OpenAI's first
    shape: ``choices``, each with a ``finish_reason``, and a usage by ``stream_options``. ``limited_by``: the
    words that limit the length of a response, the usual one first; others are ignored and promise nothing.
    ``makes``: OpenTelemetry's word for an output that is not text. ``made_at_once``: a stream of it shows
    nothing that could be counted before its end. ``has_tokens``: tokens are what is paid for.

    ``is_anthropic``: of Anthropic's API: its errors, its request id, and pictures that count by their area.
    """

    name: str
    paths: tuple[bytes, ...]
    resent_as: str
    operation: str
    served_with: str = ""
    also_served_by: str = ""
    is_one_model: bool = False
    is_one_prompt: bool = False
    takes_tokens: bool = False
    takes_references: bool = False
    takes_count: bool = False
    writes: bool = False
    has_choices: bool = False
    limited_by: tuple[str, ...] = ()
    makes: str = ""
    made_at_once: bool = False
    has_tokens: bool = True
    is_anthropic: bool = False


# In the order in which errors and documents list them.
ROWS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "chat",
        (b"/chat/completions",),
        resent_as=GENERATION,
        operation="chat",
        is_one_prompt=True,
        takes_references=True,
        takes_count=True,
        writes=True,
        has_choices=True,
        limited_by=("max_tokens", "max_completion_tokens"),
    ),
    Endpoint(
        "completions",
        (b"/completions",),
        resent_as=GENERATION,
        operation="text_completion",
        also_served_by="chat",
        is_one_prompt=True,
        takes_tokens=True,
        takes_count=True,
        writes=True,
        has_choices=True,
        limited_by=("max_tokens",),
    ),
    Endpoint(
        "embeddings",
        (b"/embeddings",),
        resent_as=FREE,
        operation="embeddings",
        is_one_model=True,
        takes_tokens=True,
    ),
    Endpoint(
        "responses",
        (b"/responses", COMPACT_PATH),
        resent_as=GENERATION,
        operation="chat",
        also_served_by="chat",
        is_one_prompt=True,
        takes_references=True,
        writes=True,
        limited_by=("max_output_tokens",),
    ),
    Endpoint(
        "messages",
        (b"/messages",),
        resent_as=GENERATION,
        operation="chat",
        also_served_by="chat",
        is_one_prompt=True,
        takes_references=True,
        writes=True,
        limited_by=("max_tokens",),
        is_anthropic=True,
    ),
    Endpoint(
        "images",
        (b"/images/generations",),
        resent_as=MAKING,
        operation="generate_content",
        is_one_model=True,
        takes_count=True,
        makes="image",
        made_at_once=True,
    ),
    Endpoint(
        "speech",
        (b"/audio/speech",),
        resent_as=GENERATION,
        operation="generate_content",
        is_one_model=True,
        makes="speech",
    ),
    Endpoint(
        "moderations",
        (b"/moderations",),
        resent_as=FREE,
        operation="moderations",
        is_one_model=True,
        has_tokens=False,
    ),
    Endpoint(
        "rerank",
        (b"/rerank",),
        resent_as=FREE,
        operation="rerank",
        is_one_model=True,
    ),
    Endpoint(
        "count_tokens",
        (b"/messages/count_tokens",),
        resent_as=FREE,
        operation="count_tokens",
        served_with="messages",
        is_one_prompt=True,
        has_tokens=False,
        is_anthropic=True,
    ),
    Endpoint(
        "input_tokens",
        (b"/responses/input_tokens",),
        resent_as=FREE,
        operation="input_tokens",
        served_with="responses",
        is_one_prompt=True,
        has_tokens=False,
    ),
)
# Path below the version prefix -> the endpoint whose rules and figures it shares.
PATHS: Final[dict[bytes, str]] = {path: row.name for row in ROWS for path in row.paths}
# Clients forget the /v1 all the time.
PROXIED: Final[dict[bytes, tuple[str, bytes]]] = {
    prefix + path: (name, path) for path, name in PATHS.items() for prefix in (b"/v1", b"")
}
CLASSES: Final[dict[str, str]] = {row.name: row.resent_as for row in ROWS}
OPERATIONS: Final[dict[str, str]] = {row.name: row.operation for row in ROWS}
OUTPUTS: Final[dict[str, str]] = {row.name: row.makes for row in ROWS if row.makes}
WRITING: Final = frozenset([row.name for row in ROWS if row.writes])
HAS_CHOICES: Final = frozenset([row.name for row in ROWS if row.has_choices])
ONE_PROMPT: Final = frozenset([row.name for row in ROWS if row.is_one_prompt])
TAKES_TOKENS: Final = frozenset([row.name for row in ROWS if row.takes_tokens])
TAKES_COUNT: Final = frozenset([row.name for row in ROWS if row.takes_count])
HAS_TOKENS: Final = frozenset([row.name for row in ROWS if row.has_tokens])
MADE_AT_ONCE: Final = frozenset([row.name for row in ROWS if row.made_at_once])
ANTHROPIC: Final = frozenset([row.name for row in ROWS if row.is_anthropic])

# What the gateway answers a GET or HEAD with.
NOTHING: Final = 0
HEALTH: Final = 1
READY: Final = 2
MODELS: Final = 3
MODEL: Final = 4
WELCOME: Final = 5
# What a key may know of itself.
OWN_KEY: Final = 6
OWN_USAGE: Final = 7
OWN_REQUEST: Final = 8
_OWN: Final[dict[bytes, int]] = {
    b"/healthz": HEALTH,
    b"/health": HEALTH,  # what vLLM, SGLang and llama.cpp have, and so what clients of those ask for
    b"/readyz": READY,
    b"/v1/models": MODELS,
    b"/models": MODELS,
    b"/v1/key": OWN_KEY,
    b"/v1/usage": OWN_USAGE,
    # Coding agents and balancers ask these for whether anybody is there.
    b"/": WELCOME,
    b"/v1": WELCOME,
    b"/v1/": WELCOME,
    b"/api/hello": WELCOME,
}
_PREFIXES: Final = ((b"/v1/models/", MODEL), (b"/models/", MODEL), (b"/v1/requests/", OWN_REQUEST))
# 200 bytes, each of which may be written as an escape of three.
MAX_ID_BYTES: Final = 600
# Where Anthropic's clients ask: below /v1, without it, and where their base URL has a /v1 too many.
_ANTHROPIC_PATHS: Final = (b"/v1/messages", b"/messages", b"/v1/v1/messages")
_VERSION: Final = b"anthropic-version:"
# Of a head that is no good, to see which path it is for.
_LOOKED_AT: Final = 256


def own(path: bytes) -> tuple[int, bytes]:
    """Return the kind of the gateway's own response to a GET of a path, as above; and the id of a model or a
    request, as it is in the path."""
    kind = _OWN.get(path, NOTHING)
    if kind == NOTHING:
        for prefix, of_id in _PREFIXES:
            if path.startswith(prefix) and 0 < len(path) - len(prefix) <= MAX_ID_BYTES:
                return of_id, path[len(prefix) :]
    return kind, b""


def allowed_methods(path: bytes) -> bytes:
    """The methods of a path, as ``Allow`` has them; b"": the path is unknown."""
    if path in PROXIED:
        return b"POST"
    return b"GET,HEAD" if own(path)[0] != NOTHING else b""


def nearest_path(path: bytes) -> str:
    """The endpoint that a mistyped path below /v1 means; "": none is near. Takes about 0.1 ms."""
    if not path.startswith(b"/v1/") or len(path) > _LOOKED_AT:
        return ""
    known = [*[served.decode() for served in PATHS], "/models", "/key", "/usage"]
    # Below 0.8, other endpoints of the same API would be taken for typing errors.
    close = get_close_matches(path[len("/v1") :].decode("latin-1").lower(), known, 1, 0.8)
    return f"/v1{close[0]}" if close else ""


def is_anthropic(path: bytes, lines: Iterable[bytes]) -> bool:
    """Return whether a client expects errors and models as Anthropic's API writes them: at its endpoints, and
    of the models that both APIs have at one path, where the request has the header of its version.

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
