"""The errors that tell a client which limit of its key or its key's group is reached, and until when."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from typing import Final, NamedTuple

from proxy.access.group import Group
from proxy.access.key import NUSD, Key
from proxy.errors import LimitReached
from proxy.usage.calendar import DAY_S, day_of, month_of

# Requests in progress end at any moment.
_SOON_S: Final = 1.0


class Reached(NamedTuple):
    """The limits of a key or a group that are reached.

    ``spent``: that of a day or a month which is used up, and lasts longest; empty: none is.
    ``reserved``: one that is reached only with what requests in progress have reserved.
    ``tokens_over``: whole windows of tokens that were used above the limit, which the next ones have less.
    """

    spent: str
    concurrency: bool
    rpm: bool
    tpm: bool
    reserved: str
    tokens_over: int


def limit_reached(
    holder: Key | Group, reached: Reached, window_left_s: float, window_s: float, unix_s: float
) -> LimitReached:
    """The error for the limit that lasts longest of those that are ``reached``.

    :param holder: whose limits they are.
    :param window_left_s: until the end of the minute's window. :param window_s: a whole one.
    :param unix_s: the moment, in Unix seconds.
    """
    if reached.spent:
        return _spent(holder, reached.spent, unix_s)
    if reached.concurrency:
        return _again(holder, "concurrency", f"limit of {holder.concurrency} requests at a time", _SOON_S)
    if reached.rpm:
        return _again(holder, "rpm", f"limit of {holder.rpm} requests a minute", window_left_s)
    if reached.tpm:
        wait_s = window_left_s + window_s * reached.tokens_over
        return _again(holder, "tpm", f"limit of {holder.tpm} tokens a minute", wait_s)
    # They may use less than that.
    which = reached.reserved
    what = f"limit of {holder.tpm} tokens a minute" if which == "tpm" else f"{_period(which)} limit"
    text = (
        f"What is left of the {_of(holder, what)} is reserved by requests in progress. "
        "Retry when they finish, or set a smaller max_tokens."
    )
    return LimitReached(text, _param(holder, which), _SOON_S)


def worse_of(one: LimitReached, other: LimitReached) -> LimitReached:
    """Of two errors, the one whose limit lasts longer."""
    is_worse = (other.is_spent, other.wait_s) > (one.is_spent, one.wait_s)
    return other if is_worse else one


def resets_at(which: str, unix_s: float) -> float:
    """The end of a window of a day or a month, in Unix seconds.

    :param which: such as ``daily_usd``. :param unix_s: a moment in the window.
    """
    return (day_of(unix_s) + 1) * DAY_S if which.startswith("daily") else month_of(unix_s)[1]


def _of(holder: Key | Group, what: str) -> str:
    return f"{what} for group '{holder.name}'" if isinstance(holder, Group) else f"key's {what}"


def _param(holder: Key | Group, which: str) -> str:
    """The name of a limit; those of groups stand below ``group_limits``, as ``GET /v1/key`` shows them."""
    return f"group_limits.{which}" if isinstance(holder, Group) else which


def _period(which: str) -> str:
    return which.partition("_")[0]


def _again(holder: Key | Group, which: str, what: str, wait_s: float) -> LimitReached:
    text = f"The {_of(holder, what)} is reached. Retry in {max(1, ceil(wait_s))} s."
    return LimitReached(text, _param(holder, which), wait_s)


def _spent(holder: Key | Group, which: str, unix_s: float) -> LimitReached:
    period, end = _period(which), resets_at(which, unix_s)
    is_daily = period == "daily"
    if which.endswith("_usd"):
        nusd = holder.daily_nusd if is_daily else holder.monthly_nusd
        assert nusd is not None
        amount = f"${Decimal(nusd) / NUSD:f}"
    else:
        amount = f"{holder.daily_tokens if is_daily else holder.monthly_tokens} tokens"
    anew = datetime.fromtimestamp(end, UTC)
    text = f"The {_of(holder, f'{period} limit of {amount}')} is reached. "
    text += f"It resets on {anew:%Y-%m-%d}, 00:00 UTC."
    if is_daily:
        return LimitReached(text, _param(holder, which), end - unix_s, code="daily_limit_reached")
    return LimitReached(text, _param(holder, which), end - unix_s, code="monthly_limit_reached")
