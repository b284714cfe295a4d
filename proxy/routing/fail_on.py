"""Which responses of a provider are failures: ``fail_on`` of ``[routing]`` or of an alias, made quick to ask.

A failure is followed by another member where there is one, and blamed on the provider. By default these are
what is not about the request: faults and redirections, refused keys and accounts, models and paths that are
not there, limits. Of a 4xx the error's code decides as well, since 400, 403 and 404 are also what a provider
says of a request's content.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.config.settings import RoutingConfig

CONTEXT_LENGTH: Final = "context_length_exceeded"
# Whatever it is for, the operator's account, address or model may be the reason; the body says whether.
REFUSALS: Final = frozenset((401, 402, 403, 404, 405, 410))
# A 403 or 404 with one of these in its code is about the content of the request.
_OF_CONTENT: Final = (
    "content_policy", "content_filter", "moderation", "safety", "file_not_found", "response_not_found",
    "conversation_not_found",
)  # fmt: skip


class FailOn:
    """The statuses and error codes that are failures.

    :param entries: as in the settings: a status, a class such as ``5xx``, or an error's code or type.
    """

    __slots__ = ("_classes", "_statuses", "words")

    def __init__(self, entries: Iterable[str]) -> None:
        entries = [entry.lower() for entry in entries]
        self._classes = frozenset(int(entry[0]) for entry in entries if entry[1:] == "xx")
        self._statuses = frozenset(int(entry) for entry in entries if entry.isdigit())
        self.words = frozenset(e for e in entries if not e.isdigit() and e[1:] != "xx")

    def by_status(self, status: int) -> bool:
        """Return whether a response with this status is a failure, whatever it says."""
        return status in self._statuses or status // 100 in self._classes

    def needs_body(self, status: int) -> bool:
        """Return whether the body of a response of 300 or above has to be read to tell."""
        if status in REFUSALS:
            return True
        return 400 <= status < 500 and bool(self.words) and not self.by_status(status)

    def is_failure(self, status: int, words: frozenset[str]) -> bool:
        """Return whether a response is a failure.

        :param words: of its error, as of :func:`proxy.wire.error_body.error_words`.
        """
        if not words.isdisjoint(self.words):
            return True
        if status in (403, 404) and any(part in word for word in words for part in _OF_CONTENT):
            return False
        return status == 401 or self.by_status(status)


USUAL: Final = FailOn(RoutingConfig().fail_on)
