"""The JSON object that a request to the admin API brings."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from proxy.errors import BadRequest
from proxy.requestbody import read_object, unprocessable


async def read(body: bytes) -> dict:
    request = make_mocked_request("POST", "/admin/v1/x")
    request._read_bytes = body
    return await read_object(request, "invalid_x")


async def test_an_object():
    assert await read(b' {"a": [1, null]} ') == {"a": [1, None]}
    assert await read(b"{}") == {}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a':1}", b'{"a":NaN}', b"\xff", b'{"a":1}x', b'{"a":"\\ud800"}']
)
async def test_what_is_no_json(body):
    with pytest.raises(BadRequest, match=r"^The body is no JSON: .*\.$") as caught:
        await read(body)
    assert (caught.value.status, caught.value.code) == (400, "malformed_json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"a"', b"true"])
async def test_what_is_no_object(body):
    with pytest.raises(BadRequest, match="must be a JSON object") as caught:
        await read(body)
    assert (caught.value.status, caught.value.code) == (422, "invalid_x")


def test_what_cant_be_done():
    error = unprocessable("It can't be.", "invalid_y")
    assert (error.status, error.code, error.type) == (422, "invalid_y", "invalid_request_error")
