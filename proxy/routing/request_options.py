"""Options for the gateway itself in a request's head, checked."""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.config.settings import STRATEGIES
from proxy.errors import BadRequest
from proxy.wire.request_head import RequestHead

# Each name may stand for a whole pool; more of them is no plan but an accident.
_MAX_FALLBACKS: Final = 8


class Options(NamedTuple):
    """``X-Inferoute-*`` of a request, None where it says nothing; ``timeout_s``: to the first byte."""

    strategy: str | None = None
    timeout_s: float | None = None
    fallbacks: tuple[str, ...] = ()


def read_options(head: RequestHead) -> Options:
    """The options of a head.

    :raises BadRequest: a header has a value that can't be followed.
    """
    strategy: str | None = None
    timeout_s: float | None = None
    fallbacks: tuple[str, ...] = ()
    for name, value in head.inferoute:
        if name == b"x-inferoute-strategy":
            strategy = _strategy(value)
        elif name == b"x-inferoute-timeout":
            timeout_s = _seconds(value)
        elif name == b"x-inferoute-fallback":
            fallbacks += _names(value)
    if len(fallbacks) > _MAX_FALLBACKS:
        raise _bad(f"X-Inferoute-Fallback takes up to {_MAX_FALLBACKS} models.", "fallback", "Fallback")
    if head.content_encoding not in (b"", b"identity"):
        raise BadRequest(
            "A compressed request body can't be routed. Send it without Content-Encoding.",
            code="unsupported_content_encoding",
            close=True,
        )
    if not head.is_json:
        raise BadRequest(
            "The body must be JSON in UTF-8: send Content-Type: application/json, once.",
            status=415,
            code="unsupported_media_type",
        )
    if head.expect not in (b"", b"100-continue"):
        raise BadRequest("Only 'Expect: 100-continue' is supported.", status=417, close=True)
    return Options(strategy, timeout_s, fallbacks)


def caller_of(head: RequestHead, sticky: str, key_id: str | None = None) -> bytes:
    """Return what a sticky split knows a client by; empty where the request doesn't have it.

    :param sticky: ``key`` or ``header:NAME``. :param key_id: of the gateway's own key, where it has one.
    """
    if sticky == "key":
        if key_id is not None:
            return key_id.encode()
        return b"\0".join(value for _, value in head.credentials)
    wanted = sticky.removeprefix("header:").lower().encode()
    for lines in (head.lines, head.aside):
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() == wanted:
                return value.strip()
    return b""


def _bad(message: str, what: str, header: str) -> BadRequest:
    return BadRequest(message, code=f"invalid_{what}", param=f"X-Inferoute-{header}")


def unknown_strategy(name: str) -> str:
    """The sentence for a strategy that does not exist."""
    return f"Unknown strategy '{name[:40]}'. Use {', '.join(STRATEGIES[:-1])} or {STRATEGIES[-1]}."


def _strategy(value: bytes) -> str:
    strategy = value.decode("latin-1")
    if strategy not in STRATEGIES:
        raise _bad(unknown_strategy(strategy), "strategy", "Strategy")
    return strategy


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e6:
        text = "X-Inferoute-Timeout must be a number of seconds above 0, such as 2.5."
        raise _bad(text, "timeout", "Timeout")
    return seconds


def _names(value: bytes) -> tuple[str, ...]:
    try:
        names = tuple(name.strip() for name in value.decode().split(","))
    except UnicodeDecodeError:
        names = ("",)
    if not all(names):
        text = "X-Inferoute-Fallback must be models with commas between them, such as openai/gpt-4o, economy."
        raise _bad(text, "fallback", "Fallback")
    return names
