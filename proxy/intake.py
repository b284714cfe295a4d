"""The body of a request as it comes in: what is held of it, and the model that was found in it."""

from __future__ import annotations

from typing import Final

from proxy.body import Keys, excerpt, is_empty_object, splice, value_of
from proxy.candidates import Facts
from proxy.media import DataURLs, ImageMarks, data_url_bytes, has_images
from proxy.pool import Pool
from proxy.scanner import ModelScanner, ModelSpan
from proxy.streamusage import Edit, NoEdit, ask_for_usage

# Bodies below this are not searched for data URLs: an image that small changes no figure.
_URLS_FROM_BYTES: Final = 8 << 10
# Below this size pieces are copied together rather than handed on one by one.
JOIN_BYTES: Final = 64 << 10
# A body that grows larger is looked through as it comes in, and not all at once when it is complete.
_MEASURE_FROM_BYTES: Final = 256 << 10
# A client may send a body byte by byte: of pieces that are smaller, so many in a row become one.
_SMALL_BYTES: Final = 2 << 10
_MANY: Final = 1 << 10


class RequestBody:
    """See the module's text. ``size`` and ``done`` tell how much has come, and whether that is all.

    ``keys``, ``begin`` and ``has_case_variant``: as of :class:`proxy.scanner.ModelScanner`.
    """

    __slots__ = (
        "_marks", "_scanner", "_small", "_urls", "begin", "done", "found", "has_case_variant", "held", "keys",
        "size",
    )  # fmt: skip

    def __init__(self) -> None:
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
        self._urls: DataURLs | None = None  # once it is large
        self._marks: ImageMarks | None = None

    @staticmethod
    def of(whole: bytes) -> RequestBody:
        """A body that is there, and was not scanned."""
        body = RequestBody()
        body.held, body.size, body.done = [whole], len(whole), True
        return body

    def scan(self, piece: bytes, done: bool) -> None:
        """Look for the model in the next piece; ``done``: it is the last.

        :raises BadRequest: the body is no JSON object, or says its model twice or in a way not allowed.
        """
        self.size += len(piece)
        self.done = done
        scanner = self._scanner
        if scanner is None:
            scanner = self._scanner = ModelScanner()
            self.keys = scanner.keys
        scanner.feed(piece, done)
        self.found = scanner.found
        if done:
            self.begin, self.has_case_variant = scanner.begin, scanner.has_case_variant
            self._scanner = None

    def forget(self) -> None:
        """Let go of everything held: an answer may go on for hours, and none of it is needed for that."""
        self.held = None
        self._scanner = None

    def hold(self, piece: bytes) -> None:
        """Hold a piece until it is known where it goes."""
        held = self.held
        assert held is not None
        self._add(held, piece)
        if self.size > _MEASURE_FROM_BYTES:
            if self._urls is None or self._marks is None:
                self._urls, self._marks = DataURLs(), ImageMarks()
                for each in held:
                    self._urls.feed(each)
                    self._marks.feed(each)
            else:
                self._urls.feed(piece)
                self._marks.feed(piece)

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

    def data_url_bytes(self) -> int:
        """How many bytes of what is held are base64 data URLs."""
        if self._urls is not None:
            return self._urls.size
        assert self.held is not None
        return data_url_bytes(self.held)

    def text_bytes(self) -> int:
        """The size of its text: base64 data URLs left out where they matter."""
        return self.size - self.data_url_bytes() if self.size > _URLS_FROM_BYTES else self.size

    def has_images(self) -> bool:
        """Whether there are images in what is held."""
        if self._marks is not None:
            return self._marks.found
        assert self.held is not None
        return has_images(self.held)

    def asking_for_usage(self, pieces: list[bytes]) -> Edit | NoEdit:
        """What to change of ``pieces``, all of this body, so that it asks for the usage of its stream."""
        return ask_for_usage(pieces, self.begin, self.keys)

    def excerpt(self) -> tuple[bytes, Keys]:
        """What it says at its ``keys`` as far as it is held, and where in that text those stand."""
        held = self.held
        assert held is not None
        return excerpt(held, self.keys)

    def with_model(
        self, pieces: list[bytes], literal: bytes, edit: Edit | None = None
    ) -> tuple[list[bytes | memoryview], int]:
        """``pieces`` of this body with the model's value replaced, or put in, and by how much it grows.

        :param literal: the new value, as JSON.
        :param edit: another change of the body; ``pieces`` are all of it then.
        """
        found = self.found
        if found is not None:
            start, end = found.start, found.end
        else:
            start = end = self.begin + 1
            literal = b'"model":%b%b' % (literal, b"" if is_empty_object(pieces, self.begin) else b",")
        growth = len(literal) - (end - start)
        if len(pieces) == 1 and self.size <= JOIN_BYTES and edit is None:
            return [pieces[0][:start], literal, pieces[0][end:]], growth
        if edit is None:
            return splice(pieces, start, end, literal), growth
        growth += len(edit.replacement) - (edit.end - edit.start)
        first, second = (edit.start, edit.end, edit.replacement), (start, end, literal)
        if (edit.start, edit.end) > (start, end):
            first, second = second, first
        # The later one first, as offsets behind what is replaced change.
        return splice(splice(pieces, *second), *first), growth


def facts_of(
    body: RequestBody, text: bytes, keys: Keys, pool: Pool, endpoint: str, streamed: bool, now: float,
    caller: bytes = b"",
) -> Facts:  # fmt: skip
    """What the choice among ``pool`` needs to know of a body; nothing is looked for that can't matter.

    :param text: what the body says at the ``keys``: see :meth:`RequestBody.excerpt`.
    """
    size = body.size
    # A token is at least a byte: below the smallest window nothing needs a closer look.
    is_large = pool.min_context is not None and size > pool.min_context
    return Facts(
        endpoint,
        streamed,
        size,
        pool.needs_vision_check and body.has_images(),
        pool.needs_tools_check and value_of(text, keys, b'"tools"') >= 0,
        body.data_url_bytes() if is_large else 0,
        now,
        caller,
    )
