"""Under what a result was measured."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sysconfig
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from comparison.paths import HARNESS, LOGS


def machine() -> dict[str, Any]:
    cpu = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    memory = re.search(r"^MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text(), re.M)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "ncpu": os.cpu_count(),
        "memory_gib": round(int(memory[1]) / 2**20, 1) if memory else None,
        "kernel": platform.release(),
    }


def software() -> dict[str, Any]:
    """The commit of the gateway that this interpreter would run, and what it runs on.

    Installed it is a copy, which setup.sh makes of the clone that this harness is in.
    """
    spec = find_spec("proxy")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is not None and folder.parent.name == "site-packages":
        folder = HARNESS
    status = _output(["git", "status", "--porcelain"], folder)
    return {
        "commit": _output(["git", "rev-parse", "HEAD"], folder),
        "dirty": None if status is None else bool(status),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        # Such an interpreter, as distributions ship it, is faster by a sixth.
        "python_optimized": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def not_installed() -> list[str]:
    """Steps of setup.sh that failed when it last tried them."""
    return sorted(path.stem for path in LOGS.glob("*.failed"))


def _output(command: list[str], folder: Path | None) -> str | None:
    try:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
