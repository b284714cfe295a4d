"""Where a picture in a body is one, and where it is text."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.relay.exchange.request_body import RequestBody
from proxy.wire.media_places import Span, placed, walk, walk_slowly
from tests.support.json_texts import pieces_of

PNG = base64.b64encode(
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1).to_bytes(4) + (1).to_bytes(4) + bytes(9000)
).decode()
URL = f"data:image/png;base64,{PNG}"
SOURCE = {"type": "base64", "media_type": "image/png", "data": PNG}
IMAGE = {"type": "image", "source": SOURCE}


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "see [{"}, *parts]}]}


def media_bytes(body: bytes, cuts: list[int]) -> int:
    found = RequestBody()
    pieces = pieces_of(body, cuts)
    for at, piece in enumerate(pieces):
        found.scan(piece, at + 1 == len(pieces))
        found.hold(piece)
    found.check_media()
    return found.media_bytes()


CUTS = st.lists(st.integers(0, 1 << 15), max_size=4)


@pytest.mark.parametrize("asked", [
    user(IMAGE),
    user({"type": "image", "source": dict(reversed(SOURCE.items()))}),
    user({"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}),
    user({"type": "image_url", "image_url": {"url": URL, "detail": "low"}}),
    user({"type": "image_url", "image_url": URL}),
    user({"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}),
    user({"type": "file", "file": {"file_data": URL, "filename": "a"}}),
    {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]},
    {"input": [{"type": "input_file", "file_data": URL}]},
    {"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": URL}]}]},
    {"input": [{"type": "computer_call_output", "output": {"type": "x", "image_url": URL}}]},
    {"input": [{"type": "image_generation_call", "result": PNG}]},
    {"input": [{"image": PNG}]},
    {"image": URL},
    {"contents": [{"parts": [{"inline_data": {"mime_type": "image/png", "data": PNG}}]}]},
])  # fmt: skip
@pytest.mark.parametrize("is_tight", [True, False])
@given(cuts=CUTS)
def test_where_apis_read_a_medium(asked, is_tight, cuts):
    body = json.dumps({"model": "m", "tools": [{"x": "y"}], **asked}, indent=None if is_tight else 1)
    assert len(PNG) <= media_bytes(body.encode(), cuts) <= len(URL)


TOOL_USE = {"type": "tool_use", "id": "t", "name": "f"}


@pytest.mark.parametrize("asked", [
    {"tools": [{"name": "f", "input_schema": {"type": "object", "data": PNG}}]},
    {"tools": [{"name": "f", "input_schema": {"content": [IMAGE]}}]},
    {"tools": [{"function": {"parameters": {"messages": [{"content": [IMAGE]}]}}}]}, {"metadata": IMAGE},
    {"response_format": {"source": SOURCE}}, {"system": [IMAGE]}, user({**TOOL_USE, "input": {"data": PNG}}),
    user({**TOOL_USE, "input": SOURCE}), user({**TOOL_USE, "input": IMAGE}),
    user({**TOOL_USE, "input": {"content": [IMAGE]}}), user({**TOOL_USE, "input": user(IMAGE)}),
    user({"type": "redacted_thinking", "data": PNG}),
    user({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": PNG}}),
    user({"type": "document", "source": {"data": PNG}}),
    {"input": [{"type": "function_call", "arguments": {"image_url": {"url": URL}}}]},
    {"messages": [{"tool_calls": [{"function": {"arguments": {"image_url": URL}}}]}]}, {"data": PNG},
    {"messages": {"data": PNG}},
])  # fmt: skip
@given(cuts=CUTS)
def test_where_it_is_text(asked, cuts):
    assert media_bytes(json.dumps({"model": "m", **asked}).encode(), cuts) == 0


@pytest.mark.parametrize("body", [
    b'{"model":"m","messages":[{"content":[{"source":{"type":"text","type":"base64","data":"%b"}}]}]}',
    b'{"model":"m","t\\u006fols":[{"content":[{"image_url":"%b"}]}]}',
    # The string goes on behind a quote that is escaped, and only looks like the rest of a body.
    b'{"model":"m","tools":[{"data":"%b\\","a":1}],"messages":[{"content":[{"image_url":"%b"}]}]'
    b'"}],"messages":[]}',
    b'{"model":"m","tools":[{"data":"%b\\\\\\"}],\\"messages\\":[{\\"image_url\\":\\"%b"}]}',
])  # fmt: skip
@given(cuts=CUTS)
def test_who_plays_tricks(body, cuts):
    body = body.replace(b"%b", PNG.encode())
    whole = RequestBody.of(body)
    assert whole.media_bytes() > 0
    whole.check_media()
    assert whole.media_bytes() == 0


def spans_in(body: bytes) -> list[Span]:
    found, at = [], 0
    while (at := body.find(PNG.encode(), at)) >= 0:
        found.append(Span(at, len(PNG)))
        at += len(PNG)
    return found


@given(st.lists(st.booleans(), min_size=1, max_size=9), CUTS)
def test_each_by_its_own_place(good, cuts):
    parts = [IMAGE if is_good else {**TOOL_USE, "input": {"content": [IMAGE]}} for is_good in good]
    body = json.dumps(user(*parts)).encode()
    assert placed(pieces_of(body, cuts), spans_in(body)) == good


def in_both(filler: bytes) -> tuple[bytes, bytes]:
    """A picture behind it, and one before."""
    part = b'"messages":[{"content":[{"image_url":"%b"}]}]' % PNG.encode()
    return b'{"x":[%b1],%b}' % (filler, part), b'{%b,"x":[%b1]}' % (part, filler)


@pytest.mark.parametrize("filler", [
    b'"a",' * 30_000, b'"%b",' % (b'\\"' * 60_000),
    b'"%b",' % (json.dumps({"path": "a", "found": True}).replace('"', '\\"').encode() * 10_000),
    b'"%b",' % (b"\\" * 100), b'"%b",' % (b"word " * (1 << 18)),
    b'"%b",' % (b"word " * (1 << 19)),  # more than is looked through
    b"[" * 62 + b"]" * 62 + b",",
])  # fmt: skip
def test_a_picture_is_one_whatever_stands_before_it(filler):
    for body in in_both(filler):
        assert placed([body], spans_in(body)) == [True]


@pytest.mark.parametrize("filler", [b"[" * 100, b"[" * 100 + b"]" * 100 + b","])
def test_what_is_nested_too_much_hides_what_stands_behind(filler):
    behind, before = in_both(filler)
    assert placed([behind], spans_in(behind)) == [False]
    assert placed([before], spans_in(before)) == [True]
    behind = behind.replace(b'"messages"', b'"y":"%b","messages"' % (b"x" * (3 << 20)))
    assert placed([behind], spans_in(behind)) == [False]


def test_so_many_pictures_are_looked_at():
    body = json.dumps(user(*[IMAGE] * 1001)).encode()
    assert placed([body], spans_in(body)) == [True] * 1000 + [False]


WORDS = [
    *(b"messages", b"input", b"content", b"source", b"type", b"base64", b"data", b"image_url", b"url"),
    *(b"image", b"file", b"file_data", b"audio", b"tools", b"result", b"x" * 32, b"inlineData", b"query"),
]
TOKENS = [b'"%b"' % word for word in WORDS]
TOKENS += [b'"%b":' % word for word in WORDS] + [
    b"{", b"}", b"[", b"]", b",", b" ", b"1", b'"', b"\\", b"{[" * 20,
]  # fmt: skip
LIKELY = st.sampled_from(
    [b'{"messages":[{"content":[', b'{"image_url":"', b'"},', b'{"source":{"type":"base64","data":"', b'"}},']
)


@given(st.lists(st.sampled_from(TOKENS) | LIKELY, max_size=40).map(b"".join), st.data())
def test_both_ways_find_the_same_media(text, data):
    quotes = [at for at, byte in enumerate(text) if byte == 0x22]
    some = st.lists(st.sampled_from(quotes), max_size=9) if quotes else st.just([])
    marks = sorted(data.draw(some))
    assert walk(text, marks) == walk_slowly(text, marks)
    every = list(range(-1, len(text)))
    assert walk(text, every) == walk_slowly(text, every)


@given(st.binary(max_size=200))
def test_any_bytes(data):
    assert len(placed([data], [Span(min(3, len(data)), 0)])) == 1
