"""Questions to a whole body and edits of it, without parsing it.

They rest on what :mod:`proxy.scanner` explains: a quoted word that no backslash precedes is a whole string
token, and its depth is told by the brackets before it.
"""

from __future__ import annotations

import json
import re

import orjson

from proxy.scanner import (
    BLOCK_BYTES,
    KEY,
    OPENING,
    BracketCounter,
    duplicate_model,
    find,
    malformed,
    skip_white,
)

_ANY_CASE = re.compile(rb'"(?:m|\\u00[46]d)(?:o|\\u00[46]f)(?:d|\\u00[46]4)(?:e|\\u00[46]5)(?:l|\\u00[46]c)"')
_END_BYTES = 8 << 10  # where `stream` is looked for in a large body
_STREAM_TRUE = re.compile(rb'"stream"[ \t\r\n]*+:[ \t\r\n]*+true')
_SAMPLE_FROM_BYTES, _SAMPLE_EVERY, _SAMPLE_BYTES = 8 << 10, 2 << 10, 256


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


def value_of(body: bytes, key: bytes) -> int:
    """Offset of the value of the top-level member ``key`` (plain spelling) in a whole body, or -1.

    :param key: with its quotes, ``b'"stream"'``. It must hold no backslash.
    """
    end = len(body)
    start = find(body, key, 0, end)
    if start < 0:  # most keys asked for are not there
        return -1
    counter = BracketCounter()
    counted = 0
    while start >= 0:
        stop = start + len(key)
        if start and body[start - 1] != 0x5C:
            colon = skip_white(body, stop)
            if body[colon : colon + 1] == b":":
                counter.feed(body, counted, start)
                counted = start
                if counter.depth == 1:
                    return skip_white(body, colon + 1)
        start = find(body, key, stop, end)
    return -1


def refuse_case_variants(body: bytes) -> None:
    """Refuse a second spelling of ``model`` that only differs in case, for servers that would take it.

    Go's JSON decoder matches keys without regard to case: ``"Model"`` would overrule ``"model"``.

    :raises BadRequest: there is one at the top level.
    """
    lowered = body.lower()
    counter = BracketCounter()
    counted = 0
    seen = 0
    for match in _ANY_CASE.finditer(lowered):
        start, stop = match.span()
        if start and lowered[start - 1] == 0x5C:
            continue
        counter.feed(body, counted, start)
        counted = start
        if counter.depth != 1:
            continue
        colon = skip_white(body, stop)
        if body[colon : colon + 1] == b":":
            seen += 1
            if seen > 1 or body[start:stop] != KEY:
                raise duplicate_model()


def wants_stream(body: bytes) -> bool:
    """Whether a body asks for a streamed answer: which figures of a deployment count for it.

    Clients write ``stream`` beside the model, before or behind the messages. In a large body only its ends
    are looked at; what really comes is seen by the answer.
    """
    if len(body) <= 2 * _END_BYTES:
        return body.find(b'"stream"') >= 0 and body.startswith(b"true", value_of(body, b'"stream"'))
    for start, end in ((0, _END_BYTES), (len(body) - _END_BYTES, len(body))):
        at = body.find(b'"stream"', start, end)
        if at >= 0 and body[at - 1] != 0x5C and _STREAM_TRUE.match(body, at):
            return True
    return False


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
