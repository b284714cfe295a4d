"""What is believed of a model's context window: the configuration's figure, or a smaller one that the
provider has named in an error, for an hour.

A provider may run a model with less than it has elsewhere. What it names is taken only where it says so in
figures, and never below a prompt that it was seen to take: an error's text is not to cut a model off.
"""

from __future__ import annotations

from typing import Final

BELIEVED_S: Final = 3600.0


class ContextWindow:
    """The context window of one deployment, in tokens.

    ``taken``: the largest prompt that it was seen to take. ``narrowed_until``: monotonic seconds; 0: nothing
    smaller than the configuration's figure is believed.
    """

    __slots__ = ("_configured", "_named", "narrowed_until", "taken")

    def __init__(self, configured: int | None) -> None:
        self._configured = configured
        self._named = 0
        self.taken = 0
        self.narrowed_until = 0.0

    def tokens(self, now: float) -> int | None:
        """Return the window that is believed in; None: it is not known."""
        if not self.narrowed_until:
            return self._configured
        if now >= self.narrowed_until or self.taken > self._named:
            self.narrowed_until = 0.0
            return self._configured
        return self._named

    def name(self, tokens: int, now: float) -> bool:
        """The provider names its window in an error. Returns whether less is believed from now on."""
        if tokens <= 0 or tokens < self.taken:
            return False
        if self._configured is not None and tokens >= self._configured:
            return False
        self._named, self.narrowed_until = tokens, now + BELIEVED_S
        return True

    def __repr__(self) -> str:
        return f"<ContextWindow {self._configured} named={self._named} taken={self.taken}>"
