"""The members of an object, found in slices of any size, are those that a parser finds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.admin import json_slices
from proxy.control.admin.json_slices import find_keys, member_named, object_at, parse_few, text_at
from proxy.control.steps import done
from proxy.errors import BadRequest
from proxy.wire.outline import MOST_KEYS
from tests.support.json_texts import bodies


@given(bodies(), st.integers(1, 400))
def test_the_keys_are_those_of_a_parser(body, size):
    keys = done(find_keys(body))
    pairs = json.loads(body, object_pairs_hook=lambda pairs: pairs)
    assert [json.loads(body[start:stop]) for start, stop in keys] == [key for key, _ in pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_slices, "SLICE_BYTES", size)
        try:
            sliced = done(find_keys(body))
        except BadRequest:  # a key may not be longer than a slice
            assert max(stop - start for start, stop in keys) > size
            return
    assert sliced == keys


BODY = b'{"a":"x\\"}","n": null, "\\u0062ody" : {"a":[1,{"b":2}]} ,"a":"last","o":1,"e":{} }'


def test_what_is_asked_for_is_read_where_it_stands():
    keys = done(find_keys(BODY))
    assert text_at(BODY, keys, "a") == "last"
    assert text_at(BODY, keys, "n") is text_at(BODY, keys, "none") is None
    assert object_at(BODY, keys, member_named(BODY, keys, "body")) == b'{"a":[1,{"b":2}]}'
    assert object_at(BODY, keys, member_named(BODY, keys, "e")) == b"{}"
    assert object_at(BODY, keys, member_named(BODY, keys, "o")) == b""
    assert member_named(BODY, keys, "b") == -1
    with pytest.raises(BadRequest, match="'o' must be text"):
        text_at(BODY, keys, "o")
    body = b'{"a":"x\\"\\u0041","b":"%b"}' % (b"x" * 5000)
    keys = done(find_keys(body))
    assert text_at(body, keys, "a") == 'x"A'
    with pytest.raises(BadRequest, match="'b' must be text"):
        text_at(body, keys, "b")


@pytest.mark.parametrize("body", [
    b"", b"[]", b'{"a":1', b'{"a":"', b'{"a"', b'{"a":1}}', b'{"a":{}', b'x{"a":1}', b'{"a":1} x',
    b'{"a" "b"}', b'{"a":1,"b"    }',
])  # fmt: skip
def test_what_is_no_object(body):
    with pytest.raises(BadRequest) as error:
        done(find_keys(body))
    assert error.value.code == "malformed_json"


def test_members_without_end_are_refused_and_values_not_parsed():
    with pytest.raises(BadRequest, match="one key too many"):
        done(find_keys(b"{" + b'"a":0,' * (MOST_KEYS + 1) + b'"b":0}'))
    assert parse_few(b'{"a":[1,2]}', 3) == {"a": [1, 2]}
    for body in (b'{"a":[1,2,3]}', b"[[[[", b'{"a":'):
        with pytest.raises(ValueError, match=r"values|unexpected"):
            parse_few(body, 3)
