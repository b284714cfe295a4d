"""Our framing against that of others, on the same bytes: llhttp, h11, and both of aiohttp's parsers.

The rule: what we accept, each of them that accepts it too reads alike: method, target, headers, body, and
where the message ends. So nobody on either side of the gateway can be made to see a message that it doesn't.
What we accept and another refuses costs an answer at most; each such case is in ``REFUSED`` with its reason,
and there are no others.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import httptools
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import (
    HttpRequestParser,
    HttpRequestParserPy,
    HttpResponseParser,
    HttpResponseParserPy,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.wire.framing import ChunkedBody, CloseBody, FramingError, LengthBody
from proxy.wire.header_lines import MAX_HEAD_BYTES, HeadError
from proxy.wire.request_head import read_request_head
from proxy.wire.response_head import read_response_head
from tests.fuzz.source import pieces
from tests.support.heads import METHODS, field_lines, harms, pairs
from tests.support.oracles import H11, Llhttp, split_target


class Seen(NamedTuple):
    """The first message of some bytes. ``is_whole``: its end came; ``rest``: behind it, None: not told."""

    what: tuple[Any, ...]  # method and target, or status
    minor: int
    fields: tuple[tuple[bytes, bytes], ...]  # names in lower case
    body: bytes
    is_whole: bool
    rest: bytes | None
    closes: bool = False  # it is the connection's last; only ours tells


class Refused(Exception):
    """It is no message to this parser."""


# --------------------------------------------------------------------------------------------- ours


def ours(data: bytes, is_answer: bool, how: int = 0) -> tuple[Seen, frozenset[bytes]]:
    """As the connections read it, and the names of the fields that pass on."""
    end = data.find(b"\r\n\r\n")
    if not 0 <= end < MAX_HEAD_BYTES:
        raise Refused
    head: Any
    body: LengthBody | ChunkedBody | CloseBody
    try:
        head = (read_response_head if is_answer else read_request_head)(data[:end])
    except (BadRequest, HeadError) as error:
        raise Refused(str(error)) from None
    if is_answer:
        what: tuple[Any, ...] = (head.status,)
        if head.status < 200:
            raise Refused("an interim answer")
        has_none = head.status in (204, 304)
    else:
        what = (head.method, head.path, head.query)
        has_none = not head.chunked and head.length is None
    if has_none:
        body = LengthBody(0)
    elif head.chunked:
        body = ChunkedBody()
    else:
        body = CloseBody() if head.length is None else LengthBody(head.length)
    body.payload = []
    taken = 0
    for piece in pieces(data[end + 4 :], how):
        try:
            taken += body.feed(piece)
        except FramingError as error:
            raise Refused(str(error)) from None
        if body.done:
            break
    fields = [(name.lower(), value) for name, value in pairs(head.lines + ([] if is_answer else head.aside))]
    if not is_answer and head.length is not None:
        fields.append((b"content-length", b"%d" % head.length))
    if not is_answer and head.chunked:
        fields.append((b"transfer-encoding", b"chunked"))
    is_whole = body.done or isinstance(body, CloseBody)  # these are closed when the bytes are over
    payload, rest = b"".join(body.payload), data[end + 4 + taken :]
    seen = Seen(what, head.minor, tuple(fields), payload, is_whole, rest, not head.keep_alive)
    return seen, frozenset(name for name, _ in fields)


# --------------------------------------------------------------------------------------------- theirs


def llhttp(data: bytes, is_answer: bool) -> Seen:
    reader = Llhttp(httptools.HttpResponseParser if is_answer else httptools.HttpRequestParser, data)
    if reader.error or not reader.has_head:
        raise Refused(reader.error)
    parser = reader.parser
    what = (parser.get_status_code(),) if is_answer else (parser.get_method(), *split_target(reader.target))
    is_whole = reader.end is not None or (is_answer and is_until_close(reader.fields))
    rest = data[reader.end :] if reader.end is not None else b"" if is_whole else None
    minor = int(parser.get_http_version()[-1])
    return Seen(what, minor, lower(reader.fields), reader.body, is_whole, rest)


def h11(data: bytes, is_answer: bool) -> Seen:
    reader = H11(data, answers_to="POST" if is_answer else None, is_closed=is_answer, most=1)
    if not reader.messages or (reader.error and "closed" not in reader.error):
        raise Refused(reader.error)
    event, body, is_whole, _ = reader.messages[0]
    what = (event.status_code,) if is_answer else (event.method, *split_target(event.target))
    fields = tuple((name, bytes(value)) for name, value in event.headers)
    return Seen(what, int(event.http_version[-1:]), fields, body, is_whole, None)


# Compiled and not; of requests and of answers.
AIOHTTP = {
    "aiohttp": (HttpRequestParser, HttpResponseParser),
    "aiohttp in Python": (HttpRequestParserPy, HttpResponseParserPy),
}


def aiohttps(loop: asyncio.AbstractEventLoop, parsers: tuple[Any, Any], data: bytes, is_answer: bool) -> Seen:
    options: dict[str, Any] = {"auto_decompress": False, "max_line_size": 1 << 16, "max_field_size": 1 << 16}
    if is_answer:
        options |= {"read_until_eof": True}
    parser = parsers[is_answer](BaseProtocol(loop), loop, 1 << 16, **options)
    try:
        messages, *_ = parser.feed_data(data)
        if messages and is_answer:
            parser.feed_eof()
    except (HttpProcessingError, asyncio.InvalidStateError) as error:
        raise Refused(str(error)) from None
    except Exception as error:  # of a payload that ends too early, when fed its end
        if "Incomplete" not in type(error).__name__ and "Payload" not in type(error).__name__:
            raise
        raise Refused(str(error)) from None
    if not messages:
        raise Refused
    message, payload = messages[0]
    if payload.exception() is not None:
        raise Refused(str(payload.exception()))
    is_whole = payload.is_eof()
    body = payload.read_nowait(-1)
    behind = [other.path for other, _ in messages[1:]]
    rest = NEXT if behind == ["/next"] else b"".join(map(str.encode, behind)) if is_whole else None
    what = (message.code,) if is_answer else (message.method.encode(), *split_target(message.path.encode()))
    return Seen(what, message.version.minor, lower(message.raw_headers), body, is_whole, rest)


def lower(fields: Any) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower(), value.strip(b" \t")) for name, value in fields)


def is_until_close(fields: list[tuple[bytes, bytes]]) -> bool:
    return not {b"content-length", b"transfer-encoding"}.intersection(name.lower() for name, _ in fields)


@pytest.fixture(scope="module")
def readers() -> Iterator[dict[str, Any]]:
    """The parsers of others by name: called with bytes, and whether they are an answer."""
    loop = asyncio.new_event_loop()
    aiohttp = {name: partial(aiohttps, loop, parsers) for name, parsers in AIOHTTP.items()}
    yield {"llhttp": llhttp, "h11": h11, **aiohttp}
    loop.close()


# --------------------------------------------------------------------------------------------- the rule

NEXT = b"POST /next HTTP/1.1\r\nHost: a\r\n\r\n"


class Difference(NamedTuple):
    """What we accept and others refuse: who they are, what of a message shows it, an example, and why it does
    no harm."""

    who: tuple[str, ...]
    mark: re.Pattern[bytes]
    example: bytes
    why: str


REFUSED = [
    Difference(
        tuple(AIOHTTP), re.compile(rb"^[A-Z]+ \* "), b"POST * HTTP/1.1\r\nHost: a\r\n\r\n",
        "The target of OPTIONS alone. It is no path that is proxied, so the connection is handed to aiohttp, "
        "which says 400 and closes it.",
    ),
    Difference(
        tuple(AIOHTTP), re.compile(rb"(?is)\r\n(content-type|user-agent):.*\r\n\1:"),
        b"POST / HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nuser-agent: y\r\n\r\n",
        "Fields that may be said once (RFC 9110 5.3) but frame nothing. They pass, repetition included; a "
        "provider on aiohttp says 400 to them, as it would without us.",
    ),
]  # fmt: skip


def known(name: str, data: bytes) -> bool:
    return any(name in difference.who and difference.mark.search(data) for difference in REFUSED)


def compare(data: bytes, is_answer: bool, readers: dict[str, Any], how: int = 0) -> None:
    try:
        whole, passing = ours(data, is_answer)
    except Refused:
        with pytest.raises(Refused):
            ours(data, is_answer, how)
        return
    assert ours(data, is_answer, how)[0] == whole
    if whole.is_whole:
        # What follows on the message is put there by us: some look at it before they tell what they saw.
        # On a connection that closes nobody may, nor behind an answer that nobody asked for.
        rest = b"" if whole.closes or is_answer else NEXT
        data = data[: len(data) - len(whole.rest or b"")] + rest
        whole = whole._replace(rest=rest)
    if not is_answer and whole.what[0] not in METHODS:
        return  # llhttp has a list of them; ours knows POST, and hands the others to aiohttp
    for name, reader in readers.items():
        try:
            other: Seen = reader(data, is_answer)
        except Refused as error:
            if whole.is_whole and not known(name, data):
                pytest.fail(f"{name} refuses it: {error}")
            continue
        assert (other.what, other.minor) == (whole.what, whole.minor), name
        fields = [field for field in other.fields if field[0] in passing]
        assert sorted(numbers(fields)) == sorted(numbers(whole.fields)), name
        if asks_for_another_protocol(other.fields):
            # Some take what follows on the head for that protocol's. The offer is ours to ignore (RFC 9110
            # 7.8: Java's client makes one with each POST to http://), and no provider sees it.
            continue
        assert other.is_whole == whole.is_whole, f"{name} sees the end elsewhere"
        if whole.is_whole:
            assert other.body == whole.body, name
            assert other.rest in (None, whole.rest), name


def asks_for_another_protocol(fields: tuple[tuple[bytes, bytes], ...]) -> bool:
    options = b",".join(value for name, value in fields if name == b"connection").lower()
    return b"upgrade" in options and any(name == b"upgrade" for name, _ in fields)


def numbers(fields: Any) -> list[tuple[bytes, bytes]]:
    """A length by its value, a coding in lower case."""
    return [
        (name, b"%d" % int(value) if name == b"content-length" else value.lower())
        if name in (b"content-length", b"transfer-encoding")
        else (name, value)
        for name, value in fields
    ]


# --------------------------------------------------------------------------------------------- what is tried

targets = st.sampled_from([
    b"/", b"/v1/chat/completions", b"/a?b=c?d", b"http://a.example/x?y", b"http://a:80", b"*", b"/%00",
    b"//a",
])  # fmt: skip
chunk_sizes = st.sampled_from([
    b"%x", b"%X", b"0%x", b"%x;a", b'%x;a="b;\\""', b"%x;a=b;c", b"%x ", b"0x%x", b"+%x",
])  # fmt: skip
chunk_ends = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"", b"\r\n\r\n"])
trailers = st.sampled_from([b""] * 4 + [
    b"X-A: b\r\n", b"Content-Length: 5\r\n", b"x: y", b" x: y\r\n", b"X :y\r\n",
])  # fmt: skip


@st.composite
def chunked_bodies(draw: Any) -> bytes:
    out = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3)):
        # Half of all bodies are as they should be but for what all take.
        size, ends = (st.just(b"%x"), st.just(b"\r\n")) if draw(st.booleans()) else (chunk_sizes, chunk_ends)
        out += draw(size) % len(data) + draw(ends) + data + draw(ends)
    return out + draw(st.sampled_from([b"0", b"00", b"0;x", b"000"])) + b"\r\n" + draw(trailers) + b"\r\n"


@st.composite
def framed(draw: Any) -> tuple[list[bytes], bytes]:
    """Header lines that frame a message, mostly as they should, and a body to them."""
    kind = draw(st.sampled_from(["length"] * 3 + ["chunked"] * 4 + ["none", "both", "twice"]))
    body = draw(chunked_bodies()) if kind == "chunked" else draw(st.binary(max_size=30))
    number = draw(st.sampled_from([b"%d"] * 6 + [b"0%d", b"+%d", b"%d, %d", b"%d "]))
    length = b"Content-Length:%b%b%b" % (
        draw(st.sampled_from([b" ", b"", b"\t"])), number.replace(b"%d", b"%d" % len(body)),
        draw(st.sampled_from([b"", b" ", b"\t"])),
    )  # fmt: skip
    coding = b"Transfer-Encoding: " + draw(st.sampled_from([b"chunked"] * 6 + [
        b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"",
    ]))  # fmt: skip
    lines = {
        "length": [length], "chunked": [coding], "none": [], "both": [length, coding], "twice": [length] * 2,
    }  # fmt: skip
    return lines[kind], b"" if kind == "none" else body


def is_framing_apart(line: bytes) -> bool:
    """No second Host or length: ``framed`` sees to those."""
    return not line.lower().startswith((b"host", b"content-length", b"transfer-encoding"))


@st.composite
def messages(draw: Any, first_lines: st.SearchStrategy[bytes]) -> bytes:
    lines, body = draw(framed())
    for line in draw(st.lists(field_lines.filter(is_framing_apart), max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    lines.insert(0, b"Host: a")
    data = b"\r\n".join([draw(first_lines), *lines]) + b"\r\n\r\n" + body
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(harms) + data[at + draw(st.integers(0, 2)) :]
    return data


request_lines = st.builds(
    b"%b %b HTTP/1.%b".__mod__,
    st.tuples(st.sampled_from([b"POST", b"POST", b"GET"]), targets, st.sampled_from([b"1", b"1", b"0"])),
)
status_lines = st.builds(
    b"HTTP/1.%b %b%b".__mod__,
    st.tuples(
        st.sampled_from([b"1", b"1", b"0"]), st.sampled_from([b"200", b"404", b"204", b"304", b"503"]),
        st.sampled_from([b" OK", b" ", b"", b" Not Found"]),
    ),
)  # fmt: skip


@given(data=messages(request_lines), behind=st.sampled_from([b"", NEXT]), how=st.integers(0, 255))
@settings(max_examples=400)
def test_requests_are_read_alike(readers, data, behind, how):
    compare(data + behind, False, readers, how)


@given(data=messages(status_lines), how=st.integers(0, 255))
@settings(max_examples=400)
def test_answers_are_read_alike(readers, data, how):
    compare(data, True, readers, how)


@pytest.mark.parametrize("difference", REFUSED, ids=lambda difference: difference.mark.pattern.decode())
def test_what_is_known_to_differ_still_does(readers, difference):
    assert ours(difference.example, False)[0].is_whole
    assert difference.why
    for name, reader in readers.items():
        if name in difference.who:
            assert known(name, difference.example)
            with pytest.raises(Refused):
                reader(difference.example, False)
        else:
            assert not known(name, difference.example)
            assert reader(difference.example, False).is_whole


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("how", [0, 1, 7, 160])
@pytest.mark.parametrize(("data", "body"), [
    (POST + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    (POST + b"\r\n", b""),
    (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (CHUNKED + b'2;a="\\"b";c\r\nhe\r\n03\r\nllo\r\n00\r\nX-A: b\r\n\r\n', b"hello"),
    (POST.replace(b"1.1", b"1.0") + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (OK + b"Content-Type: text/plain\r\n\r\nhello", b"hello"),
    (b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", b""),
    (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b""),
])  # fmt: skip
def test_all_of_them_read_what_is_usual(readers, data, body, how):
    is_answer = data.startswith(b"HTTP/")
    assert ours(data, is_answer, how)[0].body == body
    for reader in readers.values():
        other = reader(data, is_answer)
        assert (other.body, other.is_whole) == (body, True)
    compare(data, is_answer, readers, how)


def test_a_parser_that_sees_another_end_is_told(readers):
    """That the rule can fail: a reader that is lax where we are strict, on bytes that we accept."""
    data = POST + b"Content-Length: 5\r\n\r\nhello"

    def shorter(data: bytes, is_answer: bool) -> Seen:
        return llhttp(data, is_answer)._replace(body=b"hell", rest=b"o" + NEXT)

    def unfinished(data: bytes, is_answer: bool) -> Seen:
        return llhttp(data, is_answer)._replace(is_whole=False, rest=None)

    def refusing(data: bytes, is_answer: bool) -> Seen:
        raise Refused

    for reader in (shorter, unfinished, refusing):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            compare(data, False, {"lax": reader})
