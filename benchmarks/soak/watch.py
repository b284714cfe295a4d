"""What a soak waits for, and for how long it may: one that hangs says where it does, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from soak.books import children


class Watch:
    """Looks on from a thread of its own, since what hangs may be the event loop.

    :param give_up: called in that thread when something takes too long, with what is to be told.
    """

    def __init__(self, give_up: Callable[[str], None]) -> None:
        self._give_up = give_up
        self._changed = threading.Condition()
        self._what = ""
        self._limit_s = 0.0
        self._due_at = float("inf")  # monotonic seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_over = False

    def begin(self, what: str, limit_s: float) -> None:
        """From now on this is waited for, and nothing else. To be called in the event loop."""
        with self._changed:
            self._loop = asyncio.get_running_loop()
            self._what, self._limit_s, self._due_at = what, limit_s, time.monotonic() + limit_s
            self._changed.notify()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """It looks on as long as this is entered."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify()
            thread.join()

    def _look(self) -> None:
        with self._changed:
            while not self._is_over and (left_s := self._due_at - time.monotonic()) > 0.0:
                self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
            if self._is_over:
                return
            told = f"waited {self._limit_s:g} s for {self._what}"
        self._give_up("\n  ".join([told, *self._places()]))

    def _places(self) -> Iterator[str]:
        """Where the main thread is, and each task."""
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        yield f"main thread: {'nowhere' if frame is None else _place(frame)}"
        tasks = () if self._loop is None else asyncio.all_tasks(self._loop)
        for chain, count in Counter(" > ".join(_chain(task.get_coro())) for task in tasks).most_common():
            yield f"{count} tasks: {chain}"


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname}:{frame.f_lineno}"


def _chain(coroutine: Any) -> Iterator[str]:
    """Where it is, and where what it awaits is, and so on."""
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        yield _place(frame)
        coroutine = coroutine.cr_await


def end_all(told: str) -> None:
    """Say so, and end this process and those that it has started."""
    print(f"FAILED hangs: {told}", flush=True)
    for child in children(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
    os._exit(1)
