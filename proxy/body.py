"""Questions to a whole body and edits of it, without parsing it.

What stands at the top level is told by :mod:`proxy.outline`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

import orjson

from proxy.outline import keys_of, value_at
from proxy.scanner import KEY, OPENING, decoded, duplicate_model, malformed

# Searches skip from one interesting byte to the next as long as they lie further apart than this. Single
# bytes are found at memory speed, longer needles at about 2 GB/s: in a body that is one large image the
# difference is a factor of ten, in dense text the extra call every 8 KiB costs nothing.
BLOCK_BYTES: Final = 8 << 10
_SAMPLE_FROM_BYTES: Final = 8 << 10
_SAMPLE_EVERY: Final = 2 << 10
_SAMPLE_BYTES: Final = 256


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


def value_of(body: bytes, keys: Sequence[tuple[int, int]], key: bytes) -> int:
    """Offset of the value of a top-level member, or -1; of several the last, as parsers have it.

    :param keys: where the top-level keys that may be asked for begin and end, quotes included.
    :param key: with its quotes, ``b'"stream"'``.
    """
    found = -1
    for start, stop in keys:
        if stop - start == len(key) and body.startswith(key, start):
            found = value_at(body, stop)
    return found


def wants_stream(body: bytes, keys: Sequence[tuple[int, int]]) -> bool:
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


def data_url_bytes(body: bytes) -> int:
    """How many bytes of a body are base64 data URLs: they are images or sounds and not a prompt's text.

    For estimates. A search through dense text costs 0.5 µs a KiB, so in a large body samples decide whether
    it is made: base64 has no spaces, text has.
    """
    total = start = 0
    end = len(body)
    if end > _SAMPLE_FROM_BYTES and all(
        body.find(b" ", at, at + _SAMPLE_BYTES) >= 0 for at in range(0, end, _SAMPLE_EVERY)
    ):
        return 0
    while (start := find(body, b";base64,", start, end)) >= 0:
        quote = body.find(b'"', start)
        stop = end if quote < 0 else quote
        if body.find(b" ", start, stop) < 0:  # else it is text that has such a word in it
            total += stop - start
        start = stop
    return total


def has_images(body: bytes) -> bool:
    """Whether a chat body asks for eyes: a content part of an image type, in any provider's spelling."""
    return any(find(body, mark, 0, len(body)) >= 0 for mark in (b'"image_url"', b'"input_image"', b'"image"'))
