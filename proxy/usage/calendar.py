"""The days and months that limits and totals go by: those of the calendar, in UTC.

Both are numbers: a day counts from 1970-01-01, a month from January of the year 0.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

DAY_S: Final = 86_400


def day_of(unix_s: float) -> int:
    """Return the day of a moment."""
    return int(unix_s // DAY_S)


def month_of(unix_s: float) -> tuple[int, float]:
    """Return the month of a moment, and the Unix seconds of its end."""
    date = datetime.fromtimestamp(unix_s, UTC)
    number = date.year * 12 + date.month - 1
    return number, first_of(number + 1).timestamp()


def first_of(month: int) -> datetime:
    """Return the moment at which a month begins."""
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)


def days_of(month: int) -> tuple[int, int]:
    """Return the first day of a month, and the first of the next one."""
    return day_of(first_of(month).timestamp()), day_of(first_of(month + 1).timestamp())
