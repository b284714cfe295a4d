"""A periodic job: repeated, stopped, and its faults logged once."""

from __future__ import annotations

import asyncio
import logging

from proxy.control.periodic import Periodic
from tests.support.fakes import until

log = logging.getLogger("tokenhub.server")
NEVER_S = 3600.0


class Job:
    """Counts its runs, and fails at those in ``bad``."""

    def __init__(self, *bad: int) -> None:
        self.runs = 0
        self._bad = bad

    async def __call__(self) -> None:
        self.runs += 1
        if self.runs in self._bad:
            raise RuntimeError("no")


async def test_it_is_repeated_until_it_is_stopped():
    job = Job()
    periodic = Periodic(job, 0.001, "testing", log)
    periodic.start()
    await until(lambda: job.runs >= 3)
    await periodic.stop()
    runs = job.runs
    await asyncio.sleep(0.01)
    assert job.runs == runs
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_run():
    waiting, prompt = Job(), Job()
    jobs = [
        Periodic(waiting, NEVER_S, "testing", log),
        Periodic(prompt, NEVER_S, "testing", log, at_once=True),
    ]
    for periodic in jobs:
        periodic.start()
    await until(lambda: prompt.runs == 1)
    assert waiting.runs == 0
    for periodic in jobs:
        await periodic.stop()


async def test_a_run_under_way_is_cancelled():
    ended = []

    async def job() -> None:
        try:
            await asyncio.sleep(NEVER_S)
        finally:
            ended.append(True)

    periodic = Periodic(job, 0.0, "testing", log, at_once=True)
    periodic.start()
    await asyncio.sleep(0)
    await periodic.stop()
    assert ended == [True]


async def test_faults_are_logged_once_until_it_goes_well_again_and_do_not_end_it(caplog):
    job = Job(1, 2, 3, 5)
    periodic = Periodic(job, 0.0, "testing", log)
    for _ in range(5):
        await periodic.run()
    assert caplog.messages == ["internal error while testing"] * 2
    assert all(record.exc_info for record in caplog.records)
    caplog.clear()
    job = Job(*range(1, 5))
    periodic = Periodic(job, 0.0, "testing", log)
    periodic.start()
    await until(lambda: job.runs >= 8)
    await periodic.stop()
    assert caplog.messages == ["internal error while testing"]


async def test_one_that_was_not_started_is_stopped():
    await Periodic(Job(), 1.0, "testing", log).stop()
