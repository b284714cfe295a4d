"""The header lines that tell a client what is left of its key's limits a minute.

When the window ends is told twice: as Unix seconds, which a client can keep, and by how long it is until then
in the form that OpenAI's API has (``1m0s``, ``17s``, ``20ms``), for clients that read its headers.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.access.key import Key
    from proxy.access.permits import Permit

_WHAT: Final = (b"limit", b"remaining", b"reset")
_LINES: Final = (
    b"X-RateLimit-Limit-%b: %d\r\nX-RateLimit-Remaining-%b: %%d\r\nX-RateLimit-Reset-%b: %%d\r\n"
    b"X-RateLimit-Reset-%b-After: %%b\r\n"
)
# A window is a minute, so these are all that is told of more than a second.
_SECONDS: Final = [b"%ds" % second if second < 60 else b"1m%ds" % (second - 60) for second in range(62)]


class LimitLines:
    """The rate limit headers of one key.

    ``names``: of the headers, in lower case. A provider's own of these names don't pass.
    """

    __slots__ = ("_lines", "_rpm", "_tpm", "names")

    def __init__(self, key: Key) -> None:
        self._rpm, self._tpm = key.rpm, key.tpm
        kinds = [(name, limit) for name, limit in ((b"Requests", key.rpm), (b"Tokens", key.tpm)) if limit]
        names = [b"x-ratelimit-%b-%b" % (what, kind.lower()) for kind, _ in kinds for what in _WHAT]
        names += [b"x-ratelimit-reset-%b-after" % kind.lower() for kind, _ in kinds]
        self.names = frozenset(names)
        self._lines = b"".join(_LINES % (kind, limit, kind, kind, kind) for kind, limit in kinds)

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


def time_until(seconds: float) -> bytes:
    """Up to 61 s as OpenAI's API writes them: whole seconds, or milliseconds below one; rounded up."""
    if seconds > 1.0:
        whole = ceil(seconds)
        return _SECONDS[whole] if whole < len(_SECONDS) else _SECONDS[-1]
    return b"%dms" % ceil(seconds * 1000) if seconds > 0.0 else b"0s"
