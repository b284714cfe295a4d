"""Headers and parameters of clients that do not reach a provider: counted, and each name logged once.

Heads are remembered with what was prepared of them, so names are looked at when a head is new to a provider.
A request whose head loses nothing costs one question.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxy.config.forwarding import TOO_LONG
from proxy.relay.upstream.known_head import KnownHead

if TYPE_CHECKING:
    from proxy.relay.upstream.provider import Provider
    from proxy.usage.counters import Counters

log = logging.getLogger("tokenhub.dropped")

# Clients choose the names: a flood of odd ones must fill neither the log nor the memory.
MAX_NAMES: Final = 100
_MAX_NAME: Final = 60
# A parameter without "=" may be a secret that stands in the wrong place; those are longer than names are.
_MAX_PARAMETER: Final = 24
_NOT_SHOWN: Final = b"(not shown)"


class DroppedNames:
    """The names that were logged; see the module's text."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: set[tuple[str, bytes]] = set()

    def prepare(self, head: KnownHead, provider: Provider, path: bytes) -> bytes:
        """Make the part of a head that goes to a provider, and keep it with the head."""
        prepared, headers, parameters = provider.prepare(head, path)
        head.prepared[provider] = prepared
        if headers or parameters:
            if head.dropped is None:
                head.dropped = {}
            head.dropped[provider] = len(headers), len(parameters)
            self._tell(provider, headers, parameters)
        return prepared

    def _tell(self, provider: Provider, headers: list[bytes], parameters: list[bytes]) -> None:
        passing, who = provider.passing, provider.config.name
        for name in headers:
            if self._is_new("header", name):
                why = passing.why_no_header(name) or TOO_LONG
                self._log("header", name[:_MAX_NAME].decode("latin-1"), who, why)
        for parameter in parameters:
            is_shown = len(parameter) <= _MAX_PARAMETER and parameter.decode("latin-1").isprintable()
            name = parameter if is_shown and parameter.isascii() else _NOT_SHOWN
            if self._is_new("parameter", name):
                self._log("parameter", name.decode(), who, passing.why_no_parameter(name))

    def _is_new(self, kind: str, name: bytes) -> bool:
        if (kind, name) in self._told or len(self._told) > MAX_NAMES:
            return False
        self._told.add((kind, name))
        if len(self._told) > MAX_NAMES:
            log.info("further headers and parameters that don't reach providers are not named here")
            return False
        return True

    def _log(self, kind: str, name: str, provider: str, reason: str | None) -> None:
        log.info("the %s '%s' of a client does not reach provider %s: it %s", kind, name, provider, reason)


def count(head: KnownHead, provider: Provider, counters: Counters) -> None:
    """Count a request whose head loses something, if not at every provider."""
    assert head.dropped is not None
    headers, parameters = head.dropped.get(provider, (0, 0))
    counters.dropped_headers += headers
    counters.dropped_parameters += parameters
