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
from multidict import CIMultiDict

from proxy.config.parse import parse
from proxy.config.settings import Listen
from proxy.config.tables import ConfigError
from proxy.control.admin.guard import guard
from proxy.control.admin.inputs import prefers, query_of
from proxy.control.admin.pages import _answer, assets
from proxy.errors import GatewayError, StartError
from tests.support.admin_api import JSON, TEXT, WITH_TOKEN, ask, check_error, send
from tests.support.cpu import cpu_s, grows_in_proportion
from tests.support.fakes import RawClient

PUBLIC = WITH_TOKEN.replace('listen = "127.0.0.1:0"', 'listen = "0.0.0.0:0"')
PATH = "/admin/v1/routes"
TOKEN = "Authorization: Bearer s3cret\r\n"
AT_HOME, IN_PUBLIC = Listen("127.0.0.1", 8081), Listen("0.0.0.0", 8081)


def request_of(method: str, target: str, *lines: str) -> web.Request:
    """A request as aiohttp hands it over, for the route of its path."""
    headers = CIMultiDict(line.split(": ", 1) for line in lines)
    request = make_mocked_request(method, target, headers=headers)
    path = "/" + target.partition("://")[2].partition("/")[2] if "://" in target else target
    resource = SimpleNamespace(canonical=path.partition("?")[0])
    request._match_info = SimpleNamespace(route=SimpleNamespace(resource=resource))
    return request


