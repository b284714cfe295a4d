"""The tags of requests: those of their keys and those that clients say, as far as the operator lists them.

They are kept with a head that is remembered. Heads that differ with each request, as by a ``traceparent``,
mostly say the same tags, so these are remembered, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.access.grants import Grant
from proxy.config.settings import UsageConfig
from proxy.errors import BadRequest
from proxy.usage.calendar import day_of
from proxy.usage.counters import Counters, Used
from proxy.usage.tags import HEADER, SeenValues, TagsError, line_members, read_tags

# Tags that are remembered, and the longest of them: a megabyte in all.
_MOST_KNOWN: Final = 2048
_MAX_KNOWN_BYTES: Final = 512


class Tagged:
    """The tags of a request, ready for its ledger line and for metrics.

    ``members``: of the line, from the value of ``key`` on. ``counters``: one for each of its tags that
    metrics have.
    """

    __slots__ = ("counters", "members")

    def __init__(self, members: bytes, counters: list[Used]) -> None:
        self.members = members
        self.counters = counters


_NO_TAGS: Final = Tagged(b"", [])


class Tagging:
    """The tags that a configuration lists.

    :param counters: of this process.
    """

    __slots__ = ("_counters", "_day", "_known", "_listed", "_metric", "_seen")

    def __init__(self, config: UsageConfig, counters: Counters) -> None:
        self._listed = {name: frozenset(values) for name, values in config.tags}
        self._metric = config.metric_tags
        self._counters = counters
        self._seen = SeenValues(config.tag_values)
        # Of this day, by the grant, which is another one once its key has changed, and what the client says.
        self._known: dict[tuple[Grant | None, bytes], Tagged] = {}
        self._day = -1

    def tagged(
        self, options: Sequence[tuple[bytes, bytes]], grant: Grant | None, unix_s: float
    ) -> Tagged | None:
        """The tags of a request; None: it has none.

        :param options: its ``X-Inferoute-*`` headers: name in lower case, value.
        :raises BadRequest: the client's can't be read.
        """
        text = b""
        for name, value in options:
            if name == HEADER:
                text = text + b"," + value if text else value
        day = day_of(unix_s)
        if day != self._day or len(self._known) >= _MOST_KNOWN:
            self._day, self._known = day, {}
        found = self._known.get((grant, text))
        if found is None:
            found = self._read(text, grant, unix_s)
            if len(text) <= _MAX_KNOWN_BYTES:
                self._known[grant, text] = found
        return None if found is _NO_TAGS else found

    def _read(self, text: bytes, grant: Grant | None, unix_s: float) -> Tagged:
        known: dict[str, str] = {}
        if grant is not None:
            for tag, own in grant.key.tags:
                if tag in self._listed:
                    known[tag] = own
        said = self._said(text, known) if text else {}
        if not known and not said:
            return _NO_TAGS
        id = "" if grant is None else grant.id
        who = b"null" if grant is None else grant.who
        return Tagged(line_members(who, known, said), self._counters_of(known, said, id, unix_s))

    def _said(self, text: bytes, known: dict[str, str]) -> dict[str, str]:
        """What a client says of tags that are not known; values that are listed are added to those."""
        said: dict[str, str] = {}
        for tag, word in _read(text).items():
            listed = self._listed.get(tag)
            if listed is None or tag in known:
                continue
            if word in listed:
                known[tag] = word
            else:
                said[tag] = word
        return said

    def _counters_of(self, known: dict[str, str], said: dict[str, str], id: str, unix_s: float) -> list[Used]:
        counters = []
        for tag in self._metric:
            if tag in known:
                counters.append(self._counters.tagged(tag, self._seen.known(tag, known[tag])))
            elif tag in said:
                counters.append(self._counters.tagged(tag, self._seen.said(tag, said[tag], id, unix_s)))
        return counters


def _read(text: bytes) -> dict[str, str]:
    try:
        return read_tags(text)
    except TagsError as error:
        said = f"X-Inferoute-Tags can't be read: {error}."
        raise BadRequest(said, code="invalid_tags", param="X-Inferoute-Tags") from None


def tagging_of(config: UsageConfig, counters: Counters) -> Tagging | None:
    """The tags of a configuration; None: it has none, and nothing looks for any."""
    return Tagging(config, counters) if config.tags else None
