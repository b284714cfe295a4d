"""LiteLLM's proxy with settings from the command line: a port, and the text of its configuration."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from litellm.proxy.proxy_cli import run_server

with tempfile.TemporaryDirectory() as folder:
    config = Path(folder) / "config.yaml"
    config.write_text(sys.argv[2])  # JSON is YAML
    run_server(
        ["--config", str(config), "--host", "127.0.0.1", "--port", sys.argv[1], "--telemetry", "False"]
    )
