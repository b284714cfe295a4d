"""Questions to a whole body and edits of it, without parsing it.

What stands at the top level is told by :mod:`proxy.outline`.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import orjson

from proxy.outline import keys_of, value_at
from proxy.scanner import KEY, OPENING, decoded, duplicate_model, malformed

# Where top-level keys begin and end, quotes included.
Keys = Sequence[tuple[int, int]]

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
# With white space before and behind it, a value that matters is shorter.
_VALUE_BYTES: Final = 64
_VALUE_END: Final = re.compile(rb"[,}]")


def insertion(body: bytes, model_literal: bytes) -> tuple[int, bytes]:
    """Where and what to insert so that a body without a model has one.

    :returns: an offset and the bytes to put there.
    :raises BadRequest: the body is no valid JSON object.
    """
    match = OPENING.match(body)
    if not match:
        raise malformed("the body must be one JSON object")
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # orjson refuses some valid JSON (1E400, lone surrogates, depth over 1,024): ask one that does not.
        try:
            json.loads(body.decode())
        except RecursionError:
            pass
        except ValueError:
            raise malformed(str(error)) from None
    comma = b"" if match[1] == b"}" else b","
    return body.index(b"{") + 1, b'"model":' + model_literal + comma


def excerpt(pieces: Sequence[bytes], keys: Keys) -> tuple[bytes, Keys]:
    """What a body in pieces says at some of its keys, without joining all of it.

    :param keys: where they begin and end in the body.
    :returns: a text, and where in that they are.
    """
    if len(pieces) == 1:
        return pieces[0], keys
    text = b""
    found = []
    ends = list(accumulate(map(len, pieces)))  # a client may send a body byte by byte
    for start, stop in keys:
        part = _part(pieces, ends, start, stop + _VALUE_BYTES)
        size = stop - start
        if not _VALUE_END.search(part, size):  # longer than anybody writes it
            return b"".join(pieces), keys
        found.append((len(text), len(text) + size))
        text += part
    return text, found


def _part(pieces: Sequence[bytes], ends: list[int], start: int, stop: int) -> bytes:
    """``body[start:stop]`` of a body in pieces, which end at ``ends``."""
    out = b""
    index = bisect_right(ends, start)
    while index < len(pieces) and len(out) < stop - start:
        at = ends[index] - len(pieces[index])
        out += pieces[index][max(start - at, 0) : stop - at]
        index += 1
    return out


def value_of(body: bytes, keys: Keys, key: bytes) -> int:
    """Offset of the value of a top-level member, or -1; of several the last, as parsers have it.

    :param keys: where the top-level keys that may be asked for begin and end, quotes included.
    :param key: with its quotes, ``b'"stream"'``.
    """
    found = -1
    for start, stop in keys:
        if stop - start == len(key) and body.startswith(key, start):
            found = value_at(body, stop)
    return found


def wants_stream(body: bytes, keys: Keys) -> bool:
    """Whether a body asks for a streamed answer: which figures of a deployment count for it."""
    at = value_of(body, keys, b'"stream"')
    return at >= 0 and body.startswith(b"true", at)


def refuse_case_variants(body: bytes) -> None:
    """Refuse a second spelling of ``model`` that only differs in case, for servers that would take it.

    Go's JSON decoder matches keys without regard to case: ``"Model"`` would overrule ``"model"``.

    :raises BadRequest: there is one at the top level.
    """
    for start, stop in keys_of(body):
        key = body[start:stop]
        if key != KEY and (text := decoded(key)) is not None and text.casefold() == "model":
            raise duplicate_model()


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


def splice(pieces: list[bytes], start: int, end: int, replacement: bytes) -> list[bytes | memoryview]:
    """The pieces of a body with ``body[start:end]`` replaced. Large pieces are not copied."""
    out: list[bytes | memoryview] = []
    placed = False
    at = 0
    for piece in pieces:
        after = at + len(piece)
        if after <= start or (placed and at >= end):
            out.append(piece)
        else:
            view: bytes | memoryview = piece if len(piece) <= BLOCK_BYTES else memoryview(piece)
            if not placed:
                out.append(view[: start - at])
                out.append(replacement)
                placed = True
            if after > end:
                out.append(view[end - at :])
        at = after
    return out


def data_url_bytes(pieces: Sequence[bytes]) -> int:
    """How many bytes of a body are base64 data URLs: they are images or sounds and not a prompt's text.

    For estimates: base64 has no spaces, text has, and of a long stretch samples are believed. Of a long text
    a URL that is less than a sixteenth of it may so be overlooked. A search of all of it costs 0.5 µs a KiB.
    """
    total = run = 0  # of all that are over, and of the one that may go on
    is_inside = False
    last = b""
    for piece in pieces:
        start, end = 0, len(piece)
        if not is_inside:
            at = (last + piece[: len(_URL) - 1]).find(_URL) if last else -1
            if at >= 0:
                is_inside, run = True, len(last) - at
            elif end > _SAMPLE_FROM_BYTES and _is_text(piece, 0, end):
                start = end
        while True:
            if not is_inside:
                start = find(piece, _URL, start, end)
                if start < 0:
                    break
                is_inside, run = True, 0
            quote = piece.find(b'"', start)
            stop = end if quote < 0 else quote
            if _has_spaces(piece, start, stop):  # it is text that has such a word in it
                is_inside = False
            else:
                run += stop - start
                if quote < 0:
                    break
                is_inside = False
                total += run
            start = stop
        last = _end(last, piece, len(_URL) - 1)
    return total + run if is_inside else total


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


def has_images(pieces: Sequence[bytes]) -> bool:
    """Whether a chat body asks for eyes: a content part of an image type, in any provider's spelling."""
    last = b""
    for piece in pieces:
        seam = last + piece[:_SEAM_BYTES] if last else b""
        for mark in _IMAGE_MARKS:
            if find(piece, mark, 0, len(piece)) >= 0 or seam.find(mark) >= 0:
                return True
        last = _end(last, piece, _SEAM_BYTES)
    return False


def _end(last: bytes, piece: bytes, size: int) -> bytes:
    """The last bytes of what has passed, for what lies across a cut."""
    return piece[-size:] if len(piece) >= size else (last + piece)[-size:]
