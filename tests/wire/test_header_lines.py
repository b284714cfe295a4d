"""The tables of lines seen before: a second look is like the first, and a flood stays bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.wire import header_lines as lines_module
from proxy.wire.header_lines import (
    ID_HEADERS,
    PASSING_HEADERS,
    HeadError,
    is_kept,
    may_pass,
    without,
    without_empty_lines,
)
from proxy.wire.request_head import read_request_head
from proxy.wire.response_head import read_response_head
from tests.support import heads
from tests.support.header_sets import IDENTITY, STEERING
from tests.support.heads import facts, harmed, request, response


@pytest.fixture(autouse=True)
def fresh_tables():
    heads.clear()


def verdict(read: Any, head: bytes) -> Any:
    try:
        return facts(read(head))
    except (BadRequest, HeadError) as error:
        return str(error)


@given(harmed(heads.request_heads), harmed(heads.response_heads))
@settings(max_examples=300)
def test_the_second_look_is_like_the_first(one, other):
    for head in (one, other):  # each head through both readers: their tables must not mix
        heads.clear()
        first = [verdict(read, head) for read in (read_request_head, read_response_head)]
        again = [verdict(read, head) for read in (read_request_head, read_response_head)]
        assert again == first


def test_what_was_read_is_not_shared_with_the_table():
    for kind, *lines in (("aside", b"A: 1", b"B: 2"), ("lines", b"Accept: 1", b"X-Title: 2")):
        getattr(request(*lines), kind).clear()
        assert getattr(request(*lines), kind) == lines


def test_tables_are_bounded_and_a_flood_changes_nothing():
    lines = (
        b"Content-Type: text/event-stream", b"Connection: x-a", b"X-A: 1", b"X-B: 2", b"Content-Length: 5",
    )  # fmt: skip
    asked, answered = facts(request(*lines)), facts(response(*lines))
    for i in range(3 * lines_module.MAX_CACHED_LINES):
        request(b"X-%d: 1" % i, b"Authorization: %d" % i, line=b"POST /%d HTTP/1.1" % i)
        response(b"X-%d: 1" % i, b"Content-Type: %d" % i, line=b"HTTP/1.1 200 %d" % i)
        passing, special, response_passing, response_special = map(len, heads.line_tables())
        assert passing + special <= lines_module.MAX_CACHED_LINES
        assert response_passing + response_special <= lines_module.MAX_CACHED_LINES
        assert max(map(len, heads.other_tables())) <= lines_module.MAX_CACHED_LINES
    assert facts(request(*lines)) == asked
    assert facts(response(*lines)) == answered


@pytest.mark.parametrize("line", [
    b"traceparent: 00-1", b"Date: Mon", b"CF-Ray: 1", b"X-Request-Id: 1", b"X-Client-Request-Id: 1",
    b"Set-Cookie: a=1", b"baggage: a=1", b"X-A: " + b"b" * lines_module.MAX_CACHED_LINE,
    b"Authorization: " + b"b" * lines_module.MAX_CACHED_LINE,
])  # fmt: skip
def test_what_differs_every_time_or_is_long_is_not_remembered(line):
    request(line, host=False, line=b"POST / HTTP/1.0")
    response(line)
    assert not any(heads.line_tables())


@pytest.mark.parametrize(("line", "repeats"), [
    (b"CF-Ray: 1", False), (b"X-Request-Id: 1", False), (b"A: 1", True),
])  # fmt: skip
def test_a_head_that_differs_every_time_says_so(line, repeats):
    for _ in range(2):
        assert request(line).repeats is repeats


@pytest.mark.parametrize("name", [*STEERING, *IDENTITY])
def test_what_steers_or_identifies_passes_to_nobody_by_itself(name):
    for spelled in (name, name.lower(), name.upper()):
        assert request(spelled.encode() + b": 1").lines == []


@pytest.mark.parametrize("name", IDENTITY)
def test_what_identifies_may_not_even_be_let_through(name):
    chosen = ("x-openwebui-user-email", "x-user-email")  # an operator's own; nobody else knows what it says
    assert may_pass(name.lower().encode()) == (name.lower() in chosen)


@given(st.sampled_from(["authorization", "x-api-key", "cookie", "x-original-url", "openai-project", "host"]))
def test_no_spelling_with_an_underscore_passes(name):
    for spelled in (name.replace("-", "_"), f"{name}_", f"_{name}"):
        if "_" in spelled:
            assert not may_pass(spelled.encode())
            assert request(spelled.encode() + b": 1").lines == []


def test_what_is_kept_for_a_sticky_split():
    for name in (b"x-user", b"user-agent", b"session_id", b"x-auth-request-email", b"referer"):
        assert is_kept(name)
    for name in (b"authorization", b"cookie", b"x-forwarded-for", b"content-type", b"x-inferoute-timeout"):
        assert not is_kept(name)


def test_long_names_and_first_lines_are_not_remembered():
    long = b"a" * (lines_module.MAX_CACHED_LINE + 1)
    for _ in range(2):
        assert request(long + b": 1", line=b"POST /" + long + b" HTTP/1.0", host=False).path == b"/" + long
        assert response(long + b": 1", line=b"HTTP/1.1 200 " + long).status_line.endswith(long)
        assert not any(heads.line_tables())
        assert not any(heads.other_tables())


@pytest.mark.parametrize(
    ("data", "left"),
    [(b"", b""), (b"\r\n", b""), (b"\r\n\r\nGET", b"GET"), (b"\r\n\nGET", b"\nGET"), (b"\n\r\n", b"\n\r\n"),
     (b"\r\r\n", b"\r\r\n"), (b"GET\r\n", b"GET\r\n"), (b"\r\n" * 8, b""),
     (b"\r\n" * 40_000, b"\r\n" * 39_992)],
)  # fmt: skip
def test_empty_lines_before_a_request(data, left):
    assert without_empty_lines(data) == left


@pytest.mark.parametrize("name", [*PASSING_HEADERS, b"X-Stainless-Lang", b"Anthropic-Beta"])
def test_what_passes_has_a_bound(name):
    """A provider may repeat it in its answer's head. Ids come back, and are short."""
    most = lines_module.MAX_ID_BYTES if name in ID_HEADERS else lines_module.MAX_VALUE_BYTES
    for _ in range(2):
        good, bad = (b"%b:  %b " % (name, b"x" * size) for size in (most, most + 1))
        head = request(good, bad)
        assert (head.lines, head.aside) == ([good], [bad])


def test_what_a_provider_sends_has_none_but_its_heads():
    line = b"X-Request-Id: " + b"x" * 9000
    assert response(line).lines == [line]


def test_without():
    lines = [b"A: 1", b"b:2", b"A-B: 3", b"a:4"]
    assert without(lines, frozenset((b"a",))) == [b"b:2", b"A-B: 3"]
    assert without(lines, frozenset()) == lines
    assert len(lines) == 4
