"""The admin API over its own listener: who may ask, what it answers, and its errors."""

from __future__ import annotations

import gzip
import json
import logging
import time
from urllib.parse import quote

import pytest

from proxy.config.parse import parse
from proxy.control.routes_file import RoutesFile
from proxy.errors import StartError
from proxy.server.single import Server
from tests.support.admin_api import JSON, TEXT, ask, check_error, get
from tests.support.fakes import RawClient


@pytest.fixture
async def with_file(tmp_path):
    """A gateway started from a file, and the file."""
    path = tmp_path / "routes.toml"
    path.write_text(TEXT)
    file = RoutesFile(path)
    server = Server(file.load(), {}, file)
    await server.start()
    yield server, path
    await server.close()


@pytest.fixture
async def server(start):
    return await start(TEXT)


# ---------------------------------------------------------------------- the listener
LISTEN = '[admin]\nlisten = "127.0.0.1:0"'


async def test_switched_off(start):
    server = await start(TEXT.replace(LISTEN, '[admin]\nlisten = ""'))
    assert server.admin_address is None


async def test_an_address_in_use_names_the_way_out_and_is_free_again_afterwards(start):
    first = await start(TEXT)
    taken = f"127.0.0.1:{first.admin_address.port}"
    text = TEXT.replace(LISTEN, f'[admin]\nlisten = "{taken}"')
    with pytest.raises(
        StartError,
        match=rf"{taken}: .* in use\b.*\. It is for the admin API: set \[admin\] listen to another",
    ):
        await start(text)
    await get(first, "/routes")
    await first.close()
    await start(text)


async def test_a_unix_socket(start, tmp_path):
    path = tmp_path / "admin.sock"
    text = TEXT.replace(LISTEN, f'[admin]\nlisten = "unix:{path}"')
    server = await start(text.replace("[server]", '[server]\nsocket_mode = "0600"'))
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await get(server, "/routes", host="whatever"))["data"]
    await server.close()
    assert not path.exists()


async def test_healthz_and_what_is_not_there_yet(server):
    assert (await ask(server, "GET", "/healthz"))[0] == 200
    for path in ("/admin", "/admin/v1", "/admin/v1/key", "/v1/models"):
        check_error(await ask(server, "GET", path), 404, "unknown_path", path)


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("POST", "/healthz", b"GET,HEAD"), ("GET", "/admin/v1/explain", b"POST"),
    ("GET", "/admin/v1/reload", b"POST"), ("PUT", "/admin/v1/aliases", b"GET,HEAD"),
    ("PATCH", "/admin/v1/aliases/x", b"DELETE,GET,HEAD,PUT"),
])  # fmt: skip
async def test_methods(server, method, path, allow):
    fields = check_error(await ask(server, method, path, {}), 405, "method_not_allowed", method)
    assert fields[b"allow"] == allow


async def test_what_is_no_http(server):
    answer = await ask(server, "GET", "/healthz", extra="Broken\r\n")
    assert (answer[0], json.loads(answer[2])["error"]["type"]) == (400, "invalid_request_error")


# ---------------------------------------------------------------------- routes, explain, requests
async def test_routes(server):
    rows = (await get(server, "/routes"))["data"]
    assert [(row["id"], row["provider"], row["endpoint"], row["row"]) for row in rows] == [
        ("mock/big", "mock", None, None),
        ("mock/small", "mock", None, None),
    ]
    client = await RawClient.connect(server)
    await client.post(b'{"model":"mock/small"}')
    assert (await client.response())[0] == 503
    rows = (await get(server, "/routes"))["data"]
    seen = next(row for row in rows if row["id"] == "mock/small" and row["stream"] is False)
    assert (seen["endpoint"], seen["state"], seen["usable"]) == ("chat", "ok", True)
    assert (seen["row"]["finished"], seen["row"]["in_flight"]) == (1, 0)
    assert seen["row"]["last_error"]


COST, FAST = "X-Inferoute-Strategy: cost\r\n", "X-Inferoute-Strategy: fast\r\n"


