"""Load shedding: detects overload, and decides which requests are turned away meanwhile.

What waits for the event loop waits in the sockets, where it can't be counted. But how long it waits can be
told: as long as a turn of the loop takes, in which all is done that has come since the turn before. One long
turn is no fault: a burst, a pause of the machine. Where each turn of a whole second was too long, the queue
will not go away by itself, and only turning away shortens it. That is CoDel's difference between good and bad
queues (Nichols and Jacobson, "Controlling Queue Delay", 2012). As in its use for servers (Maurer, "Fail at
Scale", 2015), the limit is a time and not a number: a time is what clients notice.

Then requests are turned away that are read when a turn has lasted a part of the limit. The rest of the turn
is for answers, for streams, and for turning away, so the part follows what comes of it: turns are to take
half of the limit, since a request waits in one, and its response in the next.

Whether or not it comes to that, a client's connection that was answered in a long turn rests until the next
(:class:`proxy.relay.downstream.resume_queue.ResumeQueue`). Else that turn need not end: the event loop looks
up to 48 times for what has come meanwhile, 1,024 events each time, before it does anything else.
"""

from __future__ import annotations

from typing import Final

# Each turn within this time has to be too long.
SPAN_S: Final = 1.0


# The part of the limit in which requests are let in. Where clients come again at once, turning away alone
# takes longer than a turn may; with less than this part next to none would be served, and hardly faster.
_MOST: Final = 0.5
_LEAST: Final = 0.25
# The share of the error, as a power, that one look corrects: correcting all of it would swing.
_GAIN: Final = 0.5


class Overload:
    """Detects overload by how long turns of the event loop last.

    :param limit_s: how long a turn may take; infinite: however long it wants.
    """

    __slots__ = ("_calm_at", "_share", "is_on", "limit_s")

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.is_on = False
        self._calm_at = float("inf")  # until the first look
        self._share = _MOST

    def look(self, longest_s: float, now: float) -> bool:
        """Return whether overload has begun or ended now. To be called several times a second.

        :param longest_s: the longest turn since the call before. :param now: monotonic seconds.
        """
        was_on, limit_s = self.is_on, self.limit_s
        if longest_s < (limit_s / 4.0 if was_on else limit_s):
            self._calm_at = now
        self.is_on = now - self._calm_at >= SPAN_S
        if not was_on:
            self._share = _MOST
        elif longest_s > 0.0:
            share = self._share * (limit_s / 2.0 / longest_s) ** _GAIN
            self._share = min(_MOST, max(_LEAST, share))
        return self.is_on != was_on

    def turns_away(self, lasted_s: float) -> bool:
        """Return whether, during overload, a request is turned away that is read when a turn has lasted
        that long."""
        return lasted_s > self.limit_s * self._share

    def __repr__(self) -> str:
        state = "on" if self.is_on else "off"
        return f"<Overload {state} limit={self.limit_s * 1e3:g}ms share={self._share:.2f}>"
