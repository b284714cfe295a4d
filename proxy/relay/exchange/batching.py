"""Batches work to the end of a turn of the event loop.

The same work for many in a row finds its code in the processor's caches; and where many messages go out in a
row, only the first has to wake the program at the other end. Under load that is up to a fifth of the CPU.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    pass

# What comes so soon after something alike most likely came in one turn. What comes alone is not put off, as
# another turn costs calls of the system.
TOGETHER_S: Final = 100e-6
Soon = Callable[[Callable[[], None]], object]


class LoopTurn:
    """Calls ``do`` once at the end of a turn in which something was put off.

    :param soon: has something called in the next turn; None: the way of the running event loop.
    """

    def __init__(self, do: Callable[[], None], soon: Soon | None = None) -> None:
        self._do = do
        self._soon = soon
        self._is_due = False
        self._last_at = 0.0  # when the last one came
        self._due_at = 0.0  # when the first came that is put off
        self.longest_s = 0.0  # of the turns since this was last set to 0, most of it, with its end

    def defer(self, now: float) -> bool:
        """Return whether what comes now waits for the end of the turn. If not, it is alone and to be done at
        once.

        :param now: monotonic seconds.
        """
        is_alone = now - self._last_at > TOGETHER_S
        self._last_at = now
        if self._is_due:
            return True
        if is_alone:
            return False
        self._is_due = True
        self._due_at = now
        # Not by the end of this one: the loop sends what was written before it calls anything.
        (self._soon or asyncio.get_running_loop().call_soon)(self._end)
        return True

    def lasted_s(self, now: float) -> float:
        """For how many seconds this turn has lasted since something in it was first put off."""
        return now - self._due_at if self._is_due else 0.0

    def _end(self) -> None:
        self._is_due = False
        self._do()
        lasted_s = monotonic() - self._due_at
        if lasted_s > self.longest_s:  # noqa: PLR1730  # max() takes three times as long
            self.longest_s = lasted_s
