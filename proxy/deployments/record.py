"""The effect of one attempt on the live tables: the row of its deployment, its breaker and its provider's
key.

Gateway and simulation (``benchmarks/routing``) run the same code here, so that what is measured there
is what happens.
"""

from __future__ import annotations

from math import isnan, nan
from random import Random
from typing import Final

from proxy.deployments.breaker import DUE, Breaker
from proxy.deployments.deployment import Deployment, Failed
from proxy.deployments.row import Row
from proxy.deployments.samples import (
    CHARGE,
    CONFIRMED,
    FAILED,
    GOOD,
    PACE,
    PROBED,
    SLOW_PACE,
    TIME,
    WAITED,
    Sample,
)
from proxy.deployments.strikes import packed, unpacked
from proxy.usage.tokens import Usage

TIMEOUT: Final = "timeout"
RESET: Final = "reset"
CONNECT: Final = "connect"
# A running stream is looked at so often, for its pace.
LOOK_S: Final = 1.0
_TOLD: Final = float("inf")


class Record:
    """One attempt at a deployment, from the choice to its end. All times are monotonic seconds.

    Calls: :meth:`asked` when the request is complete upstream (``complete`` says it is at once), then
    :meth:`first_byte` and :meth:`finished` for a response, :meth:`failed` for none or a failure, :meth:`left`
    where no client waits any longer. The last three end it; once it is over, they do nothing.

    ``prompt_bytes``: text of the prompt, where the response is a stream: that is when its size tells how long
    the first output takes; 0: it is not known.

    ``held_s``: seconds in which its client took nothing. The member goes on writing meanwhile, as engines do
    not wait for a slow reader; but when its bytes came then says nothing of how fast it is.
    """

    __slots__ = (
        "asked_at",
        "begun_at",
        "deployment",
        "first_byte_at",
        "held_s",
        "is_over",
        "level",
        "looked_at",
        "looked_bytes",
        "prompt_bytes",
        "row",
        "streamed",
        "trials",
    )

    def __init__(
        self, deployment: Deployment, endpoint: str, streamed: bool, now: float, complete: bool = True,
        prompt_bytes: int = 0,
    ) -> None:  # fmt: skip
        self.deployment = deployment
        self.prompt_bytes = prompt_bytes if streamed else 0
        self.begun_at = self.asked_at = now
        self.streamed = streamed
        self.first_byte_at = 0.0  # 0: none yet
        self.held_s = 0.0
        self.looked_at = 0.0  # when progressed was called last; infinite: its slowness was told
        self.looked_bytes = 0
        self.is_over = False
        self.trials: tuple[Breaker, ...] = ()
        row: Row = deployment.row(endpoint, streamed)
        self.row = row
        row.sent(now)
        self.level = row.asked(self, now, self.prompt_bytes) if complete else 0
        if deployment.breaker.is_open or deployment.key.is_open:
            self.trials = tuple(b for b in (deployment.breaker, deployment.key) if b.state(now) == DUE)
            for breaker in self.trials:
                breaker.begin_trial()
            if now < deployment.breaker.cooling_until_s:
                deployment.breaker.probes(now)

    def asked(self, now: float, prompt_bytes: int = 0) -> None:
        """The last of the request is on its way, and so the size of its prompt is known."""
        self.asked_at = now
        if self.streamed:
            self.prompt_bytes = prompt_bytes
        self.level = self.row.asked(self, now, self.prompt_bytes)

    def worked_s(self, now: float) -> float:
        """Seconds that the member has had for the request."""
        return now - self.asked_at

    def first_byte(self, now: float) -> None:
        """The first byte of a response that is no error."""
        self.first_byte_at = now
        self.row.first_byte(self, now, self.level, self.prompt_bytes)
        deployment = self.deployment
        if deployment.breaker.is_open or deployment.key.is_open:
            self._succeeded(now)  # what was ejected need not wait for the end of a long stream

    def progressed(self, now: float, passed_bytes: int) -> None:
        """Look at a running stream, of which ``passed_bytes`` have come. Call it about once a second, from
        the first output on; between such calls there is nothing to do. A client that takes nothing
        (``held_s``) hides the pace."""
        looked_at = self.looked_at
        if looked_at == _TOLD or not self.first_byte_at or self.held_s or self.is_over:
            return
        if looked_at:
            seconds = now - looked_at
            if seconds <= 0.0:
                return
            if self.row.progressed(now, seconds, passed_bytes - self.looked_bytes):
                self.looked_at = _TOLD
                return
        self.looked_at, self.looked_bytes = now, passed_bytes

    def finished(self, now: float) -> None:
        """The response is complete. A request's own mistake (a 4xx) is a success of the provider too."""
        if self.is_over:
            return
        self._end(now, patient=False)
        row = self.row
        row.finished(now, True)
        row.good_begun_s = self.begun_at
        breaker, key = self.deployment.breaker, self.deployment.key
        if breaker.failures or key.failures or breaker.is_open or key.is_open:
            self._succeeded(now)

    def failed(
        self, now: float, outcome: str, rng: Random, retry_after_s: float | None = None, what: str = "",
        mark: int = 0, is_confirmed: bool = False, is_refusal: bool = False, is_gone: bool = False,
    ) -> str | None:  # fmt: skip
        """Record that no response came, or a failure.

        :param outcome: ``connect``, ``timeout``, ``reset``, ``error`` or a status.
        :param retry_after_s: seconds the provider asked for, with a 429 or 503.
        :param what: for people, in a few words.
        :param mark: of the request, where it may have provoked the failure
            (:mod:`proxy.deployments.strikes`); 0: it can't have, and each failure counts by itself.
        :param is_refusal: ``is_confirmed``, ``is_gone``: as of :class:`proxy.deployments.deployment.Failed`.
        :returns: what is ejected for it: ``"deployment"``, ``"key"`` or nothing.
        """
        if self.is_over:
            return None
        # Five refusals prove less than silence. But an operator's limit may be shorter than answers take.
        is_silent = outcome == TIMEOUT and self._is_silent(now)
        self._end(now, patient=outcome == TIMEOUT)
        failure = Failed(
            outcome, what, self.begun_at, is_silent, retry_after_s, rng.random(), mark, is_confirmed,
            is_refusal, is_gone,
        )  # fmt: skip
        return self._blame(now, failure)

    def _is_silent(self, now: float) -> bool:
        """The member answered nothing that was asked since, for longer than chance explains."""
        waited_s = (now - self.asked_at) / self.row.size_factor(self.prompt_bytes)
        return self._is_unheard() and self.row.speed.is_overdue(waited_s, 1)

    def _is_unheard(self) -> bool:
        """The member answered nothing that was asked since."""
        return not self.first_byte_at and self.row.heard_s < self.asked_at

    def _blame(self, now: float, failure: Failed) -> str | None:
        row, wait_s = self.row, failure.retry_after_s
        row.finished(now, None, failure.error)
        if row.out is not None:
            flags = float(
                failure.is_silent + 2 * failure.is_confirmed + 4 * failure.is_refusal + 8 * failure.is_gone
            )
            numbers = (
                self.begun_at, flags, nan if wait_s is None else wait_s, failure.roll, *packed(failure.mark)
            )  # fmt: skip
            row.out.publish(FAILED, row.key, now, *numbers, text=f"{failure.outcome}\0{failure.what}")
        return self.deployment.failed(row, now, failure)

    def left(self, now: float, *, is_late: bool = False) -> str | None:
        """The client left, its own time limit ran out, or another attempt was faster: nothing is blamed on
        the member. That somebody waited longer than usual in vain is learned: it took at least that. But a
        trial has failed if it was silent: else each next request would be a trial, and wait as long. And one
        that was beaten in silence makes a strike: where requests are hedged, none at a member that hangs
        comes to its time limit, and it would be asked for as long as it hangs.

        :param is_late: another was faster, and this one took longer than the member's answers explain.
        :returns: as :meth:`failed`.
        """
        if self.is_over:
            return None
        is_trial = bool(self.trials)
        is_silent = (is_late and self._is_unheard()) or (is_trial and self._is_silent(now))
        self._end(now, patient=True)
        if not is_silent:
            self.row.finished(now, None)
            return None
        what = "silent on trial" if is_trial else "silent until another answered"
        # Any digits of the time will do for dice.
        return self._blame(now, Failed(TIMEOUT, what, self.begun_at, is_trial, None, now * 1e4 % 1.0))

    def _end(self, now: float, *, patient: bool) -> None:
        self.is_over = True
        if not self.first_byte_at:
            self.row.left_awaiting(self, now, patient=patient)
        for breaker in self.trials:
            breaker.end_trial()

    def _succeeded(self, now: float) -> None:
        row = self.row
        self.deployment.succeeded(row, self.begun_at, now)
        if row.out is not None:
            row.out.publish(GOOD, row.key, now, 0.0, 0.0, self.begun_at)


