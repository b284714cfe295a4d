"""The tables of targets.toml: one like another, and what stands for ports and folders."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from comparison.paths import HARNESS
from comparison.scenarios import SCENARIOS

Spec = dict[str, Any]


def load_specs(files: list[str]) -> dict[str, Spec]:
    """All targets, those of ``files`` over our own. :raises ValueError: a table makes no sense."""
    specs: dict[str, Spec] = {}
    for file in (HARNESS / "comparison/targets.toml", *files):
        specs.update(tomllib.loads(Path(file).read_text()))
    resolved = {name: _resolve(name, specs, ()) for name in specs}
    for name, spec in resolved.items():
        if unknown := set(spec.get("scenarios", ())) - set(SCENARIOS):
            raise ValueError(f"target {name}: no such scenario: {', '.join(sorted(unknown))}")
    return resolved


def _resolve(name: str, specs: dict[str, Spec], seen: tuple[str, ...]) -> Spec:
    """A table with what it takes from the one it is like."""
    spec = dict(specs[name])
    like = spec.pop("like", None)
    if like is None:
        return spec
    if like not in specs or like in (*seen, name):
        raise ValueError(f"target {name}: like = {like!r} names no other target")
    merged = _resolve(like, specs, (*seen, name))
    for key, value in spec.items():
        merged[key] = {**merged[key], **value} if isinstance(merged.get(key), dict) else value
    return merged


def fill(value: Any, values: dict[str, object]) -> Any:
    """``@NAME@`` replaced in every string."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"@{name}@", str(text))
        return value
    if isinstance(value, list):
        return [fill(x, values) for x in value]
    if isinstance(value, dict):
        return {k: fill(x, values) for k, x in value.items()}
    return value


def takes(spec: Spec, scenario: str) -> bool:
    """Whether a target takes part in a scenario: those it names, else all that need no naming."""
    if "scenarios" in spec:
        return scenario in spec["scenarios"]
    return is_direct(spec) or not SCENARIOS[scenario].on_request


def is_direct(spec: Spec) -> bool:
    return "start" not in spec
