"""Heads that come again are the same object; what is remembered of all of them is bounded by bytes."""

from __future__ import annotations

import pytest

from proxy.errors import BadRequest
from proxy.relay.exchange import head_cache
from proxy.relay.exchange.head_cache import MAX_BYTES, MAX_HEADS, HeadCache
from proxy.wire.request_head import RequestHead

BEGIN = b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\n"


def prepare(heads: HeadCache, found: RequestHead, provider: object, size: int = 100) -> None:
    found.prepared[provider] = bytes(size)
    heads.count(found, found.prepared[provider])


def head(number: int = 0, size: int = 10) -> bytes:
    return BEGIN + b"X-Number: %d\r\nX-Long: %b\r\nContent-Length: 5" % (number, b"a" * size)


def test_a_head_that_comes_again_is_the_same_but_for_its_length():
    heads = HeadCache()
    first, length = heads.recall(head())
    assert length == 5
    assert heads.recall(head().replace(b" 5", b" 123")) == (first, 123)
    assert heads.recall(BEGIN + b"Content-Length: 5\r\nX-Number: 0")[0] is not first
    assert first.again(head() + b"\r\n\r\nbody!") == (5, len(head()) + 4)
    chunked = BEGIN + b"Transfer-Encoding: chunked"
    assert heads.recall(chunked)[0] is heads.recall(chunked)[0]
    assert len(heads) == 3


@pytest.mark.parametrize(
    "text",
    [
        BEGIN + b"X-Length: 5\r\nContent-Length: 7",  # what was cut out is another header's
        BEGIN + b"traceparent: 00-1-2-3\r\nContent-Length: 5",  # differs with each request
        head(size=5000),  # one of a kind
    ],
)
def test_what_is_not_remembered(text):
    heads = HeadCache()
    assert heads.recall(text)[0] is not heads.recall(text)[0]
    found = heads.recall(text)[0]
    prepare(heads, found, "p")
    assert (len(heads), heads.size, found.begin) == (0, 0, b"")


def test_a_malformed_length_is_refused_however_often_the_rest_came():
    heads = HeadCache()
    heads.recall(head())
    for bad in (b" 5x", b" " + b"5" * 19, b" "):
        with pytest.raises(BadRequest):
            heads.recall(head().replace(b" 5", bad))
    assert len(heads) == 1


def test_heads_times_providers_are_bounded_by_bytes():
    heads = HeadCache()
    most = 0
    for number in range(500):
        found = heads.recall(head(number, 3000))[0]
        for provider in range(40):
            prepare(heads, found, provider, 4000)
        most = max(most, heads.size)
    assert MAX_BYTES - (1 << 20) < most <= MAX_BYTES
    assert 50 < len(heads) < 100
    latest = heads.recall(head(499, 3000))[0]
    assert latest.begin and len(latest.prepared) == 40
    heads.forget()
    assert (heads.size, len(heads), latest.begin) == (0, 0, b"")


def test_many_small_heads_are_bounded_by_count_and_the_oldest_go():
    heads = HeadCache()
    first = heads.recall(head(0))[0]
    for number in range(MAX_HEADS):
        heads.recall(head(number + 1))
    assert len(heads) == MAX_HEADS
    assert (first.begin, first.weight) == (b"", 0)
    size = heads.size
    prepare(heads, heads.recall(head(0))[0], "p")
    assert heads.size < size + 1000


def test_a_head_that_was_forgotten_counts_for_nothing_when_it_is_prepared():
    heads = HeadCache()
    found = heads.recall(head())[0]
    heads.forget()
    prepare(heads, found, "p")
    assert heads.size == 0
    assert found.again(head() + b"\r\n\r\n") == (0, 0)


@pytest.mark.interpreted
def test_even_one_head_that_is_too_much_goes(monkeypatch):
    monkeypatch.setattr(head_cache, "MAX_BYTES", 3000)
    heads = HeadCache()
    found = heads.recall(head())[0]
    prepare(heads, found, "p", 4000)
    assert (len(heads), heads.size, found.begin) == (0, 0, b"")
