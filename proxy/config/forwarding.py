"""The part of a client's head that passes to a provider: the list for all of them, and what its settings
change.

The table of lines (:mod:`proxy.wire.header_lines`) is one for all providers. Where a provider changes
nothing, its lines are those of the head as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from proxy.wire.header_lines import (
    CREDENTIAL_HEADERS,
    HOP_HEADERS,
    OWN_HEADERS,
    PASSING_HEADERS,
    PASSING_PREFIXES,
    holds_secret,
    may_pass,
    names_host,
    passes_everywhere,
    tells_of_user,
)
from proxy.wire.query import is_never_passed, passing, passing_names

if TYPE_CHECKING:
    from proxy.config.settings import ProviderConfig
    from proxy.wire.request_head import RequestHead

NOT_LISTED: Final = "is not on the list of what passes; 'pass_headers' of the provider adds to it"
TOO_LONG: Final = (
    "is longer than what passes; 'pass_headers' of the provider lifts that for the header it names"
)
PARAMETER_NOT_LISTED: Final = "is not on the list of what passes; 'pass_query' of the provider adds to it"


class HeaderNames:
    """Names of headers as settings have them: exact ones, and ``x-team-*``. Without regard to case."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, written: Iterable[str]) -> None:
        lower = [name.lower().encode() for name in written]
        self._exact = frozenset(name for name in lower if not name.endswith(b"*"))
        self._prefixes = tuple(name[:-1] for name in lower if name.endswith(b"*"))

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes)

    def has(self, name: bytes) -> bool:
        """Return whether a name, in lower case, is one of them."""
        return name in self._exact or name.startswith(self._prefixes)


class Passing:
    """The headers and parameters that pass to one provider."""

    __slots__ = ("_adds", "_changes", "_drops", "_own_parameters", "_parameters", "_sets", "is_passthrough")

    def __init__(self, config: ProviderConfig) -> None:
        self._sets = frozenset(name.lower().encode() for name, _ in config.headers)
        self._adds = HeaderNames(config.pass_headers)
        self._drops = HeaderNames(config.drop_headers)
        self._changes = bool(self._sets or self._drops)
        own = tuple(name for name, _ in config.query)
        self._own_parameters = frozenset(name.lower() for name in own)
        self._parameters = passing_names(config.pass_query, own)
        self.is_passthrough = config.auth == "passthrough"

    def lines(self, head: RequestHead) -> tuple[list[bytes], list[bytes]]:
        """The header lines that pass, and the names in lower case of those that don't for the list's sake.

        Credentials are neither: see :meth:`lets`.
        """
        lines = head.lines
        if self._changes:
            lines = [line for line in lines if self.lets(_name_of(line))]
        dropped: list[bytes] = []
        if head.aside:
            more: list[bytes] = []
            for line in head.aside:
                name = _name_of(line)
                if self._adds.has(name) and may_pass(name) and self.lets(name):
                    more.append(line)
                else:
                    dropped.append(name)
            if more:
                lines = lines + more
        return lines, dropped

    def query(self, query: bytes) -> tuple[bytes, list[bytes]]:
        """The part of a query that passes, and the names of the parameters that don't."""
        return passing(query, self._parameters)

    def lets(self, name: bytes) -> bool:
        """Return whether the provider's settings neither set nor drop a header of this name, in lower
        case."""
        return name not in self._sets and not self._drops.has(name)

    def why_no_header(self, name: bytes) -> str | None:
        """Return the reason why a header of this name, in lower case, does not pass; None: it passes.

        The end of a sentence that the name begins.
        """
        is_listed = passes_everywhere(name)
        is_credential = self.is_passthrough and name in CREDENTIAL_HEADERS and name != b"x-tokenhub-key"
        if not is_listed and not is_credential:
            reason = why_never(name)
            if reason is not None:
                return reason
            if not self._adds.has(name):
                return NOT_LISTED
        if name in self._sets:
            return "is set by 'headers' of the provider"
        return "is in 'drop_headers' of the provider" if self._drops.has(name) else None

    def why_no_parameter(self, name: bytes) -> str | None:
        """The same of a parameter of the query, its name in plain."""
        if name in self._parameters:
            return None
        text = name.decode("latin-1")
        if text.endswith(";"):
            return "holds a ';', which some servers read as '&'"
        if is_never_passed(text):
            return "names a model or holds a secret"
        if text.lower() in self._own_parameters:
            return "is set by 'query' of the provider"
        return PARAMETER_NOT_LISTED


def why_never(name: bytes) -> str | None:
    """Return the reason why a request header of this name, in lower case, passes to no provider, whatever
    ``pass_headers`` say; None: it may. The end of a sentence that the name begins."""
    if may_pass(name):
        return None
    for is_so, reason in (
        (name in OWN_HEADERS, "is written by the gateway itself"),
        (name in CREDENTIAL_HEADERS, "is a credential, and those stay at the gateway"),
        (name in HOP_HEADERS or name.startswith(b"x-forwarded-"), "is between the client and the gateway"),
        (name.startswith(b"x-inferoute-"), "is for the gateway alone"),
        (name.find(b"_") >= 0, "has a '_', which some servers read as '-'"),
        (tells_of_user(name), "tells who or where a user is"),
        (holds_secret(name), "looks like a secret by its name"),
        (names_host(name), "tells another gateway where to send the operator's key"),
    ):
        if is_so:
            return reason
    return None


def _name_of(line: bytes) -> bytes:
    return line.partition(b":")[0].lower()


def listed() -> list[str]:
    """List the headers that pass to every provider, as people write them."""
    return [name.decode() for name in PASSING_HEADERS] + [f"{name.decode()}*" for name in PASSING_PREFIXES]
