"""Finds the top-level ``model`` of a JSON body, and the other keys the gateway asks for, on pieces as they
arrive, without parsing them.

:mod:`proxy.outline` tells the keys of depth 1; here is what becomes of them across pieces, and what is
refused. A model said twice at the top level is an attack: a check of the first against a key's list or prices
would mean nothing, as providers take the last. So is a spelling with escapes (``"\\u006dodel"``), which other
programs between client and provider may overlook. Both are refused, wherever in the body they stand; as the
pass runs along with a body that is already being sent, they are found before its last piece is, and a
provider never holds a whole body with two models.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

from proxy.errors import BadRequest
from proxy.lines import remember
from proxy.outline import COLON_NEXT, OUTSIDE, end_of_string, outline, skip_white, value_at

# A model's name is at most so long; what is longer is no name, and is not collected.
MAX_NAME_BYTES: Final = 1024

# Nearly all are shorter than this, and come again.
_SHORT_NAME_BYTES: Final = 80

KEY: Final = b'"model"'
# With six bytes for each letter; what is longer is none of ours in any spelling.
_LONGEST_KEY: Final = 160
OPENING: Final = re.compile(rb"[ \t\r\n]*+\{[ \t\r\n]*+([\"}]?)")
# The other keys that are asked for: see :mod:`proxy.asked` for the spellings that count.
_ASKED_FOR: Final = frozenset(
    ("max_tokens", "max_completion_tokens", "max_output_tokens", "n", "best_of", "stream", "tools")
)
# First letters of all of them, in either case; a backslash may stand for any.
_IS_FIRST: Final = bytes(byte in b"mMnNbBsStT\\" for byte in range(256))
# Each of them once or twice is a body; hundreds are an attempt to have us remember them.
_MAX_KEYS: Final = 100

# What a key is to us.
_MODEL: Final = 0
_ASKED: Final = 1
_ESCAPED_MODEL: Final = 2
_NOTHING: Final = 3
_kinds: Final[dict[bytes, int]] = {}  # of keys seen before
_names: Final[dict[bytes, str]] = {}  # of models' values


class ModelSpan:
    """Where the model's value stands: ``body[start:end]`` with quotes. ``name`` is None for a JSON null."""

    __slots__ = ("end", "name", "start")

    def __init__(self, start: int, end: int, name: str | None) -> None:
        self.start = start
        self.end = end
        self.name = name

    def __repr__(self) -> str:
        return f"ModelSpan({self.start}, {self.end}, {self.name!r})"


