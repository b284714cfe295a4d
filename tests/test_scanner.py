"""The scanner against a full parser, at every split of the body."""

from __future__ import annotations

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import scanner as module
from proxy.errors import BadRequest
from proxy.scanner import (
    BracketCounter,
    ModelScanner,
    ModelSpan,
    data_url_bytes,
    has_images,
    insertion,
    refuse_case_variants,
    splice,
    value_of,
    wants_stream,
)

# Strings that look like what the scanner searches for, so that the dangerous cases are the common ones.
nasty = st.sampled_from(
    [
        "model", '"model"', '"model":', '\\"model\\":', "model\\", "\\", '"', '{"model":"x"}', "}", "{",
        "[", "]",
        "\\u006dodel", "mod", "é", "日本", "😀", "\\\\", '\\"', "\n", "\u2028", "Model", '":{"', "null",
    ]
)  # fmt: skip
text = st.lists(st.one_of(nasty, st.text(max_size=5)), max_size=5).map("".join)
keys = st.one_of(st.sampled_from(["models", "mode", "type", "messages", "tools", "stream", "Model"]), text)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(keys, st.just("model")), inner, max_size=4)
    ),
    max_leaves=12,
)
white = st.sampled_from(["", " ", "\n", "\t \r\n", "   " * 20])


PLAIN = st.just('"model"')


@st.composite
def bodies(draw, models=1, spelling=PLAIN):
    """A JSON object as bytes with ``models`` top-level model members at drawn places."""
    members = [
        (json.dumps(k, ensure_ascii=draw(st.booleans())), v)
        for k, v in draw(st.dictionaries(keys, values, max_size=4)).items()
        if k != "model"
    ]
    for _ in range(models):
        name = draw(st.one_of(st.text(min_size=1, max_size=12), st.sampled_from(["openai/gpt-4o", "model"])))
        members.insert(draw(st.integers(0, len(members))), (draw(spelling), name))
    ascii_only = draw(st.booleans())
    gap = lambda: draw(white)  # noqa: E731
    parts = [f"{gap()}{k}{gap()}:{gap()}{json.dumps(v, ensure_ascii=ascii_only)}{gap()}" for k, v in members]
    return (gap() + "{" + (",".join(parts) or gap()) + "}" + gap()).encode("utf-8", "surrogatepass")


def pieces_of(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(body) + 1) for c in cuts), len(body)]
    return [body[a:b] for a, b in pairwise(edges)]


def scan(pieces: list[bytes]) -> ModelSpan | None:
    scanner = ModelScanner()
    for i, piece in enumerate(pieces):
        scanner.feed(piece, i == len(pieces) - 1)
    return scanner.found


@given(bodies(), st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=400, deadline=None)
def test_finds_the_model_at_any_split(body, cuts):
    found = scan(pieces_of(body, cuts))
    parsed = json.loads(body)
    assert found is not None
    assert found.name == parsed["model"]
    assert json.loads(body[found.start : found.end]) == parsed["model"]
    swapped = body[: found.start] + b'"swapped/name"' + body[found.end :]
    assert json.loads(swapped) == {**parsed, "model": "swapped/name"}
    assert list(json.loads(swapped)) == list(parsed)


@given(bodies())
@settings(max_examples=100, deadline=None)
def test_finds_the_model_byte_by_byte_and_with_empty_end(body):
    whole = scan([body])
    assert scan([body[i : i + 1] for i in range(len(body))]) == whole
    assert scan([body, b""]) == whole


@given(bodies(models=0), st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=200, deadline=None)
def test_inserts_a_model_where_none_was(body, cuts):
    assert scan(pieces_of(body, cuts)) is None
    at, extra = insertion(body, b'"openai/gpt-4o"')
    parsed = json.loads(body)
    assert json.loads(body[:at] + extra + body[at:]) == {"model": "openai/gpt-4o", **parsed}


SPELLINGS = [
    '"model"', '"\\u006dodel"', '"\\u006Dodel"', '"m\\u006fdel"', '"mod\\u0065\\u006c"', '"mode\\u006C"',
    '"\\u006d\\u006f\\u0064\\u0065\\u006c"',
]  # fmt: skip


@given(bodies(models=2, spelling=st.sampled_from(SPELLINGS)), st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=300, deadline=None)
def test_refuses_a_model_said_twice_at_any_split(body, cuts):
    with pytest.raises(BadRequest) as raised:
        scan(pieces_of(body, cuts))
    assert raised.value.status == 400


@pytest.mark.parametrize("spelling", SPELLINGS[1:])
def test_refuses_a_lone_escaped_spelling_byte_by_byte(spelling):
    body = f'{{"messages":[{{"model":"inner"}}], {spelling} : "x"}}'.encode()
    with pytest.raises(BadRequest, match="escapes"):
        scan([body])
    with pytest.raises(BadRequest, match="escapes"):
        scan([body[i : i + 1] for i in range(len(body))])


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"\\\\u006dodel", "model":"x"}',  # an escaped backslash, not an escape
        b'{"\\\\\\"model":1, "model":"x"}',
        b'{"a":{"model":"y"}, "model":"x"}',
        b'{"a":"model", "model":"x", "b":"model"}',
        b'{"a":"model"  , "model":"x"}',
        b'{"a":[{"\\u006dodel":"y"}], "model":"x"}',
        b'{"metadata":{"a":"}"}, "model":"x"}',
        b'{"n":1E400,"s":"\\ud800","model":"x"}',  # valid JSON that many parsers refuse
        b'{"x":"a\\\\", "model":"x"}',
        b'{"model":"x","y":"\\\\"}',
        b'{"deep":' + b"[" * 3000 + b"]" * 3000 + b',"model":"x"}',
        b'{"long":"' + b"a" * 50_000 + b'\\"model\\":' + b'\\\\" ,"model":"x"}',
    ],
)
def test_valid_bodies_that_mislead_simple_searches(body):
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))], [body[:9], body[9:]]):
        found = scan(pieces)
        assert found is not None
        assert found.name == "x"


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"[]", b'"model"', b"model=x", b"\xef\xbb\xbf{}", b'x{"model":"a"}']
)
def test_a_body_that_is_no_object_is_refused(body):
    with pytest.raises(BadRequest, match="not valid JSON"):
        scan([body])


