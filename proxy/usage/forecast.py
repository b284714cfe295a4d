"""Forecast of what a window will have used at its end."""

from __future__ import annotations

from typing import Final

# Before this share of the window has passed, too little is known: an hour of a day, 30 h of a month.
_LEAST_SHARE: Final = 1 / 24


def at_end(used: int, passed_s: float, length_s: float) -> int | None:
    """Return what is used at the end of a window if it goes on as until now; None: it is too early to say.

    What was used, by the share of the window that has passed: a month of 31 days has 31, and a day is
    measured by the day.

    :param passed_s: since the window began.
    """
    if not _LEAST_SHARE * length_s <= passed_s:
        return None
    return round(used * (length_s / min(passed_s, length_s)))
