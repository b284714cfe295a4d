"""The state of a deployment: closed, ejected after failures, cooling down after Retry-After, or on trial.

    CLOSED ──failures──► OUT ──time is up──► DUE ──trial begins──► TRIAL ──success──► CLOSED
       ▲                  ▲                                          │
       │                  └────────────────── failure ───────────────┘
       └──time is up── EASING ◄──time is up── COOLING ◄──"Retry-After"── (any)

A member that answers 500 within 20 ms would win every race for the lowest latency, so failing has to count
by itself. The rules and figures are Envoy's outlier detection and Finagle's failure accrual, but for two:
no cap on how much of a pool may be out (Envoy's 10 % never ejects anything in a pool below ten; a pool with
nobody left fails open instead), and a way back by one trial instead of all traffic at once.

**How rarely a trial is worth it.** Doubling keeps trials cheap, so it ends where they are. Where another
member takes over, a trial costs one request the seconds ``c`` that the failed attempt took; not trying
costs everybody the better member for half an interval once it is back. Faults end after about the time they
lasted (Gott 1993), so trials that are ``sqrt(c * outage)`` apart cost least, for a gain of some 3 s per
second of traffic, at a request a second; a trial is a larger share of fewer requests, and worth less, so the
interval grows with the root of the time between two requests. But none comes sooner than after twice
``base_s``, from the second on. A member that refuses within 20 ms is asked every 10 to 20 s for the first
eight hours, one that hangs until a time-out of a minute about every two minutes when it was out for ten. The
wait for an answer is not time out: else a member that hangs for longer than it would be out is out for no
time at all. Regret in an
outage, with growth to 80 s, to 40, to 20 (this) and none: 4.1, 1.9, 0.9, 0.6 % at 10 requests a second;
5.4, 3.8, 1.9, 1.4 % at 50 over four replicas (six seeds). None at all would ask the failing member with 23
% of the requests at 0.5 a second, this with 13 %. Where nothing fails over a trial is somebody's error, and
doubling goes on up to ``max_s``.

**Coming back from a cool-down.** All replicas hear the same ``Retry-After`` within moments, and if all come
back together they empty the same bucket together, again and again. So each lets others go first
(``EASING``) for a while more, drawn from none to as long again. It is no refusal: where nobody else is
left, it is asked.

**The end of a cool-down.** What a provider says is believed for up to half an hour, and no longer than until
an answer proves it wrong. Where nobody else is left, one request tries after a tenth of that time, a second
at the soonest and a minute at the latest: a limit of tokens lets a short prompt through long before. Tried
once a minute, 46 of 27,391 clients were refused where all members are limited, so 25.

**A 429 that names no time** is no failure: the member works, and refuses at once, so that asking it first
costs next to nothing where it takes some. Others go first for 5 s, and for twice as long each time that it
goes on, up to a minute; any success ends that. From the fifth in a row on and for half a second it would have
less regret, at three times the attempts that are refused (docs/routing.md). As a hard cool-down it would
refuse clients where all are limited (229 of 14,123 against 6, eight seeds).

**Failures that a request may have provoked** eject only where different requests had them: what counts as a
strike is in :mod:`proxy.deployments.strikes`. On trial, a request that failed here before in the same run is
no verdict: the next one may try.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

from proxy.deployments.strikes import FailureMarks, RefusalRun

CLOSED: Final = 0
OUT: Final = 1
DUE: Final = 2
TRIAL: Final = 3
COOLING: Final = 4
EASING: Final = 5
STATES: Final = ("ok", "ejected", "ejected", "trial", "cooling down", "easing in")

# Doubling stops here by itself (the configured maximum comes long before), so that 2.0 ** n can't overflow.
_MAX_DOUBLINGS: Final = 30
# A provider that names a day (or a wrong date) is asked again after that: limits get raised meanwhile.
MAX_COOL_DOWN_S: Final = 1800.0
# While nobody else is left, a member that cools down is tried each tenth of the time it named, within bounds.
PROBE_S: Final = 60.0
_PROBE_SHARE: Final = 0.1
_LEAST_PROBE_S: Final = 1.0
# After a 429 that names no time others go first for this long, and longer while it goes on.
_LEAST_EASE_S: Final = 5.0
_MOST_EASE_S: Final = 60.0
# In the rule of least cost above: its 2 over the gain per second of traffic.
_TRIAL_WORTH: Final = 0.7
# Requests a second, below which a trial is as rare as it may be.
_LEAST_PER_S: Final = 0.001
# Doubling happens once in any case: a deployment that fails its trial too is out for longer.
_LEAST_GROWTH: Final = 2.0
# Cool-downs this short need no easing: the oscillation ends by itself, and the provider meant it literally.
_EASE_FROM_S: Final = 3.0
_NEVER: Final = float("-inf")


class Breaker:
    """The breaker of one deployment or key. ``is_open`` is False only while CLOSED: all that the usual choice
    looks at.

    All times are monotonic seconds.

    ``failures``: in a row, strikes or not.

    :param limit: strikes in a row that eject.
    :param base_s: the first ejection lasts half to all of it; each further one twice as long ...
    :param max_s: ... up to this, or to less: see :meth:`failed`.
    """

    __slots__ = (
        "base_s", "cooled_at_s", "cooling_until_s", "eases_s", "easing_until_s", "ejected_at_s",
        "ejected_count", "ejections", "failures", "is_open", "limit", "limited_at_s", "marks",
        "max_s", "on_trial", "out_since_s", "per_s", "probe_at_s", "reason", "refusals",
        "trial_elsewhere", "until_s",
    )  # fmt: skip

    def __init__(self, limit: int, base_s: float, max_s: float) -> None:
        self.limit = limit
        self.base_s = base_s
        self.max_s = max_s
        self.is_open = False
        self.failures = 0  # in a row
        self.marks = FailureMarks()  # of them
        self.refusals = RefusalRun()
        self.ejections = 0  # in a row: none of them ended with a success
        self.ejected_count = 0  # ever
        self.ejected_at_s = _NEVER
        self.out_since_s = _NEVER  # since the first of them
        self.until_s = _NEVER  # ejected until; meaningful while ejections > 0
        self.cooling_until_s = _NEVER
        self.easing_until_s = _NEVER  # no earlier than cooling_until_s
        self.per_s = 1.0  # requests a second before the first of the ejections
        self.cooled_at_s = _NEVER  # when a cool-down was last asked for
        self.probe_at_s = _NEVER  # from then on one request may try before it is over
        self.limited_at_s = _NEVER  # when the latest 429 came that named no time
        self.eases_s = 0.0  # for how long others go first after it
        self.on_trial = False
        self.trial_elsewhere = False  # another worker has the one request
        self.reason: str | None = None

    def state(self, now: float) -> int:
        """CLOSED, OUT, DUE, TRIAL, COOLING or EASING at ``now``."""
        if not self.is_open:
            return CLOSED
        if now < self.cooling_until_s:
            return COOLING
        if not self.ejections:
            return EASING if now < self.easing_until_s else CLOSED
        if now < self.until_s:
            return OUT
        return TRIAL if self.on_trial or self.trial_elsewhere else DUE

    def begin_trial(self) -> None:
        """The one request that may bring a member back is on its way."""
        self.on_trial = True

    def end_trial(self) -> None:
        """It is over, whatever came of it. Without a verdict (the client left) the next one may try."""
        self.on_trial = False

    def succeeded(self, begun_s: float, now: float) -> None:
        """A good answer to an attempt that began at ``begun_s``: what began before the ejection proves
        nothing."""
        self.failures = 0
        self.marks.clear()
        self.refusals.clear()
        if not self.is_open:
            return
        if begun_s >= self.limited_at_s:
            self.eases_s = 0.0
        if now < self.cooling_until_s and begun_s >= self.cooled_at_s:
            self.cooling_until_s = self.easing_until_s = now
        if self.ejections and begun_s >= self.ejected_at_s:
            self.ejections = 0
            self.reason = None
        self.is_open = self.ejections > 0 or now < self.easing_until_s or now < self.cooling_until_s

    def failed(
        self, reason: str, now: float, roll: float, *, mostly: bool = False, took_s: float | None = None,
        mark: int = 0, per_s: float = 1.0,
    ) -> bool:  # fmt: skip
        """A failure to blame on the member; True if it is ejected for it.

        :param reason: for people, short.
        :param roll: of the dice, from 0 to 1: for how long.
        :param mostly: it fails so often that the next failure is enough.
        :param took_s: seconds the attempt took, where another member takes over and so a trial costs no
            more; if not said, doubling goes on up to ``max_s``.
        :param mark: of the request, where it may have provoked the failure; 0: it can't have.
        :param per_s: requests a second that it had before it was ejected.
        """
        self.failures += 1
        was_here = mark != 0 and self.marks.count(mark) > 0
        self.marks.add(mark)
        begun_s = now if took_s is None else now - took_s
        if self.ejections:
            if now < self.until_s or begun_s < self.ejected_at_s:
                return False  # it is out already; requests that had begun before may still fail
            if was_here:
                return False
        elif not mostly and self.marks.strikes(self.failures) < self.limit:
            return False
        else:
            self.per_s = max(per_s, _LEAST_PER_S)
        self._eject(reason, now, roll, took_s)
        return True

    def refused(
        self, reason: str, now: float, roll: float, mark: int, *, is_confirmed: bool, limit: int,
        is_new: bool = True,
    ) -> tuple[bool, bool]:  # fmt: skip
        """A response says that the operator's key, account, model or address is of no use. Returns whether
        that made a strike, and whether it ejected.

        :param mark: of the request. :param is_confirmed: it can't be the request's own fault.
        :param limit: strikes that eject. :param is_new: False: it was told before, and is confirmed now.
        """
        if is_new:
            self.failures += 1
        was_here = self.refusals.has_seen(mark)
        strikes = self.refusals.add(mark, now, is_confirmed=is_confirmed)
        if self.ejections:
            if now < self.until_s or (was_here and not is_confirmed):
                return strikes > 0, False
        elif not strikes or self.refusals.strikes < limit:
            return strikes > 0, False
        self._eject(reason, now, roll, None)
        return True, True

    def _eject(self, reason: str, now: float, roll: float, took_s: float | None) -> None:
        span_s = min(self.base_s * 2.0 ** min(self.ejections, _MAX_DOUBLINGS), self.max_s)
        if not self.ejections:
            self.out_since_s = now
        if took_s is not None:
            worth_s = sqrt(_TRIAL_WORTH * took_s * (now - self.out_since_s) / min(self.per_s, 1.0))
            span_s = min(span_s, max(_LEAST_GROWTH * self.base_s, worth_s))
        # Equal jitter: replicas that saw the same outage must not all come back at the same moment.
        self.until_s = now + span_s * (0.5 + 0.5 * roll)
        self.ejected_at_s = now
        self.ejections += 1
        self.ejected_count += 1
        self.is_open = True
        self.reason = reason

    def cool_down(self, seconds: float, now: float, roll: float) -> None:
        """The member said when it wants to be asked again. No strike: it works, there is just too much.

        :param roll: of the dice, from 0 to 1: for how long others go first afterwards.
        """
        seconds = min(seconds, MAX_COOL_DOWN_S)
        self.cooled_at_s = now
        self.probe_at_s = now + min(max(_PROBE_SHARE * seconds, _LEAST_PROBE_S), PROBE_S)
        if now + seconds > self.cooling_until_s:
            self.cooling_until_s = now + seconds
            eases_s = seconds * roll if seconds >= _EASE_FROM_S else 0.0
            self.easing_until_s = self.cooling_until_s + eases_s
            self.is_open = True

    def ease(self, begun_s: float, now: float) -> None:
        """A 429 that names no time, to an attempt that began at ``begun_s``: others go first for a while."""
        if begun_s < self.limited_at_s:
            return  # it was on its way when the one before came, and says nothing new
        self.limited_at_s = now
        self.is_open = True
        self.eases_s = min(max(2.0 * self.eases_s, _LEAST_EASE_S), _MOST_EASE_S)
        self.easing_until_s = max(self.easing_until_s, now + self.eases_s)

    def may_probe(self, now: float) -> bool:
        """Return whether a member that cools down may be tried, where nobody else is left."""
        return now >= self.probe_at_s

    def probes(self, now: float) -> None:
        """A request is sent there though it cools down."""
        self.probe_at_s = now + PROBE_S

    def free_at(self, now: float) -> float:
        """Return the time from which it may be asked, ``now`` if it may."""
        return max(now, self.cooling_until_s, self.until_s if self.ejections else now)

    def retune(self, limit: int, base_s: float, max_s: float) -> None:
        """Follow a changed configuration; what is out stays out as long as it was told."""
        self.limit, self.base_s, self.max_s = limit, base_s, max_s

    def __repr__(self) -> str:
        return (
            f"<Breaker failures={self.failures} ejections={self.ejections} until={self.until_s:.3f} "
            f"cooling_until={self.cooling_until_s:.3f}{' on trial' if self.on_trial else ''}>"
        )
