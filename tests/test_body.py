"""Questions to whole bodies, and edits of them, against a full parser."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import body as body_module
from proxy.asked import COUNT, asked
from proxy.body import (
    data_url_bytes,
    excerpt,
    has_images,
    insertion,
    refuse_case_variants,
    splice,
    value_of,
    wants_stream,
)
from proxy.errors import BadRequest
from proxy.outline import keys_of
from proxy.scanner import ModelScanner
from tests.jsoncases import bodies, pieces_of, scan


@given(bodies(models=0), st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=200, deadline=None)
def test_inserts_a_model_where_none_was(body, cuts):
    assert scan(pieces_of(body, cuts)) is None
    at, extra = insertion(body, b'"openai/gpt-4o"')
    parsed = json.loads(body)
    assert json.loads(body[:at] + extra + body[at:]) == {"model": "openai/gpt-4o", **parsed}


@pytest.mark.parametrize(
    "body", [b'{"a":}', b"{a:1}", b'{"a":1', b'{"a":1}}', b'{"a":"\xff"}', "{}".encode("utf-16")]
)
def test_insertion_refuses_what_is_not_json(body):
    with pytest.raises(BadRequest, match="not valid JSON"):
        insertion(body, b'"m"')


def test_insertion_takes_valid_json_that_orjson_refuses():
    for body in (b'{"n":1E400}', b'{"s":"\\ud800"}', b'{"d":' + b"[" * 5000 + b"]" * 5000 + b"}"):
        assert insertion(body, b'"m"') == (1, b'"model":"m",')
    assert insertion(b" { } ", b'"m"') == (2, b'"model":"m"')


@given(bodies(), st.sampled_from(["stream", "tools", "max_tokens"]))
@settings(max_examples=200, deadline=None)
def test_value_of_agrees_with_a_parser(body, key):
    at = value_of(body, keys_of(body), b'"' + key.encode() + b'"')
    parsed = json.loads(body)
    if key not in parsed:
        assert at == -1
    else:
        value, _ = json.JSONDecoder().raw_decode(body[at:].decode("utf-8", "surrogatepass"))
        assert value == parsed[key]


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"stream":true}', b"true}"),
        (b'{"stream" \n:\t true}', b"true}"),
        (b'{"a":{"stream":1},"stream":2}', b"2}"),
        (b'{"a":"stream","stream":2}', b"2}"),
        (b'{"a":"\\"stream\\":1","stream":2}', b"2}"),
        (b'{"a":"}","stream":2}', b"2}"),
        (b'{"a":"\\\\","stream":2}', b"2}"),
        (b'[{"a":[]},{"stream":1}]', None),
        (b'{"a":[{"stream":1}]}', None),
        (b'{"a":"stream"}', None),
        (b'{"streams":1}', None),
        (b'{"a":"' + b"x" * 30_000 + b'","stream":2}', b"2}"),
        (b"", None),
        (b'"stream":1', None),
    ],
)
def test_value_of_looks_at_the_top_level_only(body, value):
    at = value_of(body, keys_of(body), b'"stream"')
    assert (None if at < 0 else body[at:]) == value


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
@settings(max_examples=300, deadline=None)
def test_an_excerpt_says_what_the_body_does(members, cuts):
    text = ",".join(f'"{key}"{before}:{after}{value}{end}' for key, before, after, value, end in members)
    body = f"{{{text}}}".encode()
    scanner = ModelScanner()
    scanner.feed(body, True)
    pieces = pieces_of(body, cuts)
    short, keys = excerpt(pieces, scanner.keys)
    assert asked(short, keys) == asked(body, scanner.keys)
    assert wants_stream(short, keys) is wants_stream(body, scanner.keys)
    for key in (b'"tools"', b'"n"'):
        assert (value_of(short, keys, key) < 0) is (value_of(body, scanner.keys, key) < 0)


def test_an_excerpt_of_large_pieces_is_short():
    pieces = [b'{"n":2,"a":"' + b"x" * 9000, b"y" * 9000, b'","stream"', b":true}"]
    text, keys = excerpt(pieces, [(1, 4), (len(b"".join(pieces[:2])) + 2, len(b"".join(pieces[:3])))])
    assert len(text) < 200
    assert asked(text, keys) == [(COUNT, 2.0)]
    assert wants_stream(text, keys)


@pytest.mark.parametrize(
    "variant", ['"Model"', '"MODEL"', '"\\u004dodel"', '"m\\u004Fdel"', '"moDel"', '"\\u006dodel"']
)
def test_case_variants(variant):
    refuse_case_variants(b'{"model":"x","a":{"Model":1},"b":"Model","c":"\\\\"}')
    for body in (f'{{"model":"x",{variant} :"y"}}', f'{{{variant}:"y"}}'):
        with pytest.raises(BadRequest):
            refuse_case_variants(body.encode())


# ------------------------------------------------------------------ splice


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
    st.integers(0, 60),
    st.integers(0, 60),
    st.binary(max_size=10),
    st.sampled_from([0, 4, 8192]),
)
@settings(max_examples=400, deadline=None)
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
@settings(max_examples=100, deadline=None)
def test_the_model_is_swapped_and_nothing_else(body, cuts):
    pieces = pieces_of(body, cuts)
    found = scan(pieces)
    out = b"".join(splice(pieces, found.start, found.end, b'"swapped"'))
    assert out == body[: found.start] + b'"swapped"' + body[found.end :]
    assert json.loads(out) == {**json.loads(body), "model": "swapped"}


# ------------------------------------------------------------------ what a body holds

data_urls = st.builds(
    "data:{};base64,{}".format,
    st.sampled_from(["image/png", "audio/wav", ""]),
    st.text("AZaz09+/=", max_size=30),
)


@given(
    st.lists(st.one_of(data_urls, st.text("ab;64, :", max_size=12)), max_size=6),
    st.sampled_from([4, 8192]),
    st.lists(st.integers(0, 1 << 9), max_size=6),
)
@settings(max_examples=200, deadline=None)
def test_data_url_bytes_counts_the_urls_and_no_text(strings, block, cuts):
    body = json.dumps({"model": "x", "messages": strings}).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_module, "BLOCK_BYTES", block)
        counted = data_url_bytes([body])
        cut = data_url_bytes(pieces_of(body, cuts))
    assert counted == cut == sum(len(s) - s.index(";base64,") for s in strings if ";base64," in s)


def test_data_url_bytes_of_a_body_that_is_cut():
    assert data_url_bytes([b""]) == data_url_bytes([]) == 0
    assert data_url_bytes([b'{"a":"data:;base64,AAAA']) == 12
    assert data_url_bytes([b'{"a":"data:;base64,AAAA","b":"data:;base64,BB"}']) == 22


def test_data_urls_are_searched_for_only_where_samples_look_like_them():
    assert data_url_bytes([b'{"a":"' + b"some text " * 9000 + b'"}']) == 0
    url = b";base64," + b"QUJD" * 9000
    body = b'{"a":"' + b"some text " * 9000 + b'","b":"data:image/png' + url + b'"}'
    assert data_url_bytes([body]) == len(url)


@pytest.mark.parametrize(
    ("body", "has_some"),
    [
        (b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}', True),
        (b'{"input":[{"content":[{"type":"input_image"}]}]}', True),
        (b'{"messages":[{"content":[{"type":"image","source":{}}]}]}', True),
        (b'{"messages":[{"content":[{"type" : "image"}]}]}', True),
        (b'{"messages":[{"content":"an image, an image_url"}]}', False),
        (b'{"messages":[{"content":"say \\"image\\""}]}', False),
        (b'{"messages":[]}', False),
        (b"", False),
    ],
)
def test_has_images(body, has_some):
    assert has_images([body]) is has_some
    assert has_images([b" " * 20_000 + body + b" " * 20_000]) is has_some
    assert all(
        has_images([body[:at], body[at : at + 3], body[at + 3 :]]) is has_some for at in range(len(body))
    )


def wants(body: bytes) -> bool:
    return wants_stream(body, keys_of(body))


@pytest.mark.parametrize("filler", [0, 40_000])
@pytest.mark.parametrize(
    ("member", "wanted"),
    [
        (b'"stream": true', True),
        (b'"stream":\n true', True),
        (b'"stream": false', False),
        (b'"x": "stream"', False),
        (b'"x": "\\"stream\\":true"', False),
        (b'"streams": true', False),
    ],
)
def test_wants_stream_at_either_end(filler, member, wanted):
    messages = b'"messages":["' + b"word " * filler + b'"]'
    assert wants(b"{" + member + b"," + messages + b"}") is wanted
    assert wants(b"{" + messages + b"," + member + b"}") is wanted
