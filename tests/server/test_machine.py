"""The cores and the memory a process may use, by the files that the kernel shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.server.machine import usable_cores, usable_memory_bytes

MINE = len(os.sched_getaffinity(0))


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))

    def make(group: str, **files: str) -> tuple[Path, Path]:
        root, membership = tmp_path / "cgroup", tmp_path / "membership"
        root.mkdir()
        membership.write_text(f"12:cpu,cpuacct:/old\n{group}\n" if group else "")
        for name, content in files.items():
            file = root / name.replace("__", "/").replace("_max", ".max").replace("_limit", ".limit").replace(
                "_cfs", ".cfs"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return root, membership

    return make


@pytest.mark.parametrize(("group", "files", "cores"), [
    ("", {}, 8),
    ("0::/", {}, 8),
    ("0::/", {"cpu_max": "max 100000\n"}, 8),
    ("0::/", {"cpu_max": "200000 100000\n"}, 2),
    ("0::/", {"cpu_max": "350000 100000\n"}, 3),
    ("0::/", {"cpu_max": "50000 100000\n"}, 1),
    ("0::/", {"cpu_max": "1600000 100000\n"}, 8),
    ("0::/", {"cpu_max": "nonsense"}, 8),
    ("0::/", {"cpu_max": "100000 0\n"}, 8),
    ("0::/a/b", {"a__b__cpu_max": "max 100000\n", "a__cpu_max": "400000 100000\n"}, 4),
    ("0::/a/b", {"a__b__cpu_max": "300000 100000\n", "a__cpu_max": "400000 100000\n"}, 3),
    ("", {"cpu__cpu_cfs_quota_us": "250000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 2),
    ("", {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, 8),
    ("", {"cpu__cpu_cfs_quota_us": "x\n", "cpu__cpu_cfs_period_us": "100000\n"}, 8),
])  # fmt: skip
def test_cores_by_quota(kernel, group, files, cores):
    assert usable_cores(*kernel(group, **files)) == cores


def test_cores_by_affinity_without_any_control_group_and_here(tmp_path):
    assert usable_cores(tmp_path / "none", tmp_path / "none") == MINE
    assert 1 <= usable_cores() <= MINE


@pytest.mark.parametrize(
    ("group", "files", "limit"),
    [
        ("", {}, None), ("0::/", {"memory_max": "max\n"}, None), ("0::/", {"memory_max": "nonsense\n"}, None),
        ("0::/", {"memory_max": "536870912\n"}, 536_870_912), ("0::/", {"memory_max": "0\n"}, None),
        ("0::/a/b", {"a__b__memory_max": "max\n", "a__memory_max": "1048576\n"}, 1_048_576),
        ("", {"memory__memory_limit_in_bytes": "2097152\n"}, 2_097_152),
        ("", {"memory__memory_limit_in_bytes": "9223372036854771712\n"}, None),  # version 1's "no limit"
    ],
)  # fmt: skip
def test_memory(kernel, group, files, limit):
    machines = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert usable_memory_bytes(*kernel(group, **files)) == (limit or machines)
