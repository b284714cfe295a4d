"""The files of deploy/, read as their programs read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Debian's package prometheus is not installed: it has prometheus and promtool",
)


def read_yaml(source: Path | str) -> list[Any]:
    """The documents of a file, or of a text."""
    text = source if isinstance(source, str) else source.read_text()
    return [document for document in yaml.safe_load_all(text) if document is not None]


def promtool(*args: str, text: str | None = None) -> str:
    """What it says; it has to find nothing wrong."""
    done = subprocess.run(
        ["promtool", *args], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    """The rules of alerts.yml, alerts and recorded ones."""
    [document] = read_yaml(DEPLOY / "prometheus/alerts.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    return json.loads((DEPLOY / "grafana/dashboards/tokenhub.json").read_text())


def queries() -> dict[str, str]:
    """All expressions of the dashboard, by panel and letter, with what Grafana puts in for its variables."""
    found = {}
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")
            for name in ("instance", "model"):
                expr = expr.replace(f"${name}", ".*")
            assert "$" not in expr, expr
            found[f"{panel['title']}, {target['refId']}"] = expr
    return found


def metrics_of(expr: str) -> set[str]:
    """The names of what the gateway exposes that an expression uses, without recorded ones."""
    plain = re.sub(r'"[^"]*"|\b(by|on|without) *\([^)]*\)', "", expr)
    plain = re.sub(r"{[^}]*}", "", plain)
    return set(re.findall(r"(?<![:\w])(?:tokenhub|gen_ai)_\w+", plain))
