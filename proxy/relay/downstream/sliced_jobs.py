"""Jobs that take more than a moment and have to be done before a request can go on: a list of models, a
key's list held against all models.

Each is a generator of steps. They are run one after the other for up to :data:`STEP_S` of each turn of the
event loop, for all who wait together; then their requests are read again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

from proxy.errors import Fault, GatewayError

log = logging.getLogger("tokenhub.client")

# Of a turn of the event loop, for all jobs together.
STEP_S: Final = 0.002


# Called without an error once what a request waits for is there, else with it.
Again = Callable[[GatewayError | None], None]


class _Job:
    def __init__(self, what: object, is_there: Callable[[], bool], steps: Iterator[None]) -> None:
        self.what = what
        self.is_there = is_there
        self.steps = steps
        self.waiting: deque[Again] = deque()


class SlicedJobs:
    """Jobs that run, and who waits for them."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()

    def run(self, what: object, is_there: Callable[[], bool], steps: Iterator[None], again: Again) -> bool:
        """Have something done. True: it is, as small things are at once. Else ``again`` is called when it is.

        :param what: equal for two that ask for the same; one of them does it.
        :param is_there: whether it was done meanwhile.
        """
        for job in self._jobs:
            if job.what == what:
                job.waiting.append(again)
                return False
        job = _Job(what, is_there, steps)
        if not self._jobs and _go_on(steps, monotonic() + STEP_S):
            return True
        job.waiting.append(again)
        self._jobs.append(job)
        if len(self._jobs) == 1:
            asyncio.get_running_loop().call_soon(self._step)
        return False

    def _step(self) -> None:
        until = monotonic() + STEP_S
        while self._jobs and monotonic() < until:
            job = self._jobs[0]
            try:
                if not job.is_there() and not _go_on(job.steps, until):
                    break
            except Exception:
                log.exception("internal error in a job that requests wait for")
                self._jobs.popleft()
                for again in job.waiting:
                    again(Fault())
                continue
            while job.waiting and monotonic() < until:
                job.waiting.popleft()(None)
            if job.waiting:
                break
            self._jobs.popleft()
        if self._jobs:
            asyncio.get_running_loop().call_soon(self._step)

    def __repr__(self) -> str:
        return f"<SlicedJobs {[len(job.waiting) for job in self._jobs]}>"


def _go_on(steps: Iterator[None], until: float) -> bool:
    """Take steps until a point in time, the monotonic clock's. True: they are all done."""
    return all(monotonic() < until for _ in steps)
