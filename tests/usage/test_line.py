"""Rows made of ledger lines as they are written. What lines say of requests is in test_closing.py."""

from __future__ import annotations

import orjson
import pytest

from proxy.usage.line import row

FULL = {
    "id": "req_1", "t": 1_700_000_102.50004, "key": "key_1", "endpoint": "chat", "stream": True,
    "asked": "premium", "status": 200, "attempts": 3, "ms": 2500.0004,
    "failed": "x:503:200ms, y:timeout:1000ms", "overhead_us": 40.3, "model": "a/m", "provider": "a",
    "ttft_ms": 1250.0, "input": 1000, "output": 200, "nusd": 2_500_000, "source": "provider", "cached": 400,
}  # fmt: skip
NAMES = {"key_1": "prod"}


def row_of(changes: dict, *left_out: str) -> dict:
    line = {name: value for name, value in {**FULL, **changes}.items() if name not in left_out}
    return row(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE), NAMES.get)


def test_a_row_in_full():
    assert row_of({}) == {
        "id": "req_1", "time": 1_700_000_102.5, "key": "prod", "key_id": "key_1", "group": None, "tags": {},
        "endpoint": "chat", "stream": True, "model_requested": "premium", "alias": None,
        "model": "a/m", "provider": "a", "status": 200, "attempts": 3,
        "failed_attempts": "x:503:200ms, y:timeout:1000ms", "ttft_ms": 1250.0,
        "total_ms": 2500.0, "overhead_us": 40, "input_tokens": 1000, "cached_tokens": 400,
        "output_tokens": 200, "usd": 0.0025, "usage_source": "provider",
    }  # fmt: skip


def test_a_request_that_found_nobody():
    """Refused before an attempt: no deployment, no times of one, no usage."""
    found = row_of(
        {"key": None, "asked": None, "status": 429, "attempts": 0}, "failed", "overhead_us", "model",
        "provider", "ttft_ms", "input", "output", "nusd", "source", "cached",
    )  # fmt: skip
    assert found["status"] == 429
    assert (found["attempts"], found["failed_attempts"]) == (0, "")
    assert {name for name, value in found.items() if value is None} == {
        "key", "key_id", "group", "model_requested", "alias", "model", "provider", "ttft_ms",
        "overhead_us", "input_tokens", "cached_tokens", "output_tokens", "usd", "usage_source",
    }  # fmt: skip


@pytest.mark.parametrize(("changes", "name", "value"), [
    ({"source": "estimated"}, "usage_source", "estimated"),
    ({"nusd": None}, "usd", None),
    ({"nusd": 0}, "usd", 0.0),
    ({"hedged": [{"nusd": 1_000_000}, {"nusd": None}]}, "usd", 0.0035),
    ({"status": 499}, "status", 499),
    ({"key": "key_gone"}, "key", None),
    ({"group": "g"}, "group", "g"),
    ({"alias": "premium"}, "alias", "premium"),
    ({"tags": {"team": "a"}, "client_tags": {"app": "b"}}, "tags", {"team": "a", "app": "b"}),
])  # fmt: skip
def test_what_differs(changes, name, value):
    assert row_of(changes)[name] == value


def test_without_a_cached_part_it_is_none_of_it():
    assert row_of({}, "cached")["cached_tokens"] == 0
