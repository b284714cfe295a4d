"""The changes of a new configuration, in words, and those that have to wait for a restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from proxy.config.settings import Config

# Bound, opened or started once. The rest takes effect with the next request.
_FIXED: dict[str, tuple[str, ...]] = {
    "server": ("listen", "socket_mode", "workers"),
    "admin": ("listen", "token_env"),
    "state": ("path", "redis_url"),
    "traces": ("enabled", "endpoint", "sample"),
    "simulator": ("seed",),
}
_NAMED = (("provider", "providers"), ("model", "models"), ("alias", "aliases"))


# A listener speaks TLS from its start on, or never does; other files for it are taken on like anything else.
_TLS = ("tls_cert", "tls_key")


class Changes(NamedTuple):
    """``changed`` is in effect; ``needs_restart`` names settings that differ from those that run."""

    changed: list[str]
    needs_restart: list[str]

    def __bool__(self) -> bool:
        return bool(self.changed or self.needs_restart)


def effective(new: Config, started: Config) -> Config:
    """``new`` with what can't change without a restart as it was at the start."""
    sections: dict[str, Any] = {}
    for section, names in _fixed(new, started).items():
        running = getattr(started, section)
        fixed = {name: getattr(running, name) for name in names}
        sections[section] = dataclasses.replace(getattr(new, section), **fixed)
    return dataclasses.replace(new, **sections)


def needs_restart(new: Config, started: Config) -> list[str]:
    """The settings of the file that differ from what was started with and only a restart changes."""
    return [
        f"{section}.{name}"
        for section, names in _fixed(new, started).items()
        for name in names
        if getattr(getattr(new, section), name) != getattr(getattr(started, section), name)
    ]


def _fixed(new: Config, started: Config) -> dict[str, tuple[str, ...]]:
    if bool(new.server.tls_cert) == bool(started.server.tls_cert):
        return _FIXED
    return {**_FIXED, "server": (*_FIXED["server"], *_TLS)}


def changed(old: Config, new: Config) -> list[str]:
    """Describe the differences between two effective configurations, a line each."""
    found: list[str] = []
    for word, section in _NAMED:
        found += _entries(word, getattr(old, section), getattr(new, section))
    named = {section for _, section in _NAMED}
    for field in dataclasses.fields(Config):
        if field.name not in named:
            found += _settings(field.name, getattr(old, field.name), getattr(new, field.name))
    return found


def _entries(word: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    found = [f"{word} {name} added" for name in new if name not in old]
    found += [f"{word} {name} changed" for name in new if name in old and new[name] != old[name]]
    return found + [f"{word} {name} removed" for name in old if name not in new]


def _settings(path: str, old: Any, new: Any) -> list[str]:
    found: list[str] = []
    for field in dataclasses.fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if dataclasses.is_dataclass(before):
            found += _settings(f"{path}.{field.name}", before, after)
        elif before != after:
            name = field.name.removesuffix("_bytes").removesuffix("_s")  # as the file calls it
            found.append(f"{path}.{name} changed")
    return found
