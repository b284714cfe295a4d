"""What targets share: how input is cut into reads, and how a corpus is kept."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
TARGETS = sorted(path.stem for path in (HERE / "targets").glob("*.py") if path.stem != "__init__")


def load(name: str) -> ModuleType:
    """The module of a target: it has ``test_one(data)`` and ``SEEDS``."""
    return importlib.import_module(f"tests.fuzz.targets.{name}")


def pieces(data: bytes, how: int) -> list[bytes]:
    """``data`` in reads, as one byte says: 0: whole; up to 127: of so many bytes; above: cut once."""
    if how == 0 or not data:
        return [data]
    if how < 128:
        return [data[at : at + how] for at in range(0, len(data), how)]
    at = min(how - 128, len(data))
    return [data[:at], data[at:]] if 0 < at < len(data) else [data]


# --- the corpus: a file for each target, a line for each input ------------------------------------------


def corpus_of(name: str) -> list[bytes]:
    """The inputs kept for a target."""
    path = HERE / "corpus" / f"{name}.txt"
    return [_decoded(line) for line in path.read_text("ascii").splitlines()] if path.exists() else []


def keep(name: str, inputs: list[bytes]) -> None:
    """Keep these, the smallest first, in place of those that were kept."""
    lines = [data.decode("latin-1").encode("unicode_escape").decode("ascii") for data in inputs]
    text = "".join(line + "\n" for line in sorted(set(lines), key=lambda line: (len(line), line)))
    (HERE / "corpus" / f"{name}.txt").write_text(text, "ascii")


def _decoded(line: str) -> bytes:
    return line.encode("ascii").decode("unicode_escape").encode("latin-1")


def crashes_of(name: str) -> list[Path]:
    """Inputs at which a target once failed."""
    return sorted((HERE / "crashes" / name).glob("*"))
