"""How CPU time grows with what is to be read."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Twice the bytes may take 2.3 times the time. It is measured over eight times, where noise counts for less.
_TIMES = 8
_MOST = 2.3**3
# Below that nothing can be measured, and nobody is held up.
_NOTHING_S = 0.0005


def cpu_s(run: Callable[[], object]) -> float:
    """The least CPU time of this thread that a call took, of five."""
    took = []
    for _ in range(5):
        begun = time.thread_time()
        run()
        took.append(time.thread_time() - begun)
    return min(took)


def grows_in_proportion(run: Callable[[Any], object], make: Callable[[int], Any], size: int) -> bool:
    """Whether reading what ``make`` makes takes time in proportion to its size."""
    small, large = make(size // _TIMES), make(size)
    return cpu_s(lambda: run(large)) <= _MOST * max(cpu_s(lambda: run(small)), _NOTHING_S)
