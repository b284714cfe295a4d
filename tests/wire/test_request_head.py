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
from tests.support import header_sets as sets
from tests.support import heads
from tests.support.heads import METHODS, facts, harmed, pairs, request, response
from tests.support.oracles import Llhttp, check_framing, split_target


def refused(*lines: bytes, status: int = 400, **kw: Any) -> None:
    with pytest.raises(BadRequest) as raised:
        request(*lines, **kw)
    assert (raised.value.close, raised.value.status) == (True, status)


@pytest.fixture(autouse=True)
def fresh_tables():
    heads.clear()


# ------------------------------------------------------------------ request lines


def test_a_plain_request():
    lines = b"Content-Length: 12", b"Content-Type: application/json"
    assert facts(request(*lines, line=b"POST /v1/x?a=1&b=?c HTTP/1.1")) == {
        "method": b"POST", "path": b"/v1/x", "query": b"a=1&b=?c", "minor": 1, "keep_alive": True,
        "length": 12, "chunked": False, "lines": [], "aside": [], "is_json": True, "expect": b"",
        "content_encoding": b"", "accept_encoding": b"", "credentials": [], "inferoute": [], "origin": b"",
    }  # fmt: skip


@pytest.mark.parametrize(("target", "path", "query"), [
    (b"/", b"/", b""), (b"/a?", b"/a", b""), (b"/a%20b?c%3Fd", b"/a%20b", b"c%3Fd"), (b"//a", b"//a", b""),
    (b"/?x=http://b/", b"/", b"x=http://b/"), (b"*", b"*", b""),
    (b"http://a.example/v1/x?y=z", b"/v1/x", b"y=z"), (b"HTTPS://a.example:443/v1", b"/v1", b""),
    (b"http://[::1]:80/v1", b"/v1", b""), (b"http://a.example", b"/", b""),
    (b"http://a.example?x", b"/", b"x"),
])  # fmt: skip
def test_targets(target, path, query):
    head = request(line=b"POST " + target + b" HTTP/1.1")
    assert (head.path, head.query) == (path, query)


@pytest.mark.parametrize("line", sets.NO_REQUEST_LINES)
def test_request_lines_that_are_refused(line):
    refused(line=line)


# ------------------------------------------------------------------ request headers


@pytest.mark.parametrize("lines", sets.NO_HOSTS)
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


@pytest.mark.parametrize(("values", "keep_alive"), [
    ([], True), ([b" keep-alive"], True), ([b" close"], False), ([b" CLOSE "], False),
    ([b" x,\tclose ,y"], False), ([b" close, keep-alive"], False), ([b" keep-alive, close"], False),
    ([b" close", b" keep-alive"], False), ([b" keep-alive", b" close"], False), ([b""], True),
    ([b" ,,"], True), ([b" upgrade\r\nUpgrade: websocket"], True),
])  # fmt: skip
def test_close_wins(values, keep_alive):
    lines = b"\r\n".join(b"Connection:" + value for value in values).splitlines()
    head = request(*lines)
    assert (head.keep_alive, head.lines) == (keep_alive, [])
    assert response(*lines).keep_alive is keep_alive


def test_connection_names_other_headers():
    head = request(
        b"X-Session-Hop: 1", b"X-Hop: 1", b"Connection: x-hop, Keep-Alive ,X-SESSION-OTHER, x-session-hop",
        b"X-Session-Kept: 2", b"X-Kept: 2", b"x-session-Other: 3", b"Connection: x-late", b"X-LATE: 4",
    )  # fmt: skip
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


@pytest.mark.parametrize("line", sets.NO_HEADERS)
def test_lines_that_are_no_header(line):
    for _ in range(2):  # and not remembered as good
        refused(line)
        refused(b"A: b", line, b"C: d")
        with pytest.raises(HeadError):
            response(line)


@pytest.mark.parametrize("value", [
    b"", b"a", b" a ", b"\ta\t", b"a\tb", b"caf\xc3\xa9", b"\xff", b'a:b;c="d"', b"a" * 5000,
])  # fmt: skip
def test_values_pass_as_they_are(value):
    for _ in range(2):
        assert request(b"X-Title:" + value).lines == [b"X-Title:" + value]
        assert request(b"X-Y:" + value).aside == [b"X-Y:" + value]
        assert response(b"X-Y:" + value).lines == [b"X-Y:" + value]


def test_too_many_headers():
    assert request(*[b"a: b"] * (MAX_HEADERS - 1)).aside == [b"a: b"] * (MAX_HEADERS - 1)
    refused(*[b"a: b"] * MAX_HEADERS, status=431)


@pytest.mark.parametrize("lines", sets.FRAMINGS)
def test_ambiguous_framing(lines):
    for _ in range(2):
        refused(*lines)
        with pytest.raises(HeadError):
            response(*lines)


