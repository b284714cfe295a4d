"""The known name that an unknown one was probably meant to be, found in a time that the names don't decide.

difflib compares two names in a time that is quadratic in their lengths, and here one of them comes from
outside. So names are indexed, when the configuration is loaded, by their pieces of three characters. The
rarest pieces of an unknown name lead to a few candidates, and only those are compared. How often this may
happen is bounded too (:class:`TokenBucket`): a client that sends wrong names all day needs no hint for each.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import Final

# A longer name is no typing slip.
MAX_CHARS: Final = 100
# Hints a second that a worker gives, and how many in a row: one takes up to 1 ms of the event loop.
HINTS_A_SECOND: Final = 5.0
HINTS_IN_A_ROW: Final = 10
# Names that are counted as sharing a piece; those of the rarest pieces first.
_MAX_COUNTED: Final = 2000
# Names that are compared: the best of those, with the ids that end in them.
_MAX_BEST: Final = 10
_MAX_COMPARED: Final = 20
_PIECE_CHARS: Final = 3
# In a name this short, two swapped characters leave no piece whole, so that shorter pieces count as well.
_SHORT_CHARS: Final = 8
# What difflib takes for close by default.
_CUTOFF: Final = 0.6


class NearNames:
    """An index of names.

    :param names: those that stand by themselves, such as short names and aliases.
    :param longer: further names that end in one of ``names``, by it: the ids ``provider/name``.
    :param in_steps: it is whole only once all of ``steps`` are taken.
    """

    __slots__ = ("_by_lower", "_longer", "_names", "_with", "steps")

    def __init__(
        self, names: Iterable[str], longer: Mapping[str, Iterable[str]], *, in_steps: bool = False
    ) -> None:
        self._names = list(dict.fromkeys(names))
        self._longer = {name: list(ids) for name, ids in longer.items()}
        self._by_lower: dict[str, str] = {}
        self._with: dict[str, list[int]] = {}  # the indices of the names that have a piece
        self.steps = self._fill()
        if not in_steps:
            for _ in self.steps:
                pass

    def _fill(self) -> Generator[None, None, None]:
        for ids in self._longer.values():
            for id in ids:
                self._by_lower.setdefault(id.lower(), id)
            yield
        for index, name in enumerate(self._names):
            lower = name.lower()
            self._by_lower.setdefault(lower, name)
            for piece in _pieces(lower):
                self._with.setdefault(piece, []).append(index)
            yield

    def nearest(self, name: str) -> str | None:
        """The known name most like ``name``, whatever the case; None where none is close."""
        if len(name) > MAX_CHARS:
            return None
        lower = name.lower()
        exact = self._by_lower.get(lower)
        if exact is not None:
            return exact
        compared = {candidate.lower(): candidate for candidate in self.candidates(lower)}
        close = difflib.get_close_matches(lower, compared, 1, _CUTOFF)
        return compared[close[0]] if close else None

    def candidates(self, lower: str) -> list[str]:
        """The names that share most pieces with ``lower``: up to 20, or none."""
        lists = sorted((self._with[piece] for piece in _pieces(lower) if piece in self._with), key=len)
        shared: Counter[int] = Counter()
        left = _MAX_COUNTED
        for indices in lists:
            shared.update(indices[:left])
            left -= len(indices)
            if left <= 0:
                break
        found: list[str] = []
        for index, _ in shared.most_common(_MAX_BEST):
            name = self._names[index]
            found.append(name)
            found += self._longer.get(name, ())
            if len(found) >= _MAX_COMPARED:
                break
        return found[:_MAX_COMPARED]


def _pieces(lower: str) -> set[str]:
    """The pieces of a name; its begin is marked as that of a name behind its provider's."""
    marked = f"/{lower}\n"
    pieces = {marked[at : at + _PIECE_CHARS] for at in range(len(marked) - _PIECE_CHARS + 1)}
    if len(lower) <= _SHORT_CHARS:
        pieces.update([marked[at : at + 2] for at in range(len(marked) - 1)])
    return pieces


class TokenBucket:
    """Lets through ``a_second`` on average, and up to ``in_a_row`` at once."""

    __slots__ = ("_a_second", "_at", "_in_a_row", "_left")

    def __init__(self, a_second: float, in_a_row: int) -> None:
        self._a_second = a_second
        self._in_a_row = float(in_a_row)
        self._left = self._in_a_row
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Return whether one more may pass.

        :param now: monotonic seconds.
        """
        gained = max(0.0, now - self._at) * self._a_second
        self._left = min(self._in_a_row, self._left + gained)
        self._at = now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
