"""Heads against llhttp, and against the contract's lists."""

from __future__ import annotations

import time
from itertools import zip_longest
from typing import Any

import httptools
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.wire.header_lines import MAX_HEADERS, PASSING_PREFIXES, HeadError, passes_everywhere
from proxy.wire.request_head import read_request_head
from tests.support.heads import (
    METHODS,
    Reader,
    clear,
    harmed,
    options_of,
    pairs,
    request,
    request_heads,
    response,
)


def refused(*lines: bytes, **kw: Any) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        request(*lines, **kw)
    assert raised.value.close
    assert raised.value.status in (400, 431)
    return raised.value


@pytest.fixture(autouse=True)
def fresh_tables():
    clear()


# ------------------------------------------------------------------ request lines


def test_a_plain_request():
    head = request(
        b"Content-Length: 12", b"Content-Type: application/json", line=b"POST /v1/x?a=1&b=?c HTTP/1.1"
    )
    assert (head.method, head.path, head.query, head.minor) == (b"POST", b"/v1/x", b"a=1&b=?c", 1)
    assert (head.length, head.chunked, head.keep_alive) == (12, False, True)
    assert (head.lines, head.aside, head.is_json) == ([], [], True)
    assert (head.expect, head.content_encoding, head.accept_encoding) == (b"", b"", b"")
    assert (head.credentials, head.inferoute) == ([], [])


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a?", b"/a", b""),
        (b"/a%20b?c%3Fd", b"/a%20b", b"c%3Fd"),
        (b"//a", b"//a", b""),
        (b"/?x=http://b/", b"/", b"x=http://b/"),
        (b"*", b"*", b""),
        (b"http://a.example/v1/x?y=z", b"/v1/x", b"y=z"),
        (b"HTTPS://a.example:443/v1", b"/v1", b""),
        (b"http://[::1]:80/v1", b"/v1", b""),
        (b"http://a.example", b"/", b""),
        (b"http://a.example?x", b"/", b"x"),
    ],
)
def test_targets(target, path, query):
    head = request(line=b"POST " + target + b" HTTP/1.1")
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"POST",
        b"POST /",
        b"POST / ",
        b"POST / HTTP/2.0",
        b"POST / HTTP/1.2",
        b"POST / HTTP/1.10",
        b"POST / HTTP/0.9",
        b"POST / http/1.1",
        b"POST / Http/1.1",
        b"POST / HTTP/1",
        b"POST / HTTP/1.1 ",
        b"POST  / HTTP/1.1",
        b"POST /  HTTP/1.1",
        b" POST / HTTP/1.1",
        b"POST\t/ HTTP/1.1",
        b"POST / a HTTP/1.1",
        b"P(ST / HTTP/1.1",
        b"P" * 33 + b" / HTTP/1.1",
        b"POST /\x00 HTTP/1.1",
        b"POST /\x7f HTTP/1.1",
        b"POST /\xc3\xa9 HTTP/1.1",
        b"POST /a\rb HTTP/1.1",
        b"POST /a\n HTTP/1.1",
        b"POST / HTTP/1.1\n",
        b"POST / HTTP/1.1\r",
        b"POST /a#b HTTP/1.1",
        b"POST /a?b#c HTTP/1.1",
        b"POST a HTTP/1.1",
        b"POST *a HTTP/1.1",
        b"POST ?a HTTP/1.1",
        b"CONNECT a.example:443 HTTP/1.1",
        b"POST a.example:443 HTTP/1.1",
        b"POST ftp://a.example/ HTTP/1.1",
        b"POST http:/a.example/ HTTP/1.1",
        b"POST http:///v1 HTTP/1.1",
        b"POST http://user:pw@a.example/ HTTP/1.1",
        b"POST http://a<b/ HTTP/1.1",
        b"POST http://a.example\\@b/ HTTP/1.1",
        b"POST http://a.example:x/ HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS to a plain port
        b"PRI * HTTP/2.0",
    ],
)
def test_request_lines_that_are_refused(line):
    refused(line=line)


