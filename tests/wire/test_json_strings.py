"""Strings found without reading them, against a parser; in Python and in C."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.json_strings import items, items_slowly, names, names_slowly, runs, runs_slowly
from tests.support.json_texts import values

rough = st.lists(st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b"]", b",", b" ", b"ab", b"1"]), max_size=30)


@pytest.mark.parametrize("way", [items_slowly, items], ids=["python", "in use"])
@given(st.lists(values, max_size=6))
def test_members_are_counted(way, members):
    text = json.dumps({"a": members}).encode()
    assert way(text, text.index(b"[")) == len(members)


@given(rough.map(b"".join), st.integers(0, 10))
def test_both_ways_count_the_same(text, pos):
    assert items(text, pos) == items_slowly(text, pos)


@given(rough.map(b"".join), st.integers(0, 40), st.integers(0, 5))
def test_both_ways_find_the_same_stretches(text, pos, least):
    assert runs(text, pos, least) == runs_slowly(text, pos, least)


named = st.lists(
    st.sampled_from([b'"', b"url", b"URL", b"_id", b"file", b"\\u00", b"\\", b"5f", b"31", b"x" * 80]),
    max_size=30,
)


@given(named.map(b"".join), st.integers(0, 40), st.integers(-1, 9))
def test_both_ways_find_the_same_names(text, pos, most):
    words = b'"url"file_id"file"'
    found = names(text, pos, words, most)
    assert found == names_slowly(text, pos, words, most) == names(text, pos, words, 99)[: 2 * max(most, 0)]


def test_names():
    text = b'{"url":"urls","File_ID":1,"fil\\u0065":"\\u0031","\\"url\\"'
    found = names(text, 0, b'"url"file_id"', 9)
    assert [text[at:end] for at, end in zip(found[::2], found[1::2], strict=True)] == [
        b"url", b"File_ID", b"fil\\u0065",
    ]  # fmt: skip


def test_stretches():
    text = b'ab"cdef""gh'
    assert runs(text, 0, 0) == [0, 2, 3, 7, 8, 8, 9, 11]
    assert runs(text, 1, 2) == [3, 7, 9, 11]
    assert runs(text, 4, 3) == [4, 7]
    assert runs(text, 11, 0) == runs(b"", 0, 0) == []
