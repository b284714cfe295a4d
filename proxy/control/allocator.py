"""What becomes of memory once the gateway has started: what stays, and what is kept when it is freed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Large bodies come and go. As glibc is set, the memory of each goes back to the system, which clears it, page
# by page, for the next one: 900 faults for a body of 2 MB were two fifths of the CPU it took.
KEPT_BYTES = 32 << 20
_MAPPED_FROM_BYTES = 4 << 20


def settle() -> None:
    """All that lives as long as the process is made. From here the collector need not look at it again, and
    up to :data:`KEPT_BYTES` that are freed are kept for what comes next.

    Who has set glibc's allocator by its own variables (``MALLOC_…``, ``GLIBC_TUNABLES``) is not overruled.
    """
    gc.collect()
    gc.freeze()
    if not any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        keep_freed()


@contextlib.contextmanager
def growing() -> Iterator[None]:
    """What is made in this block is large and lives long: the collector doesn't look at it now, nor later.

    With 5,000 models one look takes 10 ms, and while so much is made there would be several. What nothing
    refers to any longer goes all the same; only what refers to itself and is garbage at the end stays.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def keep_freed() -> bool:
    """Tell the allocator; False if it is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
