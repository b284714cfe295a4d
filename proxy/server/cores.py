"""Counts the cores that this process may use: as many workers make sense."""

from __future__ import annotations

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cores(root: Path = _ROOT, membership: Path = _MEMBERSHIP) -> int:
    """The cores by affinity and by the quota of the control group (both versions), at least 1.

    A quota that is no whole number is rounded down: workers that together want more than it are stopped
    for the rest of each period, and streams stutter.
    """
    quotas = [*_version_2(root, membership), *_version_1(root)]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *quotas])))


def _version_2(root: Path, membership: Path) -> list[float]:
    """The quotas of the group and of those it is in, in cores."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        number, _, path = line.partition(":")[0], "", line.rpartition(":")[2]
        if number != "0":
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            quotas += _quota(folder / "cpu.max")
            if folder == root:
                break
    return quotas


def _quota(file: Path) -> list[float]:
    try:
        quota, period = file.read_text().split()
        return [] if quota == "max" else [int(quota) / int(period)]
    except (OSError, ValueError, ZeroDivisionError):
        return []


def _version_1(root: Path) -> list[float]:
    try:
        quota = int((root / "cpu" / "cpu.cfs_quota_us").read_text())
        period = int((root / "cpu" / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return []
    return [quota / period] if quota > 0 and period > 0 else []
