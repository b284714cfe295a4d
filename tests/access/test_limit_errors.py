"""What a client is told of the limits of its key and its group."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from proxy.access.group import Group
from proxy.access.key import NUSD
from proxy.access.limit_errors import Reached, limit_reached, resets_at, worse_of
from tests.support.keys import UNIX_S, key_of

LIMITS = {
    "rpm": 5, "tpm": 100, "concurrency": 2, "monthly_tokens": 1000, "monthly_nusd": 25 * NUSD // 2,
    "daily_tokens": 70, "daily_nusd": NUSD,
}  # fmt: skip
KEY, GROUP = key_of(**LIMITS), Group(name="search", created=1, **LIMITS)
NONE = Reached(spent="", concurrency=False, rpm=False, tpm=False, reserved="monthly_usd", tokens_over=0)
TPM = "The key's limit of 100 tokens a minute is reached. Retry in 12 s."
RESERVED = (
    "What is left of the key's monthly limit is reserved by requests in progress. "
    "Retry when they finish, or set a smaller max_tokens."
)
RESERVED_TPM = RESERVED.replace("monthly limit", "limit of 100 tokens a minute")
MONTHLY = "The key's monthly limit of {} is reached. It resets on 2026-07-01, 00:00 UTC."
DAILY = "The key's daily limit of {} is reached. It resets on 2026-06-02, 00:00 UTC."
DAY_S = 86_400


@pytest.mark.parametrize(("reached", "status", "param", "message", "wait_s"), [
    ({"spent": "monthly_tokens"}, 402, "monthly_tokens", MONTHLY.format("1000 tokens"), 29.5 * DAY_S),
    ({"spent": "monthly_usd"}, 402, "monthly_usd", MONTHLY.format("$12.5"), 29.5 * DAY_S),
    ({"spent": "daily_tokens"}, 402, "daily_tokens", DAILY.format("70 tokens"), DAY_S / 2),
    ({"spent": "daily_usd"}, 402, "daily_usd", DAILY.format("$1"), DAY_S / 2),
    ({"concurrency": True}, 429, "concurrency",
     "The key's limit of 2 requests at a time is reached. Retry in 1 s.", 1),
    ({"rpm": True}, 429, "rpm", "The key's limit of 5 requests a minute is reached. Retry in 12 s.", 12),
    ({"tpm": True}, 429, "tpm", TPM, 12),
    ({"tpm": True, "tokens_over": 2}, 429, "tpm", TPM.replace("12 s", "132 s"), 132),
    ({"reserved": "tpm"}, 429, "tpm", RESERVED_TPM, 1),
    ({"reserved": "monthly_tokens"}, 429, "monthly_tokens", RESERVED, 1),
    ({"reserved": "daily_usd"}, 429, "daily_usd", RESERVED.replace("monthly", "daily"), 1),
    ({}, 429, "monthly_usd", RESERVED, 1),
])  # fmt: skip
def test_what_is_told(reached, status, param, message, wait_s):
    error = limit_reached(KEY, NONE._replace(**reached), 11.5, 60.0, UNIX_S)
    assert (error.status, error.param, error.message, error.retry_after_s) == (status, param, message, wait_s)
    period = param.partition("_")[0]
    assert error.code == ("rate_limit_exceeded" if status == 429 else f"{period}_limit_reached")
    assert error.should_retry is (status == 429)
    # The same of a group, whose name is told, and whose limits are told apart.
    of_group = limit_reached(GROUP, NONE._replace(**reached), 11.5, 60.0, UNIX_S)
    assert of_group.param == f"group_limits.{param}"
    assert "for group 'search' is re" in of_group.message and "key's" not in of_group.message


def test_the_limit_that_lasts_longest_is_told():
    order = ["spent", "concurrency", "rpm", "tpm"]
    told = []
    for first in range(len(order)):
        reached = {name: "daily_usd" if name == "spent" else True for name in order[first:]}
        told.append(limit_reached(KEY, NONE._replace(**reached), 1.0, 60.0, UNIX_S).param)
    assert told == ["daily_usd", "concurrency", "rpm", "tpm"]


def test_of_two_the_one_that_lasts_longer():
    by_length = [{"concurrency": True}, {"rpm": True}, {"spent": "daily_usd"}, {"spent": "monthly_usd"}]
    errors = [limit_reached(KEY, NONE._replace(**reached), 11.5, 60.0, UNIX_S) for reached in by_length]
    for short, long in itertools.combinations(errors, 2):
        assert worse_of(short, long) is worse_of(long, short) is long


@pytest.mark.parametrize(("moment", "day", "month"), [
    ("2026-12-31T23:59:59", "2027-01-01", "2027-01-01"), ("2028-02-28T00:00:00", "2028-02-29", "2028-03-01"),
])  # fmt: skip
def test_the_ends_of_windows(moment, day, month):
    at, *ends = (
        datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in (moment, day, month)
    )
    assert [resets_at(which, at) for which in ("daily_usd", "monthly_tokens")] == ends
