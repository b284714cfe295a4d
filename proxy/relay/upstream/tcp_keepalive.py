"""TCP's own watch over connections. A peer that has vanished (a cut link, a machine without power, a NAT that
forgot) says nothing, like one that thinks for long: only the kernel can tell the two apart.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from struct import Struct
from typing import Final

# After this long without any confirmation from the other end, the connection is dead. In 20 s what was sent
# is sent again six times, of which one arrives with near certainty if one packet in five is lost; and it
# is a third of the time that providers get for their first byte, so that another can be asked in theirs.
DEAD_S: Final = 20.0
# A silent connection is probed after this long, then five times until it is dead: packets may be lost.
_ASK_AFTER_S: Final = 10
_ASK_EVERY_S: Final = 2
_ASK_TIMES: Final = 5
# The smoothed round trip in Linux's struct tcp_info: microseconds, behind eight bytes and fifteen integers.
_RTT_AT: Final = 68
_RTT: Final = Struct(f"{_RTT_AT}xI")
# There too: how many bytes were acknowledged, the SYN among them (Linux 4.1); how many were sent, and how
# many of those again (4.19).
_ACKED_AT: Final = 120
_SENT_AT: Final = 200
_BYTES: Final = Struct(f"{_ACKED_AT}xQ{_SENT_AT - _ACKED_AT - 8}xQQ")


def enable(sock: socket.socket, dead_s: float = DEAD_S) -> None:
    """Have the kernel end the connection with ETIMEDOUT if its peer has vanished.

    On a listening socket it is for the connections that are accepted from then on: they inherit it.

    :param dead_s: seconds for which what was sent may stay unconfirmed, or the peer's window shut (Linux's
        tcp(7), TCP_USER_TIMEOUT).
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _ASK_AFTER_S),
        ("TCP_KEEPINTVL", _ASK_EVERY_S),
        ("TCP_KEEPCNT", _ASK_TIMES),
        ("TCP_USER_TIMEOUT", round(dead_s * 1000)),
    ):
        if hasattr(socket, name):  # not on every system
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def allow_stalls(sock: socket.socket) -> None:
    """From now on the peer may keep its window shut. It is still asked for a sign of life when it is silent,
    but what was sent may stay unconfirmed for as long as the system lets it."""
    if sock.family != socket.AF_UNIX and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 0)


def round_trip_s(transport: asyncio.Transport) -> float:
    """The round trip as the kernel has measured it, in seconds; 0 where it doesn't say."""
    found = _tcp_info(transport, _RTT.size)
    return float(_RTT.unpack(found)[0]) * 1e-6 if found else 0.0


def is_unconfirmed(transport: asyncio.Transport) -> bool:
    """Return whether the peer's kernel has not confirmed all that was sent, as ours knows: then the peer
    can't have read all of it. False too where it doesn't say."""
    found = _tcp_info(transport, _BYTES.size)
    if not found:
        return False
    acked, sent, sent_again = _BYTES.unpack(found)
    return bool(acked - 1 < sent - sent_again)


def _tcp_info(transport: asyncio.Transport, size: int) -> bytes:
    """The first bytes of Linux's struct tcp_info; b"" where there are fewer."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:  # elsewhere the structure is another
        return b""
    try:
        found: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, size)
    except OSError:  # closed
        return b""
    return found if len(found) == size else b""
