"""What a body holds beside text, against what was put in."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.request_media import Media, asks_for_sound, has_cache_control, has_images
from tests.support.json_texts import pieces_of

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (1024).to_bytes(4) + (768).to_bytes(4) + bytes(900))
LONG_PNG = PNG + b"QUJD" * 50_000
URL = b"data:image/png;base64,"


def measured(pieces: list[bytes]) -> tuple[int, int, int]:
    found = Media()
    for piece in pieces:
        found.feed(piece)
    return found.size, found.tokens("chat"), found.tokens("messages")


@pytest.mark.parametrize("body", [
    b'{"content":[{"type":"image_url","image_url":{"url":"%b"}}]}' % (URL + PNG),
    b'{"content":[{"type":"input_image","image_url" : "%b"}]}' % (URL + PNG),
    b'{"source":{"type":"base64","media_type":"image/png","data":"%b"}}' % PNG,
    b'{"inline_data":{"mime_type":"image/png","data":"%b"}}' % PNG,
    b'{"type":"image_generation_call","result":"%b"}' % PNG,
    b'{"url":"%b"}' % (URL + PNG).replace(b"/", b"\\/"),
])  # fmt: skip
@given(cuts=st.lists(st.integers(0, 1 << 11), max_size=6))
def test_a_picture_wherever_apis_have_one(body, cuts):
    size = len(body) - body.index(b"iVBOR") - len(body.partition(b"iVBOR")[2].partition(b'"')[2]) - 1
    size += len(URL.replace(b"/", b"\\/")) if b"\\/" in body else len(URL) if b";base64," in body else 0
    assert measured(pieces_of(body, cuts)) == (size, 85 + 170 * 4, 1049)


@pytest.mark.parametrize("body", [
    b'{"content":"%b"}' % (URL + LONG_PNG),  # a prompt
    b'{"type":"text","text":"%b"}' % (URL + LONG_PNG),
    b'{"text":"say \\"data\\":\\"%b\\""}' % LONG_PNG,  # within a text
    b'{"arguments":"{\\"url\\":\\"%b\\"}"}' % LONG_PNG,
    b'{"data":"%b"}' % (b"QUJD" * 9000),  # nothing that is known
    b'{"data":"%b"}' % (PNG + b" and some words" * 900),
    b'{"url":"https://example.com/%b"}' % (b"a" * 9000),
    b'["%b"]' % LONG_PNG,
])  # fmt: skip
@given(cuts=st.lists(st.integers(0, 1 << 11), max_size=6))
def test_text_does_not_pass_for_a_picture(body, cuts):
    assert measured(pieces_of(body, cuts)) == (0, 0, 0)


@given(st.lists(st.integers(0, 1 << 19), max_size=9), st.integers(0, 3000), st.booleans())
def test_pictures_between_texts_at_any_split(cuts, words, is_dense):
    text = b"x" * 5 * words if is_dense else b"some words here " * words
    picture = b'{"type":"image_url","image_url":{"url":"%b"}}' % (URL + LONG_PNG)
    body = b'{"a":["%b",%b,"%b",%b]}' % (text, picture, text, picture)
    size, tokens, _ = measured(pieces_of(body, cuts))
    whole = 2 * len(URL + LONG_PNG)
    # What lies in a long text may be overlooked.
    assert size <= whole
    if is_dense or words < 500:
        assert (size, tokens) == (whole, 2 * 765)


def test_a_picture_behind_a_long_text_is_seen_in_the_next_piece():
    text = b"some words here " * 4000
    begin = b'{"a":"%b","url":"%b' % (text, URL + PNG)
    assert measured([begin, b"QUJD" * 50_000, b'QUJD"}'])[:2] == (len(URL + PNG) + 200_004, 765)


@pytest.mark.parametrize(("begin", "rate"), [
    (b'"input_audio":{"data":"', 0.75 * 10 / 48_000),
    (b'"file_data":"', 0.75 / 25),
    (b'"file_data":"data:application/msword;base64,', 0.75 / 25),
    (b'"file_data":"data:text/plain;base64,', 0.75 / 4),
    (b'"url":"data:audio/mpeg;base64,', 0.75 * 10 / 16_000),
])  # fmt: skip
def test_what_counts_by_its_size(begin, rate):
    size, half = 400_000 + len(begin.rpartition(b'"')[2]), b"QUJD" * 50_000
    assert measured([b"{" + begin + half, half + b'"}'])[:2] == (size, int(size * rate))


@pytest.mark.parametrize(("body", "has_some"), [
    (b'{"messages":[{"content":[{"type":"image_url","image_url":{"url":"x"}}]}]}', True),
    (b'{"input":[{"content":[{"type":"input_image"}]}]}', True),
    (b'{"messages":[{"content":[{"type":"image","source":{}}]}]}', True),
    (b'{"messages":[{"content":[{"type" : "image"}]}]}', True),
    (b'{"messages":[{"content":"an image, an image_url"}]}', False),
    (b'{"messages":[{"content":"say \\"image\\""}]}', False),
    (b'{"messages":[]}', False),
    (b"", False),
])  # fmt: skip
def test_has_images(body, has_some):
    splits = [[body[:at], body[at : at + 3], body[at + 3 :]] for at in range(len(body))]
    for pieces in ([body], [b" " * 20_000 + body + b" " * 20_000], *splits):
        assert has_images(pieces) is has_some


@pytest.mark.parametrize(("body", "is_cached", "is_heard"), [
    (b'{"content":[{"text":"a","cache_control":{"type":"ephemeral"}}]}', True, False),
    (b'{"modalities":["text","audio"]}', False, True),
    (b'{"cach\\u0065_control":{},"modalities":["\\u0061udio"]}', True, True),
    (b'{"cache\\u005fcontrol":{},"modalities":["audi\\u006f"]}', True, True),
    (b'{"text":"\\u00e9 \\u001b cache_control, audio"}', False, False),
])  # fmt: skip
def test_what_has_a_price_of_its_own(body, is_cached, is_heard):
    for at in range(len(body)):
        pieces = [body[:at], body[at:]]
        assert (has_cache_control(pieces), asks_for_sound(pieces)) == (is_cached, is_heard)


def test_sounds_are_told_apart():
    found = Media()
    found.feed(b'{"input_audio":{"data":"%b"},"url":"%b"}' % (b"QUJD" * 40_000, URL + PNG))
    assert found.sound_tokens() == int(160_000 * 0.75 * 10 / 48_000)
    assert found.tokens("chat") == found.sound_tokens() + 765
