"""Message heads as bytes: what is refused, and how a head is read and written.

A head is split into lines and each is looked up whole in the tables of :mod:`proxy.wire.header_lines`. Lines
that pass keep their bytes: order, spelling and repetition.

Strict on purpose (RFC 9112 sections 2.2, 3.2, 5, 6.3 and 11): whatever two programs could read differently
is refused and the connection closed, so that nothing can be smuggled past the gateway.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import BadRequest
from proxy.wire.content_type import is_json
from proxy.wire.header_lines import (
    _MAX_LENGTH_DIGITS,
    ASIDE,
    MAX_CACHED_LINE,
    MAX_HEADERS,
    PASS,
    USE,
    Field,
    HeadError,
    connection_options,
    is_length,
    remember,
    request_lines,
    without,
)

# No "#" in a target: some would cut it off there, others not.
_REQUEST_LINE: Final = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!\"$-~]+) HTTP/1\.([01])")
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE_FORM: Final = re.compile(
    rb"(?i:https?)://(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?(?=[/?]|$)"
)


_first_lines: dict[bytes, tuple[bytes, bytes, bytes, int]] = {}  # of requests: see _read_request_line


class RequestHead:
    """A client's request head, checked.

    ``lines`` are the raw header lines that pass to every provider, ``aside`` those that pass only where its
    settings say so (:mod:`proxy.config.forwarding`). ``length`` is None for a chunked body and
    for no body at all (``chunked`` tells which).
    """

    chunked = False
    length: int | None = None
    expect = b""
    content_encoding = b""
    accept_encoding = b""
    origin = b""  # of the page whose browser sends it
    is_json = True  # its Content-Type says so, or says nothing
    types = 0  # how many of them there are
    repeats = True  # no header in it that differs with every request, but for the length
    begin = b""  # while it is remembered, and has a length: its bytes before the length's digits
    end = b""  # and those behind them

    def __init__(self, method: bytes, path: bytes, query: bytes, minor: int) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.minor = minor
        self.keep_alive = minor == 1
        self.credentials: list[tuple[bytes, bytes]] = []  # name in lower case, value
        self.inferoute: list[tuple[bytes, bytes]] = []  # X-Inferoute-*: name in lower case, value
        self.lines: list[bytes] = []
        self.aside: list[bytes] = []

    def again(self, data: bytes) -> tuple[int, int]:
        """The length and the offset of the body, if ``data`` begins with the same head; else the offset is 0.

        For the requests of one connection, which mostly have one head to the letter, but for the length.
        """
        begin = self.begin
        if not begin or not data.startswith(begin):
            return 0, 0
        at = stop = len(begin)
        length, most = 0, min(at + _MAX_LENGTH_DIGITS, len(data))
        while stop < most and 0x30 <= (byte := data[stop]) <= 0x39:
            length = 10 * length + byte - 0x30
            stop += 1
        if stop == at or not data.startswith(self.end, stop):
            return 0, 0
        return length, stop + len(self.end)


def read_request_head(head: bytes, kind: type[RequestHead] = RequestHead) -> RequestHead:
    """Read a request head, ``head`` being everything before the empty line.

    :param kind: what to make of it.
    :raises BadRequest: 400 for anything malformed or ambiguous; ``close`` is always set.
    """
    lines = head.split(b"\r\n")
    method, path, query, minor = _first_lines.get(lines[0]) or _read_request_line(lines[0])
    request = kind(method, path, query, minor)
    del lines[0]
    if len(lines) > MAX_HEADERS:
        raise _bad(f"More than {MAX_HEADERS} headers.", 431)
    passing, special = request_lines.passing, request_lines.special
    keep, aside = request.lines, request.aside
    seen: list[Field] = []
    for line in lines:
        if line in passing:
            keep.append(line)
            continue
        field = special.get(line)
        if field is None:
            try:
                field = request_lines.take_apart(line)
            except HeadError as error:
                raise _bad(f"{error}.") from None
            if not field[1]:  # as PASSES_ONCE; a tuple is no object where this is compiled
                request.repeats = False
        rule = field[0]
        if rule == PASS:
            keep.append(line)
        elif rule == ASIDE:
            aside.append(line)
        elif rule == USE:
            seen.append(field)
    _use_request_fields(request, seen)
    return request


def _read_request_line(line: bytes) -> tuple[bytes, bytes, bytes, int]:
    """Method, path, query and minor version."""
    match = _REQUEST_LINE.fullmatch(line)
    if not match:
        raise _bad("The request line is not HTTP/1.1.")
    method, target, minor = match.groups()
    if target[:1] != b"/" and target != b"*":
        absolute = _ABSOLUTE_FORM.match(target)
        if not absolute:
            raise _bad("The request target must be a path.")
        target = target[absolute.end() :]
        target = target if target[:1] == b"/" else b"/" + target
    path, _, query = target.partition(b"?")
    parts = (method, path, query, 1 if minor == b"1" else 0)
    if not query and len(line) <= MAX_CACHED_LINE:
        remember(_first_lines, line, parts)
    return parts


def _use_request_fields(request: RequestHead, fields: list[Field]) -> None:  # noqa: PLR0912
    hosts = 0
    framed = False
    options = b""
    for _, name, value in fields:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                raise _bad("The Host header is malformed.")
        elif name == b"content-length":
            if framed or not is_length(value):
                raise _bad("The Content-Length is malformed, repeated, or beside a Transfer-Encoding.")
            framed = True
            request.length = int(value)
        elif name == b"content-type":
            request.types += 1
            if request.types > 1 or (value != b"application/json" and not is_json(value)):
                request.is_json = False
        elif name == b"transfer-encoding":
            if framed or value.lower() != b"chunked" or not request.minor:
                raise _bad("The only Transfer-Encoding allowed is 'chunked', given once, in HTTP/1.1.")
            framed = request.chunked = True
        elif name == b"connection":
            options = options + b"," + value if options else value
        elif name == b"expect":  # repeated it is unknown; 1.0 has no interim ones (RFC 9110 10.1.1)
            request.expect += value.lower() if request.minor else b""
        elif name == b"content-encoding":
            request.content_encoding += value.lower()
        elif name == b"accept-encoding":
            seen = request.accept_encoding
            request.accept_encoding = seen + b", " + value if seen else value
        elif name == b"origin":
            request.origin += value  # repeated it is not one that is known
        elif name.startswith(b"x-inferoute-"):
            request.inferoute.append((name, value))
        elif not name.startswith(b"x-forwarded-"):
            request.credentials.append((name, value))
    if hosts != 1 and (hosts or request.minor):
        raise _bad("Exactly one Host header is needed.")
    if options:
        request.keep_alive, named = connection_options(options, request.keep_alive)
        if named:
            request.lines[:] = without(request.lines, named)
            request.aside[:] = without(request.aside, named)


def _bad(message: str, status: int = 400) -> BadRequest:
    return BadRequest(message, status=status, code="bad_head", close=True)
