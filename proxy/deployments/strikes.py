"""Strikes: which failures a provider is blamed for, where a request may have provoked them.

A connection that can't be opened, or the operator's time limit that ran out, is the provider's fault whatever
was sent. A 5xx, a reset and an error in the place of a response may be the request's: some bodies make every
provider answer 500. So those carry a **mark**, a number made of the key and the body, and a mark alone ejects
nobody (:class:`FailureMarks`):

    strikes of a run = min(failures, 2 * failures of all marks but the most frequent + 1); 0 with one mark

No mark makes more than half of the strikes (and one). Requests that differ, as those of real traffic do,
count one each from the first, so a provider that fails is out as soon as without this rule; one body sent a
thousand times counts as if it had not been sent.

**Refusals.** A 401 may be about the operator's key, or about something that a client put into its request. It
is a strike when it is confirmed (:class:`RefusalRun`): its code names the key or the account, the same
request was answered by another member, or three different keys got it with no success between (without keys:
three different requests). A key makes one strike a minute at most. With the limit of three strikes, an
operator's key that is wrong is out at once where three client keys are in use, and within two minutes where
one is: its refusals name the key, or the next member confirms them. It is logged and alerted at the first,
confirmed or not. One client that provokes refusals needs two minutes in which nobody else has a success at
that provider.

Pure: marks are plain integers, so workers can tell them each other as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

# A mark has the key in its upper bits (0: none) and the body in the lower 52: 26 of its size and shape, 26 of
# its text (0: not known). Each half fits into a float without loss.
WHAT_BITS: Final = 52
_TEXT_BITS: Final = 26
_TEXT_MASK: Final = (1 << _TEXT_BITS) - 1
_WHAT_MASK: Final = (1 << WHAT_BITS) - 1
# The part of a body that stands for its text: its end, where two that have all else in common differ.
_TEXT_BYTES: Final = 64 << 10
# Marks remembered of a run. One more than half of the strikes needs no more.
_MOST_MARKS: Final = 64
# Failures by marks are remembered for this time for the success ratio, or twice as long.
RECENT_S: Final = 60.0
# Seconds in which one key makes one strike by refusals; witnesses that make up for a confirmation.
STRIKE_EVERY_S: Final = 60.0
WITNESSES: Final = 3
_MOST_WITNESSES: Final = 256
_NEVER: Final = float("-inf")

# What errors call a key or an account that is of no use, in `code`, `type`, `status` or `reason`: OpenAI and
# those like it, Anthropic, Google.
_OF_THE_ACCOUNT: Final = frozenset({
    "account_deactivated", "account_suspended", "api_key_invalid", "authentication_error", "billing_error",
    "billing_not_active", "consumer_suspended", "expired_api_key", "incorrect_api_key", "insufficient_quota",
    "deploymentnotfound", "insufficient_balance", "invalid_api_key", "invalid_authentication",
    "model_decommissioned", "model_deprecated", "model_not_found", "organization_deactivated",
    "permission_error", "revoked_api_key", "unauthenticated",
})  # fmt: skip
# Those of them that no change of the request, and no time, makes good.
GONE: Final = frozenset({
    "account_deactivated", "account_suspended", "billing_not_active", "consumer_suspended",
    "deploymentnotfound", "insufficient_balance", "insufficient_quota", "model_decommissioned",
    "model_deprecated", "model_not_found", "organization_deactivated",
})  # fmt: skip


def mark_of(key_id: str, length: int, start: int, end: int, pieces: Sequence[bytes] | None) -> int:
    """The mark of a request. Equal requests have equal marks, whatever name they give the model.

    To be called after a failure only: it reads up to 64 KiB.

    :param key_id: of the client's key; "": it has none.
    :param length: the body's, as its head says; 0 where that says nothing.
    :param start: where the value of the model begins, ``end``: and ends; both 0 where it has no model.
    :param pieces: all of the body; None: it is not held.
    """
    shape = blake2b(b"%d %d" % (length - (end - start), start), digest_size=8).digest()
    mark = int.from_bytes(shape, "big") >> (64 - _TEXT_BITS) << _TEXT_BITS
    if pieces is not None:
        mark |= _text(pieces, start, end)
    if key_id:
        who = blake2b(key_id.encode(), digest_size=8).digest()
        mark |= ((int.from_bytes(who, "big") >> 12) | 1) << WHAT_BITS
    return mark


def _text(pieces: Sequence[bytes], start: int, end: int) -> int:
    """26 bits of a body's text but for its model; never 0."""
    size = sum(map(len, pieces))
    tail: list[bytes] = []
    needed = _TEXT_BYTES
    for piece in reversed(pieces):
        tail.append(piece[-needed:])
        needed -= len(tail[-1])
        if needed <= 0:
            break
    text = b"".join(reversed(tail))
    before = size - len(text)
    digest = blake2b(text[: max(start - before, 0)], digest_size=8)
    digest.update(text[max(end - before, 0) :])
    return int.from_bytes(digest.digest(), "big") % _TEXT_MASK + 1


def packed(mark: int) -> tuple[float, float]:
    """A mark as two numbers, for :mod:`proxy.deployments.samples`."""
    return float(mark >> WHAT_BITS), float(mark & _WHAT_MASK)


def unpacked(who: float, what: float) -> int:
    """The mark of :func:`packed`."""
    return int(who) << WHAT_BITS | int(what)


