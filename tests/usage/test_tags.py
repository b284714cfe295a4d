"""Tags as clients write them, and the bounds of what they may bring."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.usage_table import MAX_TAG_VALUE_CHARS
from proxy.usage.tags import (
    MAX_VALUE_CHARS,
    NEW_VALUES_A_DAY,
    OTHER,
    SeenValues,
    TagsError,
    line_members,
    may_be_new,
    read_tags,
)

DAY_S = 86_400.0


@pytest.mark.parametrize(("text", "found"), [
    (b"team=search", {"team": "search"}), ("team=Büro".encode(), {"team": "Büro"}), (b'a="b"', {"a": '"b"'}),
    (b" team = a b ,feature=rag=2 ", {"team": "a b", "feature": "rag=2"}),
    (b"a=" + b"x" * 64, {"a": "x" * 64}),
])  # fmt: skip
def test_tags_that_can_be_read(text, found):
    assert read_tags(text) == found


@pytest.mark.parametrize(("text", "why"), [
    (b"", "a name and a value"), (b"team", "a name and a value"), (b"team=", "a name and a value"),
    (b"=x", "a name and a value"), (b"team=a,", "a name and a value"), (b",team=a", "a name and a value"),
    (b"team=a,team=b", "named twice"), (b"a=" + b"x" * 65, "up to 32"), (b"n" * 33 + b"=a", "up to 32"),
    (b"a=\xff", "not UTF-8"), (b"a=b\tc", "printable"), (b"a=" + b"x" * 4095, "more than 4096 bytes"),
    (b",".join(b"a%d=b" % number for number in range(33)), "more than 32"),
])  # fmt: skip
def test_tags_that_cant(text, why):
    with pytest.raises(TagsError, match=why):
        read_tags(text)


@given(st.binary(max_size=60) | st.text("=, abtéam\t\x00\u2028", max_size=40).map(str.encode))
def test_whatever_is_read_is_bounded_and_reads_back_the_same(text):
    try:
        found = read_tags(text)
    except TagsError:
        return
    assert 0 < len(found) <= 32
    for name, value in found.items():
        assert name == name.strip()
        assert value == value.strip()
        assert 0 < len(value) <= MAX_VALUE_CHARS and value.isprintable() and "," not in value
    assert read_tags(",".join(f"{name}={value}" for name, value in found.items()).encode()) == found


def test_what_a_line_says():
    assert line_members(b"null", {}, {}) == b"null"
    members = line_members(b'"key_1","group":"g"', {"team": 'a"', "app": "b"}, {"x": "y"})
    assert json.loads(b'{"key":%b}' % members) == {
        "key": "key_1", "group": "g", "tags": {"app": "b", "team": 'a"'}, "client_tags": {"x": "y"},
    }  # fmt: skip
    assert members.find(b'"app"') < members.find(b'"team"')
    assert MAX_VALUE_CHARS == MAX_TAG_VALUE_CHARS


def test_what_may_be_new():
    assert [may_be_new(*case) for case in ((0, 0, 1), (1, 0, 1), (0, 50, 9), (0, 49, 9))] == [
        True, False, False, True,
    ]  # fmt: skip


def test_values_of_clients_are_bounded_by_key_and_day_and_by_tag():
    seen = SeenValues(NEW_VALUES_A_DAY + 5)
    values = [seen.said("app", str(number), "key_1", 0.0) for number in range(60)]
    assert values == [str(number) for number in range(50)] + [OTHER] * 10
    assert seen.said("app", "7", "key_1", 1.0) == "7"  # known ones stay
    assert seen.said("app", "55", "key_2", 1.0) == "55"  # another key
    assert seen.said("app", "56", "key_1", DAY_S) == "56"  # another day
    assert [seen.said("app", f"n{number}", "key_3", DAY_S) for number in range(4)] == [
        "n0",
        "n1",
        "n2",
        OTHER,
    ]
    assert seen.known("app", "listed") == seen.said("app", "listed", "key_3", DAY_S) == "listed"
    assert seen.said("team", "a", "key_3", DAY_S) == "a"
