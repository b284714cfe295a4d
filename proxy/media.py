"""What a request's body holds beside text, counted piece by piece as it comes in: base64 data URLs, and
whether there are images.

For estimates. Base64 has no spaces, text has, and of a long stretch samples are believed: of a long text a
URL that is less than a sixteenth of it may so be overlooked. A search of all of it costs 0.5 µs a KiB.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Searches skip from one interesting byte to the next as long as they lie further apart than this. Single
# bytes are found at memory speed, longer needles at about 2 GB/s: in a body that is one large image the
# difference is a factor of ten, in dense text the extra call every 8 KiB costs nothing.
BLOCK_BYTES: Final = 8 << 10
# Of a stretch longer than this, samples tell whether it is text: so many, but none nearer than that.
_SAMPLE_FROM_BYTES: Final = 8 << 10
_SAMPLES: Final = 16
_SAMPLE_EVERY: Final = 2 << 10
_SAMPLE_BYTES: Final = 256
_URL: Final = b";base64,"
_IMAGE_MARKS: Final = (b'"image_url"', b'"input_image"', b'"image"')
_SEAM_BYTES: Final = 12  # of either side of a cut, for a mark across it


class DataURLs:
    """Counts the bytes of a body that are base64 data URLs: images or sounds, and not a prompt's text."""

    __slots__ = ("_is_inside", "_last", "_run", "_total")

    def __init__(self) -> None:
        self._total = 0  # of those that are over
        self._run = 0  # of the one that may go on
        self._is_inside = False
        self._last = b""

    @property
    def size(self) -> int:
        """So many, of what has been fed."""
        return self._total + self._run if self._is_inside else self._total

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        start, end = 0, len(piece)
        last = self._last
        if not self._is_inside:
            at = (last + piece[: len(_URL) - 1]).find(_URL) if last else -1
            if at >= 0:
                self._is_inside, self._run = True, len(last) - at
            elif end > _SAMPLE_FROM_BYTES and _is_text(piece, 0, end):
                start = end
        while True:
            if not self._is_inside:
                start = find(piece, _URL, start, end)
                if start < 0:
                    break
                self._is_inside, self._run = True, 0
            quote = piece.find(b'"', start)
            stop = end if quote < 0 else quote
            if _has_spaces(piece, start, stop):  # it is text that has such a word in it
                self._is_inside = False
            else:
                self._run += stop - start
                if quote < 0:
                    break
                self._is_inside = False
                self._total += self._run
            start = stop
        self._last = _end(last, piece, len(_URL) - 1)


class ImageMarks:
    """Looks for a content part of an image type, in any provider's spelling. ``found``: there is one."""

    __slots__ = ("_last", "found")

    def __init__(self) -> None:
        self._last = b""
        self.found = False

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        if self.found:
            return
        last = self._last
        seam = last + piece[:_SEAM_BYTES] if last else b""
        for mark in _IMAGE_MARKS:
            if find(piece, mark, 0, len(piece)) >= 0 or seam.find(mark) >= 0:
                self.found = True
                return
        self._last = _end(last, piece, _SEAM_BYTES)


def data_url_bytes(pieces: Iterable[bytes]) -> int:
    """How many bytes of a body are base64 data URLs."""
    urls = DataURLs()
    for piece in pieces:
        urls.feed(piece)
    return urls.size


def has_images(pieces: Iterable[bytes]) -> bool:
    """Whether a body has images in it."""
    marks = ImageMarks()
    for piece in pieces:
        marks.feed(piece)
    return marks.found


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
    """So many bytes lie from sample to sample, and none of them is cut short by the end."""
    return size // min(_SAMPLES, size // _SAMPLE_EVERY) + 1


def _end(last: bytes, piece: bytes, size: int) -> bytes:
    """The last bytes of what has passed, for what lies across a cut."""
    return piece[-size:] if len(piece) >= size else (last + piece)[-size:]