@pytest.mark.parametrize(("lines", "length", "chunked"), [
    ([b"Content-Length: 007"], 7, False), ([b"Content-Length:\t7 "], 7, False),
    ([b"Content-Length: " + b"9" * 18], 10**18 - 1, False), ([b"TRANSFER-ENCODING:Chunked "], None, True),
    ([], None, False),
])  # fmt: skip
def test_framing(lines, length, chunked):
    head = request(*lines)
    assert (head.length, head.chunked, head.lines) == (length, chunked, [])


def test_no_transfer_encoding_in_http_1_0():
    refused(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0")
    with pytest.raises(HeadError):
        response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK")
    assert request(b"Content-Length: 3", line=b"POST / HTTP/1.0").length == 3
    assert response(b"Content-Length: 3", line=b"HTTP/1.0 200 OK").length == 3


def test_what_of_a_client_passes_in_order_spelling_and_repetition():
    groups = (sets.PASSING_OF_CLIENT, sets.DROPPED_OF_CLIENT, sets.KEPT_OF_CLIENT)
    lines = [line for lines in zip_longest(*groups) for line in lines if line is not None]
    lines += [*sets.PASSING_OF_CLIENT[:3], *sets.KEPT_OF_CLIENT[:3]]
    for _ in range(2):
        head = request(*lines)
        assert head.lines == sets.PASSING_OF_CLIENT + sets.PASSING_OF_CLIENT[:3]
        assert head.aside == sets.KEPT_OF_CLIENT + sets.KEPT_OF_CLIENT[:3]


@given(st.text("abcxyz-_", min_size=1, max_size=12), st.sampled_from([str.upper, str.lower, str.title]))
def test_a_name_that_is_not_on_the_list_is_kept_aside(name, spelled):
    lower = name.lower().encode()
    assume(not lower.startswith(PASSING_PREFIXES))
    line = spelled(name).encode() + b": 1"
    assert (request(line).lines, request(line).aside) == ([], [line])


@pytest.mark.parametrize("line", sets.DROPPED_OF_CLIENT)
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


JSON, FORM = b"Content-Type: application/json", b"content-type: application/x-www-form-urlencoded"


@pytest.mark.parametrize(("lines", "is_json"), [
    ((), True), ((JSON,), True), ((b"content-type:application/json; charset=UTF-8",), True),
    ((b"CONTENT-TYPE: text/plain",), True), ((JSON + b"; charset=utf-7",), False), ((FORM,), False),
    ((b"Content-Type:",), False), ((JSON, JSON), False), ((JSON, FORM), False),
    ((JSON, b"content-type:"), False),
])  # fmt: skip
def test_one_content_type_that_is_json(lines, is_json):
    for _ in range(2):
        head = request(*lines)
        assert (head.is_json, head.lines, head.aside) == (is_json, [], [])


def test_values_that_are_looked_at():
    head = request(b"Expect: 100-Continue", b"Content-Encoding: GZip", b"Accept-Encoding: gzip, br")
    assert (head.expect, head.content_encoding) == (b"100-continue", b"gzip")
    assert head.accept_encoding == b"gzip, br"
    assert request(b"Accept-Encoding: gzip", b"accept-encoding: br").accept_encoding == b"gzip, br"


# ------------------------------------------------------------------ differential: llhttp

USED_OF_CLIENT = sets.names_of(sets.DROPPED_OF_CLIENT) | {
    b"host", b"content-length", b"transfer-encoding", b"content-encoding",
}  # fmt: skip


@given(harmed(heads.request_heads))
@settings(max_examples=1000)
def test_requests_never_laxer_than_llhttp_and_read_alike(head):
    reader = Llhttp(httptools.HttpRequestParser, head + b"\r\n\r\n")
    try:
        ours = read_request_head(head)
    except BadRequest:
        return
    assume(ours.method in METHODS)
    lower, options = check_framing(reader, ours)
    assert reader.parser.get_method() == ours.method
    assert split_target(reader.target) == (ours.path, ours.query)
    kept = [
        (name, value)
        for name, value in reader.fields
        if name.lower() not in USED_OF_CLIENT | options - {b"close"}
        and not name.lower().startswith((b"x-inferoute-", b"x-forwarded-"))
    ]
    assert pairs(ours.lines) == [pair for pair in kept if passes_everywhere(pair[0].lower())]
    assert pairs(ours.aside) == [pair for pair in kept if not passes_everywhere(pair[0].lower())]
    assert ours.inferoute == [field for field in lower if field[0].startswith(b"x-inferoute-")]
    assert ours.credentials == [field for field in lower if field[0] == b"authorization"]