def is_same(one: int, other: int) -> bool:
    """Return whether two marks are of one key and one body, as far as is known of the latter."""
    if one == other:
        return True
    if one >> _TEXT_BITS != other >> _TEXT_BITS:
        return False
    return not (one & _TEXT_MASK and other & _TEXT_MASK)


class FailureMarks:
    """Number of failed requests by mark. One without a mark (0) counts in ``total`` only: it is another each
    time."""

    __slots__ = ("_counts", "total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.total = 0

    def add(self, mark: int) -> None:
        """A request failed."""
        self.total += 1
        if not mark:
            return
        counts = self._counts
        if len(counts) >= _MOST_MARKS and mark not in counts:
            del counts[next(iter(counts))]
        counts[mark] = counts.get(mark, 0) + 1

    def count(self, mark: int) -> int:
        """Return the number of failures of a request with this mark."""
        counts = self._counts
        if not mark or not counts:
            return 0
        if mark & _TEXT_MASK:
            return counts.get(mark, 0) + counts.get(mark & ~_TEXT_MASK, 0)
        return sum(count for known, count in counts.items() if is_same(known, mark))

    def strikes(self, failures: int) -> int:
        """Return how much the failures count, including those just added; the module's docstring has the
        rule."""
        others = failures - self._most()
        return min(failures, 2 * others + 1) if others > 0 else 0

    def _most(self) -> int:
        """Return the number of failures of the most frequent mark."""
        most: dict[int, int] = {}
        untold: dict[int, int] = {}  # of a body that was not held: it may be any of its shape
        for mark, count in self._counts.items():
            shape = mark >> _TEXT_BITS
            if mark & _TEXT_MASK:
                most[shape] = max(most.get(shape, 0), count)
            else:
                untold[shape] = count
        for shape, count in untold.items():
            most[shape] = most.get(shape, 0) + count
        return max(most.values(), default=0)

    def clear(self) -> None:
        """Forget them all."""
        if self.total:
            self.total = 0
            self._counts.clear()

    def __repr__(self) -> str:
        return f"<FailureMarks {self.total} failures by {len(self._counts)}>"


class Recent:
    """Selects the failures that count in a success ratio. A run ends with a success, a ratio goes on: so a
    mark that failed before counts again only as often as others failed in the last minute or two.
    """

    __slots__ = ("_before", "_now", "_since_s")

    def __init__(self) -> None:
        self._now = FailureMarks()
        self._before = FailureMarks()
        self._since_s = _NEVER

    def counts(self, mark: int, now: float) -> bool:
        """Return whether a failure counts. ``now``: monotonic seconds."""
        age_s = now - self._since_s
        if age_s >= RECENT_S:
            self._before.clear()
            if age_s < 2 * RECENT_S:
                self._now, self._before = self._before, self._now
            self._now.clear()
            self._since_s = now
        same = self._now.count(mark) + self._before.count(mark)
        others = self._now.total + self._before.total - same
        self._now.add(mark)
        return not mark or same <= others


class RefusalRun:
    """Refusals of a run; those that count are strikes, by the module's rules. ``strikes``: their number.

    A witness is a key, or without one a body.
    """

    __slots__ = ("_run", "_struck", "strikes")

    def __init__(self) -> None:
        self.strikes = 0
        self._run: dict[int, bool] = {}  # witnesses of this run; True: its refusal is no strike yet
        self._struck: dict[int, float] = {}  # witness -> when it made its latest strike; outlives the run

    def add(self, mark: int, now: float, *, is_confirmed: bool) -> int:
        """A request was refused, or what was refused before is confirmed now; how many strikes that makes.

        :param mark: 0: each counts by itself, and is confirmed.
        """
        if not mark:
            self.strikes += 1
            return 1
        run, witness = self._run, self._witness(mark)
        if witness not in run and len(run) < _MOST_WITNESSES:
            run[witness] = True
        found = [witness]
        if not is_confirmed:
            if len(run) < WITNESSES:
                return 0
            found = [one for one, is_open in run.items() if is_open or one == witness]
        made = 0
        for one in found:
            made += self._strikes(one, now)
            if one in run:
                run[one] = False
        self.strikes += made
        return made

    def has_seen(self, mark: int) -> bool:
        """Return whether the same witness was refused before, in this run."""
        return mark != 0 and self._witness(mark) in self._run

    def clear(self) -> None:
        """A request was answered well: the run is over."""
        if self.strikes or self._run:
            self.strikes = 0
            self._run.clear()

    def _witness(self, mark: int) -> int:
        who = mark >> WHAT_BITS
        if who:
            return who << WHAT_BITS
        for known in (*self._run, *self._struck):
            if is_same(known, mark):
                return known
        return mark

    def _strikes(self, witness: int, now: float) -> int:
        """1, or 0 where this witness made one within the last minute."""
        struck = self._struck
        if now - struck.get(witness, _NEVER) < STRIKE_EVERY_S:
            return 0
        if len(struck) >= _MOST_WITNESSES and witness not in struck:
            del struck[next(iter(struck))]
        struck[witness] = now
        return 1

    def __repr__(self) -> str:
        return f"<Refusals strikes={self.strikes} witnesses={len(self._run)}>"


def names_account(words: frozenset[str]) -> bool:
    """Return whether an error says that the key or the account is of no use, or that the model is gone.

    :param words: of the error, as of :func:`proxy.wire.error_body.error_words`.
    """
    return not words.isdisjoint(_OF_THE_ACCOUNT)


def says_gone(words: frozenset[str]) -> bool:
    """Return whether an error says that the model or the account is gone; ``words`` as above."""
    return not words.isdisjoint(GONE)
