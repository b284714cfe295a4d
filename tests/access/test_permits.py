"""What an account gives out. How it is used: test_limits.py."""

from __future__ import annotations

from proxy.access.permits import Permit


def test_a_permit_grows_with_what_is_reserved():
    permit = Permit(5, 7, 1, 2, 9.0)
    permit.tokens += 1
    assert (permit.tokens, permit.nusd, permit.requests_left, permit.tokens_left) == (6, 7, 1, 2)
    assert permit.ends_at == 9.0
