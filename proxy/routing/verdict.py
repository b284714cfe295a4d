"""The status of a request all of whose attempts failed, and whether it may succeed in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# Of the operator's account at a provider, or of the way there: no business of the client's.
_HIDDEN: Final = frozenset(("401", "402", "403", "407"))
# Statuses below 500 that pass by themselves.
_TRANSIENT: Final = frozenset(("408", "425", "429"))
# What an operator has to change before it passes.
_LASTING: Final = frozenset(("no-key", "budget"))


def common_status(outcomes: Sequence[str]) -> int:
    """Return the status for the client after several attempts, by their outcomes: what all have in common,
    where that is a time-out, 429, or another 4xx that says nothing of the operator's account; else 503."""
    first = outcomes[0]
    if any(outcome != first for outcome in outcomes):
        return 503
    if first == "timeout":
        return 504
    return int(first) if len(first) == 3 and first[0] == "4" and first not in _HIDDEN else 503


def is_transient(outcomes: Sequence[str]) -> bool:
    """Return whether one of the failures may be gone in a moment."""
    return any(
        outcome in _TRANSIENT or not (outcome in _LASTING or outcome[0] == "4") for outcome in outcomes
    )
