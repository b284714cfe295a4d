"""Finds the top-level ``model`` of a JSON body, and the other keys the gateway asks for, on pieces as they
arrive, without parsing them.

:mod:`proxy.wire.outline` tells the keys of depth 1; here is what becomes of them across pieces, and what is
refused. A model said twice at the top level is an attack: a check of the first against a key's list or prices
would mean nothing, as providers take the last. So is a spelling with escapes (``"\\u006dodel"``), which other
programs between client and provider may overlook. Both are refused, wherever in the body they stand; as the
pass runs along with a body that is already being sent, they are found before its last piece is, and a
provider never holds a whole body with two models.
"""

from __future__ import annotations

from typing import Final

import orjson

from proxy.errors import BadRequest
from proxy.wire.header_lines import remember
from proxy.wire.outline import (
    BROKEN,
    COLON_NEXT,
    ENDED,
    LONGEST_KEY_BYTES,
    MOST_KEYS,
    OUTSIDE,
    VALUE_NEXT,
    end_of_string,
    outline,
    skip_white,
)

# The longest name of a model; a longer value is not a name, and is not collected.
MAX_NAME_BYTES: Final = 1024

# Nearly all are shorter than this, and come again.
_SHORT_NAME_BYTES: Final = 80

KEY: Final = b'"model"'
# The other keys that are asked for: see :mod:`proxy.wire.output_limits` for the spellings that count.
_ASKED_FOR: Final = frozenset(
    (
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n",
        "best_of",
        "background",
        "deferred",
        "prompt",
        "stream",
        "stream_options",
        "tools",
    )
)
# All of them in their usual spelling.
PLAIN_KEYS: Final = frozenset(f'"{word}"'.encode() for word in _ASKED_FOR)
# First letters of all of them, in either case; and of __proto__.
_WANTED: Final = bytes(byte in b"mMnNbBdDpPsStT_" for byte in range(256))
# Each of them once or twice is a body; hundreds are an attempt to have us remember them.
_MAX_KEYS: Final = 100

# What a key is to us.
_MODEL: Final = 0
_ASKED: Final = 1
_ESCAPED_MODEL: Final = 2
_NOTHING: Final = 3
_MODEL_IN_OTHER_CASE: Final = 4
_BAD_KEY: Final = 5
_PROTOTYPE: Final = 6
_kinds: Final[dict[bytes, int]] = {}  # of keys seen before
_names: Final[dict[bytes, str]] = {}  # of models' values


