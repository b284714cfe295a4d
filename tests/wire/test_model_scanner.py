"""The scanner against a full parser, at every split of the body."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.wire.model_scanner import ModelScanner
from tests.support.json_texts import bodies, bytewise, pieces_of, scan

cut_places = st.lists(st.integers(0, 1 << 16), max_size=6)


@given(bodies(), cut_places)
@settings(max_examples=400)
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
@settings(max_examples=100)
def test_finds_the_model_byte_by_byte_and_with_empty_end(body):
    for pieces in (bytewise(body), [body, b""]):
        assert repr(scan(pieces)) == repr(scan([body]))


SPELLINGS = [
    '"model"', '"\\u006dodel"', '"\\u006Dodel"', '"m\\u006fdel"', '"mod\\u0065\\u006c"', '"mode\\u006C"',
    '"\\u006d\\u006f\\u0064\\u0065\\u006c"',
]  # fmt: skip


@given(bodies(models=2, spelling=st.sampled_from(SPELLINGS)), cut_places)
@settings(max_examples=300)
def test_refuses_a_model_said_twice_at_any_split(body, cuts):
    with pytest.raises(BadRequest) as raised:
        scan(pieces_of(body, cuts))
    assert raised.value.status == 400


@pytest.mark.parametrize("spelling", SPELLINGS[1:])
def test_refuses_a_lone_escaped_spelling_byte_by_byte(spelling):
    body = f'{{"messages":[{{"model":"inner"}}], {spelling} : "x"}}'.encode()
    for pieces in ([body], bytewise(body)):
        with pytest.raises(BadRequest, match="escapes"):
            scan(pieces)


@pytest.mark.parametrize("body", [
    b'{"a":"\\\\u006dodel", "model":"x"}',  # an escaped backslash, not an escape
    b'{"\\\\\\"model":1, "model":"x"}', b'{"a":{"model":"y"}, "model":"x"}',
    b'{"a":"model", "model":"x", "b":"model"}', b'{"a":"model"  , "model":"x"}',
    b'{"a":[{"\\u006dodel":"y"}], "model":"x"}', b'{"metadata":{"a":"}"}, "model":"x"}',
    b'{"n":1E400,"s":"\\ud800","model":"x"}',  # valid JSON that many parsers refuse
    b'{"x":"a\\\\", "model":"x"}', b'{"model":"x","y":"\\\\"}',
    b'{"deep":' + b"[" * 999 + b"]" * 999 + b',"model":"x"}',
    b'{"long":"' + b"a" * 50_000 + b'\\"model\\":' + b'\\\\" ,"model":"x"}',
])  # fmt: skip
def test_valid_bodies_that_mislead_simple_searches(body):
    for pieces in ([body], bytewise(body), [body[:9], body[9:]]):
        found = scan(pieces)
        assert found is not None and found.name == "x"


@pytest.mark.parametrize("body", [
    b"", b"  ", b"[]", b'"model"', b"model=x", b"\xef\xbb\xbf{}", b'x{"model":"a"}', b"{", b'{"a":1', b'{"a"',
    b'{"a":', b'{"a":"b', b'{"a":"\\', b'{"model"', b'{"model":', b'{"model":"a', b'{"a":[}',
    "{}".encode("utf-16"), b"{a:1}", b'{"a":1}}', b'{"a":1}{"model":"x"}', b'{"model":"x"},', b'{"a":1} x',
])  # fmt: skip
def test_a_body_that_is_no_object_is_refused(body):
    for pieces in ([body], [*bytewise(body), b""], [body, b""]):
        with pytest.raises(BadRequest, match="not valid JSON") as raised:
            scan(pieces)
        assert raised.value.code == "malformed_json"


@pytest.mark.parametrize("body", [
    # read as UTF-16 it asks for another model
    b'{\x00"\x00m\x00o\x00d\x00e\x00l\x00"\x00:\x00"\x00x\x00"\x00,\x00"\x00"model":"y",'
    + b'"\x00:\x001\x00}\x00',
    b'{"model":"x",/*"*/"model":"y",/*"*/"a":1}', b'{"model"/**/:"x"}',
    b'{"a":1,#"\n"model":"y"\n"model":"x"}', b'{\'a\':"\'","model":"x"}',
    b'{"mo\\del":"y","model":"x"}',  # no escape, which some leave out
    b'{"model"\x01:"y","model":"x"}', b'{"model"\x00:"y","model":"x"}',
    b'{"mod\xffel":"y","model":"x"}',  # others leave that out
    b'{"mod\x01el":"y","model":"x"}', b'{"\xffmodel":"y","model":"x"}',
    b'{"mod\xc0\xa5l":"y","model":"x"}',  # overlong
    b'{"model' + b"\xff" * 200 + b'":"y","model":"x"}', b'{"z' + b"z" * 200 + b'":"y","model":"x"}',
    b'{"\\ud800":"y","model":"x"}', b'{"model\\u0000":"y","model":"x"}',
    b'{"__proto__":{"model":"y"},"model":"x"}', b'{"_\\u005fproto__":{"model":"y"},"model":"x"}',
    b'{"model":"x",n:2}', b'{"model":"x","a":NaN}', b'{"model":"x","a":"b";"model":"y"}',
    b'{"model":"x","a":`"`,"model":"y","c":"`"}', b'{"model":"x":"y"}', b'{"model":"x" "y":1,"model":"z"}',
    b'{"a":"b" "model" "y","model":"x"}',  # gjson reads on without a comma
    b'{"a":{} "max_tokens" 5000,"model":"x"}',
    b'{"a":[},"model":"x","b":{"c":{],"model":"y","d":[]}}',  # jsonparser counts each kind of bracket
    b'{"a":' + b"[" * 1000 + b"]" * 1000 + b',"model":"x"}', b'{"model":"x","a","model":"z"}',
    b'{"a":{} "model":"x"}', b'{"model":"x"}\x00', b'{"model":"x","a":1} {"model":"y"}',
])  # fmt: skip
def test_what_programs_read_differently_is_refused_at_any_split(body):
    for pieces in ([body], bytewise(body), *([body[:at], body[at:]] for at in (9, 30))):
        with pytest.raises(BadRequest) as raised:
            scan(pieces)
        assert raised.value.status == 400


VARIANTS = [b'"Model"', b'"MODEL"', b'"\\u004dodel"', b'"m\\u004Fdel"', b'"moDel"', b'"\\u004dODEL"']


@pytest.mark.parametrize(("body", "has_variant"), [
    (b'{"model":"x","a":{"Model":1},"b":"Model","c":"\\\\"}', False),
    *((body % variant, True) for variant in VARIANTS for body in (b'{"model":"x",%b :"y"}', b'{%b:"y"}')),
])  # fmt: skip
def test_case_variants_are_told_at_any_split(body, has_variant):
    for step in (len(body), 1, 5):
        scanner = ModelScanner()
        for at in range(0, len(body), step):
            scanner.feed(body[at : at + step], at + step >= len(body))
        assert scanner.has_case_variant is has_variant


@pytest.mark.parametrize("value", [b"5", b"[]", b'{"a":1}', b"true", b"nope", b"-1"])
def test_a_model_that_is_no_string_is_refused(value):
    with pytest.raises(BadRequest) as raised:
        scan([b'{"model":' + value + b"}"])
    assert raised.value.param == "model"


def test_null_counts_as_a_place_for_a_name():
    for pieces in ([b'{"model": null}'], [b'{"model": nu', b"ll}"]):
        assert repr(scan(pieces)) == "ModelSpan(10, 14, None)"


def test_escapes_in_the_value_are_decoded_and_names_are_bounded():
    assert scan([b'{"model":"gpt\\u002d4o \\" \\\\"}']).name == 'gpt-4o " \\'
    with pytest.raises(BadRequest, match="longer"):
        scan([b'{"model":"' + b"x" * 5000 + b'"}'])
    with pytest.raises(BadRequest, match="JSON"):
        scan([b'{"model":"a\nb"}'])


@given(bodies(), cut_places)
@settings(max_examples=100)
def test_what_may_be_asked_for_is_told_at_any_split(body, cuts):
    limits = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
    asked_for = limits | {"stream", "stream_options", "tools", "n", "best_of"}
    scanner = ModelScanner()
    pieces = pieces_of(body, cuts)
    for i, piece in enumerate(pieces):
        scanner.feed(piece, i == len(pieces) - 1)
    told = [json.loads(body[start:stop]) for start, stop in scanner.keys]
    pairs = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    assert told == [key for key, _ in pairs if key.casefold() in asked_for]


def test_a_body_may_not_have_a_long_list_made_of_it():
    scan([b'{"model":"x"' + b',"n":1' * 99 + b"}"])
    with pytest.raises(BadRequest, match="100 times"):
        scan([b'{"model":"x"' + b',"n":1' * 101 + b"}"])


def test_keys_that_are_to_be_looked_at_are_bounded():
    body = b'{"model":"x"' + b',"\xc3\xa9":1' * 999
    scan([body + b"}"])
    many = b"{" + b'"s":1,' * 5000 + b'"model":"x"}'
    for pieces in ([body, b',"\\u00e9":1}'], [body + b',"s":1}'], [many]):
        with pytest.raises(BadRequest, match="more than 1000 keys"):
            scan(pieces)
    scan([b'{"model":"x"' + b',"x":1' * 5000 + b"}"])


def test_white_space_of_any_length_around_a_colon():
    body = b'{"a":"model"%b, "model"%b:%b"x"%b}' % ((b" " * 5000,) * 4)
    for size in (len(body), 1000, 7):
        found = scan([body[at : at + size] for at in range(0, len(body), size)])
        assert found is not None and found.name == "x"


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
        lambda n: b'{"a":[' + b'"model",' * n + b"0]}", lambda n: b"{" + b'"a":"model",' * n + b'"b":0}',
        lambda n: b"{" + b'"a":"model"' + b" " * 8 * n + b',"b":0}',
        lambda n: b'{"a":"' + b'\\"model\\":' * n + b'"}', lambda n: b'{"a":"' + b"\\\\" * 4 * n + b'"}',
        lambda n: b'{"a":' + b"[" * 8 * n + b"]" * 8 * n + b"}",
        lambda n: b'{"a":["\\u006dodel"' + b',"\\u006dodel"' * n + b"]}",
        lambda n: b'{"a":[' + b'"",' * 4 * n + b'""]}', lambda n: b"{" + b'"\xc3\xa9":1,' * n + b'"b":0}',
    ]  # fmt: skip
    for make in makers:
        small = min(cost(make, 3000) for _ in range(3))
        assert cost(make, 30_000) < 40 * small + 0.5
