"""Listening addresses: who can reach them, and how they are shown."""

from __future__ import annotations

from proxy.config.settings import Config, Listen
from proxy.config.values import is_loopback


def is_local(listen: Listen) -> bool:
    """Only processes of this machine can connect."""
    return bool(listen.path) or is_loopback(listen.host)


def is_open(config: Config, *, has_keys: bool) -> bool:
    """Return whether requests without a key are served.

    :param has_keys: a key was made once; one that was revoked or has expired counts too.
    """
    if config.auth.required is not None:
        return not config.auth.required
    return not has_keys and all(map(is_local, config.server.listen))


def show(listen: Listen, scheme: str = "http") -> str:
    """An address for people."""
    if listen.path:
        return f"unix:{listen.path}"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{scheme}://{host}:{listen.port}"
