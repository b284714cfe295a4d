"""What a key is told of itself: its settings, its limits, and what is left of them."""

from __future__ import annotations

from typing import Any

from proxy.access.accounts import CARRIED_AT
from proxy.access.grants import Grant
from proxy.access.key import NUSD, WINDOWED, field_of
from proxy.access.limit_errors import resets_at
from proxy.access.limits import WINDOW_S, Account

Limit = dict[str, Any]


def own_figures(grant: Grant, now: float, unix_s: float) -> dict[str, Any]:
    """The body of ``/v1/key``.

    :param now: monotonic seconds. :param unix_s: the same moment.
    """
    key, group = grant.key, grant.account.group
    return {
        "id": key.id,
        "name": key.name,
        "group": grant.group or None,
        "models": None if key.models is None else list(key.models),
        "expires": key.expires,
        "limits": limits_of(grant.account, now, unix_s),
        "group_limits": {} if group is None else limits_of(group, now, unix_s),
        "tags": dict(key.tags),
    }


def limits_of(account: Account, now: float, unix_s: float) -> dict[str, Limit]:
    """The limits that an account has, by name: ``limit``, ``used``, ``remaining``, ``resets_at``.

    What is used has what running requests have reserved of tokens and dollars; ``resets_at``: Unix seconds,
    None where nothing runs out by time. The sums are over all workers. ``soft`` is there, and true, where the
    limit refuses nothing.
    """
    holder, accounts, own = account.holder, account._accounts, account._own
    begun = account._reals[account._shared_at]
    tokens = account._ints[account._shared_at + CARRIED_AT]
    requests = 0
    if own.window == begun:
        requests = own.requests
        tokens += own.tokens
    running, held, held_nusd = own.running, own.held, own.held_nusd
    if account._others:
        sums = account._with_others(begun, -1, requests, tokens, 0, 0, running, held, held_nusd)
        requests, tokens, _, _, running, held, held_nusd = sums
    ends_at: float | None = begun + WINDOW_S + unix_s - now
    if now >= begun + WINDOW_S:  # the next request begins another one
        windows = int((now - begun) / WINDOW_S)
        tokens = max(0, tokens - windows * holder.tpm) if holder.tpm is not None else 0
        requests, ends_at = 0, None
    used = accounts.used(account._slot, unix_s)
    by_name: dict[str, tuple[int, float | None]] = {
        "rpm": (requests, ends_at),
        "tpm": (tokens + held, ends_at),
        "concurrency": (running, None),
        "daily_usd": (used.day_nusd + held_nusd, resets_at("daily_usd", unix_s)),
        "daily_tokens": (used.day_tokens + held, resets_at("daily_tokens", unix_s)),
        "monthly_usd": (used.nusd + held_nusd, resets_at("monthly_usd", unix_s)),
        "monthly_tokens": (used.tokens + held, resets_at("monthly_tokens", unix_s)),
        "max_tokens": (0, None),
    }
    found: dict[str, Limit] = {}
    for name, (amount, at) in by_name.items():
        most: int | None = getattr(holder, field_of(name))
        if most is not None:
            figures: dict[str, float] = {"limit": most, "used": amount, "remaining": max(0, most - amount)}
            if name.endswith("_usd"):
                figures = {what: nusd / NUSD for what, nusd in figures.items()}
            found[name] = {**figures, "resets_at": None if at is None else round(at, 3)}
            if holder.soft and name in WINDOWED:
                found[name]["soft"] = True
    return found
