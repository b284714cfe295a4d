"""What this process may use of the machine: cores, for the number of workers, and memory.

A control group may allow less than there is (both versions of them).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """The cores by affinity and by the control group's quota, at least 1.

    A quota that is no whole number is rounded down: workers that together want more than it are stopped
    for the rest of each period, and streams stutter.
    """
    quotas = []
    for folder in _groups(root, membership):
        quotas += _quota(_words(folder / "cpu.max"))
    old = root / "cpu"
    quotas += _quota(_words(old / "cpu.cfs_quota_us") + _words(old / "cpu.cfs_period_us"))
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *quotas])))


def usable_memory_bytes(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """The machine's memory, or less by the control group's limit. Swap doesn't count."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder in _groups(root, membership):
        limits += _whole(_words(folder / "memory.max"))
    limits += _whole(_words(root / "memory" / "memory.limit_in_bytes"))
    return min(limits)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    """The folders of the process's group, of version 2, and of those it is in."""
    for line in _lines(membership):
        number, path = line.partition(":")[0], line.rpartition(":")[2]
        if number == "0":
            group = root / path.lstrip("/")
            for folder in (group, *group.parents):
                yield folder
                if folder == root:
                    break


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _words(file: Path) -> list[str]:
    return [word for line in _lines(file) for word in line.split()]


def _whole(words: list[str]) -> list[int]:
    """A limit, where one is set."""
    return [int(words[0])] if len(words) == 1 and words[0].isdecimal() and int(words[0]) else []


def _quota(words: list[str]) -> list[float]:
    """A quota in cores, where one is set: microseconds of each period."""
    if len(words) != 2 or not (words[0].isdecimal() and words[1].isdecimal()) or not int(words[1]):
        return []
    quota = int(words[0]) / int(words[1])
    return [quota] if quota > 0 else []
