"""Counts refused requests: with a key against its requests a minute, without one by client address.

A refusal costs time as well: the head and the body are read, names are looked up. With a valid key it counts
as one of the key's requests (:meth:`proxy.access.limits.Account.count`), exactly, over all workers. Without
one, there is only the client's address to count it against, which many clients may share. So that bound,
which each worker keeps by itself, turns refusals into shorter ones and does nothing else: a request that can
be served is served, whatever came from its address before.
"""

from __future__ import annotations

from typing import Final

from proxy.access.limits import WINDOW_S, Account
from proxy.errors import GatewayError, LimitReached, TooManyRefused

# Refusals a minute of one address that are answered in full. Repairing a client takes a few.
REFUSALS_A_MINUTE: Final = 60
# Addresses that are remembered, at some 200 bytes each; the oldest windows are forgotten.
MAX_ADDRESSES: Final = 10_000


def is_counted(error: GatewayError) -> bool:
    """Return whether a refusal counts: its ``error`` is a fault of the request, and no limit that is
    reached."""
    return 400 <= error.status < 500 and error.status not in (402, 429)


def count_for_key(error: GatewayError, account: Account, now: float, unix_s: float) -> GatewayError:
    """Count a refusal against the requests a minute of its key and its group, if they are limited.

    :param now: monotonic seconds. :param unix_s: the same moment for calendars.
    :returns: what to answer: ``error``, with what is left of the limits; or that they are used up.
    """
    if not account.counts_requests:
        return error
    try:
        permit = account.count(now, unix_s)
    except LimitReached as reached:
        reached.close = error.close
        return reached
    lines = account.header_lines(permit, now, unix_s - now)
    error.headers = error.headers + lines  # compiled, an exception has no +=
    return error


class _Window:
    """A minute of an address; it begins with the first refusal after the one before has ended."""

    __slots__ = ("begun_at", "count")

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at
        self.count = 0


class Refusals:
    """The refusals of each client address."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: dict[bytes, _Window] = {}  # by address, the oldest window first

    def __len__(self) -> int:
        return len(self._windows)

    def count(self, error: GatewayError, client: bytes, now: float) -> GatewayError:
        """Count a refusal against the address it goes to.

        :param client: from :func:`proxy.relay.downstream.connection_limits.client_of`. :param now: monotonic
            seconds.
        :returns: what to answer: ``error``, or that there were too many.
        """
        windows = self._windows
        window = windows.get(client)
        if window is None or now >= window.begun_at + WINDOW_S:
            if window is not None:
                del windows[client]  # so that it is the last in the order
            elif len(windows) >= MAX_ADDRESSES:
                del windows[next(iter(windows))]
            window = windows[client] = _Window(now)
        if window.count >= REFUSALS_A_MINUTE:
            return TooManyRefused(error, window.begun_at + WINDOW_S - now)
        window.count += 1
        return error
