"""What is left of a key's limits, over all workers."""

from __future__ import annotations

import pytest

from proxy.access.group import Group
from proxy.access.limits import Account
from proxy.access.permits import Month
from proxy.access.standing import limits_of, own_figures
from tests.support.keys import SECRET, UNIX_S, accounts_of, grant_of, key_of, table_of

LIMITS = {
    "rpm": 10, "tpm": 1000, "concurrency": 3, "daily_nusd": 2 * 10**9, "daily_tokens": 900,
    "monthly_nusd": 10**9, "monthly_tokens": 5000, "max_tokens": 7,
}  # fmt: skip
JULY = 1_782_864_000.0
TUESDAY = UNIX_S + 43_200


def limit(limit: float, used: float, resets_at: float | None) -> dict:
    return {"limit": limit, "used": used, "remaining": limit - used, "resets_at": resets_at}


def test_without_limits_there_are_none():
    assert limits_of(grant_of().account, 0.0, UNIX_S) == {}


def test_all_limits_over_two_workers():
    memory = accounts_of(2, None).memory
    shared = [accounts_of(2, own, memory) for own in (0, 1)]
    for slot in range(2):
        shared[0].open(slot, UNIX_S, Month(100, 10**8, 0.0, 60, 10**8))
    group = Group(name="g", created=1, **LIMITS)
    one, two = (Account(accounts, 0, key_of(**LIMITS), Account(accounts, 1, group)) for accounts in shared)
    permit = one.admit(0.0, UNIX_S, 50, 10**8)
    two.admit(10.0, UNIX_S + 10, 30, 0)
    one.settle(permit, UNIX_S + 10, 20, 2 * 10**8)
    for account in (one, two, one.group, two.group):
        assert limits_of(account, 10.0, UNIX_S + 10) == {
            "rpm": limit(10, 2, UNIX_S + 60), "tpm": limit(1000, 50, UNIX_S + 60),
            "concurrency": limit(3, 1, None), "daily_usd": limit(2.0, 0.3, TUESDAY),
            "daily_tokens": limit(900, 110, TUESDAY), "monthly_usd": limit(1.0, 0.3, JULY),
            "monthly_tokens": limit(5000, 150, JULY), "max_tokens": limit(7, 0, None),
        }  # fmt: skip
    later = limits_of(two, 70.0, UNIX_S + 70)  # another window
    assert (later["rpm"], later["tpm"]) == (limit(10, 0, None), limit(1000, 30, None))
    july = limits_of(two, 10.0, JULY + 5)
    assert (july["monthly_usd"]["used"], july["monthly_tokens"]["used"]) == (0.0, 30)


def test_what_is_over_a_limit_leaves_nothing():
    account = grant_of(tpm=10).account
    account.settle(account.admit(0.0, UNIX_S, 5, 0), UNIX_S, 25, 0)
    assert limits_of(account, 1.0, UNIX_S + 1)["tpm"]["remaining"] == 0
    assert limits_of(account, 61.0, UNIX_S + 61)["tpm"] == {
        "limit": 10,
        "used": 15,
        "remaining": 0,
        "resets_at": None,
    }


def test_the_key():
    found = own_figures(grant_of(name="a", models=("x/*",), expires=9, tags=(("team", "b"),)), 0.0, UNIX_S)
    assert found == {
        "id": "key_1", "name": "a", "group": None, "models": ["x/*"], "expires": 9, "limits": {},
        "group_limits": {}, "tags": {"team": "b"},
    }  # fmt: skip
    assert own_figures(grant_of(), 0.0, UNIX_S)["models"] is None
    table = table_of(key_of(group="g"), groups=[Group(name="g", created=1, rpm=5)])
    found = own_figures(table.grant_of([(b"api-key", SECRET)]), 100.0, UNIX_S)
    assert (found["group"], found["limits"]) == ("g", {})
    assert found["group_limits"] == {"rpm": limit(5, 0, None)}
    assert (
        pytest.approx(1.0)
        == own_figures(grant_of(monthly_nusd=10**9), 0.0, UNIX_S)["limits"]["monthly_usd"]["limit"]
    )
