"""Questions to whole bodies, and edits of them, against a full parser."""

from __future__ import annotations

import json
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire import json_body as body_module
from proxy.wire.json_body import excerpt, is_empty_object, splice, stream_of, value_of
from proxy.wire.model_scanner import ModelScanner
from proxy.wire.outline import keys_of
from proxy.wire.output_limits import COUNT, MAX_TOKENS, written_limits
from tests.support.json_texts import bodies, bytewise, pieces_of, scan


@given(bodies(), st.sampled_from(["stream", "tools", "max_tokens"]))
@settings(max_examples=200)
def test_value_of_agrees_with_a_parser(body, key):
    at = value_of(body, keys_of(body), b'"' + key.encode() + b'"')
    parsed = json.loads(body)
    assert (at == -1) is (key not in parsed)
    if key in parsed:
        value, _ = json.JSONDecoder().raw_decode(body[at:].decode("utf-8", "surrogatepass"))
        assert value == parsed[key]


@pytest.mark.parametrize(("body", "value"), [
    (b'{"stream":true}', b"true}"), (b'{"stream" \n:\t true}', b"true}"),
    (b'{"a":{"stream":1},"stream":2}', b"2}"), (b'{"a":"stream","stream":2}', b"2}"),
    (b'{"a":"\\"stream\\":1","stream":2}', b"2}"), (b'{"a":"}","stream":2}', b"2}"),
    (b'{"a":"\\\\","stream":2}', b"2}"), (b'{"a":[{"stream":1}]}', None), (b'{"a":"stream"}', None),
    (b'{"streams":1}', None), (b'{"a":"' + b"x" * 30_000 + b'","stream":2}', b"2}"), (b"", None),
    (b'"stream":1', None),
])  # fmt: skip
def test_value_of_looks_at_the_top_level_only(body, value):
    at = value_of(body, keys_of(body), b'"stream"')
    assert (None if at < 0 else body[at:]) == value


def told_of(body: bytes) -> list[tuple[int, int]]:
    """The keys that the scanner tells of."""
    scanner = ModelScanner()
    scanner.feed(body, True)
    return scanner.keys


_VALUES = ["true", "17", '"17"', "null", "[1, 2]", '{"a": 1}', "1" * 70, '"' + "x" * 90 + '"', "-1.5e3"]
_spaces = st.sampled_from(["", " ", "\n \t", " " * 70])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["stream", "tools", "n", "max_tokens", "N", "m\\u0061x_tokens", "other"]),
            _spaces, _spaces, st.sampled_from(_VALUES), _spaces,
        ),
        max_size=6,
    ),
    st.lists(st.integers(0, 1 << 12), max_size=8),
)  # fmt: skip
@settings(max_examples=300)
def test_an_excerpt_says_what_the_body_does(members, cuts):
    text = ",".join(f'"{key}"{before}:{after}{value}{end}' for key, before, after, value, end in members)
    body = f"{{{text}}}".encode()
    told = told_of(body)
    short, keys = excerpt(pieces_of(body, cuts), told)
    assert written_limits(short, keys) == written_limits(body, told)
    assert stream_of(short, keys) == stream_of(body, told)
    for key in (b'"tools"', b'"n"'):
        assert (value_of(short, keys, key) < 0) is (value_of(body, told, key) < 0)


