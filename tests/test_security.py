"""What THREAT_MODEL.md promises of a running gateway, from outside: where it connects to, and where keys go.

Each provider notes all it gets, and the canary is whatever must never get anything.
"""

from __future__ import annotations

import json

import openai
import pytest

from tests.attemptcases import ask
from tests.fakes import Call, RawClient, ScriptedProvider, answers, dead_url

# Each is a secret of one party, and a word that stands nowhere else.
KEY_A, KEY_B = "sk-alpha-0123456789", "sk-beta-9876543210"


def config(a: ScriptedProvider | str, b: ScriptedProvider | str, more: str = "", a_more: str = "") -> str:
    """Two providers with a key each, behind one name; ``a`` is asked first."""
    a, b = (p if isinstance(p, str) else p.url for p in (a, b))
    return f"""
[providers.a]
base_url = "{a}"
api_key_env = "KEY_A"
{a_more}
[providers.b]
base_url = "{b}"
api_key_env = "KEY_B"
auth = "x-api-key"
[models."a/m"]
input_price = 1
output_price = 1
[models."b/m"]
input_price = 100
output_price = 100
[aliases]
two = {{ models = ["a/m", "b/m"], strategy = "cost" }}
{more}
"""


KEYS = {"KEY_A": KEY_A, "KEY_B": KEY_B}


@pytest.fixture
async def canary():
    """Where nobody is ever to connect to."""
    async with ScriptedProvider() as scripted:
        yield scripted
        assert scripted.connections == 0


# ---------------------------------------------------------------------- a request can't choose where it goes


def attacks(port: int) -> list[bytes]:
    """What names the canary, in the spellings that have led gateways astray."""
    host = f"127.0.0.1:{port}"
    texts = [
        f"http://{host}/v1", f"https://{host}", f"//{host}/v1", host, f"@{host}", f"x@{host}/",
        f"\\\\{host}\\", f"a/m@{host}", f"a/../../{host}", f"http://{host}#a/m", f"http://{host}?a/m",
        f"a/m?@{host}", f"a/m%0d%0aHost:%20{host}", f"{host}:80", f"http:{host}", f"unix:/{host}",
    ]  # fmt: skip
    return [text.encode() for text in texts]


# What proxies, frameworks and other gateways take a destination from.
HEADERS = [
    "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Proto", "X-Forwarded-For", "X-Host", "X-Original-URL",
    "X-Rewrite-URL", "X-HTTP-Host-Override", "X-Real-IP", "Forwarded", "Via", "Proxy-Connection", "Referer",
    "Origin", "Destination", "Location", "Alt-Used", "Proxy", "Base-Url", "X-Base-Url", "X-Api-Base", "X-Target",
    "X-Upstream", "X-Envoy-Original-Dst-Host", "X-Inferoute-Provider", "X-Inferoute-Model",
    "X-Inferoute-Base-Url", "OpenAI-Organization", "Helicone-Target-Url", "x-portkey-custom-host",
]  # fmt: skip
FIELDS = ["base_url", "api_base", "api_url", "endpoint", "host", "url", "provider", "target", "proxy"]


def where(seen: list[tuple[bytes, bytes]]) -> set[tuple[bytes, bytes]]:
    """Request line, and the Host lines, of what a provider got."""
    return {
        (head.split(b"\r\n")[0], b",".join(x for x in head.split(b"\r\n") if x.lower().startswith(b"host:")))
        for head, _ in seen
    }


async def test_no_header_chooses_the_upstream(provider, start, canary):
    provider.script = answers()
    server = await start(config(provider, canary), **KEYS)
    client = await RawClient.connect(server)
    for attack in attacks(canary.port):
        for name in HEADERS:
            await client.post(b'{"model":"a/m"}', extra=b"%b: %b\r\n" % (name.encode(), attack))
            assert (await client.response())[0] == 200, (name, attack)
    assert len(provider.seen) == len(HEADERS) * len(attacks(1))
    host = b"Host: 127.0.0.1:%d" % provider.port
    assert where(provider.seen) == {(b"POST /v1/chat/completions HTTP/1.1", host)}


def targets(port: int) -> list[bytes]:
    host = b"127.0.0.1:%d" % port
    path = b"/v1/chat/completions"
    return [
        b"http://" + host + path, b"HTTP://" + host + path, b"https://" + host + path, b"//" + host + path,
        b"http://a@" + host + path, b"\\\\" + host + path, host, host + path, b"@" + host + path,
        path + b"@" + host, path + b"?@" + host, path + b"?http://" + host, path + b"#@" + host,
        path + b"/../../" + host, path + b";@" + host, path + b"%0d%0aHost:%20" + host,
        b"/v1/models/http://" + host, b"/http://" + host + path, b"/v1/proxy/" + host, b"*", b"/", b"",
    ]  # fmt: skip


@pytest.mark.parametrize("method", [b"POST", b"GET", b"CONNECT", b"OPTIONS"])
async def test_no_target_and_no_host_chooses_the_upstream(provider, start, canary, method):
    provider.script = answers()
    server = await start(config(provider, canary), **KEYS)
    body = b'{"model":"a/m"}'
    hosts = [b"gateway", *attacks(canary.port)]
    heads = [(target, b"gateway") for target in targets(canary.port)]
    heads += [(b"/v1/chat/completions", host) for host in hosts]
    for target, host in heads:
        client = await RawClient.connect(server)
        await client.send(
            b"%b %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
            % (method, target, host, len(body), body)
        )
        told = await client.rest()
        assert told.startswith(b"HTTP/1."), (target, host)
    ours = b"Host: 127.0.0.1:%d" % provider.port
    for line, host in where(provider.seen):
        assert method == b"POST"
        assert line.startswith((b"POST /v1/chat/completions HTTP", b"POST /v1/chat/completions?"))
        assert host == ours
    assert bool(provider.seen) == (method == b"POST")  # some got through, else nothing was tried


