"""Whether work costs in proportion to what it is given: twice the bytes, at most 2.3 times the CPU time.

Machines are noisy, so each size is measured several times in turn and the least counts: nothing makes a run
faster than it is. Where the verdict is against it the measurement is repeated with more runs, since a fault
stays and noise does not.
"""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import Any, TypeVar

T = TypeVar("T")

AT_MOST = 2.3
_RUNS = 5
_TRIES = 4
# Below this the clock and what is the same for all sizes count for too much.
_LEAST_S = 0.002


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
    size = min(size, max(most // 2, 1))
    one, two = make(size), make(2 * size)
    told = []
    for attempt in range(_TRIES):
        runs = [(_cost_s(one, work), _cost_s(two, work)) for _ in range(_RUNS * (attempt + 1))]
        ratio = min(large for _, large in runs) / min(small for small, _ in runs)
        if ratio <= AT_MOST:
            return
        told.append(ratio)
    raise AssertionError(
        f"twice the size of {size} costs {', '.join(f'{ratio:.2f}' for ratio in told)} times"
    )


def _cost_s(given: T, work: Callable[[T], Any]) -> float:
    begun_s = thread_time()
    work(given)
    return thread_time() - begun_s
