"""The header lines that tell a client what is left of its key's limits a minute.

When the window ends is told twice: as Unix seconds, which a client can keep, and by how long it is until then
in the form that OpenAI's API has (``1m0s``, ``17s``, ``20ms``), for clients that read its headers.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from proxy.access.group import Group
from proxy.access.key import Key
from proxy.access.permits import GroupedPermit, Permit

_WHAT: Final = (b"limit", b"remaining", b"reset")
_LINES: Final = (
    b"X-RateLimit-Limit-%b: %d\r\nX-RateLimit-Remaining-%b: %%d\r\nX-RateLimit-Reset-%b: %%d\r\n"
    b"X-RateLimit-Reset-%b-After: %%b\r\n"
)
# A window is a minute, so these are all that is told of more than a second.
_SECONDS: Final = [b"%ds" % second if second < 60 else b"1m%ds" % (second - 60) for second in range(62)]


class LimitLines:
    """The rate limit headers of one key.

    :param rpm: its limit of requests a minute. :param tpm: and of tokens.

    ``names``: of the headers, in lower case. A provider's own of these names don't pass.
    """

    __slots__ = ("_lines", "_rpm", "_tpm", "names")

    def __init__(self, rpm: int | None, tpm: int | None) -> None:
        self._rpm, self._tpm = rpm, tpm
        self.names = _names(rpm is not None, tpm is not None)
        self._lines = _lines_of(b"Requests", rpm) + _lines_of(b"Tokens", tpm)

    def of(self, permit: Permit, now: float, unix_offset_s: float) -> bytes:
        """The lines, each with its CRLF; nothing for a key without such limits.

        :param now: monotonic seconds. :param unix_offset_s: what makes Unix seconds of them.
        """
        if self._tpm is None and self._rpm is None:
            return b""
        resets_at = ceil(permit.ends_at + unix_offset_s)
        after = time_until(permit.ends_at - now)
        if self._tpm is None:
            return self._lines % (permit.requests_left, resets_at, after)
        if self._rpm is None:
            return self._lines % (permit.tokens_left, resets_at, after)
        return self._lines % (
            permit.requests_left, resets_at, after, permit.tokens_left, resets_at, after,
        )  # fmt: skip


class GroupedLines(LimitLines):
    """Those of a key whose group has limits: of requests and of tokens each, the limit of which less is left.

    :param rpm: and ``tpm``: the key's. :param group_rpm: and ``group_tpm``: its group's.
    """

    __slots__ = ("_group_requests", "_group_tokens", "_requests", "_tokens")

    def __init__(
        self, rpm: int | None, tpm: int | None, group_rpm: int | None, group_tpm: int | None
    ) -> None:
        super().__init__(rpm, tpm)
        self.names = _names(
            rpm is not None or group_rpm is not None, tpm is not None or group_tpm is not None
        )
        self._requests, self._tokens = _lines_of(b"Requests", rpm), _lines_of(b"Tokens", tpm)
        self._group_requests = _lines_of(b"Requests", group_rpm)
        self._group_tokens = _lines_of(b"Tokens", group_tpm)

    def of(self, permit: Permit, now: float, unix_offset_s: float) -> bytes:
        """As for a key alone."""
        assert isinstance(permit, GroupedPermit)
        theirs = permit.group
        lines = b""
        if self._requests or self._group_requests:
            left, their_left = permit.requests_left, theirs.requests_left
            if is_tighter(left, permit, their_left, theirs):
                lines = _filled(self._requests, left, permit.ends_at, now, unix_offset_s)
            else:
                lines = _filled(self._group_requests, their_left, theirs.ends_at, now, unix_offset_s)
        if self._tokens or self._group_tokens:
            left, their_left = permit.tokens_left, theirs.tokens_left
            if is_tighter(left, permit, their_left, theirs):
                lines += _filled(self._tokens, left, permit.ends_at, now, unix_offset_s)
            else:
                lines += _filled(self._group_tokens, their_left, theirs.ends_at, now, unix_offset_s)
        return lines


def is_tighter(left: int, permit: Permit, their_left: int, theirs: Permit) -> bool:
    """Return whether less is left of the key's limit than of its group's, or the same for longer. A limit
    that does not exist leaves more than any other."""
    return left < their_left or (left == their_left and permit.ends_at >= theirs.ends_at)


def limit_lines(holder: Key | Group, group: Key | Group | None) -> LimitLines:
    """The headers of a key.

    :param group: its group, where that has limits.
    """
    if isinstance(holder, Group):  # its figures are told by the accounts of its keys
        return LimitLines(None, None)
    if group is None:
        return LimitLines(holder.rpm, holder.tpm)
    return GroupedLines(holder.rpm, holder.tpm, group.rpm, group.tpm)


def _names(has_requests: bool, has_tokens: bool) -> frozenset[bytes]:
    kinds = [kind for kind, is_there in ((b"requests", has_requests), (b"tokens", has_tokens)) if is_there]
    names = [b"x-ratelimit-%b-%b" % (what, kind) for kind in kinds for what in _WHAT]
    return frozenset([*names, *[b"x-ratelimit-reset-%b-after" % kind for kind in kinds]])


def _lines_of(kind: bytes, limit: int | None) -> bytes:
    return b"" if limit is None else _LINES % (kind, limit, kind, kind, kind)


def _filled(lines: bytes, left: int, ends_at: float, now: float, unix_offset_s: float) -> bytes:
    return lines % (left, ceil(ends_at + unix_offset_s), time_until(ends_at - now))


def time_until(seconds: float) -> bytes:
    """Up to 61 s as OpenAI's API writes them: whole seconds, or milliseconds below one; rounded up."""
    if seconds > 1.0:
        whole = ceil(seconds)
        return _SECONDS[whole] if whole < len(_SECONDS) else _SECONDS[-1]
    return b"%dms" % ceil(seconds * 1000) if seconds > 0.0 else b"0s"
