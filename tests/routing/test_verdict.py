"""What a client is told after several attempts that all failed."""

from __future__ import annotations

import pytest

from proxy.routing.verdict import common_status, is_transient


@pytest.mark.parametrize(
    ("outcomes", "status", "transient"),
    [
        ("500 500", 503, True), ("500 timeout", 503, True), ("timeout timeout", 504, True),
        ("429 429", 429, True), ("429 503", 503, True), ("404 404", 404, False), ("404 400", 503, False),
        ("404 500", 503, True), ("401 401", 503, False), ("402 402", 503, False), ("403 403", 503, False),
        ("no-key no-key", 503, False), ("no-key reset", 503, True), ("connect connect", 503, True),
        ("408 408", 408, True), ("error error", 503, True),
    ],
)  # fmt: skip
def test_the_common_status_and_whether_to_try_again(outcomes: str, status: int, transient: bool) -> None:
    given = outcomes.split()
    assert (common_status(given), is_transient(given)) == (status, transient)
