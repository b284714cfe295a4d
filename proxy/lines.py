"""Header lines: which pass, which are dropped or used, and the tables of lines seen before.

Clients and providers repeat most of their lines to the letter, so one look-up of the whole line answers
"well-formed?", "may it pass?" and "do we need its value?" at once. Only a line never seen is taken apart.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE: Final = bytes(c for c in range(256) if c == 9 or (c >= 32 and c != 127))

# Lines longer than this are not remembered, nor are the fields that differ with every request.
MAX_CACHED_LINE: Final = 200
MAX_CACHED_LINES: Final = 2048
_VOLATILE: Final = frozenset(
    b"traceparent tracestate x-request-id date idempotency-key cf-ray request-id "
    b"openai-processing-ms x-ratelimit-remaining-requests x-ratelimit-remaining-tokens set-cookie".split()
)

_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")

PASS: Final = 0
DROP: Final = 1
USE: Final = 2
USE_AND_PASS: Final = 3

# What a client sends that concerns the connection, its identity towards the gateway, or its way to us.
# Reasons: RFC 9110 7.6.1 (hop by hop); cookies and Forwarded are between the client and this host; an
# organisation or project named by a client would be billed on the operator's key; and another path or method
# than the one that was asked for would be used with that key.
_REQUEST_RULES: Final = {
    **dict.fromkeys(
        b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade cookie "
        b"forwarded via x-real-ip http2-settings x-http-method x-http-method-override x-method-override "
        b"x-original-url x-rewrite-url".split(),
        DROP,
    ),
    **dict.fromkeys(
        b"host connection content-length transfer-encoding expect content-encoding accept-encoding "
        b"authorization x-api-key api-key x-goog-api-key x-tokenhub-key openai-organization "
        b"openai-project".split(),
        USE,
    ),
    b"origin": USE_AND_PASS,
}
_RESPONSE_RULES: Final = {
    **dict.fromkeys(b"keep-alive proxy-connection proxy-authenticate te trailer upgrade".split(), DROP),
    # What a provider says of its own host a client would take for the gateway's.
    **dict.fromkeys(b"refresh alt-svc strict-transport-security clear-site-data".split(), DROP),
    b"connection": USE,
    **dict.fromkeys(
        b"content-length transfer-encoding content-type content-encoding location".split(), USE_AND_PASS
    ),
    **dict.fromkeys(
        b"x-ratelimit-limit-requests x-ratelimit-remaining-requests x-ratelimit-reset-requests "
        b"x-ratelimit-limit-tokens x-ratelimit-remaining-tokens x-ratelimit-reset-tokens".split(),
        USE_AND_PASS,
    ),
}

_T = TypeVar("_T")
Field = tuple[int, bytes, bytes]  # rule, name in lower case, value
PASSES_ONCE: Final[Field] = (PASS, b"", b"")  # a line that passes and will not be seen again


class HeadError(ValueError):
    """A provider's head that is not HTTP/1.x as the RFC has it."""


class Lines:
    """The table of lines seen before, for one direction."""

    def __init__(self, rules: dict[bytes, int], prefixes: tuple[bytes, ...]) -> None:
        self.rules = rules
        self.dropped_prefixes = prefixes
        self.passing: set[bytes] = set()
        self.special: dict[bytes, Field] = {}
        # Names as they were spelled -> rule, lower case, whether the line is worth remembering.
        self._names: dict[bytes, tuple[int, bytes, bool]] = {}

    def take_apart(self, line: bytes) -> Field:
        """Check and classify a line never seen.

        :raises HeadError: the line is no header field, or holds a character no field may hold.
        """
        colon = line.find(b":")
        name = line[: max(colon, 0)]
        # Nearly every value can be printed, which is quicker to ask than what it may hold.
        if not line.decode("latin-1").isprintable() and line[colon + 1 :].translate(None, _VALUE):
            raise HeadError(f"the header {bytes(name[:40])!r} holds a control character")
        known = self._names.get(name)
        if known is None:
            known = self._check_name(name, line)
        rule, name, memorable = known
        if rule == PASS and not memorable:
            return PASSES_ONCE
        field = (rule, name, line[colon + 1 :].strip(b" \t"))
        if memorable and len(line) <= MAX_CACHED_LINE:
            if len(self.passing) + len(self.special) >= MAX_CACHED_LINES:
                self.passing.clear()
                self.special.clear()
            if rule == PASS:
                self.passing.add(line)
            else:
                self.special[line] = field
        return field

    def _check_name(self, name: bytes, line: bytes) -> tuple[int, bytes, bool]:
        if not name or name.translate(None, _TOKEN):
            raise HeadError(f"{bytes(line[:40])!r} is no header field")
        lower = name.lower()
        rule = self.rules.get(lower, PASS)
        if rule == PASS and lower.startswith(self.dropped_prefixes):
            rule = USE
        known = (rule, lower, lower not in _VOLATILE)
        if len(name) <= MAX_CACHED_LINE:
            remember(self._names, name, known)
        return known


def reaches_providers(name: str) -> bool:
    """Whether a request header of this name passes."""
    lower = name.lower().encode()
    lines = request_lines
    return lines.rules.get(lower, PASS) == PASS and not lower.startswith(lines.dropped_prefixes)


def without_empty_lines(data: bytes) -> bytes:
    """``data`` without those it begins with (RFC 9112 section 2.2), however many come at once."""
    match = _EMPTY_LINES.match(data)
    return data[match.end() :] if match else data


def remember(table: dict[bytes, _T], key: bytes, value: _T) -> None:
    """Keep a value in a bounded table, which is cleared when it is full."""
    if len(table) >= MAX_CACHED_LINES:
        table.clear()
    table[key] = value


request_lines = Lines(_REQUEST_RULES, (b"x-inferoute-", b"x-forwarded-"))
# Which pages may call the gateway is not the provider's to say (proxy.cors).
response_lines = Lines(_RESPONSE_RULES, (b"x-inferoute-", b"access-control-"))
