"""The errors that tell a client which limit of its key is reached, and until when."""

from __future__ import annotations

from decimal import Decimal
from math import ceil
from typing import Final, NamedTuple

from proxy.access.key import NUSD, Key, first_of
from proxy.errors import LimitReached

# Requests in progress end at any moment.
_SOON_S: Final = 1.0


class Reached(NamedTuple):
    """The limits of a key that are reached.

    ``reserved_tpm`` and ``reserved_tokens``: only with what requests in progress have reserved.
    ``tokens_over``: whole windows of tokens that were used above the limit, which the next ones have less.
    """

    monthly_tokens: bool
    monthly_nusd: bool
    concurrency: bool
    rpm: bool
    tpm: bool
    reserved_tpm: bool
    reserved_tokens: bool
    tokens_over: int


def limit_reached(
    key: Key, reached: Reached, window_left_s: float, window_s: float, month: int, lines: bytes
) -> LimitReached:
    """The error for the limit that lasts longest of those that are ``reached``.

    :param window_left_s: until the end of the minute's window. :param window_s: a whole one.
    :param month: as returned by :func:`proxy.access.key.month_of`.
    :param lines: header lines that tell what is left.
    """
    if reached.monthly_tokens:
        return _spent("monthly_tokens", f"{key.monthly_tokens} tokens", month)
    if reached.monthly_nusd:
        assert key.monthly_nusd is not None
        return _spent("monthly_usd", f"${Decimal(key.monthly_nusd) / NUSD:f}", month)
    if reached.concurrency:
        return _again(
            f"The key's limit of {key.concurrency} requests at a time", "concurrency", _SOON_S, lines
        )
    if reached.rpm:
        return _again(f"The key's limit of {key.rpm} requests a minute", "rpm", window_left_s, lines)
    if reached.tpm:
        wait_s = window_left_s + window_s * reached.tokens_over
        return _again(f"The key's limit of {key.tpm} tokens a minute", "tpm", wait_s, lines)
    # They may use less than that.
    what, which = "monthly limit", "monthly_tokens" if reached.reserved_tokens else "monthly_usd"
    if reached.reserved_tpm:
        what, which = f"limit of {key.tpm} tokens a minute", "tpm"
    text = (
        f"What is left of the key's {what} is reserved by requests in progress. "
        "Retry when they finish, or set a smaller max_tokens."
    )
    return LimitReached(text, which, _SOON_S, lines)


def _again(what: str, which: str, wait_s: float, lines: bytes) -> LimitReached:
    text = f"{what} is reached. Retry in {max(1, ceil(wait_s))} s."
    return LimitReached(text, which, wait_s, lines)


def _spent(which: str, what: str, month: int) -> LimitReached:
    anew = first_of(month + 1)
    text = f"The key's monthly limit of {what} is reached. It resets on {anew:%Y-%m-%d}, 00:00 UTC."
    return LimitReached(text, which, None, b"")
