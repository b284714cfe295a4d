"""The outline against a full parser, at every split of the text, in Python and in C."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.outline import (
    COLON_NEXT,
    ESCAPED,
    IN_STRING,
    OUTSIDE,
    keys_of,
    outline,
    outline_slowly,
    skip_white,
    value_at,
)
from tests.jsoncases import bodies, pieces_of, values

WAYS = pytest.mark.parametrize("way", [outline_slowly, outline], ids=["python", "in use"])
# Where everything that matters is frequent.
rough = st.lists(
    st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b" ", b"\n", b"ab", b"\0"]), max_size=40
).map(b"".join)


def top_level(body: bytes) -> list[str]:
    return [key for key, _ in json.loads(body, object_pairs_hook=lambda pairs: pairs)]


@given(bodies(models=2))
@settings(max_examples=200, deadline=None)
def test_it_tells_the_keys_that_a_parser_tells(body):
    assert [json.loads(body[begin:stop]) for begin, stop in keys_of(body)] == top_level(body)


@given(
    bodies() | rough, st.integers(0, 200), st.integers(-1, 2), st.sampled_from([OUTSIDE, IN_STRING, ESCAPED])
)
@settings(max_examples=500, deadline=None)
def test_both_ways_are_one(data, pos, depth, mode):
    pos = min(pos, len(data))
    assert outline(data, pos, depth, mode) == outline_slowly(data, pos, depth, mode)


@WAYS
@given(
    text=bodies(models=2) | values.map(lambda value: json.dumps(value).encode()),
    cuts=st.lists(st.integers(0, 1 << 16)),
)
@settings(max_examples=150, deadline=None)
def test_depth_and_mode_go_on_at_any_split(way, text, cuts):
    depth, mode = 0, OUTSIDE
    for piece in pieces_of(text, cuts):
        _, depth, mode = way(piece, 0, depth, OUTSIDE if mode == COLON_NEXT else mode)
    assert (depth, mode) == (0, OUTSIDE)


@WAYS
@pytest.mark.parametrize(
    ("data", "mode", "expected"),
    [
        (b"", OUTSIDE, ([], 1, OUTSIDE)),
        (b"", IN_STRING, ([], 1, IN_STRING)),
        (b"", ESCAPED, ([], 1, ESCAPED)),
        (b'"a":1', OUTSIDE, ([0, 3], 1, OUTSIDE)),
        (b'"a" \n', OUTSIDE, ([0, 3], 1, COLON_NEXT)),
        (b'"a" ,"b"', OUTSIDE, ([5, 8], 1, COLON_NEXT)),
        (b'"a":"b', OUTSIDE, ([0, 3, 4], 1, IN_STRING)),
        (b'"a":"b\\', OUTSIDE, ([0, 3, 4], 1, ESCAPED)),
        (b'"a":"b\\\\', OUTSIDE, ([0, 3, 4], 1, IN_STRING)),
        (b'"a":"b\\"', OUTSIDE, ([0, 3, 4], 1, IN_STRING)),
        (b'b":1,"c":2', IN_STRING, ([5, 8], 1, OUTSIDE)),  # it began before: nobody knows where
        (b'"b":1,"c":2', ESCAPED, ([6, 9], 1, OUTSIDE)),
        (b'\\":1', IN_STRING, ([], 1, IN_STRING)),
        (b'{"a":1}', OUTSIDE, ([], 1, OUTSIDE)),
        (b'}{"a":1', OUTSIDE, ([2, 5], 1, OUTSIDE)),
    ],
)
def test_what_it_tells_of_a_part(way, data, mode, expected):
    assert way(data, 0, 1, mode) == expected


@pytest.mark.skipif(outline is outline_slowly, reason="the package is not compiled here")
@pytest.mark.parametrize("args", [(b"", 1, 0, 0), (b"", -1, 0, 0), (b"", 0, 0, 3), (b"", 0, 0, -1)])
def test_the_compiled_one_refuses_what_is_out_of_range(args):
    with pytest.raises(ValueError, match="range"):
        outline(*args)
    for wrong in (("", 0, 0, 0), (bytearray(), 0, 0, 0), (b"", 0, 0), (b"", "0", 0, 0)):
        with pytest.raises(TypeError):
            outline(*wrong)


@WAYS
def test_time_grows_with_the_size_only(way):
    def cost(make, n):
        data = make(n)
        begun = time.process_time()
        way(data, 0, 0, OUTSIDE)
        return time.process_time() - begun

    for make in (
        lambda n: b'{"a":"' + b"\\" * 8 * n + b'"}',
        lambda n: b'{"a":"' + b'\\"' * 4 * n + b'"}',
        lambda n: b'{"a":"' + b'\\\\\\"' * 2 * n,
        lambda n: b"{" + b'"a":1,' * n,
        lambda n: b"{" * 8 * n,
        lambda n: b'"' * 8 * n,
        lambda n: b'{"a"' + b" " * 8 * n,
    ):
        assert cost(make, 60_000) < 40 * min(cost(make, 6000) for _ in range(3)) + 0.5


def test_values():
    assert value_at(b'{"a":1}', 4) == 5
    assert value_at(b'{"a" \n: \t1}', 4) == 9
    assert value_at(b'{"a"', 4) == 4  # the end: nothing begins there
    assert value_at(b'{"a":', 4) == 5
    assert skip_white(b"  x", 0) == 2
    assert skip_white(b"x", 0) == 0