def confirm(deployment: Deployment, row: Row, mark: int, now: float, roll: float, outcome: str) -> str | None:
    """A request that a deployment refused was answered by another one.

    :param mark: as it was told to :meth:`Record.failed`, as was ``outcome``, the status.
    :param roll: of the dice, from 0 to 1.
    :returns: as :meth:`Record.failed`.
    """
    if row.out is not None:
        row.out.publish(CONFIRMED, row.key, now, roll, *packed(mark), text=outcome)
    return deployment.confirmed(row, now, mark, roll, outcome)


def teach(deployment: Deployment, row: Row, sample: Sample) -> str | None:
    """Take in what another worker learned.

    :returns: as :meth:`Record.failed`.
    """
    at, numbers = sample.at, sample.numbers
    if sample.kind == TIME:
        row.learn_time(numbers[0], at, int(numbers[1]), int(numbers[2]))
    elif sample.kind == WAITED:
        row.learn_wait(numbers[0], at)
    elif sample.kind == CHARGE:
        given, cached, output = (int(number) for number in numbers[1:4])
        usage = Usage(given, cached, 0, output)
        row.learn_charge(at, int(numbers[0]), usage, numbers[4], numbers[5], int(numbers[6]))
    elif sample.kind == PACE:
        row.pace.add(numbers[0], int(numbers[1]))
    elif sample.kind == SLOW_PACE:
        row.writing.estimate.add(numbers[0], at)
    elif sample.kind == PROBED:
        row.charges.probed(at)
    elif sample.kind == GOOD:
        row.count_good(at, numbers[0])
        row.finished_elsewhere += int(numbers[1])
        breaker, key = deployment.breaker, deployment.key
        is_good = bool(numbers[0]) or not numbers[1]  # the first byte of a trial has not ended yet
        if is_good and (breaker.failures or key.failures or breaker.is_open or key.is_open):
            deployment.succeeded(row, numbers[2], at)
    elif sample.kind == FAILED:
        outcome, _, what = sample.text.partition("\0")
        wait_s = None if isnan(numbers[2]) else numbers[2]
        flags, mark = int(numbers[1]), unpacked(numbers[4], numbers[5])
        failure = Failed(
            outcome, what, numbers[0], bool(flags & 1), wait_s, numbers[3], mark, bool(flags & 2),
            bool(flags & 4), bool(flags & 8),
        )  # fmt: skip
        row.note_error(failure.error, at)
        return deployment.failed(row, at, failure)
    elif sample.kind == CONFIRMED:
        return deployment.confirmed(row, at, unpacked(numbers[1], numbers[2]), numbers[0], sample.text)
    return None
