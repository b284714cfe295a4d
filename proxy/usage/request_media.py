"""Measures what a request's body holds beside text, piece by piece as it comes in: base64, and whether there
are images.

For estimates. Base64 has no spaces, text has, and of a long stretch samples are believed: of a long text a
picture that is less than a sixteenth of it may so be overlooked, and counts as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.endpoints import ANTHROPIC
from proxy.usage.media_tokens import HEAD_BYTES, RAW_AUDIO, Medium, by_type, medium_of, tokens_of
from proxy.wire.json_strings import runs
from proxy.wire.media_places import Span, placed

# Searches skip from one interesting byte to the next as long as they lie further apart than this. Single
# bytes are found at memory speed, longer needles at about 2 GB/s: in a body that is one large image the
# difference is a factor of ten, in dense text the extra call every 8 KiB costs nothing.
BLOCK_BYTES: Final = 8 << 10
# A longer stretch is judged by samples: the most of them, and the least distance between two.
_SAMPLE_FROM_BYTES: Final = 8 << 10
_SAMPLES: Final = 16
_SAMPLE_EVERY: Final = 2 << 10
_SAMPLE_BYTES: Final = 256
_URL: Final = b";base64,"
_LONGEST_KIND: Final = 256
# A shorter string counts as text: a picture that small changes no figure.
_LEAST_BYTES: Final = 512
# Where APIs have base64, or URLs with it: OpenAI's image_url, file_data, input_audio and results, Anthropic's
# and Google's data.
_KEYS: Final = frozenset(
    (b"url", b"image_url", b"data", b"file_data", b"b64_json", b"result", b"image", b"audio")
)
_KEY_BEFORE: Final = re.compile(rb'(?<!\\)"([a-z0-9_]{1,12})"[ \t\r\n]{0,16}:[ \t\r\n]{0,16}"\Z')
_KEY_BYTES: Final = 96
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_=-]*+")
_IMAGE_MARKS: Final = (b'"image_url"', b'"input_image"', b'"image"')
_CACHE_MARKS: Final = (b'"cache_control"',)
_SOUND_MARKS: Final = (b'"audio"',)
# Letters as escapes, which only a client with something to hide writes: they may be any of these words.
_ESCAPE_MARKS: Final = (b"\\u005", b"\\u006", b"\\u007")
_SEAM_BYTES: Final = 14  # of either side of a cut, for a mark across it


class Media:
    """Measures the base64 of a body: pictures, sounds and documents, which count otherwise than text.

    ``size``: how many bytes of the body they are, as far as they have come.
    """

    __slots__ = ("_at", "_may_go_on", "_media", "_spans", "_tail", "size")

    def __init__(self) -> None:
        self.size = 0
        self._at = 0  # in the body, where the piece begins
        self._spans: list[Span] = []
        self._media: list[Medium] = []  # what these are
        self._may_go_on = False  # the last one, with the next piece
        self._tail = b""  # the last bytes: a string that is too short to be judged yet, and its key

    def tokens(self, endpoint: str) -> int:
        """Return the tokens they count at an endpoint, as far as they have come."""
        tokens, is_by_area = 0.0, endpoint in ANTHROPIC
        for span, medium in zip(self._spans, self._media, strict=True):
            tokens += tokens_of(medium, span.size, is_by_area)
        return int(tokens)

    def sound_tokens(self) -> int:
        """Return the tokens of the sounds among them."""
        tokens = 0.0
        for span, medium in zip(self._spans, self._media, strict=True):
            if medium.is_sound:
                tokens += tokens_of(medium, span.size, is_by_area=False)
        return int(tokens)

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        size = len(piece)
        quote = piece.find(b'"')
        self._go_on(piece, size if quote < 0 else quote)
        if quote >= 0:
            self._may_go_on = False
            begin = quote + 1
            last = piece.rfind(b'"')
            if size - begin > _SAMPLE_FROM_BYTES and _is_text(piece, begin, size):
                found = [last + 1, size] if size - last > _LEAST_BYTES else []
            else:
                found = runs(piece, begin, _LEAST_BYTES)
            for at in range(0, len(found), 2):
                start, end = found[at], found[at + 1]
                key = piece[max(start - _KEY_BYTES, 0) : start]
                if start < _KEY_BYTES:
                    key = self._tail + key
                medium = _judge(key, piece, start, end)
                if medium is not None:
                    self._begin(medium, self._at + start, end - start, is_cut=end == size)
        self._tail = _end(self._tail, piece, _KEY_BYTES + _LEAST_BYTES)
        self._at += size

    def believe(self, pieces: Sequence[bytes]) -> None:
        """Take back what stands where no API reads anything but text.

        :param pieces: of the whole body.
        """
        spans, media = self._spans, self._media
        if not spans:
            return
        self._spans, self._media = [], []
        for at, is_good in enumerate(placed(pieces, spans)):
            if is_good:
                self._spans.append(spans[at])
                self._media.append(media[at])
            else:
                self.size -= spans[at].size

    def _go_on(self, piece: bytes, stop: int) -> None:
        """Take the bytes before the first quote: they belong to the string in which the last piece ended."""
        tail = self._tail
        if self._may_go_on:
            span = self._spans[-1]
            if _has_spaces(piece, 0, stop):  # it only began like one
                self.size -= span.size
                self._spans.pop()
                self._media.pop()
                self._may_go_on = False
            else:
                span.size += stop
                self.size += stop
            return
        begin = tail.rfind(b'"') + 1
        known = len(tail) - begin
        if begin and known < _LEAST_BYTES <= known + stop:  # it was too short to be judged
            head = tail[begin:] + piece[: min(stop, HEAD_BYTES)]
            medium = _judge(tail[:begin], head, 0, len(head))
            if medium is not None:
                self._begin(medium, self._at - known, known + stop, is_cut=stop == len(piece))

    def _begin(self, medium: Medium, start: int, size: int, *, is_cut: bool) -> None:
        self._may_go_on = is_cut
        self._spans.append(Span(start, size))
        self._media.append(medium)
        self.size += size


def _judge(before: bytes, data: bytes, start: int, end: int) -> Medium | None:
    """Return the medium in the string at ``data[start:end]``, as far as it is there; None: it is text.

    :param before: what stands before it, to its opening quote.

    Text counts in full, so it must not pass for a picture: only what stands where APIs have base64 is looked
    at, it must look like that, and begin like something that is known.
    """
    key = _KEY_BEFORE.search(before[-_KEY_BYTES:])
    if key is None or key[1] not in _KEYS:
        return None
    head = data[start : min(end, start + HEAD_BYTES)]
    kind = b""
    if head.startswith(b"data:"):
        at = head.find(_URL, 0, _LONGEST_KIND)
        if at < 0:
            return None
        kind, head = head[5:at], head[at + len(_URL) :]
    if head.find(b"\\") >= 0:
        head = head.replace(b"\\/", b"/")  # as PHP writes it
    if not _BASE64.fullmatch(head) or _has_spaces(data, start, end):
        return None
    medium = medium_of(head)
    if medium is not None:
        return medium
    if kind or key[1] == b"file_data":
        return by_type(kind)
    # 16 bits a sample, without a head; its format stands behind it, or before.
    return RAW_AUDIO if b"input_audio" in before else None


class MarkFinder:
    """Looks for marks. ``found``: there is one."""

    __slots__ = ("_last", "_marks", "found")

    def __init__(self, marks: tuple[bytes, ...]) -> None:
        self._last = b""
        self._marks = marks
        self.found = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        if self.found:
            return
        last = self._last
        seam = last + piece[:_SEAM_BYTES] if last else b""
        for mark in self._marks:
            if find(piece, mark, 0, len(piece)) >= 0 or seam.find(mark) >= 0:
                self.found = True
                return
        self._last = _end(last, piece, _SEAM_BYTES)


class BodyMarks:
    """Looks for what a body asks for and has: a content part of an image type, in any provider's spelling;
    something to be written into a cache; a response in sound."""

    __slots__ = ("_cache", "_escapes", "_images", "_sound")

    def __init__(self) -> None:
        self._images = MarkFinder(_IMAGE_MARKS)
        self._cache = MarkFinder(_CACHE_MARKS)
        self._sound = MarkFinder(_SOUND_MARKS)
        self._escapes = MarkFinder(_ESCAPE_MARKS)

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self._images.feed(piece)
        self._cache.feed(piece)
        self._sound.feed(piece)
        self._escapes.feed(piece)

    def has_images(self) -> bool:
        """There is an image."""
        return self._images.found

    def has_cache_control(self) -> bool:
        """It may ask for something to be written into a cache."""
        return self._cache.found or self._escapes.found

    def asks_for_sound(self) -> bool:
        """It may ask for a response in sound."""
        return self._sound.found or self._escapes.found


def has_cache_control(pieces: Sequence[bytes]) -> bool:
    """Return whether a body may ask for something to be written into a cache."""
    return _has(pieces, _CACHE_MARKS) or _has(pieces, _ESCAPE_MARKS)


def asks_for_sound(pieces: Sequence[bytes]) -> bool:
    """Return whether a body may ask for a response in sound."""
    return _has(pieces, _SOUND_MARKS) or _has(pieces, _ESCAPE_MARKS)


def has_images(pieces: Sequence[bytes]) -> bool:
    """Return whether a body has images in it."""
    return _has(pieces, _IMAGE_MARKS)


def _has(pieces: Sequence[bytes], marks: tuple[bytes, ...]) -> bool:
    looked = MarkFinder(marks)
    for piece in pieces:
        looked.feed(piece)
    return looked.found


def find(data: bytes, needle: bytes, start: int, end: int) -> int:
    """``data.find``, but quick over long stretches without the needle's first byte."""
    if end - start <= BLOCK_BYTES:
        return data.find(needle, start, end)
    first = needle[:1]
    while (start := data.find(first, start, end)) >= 0:
        stop = start + BLOCK_BYTES
        hit = data.find(needle, start, min(stop + len(needle) - 1, end))
        if hit >= 0:
            return hit
        start = stop
    return -1


def _is_text(data: bytes, start: int, end: int) -> bool:
    """Each sample of a long stretch has a space."""
    step = _sample_every(end - start)
    return all(data.find(b" ", at, at + _SAMPLE_BYTES) >= 0 for at in range(start, end, step))


def _has_spaces(data: bytes, start: int, end: int) -> bool:
    """There is a space; of a long stretch, in a sample of it."""
    size = end - start
    if size <= _SAMPLE_FROM_BYTES:
        return data.find(b" ", start, end) >= 0
    return any(data.find(b" ", at, at + _SAMPLE_BYTES) >= 0 for at in range(start, end, _sample_every(size)))


def _sample_every(size: int) -> int:
    """Return the distance from sample to sample in bytes; no sample is cut short by the end."""
    return size // min(_SAMPLES, size // _SAMPLE_EVERY) + 1


def _end(last: bytes, piece: bytes, size: int) -> bytes:
    """The last bytes of what has passed, for what lies across a cut."""
    return piece[-size:] if len(piece) >= size else (last + piece)[-size:]
