"""When an attempt's time is up, and whose limit it was. Over sockets: tests/system/test_failover.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from proxy.relay.exchange.time_is_up import time_is_up, timed_out
from proxy.routing.time_limits import default_limits

NEVER = float("inf")
PLAIN, STREAM = default_limits("chat")


@pytest.mark.parametrize(
    ("limits", "done", "client_s", "deadline_s", "up_s", "said", "is_clients", "is_final"),
    [
        (PLAIN, True, NEVER, NEVER, 600.0, "[timeouts] total", False, True),
        (STREAM, True, NEVER, NEVER, 60.0, "[timeouts] first_byte", False, False),
        (STREAM, True, 99.0, NEVER, 60.0, "[timeouts] first_byte", False, False),
        (PLAIN, True, 99.0, NEVER, 99.0, "X-Inferoute-Timeout", True, False),
        (PLAIN, True, NEVER, 50.0, 50.0, "deadline", True, True),
        (STREAM, True, NEVER, 59.0, 59.0, "deadline", False, True),  # it had nearly all of its time
        (STREAM, True, 20.0, 50.0, 20.0, "X-Inferoute-Timeout", True, False),
        # What is not complete has to be taken, and its own time has not begun.
        (PLAIN, False, NEVER, 5.0, 60.0, "[timeouts] first_byte", False, False),
        (PLAIN, False, 2.0, NEVER, 2.0, "X-Inferoute-Timeout", True, False),
    ],
)
def test_the_limit_that_passes_first(
    limits: Any, done: bool, client_s: float, deadline_s: float, up_s: float, said: str, is_clients: bool,
    is_final: bool,
) -> None:  # fmt: skip
    body = SimpleNamespace(done=done)
    request: Any = SimpleNamespace(body=body, client_limit_s=client_s, deadline_s=deadline_s, ready_at=100.0)
    up_at = time_is_up(request, limits, 100.0)
    assert up_at == 100.0 + up_s
    record: Any = SimpleNamespace(asked_at=100.0)
    failure = timed_out(request, record, limits, up_at, 100.0)
    assert failure.what == f"did not answer within {up_s:g} s (limit: {said})"
    assert (failure.is_clients, failure.is_final) == (is_clients, is_final)