class ModelSpan:
    """Place of the model's value: ``body[start:end]`` with quotes. ``name`` is None for a JSON null."""

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
    that may be asked for begin and end, quotes included, ``model`` not among them; ``cut``: of one
    that began before the latest piece the text, and perhaps more. ``begin``: offset of the object's brace.
    ``has_case_variant``: a key is ``model`` but for its case.
    """

    __slots__ = (
        "_begun", "_carry", "_fed", "_mode", "_open", "_pending", "_told", "_value_is_next", "begin",
        "cut", "found", "has_case_variant", "keys",
    )  # fmt: skip

    def __init__(self) -> None:
        self.found: ModelSpan | None = None
        self.keys: list[tuple[int, int]] = []
        self.cut = b""
        self.begin = 0
        self.has_case_variant = False
        self._begun = False
        self._open = b""  # brackets
        self._mode = OUTSIDE
        self._fed = 0  # bytes fed so far, without the carry
        self._carry = b""  # what is to be seen again with the next piece: a key or the model's value, cut
        # A key whose colon comes next: begin, end, and its bytes.
        self._pending = (0, 0, b"")
        self._value_is_next = False  # the model's value is what comes next
        self._told = 0  # keys that were looked at

    def feed(self, piece: bytes, last: bool) -> None:
        """Take the next piece of the body; ``last`` says that it is the final one (it may be empty).

        :raises BadRequest: the body is no JSON object, its model is no usable string, or is said twice.
        """
        self._feed(piece, last)
        if last and self.found is None and self._mode != ENDED:
            raise malformed("it ends before its object does")

    def _feed(self, piece: bytes, last: bool) -> None:
        if self._carry:
            piece = self._carry + piece
            self.cut = piece[:LONGEST_KEY_BYTES]
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
            if piece[pos] != 0x3A:
                raise misplaced(piece[pos], base + pos)
            begin, stop, key = self._pending
            self.cut = key
            self._take(key, begin, stop)
            self._mode = VALUE_NEXT
            pos += 1
        if self._value_is_next and not self._take_value(piece, pos, base):
            return
        keys, self._open, mode = outline(piece, pos, self._open, self._mode, _WANTED)
        self._mode = mode
        count = len(keys)
        if mode == COLON_NEXT:
            count -= 2
            begin, stop = keys[count], keys[count + 1]
            # Of one that is too long, as much as shows that.
            self._pending = base + begin, base + stop, piece[begin : min(stop, begin + LONGEST_KEY_BYTES + 1)]
        for at in range(0, count - 1, 2):
            begin, stop = keys[at], keys[at + 1]
            self._take(piece[begin:stop], base + begin, base + stop)
            if self._value_is_next and not self._take_value(piece, _behind_colon(piece, stop), base):
                return
        self._told += count >> 1
        if self._told > MOST_KEYS or (mode == BROKEN and len(keys) > 2 * MOST_KEYS):
            raise malformed(f"it has more than {MOST_KEYS} keys at its top level")
        if mode == BROKEN:
            raise misplaced(piece[keys[-1]], base + keys[-1])
        if count & 1 and not last:
            self._keep(piece, keys[count - 1])

    def _begin(self, piece: bytes, last: bool) -> bool:
        at = 0 if piece and piece[0] == 0x7B else skip_white(piece, 0)
        if at == len(piece):
            if last:
                raise malformed(_NO_OBJECT)
            return False
        if piece[at] != 0x7B:
            is_marked = piece[at : at + 1] in (b"\xef", b"\xff", b"\xfe")
            raise malformed(
                "it begins with a byte order mark; send UTF-8 without" if is_marked else _NO_OBJECT
            )
        self.begin = self._fed - len(piece) + at
        self._begun = True
        return True

    def _take(self, key: bytes, begin: int, stop: int) -> None:
        """A top-level key that may matter."""
        kind = _kinds.get(key, -1)
        if kind < 0:
            kind = _kind_of(key)
            if kind >= _BAD_KEY:
                raise malformed(_BAD_KEY_TEXT if kind == _BAD_KEY else _PROTOTYPE_TEXT)
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
        elif kind == _MODEL_IN_OTHER_CASE:
            self.has_case_variant = True

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
        # Seen again, together with what follows, from how things stand at its beginning.
        self._open, self._mode = b"{", VALUE_NEXT
        self._carry = piece[pos:]
        return False

    def _keep(self, piece: bytes, begin: int) -> None:
        """A key is cut: it is seen again with what follows."""
        if len(piece) - begin > LONGEST_KEY_BYTES:
            raise malformed(_BAD_KEY_TEXT)
        self._mode = OUTSIDE
        self._carry = piece[begin:]


def _kind_of(key: bytes) -> int:
    """Return the meaning of a key."""
    if key == KEY:
        return _MODEL
    word = decoded(key) if len(key) <= LONGEST_KEY_BYTES else None
    if word is None or word.find("\0") >= 0:  # in C a text ends there, and the key is another
        return _BAD_KEY
    if word == "__proto__":
        return _PROTOTYPE
    if word == "model":
        return _ESCAPED_MODEL
    folded = word.casefold()
    if folded == "model":
        return _MODEL_IN_OTHER_CASE
    return _ASKED if folded in _ASKED_FOR else _NOTHING


def decoded(key: bytes) -> str | None:
    """Decode a key; None if it is not a JSON string in UTF-8."""
    try:
        text: str | None = orjson.loads(key)
    except orjson.JSONDecodeError:
        return None
    return text


def _behind_colon(piece: bytes, stop: int) -> int:
    """The offset behind the colon of a key that ends at ``stop``."""
    return (stop if piece[stop] == 0x3A else skip_white(piece, stop)) + 1


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


_BAD_KEY_TEXT: Final = "a key at its top level is not a JSON string of up to 160 bytes, or holds a NUL"
# Programs in JavaScript that copy a body take the members of its value for the body's own.
_PROTOTYPE_TEXT: Final = "'__proto__' is not allowed as a key at its top level"
_MARKED: Final = "it begins with a byte order mark; send UTF-8 without one"
_NO_OBJECT: Final = 'the body must be one JSON object, such as {"model": ..., ...}'


def misplaced(byte: int, at: int) -> BadRequest:
    """The error for a byte where JSON has none."""
    shown = f"'{chr(byte)}'" if 0x20 < byte < 0x7F else f"0x{byte:02x}"
    return malformed(f"there is {shown} at byte {at}, where JSON has something else")


def malformed(why: str) -> BadRequest:
    """The error for a body that is not JSON."""
    return BadRequest(f"The body is not valid JSON: {why}.", code="malformed_json")


def duplicate_model() -> BadRequest:
    """The error for a body with two top-level models."""
    return BadRequest(
        "The body has 'model' more than once at its top level. Give it once.",
        code="duplicate_model",
        param="model",
    )
