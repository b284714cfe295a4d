"""What a body holds beside text, against what was put in."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy import media
from proxy.media import DataURLs, data_url_bytes, has_images
from tests.jsoncases import pieces_of

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
        patch.setattr(media, "BLOCK_BYTES", block)
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


def test_what_was_fed_so_far_counts():
    urls = DataURLs()
    sizes = []
    for piece in (b'{"a":"data:;base64,AA', b"AA", b'","b":"', b"data:;base", b"64,BB", b'"}'):
        urls.feed(piece)
        sizes.append(urls.size)
    assert sizes == [10, 12, 12, 12, 22, 22]
