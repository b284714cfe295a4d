"""What one attempt tells the live tables: the row of its deployment, its breaker and its provider's key.

Gateway and simulation (``benchmarks/routing_sim.py``) run the same code here, so that what is measured there
is what happens.
"""

from __future__ import annotations

from random import Random

from proxy.breaker import DUE, Breaker
from proxy.deployment import Deployment
from proxy.meters import Row
from proxy.usage import Usage

TIMEOUT, RESET, CONNECT = "timeout", "reset", "connect"


def is_failure(status: int) -> bool:
    """Whether an answer is a failure of the provider and not of the request (SPEC section 6)."""
    return status >= 500 or status in (401, 408, 429)


class Record:
    """One attempt at a deployment, from the choice to its end. All times are monotonic seconds.

    Calls: :meth:`asked` when the request is complete upstream (``complete`` says it is at once), then
    :meth:`first_byte` and :meth:`finished` for an answer, :meth:`failed` for none or a failure, :meth:`left`
    where nobody waits any longer. The last three end it; once it is over, they do nothing.
    """

    __slots__ = ("asked_at", "begun_at", "deployment", "first_byte_at", "is_over", "level", "row", "trials")

    def __init__(
        self, deployment: Deployment, endpoint: str, streamed: bool, now: float, complete: bool = True
    ) -> None:
        self.deployment = deployment
        self.begun_at = self.asked_at = now
        self.first_byte_at = 0.0  # 0: none yet
        self.is_over = False
        self.trials: tuple[Breaker, ...] = ()
        row: Row = deployment.row(endpoint, streamed)
        self.row = row
        row.sent(now)
        self.level = row.asked(self, now) if complete else 0
        if deployment.breaker.is_open or deployment.key.is_open:
            self.trials = tuple(b for b in (deployment.breaker, deployment.key) if b.state(now) == DUE)
            for breaker in self.trials:
                breaker.begin_trial()

    def asked(self, now: float) -> None:
        """The last of the request is on its way."""
        self.asked_at = now
        self.level = self.row.asked(self, now)

    def first_byte(self, now: float) -> None:
        """The first byte of an answer that is no error."""
        self.first_byte_at = now
        self.row.first_byte(self, now, self.level)
        deployment = self.deployment
        if deployment.breaker.is_open or deployment.key.is_open:
            self._succeeded(now)  # what was ejected need not wait for the end of a long stream

    def finished(self, now: float) -> None:
        """The answer is complete. A request's own mistake (a 4xx) is a success of the provider too."""
        if self.is_over:
            return
        self._end(now, patient=False)
        self.row.finished(now, True)
        breaker, key = self.deployment.breaker, self.deployment.key
        if breaker.failures or key.failures or breaker.is_open or key.is_open:
            self._succeeded(now)

    def charged(
        self, now: float, prompt_bytes: int, usage: Usage, usd: float | None, output_s: float = 0.0
    ) -> None:
        """What the finished attempt cost; see :meth:`proxy.meters.Row.charged`."""
        self.row.charged(now, prompt_bytes, usage, usd, output_s)

    def failed(
        self, now: float, outcome: str, rng: Random, retry_after_s: float | None = None, what: str = ""
    ) -> str | None:
        """No answer, or a failure.

        :param outcome: ``connect``, ``timeout``, ``reset``, ``error`` or a status.
        :param retry_after_s: seconds the provider asked for, with a 429 or 503.
        :param what: for people, in a few words.
        :returns: who is ejected for it: ``"deployment"``, ``"key"`` or nobody.
        """
        if self.is_over:
            return None
        deployment, row = self.deployment, self.row
        # A time-out during which the member answered nothing that was asked since: five refusals prove less.
        # But a time-out may be a client's own, of X-Inferoute-Timeout, and far shorter than answers take.
        is_silent = (
            outcome == TIMEOUT
            and not self.first_byte_at
            and row.heard_s < self.asked_at
            and row.speed.is_overdue(now - self.asked_at, 1)
        )
        self._end(now, patient=outcome == TIMEOUT)
        error = f"{outcome}: {what}" if what else outcome
        if retry_after_s is not None and outcome in ("429", "503"):
            row.finished(now, None, error)
            deployment.breaker.cool_down(retry_after_s, now, rng)
            return None
        row.finished(now, False, error)
        if outcome == "401":
            return "key" if deployment.key.failed("the provider refuses the key", now, rng) else None
        mostly = is_silent or row.mostly_fails(now, deployment.eject.error_rate)
        took_s = now - self.begun_at if deployment.fails_over else None
        is_out = deployment.breaker.failed(error, now, rng, mostly=mostly, took_s=took_s)
        return "deployment" if is_out else None

    def left(self, now: float) -> None:
        """The client left, or another attempt was faster: nothing is blamed on the member."""
        if not self.is_over:
            self._end(now, patient=True)
            self.row.finished(now, None)

    def _end(self, now: float, *, patient: bool) -> None:
        self.is_over = True
        if not self.first_byte_at:
            self.row.left_awaiting(self, now, patient=patient)
        for breaker in self.trials:
            breaker.end_trial()

    def _succeeded(self, now: float) -> None:
        deployment = self.deployment
        was_out = deployment.breaker.ejections
        deployment.breaker.succeeded(self.begun_at, now)
        deployment.key.succeeded(self.begun_at, now)
        if was_out and not deployment.breaker.ejections:
            self.row.forget_failures()