class ModelScanner:
    """Fed with a JSON body piece by piece, it finds the model and refuses a second one.

    ``found`` is the :class:`ModelSpan` once the value is complete; its offsets count from the body's first
    byte. It is None after the last piece if there is no top-level ``model``. ``keys``: where top-level keys
    that may be asked for begin and end, quotes included, ``model`` not among them.
    """

    __slots__ = ("_begun", "_carry", "_depth", "_fed", "_mode", "_pending", "_value_is_next", "found", "keys")

    def __init__(self) -> None:
        self.found: ModelSpan | None = None
        self.keys: list[tuple[int, int]] = []
        self._begun = False
        self._depth = 0
        self._mode = OUTSIDE
        self._fed = 0  # bytes fed so far, without the carry
        self._carry = b""  # what is to be seen again with the next piece: a key or the model's value, cut
        # A string whose colon may come next: begin, end, and its bytes if it matters.
        self._pending = (0, 0, b"")
        self._value_is_next = False  # the model's value is what comes next

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
        if self._mode == COLON_NEXT:
            pos = skip_white(piece, 0)
            if pos >= len(piece):
                return
            self._mode = OUTSIDE
            if piece[pos] == 0x3A:
                begin, stop, key = self._pending
                if key:
                    self._take(key, begin, stop)
                pos += 1
        if self._value_is_next and not self._take_value(piece, pos, base):
            return
        keys, self._depth, mode = outline(piece, pos, self._depth, self._mode)
        self._mode = mode
        count = len(keys)
        if mode == COLON_NEXT:
            count -= 2
            begin, stop = keys[count], keys[count + 1]
            key = piece[begin:stop] if _may_matter(piece, begin, stop) else b""
            self._pending = base + begin, base + stop, key
        for at in range(0, count - 1, 2):
            begin, stop = keys[at], keys[at + 1]
            if not _may_matter(piece, begin, stop):
                continue
            self._take(piece[begin:stop], base + begin, base + stop)
            if self._value_is_next and not self._take_value(piece, value_at(piece, stop), base):
                return
        if count & 1 and not last:
            self._keep(piece, keys[count - 1])

    def _begin(self, piece: bytes, last: bool) -> bool:
        if piece and piece[0] == 0x7B:
            self._begun = True
            return True
        head = piece[skip_white(piece, 0) :][:1]
        if head == b"{":
            self._begun = True
        elif head or last:
            raise malformed('the body must be one JSON object, such as {"model": ..., ...}')
        return self._begun

    def _take(self, key: bytes, begin: int, stop: int) -> None:
        """A top-level key that may matter."""
        kind = _kinds.get(key, -1)
        if kind < 0:
            kind = _kind_of(key)
            remember(_kinds, key, kind)
        if kind == _MODEL:
            if self.found is not None:
                raise duplicate_model()
            self._value_is_next = True
        elif kind == _ASKED:
            self.keys.append((begin, stop))
            if len(self.keys) > _MAX_KEYS:
                raise malformed(f"it says '{key[1:-1].decode()}' and the like more than {_MAX_KEYS} times")
        elif kind == _ESCAPED_MODEL:
            raise BadRequest(
                "The body spells its 'model' key with escapes. Write it plainly.",
                code="escaped_model_key",
                param="model",
            )

    def _take_value(self, piece: bytes, pos: int, base: int) -> bool:
        """Read the model's value, which begins at ``pos`` or behind white space there; False if it is cut."""
        if pos < len(piece) and piece[pos] != 0x22:
            pos = skip_white(piece, pos)
        if pos >= len(piece):
            return True  # nothing but white space: the outline goes on behind it
        quote = piece.find(b'"', pos + 1, pos + _SHORT_NAME_BYTES)
        # Nearly always. What is cut at an escaped quote is not in the table, which has whole strings only.
        if quote > 0 and (name := _names.get(piece[pos : quote + 1])) is not None:
            self.found = ModelSpan(base + pos, base + quote + 1, name)
            self._value_is_next = False
            return True
        value = piece[pos : pos + MAX_NAME_BYTES + 2]
        length = _token_length(value)
        if length:
            token = value[:length]
            name = _name(token)
            self.found = ModelSpan(base + pos, base + pos + length, name)
            self._value_is_next = False
            if name is not None and length <= _SHORT_NAME_BYTES:
                remember(_names, token, name)
            return True
        if len(value) > MAX_NAME_BYTES:
            raise BadRequest(
                f"The 'model' is longer than {MAX_NAME_BYTES} bytes; no model has such a name.",
                code="invalid_model",
                param="model",
            )
        # Seen again, together with what follows, from the depth and mode at its beginning.
        self._depth, self._mode = 1, OUTSIDE
        self._carry = piece[pos:]
        return False

    def _keep(self, piece: bytes, begin: int) -> None:
        """A string of depth 1 is cut: if it may be a key that matters, it is seen again with what follows."""
        tail = piece[begin : begin + _LONGEST_KEY + 1]
        if len(tail) <= _LONGEST_KEY and (len(tail) == 1 or _IS_FIRST[tail[1]] or tail[1] >= 0x80):
            self._mode = OUTSIDE
            self._carry = tail


def _kind_of(key: bytes) -> int:
    """What a key is to us."""
    if key == KEY:
        return _MODEL
    word = decoded(key)
    if word is None:
        return _NOTHING
    if word == "model":
        return _ESCAPED_MODEL
    return _ASKED if word.casefold() in _ASKED_FOR else _NOTHING


def _may_matter(piece: bytes, begin: int, stop: int) -> bool:
    """Whether a key may be one of ours, by its length and first letter."""
    first = piece[begin + 1]
    return stop - begin <= _LONGEST_KEY and (_IS_FIRST[first] != 0 or first >= 0x80)


def decoded(key: bytes) -> str | None:
    """What a key says; None if it is no JSON string, or one that no word of ours is equal to."""
    try:
        text: str | None = orjson.loads(key)
    except orjson.JSONDecodeError:
        return None
    return text


def _token_length(value: bytes) -> int:
    """Length of the JSON string or ``null`` that ``value`` begins with; 0 if it is not complete yet."""
    if value[0] == 0x22:
        return end_of_string(value, 1) + 1
    if b"null".startswith(value[:4]):
        return 4 if len(value) >= 4 else 0
    raise BadRequest(
        "The 'model' must be a string. GET /v1/models lists the names.", code="invalid_model", param="model"
    )


def _name(token: bytes) -> str | None:
    if token.isascii() and token[0] == 0x22 and token.find(b"\\") < 0:
        plain = token[1:-1].decode("ascii")
        if plain.isprintable():  # nearly always
            return plain
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
