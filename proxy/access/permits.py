"""The permit that a key's account gives a request, and the usage of a month and a day."""

from __future__ import annotations

from typing import NamedTuple


class Permit:
    """A request that was let in: what it reserved, and what was left then, where there is a limit.
    ``ends_at``: of the window, monotonic seconds."""

    __slots__ = ("ends_at", "nusd", "requests_left", "tokens", "tokens_left")

    def __init__(self, tokens: int, nusd: int, requests_left: int, tokens_left: int, ends_at: float) -> None:
        self.tokens = tokens
        self.nusd = nusd
        self.requests_left = requests_left
        self.tokens_left = tokens_left
        self.ends_at = ends_at


class GroupedPermit(Permit):
    """The same for a request that its key's group has let in too. ``group``: what is left of that."""

    __slots__ = ("group",)

    def __init__(
        self, tokens: int, nusd: int, requests_left: int, tokens_left: int, ends_at: float, group: Permit
    ) -> None:
        super().__init__(tokens, nusd, requests_left, tokens_left, ends_at)
        self.group = group


class Month(NamedTuple):
    """The usage of a month and of its present day, UTC, and when the key was used last (Unix seconds, 0:
    never)."""

    tokens: int
    nusd: int
    last_used: float
    day_tokens: int = 0
    day_nusd: int = 0
