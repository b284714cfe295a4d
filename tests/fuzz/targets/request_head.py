"""Request heads: what we take, llhttp and h11 take and read alike; what a provider gets of it is sound."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

import httptools

from proxy.config.parse import parse
from proxy.errors import GatewayError
from proxy.relay.exchange.head_cache import HeadCache
from proxy.relay.upstream.provider import Provider
from proxy.routing.request_options import read_options
from proxy.wire.request_head import RequestHead, read_request_head
from tests.support.header_sets import DROPPED_OF_CLIENT, PASSING_OF_CLIENT, names_of
from tests.support.heads import facts
from tests.support.oracles import H11, Llhttp, check_framing

SEEDS = [
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: a.example\r\nContent-Length: 12\r\n"
    b"Authorization: Bearer sk-1\r\nContent-Type: application/json",
    b"POST /v1/x?a=1&b=?c HTTP/1.1\r\nhost:a:80\r\ntransfer-encoding: chunked\r\n"
    b"connection: close, x-a\r\nX-A: 1",
    b"GET http://a.example/x?y HTTP/1.0\r\nExpect: 100-continue\r\nX-Inferoute-Fallback: a, b\r\nCookie: c",
    b"OPTIONS * HTTP/1.1\r\nHost: [::1]:8080\r\nOrigin: https://x\r\nx-tokenhub-key: th-abc\r\nX-Api-Key: k",
    b"POST / HTTP/1.1\r\nHost: a\r\nX-Inferoute-Strategy: cost\r\nX-Inferoute-Timeout: 2.5\r\nUpgrade: h2c",
    b"POST /v1/x?beta=true&m%6fdel=a;b=c&x&after=+&=1 HTTP/1.1\r\nHost: a\r\nX-B: 1\r\n"
    b"X-C: 1\r\nx_api_key: 1\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nX-Session-Token: 1\r\nX-Auth-Request-Email: 1",
    b"POST / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\n"
    b"Proxy-Authorization: p\r\nAccept-Encoding: gzip, br",
    b"POST / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic th-x\r\n"
    b"Api-Key: q\r\nOpenAI-Organization: o\r\nTE: a",
]
METHODS = frozenset((b"POST", b"GET", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH"))
CREDENTIALS = frozenset(b"authorization x-api-key api-key x-goog-api-key".split())
# Whoever brings a key of their own.
THEIRS = frozenset(
    b"openai-organization openai-project chatgpt-account-id x-goog-user-project "
    b"ocp-apim-subscription-key".split()
)
# Headers that go no further than the gateway, or are the gateway's own to say (SPEC, "Headers").
OURS_ALONE = ((names_of(DROPPED_OF_CLIENT) | {
    b"proxy-authenticate", b"content-encoding", b"referer",
}) - CREDENTIALS - {b"accept-encoding", b"content-type"})  # fmt: skip
# What goes to every provider: the gateway's own lines, and the list.
LISTED = names_of(PASSING_OF_CLIENT) | {
    b"host", b"content-type", b"content-length", b"accept-encoding", b"x-org",
}  # fmt: skip
PREFIXES = (b"openai-", b"anthropic-", b"x-stainless-", b"x-claude-code-", b"x-codex-", b"x-session-")
PARAMETERS = frozenset(("k", "beta", "api-version", "after", "limit", "order", "include[]"))
_BASE = '[providers.{0}]\nbase_url = "http://p.example:81/v1"\nquery = {{ k = "v" }}\n{1}\n'
_CONFIG = parse(
    '[models."a/m"]\n'
    + _BASE.format("a", 'api_key_env = "K"\nheaders = { "X-Org" = "o" }')
    + _BASE.format("b", 'auth = "none"\ncompression = "pass"')
    + _BASE.format("c", 'auth = "passthrough"')
    + _BASE.format("d", 'auth = "none"\npass_headers = ["x-*"]\npass_query = ["x"]\ndrop_headers = ["x-b*"]')
)
PROVIDERS = [
    Provider(config, "sk-own" if config.name == "a" else None, 1.0, simulated=False)
    for config in _CONFIG.providers.values()
]
_OUR_KEY = re.compile(rb"(?<![A-Za-z0-9_-])th-")


CACHE = HeadCache()


def test_one(data: bytes) -> None:
    data = data.partition(b"\r\n\r\n")[0]
    try:
        head = read_request_head(data)
    except GatewayError as error:
        assert error.close and error.status in (400, 431)
        return
    for _ in range(2):  # new, and recalled
        again, length = CACHE.recall(data)
        known = {**facts(again), "length": length}
        assert known == facts(head)
    try:
        read_options(head)
    except GatewayError as error:
        assert error.status in (400, 415, 417)
    if head.method not in METHODS:
        return
    read_alike(data, head)
    for provider in PROVIDERS:
        check_sent(provider, head)


def read_alike(data: bytes, head: RequestHead) -> None:
    llhttp = Llhttp(httptools.HttpRequestParser, data + b"\r\n\r\n", at_once=True)
    lower, _ = check_framing(llhttp, head)
    other = H11(data + b"\r\n\r\n")
    if other.error or not other.messages:  # it refuses some that llhttp takes, and no framing hangs on it
        return
    event = other.messages[0][0]
    assert event.method == head.method
    assert event.target == llhttp.target
    length = None if head.length is None else dict(lower)[b"content-length"]
    assert dict(event.headers).get(b"content-length") == length


def check_sent(provider: Provider, head: RequestHead) -> None:
    """What goes to a provider, read by h11."""
    prepared, _, _ = provider.prepare(head, b"/chat/completions")
    sent = prepared + b"Content-Length: 0\r\n\r\n"
    reader = H11(sent)
    assert not reader.error, (reader.error, sent)
    [[event, body, is_complete, _]] = reader.messages
    assert is_complete and not body and not reader.left
    assert event.method == b"POST"
    assert event.target.startswith(b"/v1/chat/completions"), event.target
    names = [name for name, _ in event.headers]
    assert names.count(b"host") == names.count(b"content-length") == names.count(b"content-type") == 1
    assert dict(event.headers)[b"content-type"] == b"application/json"
    assert not any(b"_" in name for name in names)
    is_open = provider.config.name == "d"
    credentials = CREDENTIALS | THEIRS
    for name in set(names) - LISTED - credentials:
        assert name.startswith(PREFIXES) or (is_open and name.startswith(b"x-")), name
        assert not (is_open and name.startswith(b"x-b")), name
    asked = parse_qsl(event.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    assert {name for name, _ in asked} <= PARAMETERS | ({"x"} if is_open else set()), event.target
    assert b"transfer-encoding" not in names
    assert not OURS_ALONE.intersection(names) - (THEIRS if provider.passthrough else set())
    assert not any(name.startswith((b"x-inferoute-", b"x-forwarded-")) for name in names)
    given = [(name, value) for name, value in event.headers if name in CREDENTIALS]
    if provider.passthrough:
        assert not any(_OUR_KEY.search(value) for _, value in given), given
    else:
        own = provider.config.name == "a"
        assert given == ([(b"authorization", b"Bearer sk-own")] if own else [])
