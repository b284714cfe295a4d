"""References in a body, to things it does not hold: an earlier response, a conversation, a stored prompt,
files, URLs.

A provider reads them as part of the prompt, and of their size nothing shows here. Names are looked for in the
whole body; whether one refers to something is told by its value, and by the object that it stands in as far
as that can be seen: what a tool is called with, what was found, and schemas have members of such names too. A
``url`` counts in a ``source`` and in what such names hold, and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from proxy.endpoints import ROWS
from proxy.wire.json_body import ends_of, part_of
from proxy.wire.json_strings import names
from proxy.wire.model_scanner import decoded
from proxy.wire.outline import end_of_string, skip_white, value_at

# Where prompts may hold references.
REFERRING: Final = frozenset([row.name for row in ROWS if row.takes_references])
# What :func:`referred` says where it may be as much as a model takes.
UNKNOWN: Final = -1
# Up to this many names are looked at, which takes up to 10 ms; with more the size is unknown.
MOST_NAMES: Final = 1_000
_URLS: Final = frozenset({"file_url", "video_url", "audio_url", "document_url", "file_uri"})
_STATE: Final = frozenset({"previous_response_id", "conversation"})
_OTHERS: Final = ("image_url", "source", "file_id", "file_ids", "file_data", "container", "item_reference")
_WORDS: Final = b'"%b"' % '"'.join((*sorted(_URLS), *sorted(_STATE), *_OTHERS)).encode()
# Those that others stand beside, or in: as escapes they hide what these are.
_HELPERS: Final = frozenset({"type", "url", "input"})
# On either side of a cut: the longest name, each letter as an escape, and more.
_SEAM_BYTES: Final = 170
# What stands before a name and behind it, as far as it is looked at: URLs may be long.
_BEFORE_BYTES: Final = 512
_BEHIND_BYTES: Final = 4 << 10
# What stands beside a file that a response tells of is short, and so are extra members.
_NOTE_BYTES: Final = 512
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
_W: Final = rb"[ \t\r\n]{0,64}+"
_FLAT: Final = rb'"[^"\\]*+"%b:%b(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|[^"{}\[\],:]++)%b'.replace(b"%b", _W)
# The members of an object before one of its own, and behind: those that hold no other, and are few.
_MEMBERS_BEFORE: Final = re.compile(
    rb"\{%b(?:%f,%b){0,12}+\Z".replace(b"%f", _FLAT).replace(b"%b", _W), re.DOTALL
)
_MEMBERS_BEHIND: Final = re.compile(
    rb"(?:,%b%f){0,12}+\}".replace(b"%f", _FLAT).replace(b"%b", _W), re.DOTALL
)
# Behind a value: the next member, and one with a string.
_NEXT: Final = re.compile(rb'[^"{}\[\],:]*+[,}]')
_NEXT_STRING: Final = re.compile(rb'%b(?:\}|,%b"[^"\\]{0,64}+"%b:%b")'.replace(b"%b", _W))
# An object with more members is none that is looked for, and these are long.
_MOST_MEMBERS: Final = 8
_LONG: Final = frozenset((b'"url"', b'"data"'))
_OPENING: Final = frozenset((b"{", b"["))
# Members that hold others, of a document that is there and of schemas; and what may come behind any other.
_HOLDING: Final = frozenset(
    (b'"content"', b'"properties"', b'"anyof"', b'"oneof"', b'"allof"', b'"items"', b'"enum"')
)
_LINK: Final = re.compile(rb'"url"%b:%b"(?!data:)'.replace(b"%b", _W), re.IGNORECASE)
_TYPE: Final = re.compile(rb'"type"%b:%b"([^"]*)"'.replace(b"%b", _W), re.IGNORECASE)
# What leads to an object that is no part of a prompt: what a tool is called with, and what a schema shows.
_NO_PART: Final = re.compile(rb'"(?:input|arguments|args|example|default)"%b:%b\Z'.replace(b"%b", _W))
# What a response refers to, which is sent back with it. Those files are not read again.
_TOLD: Final = frozenset(
    (b"file_citation", b"file_path", b"container_file_citation", b"code_execution_output",
     b"bash_code_execution_output")
)  # fmt: skip
# A part that is a picture, around its source: nothing else may say what it is.
_CACHE: Final = rb'"cache_control"%b:%b(?:null|\{[^{}]{0,64}\})%b'
_IMAGE: Final = rb'"type"%b:%b"image"%b'
_IMAGE_BEFORE: Final = re.compile(
    (rb"\{%b(?:" + _CACHE + rb",%b)?" + _IMAGE + rb",%b(?:" + _CACHE + rb",%b)?\Z").replace(b"%b", _W)
)
_IMAGE_BEHIND: Final = re.compile(
    (rb"%b,%b(?:" + _CACHE + rb",%b)?" + _IMAGE + rb"(?:,%b" + _CACHE + rb")?\}").replace(b"%b", _W)
)
_NONE_BEFORE: Final = re.compile((rb"\{%b(?:" + _CACHE + rb",%b)?\Z").replace(b"%b", _W))
_NONE_BEHIND: Final = re.compile((rb"%b(?:,%b" + _CACHE + rb")?\}").replace(b"%b", _W))


class ReferenceFinder:
    """Finds the names in a body as it comes in, to be judged once all of it is there."""

    __slots__ = ("_at", "_spans", "_tail")

    def __init__(self) -> None:
        self._at = 0  # in the body, where the piece begins
        self._spans: dict[int, int] = {}  # where they begin and end
        self._tail = b""  # the last bytes: a name that is cut

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        left = MOST_NAMES - len(self._spans)
        if left <= 0:
            return
        begin = self._at
        found = names(piece, 0, _WORDS, left)
        for at in range(0, len(found), 2):
            self._spans[begin + found[at]] = begin + found[at + 1]
        if self._tail:
            low, cut = begin - len(self._tail), len(self._tail)
            found = names(self._tail + piece[:_SEAM_BYTES], 0, _WORDS, MOST_NAMES)
            for at in range(0, len(found), 2):
                if found[at] <= cut <= found[at + 1]:
                    self._spans[low + found[at]] = low + found[at + 1]
        self._tail = (
            piece[-_SEAM_BYTES:] if len(piece) >= _SEAM_BYTES else (self._tail + piece)[-_SEAM_BYTES:]
        )
        self._at = begin + len(piece)

    def referred(self, pieces: Sequence[bytes], endpoint: str) -> int:
        """Return the number of pictures a body refers to by URL; :data:`UNKNOWN`: it refers to more than
        pictures.

        :param pieces: of the whole body. :param endpoint: one of :data:`REFERRING`.
        """
        if len(self._spans) >= MOST_NAMES:
            return UNKNOWN
        ends, pictures = ends_of(pieces), 0
        for start, stop in self._spans.items():
            low = max(start - _BEFORE_BYTES, 0)
            text = part_of(pieces, ends, low, stop + _BEHIND_BYTES)
            found = _judge(text, start - low, stop - low, endpoint)
            if found == UNKNOWN:
                return UNKNOWN
            pictures += found
        return pictures


def referred(pieces: Sequence[bytes], endpoint: str) -> int:
    """:meth:`Names.referred` of a body that is there."""
    found = ReferenceFinder()
    for piece in pieces:
        found.feed(piece)
    return found.referred(pieces, endpoint)


def _judge(text: bytes, start: int, stop: int, endpoint: str) -> int:  # noqa: PLR0911  # case by case
    """Return the reference in ``text[start:stop]``, a string of its own if there are quotes around it."""
    if text[start - 1 : start] != b'"' or not start:
        return 0  # its beginning was cut off
    name = (decoded(text[start - 1 : stop + 1]) or "").lower()
    if name == "item_reference":
        return UNKNOWN
    at = skip_white(text, stop + 1)
    if text[at : at + 1] not in (b":", b""):
        return 0  # no key
    if name in _HELPERS:
        return UNKNOWN  # spelled with an escape, else it would not be looked for
    at = skip_white(text, at + 1)
    opening = text[at : at + 1]
    if _NULL.match(text, at):
        return 0
    if not opening:  # no program writes this much white space
        return UNKNOWN
    if _is_told(text, start - 1, at, name, endpoint):
        return 0
    if name == "image_url" or name in _URLS:
        url = _url_at(text, at)
        return 0 if url <= 0 else url if name == "image_url" else UNKNOWN
    if name == "source":
        return _source(text, start - 1, at)
    if name == "file_data":
        return UNKNOWN if text[at + 1 : at + 5].lower() == b"http" or text[at + 1] == 0x5C else 0
    if name in _STATE and endpoint != "responses":
        return 0
    return UNKNOWN if opening in _REFERS_BY.get(name, ()) and not _TYPED.match(text, at) else 0


def _is_told(text: bytes, start: int, value: int, name: str, endpoint: str) -> bool:
    """Return whether a member, whose key begins at ``start``, stands in what a tool is called with, or in
    what a response says of its sources."""
    brace = text.rfind(b"{", 0, start)
    if brace < 0 or (before := _MEMBERS_BEFORE.match(text[:start], brace)) is None:
        return False
    # In a body for responses the input is the prompt.
    if endpoint != "responses" and _NO_PART.search(text[max(brace - 200, 0) : brace]):
        return True
    if name != "file_id" or text[value : value + 1] != b'"':
        return False
    end = end_of_string(text, value + 1) + 1
    behind = _MEMBERS_BEHIND.match(text, skip_white(text, end), end + _NOTE_BYTES) if end else None
    if behind is None:
        return False
    types = _TYPE.findall(before[0]) + _TYPE.findall(behind[0])
    return len(types) > 0 and all(each in _TOLD for each in types)


def _url_at(text: bytes, at: int) -> int:
    """Return whether there is a URL in a value, or right in the object that it is: 1, else 0."""
    if text[at : at + 1] == b'"':
        return 0 if text.startswith(b'"data:', at) else 1
    return 0 if text[at : at + 1] != b"{" else _members(text, at)[0]


def _members(text: bytes, at: int) -> tuple[int, int]:  # noqa: PLR0911  # case by case
    """Of the object at ``text[at]``: 1 if a URL is right in it, or may be; and where it ends, or -1: that is
    not seen."""
    for _ in range(_MOST_MEMBERS):
        at = skip_white(text, at + 1)
        if text[at : at + 1] == b"}":
            return 0, at + 1
        end = end_of_string(text, at + 1) if text[at : at + 1] == b'"' else -1
        value = skip_white(text, skip_white(text, end + 1) + 1)
        if end < 0 or value >= len(text):
            return 1, -1
        word = text[at : end + 1].lower()
        is_string = text[value : value + 1] == b'"'
        if word == b'"url"' and is_string and not text.startswith(b'"data:', value):
            return 1, _end_of(text, value)
        if is_string:
            at = end_of_string(text, value + 1) + 1
            if not at:  # what it says of what it holds comes before that
                return int(word not in _LONG), -1
        elif text[value : value + 1] in _OPENING:
            return int(
                word not in _HOLDING and _LINK.search(text, value, value + _NOTE_BYTES) is not None
            ), -1
        else:
            at = value
        match = _NEXT.match(text, at)
        if match is None:
            return 1, -1
        at = match.end() - 1
        if match[0].endswith(b"}"):
            return 0, at + 1
    return 1, -1


def _end_of(text: bytes, at: int) -> int:
    """Return the end of the object in which a string begins at ``at``; -1: it holds others, or is long."""
    for _ in range(_MOST_MEMBERS):
        at = end_of_string(text, at + 1) + 1
        match = _NEXT_STRING.match(text, at) if at else None
        if match is None:
            return -1
        at = match.end() - 1
        if match[0].endswith(b"}"):
            return at + 1
    return -1


def _source(text: bytes, start: int, at: int) -> int:
    """Return the reference of a ``source`` whose key begins at ``start`` and its value at ``at``."""
    if text[at : at + 1] != b"{":
        return 0  # where something was found
    url, end = _members(text, at)
    if not url:
        return 0
    before = text[:start]
    brace = before.rfind(b"{", 0, start)
    if b"cache_control" in before[brace - 100 if brace > 100 else 0 :]:
        brace = before.rfind(b"{", 0, max(brace, 0))
    if brace < 0 or end < 0:
        return UNKNOWN
    is_one = (_IMAGE_BEFORE.match(before, brace) and _NONE_BEHIND.match(text, end)) or (
        _NONE_BEFORE.match(before, brace) and _IMAGE_BEHIND.match(text, end)
    )
    return 1 if is_one else UNKNOWN


def has_stored_prompt(text: bytes, keys: Sequence[tuple[int, int]]) -> bool:
    """Return whether a body for the Responses API names a prompt that is stored at the provider.

    :param keys: where the top-level keys that may be asked for begin and end in ``text``.
    """
    for start, stop in keys:
        word = decoded(text[start:stop])
        if word is not None and word.lower() == "prompt" and not _NULL.match(text, value_at(text, stop)):
            return True
    return False
