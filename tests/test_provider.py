"""What is prepared of a provider: the head of a request to it."""

from __future__ import annotations

import pytest

from proxy.config import parse
from proxy.headers import read_request_head
from proxy.provider import Provider


def provider(
    lines: str = "", *, base_url: str = "https://api.example.com/v1", key: str | None = None
) -> Provider:
    text = f'[providers.p]\nbase_url = "{base_url}"\n{lines}\n[models."p/m"]\n'
    return Provider(parse(text).providers["p"], key, 1.0, simulated=False)


@pytest.mark.parametrize(
    ("base_url", "line", "host"),
    [
        ("https://api.example.com/v1", b"POST /v1/x HTTP/1.1", b"Host: api.example.com"),
        ("https://api.example.com/v1/", b"POST /v1/x HTTP/1.1", b"Host: api.example.com"),
        ("https://api.example.com:443/v1", b"POST /v1/x HTTP/1.1", b"Host: api.example.com"),
        ("https://api.example.com:80/v1", b"POST /v1/x HTTP/1.1", b"Host: api.example.com:80"),
        ("http://api.example.com:80", b"POST /x HTTP/1.1", b"Host: api.example.com"),
        ("http://api.example.com", b"POST /x HTTP/1.1", b"Host: api.example.com"),
        ("http://api.example.com:443/v1", b"POST /v1/x HTTP/1.1", b"Host: api.example.com:443"),
        ("http://[::1]:8000/v1", b"POST /v1/x HTTP/1.1", b"Host: [::1]:8000"),
        ("http://[::1]/v1", b"POST /v1/x HTTP/1.1", b"Host: [::1]"),
        (
            "https://x.com/openai/v1/projects/a%20b",
            b"POST /openai/v1/projects/a%20b/x HTTP/1.1",
            b"Host: x.com",
        ),
        ("https://x.com/v1beta/openai", b"POST /v1beta/openai/x HTTP/1.1", b"Host: x.com"),
    ],
)
def test_where_a_request_goes(base_url, line, host):
    lines = provider(base_url=base_url).head(b"/x", b"").split(b"\r\n")
    assert lines[:2] == [line, host]
    assert lines[-1] == b""  # the client's own lines follow


@pytest.mark.parametrize(
    ("own", "clients", "target"),
    [
        ("", b"", b"/v1/x"),
        ("", b"a=b&c", b"/v1/x?a=b&c"),
        ("query = { api-version = 'preview' }", b"", b"/v1/x?api-version=preview"),
        ("query = { api-version = 'preview', z = '1' }", b"a=b", b"/v1/x?api-version=preview&z=1&a=b"),
        ("query = { q = 'a b&c=d#e' }", b"", b"/v1/x?q=a+b%26c%3Dd%23e"),
    ],
)
def test_the_query_of_both_sides(own, clients, target):
    assert provider(own).head(b"/x", clients).startswith(b"POST " + target + b" HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("auth", "line"),
    [
        ("bearer", b"Authorization: Bearer sk-1"),
        ("x-api-key", b"x-api-key: sk-1"),
        ("api-key", b"api-key: sk-1"),
    ],
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
        == b"POST /v1/x HTTP/1.1\r\nHost: api.example.com\r\nAccept-Encoding: identity\r\n"
    )


def test_headers_and_compression_of_a_provider():
    made = provider('headers = { "X-Team" = "search" }\ncompression = "pass"')
    assert b"X-Team: search\r\n" in made.head(b"/x", b"")
    assert b"Accept-Encoding" not in made.head(b"/x", b"")
    assert made.pass_encoding
    assert made.overrides == {b"x-team"}


@pytest.mark.parametrize(
    ("lines", "extra"),
    [
        ("", [b"X-Team: mine"]),
        ('headers = { "x-team" = "search" }', []),
        ('auth = "passthrough"', [b"X-Team: mine", b"authorization: Bearer client"]),
        ('compression = "pass"', [b"X-Team: mine", b"Accept-Encoding: gzip"]),
    ],
    ids=["plain", "overridden", "passthrough", "compression"],
)
def test_what_of_a_clients_head_reaches_the_provider(lines, extra):
    head = read_request_head(
        b"POST /v1/chat/completions?user=1 HTTP/1.1\r\nHost: g\r\nX-Team: mine\r\nAccept-Encoding: gzip\r\n"
        b"Authorization: Bearer client\r\nX-TokenHub-Key: th-1\r\nCookie: a=b"
    )
    made = provider(lines)
    prepared = made.prepare(head, b"/chat/completions")
    own = made.head(b"/chat/completions", b"user=1")
    assert own.startswith(b"POST /v1/chat/completions?user=1 HTTP/1.1\r\n")
    assert prepared == own + b"".join(line + b"\r\n" for line in extra)
