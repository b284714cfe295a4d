"""Locks between processes; the processes, and their deaths, are real."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from proxy.server.file_lock import FileLock

HOLDER = """
import sys
from proxy.server.file_lock import FileLock
FileLock(int(sys.argv[1])).acquire(int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = os.memfd_create("test")
    yield descriptor
    os.close(descriptor)


def holder(shared: int, slot: int) -> subprocess.Popen[bytes]:
    """A process that holds a lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shared), str(slot)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[shared],
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def is_held(shared: int, slot: int) -> bool:
    """By another process."""
    try:
        fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
    except OSError:
        return True
    fcntl.lockf(shared, fcntl.LOCK_UN, 1, slot)
    return False


def test_one_is_held_and_the_others_are_not_until_it_is_released(shared):
    with holder(shared, 5) as process:
        assert [is_held(shared, slot) for slot in (4, 5, 6)] == [False, True, False]
        FileLock(shared).acquire(6)  # doesn't wait
        FileLock(shared).release(6)
        process.communicate()
    assert not is_held(shared, 5)
    lock = FileLock(shared)
    for _ in range(3):
        lock.acquire(1)
        lock.release(1)
    with holder(shared, 1) as process:  # which would not come to say so
        process.communicate()


@pytest.mark.parametrize("slot", [0, 16_383])  # beyond the end of the file, too
def test_it_frees_itself_when_its_holder_is_killed(shared, slot):
    with holder(shared, slot) as process:
        assert is_held(shared, slot)
        process.kill()
        FileLock(shared).acquire(slot)  # waits until the system has buried it, and no longer
        FileLock(shared).release(slot)
        process.communicate()
