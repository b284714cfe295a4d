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
from tests.support.fakes import RawClient

TEXT = """
[server]
listen = ["127.0.0.1:0"]
[state]
path = ":memory:"
[admin]
listen = "127.0.0.1:0"
[providers.mock]
base_url = "http://127.0.0.1:1/v1"
auth = "none"
[models."mock/big"]
input_price = 2
output_price = 2
[models."mock/small"]
input_price = 1
output_price = 1
[aliases]
# the usual ones
both = ["mock/big", "mock/small"]  # in this order
cheap = { models = ["both"], strategy = "cost" }
"""
JSON = "Content-Type: application/json\r\n"


async def ask(
    server: Server, method: str, path: str, body: object = None, extra: str = "", host: str = "localhost"
) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request to the admin listener. Status, headers, body."""
    listen = server.admin_address
    assert listen is not None
    client = await RawClient.to(listen)
    sent = b""
    if body is not None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra += f"{'' if 'Content-Type' in extra else JSON}Content-Length: {len(sent)}\r\n"
    host_line = f"Host: {host}\r\n" if host else ""
    await client.send(f"{method} {path} HTTP/1.1\r\n{host_line}{extra}\r\n".encode() + sent)
    answer = await client.response()
    client.close()
    return answer


async def get(server: Server, path: str, **how) -> dict:
    status, fields, body = await ask(server, "GET", f"/admin/v1{path}", **how)
    assert (status, fields[b"content-type"]) == (200, b"application/json")
    return json.loads(body)


def check_error(answer, status: int, code: str, said: str = "") -> dict[bytes, bytes]:
    got, fields, body = answer
    error = json.loads(body)["error"]
    assert (got, error["code"]) == (status, code), error
    assert error.keys() == {"message", "type", "code", "param"}
    assert said in error["message"]
    assert fields[b"content-type"] == b"application/json"
    assert fields[b"x-request-id"].startswith(b"req_")
    return fields


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


# ---------------------------------------------------------------------- the listener


async def test_it_is_not_on_the_data_listener(start):
    server = await start(TEXT)
    client = await RawClient.connect(server)
    await client.send(b"GET /admin/v1/routes HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await client.response())[0] == 404
    assert server.admin_address.port not in (0, server.addresses[0].port)


async def test_switched_off(start):
    server = await start(TEXT.replace('[admin]\nlisten = "127.0.0.1:0"', '[admin]\nlisten = ""'))
    assert server.admin_address is None


async def test_an_address_in_use_names_the_way_out(start):
    first = await start(TEXT)
    taken = f"127.0.0.1:{first.admin_address.port}"
    with pytest.raises(StartError, match=rf"{taken}: .* in use\. .*\[admin\] listen"):
        await start(TEXT.replace('[admin]\nlisten = "127.0.0.1:0"', f'[admin]\nlisten = "{taken}"'))


async def test_a_unix_socket(start, tmp_path):
    path = tmp_path / "admin.sock"
    server = await start(
        TEXT.replace('listen = "127.0.0.1:0"', f'listen = "unix:{path}"').replace(
            "[server]", '[server]\nsocket_mode = "0600"'
        )
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert (await get(server, "/routes", host="whatever"))["data"]
    await server.close()
    assert not path.exists()


async def test_the_address_is_free_again_afterwards(start):
    server = await start(TEXT)
    taken = f"127.0.0.1:{server.admin_address.port}"
    await get(server, "/routes")
    await server.close()
    await start(TEXT.replace('[admin]\nlisten = "127.0.0.1:0"', f'[admin]\nlisten = "{taken}"'))


async def test_healthz_and_what_is_not_there_yet(start):
    server = await start(TEXT)
    assert (await ask(server, "GET", "/healthz"))[0] == 200
    for path in ("/admin", "/admin/v1", "/admin/v1/key", "/v1/models"):
        check_error(await ask(server, "GET", path), 404, "unknown_path", path)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/healthz", b"GET,HEAD"),
        ("GET", "/admin/v1/explain", b"POST"),
        ("GET", "/admin/v1/reload", b"POST"),
        ("PUT", "/admin/v1/aliases", b"GET,HEAD"),
        ("PATCH", "/admin/v1/aliases/x", b"DELETE,GET,HEAD,PUT"),
    ],
)
async def test_methods(start, method, path, allow):
    server = await start(TEXT)
    fields = check_error(await ask(server, method, path, {}), 405, "method_not_allowed", method)
    assert fields[b"allow"] == allow


async def test_what_is_no_http(start):
    server = await start(TEXT)
    answer = await ask(server, "GET", "/healthz", extra="Broken\r\n")
    assert answer[0] == 400
    assert json.loads(answer[2])["error"]["type"] == "invalid_request_error"


# ---------------------------------------------------------------------- who may ask


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("localhost", True),
        ("LOCALHOST:8081", True),
        ("127.0.0.1:1", True),
        ("127.1.2.3", True),
        ("[::1]:8081", True),
        ("", False),
        ("evil.example", False),
        ("evil.localhost", False),
        ("localhost.evil.example", False),
        ("10.0.0.1:8081", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("localhost\r\nHost: evil.example", False),
    ],
)
async def test_hosts(start, host, fine):
    """A name that somebody made lead here (DNS rebinding) is told by the Host."""
    server = await start(TEXT)
    for path in ("/healthz", "/admin/v1/routes"):
        answer = await ask(server, "GET", path, host=host)
        if fine:
            assert answer[0] == 200
        elif answer[0] != 400:  # what aiohttp's parser refuses by itself
            check_error(answer, 403, "foreign_host")


@pytest.mark.parametrize(
    ("origin", "fine"),
    [
        ("http://localhost:8081", True),
        ("HTTP://LocalHost:8081", True),
        ("https://localhost:8081", True),
        ("http://localhost", False),
        ("http://127.0.0.1:8081", False),
        ("http://localhost:3000", False),
        ("https://evil.example", False),
        ("null", False),
        ("localhost:8081", False),
        ("", False),
    ],
)
async def test_origins(start, origin, fine):
    server = await start(TEXT)
    answer = await ask(
        server, "GET", "/admin/v1/routes", extra=f"Origin: {origin}\r\n", host="localhost:8081"
    )
    if fine:
        assert answer[0] == 200
    else:
        check_error(answer, 403, "foreign_origin")


@pytest.mark.parametrize(
    ("given", "fine"),
    [
        ("Bearer s3cret", True),
        ("bearer  s3cret", True),
        ("Bearer s3cre", False),
        ("Bearer s3crets", False),
        ("Bearer", False),
        ("Basic s3cret", False),
        ("s3cret", False),
        ("Bearer sécret", False),
        (None, False),
    ],
)
async def test_the_token(start, given, fine):
    server = await start(TEXT.replace("[admin]", '[admin]\ntoken_env = "T"'), T="s3cret")
    extra = f"Authorization: {given}\r\n" if given else ""
    answer = await ask(server, "GET", "/admin/v1/routes", extra=extra)
    if fine:
        assert answer[0] == 200
    else:
        fields = check_error(answer, 401, "invalid_admin_token")
        assert fields[b"www-authenticate"].startswith(b"Bearer")
        assert b"s3cret" not in answer[2]
        check_error(await ask(server, "GET", "/nothing", extra=extra), 401, "invalid_admin_token")
    assert (await ask(server, "GET", "/healthz", extra=extra))[0] == 200
    assert (await ask(server, "GET", "/admin/v1/routes", extra=extra, host="evil.example"))[0] == 403


@pytest.mark.parametrize("environ", [{}, {"T": ""}, {"T": " "}])
async def test_a_token_that_is_empty(start, environ):
    with pytest.raises(StartError, match="T, but that variable is empty"):
        await start(TEXT.replace("[admin]", '[admin]\ntoken_env = "T"'), **environ)


async def test_with_a_token_a_public_listener_goes_by_any_name(start):
    text = TEXT.replace('[admin]\nlisten = "127.0.0.1:0"', '[admin]\nlisten = "0.0.0.0:0"\ntoken_env = "T"')
    server = await start(text, T="s3cret")
    token = "Authorization: Bearer s3cret\r\n"
    assert (await ask(server, "GET", "/admin/v1/routes", extra=token, host="gateway.example"))[0] == 200
    other = token + "Origin: http://evil.example\r\n"
    answer = await ask(server, "GET", "/admin/v1/routes", extra=other, host="gateway.example")
    check_error(answer, 403, "foreign_origin")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/admin/v1/aliases/x"),
        ("POST", "/admin/v1/explain"),
        ("POST", "/admin/v1/reload"),
        ("DELETE", "/admin/v1/aliases/both"),
    ],
)
@pytest.mark.parametrize("type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
async def test_writes_are_json(start, method, path, type):
    server = await start(TEXT)
    answer = await ask(server, method, path, {}, extra=f"Content-Type: {type}\r\n")
    check_error(answer, 415, "unsupported_media_type")


# ---------------------------------------------------------------------- routes, explain, requests


async def test_routes(start):
    server = await start(TEXT)
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


async def test_explain(start):
    server = await start(TEXT)
    for path, body in (
        ("?strategy=cost", {"model": "both"}),
        ("?strategy=cost&endpoint=chat", {"model": "both", "strategy": "latency"}),
        ("", {"body": {"model": "cheap"}}),
    ):
        status, _, answer = await ask(server, "POST", f"/admin/v1/explain{path}", body)
        found = json.loads(answer)
        assert (status, found["choice"], found["strategy"]) == (200, "mock/small", "cost")
        assert [one["id"] for one in found["candidates"]] == ["mock/big", "mock/small"]
    check_error(await ask(server, "POST", "/admin/v1/explain", b"no"), 400, "malformed_json")
    check_error(await ask(server, "POST", "/admin/v1/explain", {"model": "x"}), 404, "model_not_found")
    check_error(await ask(server, "POST", "/admin/v1/explain", {}), 400, "model_required")


async def test_explaining_as_the_request_itself_would_be_routed(start):
    """The query goes before the header, which goes before what is in the body."""
    server = await start(TEXT)
    header = "X-Inferoute-Strategy: cost\r\n"
    for path, extra, body, strategy in (
        ("", header, {"model": "both"}, "cost"),
        ("", header, {"model": "both", "strategy": "round-robin"}, "cost"),
        ("?strategy=availability", header, {"model": "both"}, "availability"),
        ("?strategy=&endpoint=", "", {"model": "both"}, "latency"),
    ):
        answer = await ask(server, "POST", f"/admin/v1/explain{path}", body, extra=extra)
        assert (answer[0], json.loads(answer[2])["strategy"]) == (200, strategy)
    for path, extra, code in (
        ("?strategy=fast", "", "invalid_strategy"),
        ("", "X-Inferoute-Strategy: fast\r\n", "invalid_strategy"),
        ("?strategie=cost", "", "invalid_query"),
    ):
        answer = await ask(server, "POST", f"/admin/v1/explain{path}", {"model": "both"}, extra=extra)
        check_error(answer, 400, code)


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
async def test_nothing_is_unpacked(start, path, encoding):
    server = await start(TEXT)
    sent = gzip.compress(b'{"model":"both"}')
    answer = await ask(server, "POST", path, sent, extra=f"Content-Encoding: {encoding}\r\n")
    check_error(answer, 415, "unsupported_encoding", "without Content-Encoding")
    answer = await ask(
        server, "POST", "/admin/v1/explain", b'{"model":"both"}', extra="Content-Encoding: Identity\r\n"
    )
    assert answer[0] == 200


@pytest.mark.parametrize("path", ["/routes", "/aliases", "/aliases/both", "/keys", "/keys/x", "/live"])
async def test_parameters_that_are_none(start, path):
    server = await start(TEXT)
    answer = await ask(server, "GET", f"/admin/v1{path}?limit=5")
    check_error(answer, 400, "invalid_query", "no parameter 'limit'")


async def test_parameters_of_who_scrapes_are_let_be(start):
    server = await start(TEXT)
    assert (await ask(server, "GET", "/metrics?name[]=up"))[0] == 200
    assert (await ask(server, "GET", "/healthz?from=probe"))[0] == 200


async def test_heads_are_as_answers_without_their_body(start):
    server = await start(TEXT)
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


async def test_requests(start):
    server = await start(TEXT)
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


async def test_a_fault_of_ours_is_told_without_its_text(start, monkeypatch, caplog):
    server = await start(TEXT)
    monkeypatch.setattr("proxy.control.admin.app.route_rows", lambda *_: 1 / 0)
    answer = await ask(server, "GET", "/admin/v1/routes")
    assert answer[0] == 500
    assert b"division" not in answer[2]
    assert "division" in caplog.text


# ---------------------------------------------------------------------- aliases


async def test_reading_aliases(start):
    server = await start(TEXT)
    both, cheap = (await get(server, "/aliases"))["data"]
    assert (both["name"], both["models"], both["strategy"]) == ("both", ["mock/big", "mock/small"], None)
    assert await get(server, "/aliases/cheap") == cheap
    check_error(await ask(server, "GET", "/admin/v1/aliases/none"), 404, "alias_not_found", "'none'")


async def model_status(server: Server, model: str) -> int:
    """404 for a name that is none; 503 for one that is, since no provider is there."""
    client = await RawClient.connect(server)
    await client.post(json.dumps({"model": model}).encode())
    return (await client.response())[0]


async def test_setting_and_removing_an_alias(with_file):
    server, path = with_file
    status, _, body = await ask(server, "PUT", "/admin/v1/aliases/new", {"models": ["mock/big"]})
    assert (status, json.loads(body)["models"]) == (201, ["mock/big"])
    assert await model_status(server, "new") == 503
    assert path.read_text() == TEXT + 'new = ["mock/big"]\n'
    status, _, body = await ask(
        server, "PUT", "/admin/v1/aliases/new", {"models": ["mock/big", "mock/small"], "strategy": "cost"}
    )
    assert (status, json.loads(body)["strategy"]) == (200, "cost")
    assert path.read_text().endswith('new = {models = ["mock/big", "mock/small"], strategy = "cost"}\n')
    status, _, body = await ask(server, "DELETE", "/admin/v1/aliases/new")
    assert (status, json.loads(body)) == (200, {"name": "new", "removed": True})
    assert path.read_text() == TEXT
    assert await model_status(server, "new") == 404
    check_error(await ask(server, "DELETE", "/admin/v1/aliases/new"), 404, "alias_not_found")


async def test_comments_are_kept(with_file):
    server, path = with_file
    await ask(server, "PUT", "/admin/v1/aliases/both", {"models": ["mock/small"]})
    expected = TEXT.replace('both = ["mock/big", "mock/small"]', 'both = ["mock/small"]')
    assert path.read_text() == expected


@pytest.mark.parametrize("name", ["a/b", "a%b", "v1.5", "a%2Fb", '"q"', "a?b#c", ".."])
async def test_names_in_the_path(with_file, name):
    server, path = with_file
    at = f"/admin/v1/aliases/{quote(name, safe='')}"
    assert (await ask(server, "PUT", at, {"models": ["mock/big"]}))[0] == 201
    assert name in server.gateway.config.aliases
    assert parse(path.read_text()).aliases[name].models == ("mock/big",)
    assert (await get(server, f"/aliases/{quote(name, safe='')}"))["name"] == name
    assert (await ask(server, "DELETE", at))[0] == 200
    assert path.read_text() == TEXT


async def test_a_row_can_be_sent_back(with_file):
    server, path = with_file
    for row in (await get(server, "/aliases"))["data"]:
        status, _, body = await ask(server, "PUT", f"/admin/v1/aliases/{row['name']}", row)
        assert (status, json.loads(body)) == (200, row)
    assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
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
    ],
)
async def test_what_is_no_alias_is_not_written(with_file, name, body, said):
    server, path = with_file
    answer = await ask(server, "PUT", f"/admin/v1/aliases/{name.replace('/', '%2F')}", body)
    check_error(answer, 422, "invalid_alias", said)
    assert path.read_text() == TEXT


async def test_an_alias_that_another_uses_stays(with_file):
    server, path = with_file
    answer = await ask(server, "DELETE", "/admin/v1/aliases/both")
    check_error(answer, 422, "invalid_alias", "The alias 'both' is in use: take it out of cheap first.")
    assert path.read_text() == TEXT


async def test_an_alias_that_stands_for_no_model_stays(with_file):
    server, path = with_file
    text = TEXT + '[routing]\ndefault_models = { chat = "cheap" }\n'
    path.write_text(text)
    assert (await ask(server, "POST", "/admin/v1/reload", {}))[0] == 200
    answer = await ask(server, "DELETE", "/admin/v1/aliases/cheap")
    said = "The alias 'cheap' is in use: take it out of [routing] default_models first."
    check_error(answer, 422, "invalid_alias", said)
    assert path.read_text() == text


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


async def test_without_a_file(start):
    server = await start(TEXT)
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
