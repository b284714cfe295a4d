"""The last events of a stream that breaks. What SDKs make of them: tests/e2e/test_sdk_streams.py."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.settings import ENDPOINTS
from proxy.errors import ProviderError
from proxy.wire.stream_errors import last_event

ERROR = ProviderError("The provider 'a' broke\noff.", status=502, code="provider_broke_off")
CREATED = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":'
    b'{"id":"resp_1","object":"response","created_at":77,"status":"in_progress"}}\n\n'
)
NUMBERED = (
    b'event: response.output_text.delta\ndata: {"sequence_number":%d,"delta":"\\"sequence_number\\":9"}\n\n'
)


def words(endpoint: str, tail: bytes = b"", first: bytes = b"") -> list[tuple[str, Any]]:
    """The events: name and data."""
    text = last_event(ERROR, endpoint, b"req_1", first, tail).decode()
    found = re.findall(r"(?:event: (.+)\n)?data: (.+)\n\n", text)
    assert text == "".join((f"event: {name}\n" if name else "") + f"data: {data}\n\n" for name, data in found)
    return [(name, json.loads(data)) for name, data in found]


@pytest.mark.parametrize("endpoint", sorted(set(ENDPOINTS) - {"messages", "responses"}))
def test_the_last_event_of_most_endpoints(endpoint):
    assert words(endpoint) == [("", json.loads(ERROR.envelope()))]


def test_the_last_event_of_messages():
    error = {"type": "api_error", "message": ERROR.message, "code": "provider_broke_off", "param": None}
    assert words("messages") == [("error", {"type": "error", "error": error, "request_id": "req_1"})]


def test_the_last_events_of_responses():
    (first, told), (last, failed) = words("responses", CREATED + NUMBERED % 4)
    assert (first, last) == ("error", "response.failed") == (told["type"], failed["type"])
    own = {"type": "provider_error", "code": "provider_broke_off", "message": ERROR.message, "param": None}
    assert told == {**own, "type": "error", "sequence_number": 5, "error": own}
    response = failed["response"]
    assert (failed["sequence_number"], response["id"], response["created_at"]) == (6, "resp_1", 77)
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": ERROR.message}


def test_of_responses_whose_beginning_is_no_longer_in_the_tail():
    _, (_, failed) = words("responses", NUMBERED % 400, CREATED)
    assert (failed["response"]["id"], failed["sequence_number"]) == ("resp_1", 402)
    _, (_, failed) = words("responses")
    assert (failed["response"]["id"], failed["sequence_number"]) == ("resp_req_1", 1)


@given(st.sampled_from(sorted(ENDPOINTS)), st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_came_before_the_last_event_is_well_formed(endpoint, tail, first):
    assert words(endpoint, CREATED[:-20] + tail, first)
