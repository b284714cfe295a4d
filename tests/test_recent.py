"""The rows of the latest requests."""

from __future__ import annotations

import pytest

from proxy.recent import Finished, row
from proxy.retry import Failure
from proxy.usage import Usage
from tests.routecases import deployment

FULL = Finished(
    id=b"req_1",
    begun_at=100.0,
    ready_at=100.001,
    sent_at=100.00104,
    ended_at=102.5,
    endpoint="chat",
    streamed=True,
    model_requested="premium",
    status=200,
    failures=(Failure("x", "503", "answered 503", 0.2), Failure("y", "timeout", "did not answer", 1.0)),
    others=1,
    deployment=deployment("a"),
    first_byte_at=101.25,
    usage=Usage(1000, 400, 0, 200),
    cost_nusd=2_500_000,
)


def test_a_row_in_full():
    assert row(FULL, 1_700_000_000.0) == {
        "id": "req_1",
        "time": 1_700_000_102.5,
        "key": None,
        "endpoint": "chat",
        "stream": True,
        "model_requested": "premium",
        "model": "a/m",
        "provider": "a",
        "status": 200,
        "attempts": 3,
        "failed_attempts": "x:503:200ms, y:timeout:1000ms",
        "ttft_ms": 1250.0,
        "total_ms": 2500.0,
        "overhead_us": 40,
        "input_tokens": 1000,
        "cached_tokens": 400,
        "output_tokens": 200,
        "usd": 0.0025,
        "usage_source": "provider",
    }


def test_a_request_that_found_nobody():
    """Refused before an attempt: no deployment, no times of one, no usage."""
    found = row(
        FULL._replace(
            sent_at=0.0, model_requested=None, status=429, failures=(), others=0, deployment=None,
            first_byte_at=0.0, usage=None, cost_nusd=None,
        ),
        0.0,
    )  # fmt: skip
    assert found["status"] == 429
    assert (found["attempts"], found["failed_attempts"]) == (0, "")
    assert {name for name, value in found.items() if value is None} == {
        "key", "model_requested", "model", "provider", "ttft_ms", "overhead_us", "input_tokens",
        "cached_tokens", "output_tokens", "usd", "usage_source",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "name", "value"),
    [
        ({"others": 0}, "attempts", 2),
        ({"failures": ()}, "attempts", 1),
        ({"usage": Usage(10, 0, 0, 5, estimated=True)}, "usage_source", "estimated"),
        ({"cost_nusd": None}, "usd", None),
        ({"cost_nusd": 0}, "usd", 0.0),
        ({"status": 499}, "status", 499),
    ],
)
def test_what_differs(changes, name, value):
    assert row(FULL._replace(**changes), 0.0)[name] == value
