"""How figures are written where people read them."""

from __future__ import annotations

from collections.abc import Sequence


def usd_decimals(amounts: Sequence[float]) -> int:
    """Enough to tell each amount from nothing, and small ones to some digits; nano-dollars at most."""
    small = min((usd for usd in amounts if usd), default=1.0)
    return 9 if small < 0.0001 else 6 if small < 1 else 4
