"""What a body refers to and does not hold: an earlier response, a conversation, a stored prompt, files, URLs.

A provider reads them as part of the prompt, and of their size nothing shows here. Names are looked for in the
whole body, in whatever object they stand, and only their values tell whether they refer to anything: a schema
may have a property of such a name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.body import ends_of, part_of
from proxy.outline import skip_white, value_at
from proxy.scanner import decoded
from proxy.strings import names

# Where prompts may hold references.
REFERRING: Final = frozenset({"chat", "responses", "messages"})
# What :func:`referred` says where it may be as much as a model takes.
UNKNOWN: Final = -1
_DOCUMENT: Final = -2
_KINDS: Final = {"item_reference": UNKNOWN, "document": _DOCUMENT}
_URLS: Final = frozenset({"url", "image_url", "file_url", "video_url", "audio_url", "file_uri"})
_STATE: Final = frozenset({"previous_response_id", "conversation"})
_OTHERS: Final = ("file_id", "file_ids", "file_data", "container", "item_reference", "document")
_WORDS: Final = b'"%b"' % '"'.join((*sorted(_URLS), *sorted(_STATE), *_OTHERS)).encode()
# On either side of a cut: the longest name, each letter as an escape, and more.
_SEAM_BYTES: Final = 170
# What stands before a name and behind it, as far as it is looked at.
_BEFORE_BYTES: Final = 128
_BEHIND_BYTES: Final = 64
_W: Final = rb"[ \t\r\n]{0,32}"
_IMAGE: Final = re.compile(rb'"image_url"%b:%b\{%b(?:"detail"%b:%b"[a-z]{0,16}"%b,%b)?"\Z'.replace(b"%b", _W))
# Anthropic's; with documents beside them, either could be meant.
_SOURCE: Final = re.compile(
    rb'"type"%b:%b"image"%b,%b"source"%b:%b\{%b"type"%b:%b"url"%b,%b"\Z'.replace(b"%b", _W)
)
_NULL: Final = re.compile(rb"null\b")
# How a value begins that refers to something; an object with a type is a property of a schema, or a new one.
_REFERS_BY: Final = {
    "file_id": (b'"',),
    "file_ids": (b"[",),
    "container": (b'"', b"{"),
    "conversation": (b'"', b"{"),
    "previous_response_id": (b'"',),
}
_TYPED: Final = re.compile(rb'\{[ \t\r\n]*"type"')


def referred(pieces: Sequence[bytes], endpoint: str) -> int:
    """How many pictures a body refers to by URL; :data:`UNKNOWN`: there is more than pictures.

    :param pieces: of a whole body. :param endpoint: one of :data:`REFERRING`.
    """
    if len(pieces) == 1 and not names(pieces[0], 0, _WORDS):  # nearly always
        return 0
    ends, pictures, has_documents, begin = ends_of(pieces), 0, False, 0
    judged: set[int] = set()
    for piece in pieces:
        spans = names(piece, 0, _WORDS)
        if begin:
            low = max(begin - _SEAM_BYTES, 0)
            seam = names(part_of(pieces, ends, low, begin + _SEAM_BYTES), 0, _WORDS)
            for at in range(0, len(seam), 2):
                if low + seam[at] <= begin <= low + seam[at + 1]:
                    spans += low + seam[at] - begin, low + seam[at + 1] - begin
        for at in range(0, len(spans), 2):
            start, stop = begin + spans[at], begin + spans[at + 1]
            if start in judged:  # near a cut it is found twice
                continue
            judged.add(start)
            low = max(start - _BEFORE_BYTES, 0)
            text = part_of(pieces, ends, low, stop + _BEHIND_BYTES)
            found = _judge(text, start - low, stop - low, endpoint)
            if found == UNKNOWN:
                return UNKNOWN
            has_documents = has_documents or found == _DOCUMENT
            pictures += found == 1
        begin += len(piece)
    return UNKNOWN if pictures and has_documents and endpoint == "messages" else pictures


def _judge(text: bytes, start: int, stop: int, endpoint: str) -> int:  # noqa: PLR0911  # case by case
    """What ``text[start:stop]`` refers to, a string of its own if there are quotes around it."""
    if text[start - 1 : start] != b'"' or not start:
        return 0  # its beginning was cut off
    name = (decoded(text[start - 1 : stop + 1]) or "").lower()
    if name in _KINDS:
        return _KINDS[name]
    at = skip_white(text, stop + 1)
    if text[at : at + 1] not in (b":", b""):
        return 0  # no key
    at = skip_white(text, at + 1)
    opening = text[at : at + 1]
    if _NULL.match(text, at):
        return 0
    if not opening:  # nobody writes so much white space
        return UNKNOWN
    if name in _URLS:
        if opening != b'"' or text.startswith(b'"data:', at):
            return 0
        is_picture = name == "image_url" or (
            name == "url" and (_SOURCE if endpoint == "messages" else _IMAGE).search(text[:start])
        )
        return 1 if is_picture else UNKNOWN
    if name == "file_data":
        return UNKNOWN if text[at + 1 : at + 5].lower() == b"http" or text[at + 1] == 0x5C else 0
    if name in _STATE and endpoint != "responses":
        return 0
    return UNKNOWN if opening in _REFERS_BY.get(name, ()) and not _TYPED.match(text, at) else 0


def has_stored_prompt(text: bytes, keys: Sequence[tuple[int, int]]) -> bool:
    """Whether a body for the Responses API names a prompt that is stored at the provider.

    :param keys: where the top-level keys that may be asked for begin and end in ``text``.
    """
    for start, stop in keys:
        word = decoded(text[start:stop])
        if word is not None and word.lower() == "prompt" and not _NULL.match(text, value_at(text, stop)):
            return True
    return False
