"""The memory of the accounts of keys and groups: what each worker has counted, and its sums.

One piece of memory has an account for each key and each group: some numbers that all share, and for each
worker some that only it writes. What a worker adds, it adds to its own, so that no two ever write the same
number; what a key has used is the sum. What a worker reads of the others it reads without a lock.

**A day** (UTC) has no sum of its own: a worker keeps the month's sum as it was when the day began, and what
the day has used is the difference. So counting days costs nothing but when one ends.

**Order of writing.** Numbers are written one by one, as others look on. Those that say which day or month
the others are of are written last: until then a reader of the new one finds nothing used, which is so.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from proxy.access.permits import Month
from proxy.usage.calendar import DAY_S, day_of, month_of

# How many keys and groups a process can have together; one that is gone keeps its account until the next
# start.
MAX_KEYS: Final = 16_384

# What all workers share of an account: when the window began, tokens that the windows before have left over;
# the month of what follows, its tokens and nano-USD used before this process, when the key was used before;
# the day of what follows, its tokens and nano-USD used before this process.
_SHARED: Final = Struct("@dqqqqdqqq")
# What a worker alone writes: its window, requests and tokens in it; its month, tokens and nano-USD in it; how
# many requests run, the tokens and nano-USD they reserve; when the key was used last.
OWN: Final = Struct("@dqqqqqqqqd")
# And behind that: its day, and the month's tokens and nano-USD when that began.
DAY: Final = Struct("@qqq")
_PART_BYTES: Final = OWN.size + DAY.size
_RUNNING: Final = Struct("@qqq")  # requests that run, and what they reserve
# Where single ones of them are, in values of 8 bytes. They are written one by one, as others look on without
# the lock: packing clears first what it writes to, and would show them zeros for a moment.
CARRIED_AT: Final = 1  # of what is shared
REQUESTS_AT: Final = 1  # of a worker's own
TOKENS_AT: Final = 2
MONTH_AT: Final = 3
RUNS_AT: Final = 6
USED_AT: Final = 9
DAY_AT: Final = 10


def memory_bytes(workers: int) -> int:
    """Return the size of the memory for a number of workers."""
    return MAX_KEYS * (_SHARED.size + workers * _PART_BYTES)


class Lock:
    """Keeps other processes out of one account at a time (:mod:`proxy.server.file_lock`)."""

    def acquire(self, slot: int) -> None:
        """Wait for the lock. It is held for microseconds."""
        raise NotImplementedError

    def release(self, slot: int) -> None:
        """Let the next one have it."""
        raise NotImplementedError


class Own:
    """This worker's part of an account. Nobody else writes it, so that it need not read it there; and nobody
    else reads it where it is the only worker, so that it need not write it there either.

    ``tokens_before``, ``nusd_before``: of the month, when its ``day`` began.
    """

    __slots__ = (
        "day", "earlier", "earlier_day", "held", "held_nusd", "month", "month_nusd", "month_tokens",
        "nusd_before", "requests", "running", "tokens", "tokens_before", "used_at", "window",
    )  # fmt: skip

    def __init__(self, memory: memoryview, at: int) -> None:
        # Named one by one: compiled, only what has a type is a plain number.
        own, day = OWN.unpack_from(memory, at), DAY.unpack_from(memory, at + OWN.size)
        self.window: float = own[0]
        self.requests: int = own[1]
        self.tokens: int = own[2]
        self.month: int = own[3]
        self.month_tokens: int = own[4]
        self.month_nusd: int = own[5]
        self.running: int = own[6]
        self.held: int = own[7]
        self.held_nusd: int = own[8]
        self.used_at: float = own[9]
        self.day: int = day[0]
        self.tokens_before: int = day[1]
        self.nusd_before: int = day[2]
        # The month and the day before these, as they were left: number, tokens, nano-USD.
        self.earlier: tuple[int, int, int] = (0, 0, 0)
        self.earlier_day: tuple[int, int, int] = (-1, 0, 0)

    def turn(self, day: int, month: int) -> None:
        """It is another day, and maybe another month; or the one before again, as a clock that was set
        forward by mistake, and is set back, must not make what was used unused."""
        left = self.day, self.month_tokens - self.tokens_before, self.month_nusd - self.nusd_before
        if month != self.month:
            now = self.earlier if self.earlier[0] == month else (month, 0, 0)
            self.earlier = self.month, self.month_tokens, self.month_nusd
            self.month, self.month_tokens, self.month_nusd = now
        again = self.earlier_day if self.earlier_day[0] == day else (day, 0, 0)
        self.earlier_day = left
        self.day = day
        self.tokens_before = self.month_tokens - again[1]
        self.nusd_before = self.month_nusd - again[2]


class Accounts:
    """The accounts of all keys and groups.

    :param memory: :func:`memory_bytes` of it, shared by the workers.
    :param own: which worker this is; None: none, it only reads and opens accounts.
    :param lock: keeps other workers out of an account; None: there is one worker.
    """

    def __init__(self, memory: memoryview, workers: int, own: int | None, lock: Lock | None = None) -> None:
        self.memory = memory
        self.whole, self.real = memory.cast("q"), memory.cast("d")  # the same, in values of 8 bytes
        self.own = own
        self.lock = lock
        self.workers = workers
        self.day = self.month = 0
        self._day_begins = self._day_ends = 0.0
        self._owns: dict[int, Own] = {}

    def at(self, unix_s: float) -> int:
        """The day of a moment; ``month`` is its month then. The calendar is asked once a day, and when the
        clock was set back."""
        if unix_s >= self._day_ends or unix_s < self._day_begins:
            self.day, (self.month, _) = day_of(unix_s), month_of(unix_s)
            self._day_begins = float(self.day * DAY_S)
            self._day_ends = self._day_begins + DAY_S
        return self.day

    def base(self, slot: int) -> int:
        """Return the offset of an account."""
        return slot * (_SHARED.size + self.workers * _PART_BYTES)

    def columns(self, slot: int) -> tuple[int, ...]:
        """Return the offsets of the workers' parts of an account."""
        begin = self.base(slot) + _SHARED.size
        return tuple(begin + worker * _PART_BYTES for worker in range(self.workers))

    def open(self, slot: int, unix_s: float, used: Month) -> None:
        """An account for a key or a group, with what it had used before this process.

        :param unix_s: a moment of the month and the day that ``used`` is about.
        """
        day = self.at(unix_s)
        _SHARED.pack_into(
            self.memory, self.base(slot), 0.0, 0, self.month, used.tokens, used.nusd, used.last_used,
            day, used.day_tokens, used.day_nusd,
        )  # fmt: skip

    def before(self, slot: int) -> tuple[int, int, int, int, int, int]:
        """What was used before this process, which stays as it is: the month, its tokens and nano-USD, the
        day, and its."""
        _, _, month, tokens, nusd, _, day, day_tokens, day_nusd = _SHARED.unpack_from(
            self.memory, self.base(slot)
        )
        return month, tokens, nusd, day, day_tokens, day_nusd

    def own_of(self, slot: int) -> Own:
        """This worker's part of an account, one for all that use it: a key may change while requests run."""
        found = self._owns.get(slot)
        if found is None:
            assert self.own is not None
            found = self._owns[slot] = Own(self.memory, self.columns(slot)[self.own])
        return found

    def clear(self, worker: int) -> None:
        """A worker is gone: what it was doing is done. What it has used stays used."""
        for slot in range(MAX_KEYS):
            if not _SHARED.unpack_from(self.memory, self.base(slot))[2]:
                return  # accounts are opened one after the other
            _RUNNING.pack_into(self.memory, self.columns(slot)[worker] + 8 * RUNS_AT, 0, 0, 0)

    def used(self, slot: int, unix_s: float) -> Month:
        """Return the usage of a key or a group in the month and on the day of a moment."""
        day = self.at(unix_s)
        month = self.month
        shared = _SHARED.unpack_from(self.memory, self.base(slot))
        _, _, base_month, tokens, nusd, last, base_day, day_tokens, day_nusd = shared
        if base_month != month:
            tokens = nusd = 0
        if base_day != day:
            day_tokens = day_nusd = 0
        for worker, at in enumerate(self.columns(slot)):
            part = (self._owns.get(slot) if worker == self.own else None) or Own(self.memory, at)
            if part.month == month:
                tokens += part.month_tokens
                nusd += part.month_nusd
            if part.day == day:
                day_tokens += part.month_tokens - part.tokens_before
                day_nusd += part.month_nusd - part.nusd_before
            last = max(last, part.used_at)
        return Month(tokens, nusd, last, day_tokens, day_nusd)
