"""The body of a request as it comes in: what is held of it, and the model that was found in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from proxy.body import Keys, data_url_bytes, excerpt, has_images, insertion, splice, value_of
from proxy.candidates import Facts
from proxy.pool import Pool
from proxy.scanner import ModelScanner, ModelSpan
from proxy.streamusage import Edit

# Bodies below this are not searched for data URLs: an image that small changes no figure.
_URLS_FROM_BYTES: Final = 8 << 10
# Below this size pieces are copied together rather than handed on one by one.
JOIN_BYTES: Final = 64 << 10


class RequestBody:
    """See the module's text. ``size`` and ``done`` tell how much has come, and whether that is all.

    ``keys``: as of :class:`proxy.scanner.ModelScanner`.
    """

    __slots__ = ("_scanner", "done", "found", "held", "keys", "size")

    def __init__(self) -> None:
        # Pieces not sent yet, or kept to be sent again; None once that can't be needed any more.
        self.held: list[bytes] | None = []
        self.size = 0
        self.done = False
        self.found: ModelSpan | None = None
        self.keys: list[tuple[int, int]] = []
        self._scanner: ModelScanner | None = None

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
            self._scanner = None

    def forget(self) -> None:
        """Let go of everything held: an answer may go on for hours, and none of it is needed for that."""
        self.held = None
        self._scanner = None

    def keep(self, piece: bytes, limit: int) -> None:
        """Hold a piece that is sent on, as long as all of them stay below ``limit`` bytes."""
        if self.held is not None:
            if self.size > limit:
                self.held = None
            elif piece:
                self.held.append(piece)

    def whole(self) -> bytes:
        """What is held, as one."""
        held = self.held
        assert held is not None
        return held[0] if len(held) == 1 else b"".join(held)

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
        :raises BadRequest: there is no model, and the body is no JSON to put one into.
        """
        found = self.found
        if found is not None:
            start, end = found.start, found.end
        else:
            start, literal = insertion(b"".join(pieces), literal)
            end = start
        growth = len(literal) - (end - start)
        if edit is not None:
            at, stop, replacement = edit
            whole = b"".join(pieces)
            pieces = [whole[:at] + replacement + whole[stop:]]
            more = len(replacement) - (stop - at)
            growth += more
            if at < start or (at == start and at == stop and found is not None):
                start, end = start + more, end + more
        if len(pieces) == 1 and self.size <= JOIN_BYTES:
            return [pieces[0][:start], literal, pieces[0][end:]], growth
        return splice(pieces, start, end, literal), growth


def text_bytes(pieces: Sequence[bytes], size: int) -> int:
    """The size of a body's text: base64 data URLs left out where they matter.

    :param size: of the body in bytes.
    """
    return size - data_url_bytes(pieces) if size > _URLS_FROM_BYTES else size


def facts_of(
    pieces: Sequence[bytes], text: bytes, keys: Keys, pool: Pool, endpoint: str, streamed: bool, now: float,
    caller: bytes = b"",
) -> Facts:  # fmt: skip
    """What the choice among ``pool`` needs to know of a body; nothing is looked for that can't matter.

    :param text: what the body says at the ``keys``: see :meth:`RequestBody.excerpt`.
    """
    size = sum(map(len, pieces))
    # A token is at least a byte: below the smallest window nothing needs a closer look.
    is_large = pool.min_context is not None and size > pool.min_context
    return Facts(
        endpoint,
        streamed,
        size,
        pool.needs_vision_check and has_images(pieces),
        pool.needs_tools_check and value_of(text, keys, b'"tools"') >= 0,
        data_url_bytes(pieces) if is_large else 0,
        now,
        caller,
    )