@pytest.mark.parametrize("white", [0, 4000, 4096, 5000, 300_000])
def test_a_value_behind_much_white_space_is_read_alike_at_any_split(white):
    body = b'{"max_tokens":' + b" " * white + b'7,"stream"' + b" " * white + b":true}"
    told = told_of(body)
    whole = written_limits(body, told), stream_of(body, told)
    assert whole == ([(MAX_TOKENS, 7.0 if white <= 4096 else inf)], (white <= 4096, white <= 4096))
    for cut in (1, 20, len(body) // 2, len(body) - 1):
        short, keys = excerpt([body[:cut], body[cut:]], told)
        assert (written_limits(short, keys), stream_of(short, keys)) == whole
        assert len(short) < 20_000


def test_an_excerpt_of_large_pieces_is_short():
    pieces = [b'{"n":2,"a":"' + b"x" * 9000, b"y" * 9000, b'","stream"', b":true}"]
    text, keys = excerpt(pieces, [(1, 4), (len(b"".join(pieces[:2])) + 2, len(b"".join(pieces[:3])))])
    assert len(text) < 200
    assert written_limits(text, keys) == [(COUNT, 2.0)]
    assert stream_of(text, keys) == (True, True)


@pytest.mark.parametrize(
    ("body", "is_empty"),
    [(b"{}", True), (b' { \n}x"', True), (b'{"a":1}', False), (b"{ ", False), (b'  {\t"a":{}}', False)],
)
def test_an_empty_object(body, is_empty):
    for pieces in ([body], bytewise(body), [b"", body, b""]):
        assert is_empty_object(pieces, body.index(b"{")) is is_empty


# ------------------------------------------------------------------ splice


@given(
    st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 60), max_size=6), st.integers(0, 60),
    st.integers(0, 60), st.binary(max_size=10), st.sampled_from([0, 4, 8192]),
)  # fmt: skip
@settings(max_examples=400)
def test_splice_replaces_a_span_wherever_the_pieces_are_cut(body, cuts, start, length, replacement, block):
    start %= len(body)
    end = min(start + length, len(body))
    pieces = pieces_of(body, cuts)
    before = list(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_module, "BLOCK_BYTES", block)
        out = splice(pieces, start, end, replacement)
    assert b"".join(out) == body[:start] + replacement + body[end:]
    assert pieces == before


def test_splice_copies_no_large_piece():
    big, other = b"x" * 100_000, b"y" * 100_000
    out = splice([big, b"abc", other], 100_001, 100_002, b"--")
    assert out[0] is big
    assert out[-1] is other
    assert b"".join(out) == big + b"a--c" + other
    views = [part for part in splice([big], 50_000, 50_001, b"-") if isinstance(part, memoryview)]
    assert [view.obj is big for view in views] == [True, True]


@given(bodies(), st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=100)
def test_the_model_is_swapped_and_nothing_else(body, cuts):
    pieces = pieces_of(body, cuts)
    found = scan(pieces)
    out = b"".join(splice(pieces, found.start, found.end, b'"swapped"'))
    assert out == body[: found.start] + b'"swapped"' + body[found.end :]
    assert json.loads(out) == {**json.loads(body), "model": "swapped"}


@pytest.mark.parametrize("filler", [0, 40_000])
@pytest.mark.parametrize(("member", "wanted"), [
    (b'"stream": true', True), (b'"stream":\n true', True), (b'"stream": false', False),
    (b'"x": "stream"', False), (b'"x": "\\"stream\\":true"', False), (b'"streams": true', False),
])  # fmt: skip
def test_wants_stream_at_either_end(filler, member, wanted):
    messages = b'"messages":["' + b"word " * filler + b'"]'
    for body in (b"{" + member + b"," + messages + b"}", b"{" + messages + b"," + member + b"}"):
        assert stream_of(body, keys_of(body)) == (wanted, True)


@pytest.mark.parametrize(("members", "wanted", "is_clear"), [
    ("", False, True), ('"stream":null', False, True), ('"stream" : true ,"n":1', True, True),
    ('"Streams":1,"tools":[],"max_tokens":5,"stream_options":{}', False, True), ('"stream":1', False, False),
    ('"stream":"true"', False, False), ('"stream":[true]', False, False), ('"stream":{}', False, False),
    ('"stream":truee', False, False), ('"stream":true1', False, False),
    ('"stream":true,"stream":false', False, False), ('"stream":false,"stream":true', True, False),
    ('"stream":false,"stream":false', False, False), ('"\\u0073tream":true', False, False),
    ('"Stream":true', False, False), ('"stream":true,"\u017ftream":false', True, False),
])  # fmt: skip
def test_a_wish_for_a_stream_that_programs_may_read_differently(members, wanted, is_clear):
    body = f'{{{members}{"," if members else ""}"model":"x"}}'.encode()
    assert stream_of(body, told_of(body)) == (wanted, is_clear)
