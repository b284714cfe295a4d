"""The requests that a member leaves unanswered: since when, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Requests that later ones overtook, looked through for the first that none did.
_OVERTAKEN: Final = 8
_FOREVER: Final = float("inf")


def unanswered(
    waiting: Mapping[object, float], excused: Mapping[object, float], heard_s: float, now: float
) -> tuple[float, int]:
    """Return since when the oldest request waits that no later one overtook, and how many do.

    :param waiting: as of :class:`proxy.deployments.row.Row`, and so ``heard_s``.
    :param excused: the factors of long prompts: they count as if they had waited for a part of the time only.
    """
    if excused:
        return _partly(waiting, excused, heard_s, now)
    for overtaken, asked_s in enumerate(waiting.values()):
        if asked_s > heard_s:
            return asked_s, len(waiting) - overtaken
        if overtaken == _OVERTAKEN:
            return heard_s, len(waiting) - overtaken  # so busy that the next was asked right after
    return _FOREVER, 0


def _partly(
    waiting: Mapping[object, float], excused: Mapping[object, float], heard_s: float, now: float
) -> tuple[float, int]:
    oldest_s, count = _FOREVER, 0
    for attempt, asked_s in waiting.items():
        if asked_s > heard_s:
            oldest_s = min(oldest_s, now - (now - asked_s) / excused.get(attempt, 1.0))
            count += 1
            if count > 4 * _OVERTAKEN:
                break
    return oldest_s, count
