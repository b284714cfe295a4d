"""Finds the top-level ``model`` of a JSON body without parsing the body, on pieces as they arrive.

Why this is exact. In valid JSON the bytes ``"model"`` that no backslash precedes are always one whole string
token: the first quote opens a string, since behind a closing one no ``m`` may follow, and the second closes
it. With a colon behind, that token is a key. So what is left to know is its depth, and for that the brackets
outside of strings are counted from the front, with searches that run in C, never byte by byte.

A model said twice at the top level is an attack: a check of the first against a key's list or prices would
mean nothing, as providers take the last. So is a spelling with escapes (``"\\u006dodel"``), which other
programs between client and provider may overlook. Both are refused, wherever in the body they stand; as the
count runs along with a body that is already being sent, they are found before its last piece is, and a
provider never holds a whole body with two models.

Cost: a search for ``"model"`` and one for ``\\u006`` through the body, and the bracket count up to the last
key that looks like one. What was sent on can't be looked at later, so of a body in pieces the last 256 KiB
are kept for a count, and what leaves them is counted whether it is needed or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from proxy.errors import BadRequest

# A model's name is at most so long; what is longer is no name, and is not collected.
MAX_NAME_BYTES = 1024
# Searches skip from one interesting byte to the next as long as they lie further apart than this. Single
# bytes are found at memory speed, longer needles at about 2 GB/s: in a body that is one large image the
# difference is a factor of ten, in dense text the extra call every 8 KiB costs nothing.
BLOCK_BYTES = 8 << 10

KEY = b'"model"'
# Every way to spell the letters of "model" with escapes begins with these bytes.
_ESCAPE = b"\\u006"
_ANY_SPELLING = re.compile(rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"')
# The usual member: nothing in it that would need decoding.
_PLAIN_MEMBER = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+"([!#-\[\]-~]{1,256}+)"')
# So much of a body is kept for a count that may never be needed.
_UNCOUNTED_BYTES = 256 << 10
_LONGEST_SPELLING = 32
_WHITE_RUN = re.compile(rb"[ \t\r\n]*+")
OPENING = re.compile(rb"[ \t\r\n]*+\{[ \t\r\n]*+([\"}]?)")


class ModelSpan(NamedTuple):
    """Where the model's value stands: ``body[start:end]`` with quotes. ``name`` is None for a JSON null."""

    start: int
    end: int
    name: str | None


