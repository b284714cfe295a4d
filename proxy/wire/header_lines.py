"""Header lines: which pass, which are dropped or used, and the tables of lines seen before.

Clients and providers repeat most of their lines to the letter, so one look-up of the whole line answers
"well-formed?", "may it pass?" and "do we need its value?" at once. Only a line never seen is taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

MAX_HEAD_BYTES: Final = 32 << 10
MAX_HEADERS: Final = 200
_MAX_LENGTH_DIGITS: Final = 18
# What a Connection header can say without naming a header that is to be dropped.
_NOT_NAMES: Final = frozenset(
    (b"", b"close", b"keep-alive", b"upgrade", b"content-length", b"transfer-encoding")
)
_NO_NAMES: Final[frozenset[bytes]] = frozenset()
FRAMING_NAMES: Final = frozenset((b"content-length", b"transfer-encoding"))

_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_VALUE: Final = bytes(c for c in range(256) if c == 9 or (c >= 32 and c != 127))

# Lines longer than this are not remembered, nor are the fields that differ with every request.
MAX_CACHED_LINE: Final = 200
MAX_CACHED_LINES: Final = 2048
_VOLATILE: Final = frozenset(
    b"traceparent tracestate x-request-id x-client-request-id date idempotency-key cf-ray request-id "
    b"x-amzn-trace-id x-cloud-trace-context baggage sentry-trace x-request-start "
    b"openai-processing-ms x-ratelimit-remaining-requests x-ratelimit-remaining-tokens set-cookie".split()
)

# More before a request is only sent to keep the gateway busy.
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n){1,8}+")

PASS: Final = 0
DROP: Final = 1
USE: Final = 2
USE_AND_PASS: Final = 3
ASIDE: Final = 4  # kept, but sent to a provider only where its pass_headers say so

# The session ids that coding agents send by themselves: Codex, OpenCode.
SESSION_HEADERS: Final = (
    b"session-id",
    b"thread-id",
    b"conversation-id",
    b"x-parent-session-id",
    b"x-opencode-session",
)
# What passes to every provider. All else that a client sends stays here, since what an unknown header does at
# a provider is unknown too: other gateways take a host, a model or a key from theirs.
PASSING_HEADERS: Final = (
    *b"accept accept-language user-agent idempotency-key traceparent tracestate x-request-id "
    b"x-client-request-id http-referer x-title".split(),
    *SESSION_HEADERS,
)
PASSING_PREFIXES: Final = (
    b"openai-",
    b"anthropic-",
    b"x-stainless-",
    b"x-claude-code-",
    b"x-codex-",
    b"x-session-",
)
# What is between the client and this host: RFC 9110 7.6.1 (hop by hop); cookies and Forwarded. Another path
# or method than the one that was asked for would be used with the operator's key.
HOP_HEADERS: Final = tuple(
    b"keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade cookie "
    b"forwarded via x-real-ip http2-settings x-http-method x-http-method-override x-method-override "
    b"x-original-url x-rewrite-url".split()
)
# What the gateway writes itself, whatever the client's says.
OWN_HEADERS: Final = tuple(
    b"host connection content-length transfer-encoding expect content-type content-encoding "
    b"accept-encoding".split()
)
# Whose account pays. They go to providers with auth = "passthrough" alone: an organisation, a project or an
# account named by a client would be billed on the operator's key.
CREDENTIAL_HEADERS: Final = tuple(
    b"authorization x-api-key api-key x-goog-api-key x-tokenhub-key openai-organization openai-project "
    b"chatgpt-account-id x-goog-user-project ocp-apim-subscription-key".split()
)
# A provider may put what it got into its response's head, and that has an end (32 KiB). Longer values stay
# here like any header that is not listed: ids, which are what comes back, and all others. A tracestate may
# have some KiB by its own standard.
MAX_ID_BYTES: Final = 512
MAX_VALUE_BYTES: Final = 8 << 10
ID_HEADERS: Final = frozenset(
    (b"idempotency-key", b"traceparent", b"x-request-id", b"x-client-request-id", *SESSION_HEADERS)
)
_REQUEST_RULES: Final = {
    **dict.fromkeys(PASSING_HEADERS, PASS),
    **dict.fromkeys(HOP_HEADERS, DROP),
    **dict.fromkeys((*OWN_HEADERS, *CREDENTIAL_HEADERS, b"origin"), USE),
}
OWN_PREFIXES: Final = (b"x-inferoute-", b"x-forwarded-")

# What never passes, whatever pass_headers say. First, what browsers, and proxies that log people in, tell of
# a user: where a page is, who reads it, from which address.
_USER_NAMES: Final = frozenset(
    b"origin referer true-client-ip fastly-client-ip x-client-ip x-cluster-client-ip x-remote-user "
    b"x-remote-addr cf-ray cf-visitor cf-worker".split()
)
_USER_PREFIXES: Final = (
    b"sec-", b"access-control-", b"cf-access-", b"cf-connecting-", b"cf-ip", b"x-auth-request-",
    b"x-amzn-oidc-", b"x-goog-iap-", b"x-goog-authenticated-user-", b"x-ms-client-principal", b"x-ms-token-",
    b"x-envoy-", b"x-original-", b"x-pomerium-", b"x-authentik-", b"x-vouch-", b"tailscale-user-", b"remote-",
)  # fmt: skip
# Then what holds a secret, or names a host: the operator's key would go there.
_SECRET_ENDS: Final = (
    b"-authorization", b"-api-key", b"-apikey", b"-access-key", b"-subscription-key", b"-functions-key",
    b"-virtual-key", b"-token", b"-secret", b"-password", b"-auth", b"-credential", b"-credentials", b"-jwt",
    b"-assertion",
)  # fmt: skip
_STEERING_NAMES: Final = frozenset((b"x-portkey-config", b"x-portkey-forward-headers"))
_STEERING_ENDS: Final = (b"-custom-host", b"-target-url", b"-api-base", b"-base-url", b"-endpoint-url")

_RESPONSE_RULES: Final = {
    **dict.fromkeys(b"keep-alive proxy-connection proxy-authenticate te trailer upgrade".split(), DROP),
    # What a provider says of its own host a client would take for the gateway's.
    **dict.fromkeys(b"refresh alt-svc strict-transport-security clear-site-data".split(), DROP),
    b"connection": USE,
    **dict.fromkeys(
        b"content-length transfer-encoding content-type content-encoding location request-id "
        b"cache-control x-accel-buffering".split(),
        USE_AND_PASS,
    ),
    **dict.fromkeys(
        b"x-ratelimit-limit-requests x-ratelimit-remaining-requests x-ratelimit-reset-requests "
        b"x-ratelimit-limit-tokens x-ratelimit-remaining-tokens x-ratelimit-reset-tokens "
        b"x-ratelimit-reset-requests-after x-ratelimit-reset-tokens-after".split(),
        USE_AND_PASS,
    ),
}

_T = TypeVar("_T")
Field = tuple[int, bytes, bytes]  # rule, name in lower case, value
# Lines that will not be seen again: those that pass, and those that are kept.
PASSES_ONCE: Final[Field] = (PASS, b"", b"")
ASIDE_ONCE: Final[Field] = (ASIDE, b"", b"")


class HeadError(ValueError):
    """A provider's head that is not HTTP/1.x as the RFC has it."""


