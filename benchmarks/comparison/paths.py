"""Where things are."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

HARNESS = Path(__file__).resolve().parents[1]
ROOT = Path(os.environ.get("BENCH_ROOT", HARNESS / ".work")).resolve()
BIN, RUN, LOGS = ROOT / "bin", ROOT / "run", ROOT / "logs"
LOCK = os.environ.get("BENCH_LOCK", str(Path(tempfile.gettempdir(), "bench.lock")))
