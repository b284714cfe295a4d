"""What pictures, sounds and documents count, by how they begin."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage import media_tokens
from proxy.usage.media_tokens import UNSEEN_PICTURE_TOKENS, Medium, by_type, medium_of, picture, tokens_of


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height)


def jpeg(width: int, height: int, before: int = 0) -> bytes:
    notes = b"\xff\xe1" + struct.pack(">H", before + 2) + bytes(before) if before else b""
    tables = b"\xff\xdb" + struct.pack(">H", 67) + bytes(65)
    return b"\xff\xd8" + notes + tables + b"\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + bytes(12)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height)


def webp(width: int, height: int, kind: bytes = b"VP8 ") -> bytes:
    head = b"RIFF" + bytes(4) + b"WEBP" + kind + bytes(4)
    if kind == b"VP8 ":
        return head + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height)
    if kind == b"VP8L":
        return head + b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14) + bytes(9)
    return head + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def wav(rate: int) -> bytes:
    return b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(12) + struct.pack("<I", rate) + bytes(20)


def of(head: bytes) -> Medium | None:
    return medium_of(base64.b64encode(head + bytes(60)))


KINDS = [png, jpeg, gif, webp, lambda w, h: webp(w, h, b"VP8L"), lambda w, h: webp(w, h, b"VP8X")]


@pytest.mark.parametrize("kind", KINDS)
@given(width=st.integers(1, 16_000), height=st.integers(1, 16_000))
def test_a_picture_counts_by_its_pixels(kind, width, height):
    assert of(kind(width, height)) == picture(width, height)


@pytest.mark.parametrize(("width", "height", "tiles", "area"), [
    (1024, 1024, 765, 1399),  # OpenAI's own two examples
    (2048, 4096, 1105, 1600), (100, 100, 255, 14), (4000, 3000, 765, 1600),
    (1092, 1092, 765, 1590),  # and Anthropic's table, which says 1,590
    (200, 200, 255, 54),  # and 54
])  # fmt: skip
def test_the_vendors_own_figures(width, height, tiles, area):
    assert picture(width, height) == Medium(tiles, area, 0.0)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_no_picture_counts_more_than_one_can(width, height):
    tiles, area = picture(width, height)[:2]
    assert 255 <= tiles <= 85 + 170 * 8
    assert 1 <= area <= 1600


@pytest.mark.parametrize("head", [png(0, 5), jpeg(4, 4, before=8000)[:3000], b"\xff\xd8nonsense", b"\x89PNG"])
def test_one_whose_size_does_not_show_is_a_large_photo(head):
    assert of(head) == Medium(UNSEEN_PICTURE_TOKENS, UNSEEN_PICTURE_TOKENS, 0.0)


def test_the_size_behind_a_cameras_notes():
    assert of(jpeg(640, 480, before=2000)) == picture(640, 480)


@pytest.mark.parametrize(("head", "size", "tokens"), [
    # ten tokens a second of sound
    (wav(48_000), 48_000, 10), (wav(1), 4_000, 10), (wav(2**31), 400_000, 10), (b"ID3\3", 16_000, 10),
    (b"OggS", 16_000, 10),
    (b"%PDF-1.7", 50_000, 2000),
])  # fmt: skip
def test_a_sound_and_a_document_count_by_their_size(head, size, tokens):
    found = of(head)
    assert found is not None and found.per_byte * size / 0.75 == pytest.approx(tokens)


@given(st.binary(max_size=80) | st.text("QUJDabc=+/_-", max_size=80).map(str.encode))
def test_any_bytes(base):
    found = medium_of(base)
    assert found is None or min(found) >= 0


def test_by_type():
    assert by_type(b"image/avif").by_tiles == UNSEEN_PICTURE_TOKENS
    assert by_type(b"audio/x").per_byte == by_type(b"video/x").per_byte
    assert by_type(b"text/csv").per_byte > by_type(b"application/pdf").per_byte > 0


@pytest.mark.parametrize(("kind", "bytes_a_minute"), [
    (b" audio/mpeg", 960_000), (b"Audio/WAV; rate=24000", 2_880_000), (b"audio/pcm", 2_880_000),
    (b"audio/opus", 240_000), (b"", 960_000), (b"application/octet-stream", 960_000),
])  # fmt: skip
def test_a_minute_of_speech(kind, bytes_a_minute):
    """OpenAI's prices: $12 for a million tokens, about $0.015 a minute."""
    assert media_tokens.spoken(kind, bytes_a_minute) == pytest.approx(0.015 / 12e-6, abs=1)


def test_a_text_read_out():
    """4,096 letters were measured to take 268 s: 5,600 tokens of sound for 1,024 of text."""
    assert media_tokens.usually_spoken(1024) == pytest.approx(268 / 60 * 1250, rel=0.15)
    assert media_tokens.most_spoken(1024) == 3 * media_tokens.usually_spoken(1024)


@pytest.mark.parametrize(("width", "height", "raw", "by_tiles", "by_area"), [
    (1, 1, 4, 255, 1),  # no lie
    (1024, 1024, 3_000_000, 765, 1399),  # an honest photo
    (1, 1, 300_000, 255, 101),  # 274 x 274 at least
    (1, 1, 3_000_000, 765, 1003), (1, 1, 30_000_000, 765, 1600),
])  # fmt: skip
def test_a_picture_has_as_many_pixels_as_fill_its_bytes(width, height, raw, by_tiles, by_area):
    medium, size = picture(width, height), raw * 4 // 3
    assert tokens_of(medium, size, is_by_area=False) == by_tiles
    assert tokens_of(medium, size, is_by_area=True) == pytest.approx(by_area, abs=1)