class Lines:
    """The table of lines seen before, for one direction.

    :param rule_of: what becomes of a header, by its name in lower case.
    :param is_bounded: what passes has a bound; a longer line is kept aside.
    """

    def __init__(self, rule_of: Callable[[bytes], int], is_bounded: bool) -> None:
        self.rule_of = rule_of
        self._least_bound = MAX_ID_BYTES if is_bounded else 1 << 30
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
        if rule == PASS and len(line) > self._least_bound and is_too_long(name, line[colon + 1 :]):
            rule = ASIDE
        if not memorable:
            if rule == PASS:
                return PASSES_ONCE
            if rule == ASIDE:
                return ASIDE_ONCE
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
            # Not more of it: the value may be a credential.
            what = (
                f"the name of a header, '{name[:40].decode('latin-1')}',"
                if name
                else "a header without a name"
            )
            raise HeadError(f"{what} is not a header field: write 'Name: value'")
        lower = name.lower()
        known = (self.rule_of(lower), lower, lower not in _VOLATILE)
        if len(name) <= MAX_CACHED_LINE:
            remember(self._names, name, known)
        return known


def _rule_of_request(name: bytes) -> int:
    rule = _REQUEST_RULES.get(name)
    if rule is not None:
        return rule
    if name.startswith(OWN_PREFIXES):
        return USE
    return PASS if name.startswith(PASSING_PREFIXES) and may_pass(name) else ASIDE


