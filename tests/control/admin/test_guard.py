"""Who may ask the admin listener, tried with what somebody else would send.

The attacker is a web page in the operator's browser: it may have any name made to lead to loopback (DNS
rebinding), embed and link to what it likes, and send what needs no leave of the server asked (text, forms).
It can't choose Host, Origin and Sec-Fetch-*, nor send JSON or read answers across origins.
"""

from __future__ import annotations

import contextlib
import json
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from proxy.config.parse import parse
from proxy.config.settings import Listen
from proxy.config.tables import ConfigError
from proxy.control.admin.guard import guard
from proxy.control.admin.inputs import prefers, query_of
from proxy.control.admin.pages import _answer, assets
from proxy.errors import GatewayError
from proxy.server.single import Server
from tests.control.admin.test_app import JSON, TEXT, ask, check_error
from tests.support.cpu import cpu_s, grows_in_proportion
from tests.support.fakes import RawClient

LOCAL = TEXT
WITH_TOKEN = TEXT.replace("[admin]", '[admin]\ntoken_env = "T"')
PUBLIC = TEXT.replace('[admin]\nlisten = "127.0.0.1:0"', '[admin]\nlisten = "0.0.0.0:0"\ntoken_env = "T"')
PATH = "/admin/v1/routes"
TOKEN = "Authorization: Bearer s3cret\r\n"


async def send(server: Server, head: str, body: bytes = b"") -> tuple[int, dict[bytes, bytes], bytes]:
    client = await RawClient.to(server.admin_address)
    await client.send(head.encode("latin-1") + b"\r\n" + body)
    answer = await client.response()
    client.close()
    return answer


# ---------------------------------------------------------------------- by which name


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:", "localhost:8081", "LOCALHOST", "localhost.", "127.0.0.1", "127.0.0.1:1",
        "127.9.9.9", "[::1]", "[::1]:8081", "[0:0:0:0:0:0:0:1]",
    ],
)  # fmt: skip
async def test_names_of_this_host(start, host):
    server = await start(LOCAL)
    assert (await ask(server, "GET", PATH, host=host))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        # made to lead to loopback
        "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io",
        "localtest.me", "evil.localhost", "x.localhost:8081", "evillocalhost",
        # what reads like one of ours, to somebody
        "user@localhost", "localhost@evil.example", "evil.example@localhost", "localhost:8081@evil.example",
        "localhost:evil", "localhost/", "localhost?", "localhost#", "localhost\\.evil.example",
        "localhost,evil.example", "localhost evil.example", "[::1", "::1", "[::1].evil.example", "[::1]evil",
        "[::1%25lo]", "[127.0.0.1]", "[localhost]", "[fe80::1]", "[::]",
        # addresses that lead to loopback, but that nobody uses
        "0.0.0.0", "0", "2130706433", "0x7f000001", "127.1", "10.0.0.1:8081",
    ],
)  # fmt: skip
async def test_other_names(start, host):
    server = await start(LOCAL)
    check_error(await ask(server, "GET", PATH, host=host), 403, "foreign_host")


@pytest.mark.parametrize(
    "head",
    [
        f"GET {PATH} HTTP/1.0\r\n",  # which may do without a Host, and so says nothing
        f"GET {PATH} HTTP/1.1\r\nHost:\r\n",
        f"GET http://evil.example{PATH} HTTP/1.1\r\nHost: localhost\r\n",
        f"GET http://localhost{PATH} HTTP/1.1\r\nHost: evil.example\r\n",
        f"GET http://localhost@evil.example{PATH} HTTP/1.1\r\nHost: localhost\r\n",
    ],
)
async def test_a_host_that_is_missing_or_in_the_target(start, head):
    server = await start(LOCAL)
    check_error(await send(server, head), 403, "foreign_host")


