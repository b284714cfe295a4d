"""Heads of providers' responses: what is read, what passes, and what is no head."""

from __future__ import annotations

from itertools import zip_longest

import httptools
import pytest
from hypothesis import given, settings

from proxy.wire.header_lines import HeadError
from proxy.wire.response_head import read_response_head
from tests.support.header_sets import NO_STATUS_LINES
from tests.support.heads import harmed, pairs, response, response_heads
from tests.support.oracles import Llhttp, check_framing

DROPPED_OF_PROVIDER = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"te", b"trailer", b"upgrade",
}  # fmt: skip


@pytest.mark.parametrize(("line", "status", "reason", "minor"), [
    (b"HTTP/1.1 200 OK", 200, b"OK", 1), (b"HTTP/1.0 404 Not Found", 404, b"Not Found", 0),
    (b"HTTP/1.1 200 ", 200, b"", 1), (b"HTTP/1.1 200", 200, b"", 1),
    (b"HTTP/1.1 529 \xc3\xbcberlastet\t!", 529, b"\xc3\xbcberlastet\t!", 1),
    (b"HTTP/1.1 100 Continue", 100, b"Continue", 1), (b"HTTP/1.1 999  two", 999, b" two", 1),
])  # fmt: skip
def test_status_lines(line, status, reason, minor):
    head = response(line=line)
    assert (head.status, head.minor, head.keep_alive) == (status, minor, minor == 1)
    assert head.status_line == b"HTTP/1.1 %d %b" % (status, reason)
    assert (head.length, head.lines) == (None, [])
    assert not (head.chunked or head.event_stream or head.encoded)


@pytest.mark.parametrize("line", NO_STATUS_LINES)
def test_what_is_no_status_line(line):
    with pytest.raises(HeadError):
        response(line=line)


def test_what_of_a_provider_passes_and_what_not():
    passing = [
        b"Date: Mon, 01 Jan 2024 00:00:00 GMT", b"content-TYPE: application/json", b"Set-Cookie: a=b",
        b"set-cookie: c=d", b"Server: x", b"openai-processing-ms: 5", b"X-RateLimit-Limit-Requests: 5",
        b"Retry-After: 5", b"Content-Encoding: br", b"Cache-Control: no-cache", b"x-request-id: req_1",
        b"Via: 1.1 b", b"WWW-Authenticate: Bearer", b"Location: http://x/", b"Content-Length: 5",
    ]  # fmt: skip
    dropped = [
        b"Connection: keep-alive, X-Hop", b"Keep-Alive: timeout=5", b"Proxy-Connection: x", b"Upgrade: h2",
        b"Proxy-Authenticate: x", b"TE: x", b"Trailer: x", b"X-HOP: 1", b"X-Inferoute-Provider: evil",
        b"x-inferoute-request-id: evil",
        # What it says of its own host.
        b"Refresh: 0", b"Alt-Svc: h3", b"Clear-Site-Data: *", b"strict-transport-security: max-age=1",
    ]  # fmt: skip
    lines = [line for pair in zip_longest(passing, dropped) for line in pair if line]
    for _ in range(2):
        head = response(*lines)
        assert head.lines == passing
        assert (head.length, head.encoded, head.leads_on) == (5, True, True)


def test_a_provider_cannot_have_the_framing_removed():
    head = response(b"Connection: content-length, Transfer-Encoding, x", b"Content-Length: 5", b"X: y")
    assert (head.lines, head.length) == ([b"Content-Length: 5"], 5)
    head = response(b"Transfer-Encoding: Chunked", b"Connection: transfer-encoding")
    assert (head.lines, head.chunked) == ([b"Transfer-Encoding: Chunked"], True)


@pytest.mark.parametrize(("value", "is_one"), [
    (b"text/event-stream", True), (b"Text/Event-Stream; charset=utf-8", True),
    (b"text/event-stream ;charset=utf-8", True), (b"text/event-stream;", True),
    (b"text/event-streams", False), (b"text/event", False), (b"application/json", False), (b"", False),
])  # fmt: skip
def test_event_streams(value, is_one):
    assert response(b"Content-Type: " + value).event_stream is is_one


@pytest.mark.parametrize(("values", "encoding"), [
    ([], b""), ([b""], b""), ([b"Identity"], b""), ([b"GZip"], b"gzip"), ([b"gzip", b"identity"], b"gzip"),
    ([b"identity", b" deflate\t"], b"deflate"), ([b"gzip", b"br"], b"gzip, br"), ([b"gzip, br"], b"gzip, br"),
])  # fmt: skip
def test_how_an_answer_is_encoded(values, encoding):
    head = response(*(b"Content-Encoding: " + value for value in values))
    assert (head.encoding, head.encoded) == (encoding, encoding != b"")


@given(harmed(response_heads))
@settings(max_examples=1000)
def test_responses_never_laxer_than_llhttp_and_read_alike(head):
    reader = Llhttp(httptools.HttpResponseParser, head + b"\r\n\r\n")
    try:
        ours = read_response_head(head)
    except HeadError:
        return
    _, options = check_framing(reader, ours)
    assert b"HTTP/1.1 %d %b" % (reader.parser.get_status_code(), reader.reason) == ours.status_line
    hidden = DROPPED_OF_PROVIDER | options - {b"content-length", b"transfer-encoding", b"close"}
    assert pairs(ours.lines) == [
        (name, value)
        for name, value in reader.fields
        if name.lower() not in hidden and not name.lower().startswith(b"x-inferoute-")
    ]
