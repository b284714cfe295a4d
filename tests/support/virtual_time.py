"""An event loop whose time stands still while there is anything to do, and jumps to the next timer when there
is not: two clocks in one process agree, however slow the machine is.

Sockets stay real. What is on its way on loopback may not have come when nothing is ready, so the kernel is
given a moment before each jump; and while a thread works for the loop, no time passes at all.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

# How long nothing may be ready before time jumps, in real seconds.
QUIET_S = 0.0005
# How far it jumps at most, so that a long wait still gives the kernel many such moments.
JUMP_S = 0.005


class _Selector(selectors.DefaultSelector):
    """Selects among what is ready now, else moves the loop's time towards the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()
        self.working = 0  # threads that will call the loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self.working:
            return super().select(timeout)
        ready = super().select(min(timeout, QUIET_S))
        if not ready and timeout > 0:
            self.now += min(timeout, JUMP_S)
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__(_Selector())

    def time(self) -> float:
        return self._selector.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        done = super().run_in_executor(executor, func, *args)
        self._selector.working += 1
        done.add_done_callback(self._worked)
        return done

    def _worked(self, _: asyncio.Future[Any]) -> None:
        self._selector.working -= 1


@contextmanager
def told_by(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Monotonic seconds are the loop's meanwhile, but for modules that are compiled."""
    real = time.monotonic
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("proxy.") and getattr(module, "monotonic", None) is real:
                patch.setattr(module, "monotonic", loop.time)
        patch.setattr(time, "monotonic", loop.time)
        yield
