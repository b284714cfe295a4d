"""``Retry-After`` in its three forms: the time for which a provider asks to be left alone."""

from __future__ import annotations

import email.utils
from datetime import UTC
from typing import Final

# A date has 29. What reads numbers and dates takes time by the square of their length.
_MAX_VALUE_BYTES: Final = 100


def retry_after_s(lines: list[bytes], wall_s: float) -> float | None:
    """Seconds until a provider wants to be asked again; None if it doesn't say, or says the past.

    :param lines: the raw header lines of its response.
    :param wall_s: Unix seconds now, for a date without a ``Date`` beside it to hold it against.

    ``Retry-After`` is seconds or a date (RFC 9110 section 10.2.3); ``retry-after-ms`` is OpenAI's and
    Azure's, and more exact.
    """
    found: dict[bytes, bytes] = {}
    for line in lines:
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in (b"retry-after", b"retry-after-ms", b"date") and len(value) <= _MAX_VALUE_BYTES:
            found[name] = value.strip()
    if (milliseconds := _number(found.get(b"retry-after-ms"))) is not None:
        return milliseconds / 1000.0
    written = found.get(b"retry-after")
    if written is None or (seconds := _number(written)) is not None:
        return seconds if written is not None else None
    until = _date(written)
    if until is None:
        return None
    asked_at = _date(found.get(b"date"))
    left_s = until - (wall_s if asked_at is None else asked_at)
    return left_s if left_s > 0.0 else None


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value) if value is not None else 0.0
    except ValueError:
        return None
    return number if 0.0 < number < 1e9 else None


def _date(value: bytes | None) -> float | None:
    try:
        date = email.utils.parsedate_to_datetime((value or b"").decode("latin-1"))
        # Without a zone it is UTC, not that of the machine (RFC 9110 section 5.6.7).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
