"""Pages of other origins: what their browsers are told."""

from __future__ import annotations

import json

import pytest

from proxy.access.cors import Cors, cors_of, preflight
from proxy.control.routes_file import RoutesFile
from proxy.server.single import Server
from tests.support.cpu import grows_in_proportion
from tests.support.fakes import RawClient, answers, dead_url, streams
from tests.support.keys import BODY, CONFIG, make

APP = b"https://app.example"
FOREIGN = b"https://evil.example"
ALLOW = b"access-control-allow-origin"


def text(url: str, origins: str = '"https://app.example", "http://localhost:5173"', more: str = "") -> str:
    return f'[server]\nlisten = ["127.0.0.1:0"]\ncors_origins = [{origins}]\n' + CONFIG.format(
        url=url, more=more
    )


def from_page(origin: bytes) -> bytes:
    return b"Origin: %b\r\n" % origin


async def ask(server, head: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    client = await RawClient.connect(server)
    await client.send(head + b"Host: g\r\n\r\n")
    return await client.response()


# ---------------------------------------------------------------------- pure


def test_none_where_no_page_may_call():
    assert cors_of(()) is None
    assert isinstance(cors_of(("*",)), Cors)


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


@pytest.mark.parametrize(
    ("requested", "allowed"),
    [
        (b"authorization,content-type", True),
        (b"authorization , x-stainless-os", True),
        (b"", False),
        (b"a b", False),
        (b"a,", False),
        (b"x\r\nSet-Cookie: y", False),
    ],
)
def test_headers_that_a_browser_asks_for(requested, allowed):
    lines = preflight(requested).split(b"\r\n")
    assert (b"Access-Control-Allow-Headers: " + requested in lines) is allowed
    assert sum(line.startswith(b"Access-Control-Allow-Headers") for line in lines) == allowed


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"a" * n,
        lambda n: b"a," * (n // 2) + b"a",
        lambda n: b"a" + b" " * n + b"b",
        lambda n: b"a ," + b" " * n + b",",
        lambda n: b"a , " * (n // 4) + b"\x00",
        lambda n: b"," * n,
    ],
)
def test_asking_for_many_headers_costs_time_in_proportion(make):
    assert grows_in_proportion(lambda data: [preflight(data) for _ in range(10)], make, 16_000)


# ---------------------------------------------------------------------- proxied answers


async def test_an_answer_to_a_page(provider, start):
    theirs = b"Access-Control-Allow-Origin: https://theirs\r\naccess-control-expose-headers: X-Theirs\r\n"
    provider.script = answers(b"{}", extra=theirs + b"X-A: 1\r\n")
    server = await start(text(provider.url))
    client = await RawClient.connect(server)
    await client.send(_post(from_page(APP)))
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.lower().count(ALLOW) == 1
    assert b"Access-Control-Allow-Origin: https://app.example\r\n" in head
    assert b"Vary: Origin\r\n" in head
    assert b"X-Inferoute-Provider" in head[head.index(b"Access-Control-Expose-Headers") :]
    assert b"X-Theirs" not in head
    assert b"X-A: 1\r\n" in head
    assert b"origin" not in provider.seen[0][0].lower()  # some providers refuse what comes from a page


def _post(extra: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n%bContent-Length: %d\r\n\r\n"
    return head % (extra, len(BODY)) + BODY


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
    await client.post(BODY, extra=extra + b"Authorization: Bearer %b\r\n" % secret)
    status, fields, _ = await client.response()
    assert status == 200
    assert ALLOW not in fields


async def test_an_app_that_is_a_page_inside(provider, start):
    server = await start(text(provider.url, '"app://obsidian.md"'))
    client = await RawClient.connect(server)
    await client.post(BODY, extra=from_page(b"app://obsidian.md"))
    status, fields, _ = await client.response()
    assert (status, fields[ALLOW]) == (200, b"app://obsidian.md")


async def test_an_open_gateway_with_keys(provider, start):
    """Whoever comes without one is anybody, also where there are keys."""
    server = await start(text(provider.url) + "[auth]\nrequired = false\n")
    _, secret = await make(server)
    client = await RawClient.connect(server)
    for extra, status in ((b"", 403), (b"Authorization: Bearer %b\r\n" % secret, 200)):
        await client.post(BODY, extra=from_page(FOREIGN) + extra)
        assert (await client.response())[0] == status


async def test_a_stream(provider, start):
    provider.script = streams(b"data: {}\n\n", b"data: [DONE]\n\n")
    server = await start(text(provider.url))
    client = await RawClient.connect(server)
    await client.post(b'{"model":"mock/m","stream":true}', extra=from_page(APP))
    status, fields, _ = await client.response()
    assert (status, fields[ALLOW]) == (200, APP)


async def test_without_origins_nothing_is_said(provider, start):
    provider.script = answers(b"{}", extra=b"Access-Control-Allow-Origin: *\r\n")
    server = await start(CONFIG.format(url=provider.url, more=""))
    client = await RawClient.connect(server)
    await client.post(BODY)
    assert ALLOW not in (await client.response())[1]  # nor may the provider speak for the gateway
    status, fields, _ = await ask(
        server,
        b"OPTIONS /v1/chat/completions HTTP/1.1\r\nAccess-Control-Request-Method: POST\r\n" + from_page(APP),
    )
    assert status == 405
    assert ALLOW not in fields


async def test_a_change_holds_for_the_next_request(provider, start, tmp_path):
    path = tmp_path / "routes.toml"
    end = '[state]\npath = ":memory:"\n[admin]\nlisten = ""\n'
    path.write_text(text(provider.url) + end)
    file = RoutesFile(path)
    server = Server(file.load(), {}, file)
    await server.start()
    client = await RawClient.connect(server)
    await client.post(BODY, extra=from_page(FOREIGN))
    assert (await client.response())[0] == 403
    path.write_text(text(provider.url, '"https://evil.example"') + end)
    changes = await server.reloader.reload()
    assert changes.changed == ["server.cors_origins changed"]
    assert not changes.needs_restart
    await client.post(BODY, extra=from_page(FOREIGN))
    assert (await client.response())[1][ALLOW] == FOREIGN
    path.write_text(text(provider.url) + end)
    await server.reloader.reload()
    await client.post(BODY, extra=from_page(FOREIGN))  # the same head on the same connection
    assert (await client.response())[0] == 403
    client.close()
    await server.close()


# ---------------------------------------------------------------------- errors


async def test_errors_can_be_read_by_the_page(start):
    server = await start(text(dead_url()))
    await make(server)  # from here on a key is needed
    client = await RawClient.connect(server)
    for extra, body in ((b"", BODY), (b"", b"{")):
        await client.post(body, extra=from_page(APP) + extra)
        status, fields, _ = await client.response()
        assert (status, fields[ALLOW]) == (401, APP)


async def test_a_provider_that_is_away(start):
    server = await start(text(dead_url()))
    client = await RawClient.connect(server)
    await client.post(BODY, extra=from_page(APP))
    status, fields, _ = await client.response()
    assert (status, fields[ALLOW]) == (503, APP)


# ---------------------------------------------------------------------- the rest of the data listener


@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/v1/models", b"/v1/models/openai/gpt-4o"])
async def test_a_preflight_needs_no_key(provider, start, path):
    server = await start(text(provider.url))
    await make(server)
    status, fields, body = await ask(
        server,
        b"OPTIONS %b HTTP/1.1\r\nAccess-Control-Request-Method: POST\r\n"
        b"Access-Control-Request-Headers: authorization,content-type\r\n%b" % (path, from_page(APP)),
    )
    assert (status, body) == (204, b"")
    assert fields[ALLOW] == APP
    assert fields[b"access-control-allow-methods"] == b"GET, POST"
    assert fields[b"access-control-allow-headers"] == b"authorization,content-type"
    assert fields[b"access-control-max-age"] == b"7200"
    assert b"Origin" in fields[b"vary"]
    assert b"x-inferoute-request-id" in fields


async def test_a_preflight_of_another_origin(provider, start):
    server = await start(text(provider.url))
    status, fields, body = await ask(
        server,
        b"OPTIONS /v1/chat/completions HTTP/1.1\r\nAccess-Control-Request-Method: POST\r\n%b"
        % from_page(FOREIGN),
    )
    assert status == 403
    assert ALLOW not in fields
    error = json.loads(body)["error"]
    assert error["code"] == "origin_not_allowed"
    assert "cors_origins" in error["message"]


async def test_an_options_that_is_no_preflight(provider, start):
    server = await start(text(provider.url))
    status, fields, _ = await ask(server, b"OPTIONS /v1/chat/completions HTTP/1.1\r\n" + from_page(APP))
    assert (status, fields[b"allow"], fields[ALLOW]) == (405, b"POST", APP)


async def test_models_and_errors_of_the_gateway(provider, start):
    server = await start(text(provider.url, '"*"'))
    for path, expected in ((b"/v1/models", 200), (b"/nowhere", 404)):
        status, fields, _ = await ask(server, b"GET %b HTTP/1.1\r\n%b" % (path, from_page(FOREIGN)))
        assert (status, fields[ALLOW]) == (expected, b"*")
    _, fields, _ = await ask(server, b"GET /v1/models HTTP/1.1\r\n")
    assert ALLOW not in fields
