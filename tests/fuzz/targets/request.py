"""A client's bytes through the real connections: providers get what h11 reads in them, and nothing else."""

from __future__ import annotations

import json
import re

import httptools

from proxy.endpoints import PROXIED
from tests.fuzz.source import pieces
from tests.fuzz.wire import Wire, sent_on
from tests.readers.inprocess import check_models
from tests.support.oracles import H11, Llhttp

_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n"
_BODY = b'{"model":"a/m","messages":[]}'
_REQUEST = _HEAD + b"Content-Length: %d\r\n\r\n" % len(_BODY) + _BODY
_CHUNKED = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
_REUSED = _REQUEST.replace(b"a/m", b"b/m")
_NEXT = b" HTTP/1.1\r\nHost: a\r\n\r\n"
_WITH_BODY = b" HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /"
_OLDER = _HEAD.replace(b"1.1", b"1.0")
_LENGTH = b"Content-Length: 29\r\n"
# The body in two chunks, with an extension and a trailer.
_PARTS = b"10\r\n" + _BODY[:16] + b"\r\nd;x\r\n" + _BODY[16:] + b"\r\n0\r\nX-A: b\r\n\r\n"
SEEDS = [
    b"\x00" + _REQUEST, b"\x07" + _REQUEST + b"\r\n" + _REUSED + b"GET /v1/models" + _NEXT,
    b"\x01" + _CHUNKED + _PARTS + _REQUEST,
    b"\x05" + _HEAD + b"Expect: 100-continue\r\n" + _LENGTH + b"\r\n" + _BODY,
    b"\x00" + _HEAD + b"Content-Length: 5\r\n\r\n[1,2]" + _REQUEST,
    b"\x00" + _OLDER + b"Connection: keep-alive\r\n" + _LENGTH + b"\r\n" + _BODY + _REQUEST,
    b"\xa0" + _HEAD + _LENGTH * 2 + b"\r\n" + _BODY,
    b"\x00" + _HEAD + _LENGTH + b"Transfer-Encoding: chunked\r\n\r\n" + _BODY,
    b"\x10" + _HEAD + b"Content-Length: 14\r\n\r\n" + b'{"n":1,"x":[]}',
    b"\x00HEAD /healthz" + _NEXT + b"GET /x/y" + _NEXT + _REQUEST,
    b"\x00GET /v1/models/a%2Fm?all=true" + _WITH_BODY + _REQUEST, b"\x00PUT /healthz" + _WITH_BODY + _REQUEST,
    b"\x00" + _REQUEST.replace(b"Host: a", b"Host: a\r\nX-Inferoute-Strategy: nope") + _REQUEST,
    b"\x00" + _REQUEST.replace(b"a/m", b"two").replace(b"a\r\n", b"a\r\nConnection: close\r\n") + _REQUEST,
]  # fmt: skip
_ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"id":1}'


def test_one(data: bytes) -> None:
    if not data:
        return
    how, text = data[0], data[1:]
    got: list[tuple[bytes, bytes]] = []
    with Wire() as wire:
        for piece in pieces(text, how):
            wire.send(piece)
            answer(wire, got)
        check_client(wire, b"HEAD " in text)
        check_providers(text, got)
        wire.end()


def answer(wire: Wire, got: list[tuple[bytes, bytes]]) -> None:
    """Every request that a provider has whole; notes its target and body."""
    while (connection := wire.busy()) is not None:
        sent = H11(sent_on(connection))
        assert not sent.error, sent.error
        if not sent.messages or len(sent.messages) <= connection.served or not sent.messages[-1][2]:
            break
        event, body, *_ = sent.messages[-1]
        got.append((event.target, body))
        connection.data_received(_ANSWER)
        wire.end_turn()


def check_client(wire: Wire, has_heads: bool) -> None:
    """Whole answers, one behind the other.

    :param has_heads: among the requests may be one whose answer has no body, whatever its head says.
    """
    out = wire.out
    written = out.written
    while written:
        reader = Llhttp(httptools.HttpResponseParser, written)
        assert not reader.error, (reader.error, written)
        if reader.parser.get_status_code() == 100:
            written = written[25:]
            continue
        end = reader.end
        bodiless = written.find(b"\r\n\r\n") + 4
        if has_heads and written[bodiless : bodiless + 5] in (b"", b"HTTP/"):
            end = bodiless
        assert end is not None
        written = written[end:]
        fields = {name.lower(): value for name, value in reader.fields}
        if fields.get(b"connection") == b"close":
            assert not written
            assert out.is_over or out.is_half_closed


def check_providers(text: bytes, got: list[tuple[bytes, bytes]]) -> None:
    """In their order, the requests that llhttp sees too. Readers find the model that was put in."""
    seen = requests_of(text)
    at = 0
    for target, body in got:
        check_models(body, "m")
        while at < len(seen) and not is_same(seen[at], target, body):
            at += 1  # one that we refused
        assert at < len(seen), ("nobody sent this", target, body)
        at += 1


def requests_of(text: bytes) -> list[tuple[bytes, bytes]]:
    """Targets and bodies of the requests for providers, up to the first that is none to llhttp."""
    found: list[tuple[bytes, bytes]] = []
    while text:
        reader = Llhttp(httptools.HttpRequestParser, text)
        if reader.end is None or reader.error:
            break
        if reader.parser.get_method() == b"POST" and path_of(reader.target) in PROXIED:
            found.append((reader.target, reader.body))
        text = text[reader.end :]
    return found


def path_of(target: bytes) -> bytes:
    if not target.startswith(b"/"):
        target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
    return target.partition(b"?")[0]


def is_same(seen: tuple[bytes, bytes], target: bytes, body: bytes) -> bool:
    path = path_of(seen[0]).removeprefix(b"/v1")
    if path_of(target) != b"/v1" + path:
        return False
    if any(is_put_in(seen[1], body, match.start()) for match in re.finditer(b'"m"', body)):
        return True
    try:  # the usage of a stream was asked for: all else is the same
        before, after = json.loads(seen[1].decode()), json.loads(body.decode())
    except (ValueError, RecursionError):
        return False
    if not isinstance(before, dict) or not isinstance(after, dict):
        return False
    ours = {"model": "", "stream_options": ""}
    return before.get("stream") is True and {**before, **ours} == {**after, **ours}


def is_put_in(before: bytes, after: bytes, at: int) -> bool:
    """``after`` is ``before`` with another value at ``at``, or with a member put in there."""
    prefix, suffix = after[:at], after[at + 3 :]
    if before.startswith(prefix) and before.endswith(suffix) and len(before) >= len(prefix) + len(suffix):
        return True
    return prefix.endswith(b'"model":') and before == prefix[:-8] + suffix.removeprefix(b",")
