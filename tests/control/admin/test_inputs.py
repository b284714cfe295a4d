"""What a request to the admin API brings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from proxy.control.admin import inputs
from proxy.control.admin.inputs import MAX_SETTINGS_BYTES, check_query, prefers, query_of, read_body
from proxy.errors import BadRequest
from proxy.wire.query import QueryError


def request_with(*parts: bytes, headers: dict[str, str] | None = None, path: str = "/") -> web.Request:
    """A request whose body comes in these parts."""
    loop = asyncio.get_running_loop()
    payload = StreamReader(BaseProtocol(loop), 2**22, loop=loop)
    for part in parts:
        payload.feed_data(part)
    payload.feed_eof()
    return make_mocked_request("POST", path, headers=headers, payload=payload)


async def read(*parts: bytes) -> dict:
    return await inputs.read_object(request_with(*parts), "invalid_x")


@contextlib.contextmanager
def refuses(status: int, code: str, said: str, **more: object) -> Iterator[None]:
    with pytest.raises(BadRequest, match=said) as caught:
        yield
    assert (caught.value.status, caught.value.code) == (status, code)
    assert {name: getattr(caught.value, name) for name in more} == more


# ---------------------------------------------------------------------- the body
async def test_an_object():
    assert await read(b' {"a": [1, null]} ') == {"a": [1, None]}
    assert await read(b"{}") == {}
    assert await read(*(bytes([byte]) for byte in b'{"a":"b"}')) == {"a": "b"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'a':1}", b'{"a":NaN}', b"\xff", b'{"a":1}x', b'{"a":"\\ud800"}', b"[" * 5000]
)
async def test_what_is_no_json(body):
    with refuses(400, "malformed_json", r"^The body is not JSON: .*\.$"):
        await read(body)


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"a"', b"true"])
async def test_what_is_no_object(body):
    with refuses(422, "invalid_x", "must be a JSON object"):
        await read(body)


@pytest.mark.parametrize(("opens", "closes"), [(b"[", b"]"), (b'{"a":', b"}")])
async def test_what_is_nested_like_a_trap(opens, closes):
    assert await read(b'{"a":' + opens * 15 + b"1" + closes * 15 + b"}")
    for levels in (16, 1000):
        with refuses(422, "invalid_x", "nested deeper than 16 levels"):
            await read(b'{"a":' + opens * levels + b"1" + closes * levels + b"}")


async def test_settings_of_a_megabyte_are_none():
    fine = b'{"a":"%b"}' % (b"x" * (MAX_SETTINGS_BYTES - 8))
    assert len(fine) == MAX_SETTINGS_BYTES and await read(fine)
    with refuses(413, "body_too_large", "larger than 1 MiB"):
        await read(fine, b" ")


async def test_a_body_that_is_announced_too_large_or_cant_be_decoded():
    request = request_with(b"never looked at", headers={"Content-Length": "11"})
    with pytest.raises(BadRequest, match=r"^The body is larger than that\.$"):
        await read_body(request, 10, "that")
    assert await request.content.read() == b"never looked at"
    request = request_with(b"abc")
    request.content.set_exception(web.RequestPayloadError("no gzip"))
    with refuses(400, "malformed_body", "Content-Encoding"):
        await read_body(request, 10, "that")


def test_what_cant_be_done():
    error = inputs.unprocessable("It can't be.", "invalid_y")
    assert (error.status, error.code, error.type) == (422, "invalid_y", "invalid_request_error")


# ---------------------------------------------------------------------- the query
def test_what_the_query_sets():
    request = make_mocked_request("GET", "/admin/v1/usage?by=key,day&since=&until=7d&format=")
    check_query(request, "/admin/v1/usage")
    assert query_of(request) == {"by": "key,day", "until": "7d"}


@pytest.mark.parametrize(("path", "query", "said", "param"), [
    ("/admin/v1/usage", "bye=key", "no parameter 'bye': there are by, since, until, key, group,", "bye"),
    ("/admin/v1/requests", "limit=1&limit=1", "'limit' is given more than once", "limit"),
    ("/admin/v1/requests", "limit=&limit=", "'limit' is given more than once", "limit"),
    ("/admin/v1/keys", "name=x", "no parameter 'name': there are none here.", "name"),
    ("/admin/v1/keys", "=", "no parameter ''", ""),
    ("/admin/v1/keys", "x" * 500, "no parameter 'xxx", "x" * 60),
])  # fmt: skip
def test_a_query_that_is_none(path, query, said, param):
    with refuses(400, "invalid_query", said, param=param):
        check_query(make_mocked_request("GET", f"{path}?{query}"), path)


@pytest.mark.parametrize(("accept", "wants_csv"), [
    ("", False), ("*/*", False), ("text/html,application/xhtml+xml,*/*;q=0.8", False),  # a browser
    ("application/json", False), ("application/json, text/csv", False),
    ("text/csv;q=0.5, application/json", False), ("text/csv;q=0", False), ("text/csv;q=x", False),
    ("text/csv", True), ("Text/CSV; header=present", True), ("text/csv, */*;q=0.1", True),
    ("text/csv, application/json;q=0.9", True), ("application/json;q=0.1, text/*", True),
    (" text/csv ; q=0.4 , application/* ; q=0.3", True),
])  # fmt: skip
def test_what_is_preferred(accept, wants_csv):
    assert prefers(accept, "text/csv", "application/json") is wants_csv


def test_a_value_that_can_not_be_is_told_as_a_sentence_that_names_the_parameter():
    for text in ("since is not a day: 'x'", "Since is not a day: 'x'."):
        error = inputs.refused(QueryError("since", text))
        assert (error.status, error.code, error.param) == (400, "invalid_query", "since")
        assert error.message == "Since is not a day: 'x'."
