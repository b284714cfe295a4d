"""Where the log goes, and how its lines look."""

from __future__ import annotations

import logging
import sys


def set_up_logging(who: str = "") -> None:
    """Log to standard error. ``who``: which of several processes this is."""
    name = f"{who}: " if who else ""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)-7s %(name)s: {name}%(message)s",
    )
