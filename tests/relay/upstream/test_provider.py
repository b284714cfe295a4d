"""What is prepared of a provider: the head of a request to it."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.relay.upstream.provider import Provider
from proxy.wire.request_head import read_request_head


def provider(
    lines: str = "", *, base_url: str = "https://api.example.com/v1", key: str | None = None
) -> Provider:
    text = f'[providers.p]\nbase_url = "{base_url}"\n{lines}\n[models."p/m"]\n'
    return Provider(parse(text).providers["p"], key, 1.0, simulated=False)


@pytest.mark.parametrize(
    ("base_url", "path", "host"),
    [
        ("https://api.example.com/v1", b"/v1/x", b"api.example.com"),
        ("https://api.example.com/v1/", b"/v1/x", b"api.example.com"),
        ("https://api.example.com:443/v1", b"/v1/x", b"api.example.com"),
        ("https://api.example.com:80/v1", b"/v1/x", b"api.example.com:80"),
        ("http://api.example.com:80", b"/x", b"api.example.com"),
        ("http://api.example.com", b"/x", b"api.example.com"),
        ("http://api.example.com:443/v1", b"/v1/x", b"api.example.com:443"),
        ("http://[::1]:8000/v1", b"/v1/x", b"[::1]:8000"),
        ("http://[::1]/v1", b"/v1/x", b"[::1]"),
        ("https://x.com/openai/v1/projects/a%20b", b"/openai/v1/projects/a%20b/x", b"x.com"),
        ("https://x.com/v1beta/openai", b"/v1beta/openai/x", b"x.com"),
    ],
)
def test_where_a_request_goes(base_url, path, host):
    lines = provider(base_url=base_url).head(b"/x", b"").split(b"\r\n")
    assert lines[:2] == [b"POST %b HTTP/1.1" % path, b"Host: " + host]
    assert lines[-1] == b""  # the client's own lines follow


PREVIEW = "query = { api-version = 'preview' }"


@pytest.mark.parametrize(
    ("own", "clients", "target"),
    [
        ("", b"", b"/v1/x"),
        ("", b"beta=b&limit", b"/v1/x?beta=b&limit"),
        ("", b"a=b&c", b"/v1/x"),
        ("pass_query = ['c']", b"a=b&c", b"/v1/x?c"),
        (PREVIEW, b"", b"/v1/x?api-version=preview"),
        ("query = { api-version = 'preview', z = '1' }", b"beta=b", b"/v1/x?api-version=preview&z=1&beta=b"),
        (PREVIEW, b"api-version=other&api%2Dversion=o", b"/v1/x?api-version=preview"),
        ("query = { Api-Version = 'preview' }", b"api-version=other", b"/v1/x?Api-Version=preview"),
        ("query = { q = 'a b&c=d#e' }", b"", b"/v1/x?q=a+b%26c%3Dd%23e"),
    ],
)
def test_the_query_of_both_sides(own, clients, target):
    line = b"POST /v1/x%b HTTP/1.1\r\nHost: g" % (b"?" + clients if clients else b"")
    prepared, _, _ = provider(own).prepare(read_request_head(line), b"/x")
    assert prepared.startswith(b"POST " + target + b" HTTP/1.1\r\n")


BEARER, X_API_KEY, API_KEY = b"Authorization: Bearer sk-1", b"x-api-key: sk-1", b"api-key: sk-1"


@pytest.mark.parametrize(
    ("auth", "line"), [("bearer", BEARER), ("x-api-key", X_API_KEY), ("api-key", API_KEY)]
)
def test_the_credentials(auth, line):
    made = provider(f'auth = "{auth}"\napi_key_env = "K"', key="sk-1")
    assert made.has_credentials
    assert line in made.head(b"/x", b"").split(b"\r\n")
    keyless = provider(f'auth = "{auth}"\napi_key_env = "K"')
    assert not keyless.has_credentials
    assert b"sk-1" not in keyless.head(b"/x", b"")
    assert b"None" not in keyless.head(b"/x", b"")


@pytest.mark.parametrize("auth", ["none", "passthrough"])
def test_no_credentials_needed(auth):
    made = provider(f'auth = "{auth}"')
    assert made.has_credentials
    assert made.passthrough == (auth == "passthrough")
    assert (
        made.head(b"/x", b"")
        == b"POST /v1/x HTTP/1.1\r\nHost: api.example.com\r\nContent-Type: application/json\r\n"
        b"Accept-Encoding: identity\r\n"
    )


def test_headers_and_compression_of_a_provider():
    made = provider('headers = { "X-Team" = "search" }\ncompression = "pass"')
    assert b"X-Team: search\r\n" in made.head(b"/x", b"")
    assert b"Accept-Encoding" not in made.head(b"/x", b"")
    assert made.pass_encoding


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (b"/chat/completions", BEARER), (b"/embeddings", BEARER), (b"/messages", X_API_KEY),
        (b"/messages/count_tokens", X_API_KEY), (b"/moderations", None),
    ],
)  # fmt: skip
def test_the_credentials_by_endpoint(path, line):
    table = '{ messages = "x-api-key", moderations = "none", default = "bearer" }'
    more = 'endpoints = ["chat", "embeddings", "messages", "moderations"]'
    lines = provider(f'auth = {table}\napi_key_env = "K"\n{more}', key="sk-1").head(path, b"").split(b"\r\n")
    assert [one for one in lines if b"sk-1" in one] == ([] if line is None else [line])


def test_count_tokens_goes_with_messages_unless_it_is_named():
    more = 'api_key_env = "K"\nendpoints = ["chat", "messages"]'
    ways = 'auth = { count_tokens = "bearer", messages = "x-api-key", default = "api-key" }'
    made = provider(f"{ways}\n{more}", key="sk-1")
    assert b"\r\nAuthorization: Bearer sk-1\r\n" in made.head(b"/messages/count_tokens", b"")
    assert b"\r\nx-api-key: sk-1\r\n" in made.head(b"/messages", b"")
    assert b"\r\napi-key: sk-1\r\n" in made.head(b"/chat/completions", b"")


def test_a_provider_needs_a_key_where_one_endpoint_needs_it():
    more = 'endpoints = ["chat", "messages"]'
    assert not provider(f'auth = {{ messages = "none" }}\n{more}').has_credentials
    assert not provider(f'auth = {{ messages = "bearer", default = "none" }}\n{more}').has_credentials
    assert provider(f'auth = {{ messages = "none", default = "none" }}\n{more}').has_credentials


HEAD = (
    b"POST /v1/chat/completions?user=1&beta=2 HTTP/1.1\r\nHost: g\r\nX-Team: mine\r\n"
    b"Accept-Encoding: gzip\r\nAuthorization: Bearer client\r\nX-TokenHub-Key: th-1\r\n"
    b"Cookie: a=b\r\nUser-Agent: a\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nOpenAI-Project: p"
)


AGENT, TEAM, OWN = b"User-Agent: a", b"X-Team: mine", b"authorization: Bearer client"


@pytest.mark.parametrize(
    ("lines", "extra"),
    [
        ("", [AGENT]),
        ('pass_headers = ["x-TEAM"]', [AGENT, TEAM]),
        ('pass_headers = ["x-te*"]', [AGENT, TEAM]),
        ('pass_headers = ["x-*"]\ndrop_headers = ["x-team"]', [AGENT]),
        ('headers = { "x-team" = "search" }\npass_headers = ["x-*"]', [AGENT]),
        ('headers = { "user-agent" = "b" }', []),
        ('drop_headers = ["User-*"]', []),
        ('drop_headers = ["*"]', []),
        ('auth = "passthrough"', [AGENT, OWN, b"openai-project: p"]),
        ('auth = "passthrough"\ndrop_headers = ["openai-project"]', [AGENT, OWN]),
        ('compression = "pass"', [AGENT, b"Accept-Encoding: gzip"]),
    ],
)
def test_what_of_a_clients_head_reaches_the_provider(lines, extra):
    made = provider(lines)
    prepared, names, parameters = made.prepare(read_request_head(HEAD), b"/chat/completions")
    own = made.head(b"/chat/completions", b"beta=2")
    assert own.startswith(b"POST /v1/chat/completions?beta=2 HTTP/1.1\r\n")
    assert prepared == own + b"".join(line + b"\r\n" for line in extra)
    assert (names, parameters) == ([] if TEAM in extra else [b"x-team"], [b"user"])
    assert prepared.lower().count(b"\r\ncontent-type:") == 1
