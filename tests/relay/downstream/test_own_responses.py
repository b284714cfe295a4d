"""What the data listener answers by itself: models, health, preflights, and errors in the envelope."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import time

import pytest

from proxy.access.model_list import ListQuery, ModelList
from proxy.routing.catalog import Catalog
from tests.support.fakes import RawClient, post, until
from tests.support.keys import CONFIG, make, ready_grant
from tests.support.keys import ask as ask_with_key

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


@pytest.fixture(name="server")
async def _server(start):
    return await start(TEXT, MOCK_KEY="k")


async def ask(server, request: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request on a connection of its own."""
    client = await RawClient.connect(server)
    await client.send(request)
    answer = await client.response()
    client.close()
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
    return error


async def test_the_rows_of_models(server):
    status, fields, body = await get(server, "/v1/models")
    assert status == 200
    assert fields[b"content-type"] == b"application/json"
    assert b"connection" not in fields
    listed = json.loads(body)
    assert listed.keys() == {"object", "data"}
    assert listed["object"] == "list"
    rows = {row["id"]: row for row in listed["data"]}
    assert list(rows) == ["mock/big", "mock/free", "mock/vectors", "best"]  # the other has no key
    none = dict.fromkeys(rows["mock/big"]["capabilities"], False)
    assert {"chat", "completions", "embeddings", "vision", "tools"} <= none.keys()
    created = rows["mock/big"]["created"]
    assert isinstance(created, int)
    big = {
        "id": "mock/big", "object": "model", "created": created, "owned_by": "mock",
        "context_window": 1000, "max_output_tokens": 100,
        "capabilities": none | {"chat": True, "completions": True, "vision": True},
        "pricing": {"input": 2.5, "output": 10},
    }  # fmt: skip
    assert rows["mock/big"] == big
    assert rows["best"] == big | {"id": "best", "owned_by": "tokenhub", "pricing": None}
    assert rows["mock/free"]["pricing"] is None
    assert rows["mock/free"]["context_window"] is None
    assert rows["mock/vectors"]["capabilities"] == none | {"embeddings": True}
    assert (await get(server, "/models"))[2] == body


@pytest.mark.parametrize(
    ("id", "nearest"),
    [("mock/small", ...), ("MOCK/BIG", "mock/big"), ("a%20b", ...), ("%C3%A9", ...), ("mock/big/", ...),
     ("bset", "best"), ("qqqqqq", None)],
)  # fmt: skip
async def test_an_unknown_model_is_told_the_nearest(server, id, nearest):
    error = check_error(await get(server, f"/v1/models/{id}"), 404, "not_found_error", "model_not_found")
    assert error["param"] == "model"
    if nearest is not ...:
        assert ("Did you mean" in error["message"]) is (nearest is not None)
        assert nearest is None or f"Did you mean '{nearest}'?" in error["message"]


async def test_healthz_and_readyz(server):
    healthy = {"status": "ok"}
    for path, answer in (("/healthz", healthy), ("/health", healthy), ("/readyz", {"status": "ready"})):
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


READ, POST = b"GET,HEAD", b"POST"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat/completions", POST), ("GET", "/embeddings", POST),
        ("DELETE", "/v1/responses", POST),
        ("OPTIONS", "/v1/chat/completions", POST), ("CONNECT", "/v1/responses", POST),
        ("post", "/v1/responses", POST), ("BREW", "/healthz", READ), ("OPTIONS", "/v1/models", READ),
        ("POST", "/v1/models", READ), ("PUT", "/v1/models/mock/big", READ), ("DELETE", "/healthz", READ),
        ("POST", "/health", READ), ("PATCH", "/readyz", READ), ("CONNECT", "/healthz", READ),
        ("get", "/healthz", READ),
    ],
)  # fmt: skip
async def test_a_wrong_method(server, method, path, allow):
    answer = await get(server, path, method, "Content-Length: 0\r\n")
    error = check_error(answer, 405, "invalid_request_error", "method_not_allowed")
    assert answer[1][b"allow"] == allow
    assert path in error["message"]
    assert method in error["message"]


