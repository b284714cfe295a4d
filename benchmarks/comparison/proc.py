"""What Linux says about processes: their descendants, CPU time, memory, listening sockets."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTENING = "0A"


def _stat(pid: int | str) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def tree(pid: int) -> list[int]:
    """A process and all its living descendants."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(name)):
            children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return [p for p in found if os.path.exists(f"/proc/{p}")]


def cpu_s(pids: Iterable[int]) -> float:
    """User and system time so far."""
    return sum(int(f[11]) + int(f[12]) for p in pids if (f := _stat(p))) / TICK


def threads(pids: Iterable[int]) -> int:
    return sum(int(f[17]) for p in pids if (f := _stat(p)))


def rss_mb(pids: Iterable[int]) -> float:
    """Resident memory; a page that processes share counts in each."""
    pages = 0
    for p in pids:
        try:
            pages += int(Path(f"/proc/{p}/statm").read_text().split()[1])
        except OSError:
            pass
    return round(pages * _PAGE / 1e6, 1)


def cpu_lines() -> dict[int, list[int]]:
    """CPU number -> its counters in /proc/stat."""
    lines = Path("/proc/stat").read_text().splitlines()
    return {int(n[3:]): [int(x) for x in v] for n, *v in map(str.split, lines) if re.match(r"cpu\d", n)}


def cpu_use(before: dict[int, list[int]], after: dict[int, list[int]], cpu: int) -> tuple[float, float]:
    """Busy and steal percent of a CPU between two readings."""
    used = [b - a for a, b in zip(before[cpu], after[cpu], strict=False)]
    total = sum(used[:8]) or 1
    return round(100 * (total - used[3] - used[4]) / total, 1), round(100 * used[7] / total, 1)


def listeners(pids: Iterable[int]) -> list[tuple[str, int]]:
    """Address and port of every TCP socket the processes listen on."""
    inodes = set()
    for p in pids:
        try:
            for fd in os.listdir(f"/proc/{p}/fd"):
                if m := re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{p}/fd/{fd}")):
                    inodes.add(m[1])
        except OSError:
            pass
    found = []
    for family, file in ((socket.AF_INET, "/proc/net/tcp"), (socket.AF_INET6, "/proc/net/tcp6")):
        if not os.path.exists(file):  # IPv6 is off
            continue
        for line in Path(file).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and fields[9] in inodes:
                address, port = fields[1].split(":")
                raw = bytes.fromhex(address)
                raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))  # words, host order
                found.append((socket.inet_ntop(family, raw), int(port, 16)))
    return found
