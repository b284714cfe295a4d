"""Jobs that run at an interval beside the traffic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable


class Periodic:
    """A job that is repeated in a task of its own, from :meth:`start` to :meth:`stop`.

    A fault doesn't end the repetition. It is logged once, and again only after the job has gone well in
    between: the same fault ten times a second would fill the log.

    :param every_s: pause between the end of one run and the begin of the next.
    :param doing: the job in words, for the log: "internal error while …".
    :param at_once: the first run does not wait for a pause.
    """

    def __init__(
        self,
        job: Callable[[], Awaitable[object]],
        every_s: float,
        doing: str,
        log: logging.Logger,
        *,
        at_once: bool = False,
    ) -> None:
        self._job = job
        self._every_s = every_s
        self._doing = doing
        self._log = log
        self._at_once = at_once
        self._is_faulty = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Repeat the job from now on."""
        self._task = asyncio.get_running_loop().create_task(self._repeat())

    async def _repeat(self) -> None:
        if self._at_once:
            await self.run()
        while True:
            await asyncio.sleep(self._every_s)
            await self.run()

    async def run(self) -> None:
        """Do the job once, now."""
        try:
            await self._job()
            self._is_faulty = False
        except Exception:
            if not self._is_faulty:
                self._log.exception("internal error while %s", self._doing)
            self._is_faulty = True

    async def stop(self) -> None:
        """End the repetition; a run that is under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
