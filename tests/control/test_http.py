"""JSON and errors of the admin listener."""

from __future__ import annotations

import json

import pytest
from aiohttp import web

from proxy.control.http import error_response, json_response, rows_response
from proxy.errors import GatewayError, Unauthorized, Unavailable


def test_json():
    response = json_response({"a": [1]}, 201)
    assert (response.status, response.content_type, response.body) == (201, "application/json", b'{"a":[1]}')


def test_an_error_is_in_the_envelope_and_some_say_more_beside_it():
    response = error_response(GatewayError("No.", status=404, code="x"), "req_1", {"Allow": "GET"})
    assert (response.status, response.content_type) == (404, "application/json")
    assert json.loads(response.body)["error"] == {
        "message": "No.", "type": "api_error", "code": "x", "param": None,
    }  # fmt: skip
    assert (response.headers["x-request-id"], response.headers["Allow"]) == ("req_1", "GET")
    assert error_response(Unauthorized("No."), "r").headers["WWW-Authenticate"] == 'Bearer realm="tokenhub"'
    error = Unavailable("No.", code="overloaded", retry_after_s=7)
    assert error_response(error, "r").headers["Retry-After"] == "7"


@pytest.mark.parametrize("count", [0, 3, 200])
async def test_rows_are_sent_whole_in_whatever_pieces(aiohttp_client, count):
    rows = [{"id": number, "text": "x" * 10_000} for number in range(count)]

    async def answer(request: web.Request) -> web.StreamResponse:
        return await rows_response(request, iter(rows), {"Vary": "Accept"})

    app = web.Application()
    app.router.add_get("/", answer)
    client = await aiohttp_client(app)
    response = await client.get("/")
    body = await response.read()
    assert json.loads(body) == {"data": rows}
    assert response.headers["Content-Length"] == str(len(body))
    assert (response.content_type, response.headers["Vary"]) == ("application/json", "Accept")
    head = await client.head("/")
    assert (await head.read(), head.headers["Content-Length"]) == (b"", str(len(body)))