@pytest.mark.parametrize(
    "path",
    ["/v1/embedding", "/v1/models/", "/v2/models", "//v1/models", "/v1/chat/completions/", "/v1/Models",
     "/v1/images/edits", "/v1/audio/transcriptions", "/v1/realtime", "/metrics", "/admin/v1/keys",
     "/../etc/passwd", "/favicon.ico", "/%00", "/%ff", "/" + "x" * 9000, "/" * 30_000,
     "/v1/models" + "/a" * 10_000, "/v1/models/" + "%2F" * 1000, "*"],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path(server, method, path):
    answer = await get(server, path, method, "Content-Length: 0\r\n" if method == "POST" else "")
    error = check_error(answer, 404, "not_found_error", "unknown_path")
    assert len(error["message"]) < 400
    known = r"Did you mean /v1/(chat/completions|embeddings|models)\?"
    hint = known + r"|such as /v1/chat/completions; docs/api\.md lists"
    assert re.search(hint, error["message"])


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/api/hello"])
async def test_probes_are_answered_quietly(start, path):
    """What coding agents and balancers ask before anything else; without a key, whoever needs one."""
    server = await start(TEXT + "[auth]\nrequired = true\n", MOCK_KEY="k")
    status, _, body = await get(server, path)
    assert (status, json.loads(body)["name"]) == (200, "TokenHub")
    assert b"\n" not in body
    client = await RawClient.connect(server)
    await client.send(f"HEAD {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n".encode())
    head, _, rest = (await client.rest()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: %d" % len(body) in head.split(b"\r\n")
    assert rest == b""
    error = check_error(
        await get(server, path, "POST", "Content-Length: 0\r\n"), 405, "invalid_request_error",
        "method_not_allowed",
    )  # fmt: skip
    assert "/v1/chat/completions" in error["message"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_version_that_stands_twice_is_named(server, method):
    answer = await get(server, "/v1/v1/chat/completions", method, "Content-Length: 0\r\n")
    error = check_error(answer, 404, "not_found_error", "unknown_path")
    assert "has /v1 twice" in error["message"]
    assert "base URL" in error["message"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 200), ("/v1/models/best", 200), ("/healthz", 200), ("/health", 200), ("/readyz", 200),
     ("/v1/nothing", 404), ("/v1/models/none", 404), ("/v1/responses", 405)],
)  # fmt: skip
async def test_head_is_get_without_its_body(server, client, path, status):
    _, _fields, body = await get(server, path)
    for _ in range(2):  # and the next request is answered behind it
        await client.send(f"HEAD {path} HTTP/1.1\r\nHost: g\r\n\r\n".encode())
        lines = (await client.head()).split(b"\r\n")
        assert lines[0].split(b" ")[1] == b"%d" % status
        # HEAD is a letter longer than GET, where the method is told back.
        assert b"Content-Length: %d" % (len(body) + (status == 405)) in lines
        assert b"Content-Type: application/json" in lines
    await client.send(b"GET /healthz HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
    assert (await client.response())[2] == b'{"status":"ok"}'
    assert await client.rest() == b""


KEPT = {
    "GET": b"GET /nothing HTTP/1.1\r\nHost: g\r\n\r\n",
    "a body of no bytes": b"GET /healthz HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n",
    "a whole body": b"POST /no HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    "a body for health": b"PUT /healthz HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    "1.0 that wants to be kept": b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "no method for it": b"DELETE /v1/responses HTTP/1.1\r\nHost: g\r\n\r\n",
}
CLOSED = {
    # Others may take the body for the next request.
    "GET with a body": b"GET /healthz HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    "HEAD with a body": b"HEAD /nothing HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    "DELETE with a body": b"DELETE /x HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhello",
    "GET with chunks": b"GET /health HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an unknown method": b"BREW /healthz HTTP/1.1\r\nHost: g\r\n\r\n",
    "CONNECT": b"CONNECT /healthz HTTP/1.1\r\nHost: g\r\n\r\n",
    "another protocol": b"GET /healthz HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    # Too much to read, or unknown how much.
    "chunks": b"POST /no HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a long body": b"POST /no HTTP/1.1\r\nHost: g\r\nContent-Length: 99999\r\n\r\n",
    "a body that is asked for": b"POST /no HTTP/1.1\r\nHost: g\r\nContent-Length: 500\r\n"
    b"Expect: 100-continue\r\n\r\n",
    "close": b"GET /healthz HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n",
    "1.0": b"GET /healthz HTTP/1.0\r\n\r\n",
}
NEXT = b"GET /v1/models/best HTTP/1.1\r\nHost: g\r\n\r\n"


@pytest.mark.parametrize("request_", KEPT.values(), ids=KEPT.keys())
async def test_the_connection_is_kept(client, request_):
    for _ in range(2):
        await client.send(request_ + NEXT)
        _, fields, _ = await client.response()
        assert fields.get(b"connection", b"keep-alive") == b"keep-alive"
        assert json.loads((await client.response())[2])["id"] == "best"


@pytest.mark.parametrize("request_", CLOSED.values(), ids=CLOSED.keys())
async def test_the_connection_is_closed(client, request_):
    """One answer, and what stands behind the request is never one."""
    await client.send(request_ + NEXT)
    answered = await client.rest()
    assert answered.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answered


async def test_a_body_that_comes_late(client):
    await client.send(b"POST /no HTTP/1.1\r\nHost: g\r\nContent-Length: 50\r\n\r\nhello")
    assert (await client.response())[0] == 404
    await client.send(b"x" * 45 + NEXT)
    assert json.loads((await client.response())[2])["id"] == "best"


async def test_requests_of_both_kinds_on_one_connection(provider, start):
    server = await start(TEXT.replace("http://127.0.0.1:1/v1", provider.url), MOCK_KEY="k")
    client = await RawClient.connect(server)
    for _ in range(3):
        await client.post(b'{"model":"mock/big"}')
        assert (await client.response())[0] == 200
        await client.send(
            b"GET /v1/models/mock/big HTTP/1.1\r\nHost: g\r\n\r\n" + post(b'{"model":"mock/big"}')
        )
        status, _, body = await client.response()
        assert (status, json.loads(body)["id"]) == (200, "mock/big")
        assert (await client.response())[0] == 200
    assert provider.connections == 1


# ---------------------------------------------------------------------- what can be called

CALLABLE = (
    TEXT
    + """
dear = ["other/free"]
both = ["mock/free", "other/free"]
"""
)


async def rows(server, path: str, extra: str = "") -> dict[str, dict]:
    status, _, body = await get(server, path, extra=extra)
    assert status == 200
    return {row["id"]: row for row in json.loads(body)["data"]}


async def test_what_has_no_key_is_listed_on_demand_only(start):
    other = '[models."other/free"]'
    server = await start(CALLABLE.replace(other, f"{other}\ncontext_window = 9"),
                         MOCK_KEY="k")  # fmt: skip
    callable_ = ["mock/big", "mock/free", "mock/vectors", "best", "both"]
    for query in ("", "?all=false", "?all=0", "?all=No", "?all=", "?x=all=true", "?limit=5"):
        found = await rows(server, f"/v1/models{query}")
        assert list(found) == callable_
        assert not any("available" in row for row in found.values())
    everything = await rows(server, "/v1/models?limit=5&all=true")
    for query in ("all=1", "all=YES", "all=True", "all=on", "all", "%61ll=%31"):
        assert await rows(server, f"/v1/models?{query}") == everything
    assert list(everything) == [
        "mock/big", "mock/free", "other/free", "mock/vectors", "best", "dear", "both",
    ]  # fmt: skip
    assert {id for id, row in everything.items() if row["available"] is True} == set(callable_)
    assert {id for id, row in everything.items() if row["available"] is False} == {"other/free", "dear"}
    for id, row in found.items():
        assert everything[id] == row | {"available": True}
    # Requests for `both` go to the one with a key, and so the other's limits are no matter.
    assert everything["both"]["context_window"] is None
    assert everything["other/free"]["context_window"] == 9


@pytest.mark.parametrize("query", ["all=maybe", "all=2", "all=true%20", "all=1&all=1"])
@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/mock/m"])
async def test_a_flag_that_says_neither_is_refused(start, path, query):
    server = await start(CALLABLE, MOCK_KEY="k")
    for extra in ("", "anthropic-version: 2023-06-01\r\n"):
        status, _, body = await get(server, f"{path}?{query}", extra=extra)
        error = json.loads(body)["error"]
        assert (status, error["code"], error["param"]) == (400, "invalid_query", "all")
        assert "'all'" in error["message"]


async def test_one_that_can_not_be_called_says_so(start):
    server = await start(CALLABLE, MOCK_KEY="k")
    for id, query, available in (
        ("other/free", "", False), ("dear", "", False), ("dear", "?all=true", False),
        ("mock/free", "", None), ("free", "", None), ("both", "?all=true", True),
    ):  # fmt: skip
        row = json.loads((await get(server, f"/v1/models/{id}{query}"))[2])
        assert (row["id"], row.get("available")) == (id, available)


async def test_a_key_that_comes_with_a_reload(start):
    server = await start(CALLABLE, MOCK_KEY="k")
    assert "dear" not in await rows(server, "/v1/models")
    gateway = server.gateway
    usable = dict.fromkeys(gateway.config.providers, True)
    gateway.adopt(gateway.config, Catalog(gateway.config, usable, 5), gateway.providers)
    found = await rows(server, "/v1/models")
    assert {"dear", "other/free"} <= found.keys()
    assert {row["created"] for row in found.values()} == {5}


# ---------------------------------------------------------------------- keys


async def test_a_list_counts_as_a_request(provider, start):
    server = await start(CONFIG.format(url=provider.url, more=""))
    _, secret = await make(server, rpm=5)
    extra = f"Authorization: Bearer {secret.decode()}\r\n"
    for left, path in ((4, "/v1/models"), (3, "/v1/models/mock/m"), (2, "/v1/models/none"), (1, "/models")):
        _, fields, _ = await get(server, path, extra=extra)
        if "none" not in path:
            assert fields[b"x-ratelimit-limit-requests"] == b"5"
            assert fields[b"x-ratelimit-remaining-requests"] == b"%d" % left
    client = await RawClient.connect(server)
    assert (await ask_with_key(client, secret))[0] == 200
    for path in ("/v1/models", "/v1/models?all=true", "/v1/models/mock/m"):
        answer = await get(server, path, extra=extra)
        assert answer[0] == 429
        error = json.loads(answer[2])["error"]
        assert (error["code"], error["param"]) == ("rate_limit_exceeded", "rpm")
        assert int(answer[1][b"retry-after"]) > 0
        assert answer[1][b"x-ratelimit-remaining-requests"] == b"0"
    assert (await get(server, "/healthz", extra=extra))[0] == 200


async def test_lists_of_keys_are_kept_by_what_they_say(provider, start):
    server = await start(CONFIG.format(url=provider.url, more=""))
    secrets = [(await make(server, name=f"k{n}", models=["mock/m"]))[1].decode() for n in range(3)]
    for secret in secrets:
        found = await rows(server, "/v1/models", f"Authorization: Bearer {secret}\r\n")
        assert list(found) == ["mock/m"]
    models = server.gateway.routes.models
    assert list(models._lists) == [ListQuery(("mock/m",), False)]


# ---------------------------------------------------------------------- many models

COUNT = 5000


@pytest.fixture
async def large(start):
    """A gateway with 5,000 models, half of them with a key; and the most CPU time that one turn of its event
    loop took since it was asked before."""
    models = "".join(f'[models."{"ab"[n % 2]}/m{n}"]\ncontext_window = {n + 1}\n' for n in range(COUNT))
    each = 'base_url = "http://127.0.0.1:1/v1"\napi_key_env = '
    aliases = "[aliases]\n" + "".join(f'x{n} = ["a/m{n}", "b/m{n + 1}"]\n' for n in range(0, 200, 2))
    text = f'[providers.a]\n{each}"A"\n[providers.b]\n{each}"B"\n{models}{aliases}'
    server = await start(text, A="k")
    gc.collect()
    gc.freeze()  # as after a start
    for job in server._control._jobs:  # the samples for the dashboard take their time too
        await job.stop()
    loop, most, before = asyncio.get_running_loop(), [0.0], [time.thread_time()]

    def turn() -> None:
        now = time.thread_time()
        most[0] = max(most[0], now - before[0])
        before[0] = now
        timer[0] = loop.call_soon(turn)

    timer = [loop.call_soon(turn)]

    def longest_s() -> float:
        longest, most[0] = most[0], 0.0
        return longest

    yield server, longest_s
    timer[0].cancel()
    gc.unfreeze()


def fetch(port: int, path: str, extra: str = "") -> int:
    """How many rows a client gets, which is none of this thread."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n{extra}\r\n".encode())
        got = b""
        while data := sock.recv(1 << 20):
            got += data
    return got.count(b'"object":"model"')


async def test_no_list_holds_up_the_event_loop(large):
    server, longest_s = large
    port = server.addresses[0].port
    globs = [f"a/m{n}[0-9]?*" for n in range(198)]
    _, listed = await make(server, models=[*globs, "a/*", "x2"])
    _, plain = await make(server, name="plain")
    begun = time.thread_time()
    for _ in ModelList(server.gateway.catalog).build(ListQuery(None, True), None):
        pass
    whole_s = time.thread_time() - begun  # this is done in parts
    await asyncio.sleep(0)
    longest_s()
    seen = []
    lists = [("", plain), ("?all=true", plain), ("", listed), ("?all=true", listed), ("", plain)]
    for query, secret in lists:
        path, key = f"/v1/models{query}", f"Authorization: Bearer {secret.decode()}\r\n"
        many = [asyncio.to_thread(fetch, port, path, key) for _ in range(3)]
        seen += await asyncio.gather(*many)
    assert seen == [count for count in (2600, 5100, 2600, 2600, 2600) for _ in range(3)]
    assert longest_s() < whole_s / 2
    assert repr(server.gateway.sliced_jobs) == "<SlicedJobs []>"


def ask_model(port: int, secret: bytes, name: str, pieces: int) -> tuple[int, bytes]:
    """The status and error's code of a request that names a model, sent in so many pieces at once."""
    body = json.dumps({"model": name, "messages": "x" * 300_000 if pieces > 1 else "x"}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: %d\r\n"
    data = head % len(body) + b"Authorization: Bearer %b\r\n\r\n" % secret + body
    size = -(-len(data) // pieces)
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        for at in range(0, len(data), size):
            sock.sendall(data[at : at + size])
        got = b""
        while piece := sock.recv(1 << 20):
            got += piece
    code = re.search(rb'"code":"(\w+)"', got)
    return int(got[9:12]), b"" if code is None else code[1]


@pytest.mark.parametrize("pieces", [1, 9])
async def test_no_list_of_patterns_holds_up_the_event_loop(large, pieces):
    server, longest_s = large
    port, catalog = server.addresses[0].port, server.gateway.catalog
    lists = [(*(f"a/m{n}{at}[0-9]?*" for at in range(199)), "a/m1*") for n in range(4)]
    begun = time.thread_time()
    ready_grant(catalog, models=lists[0])
    whole_s = time.thread_time() - begun  # this is done in parts, whatever is asked for first
    secrets = [(await make(server, name=f"k{n}", models=models))[1] for n, models in enumerate(lists)]
    await asyncio.sleep(0)
    longest_s()
    refused, tried = (403, b"model_not_allowed"), (503, b"provider_unreachable")
    for secret, name, answer in zip(
        secrets, ["b/m1", "x2", "a/m10", "auto"], [refused, refused, tried, None], strict=True
    ):
        many = [asyncio.to_thread(ask_model, port, secret, name, pieces) for _ in range(3)]
        answers = await asyncio.gather(*many)
        if answer is None:  # some of several are asked
            assert {status for status, _ in answers} <= {502, 503}
        else:
            assert answers == [answer] * 3
    assert longest_s() < whole_s / 2
    assert repr(server.gateway.sliced_jobs) == "<SlicedJobs []>"


async def test_who_leaves_while_a_list_is_built_is_no_matter(large):
    server, _ = large
    leaving = await RawClient.connect(server)
    await leaving.send(NEXT.replace(b"/best", b""))
    await until(lambda: repr(server.gateway.sliced_jobs) == "<SlicedJobs [1]>")
    leaving.close()
    assert await asyncio.to_thread(fetch, server.addresses[0].port, "/v1/models") == 2600


async def test_a_configuration_that_comes_while_a_list_is_built(large):
    server, _ = large
    gateway = server.gateway
    client = await RawClient.connect(server)
    await client.send(NEXT.replace(b"/best", b"") * 2)
    await until(lambda: repr(gateway.sliced_jobs) == "<SlicedJobs [1]>")
    gateway.adopt(gateway.config, Catalog(gateway.config, {"a": True, "b": True}, 5), gateway.providers)
    for _ in range(2):
        assert len(json.loads((await client.response())[2])["data"]) == 5100


async def test_a_fault_in_building_a_list_is_told(large, monkeypatch, caplog):
    server, _ = large

    def make(self: ModelList, name: str, *rest: object) -> None:
        if name == "x0":
            raise RuntimeError("no")
        return real(self, name, *rest)

    real = ModelList._make
    monkeypatch.setattr(ModelList, "_make", make)
    leaving = await RawClient.connect(server)
    await until(lambda: server.gateway.connections)
    [left] = server.gateway.connections
    client = await RawClient.connect(server)
    for each in (leaving, client):
        await each.send(NEXT.replace(b"/best", b""))
    await until(lambda: repr(server.gateway.sliced_jobs) == "<SlicedJobs [2]>")
    leaving.close()
    check_error(await client.response(), 500, "api_error", None)
    assert repr(left) == "<ClientConnection closed None>"  # nothing is written to who has left
    assert "internal error in a job that requests wait for" in caplog.messages
    monkeypatch.setattr(ModelList, "_make", real)
    assert await asyncio.to_thread(fetch, server.addresses[0].port, "/v1/models") == 2600