@pytest.mark.parametrize("second", ["Host: evil.example\r\n", "Host: localhost\r\n"])
async def test_two_hosts(start, second):
    server = await start(LOCAL)
    status, _, _ = await send(server, f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n{second}")
    assert status in (400, 403)


async def test_a_target_with_our_own_host(start):
    server = await start(LOCAL)
    status, _, _ = await send(server, f"GET http://localhost:1{PATH} HTTP/1.1\r\nHost: localhost:1\r\n")
    assert status == 200


# ---------------------------------------------------------------------- from which page


@pytest.mark.parametrize(
    "origin",
    [
        "null", "https://evil.example", "http://localhost", "http://localhost:3000", "http://127.0.0.1:8081",
        "http://localhost:8081.evil.example", "http://localhost:8081@evil.example", "http://[", "http://",
        "ws://localhost:8081", "file://", "chrome-extension://abcdef", "localhost:8081", "",
        "http://localhost:8081 https://evil.example", "http://localhost:8081\r\nOrigin: https://evil.example",
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", [LOCAL, PUBLIC])
async def test_foreign_origins(start, origin, text):
    server = await start(text, T="s3cret")
    answer = await ask(server, "GET", PATH, extra=f"{TOKEN}Origin: {origin}\r\n", host="localhost:8081")
    check_error(answer, 403, "foreign_origin")


@pytest.mark.parametrize(
    ("site", "more", "fine"),
    [
        ("none", "", True),  # typed in by hand
        ("same-origin", "", True),
        ("cross-site", "", False),  # <img>, <script>, <link>: without Origin
        ("same-site", "", False),  # another port of localhost is the same site
        ("cross-site", "Sec-Fetch-Dest: iframe\r\n", False),
        ("cross-site", "Sec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n", True),  # a link
    ],
)
async def test_what_a_page_embeds(start, site, more, fine):
    server = await start(LOCAL)
    answer = await ask(server, "GET", PATH, extra=f"Sec-Fetch-Site: {site}\r\n{more}")
    if fine:
        assert answer[0] == 200
    else:
        check_error(answer, 403, "foreign_origin")


async def test_browsers_are_told_to_keep_and_to_guess_nothing(start):
    server = await start(LOCAL)
    for path in (PATH, "/nothing", "/healthz"):
        _, fields, _ = await ask(server, "GET", path)
        assert fields[b"cache-control"] == b"no-store"
        assert fields[b"x-content-type-options"] == b"nosniff"
        assert fields[b"cross-origin-resource-policy"] == b"same-origin"
        assert not [name for name in fields if name.startswith(b"access-control-")]


async def test_a_preflight_gets_no_leave(start):
    server = await start(LOCAL)
    asked = "Origin: https://evil.example\r\nAccess-Control-Request-Method: PUT\r\n"
    check_error(await ask(server, "OPTIONS", PATH, extra=asked), 403, "foreign_origin")
    fields = check_error(await ask(server, "OPTIONS", PATH), 405, "method_not_allowed")
    assert fields[b"allow"] == b"GET,HEAD"


# ---------------------------------------------------------------------- with what body


@pytest.mark.parametrize(
    ("type", "fine"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("Application/JSON;charset=UTF-8", True),
        ("text/plain", False),
        ("text/plain; application/json", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=application/json", False),
        ("application/json, text/plain", False),
        ("text/json", False),
        ("application/jsonp", False),
        ("", False),
    ],
)
async def test_types_of_bodies(start, type, fine):
    server = await start(LOCAL)
    body = b'{"model":"both"}'
    head = f"POST /admin/v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    answer = await send(server, f"{head}Content-Type: {type}\r\n", body)
    if fine:
        assert answer[0] == 200
    else:
        check_error(answer, 415, "unsupported_media_type")
    check_error(await send(server, head, body), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/admin/v1/nothing", 404, "unknown_path"),
        ("PUT", "/admin/v1/keys", 405, "method_not_allowed"),
        ("POST", "/admin/v1/routes", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_there_is_no_matter_of_types(start, method, path, status, code):
    server = await start(LOCAL)
    check_error(await ask(server, method, path, b"x", extra="Content-Type: text/plain\r\n"), status, code)


# ---------------------------------------------------------------------- with the token


@pytest.mark.parametrize("path", [f"{PATH}?token=s3cret", f"{PATH}?access_token=s3cret", f"{PATH}#s3cret"])
async def test_the_token_is_taken_from_its_header_alone(start, path):
    """Addresses end up in logs and histories."""
    server = await start(WITH_TOKEN, T="s3cret")
    check_error(await ask(server, "GET", path), 401, "invalid_admin_token")
    for header in ("Cookie: token=s3cret", "X-TokenHub-Key: s3cret", "Proxy-Authorization: Bearer s3cret"):
        answer = await ask(server, "GET", PATH, extra=f"{header}\r\n")
        check_error(answer, 401, "invalid_admin_token")


@pytest.mark.parametrize("given", ["", "s3cre", "s3crets", "S3CRET", "s3cret s3cret", "s3cret\x00", "\xff"])
async def test_tokens_that_are_almost_right(start, given):
    server = await start(WITH_TOKEN, T="s3cret")
    status, _, body = await send(
        server, f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {given}\r\n"
    )
    assert status in (400, 401)  # 400: what is no header at all
    assert b"s3cret" not in body


async def test_of_two_the_first_counts(start):
    server = await start(WITH_TOKEN, T="s3cret")
    other = "Authorization: Bearer other\r\n"
    assert (await ask(server, "GET", PATH, extra=TOKEN + other))[0] == 200
    check_error(await ask(server, "GET", PATH, extra=other + TOKEN), 401, "invalid_admin_token")


async def test_nothing_but_health_and_pages_goes_without_token(start):
    server = await start(WITH_TOKEN, T="s3cret")
    routes = server._control._runner.app.router.routes()
    paths = {route.resource.canonical for route in routes}
    for path in paths - {"/", "/healthz"}:
        if not path.startswith("/assets"):
            answer = await ask(server, "GET", path.replace("{", "").replace("}", ""))
            check_error(answer, 401, "invalid_admin_token")
    for path in (
        "/assets/../admin/v1/keys",
        "/assets/%2e%2e/admin/v1/keys",
        "//admin/v1/keys",
        "/healthz/../metrics",
    ):
        assert (await ask(server, "GET", path))[0] in (401, 404)
    assert (await ask(server, "GET", "/healthz"))[0] == 200
    check_error(await ask(server, "DELETE", "/healthz"), 405, "method_not_allowed")


async def test_a_token_lifts_no_check_of_the_page(start):
    """On loopback the name still counts; on a public listener, where any name may be ours, the page does."""
    server = await start(WITH_TOKEN, T="s3cret")
    check_error(await ask(server, "GET", PATH, extra=TOKEN, host="evil.example"), 403, "foreign_host")
    public = await start(PUBLIC, T="s3cret")
    assert (await ask(public, "GET", PATH, extra=TOKEN, host="gateway.example"))[0] == 200
    own = f"{TOKEN}Origin: https://gateway.example\r\n"
    assert (await ask(public, "GET", PATH, extra=own, host="gateway.example"))[0] == 200
    check_error(await ask(public, "GET", PATH, host="gateway.example"), 401, "invalid_admin_token")


async def test_a_public_listener_without_token_does_not_start():
    with pytest.raises(ConfigError, match="token_env"):
        parse(PUBLIC.replace('token_env = "T"', ""))


# ---------------------------------------------------------------------- and where


@pytest.mark.parametrize(
    "path", [PATH, "/admin/v1/openapi.json", "/admin/v1/keys", "/admin/v1/live", "/metrics"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_of_it_is_on_the_data_listener(start, method, path):
    server = await start(WITH_TOKEN, T="s3cret")
    client = await RawClient.connect(server)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{TOKEN}{JSON}Content-Length: 2\r\n\r\n"
    await client.send(head.encode() + b"{}")
    status, _, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_path")


# ---------------------------------------------------------------------- and at which cost

# header, or "" for the query -> what is in it
COSTLY = {
    "Content-Type": [
        lambda n: "application/json" + ";" * n, lambda n: 'a/b;a="' + '";"' * (n // 3), lambda n: "/" * n,
        lambda n: "a" + " " * n, lambda n: "application/json" + "; a=b" * (n // 5),
    ],
    "Accept": [lambda n: "," * n, lambda n: "a/b" + ";" * n, lambda n: "text/csv;q=" + "1" * n],
    "If-None-Match": [lambda n: '"a",' * (n // 4), lambda n: '"' * n, lambda n: '"a"' + " " * n + "x"],
    "Origin": [lambda n: "http://" + "a." * (n // 2), lambda n: "[" * n],
    "Host": [lambda n: "a." * (n // 2), lambda n: "[" + ":0" * (n // 2) + "]", lambda n: "a:" + "1" * n],
    "Content-Encoding": [lambda n: "identity," * (n // 9)],
    "Authorization": [lambda n: "Bearer " + " " * n + "x"],
    "": [lambda n: "a&" * (n // 2), lambda n: "&".join(f"limit{i}=1" for i in range(n // 10)),
         lambda n: "limit=1&" * (n // 8), lambda n: "%41" * (n // 3), lambda n: "&" * n],
}  # fmt: skip


@pytest.mark.parametrize(
    ("where", "make"), [(name, make) for name, makes in COSTLY.items() for make in makes]
)
def test_a_request_costs_time_in_proportion_to_its_bytes(where, make):
    """With a token and without: what is looked at before a handler is, and by those who have none too."""
    guards = guard(Listen("127.0.0.1", 8081), "s3cret"), guard(Listen("127.0.0.1", 8081), "")
    number = iter(range(1 << 20))

    async def handler(request: web.Request) -> web.Response:
        query_of(request)
        prefers(request.headers.get("Accept", ""), "text/csv", "application/json")
        return _answer(request, assets()["index.html"])

    def look(text: str) -> None:
        text += str(next(number))  # none that was seen before
        headers = {"Host": "localhost", "Authorization": "Bearer s3cret", **({where: text} if where else {})}
        for let_through in guards:
            path = f"/admin/v1/requests?{'' if where else text}"
            request = make_mocked_request("POST", path, headers=headers)
            resource = SimpleNamespace(canonical="/admin/v1/requests")
            request._match_info = SimpleNamespace(route=SimpleNamespace(resource=resource))
            with contextlib.suppress(StopIteration, GatewayError):
                let_through(request, handler).send(None)
            with contextlib.suppress(StopIteration):
                handler(request).send(None)

    assert grows_in_proportion(look, make, 16_000)
    longest = make(16_000)
    assert cpu_s(lambda: look(longest)) < 0.010
