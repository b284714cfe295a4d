"""Freed memory is kept for what comes next, as far as it should be; each in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys

import pytest

from proxy.control import allocator as memory
from proxy.control.allocator import KEPT_BYTES

is_glibc = hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


def faults(**more: str) -> int:
    """Page faults of 50 bodies of 2 MB."""
    script = (
        "import gc, resource\n"
        "from proxy.control import allocator as memory\n"
        "memory.tune()\n"
        "assert gc.get_freeze_count() > 1000\n"
        "for turn in range(60):\n"
        "    if turn == 10: before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    pieces = [b'x' * 256_000 for _ in range(8)]\n"
        "    pieces.clear()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not is_glibc, reason="the allocator is not glibc's")
def test_memory_of_large_bodies_is_used_again():
    assert KEPT_BYTES > 8 * 256_000
    assert faults() < 500
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 10_000  # who sets it has it so


def test_while_something_large_is_made_the_collector_rests():
    with memory.growing():
        assert not gc.isenabled()
        kept = [[] for _ in range(10)]
    assert gc.isenabled()
    assert not any(one is kept for one in gc.get_objects())
    with pytest.raises(ZeroDivisionError), memory.growing():
        raise ZeroDivisionError
    assert gc.isenabled()
    gc.unfreeze()
