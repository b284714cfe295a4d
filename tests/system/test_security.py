"""What THREAT_MODEL.md promises of a running gateway, from outside: where it connects to, and where keys go.

Each provider notes all it gets, and the canary is whatever must never get anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import subprocess
import sys
import threading
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from proxy.access.key import digest_of
from proxy.config.parse import parse
from proxy.config.settings import TracesConfig
from proxy.control.admin import guard
from proxy.control.certificates import Certificate
from proxy.control.key_store import Keyring
from proxy.control.prepare import prepare
from proxy.control.telemetry.logs import JsonLines, TextLines
from proxy.control.telemetry.otlp import Otlp, _Session
from proxy.control.telemetry.spans import context_of
from proxy.control.webhook import Webhook
from proxy.errors import Unauthorized
from proxy.relay.exchange.tracing import SAMPLED
from proxy.server.messages import ApplyConfig, Start, WorkerConfig
from proxy.server.single import Server
from proxy.wire.header_lines import may_pass
from proxy.wire.request_head import read_request_head
from tests.e2e import environment
from tests.support import two_providers
from tests.support.fakes import RawClient, ScriptedProvider, answers, dead_url, hangs, post, until
from tests.support.keys import admin, bearer, key_of, make, table_of
from tests.support.scripts import Plays, answer, says
from tests.support.two_providers import ask
from tests.wire.test_header_lines import IDENTITY, STEERING

# Each is a secret of one party, and a word that stands nowhere else.
KEY_A, KEY_B = "sk-alpha-0123456789", "sk-beta-9876543210"


def config(a: ScriptedProvider | str, b: ScriptedProvider | str, more: str = "", a_more: str = "") -> str:
    """Two providers with a key each, behind one name; ``a`` is asked first."""
    text = two_providers.config(a, b, a_more=f'api_key_env = "KEY_A"\n{a_more}', more=more)
    return text.replace(two_providers.NO_KEY, 'api_key_env = "KEY_B"\nauth = "x-api-key"')


KEYS = {"KEY_A": KEY_A, "KEY_B": KEY_B}


@pytest.fixture
async def canary():
    """Where nobody is ever to connect to."""
    async with ScriptedProvider() as scripted:
        yield scripted
        assert scripted.connections == 0


@pytest.fixture(name="server")
async def _server(provider, canary, start):
    return await start(config(provider, canary), **KEYS)


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
    "X-Forwarded-Host", "X-Forwarded-Server", "X-Forwarded-Proto", "X-Forwarded-For", "X-Host",
    "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Host-Override", "X-Real-IP", "Forwarded", "Via",
    "Proxy-Connection", "Referer", "Destination", "Location", "Alt-Used", "Proxy", "Base-Url",
    "X-Base-Url", "X-Api-Base", "X-Target", "X-Upstream", "X-Envoy-Original-Dst-Host",
    "X-Inferoute-Provider", "X-Inferoute-Model", "X-Inferoute-Base-Url", "OpenAI-Organization",
    "Helicone-Target-Url", "x-portkey-custom-host",
]  # fmt: skip
FIELDS = ["base_url", "api_base", "api_url", "endpoint", "host", "url", "provider", "target", "proxy"]


def where(seen: list[tuple[bytes, bytes]]) -> set[tuple[bytes, bytes]]:
    """Request line, and the Host lines, of what a provider got."""
    return {
        (head.split(b"\r\n")[0], b",".join(x for x in head.split(b"\r\n") if x.lower().startswith(b"host:")))
        for head, _ in seen
    }


async def test_no_header_chooses_the_upstream(provider, client, canary):
    provider.script = answers()
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
async def test_no_target_and_no_host_chooses_the_upstream(provider, server, canary, method):
    provider.script = answers()
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


async def test_no_model_is_an_address(provider, server, canary):
    provider.script = answers()
    _, secret = await make(server)
    key = "x-api-key: " + secret.decode()  # so that each refusal is told in full
    for attack in attacks(canary.port):
        name = attack.decode()
        for model in (name, f"a/{name}", f"a/m@{name}", f"{name}/m", f"a/m\r\nHost: {name}", f"a/m\0{name}"):
            assert (await ask(server, model, key)).status == 404, model
            reply = await ask(server, "a/m", key, "X-Inferoute-Fallback: " + name)
            assert reply.status in (400, 404), model
    assert not provider.seen
    fields = dict.fromkeys(FIELDS, f"http://127.0.0.1:{canary.port}/v1")
    assert (await ask(server, "a/m", key, more=b"," + json.dumps(fields)[1:-1].encode())).status == 200
    host = b"Host: 127.0.0.1:%d" % provider.port
    assert where(provider.seen) == {(b"POST /v1/chat/completions HTTP/1.1", host)}
    assert provider.seen[0][1].count(b"127.0.0.1") == len(
        fields
    )  # it is the provider's to make sense of them


@pytest.mark.parametrize("a_more", ["", 'pass_headers = ["x-*", "c*", "h*", "o*"]\npass_query = ["user"]'])
async def test_no_header_and_no_parameter_steers_a_provider(provider, start, canary, a_more):
    """Nor does a name that only some servers read as one: whoever runs a gateway as provider lets no client
    tell it where the operator's key goes, who pays, or another model."""
    provider.script = answers()
    server = await start(config(provider, canary, a_more=a_more), **KEYS)
    evil = f"evil.{canary.port}"
    names = [*STEERING, *IDENTITY]
    for name in names:
        if name == "Origin":  # refused without a key
            continue
        for spelled in (name, name.lower(), name.upper()):
            assert (await ask(server, "a/m", f"{spelled}: {evil}")).status == 200, name
    for query in (
        "model", "MODEL", "m%6fdel", "%6d%6f%64%65%6c", "model[]", "key", "api_key", "api%5Fkey", "Api-Key",
        "beta=1;model", "user;model", ";model", "x&model", "&&key", "model%00", "+model",
    ):  # fmt: skip
        path = f"/v1/chat/completions?{query}={evil}"
        assert (await ask(server, "a/m", path=path.encode())).status == 200, query
    assert len(provider.seen) > 3 * len(names)
    sent = b"".join(head for head, _ in provider.seen)
    chosen = len(re.findall(rb"(?i)\r\nx-\S+: evil", sent))
    assert bool(chosen) == bool(a_more)  # what an operator lets through and nobody knows to be harmful
    for name in names:
        if not may_pass(name.lower().encode()):
            assert not re.search(rb"(?i)\r\n%b: evil" % re.escape(name.encode()), sent), name
    assert not re.search(rb"(?i)[?&;](m|%6d|k|a)\S* HTTP", sent)


