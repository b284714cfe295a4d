"""Clients that speak TLS to a plain listener, or plain HTTP to one with TLS.

Either is a wrong ``base_url``, which its owner sees as a connection that fails without a reason. So the log
says it, once a minute for each kind, as nobody needs a key to try.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from proxy.config.listen import show
from proxy.config.settings import Listen

log = logging.getLogger("tokenhub.client")

# A TLS record of type handshake, which is what a client begins with (RFC 8446 section 5.1). No HTTP does.
TLS_BEGINS: Final = b"\x16"
QUIET_S: Final = 60.0


class WrongProtocol:
    """The log's lines about it. ``now``: monotonic seconds."""

    def __init__(self) -> None:
        self._quiet_until = dict.fromkeys(("tls", "http"), 0.0)

    def tls_to_plain(self, sockname: object, now: float, way_out: str) -> None:
        """A client speaks TLS where plain HTTP is spoken.

        :param sockname: the address it came to, as a socket tells it.
        :param way_out: what the operator can do beside.
        """
        if self._is_due("tls", now):
            log.warning(
                "a client speaks TLS to %s, which is plain HTTP: let it ask by http://, or %s",
                _shown(sockname, "http"), way_out,
            )  # fmt: skip

    def http_to_tls(self, addresses: Sequence[str], now: float) -> None:
        """A client speaks plain HTTP where TLS is spoken.

        :param addresses: where it is; which of them it came to is not known there.
        """
        if self._is_due("http", now):
            where = " or ".join(addresses)
            log.warning("a client speaks plain HTTP to %s, which is TLS: let it ask by https://", where)

    def _is_due(self, kind: str, now: float) -> bool:
        if now < self._quiet_until[kind]:
            return False
        self._quiet_until[kind] = now + QUIET_S
        return True


def _shown(sockname: object, scheme: str) -> str:
    if isinstance(sockname, tuple):
        return show(Listen(host=sockname[0], port=sockname[1]), scheme)
    return f"unix:{sockname}" if sockname else "a Unix socket"
