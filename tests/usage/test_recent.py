"""The latest requests: how many are kept, and in which order."""

from __future__ import annotations

import pytest

from proxy.usage.recent import KEPT, RecentRequests


@pytest.mark.parametrize("size", [1, 7, 64])
def test_so_many_are_kept_whatever_blocks_they_come_in(size):
    latest = RecentRequests()
    assert not latest
    for first in range(0, 5000, size):
        latest.add(b"".join(b"%d\n" % (first + number) for number in range(size)), size)
        assert len(latest) == min(first + size, KEPT)
        assert len(latest._blocks) <= KEPT // size + 2
    newest = first + size - 1
    assert list(latest) == [b"%d" % (newest - number) for number in range(KEPT)]
