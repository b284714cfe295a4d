"""What the data listener answers by itself: the catalog, health, and errors in the envelope.

Everything goes through a real gateway, as the hand-over of the connection is half of it.
"""

from __future__ import annotations

import json
import logging

import pytest
from aiohttp import web

from proxy.app import GATEWAY, data_app
from tests.fakes import RawClient, post

TEXT = """
[providers.mock]
base_url = "http://127.0.0.1:1/v1"
api_key_env = "MOCK_KEY"
endpoints = ["chat", "completions", "embeddings"]
[providers.other]
base_url = "http://127.0.0.1:1/v1"
api_key_env = "OTHER_KEY"
[models."mock/big"]
context_window = 1000
max_output_tokens = 100
input_price = 2.5
output_price = 10
capabilities = ["chat", "vision"]
[models."mock/free"]
[models."other/free"]
[models."mock/vectors"]
capabilities = ["embeddings"]
dimensions = 3
[aliases]
best = ["mock/big", "other/free"]
"""


async def ask(server, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request on a connection of its own, which has to be closed behind the answer."""
    client = await RawClient.connect(server)
    await client.send(request)
    answer = await client.response()
    assert await client.rest() == b""
    return answer


async def get(
    server, path: str, method: str = "GET", extra: str = ""
) -> tuple[int, dict[bytes, bytes], bytes]:
    return await ask(server, f"{method} {path} HTTP/1.1\r\nHost: g\r\n{extra}\r\n".encode())


def check_error(answer, status: int, type: str, code: str | None) -> dict:
    got, fields, body = answer
    error = json.loads(body)["error"]
    assert (got, error["type"], error["code"]) == (status, type, code)
    assert error.keys() == {"message", "type", "code", "param"}
    assert fields[b"content-type"].startswith(b"application/json")
    assert fields[b"x-request-id"] == fields[b"x-inferoute-request-id"]
    assert fields[b"x-inferoute-request-id"].startswith(b"req_")
    assert fields[b"x-should-retry"] == (b"true" if status >= 500 else b"false")
    assert fields[b"connection"] == b"close"
    return error


async def test_the_rows_of_models(start):
    server = await start(TEXT, MOCK_KEY="k")
    status, fields, body = await get(server, "/v1/models")
    assert status == 200
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"connection"] == b"close"
    listed = json.loads(body)
    assert listed.keys() == {"object", "data"}
    assert listed["object"] == "list"
    rows = {row["id"]: row for row in listed["data"]}
    assert list(rows) == ["mock/big", "mock/free", "other/free", "mock/vectors", "best"]
    none = dict.fromkeys(rows["mock/big"]["capabilities"], False)
    assert {"chat", "completions", "embeddings", "vision", "tools"} <= none.keys()
    created = rows["mock/big"]["created"]
    assert isinstance(created, int)
    assert rows["mock/big"] == {
        "id": "mock/big",
        "object": "model",
        "created": created,
        "owned_by": "mock",
        "context_window": 1000,
        "max_output_tokens": 100,
        "capabilities": none | {"chat": True, "completions": True, "vision": True},
        "pricing": {"input": 2.5, "output": 10},
    }
    assert rows["mock/free"]["pricing"] is None
    assert rows["mock/free"]["context_window"] is None
    assert rows["mock/vectors"]["capabilities"] == none | {"embeddings": True}
    assert rows["best"] == {
        "id": "best",
        "object": "model",
        "created": created,
        "owned_by": "tokenhub",
        "context_window": 1000,
        "max_output_tokens": 100,
        "capabilities": none | {"chat": True, "completions": True, "vision": True},
        "pricing": None,
    }
    assert (await get(server, "/models"))[2] == body


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize("id", ["mock/big", "mock%2Fbig", "best", "free", "big"])
async def test_one_model(start, prefix, id):
    server = await start(TEXT, MOCK_KEY="k")
    status, _, body = await get(server, f"{prefix}/models/{id}")
    row = json.loads(body)
    assert (status, row["id"], row["object"]) == (200, id.replace("%2F", "/"), "model")
    if "/" in row["id"]:
        assert row in json.loads((await get(server, "/v1/models"))[2])["data"]


@pytest.mark.parametrize("id", ["mock/small", "MOCK/BIG", "a%20b", "%C3%A9", "mock/big/"])
async def test_an_unknown_model(start, id):
    server = await start(TEXT, MOCK_KEY="k")
    error = check_error(await get(server, f"/v1/models/{id}"), 404, "not_found_error", "model_not_found")
    assert error["param"] == "model"


@pytest.mark.parametrize(("id", "nearest"), [("MOCK/BIG", "mock/big"), ("bset", "best"), ("qqqqqq", None)])
async def test_an_unknown_model_is_told_the_nearest(start, id, nearest):
    server = await start(TEXT, MOCK_KEY="k")
    error = check_error(await get(server, f"/v1/models/{id}"), 404, "not_found_error", "model_not_found")
    assert ("Did you mean" in error["message"]) is (nearest is not None)
    assert nearest is None or f"Did you mean '{nearest}'?" in error["message"]


async def test_healthz_and_readyz(start):
    server = await start(TEXT, MOCK_KEY="k")
    for path, answer in (("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})):
        status, fields, body = await get(server, path)
        assert (status, json.loads(body)) == (200, answer)
        assert fields[b"x-inferoute-request-id"].startswith(b"req_")
    server.gateway.unready = True
    status, _, body = await get(server, "/readyz")
    assert (status, json.loads(body)) == (503, {"status": "not ready", "reason": "draining"})
    assert (await get(server, "/healthz"))[0] == 200


async def test_without_any_key_it_lives_but_is_not_ready(start):
    server = await start(TEXT)
    status, fields, body = await get(server, "/readyz")
    assert (status, json.loads(body)["reason"]) == (503, "no provider has a key")
    assert b"x-inferoute-request-id" in fields
    assert (await get(server, "/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", b"POST"),
        ("GET", "/embeddings", b"POST"),
        ("DELETE", "/v1/responses", b"POST"),
        ("OPTIONS", "/v1/chat/completions", b"POST"),
        ("POST", "/v1/models", b"GET,HEAD"),
        ("PUT", "/v1/models/mock/big", b"GET,HEAD"),
        ("DELETE", "/healthz", b"GET,HEAD"),
        ("PATCH", "/readyz", b"GET,HEAD"),
    ],
)
async def test_a_wrong_method(start, method, path, allow):
    server = await start(TEXT, MOCK_KEY="k")
    answer = await get(server, path, method, "Content-Length: 0\r\n")
    error = check_error(answer, 405, "invalid_request_error", "method_not_allowed")
    assert answer[1][b"allow"] == allow
    assert path in error["message"]
    assert method in error["message"]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/models/", "/v2/models", "//v1/models", "/v1/chat/completions/", "/v1/Models",
     "/v1/images/edits", "/v1/audio/transcriptions", "/v1/realtime", "/metrics", "/admin/v1/keys",
     "/../etc/passwd", "/favicon.ico", "/%00", "/%ff", "/" + "x" * 9000],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path(start, method, path):
    server = await start(TEXT, MOCK_KEY="k")
    answer = await get(server, path, method, "Content-Length: 0\r\n" if method == "POST" else "")
    error = check_error(answer, 404, "not_found_error", "unknown_path")
    assert len(error["message"]) < 400
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize(("path", "status"), [("/v1/models", 200), ("/healthz", 200), ("/v1/nothing", 404)])
async def test_head_is_get_without_its_body(start, path, status):
    server = await start(TEXT, MOCK_KEY="k")
    length = (await get(server, path))[1][b"content-length"]
    client = await RawClient.connect(server)
    await client.send(f"HEAD {path} HTTP/1.1\r\nHost: g\r\n\r\n".encode())
    lines = (await client.rest()).split(b"\r\n")
    assert lines[0].split(b" ")[1] == b"%d" % status
    assert lines[-2:] == [b"", b""]  # nothing behind the head
    assert b"Content-Length: " + length in lines


async def test_every_answer_has_an_id_of_its_own(start):
    server = await start(TEXT, MOCK_KEY="k")
    ids = set()
    for path in (
        "/v1/models",
        "/v1/models/best",
        "/v1/models/none",
        "/healthz",
        "/readyz",
        "/",
        "/v1/responses",
    ):
        ids.add((await get(server, path))[1][b"x-inferoute-request-id"])
    assert len(ids) == 7


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /v1/nothing HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /v1/nothing HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\n",
        b"POST /v1/nothing HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"POST /v1/nothing HTTP/1.1\r\nHost: g\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000,
        b'POST /no HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{"}',
    ],
    ids=["whole", "unsent", "chunked", "large", "broken"],
)
async def test_a_body_for_an_unknown_path(start, request_):
    server = await start(TEXT, MOCK_KEY="k")
    client = await RawClient.connect(server)
    await client.send(request_)
    check_error(await client.response(), 404, "not_found_error", "unknown_path")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /healthz HTTP/1.1\r\nHost: g\r\nX-Long: " + b"x" * 20_000 + b"\r\n\r\n",
        b"GET /healthz?" + b"q" * 20_000 + b" HTTP/1.1\r\nHost: g\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: g\r\n" + b"".join(b"X-%d: 1\r\n" % i for i in range(190)) + b"\r\n",
        b"GET /healthz HTTP/1.0\r\n\r\n",
        b"GET http://gateway/healthz HTTP/1.1\r\nHost: g\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: g\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /healthz HTTP/1.1\r\nHost: g\r\nX: \xff\xfe\r\n\r\n",
        b"\r\nGET /healthz HTTP/1.1\r\nHost: g\r\n\r\n",
    ],
    ids=["header", "query", "headers", "http-1.0", "absolute", "upgrade", "body", "latin-1", "empty-line"],
)
async def test_what_the_first_parser_takes_the_second_takes_too(start, request_):
    server = await start(TEXT, MOCK_KEY="k")
    status, fields, body = await ask(server, request_)
    assert (status, json.loads(body)) == (200, {"status": "ok"})
    assert b"x-inferoute-request-id" in fields


@pytest.mark.parametrize(
    "request_",
    [
        b"OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: g\r\nExpect: tea\r\n\r\n",
        b"CONNECT /healthz HTTP/1.1\r\nHost: g\r\n\r\n",
        b"PRI * HTTP/1.1\r\nHost: g\r\n\r\n",
        b"BREW /healthz HTTP/1.1\r\nHost: g\r\n\r\n",
        b"get /healthz HTTP/1.1\r\nHost: g\r\n\r\n",
    ],
    ids=["asterisk", "expect", "connect", "http-2", "method", "lower-case"],
)
async def test_odd_requests_end_in_the_envelope_too(start, request_):
    server = await start(TEXT, MOCK_KEY="k")
    status, fields, body = await ask(server, request_)
    assert 400 <= status < 500
    assert json.loads(body)["error"]["type"] in ("invalid_request_error", "not_found_error")
    assert b"x-inferoute-request-id" in fields


async def test_a_proxied_request_comes_before_it_on_the_same_connection(provider, start):
    server = await start(TEXT.replace("http://127.0.0.1:1/v1", provider.url), MOCK_KEY="k")
    client = await RawClient.connect(server)
    for _ in range(3):
        await client.post(b'{"model":"mock/big"}')
        assert (await client.response())[0] == 200
    await client.send(b"GET /v1/models/mock/big HTTP/1.1\r\nHost: g\r\n\r\n" + post(b'{"model":"mock/big"}'))
    status, fields, body = await client.response()
    assert (status, json.loads(body)["id"], fields[b"connection"]) == (200, "mock/big", b"close")
    assert await client.rest() == b""
    assert provider.connections == 1


async def test_a_request_that_comes_in_pieces(start):
    server = await start(TEXT, MOCK_KEY="k")
    client = await RawClient.connect(server)
    for byte in b"GET /healthz HTTP/1.1\r\nHost: g\r\n\r\n":
        await client.send(bytes([byte]))
    assert (await client.response())[0] == 200


class TestFaults:
    """The middleware, with a handler that fails."""

    async def client(self, aiohttp_client, start, handler):
        server = await start(TEXT, MOCK_KEY="k")
        app = data_app(server.gateway)
        assert app[GATEWAY] is server.gateway
        app.router.add_get("/fails", handler)
        return await aiohttp_client(app)

    async def test_a_fault_is_a_500_that_tells_nothing(self, aiohttp_client, start, caplog):
        async def handler(_request: web.Request) -> web.Response:
            raise RuntimeError("the secret of the house")

        client = await self.client(aiohttp_client, start, handler)
        with caplog.at_level(logging.ERROR, "tokenhub.app"):
            response = await client.get("/fails")
        text = await response.text()
        assert response.status == 500
        assert json.loads(text)["error"] == {
            "message": "The gateway failed at this request; its log says more.",
            "type": "api_error",
            "code": None,
            "param": None,
        }
        assert "secret" not in text + str(response.headers)
        assert "Traceback" not in text
        assert response.headers["x-should-retry"] == "true"
        assert response.headers["X-Inferoute-Request-Id"] == response.headers["x-request-id"]
        assert "the secret of the house" in caplog.text  # for the operator

    async def test_aiohttps_own_errors_become_the_envelope(self, aiohttp_client, start):
        async def handler(_request: web.Request) -> web.Response:
            raise web.HTTPRequestEntityTooLarge(max_size=1, actual_size=2)

        client = await self.client(aiohttp_client, start, handler)
        response = await client.get("/fails")
        assert response.status == 413
        assert (await response.json())["error"]["type"] == "invalid_request_error"