async def refusal(
    *lines: str, method: str = "GET", target: str = PATH, listen: Listen = AT_HOME, token: str = ""
) -> str:
    """Status and code of the error that a request with these header lines gets; "" where there is none."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    try:
        await guard(listen, token)(request_of(method, target, *lines), handler)
    except GatewayError as error:
        return f"{error.status} {error.code}"
    return ""


# ---------------------------------------------------------------------- by which name
@pytest.mark.parametrize("host", [
    "localhost", "localhost:", "localhost:8081", "LOCALHOST", "LOCALHOST:8081", "localhost.", "127.0.0.1",
    "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:8081", "[0:0:0:0:0:0:0:1]",
])  # fmt: skip
async def test_names_of_this_host(host):
    assert await refusal(f"Host: {host}") == ""


@pytest.mark.parametrize("host", [
    # made to lead to loopback
    "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io", "localtest.me",
    "evil.localhost", "x.localhost:8081", "evillocalhost",
    # what reads like one of ours, to somebody
    "user@localhost", "localhost@evil.example", "evil.example@localhost", "localhost:8081@evil.example",
    "localhost:evil", "localhost/", "localhost?", "localhost#", "localhost\\.evil.example",
    "localhost,evil.example", "localhost evil.example", "[::1", "::1", "[::1].evil.example", "[::1]evil",
    "[::1%25lo]", "[127.0.0.1]", "[localhost]", "[fe80::1]", "[::]",
    # addresses that lead to loopback, but that nobody uses
    "0.0.0.0", "0", "2130706433", "0x7f000001", "127.1", "10.0.0.1:8081", "",
])  # fmt: skip
async def test_other_names(host):
    for target in (PATH, "/healthz", "/", "/assets/app.js"):
        assert await refusal(f"Host: {host}", target=target) == "403 foreign_host"


@pytest.mark.parametrize(("target", "hosts"), [
    (PATH, []),  # HTTP/1.0 may do without one, and so says nothing
    (PATH, ["localhost", "evil.example"]), (PATH, ["localhost", "localhost"]),
    (f"http://evil.example{PATH}", ["localhost"]), (f"http://localhost{PATH}", ["evil.example"]),
    (f"http://localhost@evil.example{PATH}", ["localhost"]),
])  # fmt: skip
async def test_a_host_that_is_missing_or_in_the_target(target, hosts):
    assert await refusal(*(f"Host: {host}" for host in hosts), target=target) == "403 foreign_host"


# ---------------------------------------------------------------------- from which page
@pytest.mark.parametrize("origin", [
    "null", "https://evil.example", "http://localhost", "http://localhost:3000", "http://127.0.0.1:8081",
    "http://localhost:8081.evil.example", "http://localhost:8081@evil.example", "http://[", "http://",
    "ws://localhost:8081", "file://", "chrome-extension://abcdef", "localhost:8081", "",
    "http://localhost:8081 https://evil.example",
])  # fmt: skip
@pytest.mark.parametrize("listen", [AT_HOME, IN_PUBLIC])
async def test_foreign_origins(origin, listen):
    own, foreign = "Origin: http://localhost:8081", f"Origin: {origin}"
    for origins in ([foreign], [own, foreign]):
        given = ["Host: localhost:8081", TOKEN.strip(), *origins]
        assert await refusal(*given, listen=listen, token="s3cret") == "403 foreign_origin"


@pytest.mark.parametrize(
    "origin", ["http://localhost:8081", "HTTP://LocalHost:8081", "https://localhost:8081"]
)
async def test_its_own_pages(origin):
    assert await refusal("Host: localhost:8081", f"Origin: {origin}") == ""


@pytest.mark.parametrize(("site", "more", "fine"), [
    ("none", [], True),  # typed in by hand
    ("same-origin", [], True), ("cross-site", [], False),  # <img>, <script>, <link>: without Origin
    ("same-site", [], False),  # another port of localhost is the same site
    ("cross-site", ["Sec-Fetch-Dest: iframe"], False),
    ("cross-site", ["Sec-Fetch-Dest: document", "Sec-Fetch-Mode: navigate"], True),  # a link
])  # fmt: skip
async def test_what_a_page_embeds(site, more, fine):
    expected = "" if fine else "403 foreign_origin"
    assert await refusal("Host: localhost", f"Sec-Fetch-Site: {site}", *more) == expected


async def test_browsers_are_told_to_keep_and_to_guess_nothing(start):
    server = await start(TEXT)
    for path in (PATH, "/nothing", "/healthz"):
        _, fields, _ = await ask(server, "GET", path)
        assert (fields[b"cache-control"], fields[b"x-content-type-options"]) == (b"no-store", b"nosniff")
        assert fields[b"cross-origin-resource-policy"] == b"same-origin"
        assert not [name for name in fields if name.startswith(b"access-control-")]


# ---------------------------------------------------------------------- with what body
@pytest.mark.parametrize(("type", "fine"), [
    ("application/json", True), ("application/json; charset=utf-8", True),
    ("Application/JSON;charset=UTF-8", True), ("text/plain", False), ("text/plain; application/json", False),
    ("application/x-www-form-urlencoded", False), ("multipart/form-data; boundary=application/json", False),
    ("application/json, text/plain", False), ("text/json", False), ("application/jsonp", False), ("", False),
    (None, False),
])  # fmt: skip
async def test_types_of_bodies(type, fine):
    lines = ["Host: localhost", *([] if type is None else [f"Content-Type: {type}"])]
    for method in ("POST", "PUT", "PATCH"):
        expected = "" if fine else "415 unsupported_media_type"
        assert await refusal(*lines, method=method) == expected


# ---------------------------------------------------------------------- with the token
@pytest.mark.parametrize(("given", "fine"), [
    ("Bearer s3cret", True), ("bearer  s3cret", True), ("Bearer", False), ("Bearer ", False),
    ("Bearer s3cre", False), ("Bearer s3crets", False), ("Bearer S3CRET", False),
    ("Bearer s3cret s3cret", False), ("Bearer sécret", False), ("Basic s3cret", False), ("s3cret", False),
    (None, False),
])  # fmt: skip
async def test_the_token(given, fine):
    lines = [] if given is None else [f"Authorization: {given}"]
    expected = "" if fine else "401 invalid_admin_token"
    for target in (PATH, "/nothing"):
        assert await refusal("Host: localhost", *lines, target=target, token="s3cret") == expected
    assert await refusal("Host: localhost", *lines, target="/healthz", token="s3cret") == ""
    assert await refusal("Host: evil.example", *lines, token="s3cret") == "403 foreign_host"


@pytest.mark.parametrize("given", ["s3cret\0", "\xff"])
async def test_a_token_that_is_no_header_at_all(start, given):
    server = await start(WITH_TOKEN, T="s3cret")
    head = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {given}\r\n"
    status, _, body = await send(server, head)
    assert status in (400, 401) and b"s3cret" not in body


@pytest.mark.parametrize("query", ["?token=s3cret", "?access_token=s3cret", "#s3cret"])
@pytest.mark.parametrize(
    "line", ["Cookie: token=s3cret", "X-TokenHub-Key: s3cret", "Proxy-Authorization: Bearer s3cret"]
)
async def test_the_token_is_taken_from_its_header_alone(query, line):
    """Addresses end up in logs and histories."""
    given = await refusal("Host: localhost", line, target=PATH + query, token="s3cret")
    assert given == "401 invalid_admin_token"


async def test_of_two_the_first_counts():
    lines = TOKEN.strip(), "Authorization: Bearer other"
    assert await refusal("Host: localhost", *lines, token="s3cret") == ""
    assert await refusal("Host: localhost", *lines[::-1], token="s3cret") == "401 invalid_admin_token"


async def test_nothing_but_health_and_pages_goes_without_token(start):
    server = await start(WITH_TOKEN, T="s3cret")
    paths = {route.resource.canonical for route in server._control._runner.app.router.routes()}
    for path in paths - {"/", "/healthz"}:
        if not path.startswith("/assets"):
            answer = await ask(server, "GET", path.replace("{", "").replace("}", ""))
            fields = check_error(answer, 401, "invalid_admin_token")
            assert fields[b"www-authenticate"].startswith(b"Bearer") and b"s3cret" not in answer[2]
    for path in ("/assets/..", "/assets/%2e%2e", "/"):
        assert (await ask(server, "GET", f"{path}/admin/v1/keys"))[0] in (401, 404)
    assert (await ask(server, "GET", "/healthz/../metrics"))[0] in (401, 404)
    assert (await ask(server, "GET", "/healthz"))[0] == 200
    check_error(await ask(server, "DELETE", "/healthz"), 405, "method_not_allowed")


async def test_a_token_lifts_no_check_of_the_page():
    """On a public listener, where any name may be ours, the page counts."""
    given, how = ["Host: gateway.example", TOKEN.strip()], {"listen": IN_PUBLIC, "token": "s3cret"}
    for more in ([], ["Origin: https://gateway.example"]):
        assert await refusal(*given, *more, **how) == ""
    assert await refusal(*given, "Origin: http://evil.example", **how) == "403 foreign_origin"
    assert await refusal("Host: gateway.example", **how) == "401 invalid_admin_token"


@pytest.mark.parametrize("environ", [{}, {"T": ""}, {"T": " "}])
async def test_a_token_that_is_empty(start, environ):
    with pytest.raises(StartError, match="T, but that variable is empty"):
        await start(WITH_TOKEN, **environ)


async def test_a_public_listener_without_token_does_not_start():
    with pytest.raises(ConfigError, match="token_env"):
        parse(PUBLIC.replace('token_env = "T"', ""))


# ---------------------------------------------------------------------- on the wire


HOME, FORM = "Host: localhost\r\n", "Content-Type: text/plain\r\nContent-Length: 1\r\n"
PREFLIGHT = "Origin: https://evil.example\r\nAccess-Control-Request-Method: PUT\r\n"


@pytest.mark.parametrize(("head", "status", "code"), [
    (f"GET {PATH} HTTP/1.0\r\n", 403, "foreign_host"),
    (f"GET {PATH} HTTP/1.1\r\nHost: evil.example\r\n", 403, "foreign_host"),
    (f"GET http://evil.example{PATH} HTTP/1.1\r\n{HOME}", 403, "foreign_host"),
    (f"GET http://localhost:1{PATH} HTTP/1.1\r\nHost: localhost:1\r\n", 200, None),
    (f"GET {PATH} HTTP/1.1\r\n{HOME}Origin: http://localhost\r\n", 200, None),
    (f"GET {PATH} HTTP/1.1\r\n{HOME}Origin: null\r\n", 403, "foreign_origin"),
    # A preflight gets no leave.
    (f"OPTIONS {PATH} HTTP/1.1\r\n{HOME}{PREFLIGHT}", 403, "foreign_origin"),
    (f"OPTIONS {PATH} HTTP/1.1\r\n{HOME}", 405, "method_not_allowed"),
    (f"POST /admin/v1/explain HTTP/1.1\r\n{HOME}{FORM}", 415, "unsupported_media_type"),
    (f"DELETE /admin/v1/aliases/both HTTP/1.1\r\n{HOME}{FORM}", 415, "unsupported_media_type"),
    # What is not there is no matter of types.
    (f"POST /admin/v1/nothing HTTP/1.1\r\n{HOME}{FORM}", 404, "unknown_path"),
    (f"PUT /admin/v1/keys HTTP/1.1\r\n{HOME}{FORM}", 405, "method_not_allowed"),
    (f"POST {PATH} HTTP/1.1\r\n{HOME}{FORM}", 405, "method_not_allowed"),
])  # fmt: skip
async def test_refusals_on_the_wire(start, head, status, code):
    server = await start(TEXT)
    answer = await send(server, head, b"x" if "Content-Length" in head else b"")
    if code is None:
        assert answer[0] == status
    else:
        fields = check_error(answer, status, code)
        assert "OPTIONS" not in head or status != 405 or fields[b"allow"] == b"GET,HEAD"


@pytest.mark.parametrize("path", [
    PATH, "/admin/v1/openapi.json", "/admin/v1/keys", "/admin/v1/live", "/metrics",
])  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_of_it_is_on_the_data_listener(start, method, path):
    server = await start(WITH_TOKEN, T="s3cret")
    client = await RawClient.connect(server)
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{TOKEN}{JSON}Content-Length: 2\r\n\r\n"
    await client.send(head.encode() + b"{}")
    status, _, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (404, "unknown_path")
    assert server.admin_address.port not in (0, server.addresses[0].port)


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
    guards = guard(AT_HOME, "s3cret"), guard(AT_HOME, "")
    number = iter(range(1 << 20))

    async def handler(request: web.Request) -> web.Response:
        query_of(request)
        prefers(request.headers.get("Accept", ""), "text/csv", "application/json")
        return _answer(request, assets()["index.html"])

    def look(text: str) -> None:
        text += str(next(number))  # none that was seen before
        headers = {"Host": "localhost", "Authorization": "Bearer s3cret", **({where: text} if where else {})}
        for let_through in guards:
            lines = [f"{name}: {value}" for name, value in headers.items()]
            request = request_of("POST", f"/admin/v1/requests?{'' if where else text}", *lines)
            with contextlib.suppress(StopIteration, GatewayError):
                let_through(request, handler).send(None)
            with contextlib.suppress(StopIteration):
                handler(request).send(None)

    assert grows_in_proportion(look, make, 16_000)
    longest = make(16_000)
    assert cpu_s(lambda: look(longest)) < 0.010
