"""Tokens of pictures, sounds and documents, judged by how they begin; and of those that models make.

Estimates, for where a provider does not say. They follow what vendors publish:

- Pictures count by size: at OpenAI in tiles of 512 pixels, after scaling to fit 2,048 x 2,048 and to 768 on
  the shorter side, 85 tokens and 170 a tile ("Images and vision", calculating costs); at Anthropic width x
  height / 750, at most 1,568 pixels on the longer side ("Vision", calculate image costs). One whose size does
  not show counts as a large photo.
- Sounds count by time, ten tokens a second (OpenAI's "Audio and speech"; Google's count 32).
- Of a PDF, a page of some 50 KB counts 2,000 tokens, text and picture of it (Anthropic's "PDF support": 1,500
  to 3,000 of text).

What models make, where a provider does not say:

- A picture counts 6,240 tokens, and 100 for each of up to three previews: the largest of OpenAI's table for
  GPT Image ("Image generation", cost and latency: high quality, 1024 x 1536).
- Speech counts 1,250 tokens a minute: OpenAI's prices for gpt-4o-mini-tts, $12 for a million tokens of sound,
  about $0.015 a minute. Read at the usual pace, a token of text becomes six of sound.
"""

from __future__ import annotations

import binascii
from math import ceil, isqrt
from typing import Final, NamedTuple

# The part of a medium's base64 that is read; JPEG's size may stand behind a camera's notes.
HEAD_BYTES: Final = 4 << 10
# Where the size of a picture does not show.
UNSEEN_PICTURE_TOKENS: Final = 1100
_SOUND_TOKENS_A_SECOND: Final = 10.0
# Bytes a second: of what is packed (128 kbit/s), and of 16 bits at 24 kHz, as OpenAI takes sounds without a
# head.
_PACKED_SOUND: Final = 16_000.0
RAW_SOUND: Final = 48_000.0
_DOCUMENT_BYTES_A_TOKEN: Final = 25.0
_TEXT_BYTES_A_TOKEN: Final = 4.0
PICTURE_TOKENS: Final = 6_240 + 3 * 100
# Of speech that a model reads out, tokens a second, and bytes of it by the content type: MP3 of 128 kbit/s
# where that tells nothing, 16 bits at 24 kHz where nothing is packed.
_SPOKEN_TOKENS_A_SECOND: Final = 1250 / 60
_SPEECH_BYTES: Final = {
    b"audio/mpeg": 16_000.0, b"audio/mp3": 16_000.0, b"audio/aac": 8_000.0, b"audio/opus": 4_000.0,
    b"audio/ogg": 4_000.0, b"audio/flac": 24_000.0, b"audio/x-flac": 24_000.0, b"audio/wav": 48_000.0,
    b"audio/x-wav": 48_000.0, b"audio/wave": 48_000.0, b"audio/pcm": 48_000.0, b"audio/l16": 48_000.0,
}  # fmt: skip
# Tokens of sound for one of text: usually, and for what is read slowly, as numbers and single letters are.
_SPOKEN: Final = 6
_MOST_SPOKEN: Final = 3 * _SPOKEN
# Eight bits each of red, green, blue and alpha, not packed at all. Photos as PNG have two, as JPEG below one.
_MOST_BYTES_A_PIXEL: Final = 4
# base64 has four bytes for three.
_PACKING: Final = 0.75


class Medium(NamedTuple):
    """Tokens of a medium: fixed (by OpenAI's tiles, and by Anthropic's area), and per byte of its base64."""

    by_tiles: int
    by_area: int
    per_byte: float
    is_sound: bool = False


def by_bytes(bytes_a_token: float, is_sound: bool = False) -> Medium:
    """A medium that counts by its size."""
    return Medium(0, 0, _PACKING / bytes_a_token, is_sound)


def tokens_of(medium: Medium, size: int, is_by_area: bool) -> float:
    """Return the tokens of a medium.

    :param size: of its base64. A picture has as many pixels at least as it takes to fill its bytes, whatever
        its head claims.
    """
    fixed = medium.by_area if is_by_area else medium.by_tiles
    if not fixed:
        return medium.per_byte * size
    side = isqrt(int(size * _PACKING / _MOST_BYTES_A_PIXEL)) + 1
    least = picture(side, side)
    return max(fixed, least.by_area if is_by_area else least.by_tiles)