@pytest.mark.parametrize(("path", "extra", "body", "strategy"), [
    ("?strategy=cost", "", {"model": "both"}, "cost"),
    ("?strategy=cost&endpoint=chat", "", {"model": "both", "strategy": "latency"}, "cost"),
    ("", "", {"body": {"model": "cheap"}}, "cost"),
    # The query goes before the header, which goes before what is in the body.
    ("", COST, {"model": "both"}, "cost"),
    ("", COST, {"model": "both", "strategy": "round-robin"}, "cost"),
    ("?strategy=availability", COST, {"model": "both"}, "availability"),
    ("?strategy=&endpoint=", "", {"model": "both"}, "latency"),
])  # fmt: skip
async def test_explaining_as_the_request_itself_would_be_routed(server, path, extra, body, strategy):
    status, _, answer = await ask(server, "POST", f"/admin/v1/explain{path}", body, extra=extra)
    found = json.loads(answer)
    assert (status, found["strategy"]) == (200, strategy)
    assert [one["id"] for one in found["candidates"]] == ["mock/big", "mock/small"]
    assert found["choice"] == "mock/small" or strategy != "cost"


@pytest.mark.parametrize(("path", "extra", "body", "status", "code"), [
    ("", "", b"no", 400, "malformed_json"), ("", "", {"model": "x"}, 404, "model_not_found"),
    ("", "", {}, 400, "model_required"), ("?strategy=fast", "", {"model": "both"}, 400, "invalid_strategy"),
    ("", FAST, {"model": "both"}, 400, "invalid_strategy"),
    ("?strategie=cost", "", {"model": "both"}, 400, "invalid_query"),
])  # fmt: skip
async def test_explaining_what_can_not_be_routed(server, path, extra, body, status, code):
    check_error(await ask(server, "POST", f"/admin/v1/explain{path}", body, extra=extra), status, code)


async def test_bodies_above_the_limit(start):
    """What is explained may be as large as a request; settings are not."""
    server = await start(TEXT.replace("[server]", '[server]\nmax_body = "3MiB"'))
    body = {"model": "both", "messages": [{"role": "user", "content": "x" * (2 << 20)}]}
    assert (await ask(server, "POST", "/admin/v1/explain", body))[0] == 200
    body["messages"] *= 2
    answer = await ask(server, "POST", "/admin/v1/explain", body)
    check_error(answer, 413, "body_too_large", "[server] max_body")
    for method, path in (("POST", "/keys"), ("PATCH", "/keys/x"), ("PUT", "/aliases/x"), ("POST", "/reload")):
        answer = await ask(server, method, f"/admin/v1{path}", {"name": "x" * (1 << 20)})
        check_error(answer, 413, "body_too_large", "1 MiB")


@pytest.mark.parametrize("path", ["/admin/v1/explain", "/admin/v1/nothing", "/nothing"])
@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x"])
async def test_nothing_is_unpacked(server, path, encoding):
    sent = gzip.compress(b'{"model":"both"}')
    answer = await ask(server, "POST", path, sent, extra=f"Content-Encoding: {encoding}\r\n")
    check_error(answer, 415, "unsupported_encoding", "without Content-Encoding")
    plain = "Content-Encoding: Identity\r\n"
    assert (await ask(server, "POST", "/admin/v1/explain", b'{"model":"both"}', extra=plain))[0] == 200


async def test_parameters_that_are_none(server):
    for path in ("/routes", "/aliases", "/aliases/both", "/keys", "/keys/x", "/live"):
        answer = await ask(server, "GET", f"/admin/v1{path}?limit=5")
        check_error(answer, 400, "invalid_query", "no parameter 'limit'")
    for path in ("/metrics?name[]=up", "/healthz?from=probe"):  # those who scrape are let be
        assert (await ask(server, "GET", path))[0] == 200


async def test_heads_are_as_answers_without_their_body(server):
    for path, status in (("/routes", 200), ("/usage?format=csv", 200), ("/aliases/none", 404)):
        answer = await ask(server, "GET", f"/admin/v1{path}")
        client = await RawClient.to(server.admin_address)
        await client.send(f"HEAD /admin/v1{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = (await client.reader.readuntil(b"\r\n\r\n")).lower()
        assert answer[0] == status
        assert head.startswith(b"http/1.1 %d " % status)
        for name in (b"content-type", b"content-length"):
            assert b"%b: %b\r\n" % (name, answer[1][name]) in head
        await client.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.response())[0] == 200  # nothing was in between


