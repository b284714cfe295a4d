"""The accounts of keys: their limits and what they have used, exact over all workers of a machine.

One piece of memory has an account for each key: some numbers that all share, and for each worker some that
only it writes. What a worker adds, it adds to its own, so that no two ever write the same number; what a key
has used is the sum. Only whether a request is let in takes a lock, as nothing may change between looking and
entering: so a limit is never overshot by requests that come at the same moment. The lock is one that frees
itself when its holder dies, and what a dead worker was holding is cleared (:meth:`Accounts.clear`).

**Requests and tokens per minute.** A window begins with the first request after the one before has ended, and
lasts a minute. A request is let in while the window has room for any token at all, counting what running
requests have reserved; it then reserves an estimate of its own, and settles with the real figure at its end.
So a key is never over its limit by more than one estimate, and never kept out for an estimate. What it is
over, the next windows have less. A request that is refused for a fault of its own counts as one of the
minute's requests too (:meth:`Account.count`), and uses nothing else.

**A month** is one of the calendar, in UTC. What was used before this process is told by the ledger
(:meth:`Accounts.open`).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from proxy.access.key import Key, first_of, month_of
from proxy.access.limit_errors import Reached, limit_reached
from proxy.access.limit_headers import LimitLines
from proxy.access.permits import Month, Permit
from proxy.errors import LimitReached
from proxy.routing.retry_budget import Share

WINDOW_S: Final = 60.0
_LOOK: Final = 0  # what :meth:`Account._admit` is asked for
_COUNT: Final = 1
_ENTER: Final = 2
_MORE: Final = 3
# How many keys a process can have; a key that is revoked keeps its account until the next start.
MAX_KEYS: Final = 16_384
# Above everything that can be set, and sums of it.
_NO_LIMIT: Final = 1 << 62

# What all workers share of an account: when the window began, tokens that the windows before have left over;
# the month of what follows, its tokens and nano-USD used before this process, when the key was used before.
_SHARED: Final = Struct("@dqqqqd16x")
# What a worker alone writes: its window, requests and tokens in it; its month, tokens and nano-USD in it; how
# many requests run, the tokens and nano-USD they reserve; when the key was used last.
_OWN: Final = Struct("@dqqqqqqqqd16x")
_RUNNING: Final = Struct("@qqq")  # requests that run, and what they reserve
# Where single ones of them are, in values of 8 bytes. They are written one by one, as others look on without
# the lock: packing clears first what it writes to, and would show them zeros for a moment.
_CARRIED_AT: Final = 1  # of what is shared
_BASE_AT: Final = 2
_REQUESTS_AT: Final = 1  # of a worker's own
_TOKENS_AT: Final = 2
_MONTH_AT: Final = 3
_RUNS_AT: Final = 6
_USED_AT: Final = 9


def memory_bytes(workers: int) -> int:
    """Return the size of the memory for a number of workers."""
    return MAX_KEYS * (_SHARED.size + workers * _OWN.size)


class Lock:
    """Keeps other processes out of one account at a time (:mod:`proxy.server.file_lock`)."""

    def acquire(self, slot: int) -> None:
        """Wait for the lock. It is held for microseconds."""
        raise NotImplementedError

    def release(self, slot: int) -> None:
        """Let the next one have it."""
        raise NotImplementedError


class _Own:
    """This worker's part of an account. Nobody else writes it, so that it need not read it there; and nobody
    else reads it where it is the only worker, so that it need not write it there either."""

    __slots__ = (
        "earlier", "held", "held_nusd", "month", "month_nusd", "month_tokens", "requests", "running",
        "tokens", "used_at", "window",
    )  # fmt: skip

    def __init__(self, memory: memoryview, at: int) -> None:
        (
            self.window, self.requests, self.tokens, self.month, self.month_tokens, self.month_nusd,
            self.running, self.held, self.held_nusd, self.used_at,
        ) = _OWN.unpack_from(memory, at)  # fmt: skip
        self.earlier: tuple[int, int, int] = (0, 0, 0)  # the month before this one, as it was left

    def turn(self, month: int) -> None:
        """It is another month; or the one before again, as a clock that was set forward by mistake, and is
        set back, must not make what was used unused."""
        now = self.earlier if self.earlier[0] == month else (month, 0, 0)
        self.earlier = self.month, self.month_tokens, self.month_nusd
        self.month, self.month_tokens, self.month_nusd = now


class Accounts:
    """The accounts of all keys.

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
        self.month = 0
        self._month_begins = self._month_ends = 0.0
        self._owns: dict[int, _Own] = {}

    def at(self, unix_s: float) -> int:
        """The month of a moment. The calendar is asked once a month, and when the clock was set back."""
        if unix_s >= self._month_ends or unix_s < self._month_begins:
            self.month, self._month_ends = month_of(unix_s)
            self._month_begins = first_of(self.month).timestamp()
        return self.month

    def base(self, slot: int) -> int:
        """Return the offset of an account."""
        return slot * (_SHARED.size + self.workers * _OWN.size)

    def columns(self, slot: int) -> tuple[int, ...]:
        """Return the offsets of the workers' parts of an account."""
        begin = self.base(slot) + _SHARED.size
        return tuple(begin + worker * _OWN.size for worker in range(self.workers))

    def open(self, slot: int, month: int, used: Month) -> None:
        """An account for a key, with what it had used before this process."""
        _SHARED.pack_into(self.memory, self.base(slot), 0.0, 0, month, *used)

    def own_of(self, slot: int) -> _Own:
        """This worker's part of an account, one for all that use it: a key may change while requests run."""
        found = self._owns.get(slot)
        if found is None:
            assert self.own is not None
            found = self._owns[slot] = _Own(self.memory, self.columns(slot)[self.own])
        return found

    def clear(self, worker: int) -> None:
        """A worker is gone: what it was doing is done. What it has used stays used."""
        for slot in range(MAX_KEYS):
            if not _SHARED.unpack_from(self.memory, self.base(slot))[2]:
                return  # accounts are opened one after the other
            _RUNNING.pack_into(self.memory, self.columns(slot)[worker] + 8 * _RUNS_AT, 0, 0, 0)

    def used(self, slot: int, unix_s: float) -> Month:
        """Return the usage of a key in the month."""
        month = self.at(unix_s)
        _, _, base_month, tokens, nusd, last = _SHARED.unpack_from(self.memory, self.base(slot))
        if base_month != month:
            tokens = nusd = 0
        for worker, at in enumerate(self.columns(slot)):
            part = (self._owns.get(slot) if worker == self.own else None) or _Own(self.memory, at)
            if part.month == month:
                tokens += part.month_tokens
                nusd += part.month_nusd
            last = max(last, part.used_at)
        return Month(tokens, nusd, last)


