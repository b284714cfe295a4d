"""Pages of other origins: what their browsers are told."""

from __future__ import annotations

import json

import pytest

from proxy.access.cors import Cors, cors_of, preflight
from proxy.control.routes_file import RoutesFile
from proxy.server.single import Server
from tests.support.cpu import grows_in_proportion
from tests.support.fakes import RawClient, answers, dead_url, streams
from tests.support.keys import BODY, CONFIG, ask, make, opened

APP = b"https://app.example"
FOREIGN = b"https://evil.example"
ALLOW = b"access-control-allow-origin"


ORIGINS = '"https://app.example", "http://localhost:5173"'


def text(url: str, origins: str = ORIGINS) -> str:
    server = f'[server]\nlisten = ["127.0.0.1:0"]\ncors_origins = [{origins}]\n'
    return server + CONFIG.format(url=url, more="")


def from_page(origin: bytes) -> bytes:
    return b"Origin: %b\r\n" % origin


Answer = tuple[int, dict[bytes, bytes], bytes]


async def send(server, line: bytes, *lines: bytes) -> Answer:
    client = await RawClient.connect(server)
    await client.send(b"\r\n".join([line + b" HTTP/1.1", *lines, b"Host: g", b"", b""]))
    return await client.response()


async def preflight_of(server, origin: bytes, *lines: bytes, path: bytes = b"/v1/chat/completions") -> Answer:
    asked = b"Access-Control-Request-Method: POST"
    return await send(server, b"OPTIONS " + path, asked, b"Origin: " + origin, *lines)


# ---------------------------------------------------------------------- pure


def test_none_where_no_page_may_call():
    assert cors_of(()) is None and isinstance(cors_of(("*",)), Cors)


def test_each_origin_gets_itself():
    cors = Cors(["https://a.example", "http://b:1"])
    assert cors.lines(b"https://a.example").startswith(b"Access-Control-Allow-Origin: https://a.example\r\n")
    assert cors.lines(b"http://b:1").endswith(b"Vary: Origin\r\n")
    for other in (b"", b"http://b", b"https://a.example.evil", b"null", b"https://A.example"):
        assert cors.lines(other) == b""


def test_all_origins():
    cors = Cors(["https://a.example", "*"])
    assert cors.lines(b"null").startswith(b"Access-Control-Allow-Origin: *\r\n")
    assert b"Vary" not in cors.lines(b"null")
    assert cors.lines(b"") == b""


@pytest.mark.parametrize(("requested", "allowed"), [
    (b"authorization,content-type", True), (b"authorization , x-stainless-os", True), (b"", False),
    (b"a b", False), (b"a,", False), (b"x\r\nSet-Cookie: y", False),
])  # fmt: skip
def test_headers_that_a_browser_asks_for(requested, allowed):
    lines = preflight(requested).split(b"\r\n")
    assert (b"Access-Control-Allow-Headers: " + requested in lines) is allowed
    assert sum(line.startswith(b"Access-Control-Allow-Headers") for line in lines) == allowed


