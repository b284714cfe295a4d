"""Whether work costs in proportion to what it is given: twice the bytes, at most 2.3 times the CPU time.

Three doublings are measured and each may take 2.3 times on average: a step that a machine makes, where what
is worked on leaves a cache, is made once, and what is out of proportion is so at every doubling. Machines are
noisy, so each size is measured several times in turn and the least counts: nothing makes a run faster than it
is. Where the verdict is against it the measurement is repeated with more runs, since a fault stays and noise
does not.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import thread_time
from typing import Any, TypeVar

T = TypeVar("T")

AT_MOST = 2.3
_DOUBLINGS = 3
_RUNS = 4
_TRIES = 4
# Below this the clock and what is the same for all sizes count for too much.
_LEAST_S = 0.001


def assert_in_proportion(
    make: Callable[[int], T], work: Callable[[T], Any], size: int, most: int = 1 << 22
) -> None:
    """Hold ``work`` on what ``make`` makes of a size to its cost for twice the size.

    :param size: to begin with; it is doubled until the work takes long enough to be measured.
    :param most: the size that a limit lets in. What takes no time to speak of at that is in proportion.
    """
    while (took_s := _cost_s(make(size), work)) < _LEAST_S:
        if size >= most:
            return
        size = min(most, size * (2 if took_s > _LEAST_S / 4 else 4))
    size = min(size, max(most >> _DOUBLINGS, 1))
    one, many = make(size), make(size << _DOUBLINGS)
    told = []
    for attempt in range(_TRIES):
        runs = [(_cost_s(one, work), _cost_s(many, work)) for _ in range(_RUNS * (attempt + 1))]
        ratio = min(large for _, large in runs) / min(small for small, _ in runs)
        if ratio <= AT_MOST**_DOUBLINGS:
            return
        told.append(ratio ** (1 / _DOUBLINGS))
    times = ", ".join(f"{ratio:.2f}" for ratio in told)
    raise AssertionError(f"from {size} to {size << _DOUBLINGS}, each doubling costs {times} times")


def _cost_s(given: T, work: Callable[[T], Any]) -> float:
    """Its CPU time, without collections of garbage: they look at all that the process has made until then."""
    gc.disable()
    try:
        begun_s = thread_time()
        work(given)
        return thread_time() - begun_s
    finally:
        gc.enable()
