"""The accounts of keys: their limits and what they have used, exact over all workers of a machine.

:mod:`proxy.access.accounts` has the memory. Only whether a request is let in takes a lock, as nothing may
change between looking and entering: so a limit is never overshot by requests that come at the same moment.
The lock is one that frees itself when its holder dies, and what a dead worker was holding is cleared
(:meth:`proxy.access.accounts.Accounts.clear`).

**Requests and tokens per minute.** A window begins with the first request after the one before has ended, and
lasts a minute. A request is let in while the window has room for any token at all, counting what running
requests have reserved; it then reserves an estimate of its own, and settles with the real figure at its end.
So a key is never over its limit by more than one estimate, and never kept out for an estimate. What it is
over, the next windows have less. A request that is refused for a fault of its own counts as one of the
minute's requests too (:meth:`Account.count`), and uses nothing else.

**A day and a month** are those of the calendar, in UTC. What was used before this process is told by the
ledger (:meth:`proxy.access.accounts.Accounts.open`). A request in progress is held against the day and the
month that it asks in, and counts in those that it ends in.

**A group** has an account of its own. A key's account asks it between looking and entering: the key is looked
at, the group is entered or refuses, and only then the key is entered, which can't fail any more. So a request
is never held against one of the two. The key's lock is taken first and held for both; no group asks another
account, so nobody waits in a circle.
"""

from __future__ import annotations

from typing import Final

from proxy.access.accounts import (
    CARRIED_AT,
    DAY,
    DAY_AT,
    MONTH_AT,
    OWN,
    REQUESTS_AT,
    RUNS_AT,
    TOKENS_AT,
    USED_AT,
    Accounts,
    Own,
)
from proxy.access.group import Group
from proxy.access.key import Key
from proxy.access.limit_errors import Reached, limit_reached, worse_of
from proxy.access.limit_headers import limit_lines
from proxy.access.permits import GroupedPermit, Permit
from proxy.errors import LimitReached
from proxy.routing.retry_budget import Share

WINDOW_S: Final = 60.0
_LOOK: Final = 0  # what :meth:`Account._admit` is asked for
_COUNT: Final = 1
_ENTER: Final = 2
_MORE: Final = 3
# Above everything that can be set, and sums of it.
_NO_LIMIT: Final = 1 << 62


def _bound(limit: int | None) -> int:
    return _NO_LIMIT if limit is None else limit