class Account:
    """One key's account, as the worker whose requests it is about uses it."""

    __slots__ = (
        "_accounts", "_concurrency", "_ints", "_is_monthly", "_monthly_nusd", "_monthly_tokens", "_others",
        "_own", "_own_at", "_reals", "_rpm", "_shared_at", "_slot", "_told", "_tpm", "header_names",
        "is_limited", "key", "reserves", "share", "spent_until",
    )  # fmt: skip

    def __init__(self, accounts: Accounts, slot: int, key: Key) -> None:
        assert accounts.own is not None
        self.key, self._accounts, self._slot = key, accounts, slot
        self._ints, self._reals = accounts.whole, accounts.real
        self._shared_at = accounts.base(slot) >> 3
        columns = accounts.columns(slot)
        self._own, self._own_at = accounts.own_of(slot), columns[accounts.own] >> 3
        self._others = tuple(at for worker, at in enumerate(columns) if worker != accounts.own)
        self._rpm, self._tpm, self._concurrency, self._monthly_tokens, self._monthly_nusd = (
            _NO_LIMIT if limit is None else limit
            for limit in (key.rpm, key.tpm, key.concurrency, key.monthly_tokens, key.monthly_nusd)
        )
        self._is_monthly = key.monthly_tokens is not None or key.monthly_nusd is not None
        self.reserves = key.tpm is not None or self._is_monthly
        self.is_limited = self.reserves or key.rpm is not None or key.concurrency is not None
        self.share = Share()  # of this worker's retry budget
        self.spent_until = 0.0  # the minute's requests are used up, as far as this worker knows
        self._told = LimitLines(key)
        self.header_names = self._told.names

    def look(self, now: float, unix_s: float) -> None:
        """Return whether there would be room for a request whose body is still to come.

        :raises LimitReached: as :meth:`admit`.
        """
        self._admit(now, unix_s, 0, 0, _LOOK)

    def admit(self, now: float, unix_s: float, tokens: int, nusd: int, *, what: int = _ENTER) -> Permit:
        """Let a request in, or not. What is let in has to be settled, whatever becomes of it.

        :param now: monotonic seconds. :param unix_s: the same moment for calendars.
        :param tokens: an estimate of what it will use. :param nusd: and of its cost.
        :raises LimitReached: 402 or 429.
        """
        lock = self._accounts.lock
        if lock is None:
            return self._admit(now, unix_s, tokens, nusd, what)
        lock.acquire(self._slot)
        try:
            return self._admit(now, unix_s, tokens, nusd, what)
        finally:
            lock.release(self._slot)

    def count(self, now: float, unix_s: float) -> Permit:
        """Count a request that is answered here, such as one that is refused. There is nothing to settle.

        :raises LimitReached: the key's requests of this minute are used up. Then it is not counted.
        """
        return self.admit(now, unix_s, 0, 0, what=_COUNT)

    def extend(self, permit: Permit, now: float, unix_s: float, tokens: int, nusd: int) -> bool:
        """Reserve more for a request that is let in; False: there is no room for it. Parameters as of
        :meth:`admit`."""
        try:
            self.admit(now, unix_s, tokens, nusd, what=_MORE)
        except LimitReached:
            return False
        permit.tokens += tokens
        permit.nusd += nusd
        return True

    def _admit(self, now: float, unix_s: float, tokens: int, nusd: int, what: int) -> Permit:
        """One function, for every call costs more than what it does here."""
        own, whole, shared = self._own, self._ints, self._shared_at
        begun, used = self._reals[shared], whole[shared + _CARRIED_AT]
        requests = month_tokens = month_nusd = 0
        if own.window == begun:
            requests = own.requests
            used += own.tokens
        month = -1
        if self._is_monthly:
            month = self._accounts.at(unix_s)
            if whole[shared + _BASE_AT] == month:
                month_tokens, month_nusd = whole[shared + _BASE_AT + 1], whole[shared + _BASE_AT + 2]
            if own.month != month:
                own.turn(month)
            month_tokens += own.month_tokens
            month_nusd += own.month_nusd
        running, held, held_nusd = own.running, own.held, own.held_nusd
        if self._others:
            sums = requests, used, month_tokens, month_nusd, running, held, held_nusd
            sums = self._with_others(begun, month, *sums)
            requests, used, month_tokens, month_nusd, running, held, held_nusd = sums
        ends_at = begun + WINDOW_S
        if now >= ends_at:
            windows = int((now - begun) / WINDOW_S)
            used = max(0, used - windows * self._tpm)
            requests = 0
            begun = begun + windows * WINDOW_S if used else now
            ends_at = begun + WINDOW_S
        left, tokens_left = self._rpm - requests, self._tpm - used - held
        if (left <= 0 and what != _MORE) or (
            what != _COUNT
            and (
                tokens_left <= 0
                or (running >= self._concurrency and what != _MORE)
                or month_tokens + held >= self._monthly_tokens
                or month_nusd + held_nusd >= self._monthly_nusd
            )
        ):
            month_sums = month_tokens, month_nusd, held, held_nusd
            raise self._refusal(month_sums, running, left, tokens_left, used, ends_at, now, unix_s)
        if what != _LOOK:
            if own.window != begun:
                if self._reals[shared] != begun:
                    whole[shared + _CARRIED_AT] = used
                    self._reals[shared] = begun
                self._enter(begun)
            own.requests += what != _MORE
            own.running += what == _ENTER
            own.held += tokens  # none where it only counts
            own.held_nusd += nusd
            if self._others:
                self._ints[self._own_at + _REQUESTS_AT] = own.requests
                self._tell_of_running(own)
        tokens_left = tokens_left - tokens if tokens_left > tokens else 0
        return Permit(tokens, nusd, left - 1, tokens_left, ends_at)

    def _with_others(
        self, begun: float, month: int, requests: int, used: int, month_tokens: int, month_nusd: int,
        running: int, held: int, held_nusd: int,
    ) -> tuple[int, int, int, int, int, int, int]:  # fmt: skip
        """The sums over all workers."""
        for at in self._others:
            part = _OWN.unpack_from(self._accounts.memory, at)
            window, asked, its_used, its_month, its_tokens, its_nusd, runs, holds, holds_nusd, _ = part
            if window == begun:
                requests += asked
                used += its_used
            if its_month == month:
                month_tokens += its_tokens
                month_nusd += its_nusd
            running += runs
            held += holds
            held_nusd += holds_nusd
        return requests, used, month_tokens, month_nusd, running, held, held_nusd

    def _enter(self, begun: float) -> None:
        """This worker's figures are of this window from here on; first they are none, as others may read."""
        own, at = self._own, self._own_at
        own.requests = own.tokens = self._ints[at + _REQUESTS_AT] = self._ints[at + _TOKENS_AT] = 0
        own.window = self._reals[at] = begun

    def settle(self, permit: Permit | None, unix_s: float, tokens: int, nusd: int) -> None:
        """A request is over.

        :param permit: None: the key has no limits, and it was not asked for any.
        :param tokens: what it has really used. :param nusd: and what that costs.
        """
        own, month = self._own, self._accounts.at(unix_s)
        if own.month != month:
            own.turn(month)
        own.month_tokens += tokens
        own.month_nusd += nusd
        own.used_at = unix_s
        if permit is not None:
            begun = self._reals[self._shared_at]
            if own.window != begun:
                self._enter(begun)
            own.tokens += tokens
            own.running -= 1
            own.held -= permit.tokens
            own.held_nusd -= permit.nusd
            if self._others:
                self._ints[self._own_at + _TOKENS_AT] = own.tokens
                if self._reals[self._shared_at] != begun:
                    # Another worker has begun a window just now, and may not have seen these tokens: rather
                    # count them twice than not at all.
                    self._enter(self._reals[self._shared_at])
                    own.tokens = self._ints[self._own_at + _TOKENS_AT] = tokens
        if self._others:
            whole, at = self._ints, self._own_at
            whole[at + _MONTH_AT + 1] = own.month_tokens
            whole[at + _MONTH_AT + 2] = own.month_nusd
            whole[at + _MONTH_AT] = month
            self._reals[at + _USED_AT] = unix_s
            self._tell_of_running(own)  # last: what was reserved goes when what was used is there instead

    def _tell_of_running(self, own: _Own) -> None:
        at = self._own_at + _RUNS_AT
        self._ints[at], self._ints[at + 1], self._ints[at + 2] = own.running, own.held, own.held_nusd

    def header_lines(self, permit: Permit, now: float, unix_offset_s: float) -> bytes:
        """The ``X-RateLimit-*`` lines for what is left: see
        :meth:`proxy.access.limit_headers.LimitLines.of`."""
        return self._told.of(permit, now, unix_offset_s)

    def _refusal(
        self, month: tuple[int, int, int, int], running: int, left: int, tokens_left: int, used: int,
        ends_at: float, now: float, unix_s: float,
    ) -> LimitReached:  # fmt: skip
        if left <= 0:
            self.spent_until = ends_at  # nothing gives requests back before
        month_tokens, month_nusd, held, _ = month
        reached = Reached(
            monthly_tokens=month_tokens >= self._monthly_tokens,
            monthly_nusd=month_nusd >= self._monthly_nusd,
            concurrency=running >= self._concurrency,
            rpm=left <= 0,
            tpm=used >= self._tpm,
            reserved_tpm=tokens_left <= 0,
            reserved_tokens=month_tokens + held >= self._monthly_tokens,
            tokens_over=max(0, used // self._tpm - 1),
        )
        permit = Permit(0, 0, max(0, left), max(0, tokens_left), ends_at)
        lines = self.header_lines(permit, now, unix_s - now)
        return limit_reached(self.key, reached, ends_at - now, WINDOW_S, self._accounts.month, lines)