async def test_requests(server):
    assert await get(server, "/requests") == {"data": []}
    for model in ("mock/big", "mock/small"):
        assert await model_status(server, model) == 503
    rows = (await get(server, "/requests"))["data"]
    assert [row["model_requested"] for row in rows] == ["mock/small", "mock/big"]  # newest first
    assert {row["status"] for row in rows} == {503}
    assert abs(rows[0]["time"] - time.time()) < 60
    assert (await get(server, "/requests?model=mock/big&status=error&limit=5"))["data"] == rows[1:]
    for query, param in (("limit=0", "limit"), ("limit=x", "limit"), ("status=ok", "status")):
        answer = await ask(server, "GET", f"/admin/v1/requests?{query}")
        check_error(answer, 400, "invalid_query", f"'{param}'")
        assert json.loads(answer[2])["error"]["param"] == param
    check_error(await ask(server, "GET", "/admin/v1/requests?user=x"), 400, "invalid_query", "'user'")
    assert (await get(server, "/requests?limit=&key=&model=&status="))["data"] == rows  # as forms send it


async def test_a_fault_of_ours_is_told_without_its_text(server, monkeypatch, caplog):
    monkeypatch.setattr("proxy.control.admin.app.route_rows", lambda *_: 1 / 0)
    answer = await ask(server, "GET", "/admin/v1/routes")
    assert answer[0] == 500
    assert b"division" not in answer[2]
    assert "division" in caplog.text


# ---------------------------------------------------------------------- aliases
async def test_reading_aliases(server):
    both, cheap = (await get(server, "/aliases"))["data"]
    assert (both["name"], both["models"], both["strategy"]) == ("both", ["mock/big", "mock/small"], None)
    assert await get(server, "/aliases/cheap") == cheap
    check_error(await ask(server, "GET", "/admin/v1/aliases/none"), 404, "alias_not_found", "'none'")


async def model_status(server: Server, model: str) -> int:
    """404 for a name that is none; 503 for one that is, since no provider is there."""
    client = await RawClient.connect(server)
    await client.post(json.dumps({"model": model}).encode())
    return (await client.response())[0]


async def put(server: Server, name: str, body: object) -> tuple[int, dict]:
    status, _, answer = await ask(server, "PUT", f"/admin/v1/aliases/{name}", body)
    return status, json.loads(answer)


async def test_setting_and_removing_an_alias(with_file):
    server, path = with_file
    status, row = await put(server, "new", {"models": ["mock/big"]})
    assert (status, row["models"]) == (201, ["mock/big"])
    assert await model_status(server, "new") == 503
    assert path.read_text() == TEXT + 'new = ["mock/big"]\n'
    status, row = await put(server, "new", {"models": ["mock/big", "mock/small"], "strategy": "cost"})
    assert (status, row["strategy"]) == (200, "cost")
    assert path.read_text().endswith('new = {models = ["mock/big", "mock/small"], strategy = "cost"}\n')
    status, _, body = await ask(server, "DELETE", "/admin/v1/aliases/new")
    assert (status, json.loads(body), path.read_text()) == (200, {"name": "new", "removed": True}, TEXT)
    assert await model_status(server, "new") == 404
    check_error(await ask(server, "DELETE", "/admin/v1/aliases/new"), 404, "alias_not_found")


async def test_comments_are_kept_and_a_row_can_be_sent_back(with_file):
    server, path = with_file
    for row in (await get(server, "/aliases"))["data"]:
        assert await put(server, row["name"], row) == (200, row)
    assert path.read_text() == TEXT
    await put(server, "both", {"models": ["mock/small"]})
    assert path.read_text() == TEXT.replace('both = ["mock/big", "mock/small"]', 'both = ["mock/small"]')


@pytest.mark.parametrize("name", ["a/b", "a%b", "v1.5", "a%2Fb", '"q"', "a?b#c", ".."])
async def test_names_in_the_path(with_file, name):
    server, path = with_file
    quoted = quote(name, safe="")
    assert (await put(server, quoted, {"models": ["mock/big"]}))[0] == 201
    assert name in server.gateway.config.aliases
    assert parse(path.read_text()).aliases[name].models == ("mock/big",)
    assert (await get(server, f"/aliases/{quoted}"))["name"] == name
    assert (await ask(server, "DELETE", f"/admin/v1/aliases/{quoted}"))[0] == 200
    assert path.read_text() == TEXT