class Account:
    """One key's or group's account, as the worker whose requests it is about uses it.

    :param holder: whose limits it keeps. :param group: the account of the key's group, if it is in one.

    ``group``: counts all that is settled here. ``is_limited``, ``reserves``, ``counts_requests``: by the
    limits of the two together.
    """

    __slots__ = (
        "_accounts", "_base_day", "_base_day_nusd", "_base_day_tokens", "_base_month", "_base_nusd",
        "_base_tokens", "_concurrency", "_daily_nusd", "_daily_tokens", "_guard", "_ints", "_is_daily",
        "_is_dated", "_monthly_nusd", "_monthly_tokens", "_others", "_own", "_own_at", "_reals", "_rpm",
        "_shared_at", "_slot", "_told", "_tpm", "counts_requests", "group", "header_names", "holder",
        "is_limited", "refused", "reserves", "share", "spent_until",
    )  # fmt: skip

    def __init__(
        self, accounts: Accounts, slot: int, holder: Key | Group, group: Account | None = None
    ) -> None:
        assert accounts.own is not None
        self.holder, self.group, self._accounts, self._slot = holder, group, accounts, slot
        self._ints, self._reals = accounts.whole, accounts.real
        self._shared_at = accounts.base(slot) >> 3
        (
            self._base_month, self._base_tokens, self._base_nusd,
            self._base_day, self._base_day_tokens, self._base_day_nusd,
        ) = accounts.before(slot)  # fmt: skip
        columns = accounts.columns(slot)
        self._own, self._own_at = accounts.own_of(slot), columns[accounts.own] >> 3
        self._others = tuple(at for worker, at in enumerate(columns) if worker != accounts.own)
        self._rpm, self._tpm = _bound(holder.rpm), _bound(holder.tpm)
        self._concurrency = _bound(holder.concurrency)
        self._daily_tokens = self._daily_nusd = self._monthly_tokens = self._monthly_nusd = _NO_LIMIT
        if not holder.soft:
            self._daily_tokens, self._daily_nusd = _bound(holder.daily_tokens), _bound(holder.daily_nusd)
            self._monthly_tokens = _bound(holder.monthly_tokens)
            self._monthly_nusd = _bound(holder.monthly_nusd)
        self._is_daily = min(self._daily_tokens, self._daily_nusd) < _NO_LIMIT
        self._is_dated = self._is_daily or min(self._monthly_tokens, self._monthly_nusd) < _NO_LIMIT
        self.reserves = holder.tpm is not None or self._is_dated
        self.counts_requests = holder.rpm is not None
        self.is_limited = self.reserves or self.counts_requests or holder.concurrency is not None
        # The group's, where it has limits: requests are let in by both then.
        self._guard = None if group is None or not group.is_limited else group
        if self._guard is not None:
            self.is_limited = True
            self.reserves = self.reserves or self._guard.reserves
            self.counts_requests = self.counts_requests or self._guard.counts_requests
        self.share = Share()  # of this worker's retry budget
        self.spent_until = 0.0  # the minute's requests are used up, as far as this worker knows
        self.refused: Permit | None = None  # what was left at the latest refusal
        self._told = limit_lines(holder, None if self._guard is None else self._guard.holder)
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

    def _admit(  # noqa: PLR0912, PLR0915 - every call costs more than what it does here
        self, now: float, unix_s: float, tokens: int, nusd: int, what: int
    ) -> Permit:
        own, whole, shared = self._own, self._ints, self._shared_at
        begun, used = self._reals[shared], whole[shared + CARRIED_AT]
        requests = month_tokens = month_nusd = 0
        if own.window == begun:
            requests = own.requests
            used += own.tokens
        month = -1
        if self._is_dated:
            day = self._accounts.at(unix_s)
            if own.day != day:
                self._turn(own, day)
            month = own.month
            if self._base_month == month:
                month_tokens, month_nusd = self._base_tokens, self._base_nusd
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
                or (self._is_daily and self._is_day_over(held, held_nusd))
            )
        ):
            month_sums = month_tokens, month_nusd, held, held_nusd
            raise self._refusal(month_sums, running, left, tokens_left, used, ends_at, now, unix_s)
        guard = self._guard
        theirs = None
        if guard is not None:
            theirs = self._ask(guard, left, tokens_left, ends_at, now, unix_s, tokens, nusd, what)
        if what != _LOOK:
            if own.window != begun:
                if self._reals[shared] != begun:
                    whole[shared + CARRIED_AT] = used
                    self._reals[shared] = begun
                self._enter(begun)
            own.requests += what != _MORE
            own.running += what == _ENTER
            own.held += tokens  # none where it only counts
            own.held_nusd += nusd
            if self._others:
                self._ints[self._own_at + REQUESTS_AT] = own.requests
                self._tell_of_running(own)
        tokens_left = tokens_left - tokens if tokens_left > tokens else 0
        if theirs is not None:
            return GroupedPermit(tokens, nusd, left - 1, tokens_left, ends_at, theirs)
        return Permit(tokens, nusd, left - 1, tokens_left, ends_at)

    def _ask(
        self, guard: Account, left: int, tokens_left: int, ends_at: float,
        now: float, unix_s: float, tokens: int, nusd: int, what: int,
    ) -> Permit:  # fmt: skip
        """Have the group let the request in too, for which there is room here. Returns what is left there.

        :param left: of the key's own requests; ``tokens_left``: and of its tokens.
        :raises LimitReached: a limit of the group is reached.
        """
        try:
            if what == _LOOK:
                return guard._admit(now, unix_s, 0, 0, what)
            return guard.admit(now, unix_s, tokens, nusd, what=what)
        except LimitReached as error:
            self.spent_until = max(self.spent_until, guard.spent_until)
            assert guard.refused is not None
            rest = Permit(0, 0, left, max(0, tokens_left), ends_at)
            self._tell(error, rest, guard.refused, now, unix_s)
            raise

    def _day_sums(self) -> tuple[int, int]:
        """Tokens and nano-USD of the day in which this worker's part is."""
        own = self._own
        day = own.day
        tokens, nusd = own.month_tokens - own.tokens_before, own.month_nusd - own.nusd_before
        if self._base_day == day:
            tokens += self._base_day_tokens
            nusd += self._base_day_nusd
        for at in self._others:
            _, _, _, _, month_tokens, month_nusd, _, _, _, _ = OWN.unpack_from(self._accounts.memory, at)
            its_day, before, nusd_before = DAY.unpack_from(self._accounts.memory, at + OWN.size)
            if its_day == day:
                tokens += month_tokens - before
                nusd += month_nusd - nusd_before
        return tokens, nusd

    def _is_day_over(self, held: int, held_nusd: int) -> bool:
        tokens, nusd = self._day_sums()
        return tokens + held >= self._daily_tokens or nusd + held_nusd >= self._daily_nusd

    def _turn(self, own: Own, day: int) -> None:
        """This worker's figures are of this day from here on, and of the month that it is in."""
        own.turn(day, self._accounts.month)
        if self._others:
            whole, at = self._ints, self._own_at
            if whole[at + MONTH_AT] != own.month:
                whole[at + MONTH_AT + 1], whole[at + MONTH_AT + 2] = own.month_tokens, own.month_nusd
                whole[at + MONTH_AT] = own.month
            whole[at + DAY_AT + 1], whole[at + DAY_AT + 2] = own.tokens_before, own.nusd_before
            whole[at + DAY_AT] = day

    def _with_others(
        self, begun: float, month: int, requests: int, used: int, month_tokens: int, month_nusd: int,
        running: int, held: int, held_nusd: int,
    ) -> tuple[int, int, int, int, int, int, int]:  # fmt: skip
        """The sums over all workers."""
        for at in self._others:
            part = OWN.unpack_from(self._accounts.memory, at)
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
        own.requests = own.tokens = self._ints[at + REQUESTS_AT] = self._ints[at + TOKENS_AT] = 0
        own.window = self._reals[at] = begun

    def settle(self, permit: Permit | None, unix_s: float, tokens: int, nusd: int) -> None:
        """A request is over.

        :param permit: None: neither the key nor its group has limits, and it was not asked for any.
        :param tokens: what it has really used. :param nusd: and what that costs.
        """
        own, day = self._own, self._accounts.at(unix_s)
        if own.day != day:
            self._turn(own, day)
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
                self._ints[self._own_at + TOKENS_AT] = own.tokens
                if self._reals[self._shared_at] != begun:
                    # Another worker has begun a window just now, and may not have seen these tokens: rather
                    # count them twice than not at all.
                    self._enter(self._reals[self._shared_at])
                    own.tokens = self._ints[self._own_at + TOKENS_AT] = tokens
        if self._others:
            whole, at = self._ints, self._own_at
            whole[at + MONTH_AT + 1] = own.month_tokens
            whole[at + MONTH_AT + 2] = own.month_nusd
            whole[at + MONTH_AT] = own.month
            self._reals[at + USED_AT] = unix_s
            self._tell_of_running(own)  # last: what was reserved goes when what was used is there instead
        group = self.group
        if group is not None:
            group.settle(None if self._guard is None else permit, unix_s, tokens, nusd)

    def _tell_of_running(self, own: Own) -> None:
        at = self._own_at + RUNS_AT
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
        tokens, nusd, held, held_nusd = month
        day_tokens, day_nusd = self._day_sums() if self._is_daily else (0, 0)
        sums = (
            ("monthly_tokens", tokens, held, self._monthly_tokens),
            ("monthly_usd", nusd, held_nusd, self._monthly_nusd),
            ("daily_tokens", day_tokens, held, self._daily_tokens),
            ("daily_usd", day_nusd, held_nusd, self._daily_nusd),
        )
        spent = [name for name, amount, _, limit in sums if amount >= limit]
        reserved = [name for name, amount, more, limit in sums if amount + more >= limit]
        reached = Reached(
            spent=spent[0] if spent else "",
            concurrency=running >= self._concurrency,
            rpm=left <= 0,
            tpm=used >= self._tpm,
            reserved="tpm" if tokens_left <= 0 or not reserved else reserved[0],
            tokens_over=max(0, used // self._tpm - 1),
        )
        rest = self.refused = Permit(0, 0, max(0, left), max(0, tokens_left), ends_at)
        error = limit_reached(self.holder, reached, ends_at - now, WINDOW_S, unix_s)
        guard = self._guard
        if guard is None:
            error.headers = b"" if error.is_spent else self._told.of(rest, now, unix_s - now)
            return error
        try:
            theirs = guard._admit(now, unix_s, 0, 0, _LOOK)
        except LimitReached as other:  # the one that lasts longer is told
            error = worse_of(error, other)
            assert guard.refused is not None
            theirs = guard.refused
        self._tell(error, rest, theirs, now, unix_s)
        return error

    def _tell(self, error: LimitReached, rest: Permit, theirs: Permit, now: float, unix_s: float) -> None:
        """Give an error the lines for what is left of the limits of the key and its group."""
        both = GroupedPermit(0, 0, rest.requests_left, rest.tokens_left, rest.ends_at, theirs)
        error.headers = b"" if error.is_spent else self._told.of(both, now, unix_s - now)
