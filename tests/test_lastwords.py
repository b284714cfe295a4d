"""What a stream that breaks off ends with, by endpoint."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ENDPOINTS
from proxy.errors import ProviderError
from proxy.lastwords import last_words

ERROR = ProviderError("The provider 'a' broke\noff.", status=502, code="provider_broke_off")
CREATED = (
    b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":'
    b'{"id":"resp_1","object":"response","created_at":77,"status":"in_progress"}}\n\n'
)
DELTA = (
    b'event: response.output_text.delta\ndata: {"sequence_number":%d,"delta":"\\"sequence_number\\":9"}\n\n'
)


def words(endpoint: str, tail: bytes = b"", first: bytes = b"") -> list[tuple[str, dict]]:
    """The events: name and data."""
    text = last_words(ERROR, endpoint, b"req_1", first, tail).decode()
    found = re.findall(r"(?:event: (.+)\n)?data: (.+)\n\n", text)
    assert text == "".join((f"event: {name}\n" if name else "") + f"data: {data}\n\n" for name, data in found)
    return [(name, json.loads(data)) for name, data in found]


@pytest.mark.parametrize("endpoint", sorted(set(ENDPOINTS) - {"messages", "responses"}))
def test_of_most_endpoints(endpoint):
    assert words(endpoint) == [("", json.loads(ERROR.envelope()))]


def test_of_messages():
    error = {"type": "api_error", "message": ERROR.message, "code": "provider_broke_off", "param": None}
    assert words("messages") == [("error", {"type": "error", "error": error, "request_id": "req_1"})]


def test_of_responses():
    (first, told), (last, failed) = words("responses", CREATED + DELTA % 4)
    assert (first, last) == ("error", "response.failed") == (told["type"], failed["type"])
    what = {"code": "provider_broke_off", "message": ERROR.message, "param": None}
    assert what.items() <= told.items()
    assert told["error"] == what | {"type": "provider_error"}
    assert (told["sequence_number"], failed["sequence_number"]) == (5, 6)
    response = failed["response"]
    assert (response["id"], response["created_at"], response["status"]) == ("resp_1", 77, "failed")
    assert response["error"] == {"code": "provider_broke_off", "message": ERROR.message}


def test_of_responses_whose_beginning_is_no_longer_in_the_tail():
    _, (_, failed) = words("responses", DELTA % 400, CREATED)
    assert (failed["response"]["id"], failed["sequence_number"]) == ("resp_1", 402)
    _, (_, failed) = words("responses")
    assert (failed["response"]["id"], failed["sequence_number"]) == ("resp_req_1", 1)


@given(st.sampled_from(sorted(ENDPOINTS)), st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_came_before_it_is_well_formed(endpoint, tail, first):
    assert words(endpoint, CREATED[:-20] + tail, first)