@pytest.mark.parametrize(("name", "body", "said"), [
    ("x", {}, "needs 'models' or 'split'"),
    ("x", {"models": []}, "empty list"),
    ("x", {"models": ["mock/bigg"]}, "did you mean 'mock/big'"),
    ("x", {"models": ["mock/bigg"], "strategy": "fast"}, "unknown strategy 'fast'"),
    ("x", {"models": ["mock/bigg"], "strategy": "fast"}, "unknown model 'mock/bigg'"),
    ("x", {"models": ["mock/big"], "colour": 1}, "unknown setting 'colour'"),
    ("x", {"models": [1]}, "must be text"),
    ("x", {"models": ["mock/big"], "split": {"mock/big": 0}}, "must be from 1"),
    ("x", {"models": ["mock/big", None]}, "null"),
    ("both", {"models": ["cheap"]}, "alias cycle"),
    ("auto", {"models": ["mock/big"]}, "'auto' means all models"),
    ("mock/big", {"models": ["mock/small"]}, "would hide it"),
    ("x", {"name": "y", "models": ["mock/big"]}, "'name' is not the one in the path"),
    ("x", [], "JSON object"),
    ("%20", {"models": ["mock/big"]}, "printable ASCII"),
])  # fmt: skip
async def test_what_is_no_alias_is_not_written(with_file, name, body, said):
    server, path = with_file
    answer = await ask(server, "PUT", f"/admin/v1/aliases/{name.replace('/', '%2F')}", body)
    check_error(answer, 422, "invalid_alias", said)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(("more", "name", "where"), [
    ("", "both", "cheap"),
    ('[routing]\ndefault_models = { chat = "cheap" }\n', "cheap", "[routing] default_models"),
])  # fmt: skip
async def test_an_alias_that_is_used_stays(with_file, more, name, where):
    server, path = with_file
    path.write_text(TEXT + more)
    assert (await ask(server, "POST", "/admin/v1/reload", {}))[0] == 200
    answer = await ask(server, "DELETE", f"/admin/v1/aliases/{name}")
    check_error(answer, 422, "invalid_alias", f"The alias '{name}' is in use: take it out of {where} first.")
    assert path.read_text() == TEXT + more


async def test_nested_settings_are_no_fault_of_ours(with_file, caplog):
    server, path = with_file
    deep = b'{"models":' + b"[" * 900 + b"]" * 900 + b"}"
    answer = await ask(server, "PUT", "/admin/v1/aliases/x", deep)
    check_error(answer, 422, "invalid_alias", "nested deeper")
    answer = await ask(server, "POST", "/admin/v1/explain", b'{"body":%b}' % deep)
    check_error(answer, 400, "model_required")
    assert "fault" not in caplog.text
    assert path.read_text() == TEXT


async def test_a_file_that_somebody_changed_meanwhile(with_file):
    server, path = with_file
    path.write_text(TEXT + "# theirs\n")
    for method in ("PUT", "DELETE"):
        body = {"models": ["mock/big"]} if method == "PUT" else None
        answer = await ask(server, method, "/admin/v1/aliases/cheap", body)
        check_error(answer, 409, "conflict", "was changed meanwhile")
    assert path.read_text() == TEXT + "# theirs\n"


async def test_without_a_file(server):
    answer = await ask(server, "PUT", "/admin/v1/aliases/x", {"models": ["mock/big"]})
    check_error(answer, 409, "conflict", "This gateway was not started from a file")
    check_error(await ask(server, "POST", "/admin/v1/reload", {}), 409, "conflict")


# ---------------------------------------------------------------------- reload
async def test_reload(with_file, caplog):
    caplog.set_level(logging.INFO)
    server, path = with_file
    status, _, body = await ask(server, "POST", "/admin/v1/reload", {})
    assert (status, json.loads(body)) == (200, {"changed": [], "needs_restart": []})
    path.write_text(TEXT.replace("cheap", "dear").replace("[server]", "[server]\nworkers = 3"))
    status, _, body = await ask(server, "POST", "/admin/v1/reload", b"", extra=JSON)
    assert json.loads(body) == {
        "changed": ["alias dear added", "alias cheap removed"],
        "needs_restart": ["server.workers"],
    }
    assert await model_status(server, "dear") == 503
    answer = await ask(server, "POST", "/admin/v1/reload", {"file": "other.toml"})
    check_error(answer, 422, "invalid_reload", "nothing to set here, such as 'file'")
    check_error(await ask(server, "POST", "/admin/v1/reload", b"{"), 400, "malformed_json")


async def test_reload_of_a_bad_file_tells_every_mistake(with_file):
    server, path = with_file
    path.write_text(TEXT + "x = ['mock/none']\ny = 3\n")
    answer = await ask(server, "POST", "/admin/v1/reload", {})
    check_error(answer, 422, "invalid_configuration", f"{path}:21:6: unknown model")
    check_error(answer, 422, "invalid_configuration", f"{path}:22:5: ")
    assert await model_status(server, "cheap") == 503
    path.unlink()
    check_error(await ask(server, "POST", "/admin/v1/reload", {}), 422, "invalid_configuration", "can't read")
