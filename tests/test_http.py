"""JSON and errors of the admin listener."""

from __future__ import annotations

import json

from proxy.errors import GatewayError, Unauthorized, Unavailable
from proxy.http import error_response, json_response


def test_json():
    response = json_response({"a": [1]}, 201)
    assert (response.status, response.content_type, response.body) == (201, "application/json", b'{"a":[1]}')


def test_an_error_is_in_the_envelope():
    response = error_response(GatewayError("No.", status=404, code="x"), "req_1", {"Allow": "GET"})
    assert (response.status, response.content_type) == (404, "application/json")
    assert json.loads(response.body)["error"] == {
        "message": "No.", "type": "api_error", "code": "x", "param": None,
    }  # fmt: skip
    assert (response.headers["x-request-id"], response.headers["Allow"]) == ("req_1", "GET")


def test_what_some_errors_say_beside():
    assert error_response(Unauthorized("No."), "r").headers["WWW-Authenticate"] == 'Bearer realm="tokenhub"'
    error = Unavailable("No.", code="overloaded", retry_after_s=7)
    assert error_response(error, "r").headers["Retry-After"] == "7"