async def test_no_model_is_an_address(provider, start, canary):
    provider.script = answers()
    server = await start(config(provider, canary), **KEYS)
    for attack in attacks(canary.port):
        name = attack.decode()
        for model in (name, f"a/{name}", f"a/m@{name}", f"{name}/m", f"a/m\r\nHost: {name}", f"a/m\0{name}"):
            assert (await ask(server, model)).status == 404, model
            reply = await ask(server, "a/m", "X-Inferoute-Fallback: " + name)
            assert reply.status in (400, 404), model
    assert not provider.seen
    fields = dict.fromkeys(FIELDS, f"http://127.0.0.1:{canary.port}/v1")
    assert (await ask(server, "a/m", more=b"," + json.dumps(fields)[1:-1].encode())).status == 200
    host = b"Host: 127.0.0.1:%d" % provider.port
    assert where(provider.seen) == {(b"POST /v1/chat/completions HTTP/1.1", host)}
    assert provider.seen[0][1].count(b"127.0.0.1") == len(
        fields
    )  # it is the provider's to make sense of them


@pytest.mark.parametrize("base", ["/v1", "/openai/deployments/x", "", "/a%2Fb", "/../x", "/a/../b"])
async def test_the_base_path_stays_in_front(provider, start, base):
    """Whatever a client writes behind it: only known paths are proxied, and what is added is a query."""
    provider.script = answers()
    url = provider.url.removesuffix("/v1") + base
    server = await start(config(url, url), **KEYS)
    for path in ("/v1/chat/completions?a=/../../admin", "/chat/completions?b=1&c=%2e%2e"):
        assert (await ask(server, "a/m", path=path.encode())).status == 200
    for path in (
        "/v1/../admin",
        "/v1/chat/completions/../../admin",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
    ):
        assert (await ask(server, "a/m", path=path.encode())).status in (404, 405)
    lines = [head.split(b"\r\n")[0].decode() for head, _ in provider.seen]
    assert lines == [
        f"POST {base}/chat/completions?a=/../../admin HTTP/1.1",
        f"POST {base}/chat/completions?b=1&c=%2e%2e HTTP/1.1",
    ]


# ---------------------------------------------------------------------- nor does an answer


@pytest.mark.parametrize("status", [201, 300, 301, 302, 303, 305, 307, 308, 503])
async def test_no_answer_leads_anybody_elsewhere(provider, start, canary, status):
    """The gateway follows nothing; and a client, whose SDK would follow with its key, isn't told where to."""
    where_to = f"http://127.0.0.1:{canary.port}/v1"
    extra = (
        f"Location: {where_to}\r\nContent-Location: {where_to}\r\nRefresh: 0; url={where_to}\r\n"
        f'Alt-Svc: http/1.1="127.0.0.1:{canary.port}"; ma=3600\r\nLink: <{where_to}>; rel=preload\r\n'
        f"X-Accel-Redirect: {where_to}\r\nRetry-After: 0\r\nX-Answer: passes\r\n"
        "Strict-Transport-Security: max-age=1; includeSubDomains\r\nClear-Site-Data: *\r\n"
    )
    provider.script = answers(b"{}", b"%d Look" % status, extra.encode())
    server = await start(config(provider, dead_url()), **KEYS)
    for _ in range(2):
        reply = await ask(server, "a/m")
        assert (reply.status, reply.body, reply.fields[b"x-answer"]) == (status, b"{}", b"passes")
        about_this_host = {
            b"location", b"refresh", b"alt-svc", b"strict-transport-security", b"clear-site-data",
        }  # fmt: skip
        assert not reply.fields.keys() & about_this_host
    assert len(provider.seen) == 2


async def test_the_official_sdk_takes_its_key_nowhere_else(provider, start, canary):
    provider.script = answers(
        b"{}", b"307 Temporary Redirect", b"Location: http://localhost:%d/v1\r\n" % canary.port
    )
    server = await start(config(provider, dead_url()), **KEYS)
    headers = {"X-TokenHub-Key": "th-" + "x" * 43}
    url = f"http://127.0.0.1:{server.addresses[0].port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, default_headers=headers) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model="a/m", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 307


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"TLS/1.0"])
async def test_no_provider_turns_a_connection_into_another(provider, start, canary, upgrade):
    """What would follow a 101 are bytes that nobody reads as HTTP."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\nraw bytes"
            % upgrade
        )
        await call.gone()

    provider.script = script
    server = await start(config(provider, canary), **KEYS)
    asked = (
        f"Connection: Upgrade, X-Secret\r\nUpgrade: {upgrade.decode()}",
        "X-Secret: 1",
        "HTTP2-Settings: AAMAAABk",
    )
    reply = await ask(server, "a/m", *asked)
    assert reply.kind[:2] == (502, "provider_error")
    assert b"raw bytes" not in reply.body
    head = provider.seen[0][0].lower()
    assert b"upgrade" not in head and b"x-secret" not in head and b"http2-settings" not in head
