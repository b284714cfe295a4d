"""What a client is told of the limits of its key."""

from __future__ import annotations

import pytest

from proxy.access.key import NUSD, month_of
from proxy.access.limit_errors import Reached, limit_reached
from tests.support.keys import UNIX_S, key_of

KEY = key_of(rpm=5, tpm=100, concurrency=2, monthly_tokens=1000, monthly_nusd=25 * NUSD // 2)
NONE = Reached(
    monthly_tokens=False, monthly_nusd=False, concurrency=False, rpm=False, tpm=False, reserved_tpm=False,
    reserved_tokens=False, tokens_over=0,
)  # fmt: skip
TPM = "The key's limit of 100 tokens a minute is reached. Retry in 12 s."
RESERVED = (
    "What is left of the key's monthly limit is reserved by requests in progress. "
    "Retry when they finish, or set a smaller max_tokens."
)
RESERVED_TPM = RESERVED.replace("monthly limit", "limit of 100 tokens a minute")


@pytest.mark.parametrize(("reached", "status", "param", "message", "wait_s"), [
    ({"monthly_tokens": True}, 402, "monthly_tokens",
     "The key's monthly limit of 1000 tokens is reached. It resets on 2026-07-01, 00:00 UTC.", None),
    ({"monthly_nusd": True}, 402, "monthly_usd",
     "The key's monthly limit of $12.5 is reached. It resets on 2026-07-01, 00:00 UTC.", None),
    ({"concurrency": True}, 429, "concurrency",
     "The key's limit of 2 requests at a time is reached. Retry in 1 s.", 1),
    ({"rpm": True}, 429, "rpm", "The key's limit of 5 requests a minute is reached. Retry in 12 s.", 12),
    ({"tpm": True}, 429, "tpm", TPM, 12),
    ({"tpm": True, "tokens_over": 2}, 429, "tpm", TPM.replace("12 s", "132 s"), 132),
    ({"reserved_tpm": True}, 429, "tpm", RESERVED_TPM, 1),
    ({"reserved_tokens": True}, 429, "monthly_tokens", RESERVED, 1),
    ({}, 429, "monthly_usd", RESERVED, 1),
])  # fmt: skip
def test_what_is_told(reached, status, param, message, wait_s):
    error = limit_reached(KEY, NONE._replace(**reached), 11.5, 60.0, month_of(UNIX_S)[0], b"X: 1\r\n")
    assert (error.status, error.param, error.message, error.retry_after_s) == (status, param, message, wait_s)
    assert error.headers == (b"" if status == 402 else b"X: 1\r\n")


def test_the_limit_that_lasts_longest_is_told():
    order = ["monthly_tokens", "monthly_nusd", "concurrency", "rpm", "tpm"]
    told = []
    for first in range(len(order)):
        reached = NONE._replace(**dict.fromkeys(order[first:], True))
        told.append(limit_reached(KEY, reached, 1.0, 60.0, month_of(UNIX_S)[0], b"").param)
    assert told == ["monthly_tokens", "monthly_usd", "concurrency", "rpm", "tpm"]