@pytest.mark.parametrize("base", ["/v1", "/openai/deployments/x", "", "/a%2Fb", "/../x", "/a/../b"])
async def test_the_base_path_stays_in_front(provider, start, base):
    """Whatever a client writes behind it: only known paths are proxied, and what is added is a query."""
    provider.script = answers()
    url = provider.url.removesuffix("/v1") + base
    server = await start(config(url, url), **KEYS)
    for path in ("/v1/chat/completions?after=/../../admin", "/chat/completions?b=1&beta=%2e%2e"):
        assert (await ask(server, "a/m", path=path.encode())).status == 200
    for path in (
        "/v1/../admin", "/v1/chat/completions/../../admin", "/v1//chat/completions", "/v1/chat%2Fcompletions",
    ):  # fmt: skip
        assert (await ask(server, "a/m", path=path.encode())).status in (404, 405)
    lines = [head.split(b"\r\n")[0].decode() for head, _ in provider.seen]
    assert lines == [
        f"POST {base}/chat/completions?after=/../../admin HTTP/1.1",
        f"POST {base}/chat/completions?beta=%2e%2e HTTP/1.1",
    ]


# ---------------------------------------------------------------------- nor does an answer


@pytest.mark.parametrize("status", [201, 300, 301, 302, 303, 305, 307, 308, 503])
async def test_no_answer_leads_anybody_elsewhere(provider, start, canary, status):
    """The gateway follows nothing; and a client whose SDK would follow with its key isn't told where to."""
    where_to = f"http://127.0.0.1:{canary.port}/v1"
    extra = (
        f"Location: {where_to}\r\nContent-Location: {where_to}\r\nRefresh: 0; url={where_to}\r\n"
        f'Alt-Svc: http/1.1="127.0.0.1:{canary.port}"; ma=3600\r\nLink: <{where_to}>; rel=preload\r\n'
        f"X-Accel-Redirect: {where_to}\r\nRetry-After: 0\r\nX-Answer: passes\r\n"
        "Strict-Transport-Security: max-age=1; includeSubDomains\r\nClear-Site-Data: *\r\n"
    )
    provider.script = answers(b"{}", b"%d Look" % status, extra.encode())
    server = await start(config(provider, dead_url()), **KEYS)
    for line, passes in (
        ("", True), ("Authorization: Bearer k", True), ("X-TokenHub-Key: k", False), ("x-api-key: k", False),
    ):  # fmt: skip
        reply = await ask(server, "a/m", line)
        assert (reply.status, reply.body, reply.fields[b"x-answer"]) == (status, b"{}", b"passes")
        about_this_host = {b"refresh", b"alt-svc", b"strict-transport-security", b"clear-site-data"}
        assert not reply.fields.keys() & about_this_host
        assert reply.fields.get(b"location") == (where_to.encode() if passes else None)
    assert len(provider.seen) == 4


