"""Notifies systemd of the gateway's state, for units of ``Type=notify`` (sd_notify(3)). Elsewhere it does
nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import time

log = logging.getLogger("tokenhub.server")


def notify(state: str, address: str | None = None) -> None:
    """Send a state such as ``READY=1``.

    :param address: of systemd's socket; by default as the environment has it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode(), name)
    except OSError as error:
        log.warning("systemd can't be notified of %s: %s", state.split("\n", maxsplit=1)[0], error)


def ready() -> None:
    """Report that the gateway serves, after the start or a reload."""
    notify("READY=1")


def reloading() -> None:
    """Report that the configuration is read anew; to be followed by :func:`ready`."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> None:
    """Report that the gateway drains."""
    notify("STOPPING=1")