RAW_AUDIO: Final = by_bytes(RAW_SOUND / _SOUND_TOKENS_A_SECOND, is_sound=True)
_DOCUMENT: Final = by_bytes(_DOCUMENT_BYTES_A_TOKEN)
_TEXT: Final = by_bytes(_TEXT_BYTES_A_TOKEN)
_PACKED_AUDIO: Final = by_bytes(_PACKED_SOUND / _SOUND_TOKENS_A_SECOND, is_sound=True)
_UNSEEN_PICTURE: Final = Medium(UNSEEN_PICTURE_TOKENS, UNSEEN_PICTURE_TOKENS, 0.0)
_SOUNDS: Final = (b"ID3", b"OggS", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"\xff\xf9")
# Frame headers of JPEG that tell the size; others of this range are tables.
_SIZES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def medium_of(base64: bytes) -> Medium | None:
    """Recognise a medium by its first bytes; None: unknown.

    :param base64: its first bytes, of :data:`HEAD_BYTES` as many as there are.
    """
    usable = base64[: len(base64) & ~3].rstrip(b"=")
    try:
        head = binascii.a2b_base64(usable + b"=" * (-len(usable) % 4))
    except binascii.Error:
        return None
    if (
        head[:4] in (b"\x89PNG", b"GIF8")
        or head[:2] == b"\xff\xd8"
        or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")
    ):
        size = _pixels(head)
        return _UNSEEN_PICTURE if size is None else picture(*size)
    if (head[:4], head[8:12]) == (b"RIFF", b"WAVE"):
        rate = float(int.from_bytes(head[28:32], "little"))
        # A false one must not make hours of a second's bytes, nor the reverse.
        return by_bytes(min(max(rate, 4_000.0), 400_000.0) / _SOUND_TOKENS_A_SECOND, is_sound=True)
    if head.startswith(_SOUNDS) or head[4:8] == b"ftyp":
        return _PACKED_AUDIO
    if head.startswith(b"%PDF"):
        return _DOCUMENT
    return None


def by_type(kind: bytes) -> Medium:
    """Return the tokens of a medium by its content type alone, as data URLs have it."""
    begin = kind.partition(b"/")[0]
    if begin == b"image":
        return _UNSEEN_PICTURE
    if begin in (b"audio", b"video"):
        return _PACKED_AUDIO
    return _TEXT if begin == b"text" else _DOCUMENT


def spoken(content_type: bytes, size: int) -> int:
    """Return the tokens of speech that a model has made, by its size in bytes."""
    kind = content_type.partition(b";")[0].strip().lower()
    return ceil(size / _SPEECH_BYTES.get(kind, _PACKED_SOUND) * _SPOKEN_TOKENS_A_SECOND)


def usually_spoken(prompt_tokens: float) -> int:
    """Estimate the tokens of a text once it is read out."""
    return ceil(prompt_tokens * _SPOKEN)


def most_spoken(prompt_tokens: float) -> int:
    """The most that it may count."""
    return ceil(prompt_tokens * _MOST_SPOKEN)


def picture(width: int, height: int) -> Medium:
    """Return the tokens of a picture by its size in pixels."""
    if width <= 0 or height <= 0:
        return _UNSEEN_PICTURE
    shrunk = min(1.0, 2048 / max(width, height))
    shrunk *= min(1.0, 768 / (min(width, height) * shrunk))
    tiles = ceil(width * shrunk / 512 - 1e-9) * ceil(height * shrunk / 512 - 1e-9)
    side = min(1.0, 1568 / max(width, height))
    area = min(width * side * height * side / 750, 1600.0)
    return Medium(85 + 170 * tiles, ceil(area), 0.0)


def _pixels(head: bytes) -> tuple[int, int] | None:
    """Width and height, as far as the head of a picture tells."""
    if head[:4] == b"\x89PNG" and head[12:16] == b"IHDR" and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if head[:4] == b"GIF8" and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if head[:4] == b"RIFF" and len(head) >= 30:
        return _webp(head)
    return _jpeg(head) if head[:2] == b"\xff\xd8" else None


def _webp(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _jpeg(head: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _SIZES:
            return int.from_bytes(head[at + 7 : at + 9], "big"), int.from_bytes(head[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