# ------------------------------------------------------------------ request headers


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (b"Host: a", b"Host: a"),
        (b"Host: a", b"HOST: b"),
        (b"Host: a b",),
        (b"Host: a, b",),
        (b"Host: a/b",),
        (b"Host: a@b",),
        (b"Host: a:b",),
        (b"Host: a:999999",),
        (b"Host: [::1",),
        (b"Host: [x]",),
        (b"Host: \xff",),
        (b"Host : a",),
        (b"Host",),
    ],
)
def test_exactly_one_well_formed_host(lines):
    refused(*lines, host=False)
    if lines:
        refused(*lines, host=False, line=b"POST / HTTP/1.0")


@pytest.mark.parametrize("host", [b"", b"a", b"A.example:8080", b"[::1]:80", b"127.0.0.1:", b"a_b.c", b"%41"])
def test_hosts(host):
    assert request(b"hOST:\t" + host + b" ", host=False).lines == []


def test_http_1_0_needs_no_host_and_keeps_alive_only_when_asked():
    assert not request(host=False, line=b"POST / HTTP/1.0").keep_alive
    assert not request(b"Connection: close, keep-alive", line=b"POST / HTTP/1.0").keep_alive
    head = request(b"Connection: Keep-Alive", line=b"POST / HTTP/1.0")
    assert (head.keep_alive, head.minor) == (True, 0)


@pytest.mark.parametrize(
    ("lines", "keep_alive"),
    [
        ((), True),
        ((b"Connection: keep-alive",), True),
        ((b"Connection: close",), False),
        ((b"Connection: CLOSE ",), False),
        ((b"Connection: x,\tclose ,y",), False),
        ((b"Connection: close, keep-alive",), False),
        ((b"Connection: keep-alive, close",), False),
        ((b"Connection: close", b"Connection: keep-alive"), False),
        ((b"Connection: keep-alive", b"Connection: close"), False),
        ((b"Connection:",), True),
        ((b"Connection: ,,",), True),
        ((b"Connection: upgrade", b"Upgrade: websocket"), True),
    ],
)
def test_close_wins(lines, keep_alive):
    head = request(*lines)
    assert (head.keep_alive, head.lines) == (keep_alive, [])
    assert response(*lines).keep_alive is keep_alive


def test_connection_names_other_headers():
    head = request(
        b"X-Session-Hop: 1",
        b"X-Hop: 1",
        b"Connection: x-hop, Keep-Alive ,X-SESSION-OTHER, x-session-hop",
        b"X-Session-Kept: 2",
        b"X-Kept: 2",
        b"x-session-Other: 3",
        b"Connection: x-late",
        b"X-LATE: 4",
    )
    assert head.lines == [b"X-Session-Kept: 2"]
    assert head.aside == [b"X-Kept: 2"]
    head = request(b"Connection: content-length, host, transfer-encoding", b"Content-Length: 5")
    assert head.length == 5


def test_many_names_in_a_connection_header_cost_one_pass():
    lines = [b"a%d:" % i for i in range(MAX_HEADERS - 3)]
    request(*lines)
    begun = time.process_time()
    head = request(b"Connection: a5," + b"b," * 14_000, *lines)
    assert time.process_time() - begun < 0.1  # a pass for each name took half a second
    assert head.aside == [line for line in lines if line != b"a5:"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"X",
        b": x",
        b" : x",
        b"X : x",
        b"X\t: x",
        b" X: x",
        b"\tX: x",
        b" folded",
        b"X(: x",
        b"X\x00: x",
        b"X\xff: x",
        b"X\n: x",
        b"\nX: x",
        b"X: a\x00b",
        b"X: a\nb",
        b"X: a\rb",
        b"X: a\r",
        b"X: a\x01",
        b"X: a\x1f",
        b"X: a\x7f",
        b"X: a\x0bb",
        b"X: a\nContent-Length: 5",
        b'"X": x',
        b"X Y: x",
        b"POST / HTTP/1.1",
    ],
)
def test_lines_that_are_no_header(line):
    for _ in range(2):  # and not remembered as good
        refused(line)
        refused(b"A: b", line, b"C: d")
        with pytest.raises(HeadError):
            response(line)


@pytest.mark.parametrize(
    "value", [b"", b"a", b" a ", b"\ta\t", b"a\tb", b"caf\xc3\xa9", b"\xff", b'a:b;c="d"', b"a" * 5000]
)
def test_values_pass_as_they_are(value):
    for _ in range(2):
        assert request(b"X-Title:" + value).lines == [b"X-Title:" + value]
        assert request(b"X-Y:" + value).aside == [b"X-Y:" + value]
        assert response(b"X-Y:" + value).lines == [b"X-Y:" + value]


