"""The head of a provider's response, read as bytes and checked."""

from __future__ import annotations

import re
from typing import Final

from proxy.wire.header_lines import (
    MAX_CACHED_LINE,
    PASS,
    USE,
    USE_AND_PASS,
    HeadError,
    connection_options,
    is_length,
    remember,
    response_lines,
    without,
)

# Of a response, for people.
HEAD_TOO_LONG: Final = "the answer's head is too long"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_status_lines: Final[dict[bytes, tuple[int, bytes, int]]] = {}


class ResponseHead:
    """A provider's response head, checked.

    ``lines`` are the raw header lines that may reach the client, framing included (``Content-Length`` or
    ``Transfer-Encoding``), in their order. ``encoding`` is what Content-Encoding says, in lower case; of
    several headers all that say something; b"" for none and for identity, and then ``encoded`` is false.
    ``status_line`` is the one for the client, without its CRLF.
    ``tells_limits``, ``leads_on``, ``has_request_id``: there are ``X-RateLimit-*`` lines, there is a
    ``Location``, a ``request-id``. ``tells_caching``, ``tells_buffering``: there are ``Cache-Control``,
    ``X-Accel-Buffering``. ``is_json``, ``is_page``: the type says JSON, or a web page."""

    __slots__ = (
        "chunked",
        "encoded",
        "encoding",
        "event_stream",
        "has_request_id",
        "is_json",
        "is_page",
        "keep_alive",
        "leads_on",
        "length",
        "lines",
        "minor",
        "status",
        "status_line",
        "tells_buffering",
        "tells_caching",
        "tells_limits",
    )  # fmt: skip

    def __init__(self, status: int, status_line: bytes, minor: int) -> None:
        self.status = status
        self.status_line = status_line
        self.minor = minor
        self.keep_alive = minor == 1
        self.lines: list[bytes] = []
        self.chunked = False
        self.length: int | None = None
        self.event_stream = False
        self.encoded = False
        self.encoding = b""
        self.tells_buffering = self.tells_caching = False
        self.tells_limits = self.leads_on = self.has_request_id = self.is_json = self.is_page = False


def read_response_head(head: bytes) -> ResponseHead:
    """Read a provider's response head, ``head`` being everything before the empty line.

    :raises HeadError: it is not HTTP/1.x, or its framing is ambiguous.
    """
    lines = head.split(b"\r\n")
    first = lines.pop(0)
    status, status_line, minor = _status_lines.get(first) or _read_status_line(first)
    response = ResponseHead(status, status_line, minor)
    table = response_lines
    passing, special = table.passing, table.special
    keep, options = response.lines, b""
    for line in lines:
        if line in passing:
            keep.append(line)
            continue
        rule, name, value = special.get(line) or table.take_apart(line)
        if rule in (PASS, USE_AND_PASS):
            keep.append(line)
        if rule < USE:
            continue
        if name == b"content-type" and value == b"application/json":  # the usual, without its parts
            response.is_json = True
        elif name == b"connection":
            options = options + b"," + value if options else value
        else:
            _use_response_field(response, name, value)
    if options:
        response.keep_alive, named = connection_options(options, response.keep_alive)
        if named:
            response.lines[:] = without(response.lines, named)
            response.tells_caching = response.tells_caching and b"cache-control" not in named
            response.tells_buffering = response.tells_buffering and b"x-accel-buffering" not in named
    return response


def _read_status_line(line: bytes) -> tuple[int, bytes, int]:
    """The status, the line for the client, and the minor version."""
    match = _STATUS_LINE.fullmatch(line)
    if not match:
        raise HeadError("the answer is not HTTP/1.1")
    minor, status, reason = match.groups()
    parts = (int(status), b"HTTP/1.1 %b %b" % (status, reason or b""), 1 if minor == b"1" else 0)
    if len(line) <= MAX_CACHED_LINE:
        remember(_status_lines, line, parts)
    return parts


def _use_response_field(response: ResponseHead, name: bytes, value: bytes) -> None:
    if name == b"content-length":
        if response.chunked or response.length is not None or not is_length(value):
            raise HeadError("the Content-Length is malformed, repeated, or beside a Transfer-Encoding")
        response.length = int(value)
    elif name == b"transfer-encoding":
        if response.chunked or response.length is not None or value.lower() != b"chunked":
            raise HeadError("the answer's Transfer-Encoding is not 'chunked' alone")
        if not response.minor:
            raise HeadError("an HTTP/1.0 answer has a Transfer-Encoding (RFC 9112 section 6.1)")
        response.chunked = True
    elif name == b"content-type":
        kind = value.partition(b";")[0].rstrip(b" \t").lower()
        response.event_stream = kind == b"text/event-stream"
        response.is_json = kind == b"application/json"
        response.is_page = kind == b"text/html"
    elif name == b"content-encoding":
        value = value.lower()
        if value not in (b"", b"identity"):
            if len(response.encoding) < MAX_CACHED_LINE:  # of more, nothing can be decoded anyway
                response.encoding = response.encoding + b", " + value if response.encoded else value
            response.encoded = True
    else:
        _note(response, name)


def _note(response: ResponseHead, name: bytes) -> None:
    """Of some fields it counts only that they are there."""
    if name == b"location":
        response.leads_on = True
    elif name.startswith(b"x-ratelimit-"):
        response.tells_limits = True
    elif name == b"cache-control":
        response.tells_caching = True
    elif name == b"x-accel-buffering":
        response.tells_buffering = True
    elif name == b"request-id":
        response.has_request_id = True
