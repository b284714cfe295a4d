"""A figure that many clients teach and no single one: the median of what the keys have seen.

What money goes by must not be a mean: in a ratio of sums one body of 20 MB of white space weighs as much as a
day of honest ones. Here a sample weighs the same whatever its size, a key has one vote however much it sends,
and what can't be true is not taken at all. A vote is the median of the key's samples, or a higher quantile of
them for a pace, as whatever is late (a machine, a network) makes a model look slower and never faster. Of an
even number of votes the upper one of the middle counts, so that where two keys differ the provider's bill is
covered. The median stands up to anything that fewer than half of the voters say (its breakdown point: Huber,
"Robust Statistics", 1981): a single key can't move it from the third key on.
"""

from __future__ import annotations

from typing import Any, Final

# The latest samples of a key that make its vote: odd, and few enough to follow a model that changes.
SAMPLES: Final = 9
# Keys that vote: those seen last.
KEYS: Final = 16
# With fewer samples a figure is not relied on.
ENOUGH: Final = 3


class Votes:
    """Samples of many keys, of which each key's median is one vote.

    ``typical``: the median of the votes; ``upper``: that of what nine of ten samples of a key stay below. 0:
    none yet.

    :param least: and ``most``: of a sample that can be true; others are not taken.
    :param share: of a key's samples that are below its vote.
    """

    __slots__ = ("_by_key", "_least", "_most", "_share", "count", "typical", "upper")

    def __init__(self, least: float, most: float, share: float = 0.5) -> None:
        self._by_key: dict[int, list[float]] = {}  # the one heard of last is the last
        self._least = least
        self._most = most
        self._share = share
        self.count = 0  # samples that are kept
        self.typical = self.upper = 0.0

    @property
    def is_enough(self) -> bool:
        """Return whether it is to be relied on."""
        return self.count >= ENOUGH

    def add(self, value: float, key: int) -> bool:
        """A sample, by a request of ``key``, a number that stands for one. False: it can't be true, and is
        not taken."""
        if not self._least <= value <= self._most:
            return False
        by_key = self._by_key
        kept = by_key.pop(key, None)
        if kept is None:
            kept = []
            if len(by_key) >= KEYS:
                del by_key[next(iter(by_key))]
        by_key[key] = kept
        kept.append(value)
        if len(kept) > SAMPLES:
            del kept[0]
        self._work_out()
        return True

    def _work_out(self) -> None:
        votes, highest, count = [], [], 0
        for kept in self._by_key.values():
            ordered = sorted(kept)
            size = len(ordered)
            count += size
            votes.append(ordered[int(size * self._share)])
            highest.append(ordered[size * 9 // 10])
        votes.sort()
        highest.sort()
        self.count = count
        self.typical = votes[len(votes) // 2]
        self.upper = max(highest[len(highest) // 2], self.typical)

    def dump(self) -> list[Any]:
        """Return the state as plain values."""
        return [[key, *kept] for key, kept in self._by_key.items()]

    def read(self, state: list[Any]) -> list[tuple[int, list[float]]]:
        """Check a state of :meth:`dump`, for :meth:`restore`.

        :raises TypeError, ValueError: it is not such a state.
        """
        found = []
        for key, *kept in state[-KEYS:]:
            values = [float(value) for value in kept[-SAMPLES:]]
            if not values or not all(self._least <= value <= self._most for value in values):
                raise ValueError("a sample is out of bounds")
            found.append((int(key), values))
        return found

    def restore(self, found: list[tuple[int, list[float]]]) -> None:
        """Take in what :meth:`read` found."""
        self._by_key = dict(found)
        if found:
            self._work_out()

    def __repr__(self) -> str:
        return f"<Votes {self.typical:.4g} of {self.count} samples, {len(self._by_key)} keys>"
