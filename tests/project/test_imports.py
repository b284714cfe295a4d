"""What may import what: the contracts in setup.cfg."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.project.test_style import ROOT


def test_the_contracts_are_kept():
    """Types count: two modules that name each other's types can't be read one after the other."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
