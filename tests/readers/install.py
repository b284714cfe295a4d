"""Environments of the readers: each is installed once into the cache, as its pins say, and then kept."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tokenhub-readers"
# A registry that does not answer is no reason to wait for longer.
INSTALL_S = 600


def environment(name: str, pins: list[Path], fill: Callable[[Path], None]) -> Path:
    """The folder of an environment; ``fill`` makes one from ``pins`` where there is none of that content.

    It gets its name when it is whole, so that another run finds all of it or nothing.
    """
    digest = hashlib.sha256(f"{platform.machine()} {sys.version_info[:2]} {platform.libc_ver()}".encode())
    for pin in pins:
        digest.update(pin.read_bytes())
    folder = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
    try:
        fill(unfinished)
        unfinished.rename(folder)
    except OSError:
        if not folder.exists():  # else another run was first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def python(name: str) -> Path:
    """Packages of ``pins/NAME.txt``, which names all of them."""
    pins = HERE / "pins" / f"{name}.txt"

    def fill(folder: Path) -> None:
        packages = ["--no-deps", "--target", str(folder), "-r", str(pins)]
        run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages])

    return environment(name, [pins], fill)


def npm(source: Path) -> Path:
    """Packages of the lock file in the folder ``source``."""
    files = [source / "package.json", source / "package-lock.json"]

    def fill(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder)

    return environment(source.name, files, fill)


def built(name: str, source: Path, command: list[str]) -> Path:
    """A program made by ``command`` of one source; ``{source}`` and ``{folder}`` in it are filled in."""

    def fill(folder: Path) -> None:
        run([word.format(source=source, folder=folder) for word in command], folder)

    return environment(name, [source], fill)


def run(command: list[str], folder: Path | None = None) -> None:
    """:raises RuntimeError: it failed, with what it said."""
    environ = {**os.environ, "GOCACHE": str(CACHE / "go"), "GO111MODULE": "off"}
    done = subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