def test_too_many_headers():
    assert request(*[b"a: b"] * (MAX_HEADERS - 1)).aside == [b"a: b"] * (MAX_HEADERS - 1)
    assert refused(*[b"a: b"] * MAX_HEADERS).status == 431


FRAMINGS = [
    (b"Content-Length: 5", b"Content-Length: 5"),
    (b"Content-Length: 5", b"content-length: 6"),
    (b"Content-Length: 5, 5",),
    (b"Content-Length: +5",),
    (b"Content-Length: -5",),
    (b"Content-Length: 5 5",),
    (b"Content-Length: 0x5",),
    (b"Content-Length: 5_0",),
    (b"Content-Length: 5.0",),
    (b"Content-Length:",),
    (b"Content-Length: 1" + b"0" * 18,),
    (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
    (b"Transfer-Encoding: chunked, chunked",),
    (b"Transfer-Encoding: gzip, chunked",),
    (b"Transfer-Encoding: gzip",),
    (b"Transfer-Encoding: identity",),
    (b"Transfer-Encoding: chunked;a=b",),
    (b"Transfer-Encoding: xchunked",),
    (b'Transfer-Encoding: "chunked"',),
    (b"Transfer-Encoding:",),
]


@pytest.mark.parametrize("lines", FRAMINGS)
def test_ambiguous_framing(lines):
    for _ in range(2):
        refused(*lines)
        with pytest.raises(HeadError):
            response(*lines)


def test_framing():
    assert request(b"Content-Length: 007").length == 7
    assert request(b"Content-Length:\t7 ").length == 7
    assert request(b"Content-Length: " + b"9" * 18).length == 10**18 - 1
    head = request(b"TRANSFER-ENCODING:Chunked ")
    assert (head.length, head.chunked, head.lines) == (None, True, [])
    head = request()
    assert (head.length, head.chunked) == (None, False)


def test_no_transfer_encoding_in_http_1_0():
    refused(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")
    with pytest.raises(HeadError):
        response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK")
    assert request(b"Content-Length: 3", line=b"POST / HTTP/1.0").length == 3
    assert response(b"Content-Length: 3", line=b"HTTP/1.0 200 OK").length == 3


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


def test_what_of_a_client_passes_in_order_spelling_and_repetition():
    sets = (PASSING_OF_CLIENT, DROPPED_OF_CLIENT, KEPT_OF_CLIENT)
    lines = [line for lines in zip_longest(*sets) for line in lines if line is not None]
    lines += [*PASSING_OF_CLIENT[:3], *KEPT_OF_CLIENT[:3]]
    for _ in range(2):
        head = request(*lines)
        assert head.lines == PASSING_OF_CLIENT + PASSING_OF_CLIENT[:3]
        assert head.aside == KEPT_OF_CLIENT + KEPT_OF_CLIENT[:3]


@given(st.text("abcxyz-_", min_size=1, max_size=12), st.sampled_from([str.upper, str.lower, str.title]))
def test_a_name_that_is_not_on_the_list_is_kept_aside(name, spelled):
    lower = name.lower().encode()
    assume(not lower.startswith(PASSING_PREFIXES))
    line = spelled(name).encode() + b": 1"
    assert (request(line).lines, request(line).aside) == ([], [line])


@pytest.mark.parametrize("line", DROPPED_OF_CLIENT)
def test_what_of_a_client_is_dropped(line):
    name, _, value = line.partition(b":")
    for spelled in (line, name.upper() + b":" + value, name.lower() + b": " + value + b"\t"):
        head = request(spelled, spelled)
        assert (head.lines, head.aside) == ([], [])


def test_credentials_and_own_headers_are_handed_on():
    head = request(
        b"Authorization: Bearer a", b"X-Api-Key: b", b"api-key: c", b"X-Goog-Api-Key: d",
        b"X-Tokenhub-Key: e",
        b"OpenAI-Organization: f", b"OpenAI-Project: g", b"X-Forwarded-For: h", b"Cookie: i",
    )  # fmt: skip
    assert head.credentials == [
        (b"authorization", b"Bearer a"), (b"x-api-key", b"b"), (b"api-key", b"c"), (b"x-goog-api-key", b"d"),
        (b"x-tokenhub-key", b"e"), (b"openai-organization", b"f"), (b"openai-project", b"g"),
    ]  # fmt: skip
    head = request(b"X-Inferoute-Strategy: Cost", b"x-inferoute-TIMEOUT:\t2.5 ")
    assert head.inferoute == [(b"x-inferoute-strategy", b"Cost"), (b"x-inferoute-timeout", b"2.5")]


@pytest.mark.parametrize(
    ("lines", "is_json"),
    [
        ((), True),
        ((b"Content-Type: application/json",), True),
        ((b"content-type:application/json; charset=UTF-8",), True),
        ((b"CONTENT-TYPE: text/plain",), True),
        ((b"Content-Type: application/json; charset=utf-7",), False),
        ((b"Content-Type: application/x-www-form-urlencoded",), False),
        ((b"Content-Type:",), False),
        ((b"Content-Type: application/json", b"Content-Type: application/json"), False),
        ((b"Content-Type: application/json", b"content-type: application/x-www-form-urlencoded"), False),
        ((b"Content-Type: application/json", b"content-type:"), False),
    ],
)
def test_one_content_type_that_is_json(lines, is_json):
    for _ in range(2):
        head = request(*lines)
        assert (head.is_json, head.lines, head.aside) == (is_json, [], [])


def test_values_that_are_looked_at():
    head = request(b"Expect: 100-Continue", b"Content-Encoding: GZip", b"Accept-Encoding: gzip, br")
    assert (head.expect, head.content_encoding, head.accept_encoding) == (
        b"100-continue",
        b"gzip",
        b"gzip, br",
    )
    assert request(b"Accept-Encoding: gzip", b"accept-encoding: br").accept_encoding == b"gzip, br"


# ------------------------------------------------------------------ response heads


# ------------------------------------------------------------------ differential: llhttp

USED_OF_CLIENT = {line.partition(b":")[0].lower() for line in DROPPED_OF_CLIENT} | {
    b"host", b"content-length", b"transfer-encoding", b"content-encoding",
}  # fmt: skip


def path_and_query(target: bytes) -> tuple[bytes, bytes]:
    """Of a target in origin-form, absolute-form or asterisk-form."""
    if target[:1] not in (b"/", b"*"):
        rest = target.partition(b"://")[2]
        target = rest[min(rest.find(mark) if mark in rest else len(rest) for mark in (b"/", b"?")) :]
        target = target if target.startswith(b"/") else b"/" + target
    path, _, query = target.partition(b"?")
    return path, query


@given(harmed(request_heads))
@settings(max_examples=1000, deadline=None)
def test_requests_never_laxer_than_llhttp_and_read_alike(head):
    reader = Reader(httptools.HttpRequestParser, head + b"\r\n\r\n")
    try:
        ours = read_request_head(head)
    except BadRequest:
        return
    assume(ours.method in METHODS)
    assert reader.accepted, reader.error
    assert reader.parser.get_method() == ours.method
    assert reader.parser.get_http_version() == f"1.{ours.minor}"
    assert path_and_query(reader.target) == (ours.path, ours.query)
    lower = [(name.lower(), value) for name, value in reader.lines]
    options = options_of(lower)
    kept = [
        (name, value)
        for name, value in reader.lines
        if name.lower() not in USED_OF_CLIENT | options - {b"close"}
        and not name.lower().startswith((b"x-inferoute-", b"x-forwarded-"))
    ]
    assert pairs(ours.lines) == [pair for pair in kept if passes_everywhere(pair[0].lower())]
    assert pairs(ours.aside) == [pair for pair in kept if not passes_everywhere(pair[0].lower())]
    assert [int(value) for name, value in lower if name == b"content-length"] == (
        [] if ours.length is None else [ours.length]
    )
    assert [name for name, _ in lower if name == b"transfer-encoding"] == [
        b"transfer-encoding"
    ] * ours.chunked
    assert ours.keep_alive == (b"close" not in options and (ours.minor == 1 or b"keep-alive" in options))
    assert ours.inferoute == [field for field in lower if field[0].startswith(b"x-inferoute-")]
    assert ours.credentials == [field for field in lower if field[0] == b"authorization"]
