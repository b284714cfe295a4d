"""The body of a request as it comes in: what is held of it, and the model that was found in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.access.admission import Most
from proxy.routing.candidates import Facts
from proxy.routing.pool import Pool
from proxy.usage.request_media import BodyMarks, Media, asks_for_sound, has_cache_control, has_images
from proxy.wire.include_usage import Edit, NoEdit, ask_for_usage, is_clear
from proxy.wire.json_body import Keys, ends_of, excerpt, is_empty_object, part_of, splice, value_of
from proxy.wire.json_strings import items
from proxy.wire.model_scanner import ModelScanner, ModelSpan, decoded
from proxy.wire.outline import skip_white, value_at
from proxy.wire.output_limits import is_word
from proxy.wire.references import ReferenceFinder, referred

# Bodies below this are not searched for pictures: one that small changes no figure.
_MEDIA_FROM_BYTES: Final = 8 << 10
# What follows on a key is kept so far, for the number that it says.
_NOTED_BYTES: Final = 48
# Below this size pieces are copied together rather than handed on one by one.
JOIN_BYTES: Final = 64 << 10
# A body that grows larger is looked through as it comes in, and not all at once when it is complete.
_MEASURE_FROM_BYTES: Final = 256 << 10
# What comes in smaller pieces is looked through together up to this size.
_TOGETHER_BYTES: Final = 64 << 10
# Bytes of a list of prompts that are looked through; the rest counts as prompts of the least size there is.
_LISTED_BYTES: Final = 4 << 20
_LISTED_LEAST: Final = 3  # an empty text, and a comma
_WHITE: Final = frozenset((b" ", b"\t", b"\r", b"\n", b":", b""))
_NUMBERS: Final = frozenset(b"-0123456789"[at : at + 1] for at in range(11))
# Between a key and its value: see proxy.wire.outline.value_at.
_LONGEST_GAP_BYTES: Final = 9 << 10
# A client may send a body byte by byte: smaller pieces are joined once there are this many in a row.
_SMALL_BYTES: Final = 2 << 10
_MANY: Final = 1 << 10


class RequestBody:
    """The body of one request. ``size`` and ``done``: how much has come, and whether that is all.

    ``keys``, ``begin`` and ``has_case_variant``: as of :class:`proxy.wire.model_scanner.ModelScanner`.
    """

    __slots__ = (
        "_fresh", "_fresh_bytes", "_marks", "_media", "_names", "_note_left", "_scanner", "_small", "begin",
        "done", "found", "has_case_variant", "held", "keys", "noted", "noted_keys", "size",
    )  # fmt: skip

    def __init__(self, length: int | None = None) -> None:
        # Pieces not sent yet, or kept to be sent again; None once that can't be needed any more.
        self.held: list[bytes] | None = []
        self.size = 0
        self.done = False
        self.found: ModelSpan | None = None
        self.keys: list[tuple[int, int]] = []
        self.begin = 0
        self.has_case_variant = False
        self._scanner: ModelScanner | None = None
        self._small = 0  # of the last pieces in a row
        self._media = Media() if length is None or length > _MEDIA_FROM_BYTES else None
        self._marks: BodyMarks | None = None  # once it is large, and the names too
        self._names: ReferenceFinder | None = None
        self._fresh: list[bytes] = []  # what was not looked through for these yet
        self._fresh_bytes = 0
        # What it says of how much work it is, for when the rest is forgotten.
        self.noted = b""
        self.noted_keys: list[tuple[int, int]] = []
        self._note_left = 0  # bytes of the last one that are still to come

    @staticmethod
    def of(whole: bytes) -> RequestBody:
        """A body that is there, and was not scanned."""
        body = RequestBody(len(whole))
        body.held, body.size, body.done = [whole], len(whole), True
        if body._media is not None:
            body._media.feed(whole)
        return body

    def scan(self, piece: bytes, done: bool) -> None:
        """Look for the model in the next piece; ``done``: it is the last.

        :raises BadRequest: the body is no JSON object, or says its model twice or in a way not allowed.
        """
        begin = self.size
        self.size = begin + len(piece)
        self.done = done
        if self._media is not None:
            self._media.feed(piece)
        scanner = self._scanner
        if scanner is None:
            scanner = self._scanner = ModelScanner()
            self.keys = scanner.keys
        if self._note_left:
            self.noted += piece[: self._note_left]
            self._note_left = max(self._note_left - len(piece), 0)
        known = len(self.keys)
        scanner.feed(piece, done)
        if len(self.keys) > known:
            self._note(piece, begin, scanner.cut, known)
        self.found = scanner.found
        if done:
            self.begin, self.has_case_variant = scanner.begin, scanner.has_case_variant
            self._scanner = None

    def _note(self, piece: bytes, begin: int, cut: bytes, known: int) -> None:
        """Keep what stands at the keys from ``known`` on that say how much work it is; the piece begins at
        ``begin``. A key may have begun in the piece before, and a value may go on in the next one."""
        for start, stop in self.keys[known:]:
            key = piece[start - begin : stop - begin] if start >= begin else cut[: stop - start]
            if is_word(key):
                at, behind = len(self.noted), max(stop - begin, 0)
                self.noted_keys.append((at, at + len(key)))
                value = piece[behind : behind + _NOTED_BYTES]
                self.noted += key + value
                self._note_left = _NOTED_BYTES - len(value)

    def forget(self) -> None:
        """Let go of everything held: a response may go on for hours, and none of it is needed for that."""
        self.held = None
        self._scanner = None
        self._fresh = []

    def hold(self, piece: bytes) -> None:
        """Hold a piece until it is known where it goes."""
        held = self.held
        assert held is not None
        self._add(held, piece)
        if self.size > _MEASURE_FROM_BYTES:
            if self._marks is None:
                self._marks, self._names = BodyMarks(), ReferenceFinder()
                self._fresh += held
            else:
                self._fresh.append(piece)
            self._fresh_bytes += len(piece)
            if self.done or self._fresh_bytes >= _TOGETHER_BYTES:
                self._look()

    def _look(self) -> None:
        """Look through what has come since, for marks and names."""
        fresh, marks, found = self._fresh, self._marks, self._names
        if fresh and marks is not None and found is not None:
            piece = fresh[0] if len(fresh) == 1 else b"".join(fresh)
            marks.feed(piece)
            found.feed(piece)
            self._fresh, self._fresh_bytes = [], 0

    def keep(self, piece: bytes, limit: int) -> None:
        """Hold a piece that is sent on, as long as all of them stay below ``limit`` bytes."""
        if self.held is not None:
            if self.size > limit:
                self.held = None
            elif piece:
                self._add(self.held, piece)

    def _add(self, held: list[bytes], piece: bytes) -> None:
        held.append(piece)
        if len(piece) >= _SMALL_BYTES:
            self._small = 0
            return
        self._small += 1
        if self._small >= _MANY:
            self._small = 0
            held[-_MANY:] = [b"".join(held[-_MANY:])]

    def media_bytes(self) -> int:
        """Bytes of pictures, sounds and documents in base64, of what has come."""
        return 0 if self._media is None else self._media.size

    def media_tokens(self, endpoint: str) -> int:
        """The tokens that they count at an endpoint."""
        return 0 if self._media is None else self._media.tokens(endpoint)

    def check_media(self) -> None:
        """All has come, and is held: what only looks like a medium is text."""
        if self._media is not None and self._media.size:
            assert self.held is not None
            self._media.believe(self.held)

    def sound_tokens(self) -> int:
        """The part of the media's tokens that is sound."""
        return 0 if self._media is None else self._media.sound_tokens()

    def text_bytes(self) -> int:
        """The size of the rest."""
        return self.size - self.media_bytes()

    def has_images(self) -> bool:
        """Return whether there are images in what is held."""
        self._look()
        if self._marks is not None:
            return self._marks.has_images()
        assert self.held is not None
        return has_images(self.held)

    def has_cache_control(self) -> bool:
        """Return whether what was held may ask for something to be written into a cache."""
        self._look()
        return has_cache_control(self.held or ()) if self._marks is None else self._marks.has_cache_control()

    def asks_for_sound(self) -> bool:
        """Return whether what was held may ask for a response in sound."""
        self._look()
        return asks_for_sound(self.held or ()) if self._marks is None else self._marks.asks_for_sound()

    def referred(self, endpoint: str) -> int:
        """The number of things that a body, held whole, refers to: see
        :meth:`proxy.wire.references.Names.referred`."""
        self._look()
        assert self.held is not None
        found = self._names
        return referred(self.held, endpoint) if found is None else found.referred(self.held, endpoint)

    def prompts(self) -> int:
        """The number of prompts in what is held, for the endpoint that takes a list of them."""
        held = self.held
        assert held is not None
        count, ends = 1, ends_of(held)
        for start, stop in self.keys:
            text = part_of(held, ends, start, start + _LISTED_BYTES)
            size = stop - start
            word = decoded(text[:size])
            if word is None or word.casefold() != "prompt":
                continue
            at = value_at(text, size)
            if text[at : at + 1] in _WHITE:  # no program writes this much of it: as many as there can be
                count = max(count, (self.size - stop) // _LISTED_LEAST)
                continue
            if text[at : at + 1] != b"[":
                continue
            first = skip_white(text, at + 1)
            if text[first : first + 1] in _NUMBERS:
                continue  # one prompt, as tokens
            count = max(count, items(text, at) + (self.size - start - len(text)) // _LISTED_LEAST)
        return count

    def is_clear_about_usage(self) -> bool:
        """Return whether all programs read alike what it says of the usage of its stream."""
        held = self.held
        assert held is not None
        return is_clear(held, self.begin, self.keys)

    def limiting(self, pieces: list[bytes], word: bytes, limit: int) -> list[Edit]:
        """The edits of ``pieces``, all of this body, that limit a response to ``limit`` tokens.

        A null is replaced. Where that is not all that is said, the word is put in behind all others: most
        programs take what is said last, and those that take the first find nothing that is above the limit.

        :param word: what the provider calls it, in quotes. Nothing said of it is a promise.
        """
        ends, edits = ends_of(pieces), []
        others = 0
        for start, stop in self.keys:
            key = part_of(pieces, ends, start, stop)
            text = part_of(pieces, ends, stop, stop + _LONGEST_GAP_BYTES)
            at = value_at(text, 0)
            if key == word and text.startswith(b"null", at):
                edits.append(Edit(stop + at, stop + at + len(b"null"), b"%d" % limit))
            elif key == word or (decoded(key) or "").casefold() == word[1:-1].decode():
                others += 1
        if others or not edits:
            end = _last_brace(pieces)
            edits.append(Edit(end, end, b",%b:%d" % (word, limit)))  # behind the model at least
        return edits

    def asking_for_usage(self, pieces: list[bytes]) -> Edit | NoEdit:
        """The edit of ``pieces``, all of this body, that asks for the usage of its stream."""
        return ask_for_usage(pieces, self.begin, self.keys)

    def excerpt(self) -> tuple[bytes, Keys]:
        """The text at its ``keys``, as far as it is held, and where in that text they stand."""
        held = self.held
        assert held is not None
        return excerpt(held, self.keys)

    def with_model(
        self, pieces: list[bytes], literal: bytes, edits: list[Edit] | None = None
    ) -> tuple[list[bytes | memoryview], int]:
        """``pieces`` of this body with the model's value replaced, or put in, and by how much it grows.

        :param literal: the new value, as JSON.
        :param edits: other changes of the body; ``pieces`` are all of it then.
        """
        found = self.found
        if found is not None:
            start, end = found.start, found.end
        else:
            start = end = self.begin + 1
            literal = b'"model":%b%b' % (literal, b"" if is_empty_object(pieces, self.begin) else b",")
        growth = len(literal) - (end - start)
        if edits is None:
            if len(pieces) == 1 and self.size <= JOIN_BYTES:
                return [pieces[0][:start], literal, pieces[0][end:]], growth
            return splice(pieces, start, end, literal), growth
        # The last one first, as offsets behind what is replaced change. At one place the model comes first.
        changed: list[bytes | memoryview] = list(pieces)
        for edit in sorted([Edit(start, end, literal), *edits], key=_place, reverse=True):
            changed = splice(changed, edit.start, edit.end, edit.replacement)
        return changed, growth + sum(len(e.replacement) - (e.end - e.start) for e in edits)


def _last_brace(pieces: list[bytes]) -> int:
    """The offset of the brace that ends a body."""
    end = sum(map(len, pieces))
    for piece in reversed(pieces):
        end -= len(piece)
        at = piece.rfind(b"}")
        if at >= 0:
            return end + at
    return end


def _place(edit: Edit) -> tuple[int, int]:
    return edit.start, edit.end


def add_parts(body: RequestBody, most: Most, pools: Iterable[Pool]) -> None:
    """Add what has a price of its own to ``most``, where a model has such prices and as far as the body is
    held.

    :param pools: those that the request may go to.
    """
    for pool in pools:
        if pool.dearest_parts is not None:
            written_pusd, _, spoken_pusd = pool.dearest_parts
            most.heard = most.heard or min(body.sound_tokens(), most.given)
            if written_pusd > pool.dearest[0] and not most.writes_cache:
                most.writes_cache = body.has_cache_control()
            if spoken_pusd > pool.dearest[1] and not most.speaks:
                most.speaks = body.asks_for_sound()


def facts_of(
    body: RequestBody, text: bytes, keys: Keys, pool: Pool, endpoint: str, streamed: bool, now: float,
    caller: bytes = b"",
) -> Facts:  # fmt: skip
    """Collect what the choice among ``pool`` needs to know of a body; nothing is looked for that can't
    matter.

    :param text: what the body says at the ``keys``: see :meth:`RequestBody.excerpt`.
    """
    return Facts(
        endpoint,
        streamed,
        body.size,
        pool.needs_vision_check and body.has_images(),
        pool.needs_tools_check and value_of(text, keys, b'"tools"') >= 0,
        body.media_bytes(),
        now,
        caller,
    )
