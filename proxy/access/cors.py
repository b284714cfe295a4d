"""Pages of other origins: which may call the gateway, and what their browsers have to be told (the Fetch
standard, "CORS protocol").

The gateway decides which pages may call. So a provider's own CORS headers never reach a client
(``access-control-*`` in :mod:`proxy.wire.header_lines`): a browser takes two answers for none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

METHODS: Final = "GET, POST"
# Browsers ask again after two hours at the latest (Chromium), whatever they are told.
MAX_AGE_S: Final = 7200
# What a page's script may read of a response beside its body: by default it would see the content's type
# only.
EXPOSED: Final = (
    "X-Inferoute-Request-Id, X-Inferoute-Provider, X-Inferoute-Model, X-Inferoute-Strategy, "
    "X-Inferoute-Attempts, X-Inferoute-Simulated, x-request-id, request-id, x-should-retry, Retry-After, "
    "Server-Timing, "
    "X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, X-RateLimit-Reset-Requests, "
    "X-RateLimit-Reset-Requests-After, "
    "X-RateLimit-Limit-Tokens, X-RateLimit-Remaining-Tokens, X-RateLimit-Reset-Tokens, "
    "X-RateLimit-Reset-Tokens-After"
)
_PREFLIGHT: Final = (
    f"Access-Control-Allow-Methods: {METHODS}\r\nAccess-Control-Max-Age: {MAX_AGE_S}\r\n"
    "Vary: Access-Control-Request-Headers\r\n"
).encode()
_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")


class Cors:
    """The CORS headers for the configured origins.

    :param origins: those that may call, as browsers write them; ``*``: all.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        if "*" in origins:
            self._lines: dict[bytes, bytes] = {}
            self._any = _lines("*", "")
        else:
            self._lines = {origin.encode(): _lines(origin, "Vary: Origin\r\n") for origin in origins}
            self._any = b""

    def lines(self, origin: bytes) -> bytes:
        """The header lines of a response, each with its CRLF; none where it is for no page, or a foreign one.

        :param origin: what the request says of it; b"": it comes from no page.
        """
        if not origin:
            return b""
        return self._any or self._lines.get(origin, b"")


def cors_of(origins: Sequence[str]) -> Cors | None:
    """None where no page may call."""
    return Cors(origins) if origins else None


def _lines(origin: str, vary: str) -> bytes:
    allow, expose = f"Access-Control-Allow-Origin: {origin}", f"Access-Control-Expose-Headers: {EXPOSED}"
    return f"{allow}\r\n{expose}\r\n{vary}".encode()


def preflight(requested: bytes) -> bytes:
    """The header lines of the answer to a browser's question, beside :meth:`Cors.lines`, each with its CRLF.

    :param requested: its Access-Control-Request-Headers. All of them are allowed: what reaches a provider is
        decided elsewhere, and for clients of every kind.
    """
    if _NAMES.fullmatch(requested):
        return b"%bAccess-Control-Allow-Headers: %b\r\n" % (_PREFLIGHT, requested)
    return _PREFLIGHT
