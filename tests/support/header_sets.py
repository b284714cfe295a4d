"""Heads and bodies that smuggle, and headers that pass, stay or identify: tables for several tests.

Whole requests of the kind, as a hostile client sends them to a gateway: tests/support/hygiene.py.
"""

from __future__ import annotations

from proxy.wire.framing import MAX_SIZE_LINE_BYTES, MAX_TRAILER_BYTES


def names_of(lines: list[bytes]) -> frozenset[bytes]:
    """In lower case."""
    return frozenset(line.partition(b":")[0].lower() for line in lines)


# ---------------------------------------------------------------- what is no head

NO_REQUEST_LINES = [
    b"", b"POST", b"POST /", b"POST / ", b"POST / HTTP/2.0", b"POST / HTTP/1.2", b"POST / HTTP/1.10",
    b"POST / HTTP/0.9", b"POST / http/1.1", b"POST / Http/1.1", b"POST / HTTP/1", b"POST / HTTP/1.1 ",
    b"POST  / HTTP/1.1", b"POST /  HTTP/1.1", b" POST / HTTP/1.1", b"POST\t/ HTTP/1.1", b"POST / a HTTP/1.1",
    b"P(ST / HTTP/1.1", b"P" * 33 + b" / HTTP/1.1", b"POST /\x00 HTTP/1.1", b"POST /\x7f HTTP/1.1",
    b"POST /\xc3\xa9 HTTP/1.1", b"POST /a\rb HTTP/1.1", b"POST /a\n HTTP/1.1", b"POST / HTTP/1.1\n",
    b"POST / HTTP/1.1\r", b"POST /a#b HTTP/1.1", b"POST /a?b#c HTTP/1.1", b"POST a HTTP/1.1",
    b"POST *a HTTP/1.1", b"POST ?a HTTP/1.1", b"CONNECT a.example:443 HTTP/1.1",
    b"POST a.example:443 HTTP/1.1", b"POST ftp://a.example/ HTTP/1.1", b"POST http:/a.example/ HTTP/1.1",
    b"POST http:///v1 HTTP/1.1", b"POST http://user:pw@a.example/ HTTP/1.1", b"POST http://a<b/ HTTP/1.1",
    b"POST http://a.example\\@b/ HTTP/1.1", b"POST http://a.example:x/ HTTP/1.1",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a plain port
    b"PRI * HTTP/2.0",
]  # fmt: skip
NO_HOSTS = [
    (), (b"Host: a", b"Host: a"), (b"Host: a", b"HOST: b"), (b"Host: a b",), (b"Host: a, b",),
    (b"Host: a/b",), (b"Host: a@b",), (b"Host: a:b",), (b"Host: a:999999",), (b"Host: [::1",),
    (b"Host: [x]",), (b"Host: \xff",), (b"Host : a",), (b"Host",),
]  # fmt: skip
# In requests and in answers.
NO_HEADERS = [
    b"", b"X", b": x", b" : x", b"X : x", b"X\t: x", b" X: x", b"\tX: x", b" folded", b"X(: x", b"X\x00: x",
    b"X\xff: x", b"X\n: x", b"\nX: x", b"X: a\x00b", b"X: a\nb", b"X: a\rb", b"X: a\r", b"X: a\x01",
    b"X: a\x1f", b"X: a\x7f", b"X: a\x0bb", b"X: a\nContent-Length: 5", b'"X": x', b"X Y: x",
    b"POST / HTTP/1.1",
]  # fmt: skip
# Lines that frame a message twice, or in a way that others read otherwise.
FRAMINGS = [
    (b"Content-Length: 5", b"Content-Length: 5"), (b"Content-Length: 5", b"content-length: 6"),
    (b"Content-Length: 5, 5",), (b"Content-Length: +5",), (b"Content-Length: -5",), (b"Content-Length: 5 5",),
    (b"Content-Length: 0x5",), (b"Content-Length: 5_0",), (b"Content-Length: 5.0",), (b"Content-Length:",),
    (b"Content-Length: 1" + b"0" * 18,), (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), (b"Transfer-Encoding: chunked, chunked",),
    (b"Transfer-Encoding: gzip, chunked",), (b"Transfer-Encoding: gzip",), (b"Transfer-Encoding: identity",),
    (b"Transfer-Encoding: chunked;a=b",), (b"Transfer-Encoding: xchunked",),
    (b'Transfer-Encoding: "chunked"',), (b"Transfer-Encoding:",),
]  # fmt: skip
NO_STATUS_LINES = [
    b"", b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK",
    b"HTTP/1.1 2x0 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1 200\tOK", b"HTTP/1.1 200OK",
    b" HTTP/1.1 200 OK", b"http/1.1 200 OK", b"HTTP/2 200", b"HTTP/2.0 200 OK", b"HTTP/1.2 200 OK",
    b"HTTP/0.9 200 OK", b"HTTP/1.1 +20 OK", b"HTTP/1.1 -20 OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK",
    b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 O\x7fK", b"ICY 200 OK", b"<html>", b"RTSP/1.0 200 OK",
    b"\nHTTP/1.1 200 OK",
]  # fmt: skip
NO_CHUNKS = [
    b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n", b"5\r\rhello\r\n0\r\n\r\n",
    b"5\r\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
    b"0x5\r\nhello\r\n0\r\n\r\n", b"0_5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n", b"5\t\r\nhello\r\n0\r\n\r\n", b"5 ;a\r\nhello\r\n0\r\n\r\n",
    b"5 5\r\nhello\r\n0\r\n\r\n", b"g\r\nhello\r\n0\r\n\r\n",
    b"\xd9\xa5\r\nhello\r\n0\r\n\r\n",  # an Arabic five
    b"\r\n0\r\n\r\n", b";a\r\n0\r\n\r\n", b"\x005\r\nhello\r\n0\r\n\r\n",
    b"0000000000000005\r\nhello\r\n0\r\n\r\n",  # 16 digits
    b"ffffffffffffffff\r\nhello", b"5;\r\nhello\r\n0\r\n\r\n", b"5;;a\r\nhello\r\n0\r\n\r\n",
    b"5; a\r\nhello\r\n0\r\n\r\n", b"5;a=\r\nhello\r\n0\r\n\r\n", b'5;a="b\r\nhello\r\n0\r\n\r\n',
    b'5;a="b"c\r\nhello\r\n0\r\n\r\n', b"5;a\x00\r\nhello\r\n0\r\n\r\n", b'5;a="\x00"\r\nhello\r\n0\r\n\r\n',
    b'5;a="\x7f"\r\nhello\r\n0\r\n\r\n', b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello\r0\r\n\r\n", b"5\r\nhello\r\r\n0\r\n\r\n",
    b"4\r\nhello\r\n0\r\n\r\n", b"6\r\nhello\r\n0\r\n\r\n", b"0\n\r\n", b"0\r\n\n", b"0\r\n\r\r\n",
    b"0\r\nX: y\n\r\n", b"0\r\nX: y\r\n\n", b"0\r\nX\r\n\r\n", b"0\r\n: y\r\n\r\n", b"0\r\nX : y\r\n\r\n",
    b"0\r\nX: y\r\n z\r\n\r\n", b"0\r\nX: \x00\r\n\r\n", b"0\r\nX: a\rb\r\n\r\n",
    b"0\r\nGET / HTTP/1.1\r\n\r\n", b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\ntransfer-ENCODING: chunked\r\n\r\n",
    b"5;" + b"a" * MAX_SIZE_LINE_BYTES + b"\r\nhello\r\n0\r\n\r\n", b"5" * MAX_SIZE_LINE_BYTES + b"\r\n",
    b"0\r\n" + b"X: y\r\n" * (MAX_TRAILER_BYTES // 6 + 1) + b"\r\n",
    b"0\r\nX: " + b"y" * MAX_TRAILER_BYTES + b"\r\n\r\n",
]  # fmt: skip
# ---------------------------------------------------------------- what goes on to whom

# SPEC section 3, RFC 9110 7.6.1: what of a client goes no further.
DROPPED_OF_CLIENT = [
    b"Cookie: a=b", b"Forwarded: for=1.2.3.4", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https",
    b"X-FORWARDED-ANYTHING: 1", b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"TE: trailers",
    b"Trailer: X", b"Upgrade: h2c", b"HTTP2-Settings: x", b"Proxy-Authorization: Basic x", b"Via: 1.1 a",
    b"X-Real-IP: 1.2.3.4", b"Connection: keep-alive", b"Expect: 100-continue", b"Accept-Encoding: gzip",
    b"Authorization: Bearer th-x", b"X-API-Key: th-x", b"api-key: th-x", b"X-Goog-Api-Key: th-x",
    b"X-TokenHub-Key: th-x", b"OpenAI-Organization: org", b"openai-project: p", b"X-Inferoute-Strategy: cost",
    b"x-inferoute-anything: 1", b"Content-Type: application/json", b"Origin: https://a",
    b"ChatGPT-Account-Id: a", b"X-Goog-User-Project: p", b"Ocp-Apim-Subscription-Key: k",
]  # fmt: skip
PASSING_OF_CLIENT = [
    b"Accept: text/event-stream", b"User-Agent: OpenAI/Python 1.60",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"tracestate: a=b",
    b"OpenAI-Beta: x", b"Accept-Language: de",
    b"anthropic-version: 2023-06-01", b"X-Stainless-Lang: python", b"Idempotency-Key: 1", b"X-Request-Id: 1",
    b"X-Client-Request-Id: 1", b"HTTP-Referer: https://a", b"X-Title: a", b"X-Claude-Code-Session-Id: a",
    b"X-Codex-Turn-State: a", b"X-Session-Affinity: a", b"Session-Id: a", b"Thread-Id: a",
    b"Conversation-Id: a", b"X-Parent-Session-Id: a", b"X-OpenCode-Session: a",
]  # fmt: skip
# On no list: kept with the head, and passing only where a provider's settings say so, if at all.
KEPT_OF_CLIENT = [
    b"x-inferoute: 1", b"X-Forwarded: 1", b"Cookies: 1", b"Cache-Control: no-store", b"X-User: 1",
    b"Referer: https://a", b"Sec-Fetch-Mode: cors", b"session_id: a", b"OpenAI_Organization: evil",
    b"X_Api_Key: evil", b"X-Portkey-Custom-Host: http://evil", b"CF-Connecting-IP: 1.2.3.4",
    b"X-Session-Token: a", b"OpenAI-Api-Key: a", b"X-Codex-Authorization: a",
]  # fmt: skip
# What steers a provider, or another gateway: where it sends, whose account it bills, what it runs; with "_",
# servers that read it as "-".
STEERING = """
    X-Portkey-Custom-Host X-Portkey-Config X-Portkey-Provider X-Portkey-Api-Key X-Portkey-Virtual-Key
    X-LiteLLM-Api-Base X-LiteLLM-Tags Helicone-Target-URL Helicone-Auth Helicone-OpenAI-Api-Base
    cf-aig-authorization cf-aig-custom-host cf-aig-cache-ttl X-Goog-User-Project X-Goog-Api-Client
    X-MS-Region X-Amz-Security-Token Ocp-Apim-Subscription-Key Ocp-Apim-Trace OpenAI_Organization
    OpenAI_Project X_Original_URL X_Api_Key X_Forwarded_For Api_Key Content_Length Transfer_Encoding
    X-HTTP-Method-Override X-Original-URL Base-URL x-portkey-forward-headers x-litellm-api-key
    x-litellm-model x-litellm-timeout x-litellm-num-retries x-litellm-customer-id x-litellm-end-user-id
    cf-aig-metadata cf-aig-custom-cost cf-aig-step x-goog-request-params x-ms-client-request-id
    x-ms-useragent x-amz-target x-amzn-bedrock-guardrailidentifier OpenAI-Organization OpenAI-Project
    X_Forwarded_Host Authorization_ X_Goog_Api_Key X_HTTP_Method_Override X-Rewrite-URL X-Forwarded-Host
    X-Forwarded-User X-Auth-Request-User X-WEBAUTH-USER X-Host X-Envoy-Original-Dst-Host
    X-Envoy-Upstream-Rq-Timeout-Ms X-Model X-Model-Name Model X-Target-Model X-Provider X-Base-Url
    Api-Base X-Upstream Proxy Destination X-Kong-Upstream X-Bifrost-Provider x-bf-vk x-bf-api-key
    x-session-affinity_ X-Stainless_Evil anthropic_version Proxy-Authorization X-B3-TraceId_
    X.Forwarded.Host
""".split()  # noqa: SIM905
# What tells a provider who the user is.
IDENTITY = """
    Origin Referer Cookie Sec-Fetch-Site Sec-Fetch-Mode Sec-CH-UA Sec-WebSocket-Key CF-Connecting-IP
    CF-IPCountry CF-Ray True-Client-IP X-Client-IP X-Real-IP X-Forwarded-For X-Forwarded-Email Forwarded
    Via Cf-Access-Jwt-Assertion Cf-Access-Authenticated-User-Email X-Goog-IAP-JWT-Assertion
    X-Goog-Authenticated-User-Email X-Amzn-Oidc-Data X-Amzn-Oidc-Identity X-Auth-Request-Email
    X-Auth-Request-Access-Token X-MS-Client-Principal X-MS-Client-Principal-Name X-MS-Token-AAD-Id-Token
    X-Envoy-External-Address X-Remote-User Remote-User Remote-Email X-OpenWebUI-User-Email X-User-Email
    Access-Control-Request-Method Tailscale-User-Login
""".split()  # noqa: SIM905
