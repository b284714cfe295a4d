"""Figures as text for people."""

from __future__ import annotations

from collections.abc import Sequence


def usd_decimals(amounts: Sequence[float]) -> int:
    """The decimals that keep small amounts apart from zero; up to nano-dollars."""
    small = min((usd for usd in amounts if usd), default=1.0)
    return 9 if small < 0.0001 else 6 if small < 1 else 4
