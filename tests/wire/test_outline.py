"""The outline against a full parser, at every split of the text, in Python and in C."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.wire.outline import (
    ALL_KEYS,
    BROKEN,
    COLON_NEXT,
    ENDED,
    ESCAPED,
    IN_STRING,
    IN_VALUE,
    MOST_KEYS,
    MOST_LEVELS,
    OUTSIDE,
    VALUE_NEXT,
    keys_of,
    outline,
    outline_slowly,
    skip_white,
    value_at,
)
from tests.support.json_texts import bodies, pieces_of, values

WAYS = pytest.mark.parametrize("way", [outline_slowly, outline], ids=["python", "in use"])
# Where everything that matters is frequent.
rough = st.lists(
    st.sampled_from([
        b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"ab", b"\0", b"1", b"true",
        b"\xc3\xa9",
    ]),
    max_size=40,
).map(b"".join)  # fmt: skip
TOLD = st.sampled_from([ALL_KEYS, bytes(256), bytes(byte in b"ma" for byte in range(256))])


def top_level(body: bytes) -> list[str]:
    return [key for key, _ in json.loads(body, object_pairs_hook=lambda pairs: pairs)]


@given(bodies(models=2))
@settings(max_examples=200)
def test_it_tells_the_keys_that_a_parser_tells(body):
    assert [json.loads(body[begin:stop]) for begin, stop in keys_of(body)] == top_level(body)


@given(
    bodies() | rough | rough.map(lambda text: b'{"a":1,"' + text + b'"'), st.integers(0, 200),
    st.sampled_from([b"", b"{", b"{[", b"{{", b"[", b"{" * MOST_LEVELS, b"{" * (MOST_LEVELS - 1)]),
    st.sampled_from([
        OUTSIDE, IN_STRING, ESCAPED, ENDED, VALUE_NEXT,
        *(IN_VALUE + n for n in (OUTSIDE, IN_STRING, ESCAPED)),
    ]),
    TOLD,
)  # fmt: skip
@settings(max_examples=1000)
def test_both_ways_are_one(data, pos, opened, mode, wanted):
    pos = min(pos, len(data))
    assert outline(data, pos, opened, mode, wanted) == outline_slowly(data, pos, opened, mode, wanted)


@WAYS
@given(
    text=bodies(models=2) | values.map(lambda value: json.dumps({"a": value}).encode()),
    cuts=st.lists(st.integers(0, 1 << 16)),
)
@settings(max_examples=150)
def test_depth_and_mode_go_on_at_any_split(way, text, cuts):
    opened, mode, carry = b"", OUTSIDE, b""
    for piece in pieces_of(text, cuts):
        data, carry = carry + piece, b""
        pos = 0
        if mode == COLON_NEXT:  # the colon is not the outline's then
            pos = skip_white(data, 0)
            if pos == len(data):
                continue
            assert data[pos : pos + 1] == b":"
            pos += 1
            mode = VALUE_NEXT
        keys, opened, mode = way(data, pos, opened, mode, ALL_KEYS)
        if mode in (IN_STRING, ESCAPED) and len(keys) & 1:  # a string that may be a key is to be seen again
            mode, carry = OUTSIDE, data[keys[-1] :]
    assert (opened, mode) == (b"", ENDED)


@WAYS
@pytest.mark.parametrize(("data", "mode", "expected"), [
    (b"", OUTSIDE, ([], 1, OUTSIDE)), (b"", OUTSIDE + IN_VALUE, ([], 1, OUTSIDE + IN_VALUE)),
    (b"", VALUE_NEXT, ([], 1, VALUE_NEXT)), (b"", IN_STRING, ([], 1, IN_STRING)),
    (b"", ESCAPED + IN_VALUE, ([], 1, ESCAPED + IN_VALUE)),
    (b'"a":1', OUTSIDE, ([0, 3], 1, OUTSIDE + IN_VALUE)), (b'"a":1,', OUTSIDE, ([0, 3], 1, OUTSIDE)),
    (b'"a" \n', OUTSIDE, ([0, 3], 1, COLON_NEXT)), (b'"a":"b","c', OUTSIDE, ([0, 3, 8], 1, IN_STRING)),
    (b'"a":"b","c\\', OUTSIDE, ([0, 3, 8], 1, ESCAPED)),
    (b'"a":"b","c\\\\', OUTSIDE, ([0, 3, 8], 1, IN_STRING)),
    (b'"a":"b","c\\"', OUTSIDE, ([0, 3, 8], 1, IN_STRING)),
    (b'"a":"b', OUTSIDE, ([0, 3], 1, IN_STRING + IN_VALUE)),
    (b'"a":"b\\', OUTSIDE, ([0, 3], 1, ESCAPED + IN_VALUE)),
    (b'"a":"b" ', OUTSIDE, ([0, 3], 1, OUTSIDE + IN_VALUE)),
    (b'"a":[1,{"b":2,"c', OUTSIDE, ([0, 3], 3, IN_STRING + IN_VALUE)),
    (b'b","c":2', IN_STRING + IN_VALUE, ([3, 6], 1, OUTSIDE + IN_VALUE)),
    (b'"b","c":2', ESCAPED + IN_VALUE, ([4, 7], 1, OUTSIDE + IN_VALUE)),
    (b'\\":1', IN_STRING + IN_VALUE, ([], 1, IN_STRING + IN_VALUE)),
    (b'{"a":1}', OUTSIDE + IN_VALUE, ([], 1, OUTSIDE + IN_VALUE)),
    (b'"a":1} \n', OUTSIDE, ([0, 3], 0, ENDED)), (b'"a":[{}]} ,', OUTSIDE, ([0, 3], 10, BROKEN)),
    (b'} "a"', OUTSIDE, ([], 2, BROKEN)), (b'}{"a":1', OUTSIDE, ([], 1, BROKEN)),
    (b" \t", ENDED, ([], 1, ENDED)), (b" x", ENDED, ([], 1, BROKEN)),
    (b'"a":1:2', OUTSIDE, ([0, 3], 5, BROKEN)), (b'"a":"b":2', OUTSIDE, ([0, 3], 7, BROKEN)),
    (b'"a":"b" "c"', OUTSIDE, ([0, 3], 8, BROKEN)), (b'"a":1 "c"', OUTSIDE, ([0, 3], 6, BROKEN)),
    (b'"a":[] "c"', OUTSIDE, ([0, 3], 7, BROKEN)), (b'"a": ', OUTSIDE, ([0, 3], 1, VALUE_NEXT)),
    (b'"a": 1', OUTSIDE, ([0, 3], 1, OUTSIDE + IN_VALUE)), (b'  "a","b', VALUE_NEXT, ([6], 1, IN_STRING)),
    (b' 1"a"', VALUE_NEXT, ([], 2, BROKEN)), (b" ", VALUE_NEXT, ([], 1, VALUE_NEXT)),
    (b'["a" "b"]', VALUE_NEXT, ([], 1, OUTSIDE + IN_VALUE)), (b'"a":1 "b":2', OUTSIDE, ([0, 3], 6, BROKEN)),
    (b'"a":{} "b":2', OUTSIDE, ([0, 3], 7, BROKEN)), (b'"a" "b":2', OUTSIDE, ([0, 3], 4, BROKEN)),
    (b'"a","b":2', OUTSIDE, ([0, 3], 3, BROKEN)), (b'"a"}', OUTSIDE, ([0, 3], 3, BROKEN)),
    (b"n:2", OUTSIDE, ([], 1, BROKEN)), (b'a":1', IN_STRING + IN_VALUE, ([], 2, BROKEN)),
    (b'{"a":1:2', OUTSIDE + IN_VALUE, ([], 2, OUTSIDE + IN_VALUE)),
    (b'"a"/**/:1', OUTSIDE, ([0, 3], 3, BROKEN)), (b'"a"\x01:1', OUTSIDE, ([0, 3], 3, BROKEN)),
])  # fmt: skip
def test_what_it_tells_of_a_part(way, data, mode, expected):
    keys, opened, end = way(data, 0, b"{", mode, ALL_KEYS)
    assert (keys, keys.pop() if end == BROKEN else len(opened), end) == expected


@WAYS
@pytest.mark.parametrize("byte", [bytes([byte]) for byte in range(256) if byte not in b'"{}[]:'])
def test_outside_of_strings_stands_only_what_json_has_there(way, byte):
    is_json = byte in b" \t\r\n,0123456789+-.eEtrufalsn"
    for text in (b'{"a":[%b]', b'{"a":1 %b,"b":2', b'{%b"b":2', b'{"a":%b', b'{"a":{"b"%b'):
        assert (way(text % byte, 0, b"", OUTSIDE, ALL_KEYS)[2] == BROKEN) is not is_json, text


@WAYS
@pytest.mark.parametrize(("key", "is_told"), [
    (b"model", True), (b"stream", False), (b"", False), (b"str\\u0065am", True), (b"str\\eam", True),
    (b"s\xc3\xa9", True), (b"s\xff", True), (b"s\x7f", False), (b"s\x1f", True), (b"s" * 158, False),
    (b"s" * 159, True),
])  # fmt: skip
def test_which_keys_are_told(way, key, is_told):
    wanted = bytes(byte == ord("m") for byte in range(256))
    text = b'{"a":"x","' + key + b'" : 1,"b":2}'
    expected = [9, 11 + len(key)] if is_told else []
    assert way(text, 0, b"", OUTSIDE, wanted) == (expected, b"", ENDED)


@WAYS
def test_so_many_keys_are_told(way):
    text = b"{" + b'"":1,' * MOST_KEYS
    assert way(text, 0, b"", OUTSIDE, ALL_KEYS)[1:] == (b"{", OUTSIDE)
    keys, _, mode = way(text + b' "":1}', 0, b"", OUTSIDE, ALL_KEYS)
    assert (len(keys), keys[-1], mode) == (2 * MOST_KEYS + 1, len(text) + 1, BROKEN)


@WAYS
@pytest.mark.parametrize(("inside", "at"), [
    (b"[}", 1), (b"{]", 1), (b"[{]}", 2), (b"[[{}]}", 5), (b"{}}}", 3), (b"[" * MOST_LEVELS, MOST_LEVELS - 1),
])  # fmt: skip
def test_brackets_close_what_they_opened(way, inside, at):
    keys, _, mode = way(b'{"a":' + inside, 0, b"", OUTSIDE, ALL_KEYS)
    assert (keys[-1], mode) == (5 + at, BROKEN)
    fits = b"[" * (MOST_LEVELS - 1) + b"]" * (MOST_LEVELS - 1)
    assert way(b'{"a":' + fits + b"}", 0, b"", OUTSIDE, ALL_KEYS)[1:] == (b"", ENDED)


@pytest.mark.skipif(outline is outline_slowly, reason="the package is not compiled here")
@pytest.mark.parametrize("args", [
    (b"", 1, b"", 0), (b"", -1, b"", 0), (b"", 0, b"{" * (MOST_LEVELS + 1), 0),
    *((b"", 0, b"", mode) for mode in (COLON_NEXT, BROKEN, -1, 11, 25)),
])  # fmt: skip
def test_the_compiled_one_refuses_what_is_out_of_range(args):
    with pytest.raises(ValueError, match="range"):
        outline(*args, ALL_KEYS)
    with pytest.raises(ValueError, match="range"):
        outline(b"", 0, b"", 0, b"short")
    for wrong in (
        ("", 0, b"", 0),
        (bytearray(), 0, b"", 0),
        (b"", 0, b""),
        (b"", "0", b"", 0),
        (b"", 0, 0, 0),
    ):
        with pytest.raises(TypeError):
            outline(*wrong, ALL_KEYS)
    with pytest.raises(TypeError):
        outline(b"", 0, b"", 0)


@WAYS
def test_time_grows_with_the_size_only(way):
    def cost(text):
        begun = time.process_time()
        way(text, 0, b"", OUTSIDE, ALL_KEYS)
        return time.process_time() - begun

    for begin, part, times, end in (
        (b'{"a":"', b"\\", 8, b'"}'), (b'{"a":"', b'\\"', 4, b'"}'), (b'{"a":"', b'\\\\\\"', 2, b""),
        (b"{", b'"a":1,', 1, b""), (b"", b"{", 8, b""), (b"", b'"', 8, b""), (b'{"a"', b" ", 8, b""),
    ):  # fmt: skip
        texts = [begin + part * times * n + end for n in (6000, 60_000)]
        assert cost(texts[1]) < 40 * min(cost(texts[0]) for _ in range(3)) + 0.5


@pytest.mark.parametrize(("text", "at"), [
    (b'{"a":1}', 5), (b'{"a" \n: \t1}', 9),
    (b'{"a"', 4),  # the end: nothing begins there
    (b'{"a":', 5), (b'{"a":' + b" " * 4096 + b"1}", 5 + 4096),
    (b'{"a":' + b" " * 4097 + b"1}", 5 + 4096),  # no value is looked for so far away
])  # fmt: skip
def test_values(text, at):
    assert value_at(text, 4) == at
    assert (skip_white(b"  x", 0), skip_white(b"x", 0)) == (2, 0)
