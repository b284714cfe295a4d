"""Tunes the garbage collector and glibc's allocator after start-up."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Large bodies come and go. By default glibc gives the memory of each back to the system, which clears it page
# by page for the next one: 900 faults for a body of 2 MB were two fifths of the CPU it took.
KEPT_BYTES = 32 << 20
_MAPPED_FROM_BYTES = 4 << 20


def tune() -> None:
    """Tune memory once everything that lives as long as the process has been made.

    The collector does not scan it again, and up to :data:`KEPT_BYTES` of freed memory are kept for reuse.
    glibc's own variables (``MALLOC_…``, ``GLIBC_TUNABLES``) have precedence.
    """
    gc.collect()
    gc.freeze()
    if not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        keep_freed()


@contextlib.contextmanager
def growing() -> Iterator[None]:
    """Keep the collector away from what is made in this block, now and later: it is large and lives long.

    With 5,000 models one collection takes 10 ms, and there would be several meanwhile. Objects without
    references are freed all the same; only circles that are garbage at the end of the block stay.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def keep_freed() -> bool:
    """Set the allocator to keep freed memory. Returns False if it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