async def test_the_official_sdk_takes_its_key_nowhere_else(provider, start, canary):
    provider.script = answers(
        b"{}", b"307 Temporary Redirect", b"Location: http://localhost:%d/v1\r\n" % canary.port
    )
    server = await start(config(provider, dead_url()), **KEYS)
    _, secret = await make(server)
    headers = {"X-TokenHub-Key": secret.decode()}
    url = f"http://127.0.0.1:{server.addresses[0].port}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0, default_headers=headers) as sdk:
        with pytest.raises(openai.APIStatusError) as caught:
            await sdk.chat.completions.create(model="a/m", messages=[{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 307


@pytest.mark.parametrize("upgrade", [b"websocket", b"h2c", b"TLS/1.0"])
async def test_no_provider_turns_a_connection_into_another(provider, server, canary, upgrade):
    """What would follow a 101 are bytes that nobody reads as HTTP."""

    provider.script = Plays(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\nraw bytes" % upgrade
    )
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


# ---------------------------------------------------------------------- keys go where they belong

COOKIE, OWN, ADMIN = b"session-c00kie", b"sk-of-the-client", b"s3cret-admin-token"
WAYS = {
    "bearer": b"Authorization: Bearer %b\r\n",
    "in capitals": b"AUTHORIZATION: bearer \t%b \r\n",
    "x-api-key": b"X-Api-Key: %b\r\n",
    "Azure's": b"api-key:%b\r\n",
    "our own": b"x-tokenhub-KEY: %b\r\nAuthorization: Bearer sk-of-the-client\r\n"
    b"x-api-key: sk-of-the-client\r\n",
    "all": b"X-TokenHub-Key: %b\r\nAuthorization: Bearer sk-of-the-client\r\nCookie: k=sk-of-the-client\r\n"
    b"x-goog-api-key: sk-of-the-client\r\nApi-Key: sk-of-the-client\r\n"
    b"Authorization: Basic sk-of-the-client\r\n",
}


def check_seen(provider: ScriptedProvider, own: str, *more: bytes) -> None:
    """It got requests, with its own key each, and nobody else's secret."""
    assert provider.seen
    for head, body in provider.seen:
        assert head.count(own.encode()) == (1 if own else 0)
        for secret in {KEY_A.encode(), KEY_B.encode(), COOKIE, OWN, ADMIN, *more} - {own.encode()}:
            assert secret not in head + body


async def started(start, text: str, token: str = "") -> tuple[Server, bytes]:
    """A gateway that serves nobody without a key, and a key of its own."""
    server = await start(text, **KEYS, ADMIN_TOKEN=token)
    _, secret = await make(server)
    return server, secret


async def ask_with(
    server: Server, secret: bytes, way: str = "bearer", model: str = "two", extra: bytes = b""
):
    client = await RawClient.connect(server)
    lines = WAYS[way] % secret + b"Cookie: id=%b\r\nX-Admin-Token: none\r\n" % COOKIE + extra
    await client.post(b'{"model":"%b","stream":false}' % model.encode(), extra=lines)
    answer = await client.response()
    client.close()
    return answer


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [200, 401, 429, 500, 503])
async def test_each_provider_gets_its_own_key_and_no_other(provider, other, start, way, status):
    provider.script = answers(b"{}", b"%d Look" % status)
    other.script = answers()
    server, secret = await started(start, config(provider, other))
    status, _, _ = await ask_with(server, secret, way)
    assert status == 200
    assert (await ask_with(server, secret, way, "b/m", b"X-Inferoute-Fallback: a/m\r\n"))[0] == 200
    check_seen(provider, KEY_A, secret)
    check_seen(other, KEY_B, secret)


async def test_a_hedge_and_a_redial_carry_no_foreign_key(provider, other, start):
    provider.script = says(answer())
    other.script = answers()
    alias = 'fast = { models = ["a/m", "b/m"], strategy = "cost", hedge = "1ms" }'
    server, secret = await started(start, config(provider, other, alias))
    for _ in range(3):
        assert (await ask_with(server, secret, model="a/m"))[0] == 200
    assert provider.connections == 3
    provider.script = hangs
    assert (await ask_with(server, secret, model="fast"))[0] == 200
    assert len(provider.seen) == 4
    check_seen(provider, KEY_A, secret)
    check_seen(other, KEY_B, secret)


async def test_a_passing_credential_reaches_its_provider_alone(provider, other, start):
    """What a client sends for a provider goes to that one, without the key that is ours."""
    provider.script, other.script = answers(b"{}", b"500 Look"), answers()
    text = config(provider, other).replace('api_key_env = "KEY_A"', 'auth = "passthrough"')
    server, secret = await started(start, text)
    extra = b"Authorization: Bearer %b\r\nX-Api-Key: %b\r\n" % (OWN, secret)
    for model, status in (("two", 500), ("b/m", 200)):
        fallback = b"X-Inferoute-Fallback: %b/m\r\n" % (b"a" if model == "b/m" else b"b")
        assert (await ask_with(server, secret, "our own", model, extra + fallback))[0] == status
    [(head, _)] = provider.seen
    assert OWN in head and COOKIE not in head and b"th-" not in head and b"tokenhub" not in head.lower()
    check_seen(other, KEY_B, secret)


async def test_no_answer_tells_a_key(provider, other, start):
    """Not what the gateway says itself, and not what the admin listener shows."""
    provider.script = other.script = answers(b"{}", b"500 Look")
    server, secret = await started(start, config(provider, other))
    told = [await ask_with(server, secret, way) for way in WAYS]
    told += [await ask_with(server, b"th-" + b"x" * 43, way) for way in WAYS]
    assert {status for status, _, _ in told} == {401, 503}
    other.script = answers(b"{}", b"401 Look")
    told.append(await ask_with(server, secret, model="b/m"))
    pages = ["/routes", "/aliases", "/keys", "/usage?by=key,model", "/requests", "/openapi.json"]
    shown = [await admin(server, "GET", page) for page in pages]
    shown.append(await admin(server, "POST", "/explain", {"body": {"model": "two"}}))
    shown.append(await admin(server, "POST", "/reload", {}))
    client = await RawClient.to(server.admin_address)
    for path in (b"/metrics", b"/", b"/nothing"):
        await client.send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
        told.append(await client.response())
    text = repr(told) + repr(shown)
    assert len(text) > 10_000
    for key in (KEY_A, KEY_B, secret.decode(), digest_of(secret).hex(), OWN.decode(), COOKIE.decode()):
        assert key not in text


SECRETS = """
[alerts]
webhook_url = "https://hooks.example.com/S3CRET"
[traces]
endpoint = "https://u:S3CRET@127.0.0.1:1"
[state]
path = ":memory:"
redis_url = "redis://:S3CRET@127.0.0.1:1"
"""
OF_A_PROVIDER = 'headers = { "x-team" = "S3CRET" }\nquery = { "sig" = "S3CRET" }'


def test_no_repr_tells_a_secret():
    """Such texts are what logs, assertions and messages of exceptions are made of."""
    parsed = parse(config(dead_url(), dead_url(), SECRETS, OF_A_PROVIDER))
    keys = {"a": KEY_A, "b": KEY_B}
    prepared = prepare(parsed, keys, 0)
    worker_config = WorkerConfig(parsed, keys, 0, Certificate(b"chain", b"S3CRET"))
    start = Start(worker_config, 0, 1, (), 0, 0, None, Keyring(), 0, {}, ())
    head = read_request_head(post(b"{}", extra=WAYS["all"] % b"th-S3CRET").partition(b"\r\n\r\n")[0])
    provider = prepared.providers["a"]
    for value in (
        parsed, worker_config, start, ApplyConfig(worker_config), prepared, provider, provider.pool, head,
    ):  # fmt: skip
        text = repr(value)
        for secret in ("S3CRET", KEY_A, KEY_B, OWN.decode()):
            assert secret not in text, type(value)


# ---------------------------------------------------------------------- what asks, or is sent, by itself


async def test_the_admin_api_makes_no_connection(provider, start, canary):
    """Nothing that it takes is an address: providers, webhook and collector are the file's alone."""
    url = f"http://127.0.0.1:{canary.port}/v1"
    server, _ = await started(start, config(canary, canary))
    for model in ("a/m", "two", "auto", url, f"a/{url}"):
        body = {"model": model, "base_url": url, "messages": [{"role": "user", "content": url}]}
        status, _ = await admin(server, "POST", "/explain", {"body": body})
        assert status in (200, 404), model
    for settings in (
        {"models": [url]}, {"models": ["a/m"], "base_url": url}, {"models": ["a/m"], "sticky": url},
    ):  # fmt: skip
        status, _ = await admin(server, "PUT", "/aliases/x", settings)
        assert status in (409, 422), settings  # 409: this gateway has no file
    for path in ("/providers", "/alerts", "/webhook", f"/proxy/{url}", f"/routes?url={url}"):
        for method in ("GET", "POST", "PUT"):
            assert (await admin(server, method, path, {"url": url}))[0] in (400, 404, 405), path
    status, row = await admin(server, "POST", "/keys", {"name": url, "webhook": url})
    assert status in (400, 422), row


@pytest.mark.parametrize("status", [b"301 a", b"302 a", b"303 a", b"307 a", b"308 a"])
async def test_what_goes_out_by_itself_follows_no_redirect(provider, canary, monkeypatch, caplog, status):
    """Neither an alert nor spans, whose collector may want a key in a header."""
    provider.script = answers(b"", status, b"Location: http://localhost:%d/\r\n" % canary.port)
    webhook = Webhook()
    webhook.use(f"{provider.url}/h00k")
    webhook.send({"text": "an alert"})
    await until(lambda: "an alert is lost" in caplog.text, 20)
    await webhook.close()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=c0llector-key")
    collector = Otlp(TracesConfig(endpoint=provider.url), None)
    collector._processor.on_end(ReadableSpan("x", context_of(1, 2, SAMPLED, "")))
    await collector.close()
    assert len(provider.seen) == 2 and b"c0llector-key" in provider.seen[1][0]
    with _Session() as session:  # as exporters use it that leave redirects to it
        answer = await asyncio.to_thread(session.post, provider.url, b"", headers={"x-team": "k"})
    assert b"%d a" % answer.status_code == status


# ---------------------------------------------------------------------- what others write makes no lines

# Ends of lines of all kinds, what steers terminals, what turns the direction of text, and half a character.
NASTY = "x\r\n2026 ERROR forged: \x1b[2J\x1b]0;t\x07\x9b31m\x00\x0b\x0c\x1c\x85\u2028\u2029\u202e\u2066\ud800"


async def test_no_client_and_no_provider_forges_a_line(provider, other, start, caplog):
    caplog.set_level(logging.DEBUG)
    server, secret = await started(start, config(provider, other))
    wire = NASTY.encode("utf-8", "surrogatepass")
    for said in (
        wire + b"\r\n\r\n", b"HTTP/1.1 " + wire + b"\r\n\r\n",
        b"HTTP/1.1 500 \x9b2J\xc2\x9b\r\n" + wire + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \x1b[2J\r\n\r\n", b"HTTP/1.1 200 OK\r\nX\x1b[2J: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + wire,
    ):  # fmt: skip
        provider.script = says(said)
        client = await RawClient.connect(server)
        await client.post(b'{"model":"a/m"}', extra=bearer(secret) + b"Connection: close\r\n")
        await client.rest()
    for model in (NASTY, f"a/{NASTY}"):
        client = await RawClient.connect(server)
        await client.post(json.dumps({"model": model}).encode(), extra=bearer(secret))
        assert (await client.response())[0] in (400, 404)
    for line in (b"X-Inferoute-Strategy", b"X-Inferoute-Fallback", b"User-Agent", b"Authorization"):
        client = await RawClient.connect(server)
        await client.post(b'{"model":"b/m"}', extra=line + b": " + wire.replace(b"\r\n", b" ") + b"\r\n")
        assert (await client.response())[0] >= 400
    assert (await admin(server, "POST", "/keys", {"name": NASTY}))[0] in (400, 422)
    assert any("provider a" in record.getMessage() for record in caplog.records)
    for formatter in (JsonLines(1), TextLines(1, coloured=False)):
        for record in caplog.records:
            line = formatter.format(record)
            if record.exc_info is None:
                assert line.isprintable(), line
    status, rows = await admin(server, "GET", "/requests")
    assert status == 200
    assert all(str(value).isprintable() for row in rows["data"] for value in row.values())


# ---------------------------------------------------------------------- comparisons


class Unequal(bytes):
    """What is looked up or compared by itself, and not by its hash, is told of."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a key was compared")


def test_keys_are_looked_up_by_their_hash_alone():
    """Whoever measures the time learns of a hash that he can't steer, and nothing of the key."""
    secret = b"th-" + b"s" * 43
    table = table_of(key_of(secret=secret))
    assert table.grant_of([(b"authorization", Unequal(b"Bearer " + secret))]) is not None
    assert table.grant_of([(b"x-tokenhub-key", Unequal(secret))]) is not None
    with pytest.raises(Unauthorized):
        table.grant_of([(b"x-tokenhub-key", Unequal(b"th-" + b"s" * 42 + b"t"))])
    assert all(len(digest) == 32 and secret not in digest for digest in table._grants)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("tokén".encode(), 200), (b"token", 401), (b"", 401), ("tokén2".encode(), 401), (b"x" * 7000, 401),
        ("tokén".encode("latin-1"), 401), ("ключ".encode(), 401), (b"\xff\xfe", 401),
    ],
)  # fmt: skip
async def test_the_admin_token_is_compared_in_constant_time(start, monkeypatch, given, status):
    """By hmac.compare_digest, which takes text of ASCII only, and bytes of any length."""
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return compare_digest(one, other)

    monkeypatch.setattr(guard.hmac, "compare_digest", compare)
    own = '[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\ntoken_env = "ADMIN_TOKEN"\n'
    text = config(dead_url(), dead_url(), own)
    server = await start(text, **KEYS, ADMIN_TOKEN="tokén")
    client = await RawClient.to(server.admin_address)
    await client.send(
        b"GET /admin/v1/keys HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n" % given
    )
    assert (await client.response())[0] == status
    assert compared == ["tokén".encode()]


# ---------------------------------------------------------------------- THREAT_MODEL.md

ROOT = Path(__file__).parents[2]
THREAT_MODEL = (ROOT / "THREAT_MODEL.md").read_text()


def test_what_the_threat_model_names_is_there():
    files = set(re.findall(r"`((?!tests/)[a-z_/]+\.py)`", THREAT_MODEL))
    assert len(files) > 25
    assert {name for name in files if not (ROOT / "proxy" / name).exists()} == set()
    tests = set(re.findall(r"`(tests/[a-z0-9_/]+\.py)::(test_\w+)`", THREAT_MODEL))
    assert len(tests) > 40
    missing = {
        f"{file}::{name}"
        for file, name in tests
        if not re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.M)
    }
    assert missing == set()
    for path in re.findall(r"`((?:deploy|tests|docs)/[\w./]+)`", THREAT_MODEL):
        assert (ROOT / path).exists(), path


def test_each_threat_names_what_stops_it_and_what_proves_it():
    """A row of the tables of threats has a module and a test."""
    rows = [line for line in THREAT_MODEL.splitlines() if line.startswith("|") and line.count("|") == 4]
    tables = "\n".join(rows).split("| threat | what stops it | where |")[1:]
    assert len(tables) == 7
    for row in "\n".join(tables).splitlines():
        if row and not row.startswith("| ---"):
            assert re.search(r"`[a-z_/]+\.py`", row) and "::test_" in row, row


def test_the_threat_model_knows_every_outward_connection():
    """A module that can dial is one of those the page knows of, or a command of the operator's."""
    dialling = re.compile(
        r"create_connection|ClientSession\(|HTTPConnection|OTLPSpanExporter\(|sock\.connect\("
    )
    proxy = ROOT / "proxy"
    found = {
        str(path.relative_to(proxy)) for path in proxy.rglob("*.py") if dialling.search(path.read_text())
    }
    commands = {"cli/admin_client.py", "cli/data_client.py"}
    # A listener that asks whether a socket's file is in use; systemd.
    local = {"server/listeners.py", "server/systemd.py"}
    outward = {"relay/upstream/dial.py", "relay/upstream/resolve.py", "control/webhook.py"}
    assert found - commands - local == outward | {"control/telemetry/otlp.py"}


# ---------------------------------------------------------------------- deploy/audit.sh


class Osv(BaseHTTPRequestHandler):
    """A service that knows vulnerabilities, as https://api.osv.dev/v1/query is one."""

    status = 200
    vulnerable = ""
    asked: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["package"]["name"]
        self.asked.add(name)
        affected = {"package": {"name": name, "ecosystem": "PyPI"}}
        found = {"vulns": [{"id": "PYSEC-1", "modified": "2026-01-01T00:00:00Z", "affected": [affected]}]}
        answer = json.dumps(found if name == self.vulnerable else {}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Not here."""


def audit(python: str | Path, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "deploy/audit.sh", python, *options],
        capture_output=True, text=True, timeout=120, check=False, env=environment(HOME=str(folder)),
    )  # fmt: skip


@pytest.fixture
def osv():
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(10)


AWAY = "audit of the {}: not done, as the service that knows vulnerabilities can't be reached\n"
FINE = "audit of the {}: no known vulnerability\n"


@pytest.mark.long
def test_an_audit_fails_for_what_is_known(osv, tmp_path, monkeypatch):
    monkeypatch.setattr(Osv, "vulnerable", "pytest")  # which is installed here, and not in the image
    done = audit(sys.executable, tmp_path, "--osv-url", osv)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(FINE.format("image") + "audit of the environment:\n")
    assert "PYSEC-1" in done.stdout
    assert Osv.asked >= {"aiohttp", "orjson", "uvloop", "pytest"}


@pytest.mark.long
def test_an_audit_without_its_service_is_no_failure(osv, tmp_path, monkeypatch):
    monkeypatch.setattr(Osv, "status", 503)
    done = audit(sys.executable, tmp_path, "--osv-url", osv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == AWAY.format("image") + AWAY.format("environment")


@pytest.mark.parametrize(
    ("said", "code", "told"),
    [
        ("requests.exceptions.ConnectionError: HTTPSConnectionPool", 0, AWAY),
        ("ERROR:pip_audit._cli:Could not connect to OSV's vulnerability feed", 0, AWAY),
        ("ERROR:pip_audit._cli:invalid requirements input", 1, ""),
        ("No module named pip_audit", 1, ""),
    ],
)
def test_an_audit_that_cannot_be_is_told_from_one_that_fails(tmp_path, said, code, told):
    """What pip-audit says in its place; both exit with 1."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\ncat >&2 <<E\n{said}\nE\nexit 1\n')
    python.chmod(0o755)
    done = audit(python, tmp_path)
    assert (done.returncode, done.stdout) == (code, told.format("image") + told.format("environment"))
    assert (said in done.stderr) == bool(code)
