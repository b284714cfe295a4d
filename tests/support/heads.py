"""Heads for tests: to read one, to compare two, to draw some that are nearly always well-formed."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from proxy.relay.upstream.known_head import KnownHead, read_known_head
from proxy.wire import header_lines as lines_module
from proxy.wire import request_head, response_head
from proxy.wire.request_head import RequestHead
from proxy.wire.response_head import ResponseHead, read_response_head


def request(
    *lines: bytes, line: bytes = b"POST /v1/chat/completions HTTP/1.1", host: bool = True
) -> KnownHead:
    return read_known_head(b"\r\n".join((line, *([b"Host: a.example"] if host else []), *lines)))


def response(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    return read_response_head(b"\r\n".join((line, *lines)))


REQUEST_FACTS = (
    "method", "path", "query", "minor", "keep_alive", "chunked", "length", "expect", "content_encoding",
    "accept_encoding", "credentials", "inferoute", "lines", "aside", "is_json", "origin",
)  # fmt: skip
RESPONSE_FACTS = (
    "status", "status_line", "minor", "keep_alive", "chunked", "length", "event_stream", "encoded",
    "lines",
)  # fmt: skip


def facts(head: RequestHead | ResponseHead) -> dict[str, Any]:
    names = REQUEST_FACTS if isinstance(head, RequestHead) else RESPONSE_FACTS
    return {name: getattr(head, name) for name in names}


def clear() -> None:
    for table in (*line_tables(), *other_tables()):
        table.clear()


def line_tables() -> list[Any]:
    both = (lines_module.request_lines, lines_module.response_lines)
    return [table for lines in both for table in (lines.passing, lines.special)]


def other_tables() -> list[Any]:
    names = [lines_module.request_lines._names, lines_module.response_lines._names]
    return [*names, request_head._first_lines, response_head._status_lines]


_NAMES = (
    b"Host Connection Content-Length Transfer-Encoding Cookie X-Forwarded-For Authorization Accept-Encoding "
    b"Expect Content-Type User-Agent X-Inferoute-Strategy X-Stainless-Lang traceparent Upgrade TE a "
    b"Keep-Alive X-A X-Title Origin Content-Encoding Retry-After Set-Cookie"
)
names = st.sampled_from(_NAMES.decode().split()).flatmap(
    lambda name: st.sampled_from([name, name.lower(), name.upper()])
)
field_values = st.one_of(
    st.sampled_from(
        ["", "5", "0", "05", "+5", "5, 5", "chunked", "Chunked", "gzip, chunked", "a.example",
        "a.example:80", "close",
         "keep-alive", "x-a, close", "X-A", "upgrade", "websocket", "100-continue", "\tx ", "a\tb",
         "text/event-stream"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8),
)  # fmt: skip
field_lines = st.builds("{}:{}{}".format, names, st.sampled_from(["", " ", "\t "]), field_values).map(
    str.encode
)
harms = st.one_of(
    st.sampled_from(
        [b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\x00", b"\x0b", b"\x7f", b"\xff", b",", b"+", b"\r\n ",
        b"\r\n\t",
         b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked", b"HTTP/1.1", b"#", b"?", b"//", b"@",
         b"1", b"0"]
    ),
    st.binary(min_size=1, max_size=2),
)  # fmt: skip
# Ours takes any method (an unknown one is a 405 or 404, not a 400); llhttp takes those on its list.
METHODS = (b"POST", b"GET", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH")


@st.composite
def heads(draw, first_lines):
    """A head that is nearly always well-formed, without its empty line."""
    lines = [draw(first_lines), *draw(st.lists(field_lines, max_size=5))]
    if draw(st.booleans()):
        lines.insert(1, b"Host: a.example")
    return b"\r\n".join(lines)


@st.composite
def harmed(draw, source):
    head = draw(source)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(head)))
        head = head[:at] + draw(st.one_of(harms, st.just(b""))) + head[at + draw(st.integers(0, 2)) :]
    return head.partition(b"\r\n\r\n")[0]  # the first empty line ends a head: our callers cut there too


request_heads = heads(
    st.builds(
        "{} {} HTTP/1.{}".format,
        st.sampled_from([method.decode() for method in METHODS]),
        st.sampled_from(
            ["/", "/v1/chat/completions", "/a?b=c", "http://a.example/x?y", "http://a:80", "*", "/%00"]
        ),
        st.sampled_from("110"),
    ).map(str.encode)
)
response_heads = heads(
    st.builds(
        "HTTP/1.{} {}{}".format,
        st.sampled_from("110"),
        st.sampled_from(["200", "404", "503", "100", "204"]),
        st.sampled_from([" OK", " ", "", " Not Found"]),
    ).map(str.encode)
)


def pairs(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]


def options_of(lines: list[tuple[bytes, bytes]]) -> set[bytes]:
    """What all Connection headers together say."""
    values = [value for name, value in lines if name.lower() == b"connection"]
    return {option.strip(b" \t").lower() for option in b",".join(values).split(b",")} - {b""}