@pytest.mark.parametrize("make", [
    lambda n: b"a" * n, lambda n: b"a," * (n // 2) + b"a", lambda n: b"a" + b" " * n + b"b",
    lambda n: b"a ," + b" " * n + b",", lambda n: b"a , " * (n // 4) + b"\x00", lambda n: b"," * n,
])  # fmt: skip
def test_asking_for_many_headers_costs_time_in_proportion(make):
    assert grows_in_proportion(lambda data: [preflight(data) for _ in range(10)], make, 16_000)


# ---------------------------------------------------------------------- proxied answers


async def test_an_answer_to_a_page(provider, start):
    theirs = b"Access-Control-Allow-Origin: https://theirs\r\naccess-control-expose-headers: X-Theirs\r\n"
    provider.script = answers(b"{}", extra=theirs + b"X-A: 1\r\n")
    server = await start(text(provider.url))
    client = await RawClient.connect(server)
    await client.post(BODY, extra=from_page(APP))
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.lower().count(ALLOW) == 1
    for line in (b"Access-Control-Allow-Origin: https://app.example", b"Vary: Origin", b"X-A: 1"):
        assert line + b"\r\n" in head
    assert b"X-Inferoute-Provider" in head[head.index(b"Access-Control-Expose-Headers") :]
    assert b"X-Theirs" not in head
    assert b"origin" not in provider.seen[0][0].lower()  # some providers refuse what comes from a page


OTHERS = [from_page(FOREIGN), from_page(APP) * 2, from_page(APP + b".evil.example"), b"Origin: null\r\n",
          b"Origin:\r\n" + from_page(FOREIGN)]  # fmt: skip


@pytest.mark.parametrize("extra", OTHERS)
@pytest.mark.parametrize("origins", ['"https://app.example"', ""], ids=["other origins", "none"])
async def test_pages_of_others_without_a_key(provider, start, extra, origins):
    """A form of any page can send that, and the browser of whoever reads it does: without a preflight."""
    server = await start(text(provider.url, origins))
    client = await RawClient.connect(server)
    for _ in range(2):  # a head that comes again too
        await client.post(BODY, extra=b"Content-Type: text/plain\r\n" + extra)
        status, fields, body = await client.response()
        error = json.loads(body)["error"]
        assert (status, error["type"], error["code"]) == (403, "permission_error", "origin_not_allowed")
        assert "cors_origins" in error["message"]
        assert ALLOW not in fields
    assert provider.connections == 0
    await client.post(BODY)  # no page: what SDKs send
    assert (await client.response())[0] == 200


@pytest.mark.parametrize("extra", [b"", *OTHERS])
async def test_an_answer_to_others(provider, start, extra):
    """With a key the request is served; what a page may read of it is the browser's to ask."""
    server = await start(text(provider.url))
    _, secret = await make(server)
    client = await RawClient.connect(server)
    status, fields, _ = await ask(client, secret, extra=extra)
    assert (status, ALLOW in fields) == (200, False)


@pytest.mark.parametrize(("script", "origins", "origin", "status"), [
    (answers(), '"app://obsidian.md"', b"app://obsidian.md", 200),  # an app that is a page inside
    (streams(b"data: {}\n\n", b"data: [DONE]\n\n"), ORIGINS, APP, 200),
    (None, ORIGINS, APP, 503),  # a provider that is away
])  # fmt: skip
async def test_an_answer_to_a_page_of_the_list(provider, start, script, origins, origin, status):
    provider.script = script or answers()
    server = await start(text(provider.url if script else dead_url(), origins))
    client = await RawClient.connect(server)
    await client.post(BODY, extra=from_page(origin))
    got, fields, _ = await client.response()
    assert (got, fields[ALLOW]) == (status, origin)


async def test_an_open_gateway_with_keys(provider, start):
    """Whoever comes without one is anybody, also where there are keys."""
    server = await start(text(provider.url) + "[auth]\nrequired = false\n")
    _, secret = await make(server)
    client = await RawClient.connect(server)
    for key, status in ((b"", 403), (secret, 200)):
        assert (await ask(client, key, extra=from_page(FOREIGN)))[0] == status


async def test_without_origins_nothing_is_said(provider, start):
    provider.script = answers(b"{}", extra=b"Access-Control-Allow-Origin: *\r\n")
    server, client = await opened(start, provider)
    await client.post(BODY)
    assert ALLOW not in (await client.response())[1]  # nor may the provider speak for the gateway
    status, fields, _ = await preflight_of(server, APP)
    assert (status, ALLOW in fields) == (405, False)


async def test_a_change_holds_for_the_next_request(provider, start, tmp_path):
    path = tmp_path / "routes.toml"
    end = '[state]\npath = ":memory:"\n[admin]\nlisten = ""\n'
    path.write_text(text(provider.url) + end)
    file = RoutesFile(path)
    server = Server(file.load(), {}, file)
    await server.start()
    client = await RawClient.connect(server)
    assert (await ask(client, extra=from_page(FOREIGN)))[0] == 403
    path.write_text(text(provider.url, '"https://evil.example"') + end)
    changes = await server.reloader.reload()
    assert changes.changed == ["server.cors_origins changed"]
    assert not changes.needs_restart
    assert (await ask(client, extra=from_page(FOREIGN)))[1][ALLOW] == FOREIGN
    path.write_text(text(provider.url) + end)
    await server.reloader.reload()
    assert (await ask(client, extra=from_page(FOREIGN)))[0] == 403  # the same head on the same connection
    client.close()
    await server.close()


# ---------------------------------------------------------------------- errors


async def test_errors_can_be_read_by_the_page(start):
    server = await start(text(dead_url()))
    await make(server)  # from here on a key is needed
    client = await RawClient.connect(server)
    for body in (BODY, b"{"):
        status, fields, _ = await ask(client, body=body, extra=from_page(APP))
        assert (status, fields[ALLOW]) == (401, APP)


# ---------------------------------------------------------------------- the rest of the data listener


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/models", b"/v1/models/openai/gpt-4o"])
async def test_a_preflight_needs_no_key(provider, start, path):
    server = await start(text(provider.url))
    await make(server)
    headers = b"authorization,content-type"
    asked = b"Access-Control-Request-Headers: " + headers
    status, fields, body = await preflight_of(server, APP, asked, path=path)
    assert (status, body, fields[ALLOW]) == (204, b"", APP)
    allowed = [fields[b"access-control-" + name] for name in (b"allow-methods", b"allow-headers", b"max-age")]
    assert allowed == [b"GET, POST", headers, b"7200"]
    assert b"Origin" in fields[b"vary"]
    assert b"x-inferoute-request-id" in fields


async def test_a_preflight_of_another_origin(provider, start):
    server = await start(text(provider.url))
    status, fields, body = await preflight_of(server, FOREIGN)
    assert (status, ALLOW in fields) == (403, False)
    error = json.loads(body)["error"]
    assert error["code"] == "origin_not_allowed"
    assert "cors_origins" in error["message"]


async def test_an_options_that_is_no_preflight(provider, start):
    server = await start(text(provider.url))
    status, fields, _ = await send(server, b"OPTIONS /v1/chat/completions", b"Origin: " + APP)
    assert (status, fields[b"allow"], fields[ALLOW]) == (405, b"POST", APP)


async def test_models_and_errors_of_the_gateway(provider, start):
    server = await start(text(provider.url, '"*"'))
    for path, expected in ((b"/v1/models", 200), (b"/nowhere", 404)):
        status, fields, _ = await send(server, b"GET " + path, b"Origin: " + FOREIGN)
        assert (status, fields[ALLOW]) == (expected, b"*")
    _, fields, _ = await send(server, b"GET /v1/models")
    assert ALLOW not in fields