@pytest.mark.parametrize("value", [b"5", b"[]", b'{"a":1}', b"true", b"nope", b"-1"])
def test_a_model_that_is_no_string_is_refused(value):
    with pytest.raises(BadRequest) as raised:
        scan([b'{"model":' + value + b"}"])
    assert raised.value.param == "model"


def test_null_counts_as_a_place_for_a_name():
    assert scan([b'{"model": null}']) == ModelSpan(10, 14, None)
    assert scan([b'{"model": nu', b"ll}"]) == ModelSpan(10, 14, None)


def test_escapes_in_the_value_are_decoded_and_names_are_bounded():
    assert scan([b'{"model":"gpt\\u002d4o \\" \\\\"}']).name == 'gpt-4o " \\'
    with pytest.raises(BadRequest, match="longer"):
        scan([b'{"model":"' + b"x" * 5000 + b'"}'])
    with pytest.raises(BadRequest, match="JSON"):
        scan([b'{"model":"a\nb"}'])


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
    at = value_of(body, b'"' + key.encode() + b'"')
    parsed = json.loads(body)
    if key not in parsed:
        assert at == -1
    else:
        value, _ = json.JSONDecoder().raw_decode(body[at:].decode("utf-8", "surrogatepass"))
        assert value == parsed[key]


@pytest.mark.parametrize(
    "variant", ['"Model"', '"MODEL"', '"\\u004dodel"', '"m\\u004Fdel"', '"moDel"', '"\\u006dodel"']
)
def test_case_variants(variant):
    refuse_case_variants(b'{"model":"x","a":{"Model":1},"b":"Model","c":"\\\\"}')
    for body in (f'{{"model":"x",{variant} :"y"}}', f'{{{variant}:"y"}}'):
        with pytest.raises(BadRequest):
            refuse_case_variants(body.encode())


@given(values, st.lists(st.integers(0, 1 << 16), max_size=6))
@settings(max_examples=200, deadline=None)
def test_bracket_counter_ends_at_zero_for_any_json_at_any_split(value, cuts):
    counter = BracketCounter()
    for piece in pieces_of(json.dumps(value).encode(), cuts):
        counter.feed(piece)
    assert counter.depth == 0


def test_hostile_bodies_cost_time_in_proportion_to_their_size():
    """No body may make the search quadratic: ten times the size may not cost a hundred times the work."""

    def cost(make, n):
        body = make(n)
        begun = time.process_time()
        try:
            scan([body])
            scan([body[i : i + 16384] for i in range(0, len(body), 16384)])
        except BadRequest:
            pass
        return time.process_time() - begun

    makers = [
        lambda n: b'{"a":' + b'{"model":' * n + b"1" + b"}" * n + b"}",
        lambda n: b'{"a":[' + b'"model",' * n + b"0]}",
        lambda n: b"{" + b'"a":"model",' * n + b'"b":0}',
        lambda n: b"{" + b'"a":"model"' + b" " * 8 * n + b',"b":0}',
        lambda n: b'{"a":"' + b'\\"model\\":' * n + b'"}',
        lambda n: b'{"a":"' + b"\\\\" * 4 * n + b'"}',
        lambda n: b'{"a":' + b"[" * 8 * n + b"]" * 8 * n + b"}",
        lambda n: b'{"a":["\\u006dodel"' + b',"\\u006dodel"' * n + b"]}",
    ]
    for make in makers:
        small = min(cost(make, 3000) for _ in range(3))
        assert cost(make, 30_000) < 40 * small + 0.5


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
        patch.setattr(module, "_BLOCK_BYTES", block)
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
    st.lists(st.one_of(data_urls, st.text("ab;64, :", max_size=12)), max_size=6), st.sampled_from([4, 8192])
)
@settings(max_examples=200, deadline=None)
def test_data_url_bytes_counts_the_urls_and_no_text(strings, block):
    body = json.dumps({"model": "x", "messages": strings}).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_BYTES", block)
        counted = data_url_bytes(body)
    assert counted == sum(len(s) - s.index(";base64,") for s in strings if ";base64," in s)


def test_data_url_bytes_of_a_body_that_is_cut():
    assert data_url_bytes(b"") == 0
    assert data_url_bytes(b'{"a":"data:;base64,AAAA') == 12
    assert data_url_bytes(b'{"a":"data:;base64,AAAA","b":"data:;base64,BB"}') == 22


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
    assert has_images(body) is has_some
    assert has_images(b" " * 20_000 + body + b" " * 20_000) is has_some


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
    at = value_of(body, b'"stream"')
    assert (None if at < 0 else body[at:]) == value


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
    assert wants_stream(b"{" + member + b"," + messages + b"}") is wanted
    assert wants_stream(b"{" + messages + b"," + member + b"}") is wanted


def test_data_urls_are_searched_for_only_where_samples_look_like_them():
    assert data_url_bytes(b'{"a":"' + b"some text " * 9000 + b'"}') == 0
    url = b";base64," + b"QUJD" * 9000
    assert data_url_bytes(b'{"a":"' + b"some text " * 9000 + b'","b":"data:image/png' + url + b'"}') == len(url)