def _rule_of_response(name: bytes) -> int:
    rule = _RESPONSE_RULES.get(name)
    if rule is not None:
        return rule
    # Which pages may call the gateway is not the provider's to say (proxy.access.cors).
    return USE if name.startswith((b"x-inferoute-", b"access-control-")) else PASS


def is_too_long(name: bytes, value: bytes) -> bool:
    """Return whether a value that a client sends is longer than what passes; the name is in lower case."""
    return len(value.strip(b" \t")) > (MAX_ID_BYTES if name in ID_HEADERS else MAX_VALUE_BYTES)


def is_kept(name: bytes) -> bool:
    """Return whether the value of a request header of this name, in lower case, is kept with the head."""
    return _rule_of_request(name) in (PASS, ASIDE)


def passes_everywhere(name: bytes) -> bool:
    """Return whether a request header of this name, in lower case, passes to every provider."""
    return _rule_of_request(name) == PASS


def may_pass(name: bytes) -> bool:
    """Return whether a request header of this name, in lower case, may pass where a provider's settings say
    so.

    Servers behind CGI or WSGI read ``_`` as ``-``: a name with one could be any other.
    """
    return (
        name.find(b"_") < 0
        and _REQUEST_RULES.get(name, PASS) == PASS
        and not name.startswith(OWN_PREFIXES)
        and not tells_of_user(name)
        and not holds_secret(name)
        and not names_host(name)
    )


def tells_of_user(name: bytes) -> bool:
    """A browser, or a proxy that logs people in, tells with it who or where the user is."""
    return name in _USER_NAMES or name.startswith(_USER_PREFIXES)


def holds_secret(name: bytes) -> bool:
    """By its name the value is a secret."""
    return (b"-" + name).endswith(_SECRET_ENDS)


def names_host(name: bytes) -> bool:
    """Another gateway takes from it where a request goes."""
    return name in _STEERING_NAMES or name.endswith(_STEERING_ENDS)


def without_empty_lines(data: bytes) -> bytes:
    """``data`` without those it begins with (RFC 9112 section 2.2), up to eight of them."""
    match = _EMPTY_LINES.match(data)
    return data[match.end() :] if match else data


def remember(table: dict[bytes, _T], key: bytes, value: _T) -> None:
    """Keep a value in a bounded table, which is cleared when it is full."""
    if len(table) >= MAX_CACHED_LINES:
        table.clear()
    table[key] = value


request_lines = Lines(_rule_of_request, is_bounded=True)
response_lines = Lines(_rule_of_response, is_bounded=False)


def is_length(value: bytes) -> bool:
    """Return whether it is a Content-Length that can be."""
    return value.isdigit() and len(value) <= _MAX_LENGTH_DIGITS


def connection_options(value: bytes, keep_alive: bool) -> tuple[bool, frozenset[bytes]]:
    """Join the values of all Connection headers of a head by commas.

    "close" wins over "keep-alive" (RFC 9112 9.3), and what else is named goes no further than this hop
    (RFC 9110 7.6.1), except for the framing, which is never the sender's to remove. All names go in one pass:
    a head has room for 16,000 of them.

    :param keep_alive: what holds where they say nothing of it.
    :return: whether the connection stays open, and the names of headers in it.
    """
    value = value.lower()
    if value == b"keep-alive":  # nearly always
        return True, _NO_NAMES
    options = {option.strip(b" \t") for option in value.split(b",")}
    if b"close" in options:
        keep_alive = False
    elif b"keep-alive" in options:
        keep_alive = True
    return keep_alive, frozenset(options - _NOT_NAMES)


def without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """The header lines whose name (lower case) is not among ``names``."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]