class BracketCounter:
    """Depth of nesting at the end of what was fed, counting brackets outside of strings only."""

    __slots__ = ("_escaped", "_in_string", "depth")

    def __init__(self) -> None:
        self.depth = 0
        self._in_string = False
        self._escaped = False  # the last byte was a backslash that escapes the next one

    def feed(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        """Count ``data[start:end]``, which follows directly on what was fed before."""
        pos = start
        end = len(data) if end is None else end
        while pos < end:
            if self._in_string and not self._escaped:
                quote = data.find(b'"', pos, end)
                if quote < 0:
                    self._escaped = _ends_escaping(data, pos, end)
                    return
                if quote - pos > BLOCK_BYTES:  # a long string: its inside need not be touched
                    self._in_string = _ends_escaping(data, pos, quote)
                    pos = quote + 1
                    continue
            stop = min(pos + BLOCK_BYTES, end)
            self._feed_block(data[pos:stop])
            pos = stop

    def _feed_block(self, block: bytes) -> None:
        if self._escaped:
            block = block[1:]
            self._escaped = False
        if block.endswith(b"\\"):
            self._escaped = _ends_escaping(block, 0, len(block))
        # Escapes matter only where one stands before a quote.
        if b'\\"' in block:
            block = block.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = block.split(b'"')
        outside = b"".join(parts[1::2] if self._in_string else parts[0::2])
        if not len(parts) & 1:
            self._in_string = not self._in_string
        self.depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")


def _ends_escaping(data: bytes, start: int, end: int) -> bool:
    """Whether ``data[start:end]`` ends with a backslash that is not itself escaped."""
    pos = end
    while pos > start and data[pos - 1] == 0x5C:
        pos -= 1
    return bool((end - pos) & 1)


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


_SEEK, _AFTER_KEY, _BEFORE_VALUE, _IN_VALUE = range(4)


def find_plain(body: bytes) -> ModelSpan | None:
    """The common case in one look: a whole body that says ``model`` once, plainly, at its top level.

    None says nothing but that a :class:`ModelScanner` has to look properly.
    """
    key = body.find(KEY)
    if key <= 0 or body[key - 1] == 0x5C:
        return None
    end = len(body)
    if find(body, KEY, key + len(KEY), end) >= 0:
        return None
    if body.find(b"\\") >= 0 and find(body, _ESCAPE, 0, end) >= 0:
        return None
    member = _PLAIN_MEMBER.match(body, key)
    if member is None or not (body[0] == 0x7B or OPENING.match(body)):
        return None
    if key > 1:  # not right behind the opening bracket: count
        counter = BracketCounter()
        counter.feed(body, 0, key)
        if counter.depth != 1:
            return None
    start, stop = member.span(1)
    return ModelSpan(start - 1, stop + 1, member[1].decode())


class ModelScanner:
    """Fed with a JSON body piece by piece, it finds the model and refuses a second one.

    ``found`` is the :class:`ModelSpan` once the value is complete; its offsets count from the body's first
    byte. It is None after the last piece if there is no top-level ``model``.
    """

    __slots__ = (
        "_begun",
        "_carry",
        "_counter",
        "_escaped_key",
        "_fed",
        "_last",
        "_state",
        "_uncounted",
        "_uncounted_bytes",
        "_value",
        "_value_at",
        "found",
    )

    def __init__(self) -> None:
        self.found: ModelSpan | None = None
        self._counter = BracketCounter()
        self._begun = False
        self._state = _SEEK
        # Pieces are counted when a key comes whose depth matters. Most bodies have none behind the model, and
        # counting costs more than passing them on.
        self._uncounted: list[tuple[bytes, int, int]] = []
        self._uncounted_bytes = 0
        self._fed = 0  # bytes fed so far, without the carry
        self._carry = b""  # a possible beginning of a key at the end of the last piece
        self._last = 0  # the byte before the carry or the next piece
        self._escaped_key = False
        self._value = b""
        self._value_at = 0

    def feed(self, piece: bytes, last: bool) -> None:
        """Take the next piece of the body; ``last`` says that it is the final one (it may be empty).

        :raises BadRequest: the body is no JSON object, its model is no usable string, or is said twice.
        """
        if self._carry:
            piece = self._carry + piece
            self._fed -= len(self._carry)
            self._carry = b""
        base = self._fed  # offset of piece[0] in the body
        self._fed += len(piece)
        if not self._begun and not self._begin(piece, last):
            return
        pos = 0
        keys = _keys(piece)
        while pos >= 0:
            if self._state == _SEEK:
                pos = self._seek(piece, pos, keys, last)
            elif self._state == _IN_VALUE:
                pos = self._in_value(piece, pos, base)
            else:
                pos = self._between(piece, pos, base)
        if piece and not self._carry:
            self._last = piece[-1]

    def _begin(self, piece: bytes, last: bool) -> bool:
        head = piece[skip_white(piece, 0) :][:1]
        if head == b"{":
            self._begun = True
        elif head or last:
            raise malformed('the body must be one JSON object, such as {"model": ..., ...}')
        return self._begun

    def _seek(self, piece: bytes, pos: int, keys: Iterator[tuple[int, int]], last: bool) -> int:
        """Look for the next top-level key from ``pos``; returns where to go on, or -1 for a need of more."""
        counter = self._counter
        for start, stop in keys:
            if start < pos or (piece[start - 1] if start else self._last) == 0x5C:
                continue
            if self._uncounted:
                self._count()
            counter.feed(piece, pos, start)
            pos = start
            if counter.depth == 1:
                self._escaped_key = stop - start != len(KEY)
                self._state = _AFTER_KEY
                return stop
        if not last:
            cut = _possible_start(piece, pos)
            self._uncounted.append((piece, pos, cut))
            self._uncounted_bytes += cut - pos
            if self._uncounted_bytes > _UNCOUNTED_BYTES:
                self._count()
            self._carry = piece[cut:]
            if self._carry and cut:
                self._last = piece[cut - 1]
        return -1

    def _count(self) -> None:
        """Count what was put off: a key has come whose depth matters, or enough is kept for that."""
        for span in self._uncounted:
            self._counter.feed(*span)
        self._uncounted.clear()
        self._uncounted_bytes = 0

    def _between(self, piece: bytes, pos: int, base: int) -> int:
        """White space, then the colon that makes the token a key; white space, then the value's beginning."""
        pos = skip_white(piece, pos)
        if pos >= len(piece):
            return -1
        if self._state == _BEFORE_VALUE:
            self._value_at = base + pos
            self._value = b""
            self._state = _IN_VALUE
            return pos
        if piece[pos] != 0x3A:  # a value, not a key: look on
            self._state = _SEEK
            return pos
        if self._escaped_key:
            raise BadRequest(
                "The body spells its 'model' key with escapes. Write it plainly.",
                code="escaped_model_key",
                param="model",
            )
        if self.found:
            raise duplicate_model()
        self._state = _BEFORE_VALUE
        return pos + 1

    def _in_value(self, piece: bytes, pos: int, base: int) -> int:
        """Collect the value's token; it may be cut anywhere."""
        begun = len(self._value)
        value = self._value + piece[pos : pos + MAX_NAME_BYTES + 2 - begun]
        length = _token_length(value)
        if not length:
            if len(value) > MAX_NAME_BYTES:
                raise BadRequest(
                    f"The 'model' is longer than {MAX_NAME_BYTES} bytes; no model has such a name.",
                    code="invalid_model",
                    param="model",
                )
            self._value = value
            return -1
        self.found = ModelSpan(self._value_at, self._value_at + length, _name(value[:length]))
        self._state = _SEEK
        return pos + length - begun


def _keys(data: bytes) -> Iterator[tuple[int, int]]:
    """Spans of every token that spells ``model``, in order."""
    end = len(data)
    if find(data, _ESCAPE, 0, end) >= 0:
        for match in _ANY_SPELLING.finditer(data):
            yield match.span()
        return
    start = 0
    while (start := find(data, KEY, start, end)) >= 0:
        stop = start + len(KEY)
        yield start, stop
        start = stop


def skip_white(data: bytes, pos: int) -> int:
    """Offset of the first byte from ``pos`` on that is no white space."""
    match = _WHITE_RUN.match(data, pos)
    return match.end() if match else pos


def _possible_start(data: bytes, pos: int) -> int:
    """Where a key cut by the end of ``data`` would begin; its length if there can be none."""
    end = len(data)
    quote = data.rfind(b'"', max(pos, end - _LONGEST_SPELLING))
    if quote < 0:
        return end
    tail = data[quote:]
    return quote if KEY.startswith(tail) or b"\\" in tail else end


def _token_length(value: bytes) -> int:
    """Length of the JSON string or ``null`` that ``value`` begins with; 0 if it is not complete yet."""
    if value[0] == 0x22:
        pos = 1
        while (quote := value.find(b'"', pos)) >= 0:
            if not _ends_escaping(value, 1, quote):
                return quote + 1
            pos = quote + 1
        return 0
    if b"null".startswith(value[:4]):
        return 4 if len(value) >= 4 else 0
    raise BadRequest(
        "The 'model' must be a string. GET /v1/models lists the names.", code="invalid_model", param="model"
    )


def _name(token: bytes) -> str | None:
    try:
        name: str | None = orjson.loads(token)
    except orjson.JSONDecodeError as error:
        raise malformed(f"the model's value: {error}") from None
    return name


def malformed(why: str) -> BadRequest:
    """The error for a body that is not JSON."""
    return BadRequest(f"The body is not valid JSON: {why}.", code="malformed_json")


def duplicate_model() -> BadRequest:
    """The error for a body with two top-level models."""
    return BadRequest(
        "The body says 'model' more than once at its top level. Say it once.",
        code="duplicate_model",
        param="model",
    )
