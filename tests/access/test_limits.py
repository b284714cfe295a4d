"""What keys may use and have used: by one, by many at once, and by processes that die in the middle."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.access.accounts import MAX_KEYS, Accounts, Lock, memory_bytes
from proxy.access.group import Group
from proxy.access.limits import WINDOW_S, Account
from proxy.access.permits import GroupedPermit, Month, Permit
from proxy.errors import LimitReached
from proxy.server.file_lock import FileLock
from tests.support.keys import UNIX_S, account_of, accounts_of, key_of, kind_of

NOW = 1000.0


def memory_of(workers: int, accounts: int = 1) -> memoryview:
    """Enough for so few accounts."""
    return memoryview(bytearray(accounts * (memory_bytes(workers) // MAX_KEYS)))


def workers_of(count: int, slot: int = 0, **settings: int | None) -> list[Account]:
    """One key's account, as each of these workers has it."""
    memory = memory_of(count)
    workers = [accounts_of(count, own, memory) for own in range(count)]
    workers[0].open(slot, UNIX_S, Month(0, 0, 0.0))
    return [Account(each, slot, key_of(**settings)) for each in workers]


def grouped_of(
    workers: int,
    *limits: dict[str, int | None],
    group: dict[str, int | None] | None = None,
    lock: Lock | None = None,
) -> list[list[Account]]:
    """Accounts of keys with these limits, as each of these workers has them; the last is their group's."""
    memory, found = memory_of(workers, len(limits) + 1), []
    for own in range(workers):
        each = Accounts(memory, workers, own, lock)
        shared = None
        for slot in range(len(limits) + 1):
            each.open(slot, UNIX_S, Month(0, 0, 0.0))
        if group is not None:
            shared = Account(each, len(limits), Group(name="g", created=1, **group))
        found.append([Account(each, slot, key_of(**its), shared) for slot, its in enumerate(limits)])
    return found


def unix_s(now: float) -> float:
    return UNIX_S + now - NOW


def admit(account: Account, now: float = NOW, tokens: int = 0, nusd: int = 0) -> Permit:
    return account.admit(now, unix_s(now), tokens, nusd)


def refused(account: Account, now: float = NOW, tokens: int = 0, at_s: float | None = None) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        account.admit(now, unix_s(now) if at_s is None else at_s, tokens, 0)
    return caught.value


# ---------------------------------------------------------------------- requests a minute


def test_so_many_requests_in_a_window_that_begins_with_the_first():
    account = account_of(rpm=3)
    permits = [admit(account, NOW + second) for second in (0, 30, 59)]
    assert [permit.requests_left for permit in permits] == [2, 1, 0]
    assert {permit.ends_at for permit in permits} == {NOW + WINDOW_S}
    error = refused(account, NOW + 59.5)
    assert kind_of(error) == (429, "rate_limit_error", "rate_limit_exceeded", "rpm")
    assert (error.message, error.retry_after_s) == (
        "The key's limit of 3 requests a minute is reached. Retry in 1 s.",
        1,
    )
    assert refused(account, NOW + 10.25).retry_after_s == 50
    # Not a grid of minutes: the next begins when somebody comes.
    assert admit(account, NOW + 200).ends_at == NOW + 260
    assert [admit(account, NOW + 259).requests_left for _ in range(2)] == [1, 0]
    refused(account, NOW + 259.75)


def test_retry_after_is_true():
    account = account_of(rpm=1)
    admit(account, NOW + 0.25)
    assert refused(account, NOW + 7.5).retry_after_s == 53
    refused(account, NOW + 59.5)
    admit(account, NOW + 60.5)


def test_finished_requests_count_and_refused_ones_dont():
    account = account_of(rpm=2)
    for _ in range(2):
        account.settle(admit(account), unix_s(NOW), 5, 0)
    for _ in range(50):
        refused(account)
    assert [admit(account, NOW + 60).requests_left for _ in range(2)] == [1, 0]


def test_looking_takes_nothing():
    account = account_of(rpm=1)
    for _ in range(5):
        account.look(NOW, UNIX_S)
    assert admit(account).requests_left == 0
    with pytest.raises(LimitReached, match="1 requests a minute"):
        account.look(NOW, unix_s(NOW))
    account.look(NOW + 60, unix_s(NOW + 60))


def test_a_request_that_is_answered_here_is_one_of_the_minute_and_nothing_else():
    account = account_of(rpm=3, tpm=10, concurrency=1, monthly_tokens=10)
    running = admit(account, tokens=10)
    refused(account)  # by three limits, of which none concerns it
    permit = account.count(NOW + 1, unix_s(NOW + 1))
    assert (permit.requests_left, permit.tokens, permit.nusd, permit.ends_at) == (1, 0, 0, NOW + WINDOW_S)
    account.settle(running, unix_s(NOW + 2), 0, 0)
    assert admit(account, NOW + 2).requests_left == 0  # nothing was held for it
    with pytest.raises(LimitReached) as caught:
        account.count(NOW + 3, unix_s(NOW + 3))
    assert (caught.value.status, caught.value.param) == (429, "concurrency")  # as for any other request
    assert account.count(NOW + 60, unix_s(NOW + 60)).requests_left == 2  # and it begins a window


def test_when_a_worker_knows_that_the_requests_of_a_minute_are_used_up():
    account = account_of(rpm=2, concurrency=1)
    assert account.spent_until == 0.0
    admit(account)
    refused(account)  # by concurrency: that may end at any moment
    account.count(NOW + 1, unix_s(NOW + 1))
    assert account.spent_until == 0.0
    refused(account, NOW + 2)
    assert account.spent_until == NOW + WINDOW_S
    # Another limit for the key is another account.
    assert Account(account._accounts, 0, key_of(rpm=3)).spent_until == 0.0


def test_a_worker_whose_clock_was_read_a_moment_before_the_windows_begin():
    account = account_of(rpm=2)
    admit(account, NOW)
    assert admit(account, NOW - 0.001).ends_at == NOW + WINDOW_S
    refused(account, NOW - 0.001)


# ---------------------------------------------------------------------- tokens a minute


def test_tokens_are_reserved_and_settled():
    account = account_of(tpm=100)
    one = admit(account, tokens=60)
    assert one.tokens_left == 40
    two = admit(account, tokens=60)  # there is room for any: never more than one estimate above
    assert two.tokens_left == 0
    assert refused(account).param == "tpm"
    account.settle(one, unix_s(NOW), 10, 0)
    three = admit(account, tokens=1)  # 10 used, 60 reserved
    assert three.tokens_left == 29
    account.settle(two, unix_s(NOW), 0, 0)
    account.settle(three, unix_s(NOW), 90, 0)
    assert refused(account).message.startswith("The key's limit of 100 tokens a minute is reached. Retry in ")


def test_an_estimate_above_the_limit_keeps_nobody_out():
    account = account_of(tpm=100)
    permit = admit(account, tokens=1_000_000)
    account.settle(permit, unix_s(NOW), 7, 0)
    assert (permit.tokens_left, admit(account, tokens=1).tokens_left) == (0, 92)


def test_what_is_over_the_next_windows_have_less():
    account = account_of(tpm=100)
    account.settle(admit(account), unix_s(NOW + 1), 350, 0)
    assert refused(account, NOW + 10).retry_after_s == 50 + 120
    error = refused(account, NOW + 179.75)  # 250 of it, and then 150
    assert error.retry_after_s == 1
    permit = admit(account, NOW + 180)  # 50 are left of the third
    assert (permit.tokens_left, permit.ends_at) == (50, NOW + 240)
    account.settle(permit, unix_s(NOW + 181), 49, 0)
    assert admit(account, NOW + 181, tokens=5).tokens_left == 0
    assert admit(account, NOW + 300, tokens=5).tokens_left == 90  # those 5 are still reserved


def test_what_is_over_after_a_long_pause_is_forgiven():
    account = account_of(tpm=100)
    account.settle(admit(account), unix_s(NOW), 350, 0)
    permit = admit(account, NOW + 1007)
    assert (permit.tokens_left, permit.ends_at) == (100, NOW + 1067)


def test_a_request_over_several_windows_counts_when_it_ends():
    account = account_of(tpm=100, rpm=10)
    long = admit(account, tokens=80)
    assert admit(account, NOW + 61, tokens=1).tokens_left == 19  # still reserved
    account.settle(long, unix_s(NOW + 62), 95, 0)
    assert admit(account, NOW + 62, tokens=1).tokens_left == 3
    assert admit(account, NOW + 130, tokens=0).requests_left == 9


def test_tokens_that_are_settled_while_another_worker_begins_a_window():
    """It may have read the sums a moment before: what it has not seen counts in the window that it began."""
    one, two = workers_of(2, tpm=100)
    permit = admit(one)

    class Meanwhile:
        """Memory whose reading of the beginning lets the other worker in once, as at that moment."""

        def __init__(self, real: memoryview) -> None:
            self.real, self.is_read = real, False

        def __getitem__(self, at: int) -> float:
            value, was_read, self.is_read = self.real[at], self.is_read, True
            if not was_read:
                two.settle(admit(two, NOW + 61), unix_s(NOW + 61), 0, 0)
            return value

        def __setitem__(self, at: int, value: float) -> None:
            self.real[at] = value

    one._reals = Meanwhile(one._reals)  # type: ignore[assignment]
    one.settle(permit, unix_s(NOW + 61), 5000, 0)
    assert refused(two, NOW + 62).param == "tpm"


# ---------------------------------------------------------------------- at a time


def test_so_many_at_a_time():
    account = account_of(concurrency=2)
    one, _two = admit(account), admit(account)
    error = refused(account)
    assert (error.param, error.retry_after_s, error.status) == ("concurrency", 1, 429)
    assert (error.message, error.headers) == (
        "The key's limit of 2 requests at a time is reached. Retry in 1 s.",
        b"",
    )
    refused(account, NOW + 3600)  # no window has anything to do with it
    account.settle(one, unix_s(NOW), 0, 0)
    admit(account)
    refused(account)


def test_a_worker_that_died_holds_nothing():
    memory, key = memoryview(bytearray(memory_bytes(2))), key_of(concurrency=2, tpm=100, rpm=9)
    accounts = accounts_of(2, None, memory)
    made = []
    for slot in range(2):
        accounts.open(slot, UNIX_S, Month(0, 0, 0.0))
        made.append([Account(accounts_of(2, own, memory), slot, key) for own in (0, 1)])
    for dead, alive in made:
        dead.settle(admit(dead, tokens=10), unix_s(NOW), 30, 5)
        admit(dead, tokens=50)
        admit(alive, tokens=15)
        refused(alive)
    accounts.clear(0)
    for slot, (_, alive) in enumerate(made):
        permit = admit(alive, tokens=5)  # 30 stay used, 15 are still reserved
        assert (permit.tokens_left, permit.requests_left) == (50, 5)
        assert accounts.used(slot, UNIX_S) == (30, 5, unix_s(NOW), 30, 5)
        refused(alive)


# ---------------------------------------------------------------------- a month


@pytest.mark.parametrize(("limit", "param", "text", "ends", "next_ends"), [
    ({"monthly_tokens": 100}, "monthly_tokens", "monthly limit of 100 tokens", "2026-07-01", "2026-08-01"),
    ({"monthly_nusd": 100}, "monthly_usd", "monthly limit of $0.0000001", "2026-07-01", "2026-08-01"),
    ({"daily_tokens": 100}, "daily_tokens", "daily limit of 100 tokens", "2026-06-02", "2026-06-03"),
    ({"daily_nusd": 100}, "daily_usd", "daily limit of $0.0000001", "2026-06-02", "2026-07-02"),
])  # fmt: skip
@pytest.mark.parametrize("workers", [1, 2])
def test_a_limit_of_a_day_or_a_month(limit, param, text, ends, next_ends, workers):
    account, *others = workers_of(workers, **limit, rpm=100)
    account.settle(admit(account), unix_s(NOW), 99, 99)
    held = account.admit(NOW, UNIX_S, 50, 50)  # there is room for any
    for each in (account, *others):
        error = refused(each)  # until it is known what that one uses
        assert kind_of(error) == (429, "rate_limit_error", "rate_limit_exceeded", param)
        assert error.retry_after_s == 1 and "reserved" in error.message
    account.settle(held, UNIX_S, 1, 1)
    code = f"{param.partition('_')[0]}_limit_reached"
    end, next_end = (datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() for day in (ends, next_ends))
    for each in (account, *others):
        error = refused(each)
        assert kind_of(error) == (402, "usage_limit_exceeded", code, param)
        text_of = f"The key's {text} is reached. It resets on {ends}, 00:00 UTC."
        assert (error.message, error.retry_after_s, error.headers) == (text_of, end - UNIX_S, b"")
        refused(each, at_s=end - 0.001)
    permit = account.admit(NOW, end, 10, 10)
    account.settle(permit, end, 100, 100)  # of the new window
    for each in (account, *others):
        refused(each, at_s=end + 1)
    for each in (account, *others):
        each.look(NOW, next_end)


def test_a_request_over_midnight_is_held_against_both_days_and_counts_in_the_one_it_ends_in():
    """So a day ends at most one reservation above its limit, requests in flight included."""
    account, midnight = account_of(daily_tokens=100), UNIX_S + 43_200
    long = account.admit(NOW, midnight - 1, 60, 0)
    permit = account.admit(NOW, midnight + 1, 60, 0)  # 60 are held, so there is room for any
    assert refused(account, at_s=midnight + 1).status == 429
    account.settle(long, midnight + 2, 40, 0)
    account.settle(permit, midnight + 3, 60, 0)
    assert refused(account, at_s=midnight + 4).status == 402
    assert account._accounts.used(0, midnight + 4)[3:] == (100, 0)


@pytest.mark.parametrize("windows", [{"monthly_tokens": 5, "daily_nusd": 5}, {"daily_tokens": 5}])
def test_soft_limits_refuse_nothing_and_reserve_nothing(windows):
    account = account_of(**windows, soft=True)
    assert not account.is_limited and not account.reserves
    account = account_of(**windows, rpm=1, soft=True)  # the others hold
    account.settle(admit(account, tokens=9, nusd=9), UNIX_S, 9, 9)
    assert refused(account).param == "rpm"
    assert not account.reserves
    assert account._accounts.used(0, UNIX_S) == (9, 9, UNIX_S, 9, 9)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("limit", "later"), [
    ("monthly_tokens", "2026-08-01"), ("daily_tokens", "2026-08-01"), ("daily_tokens", "2026-06-02"),
])  # fmt: skip
def test_a_clock_that_is_set_forward_and_back_makes_nothing_unused(workers, limit, later):
    each = workers_of(workers, **{limit: 100})
    account, at_s = each[0], datetime.fromisoformat(later).replace(tzinfo=UTC).timestamp()
    account.settle(admit(account), UNIX_S, 90, 0)
    account.settle(account.admit(NOW, at_s, 5, 0), at_s, 30, 0)
    account.settle(admit(account), UNIX_S, 10, 0)
    for one in each:
        refused(one)
    permit = account.admit(NOW, at_s, 5, 0)
    account.settle(permit, at_s, 70, 0)
    refused(account, at_s=at_s)


@pytest.mark.parametrize(("limits", "later"), [
    ({"monthly_tokens": 100}, "2026-07-01"), ({"daily_tokens": 50}, "2026-06-02"),
    ({"daily_nusd": 7}, "2026-06-02"),
])  # fmt: skip
def test_what_was_used_before_this_process_counts_in_its_window(limits, later):
    accounts = accounts_of()
    accounts.open(0, UNIX_S, Month(90, 7, 12.5, 40, 6))
    account = Account(accounts, 0, key_of(**limits))
    assert accounts.used(0, UNIX_S) == (90, 7, 12.5, 40, 6)
    account.settle(admit(account), UNIX_S, 10, 1)
    assert accounts.used(0, UNIX_S) == (100, 8, UNIX_S, 50, 7)
    assert refused(account).status == 402
    later_s = datetime.fromisoformat(later).replace(tzinfo=UTC).timestamp()
    assert accounts.used(0, later_s)[3:] == (0, 0)
    account.admit(NOW, later_s, 0, 0)


def test_a_key_without_limits_is_counted_too():
    account = account_of()
    assert not account.is_limited and not account.reserves
    account.settle(None, UNIX_S, 12, 34)
    account.settle(None, UNIX_S + 1, 1, 1)
    assert account._accounts.used(0, UNIX_S) == (13, 35, UNIX_S + 1, 13, 35)


@pytest.mark.parametrize(("limits", "is_limited", "reserves"), [
    ({"rpm": 1}, True, False), ({"concurrency": 1}, True, False), ({"tpm": 1}, True, True),
    ({"monthly_tokens": 1}, True, True), ({"monthly_nusd": 1}, True, True), ({"max_tokens": 1}, False, False),
])  # fmt: skip
def test_what_needs_counting_and_what_needs_an_estimate(limits, is_limited, reserves):
    account = account_of(**limits)
    assert (account.is_limited, account.reserves) == (is_limited, reserves)


def test_another_limit_goes_on_from_what_was_counted():
    accounts = accounts_of()
    before = account_of(accounts, rpm=1)
    running = admit(before)
    after = Account(accounts, 0, key_of(rpm=3, concurrency=2))
    assert admit(after).requests_left == 1
    refused(after)
    before.settle(running, UNIX_S, 1, 1)  # by the key as it was
    assert admit(after).requests_left == 0


# ---------------------------------------------------------------------- headers


def test_what_is_let_in_and_what_is_refused_say_what_is_left_and_when_it_ends():
    account = account_of(rpm=3, tpm=1000)
    permit = admit(account, tokens=300)
    lines = account.header_lines(permit, NOW + 0.8, UNIX_S - NOW)
    for line in (
        b"Remaining-Requests: 2\r\nX-RateLimit-Reset-Requests: %d" % (UNIX_S + 60), b"Remaining-Tokens: 700",
        b"Reset-Tokens-After: 1m0s",
    ):  # fmt: skip
        assert b"X-RateLimit-%b\r\n" % line in lines
    assert len(account.header_names) == 8 and b"x-ratelimit-remaining-tokens" in account.header_names
    account.settle(permit, UNIX_S, 1000, 0)
    error = refused(account, NOW + 10)
    assert error.param == "tpm"
    for line in (b"Remaining-Requests: 2", b"Remaining-Tokens: 0", b"Reset-Tokens: %d" % (UNIX_S + 60)):
        assert b"X-RateLimit-%b\r\n" % line in error.headers


# ---------------------------------------------------------------------- against a model


class Model:
    """The same in plain Python: one list of what happened, gone through each time."""

    def __init__(self, limits: dict[str, int | None]) -> None:
        self.rpm, self.tpm, self.concurrency = limits["rpm"], limits["tpm"], limits["concurrency"]
        self.windows = [("monthly_tokens", "%Y-%m", limits["monthly_tokens"]),
                        ("daily_tokens", "%Y-%m-%d", limits["daily_tokens"])]  # fmt: skip
        self.begun: float | None = None
        self.requests = self.used = 0
        self.by_window: dict[str, int] = {}
        self.running: list[int] = []

    def window(self, now: float) -> tuple[float, int, int]:
        """When the window of a moment has begun; the tokens and the requests in it."""
        begun, used, requests = self.begun, self.used, self.requests
        while begun is not None and now >= begun + 60:
            used = max(0, used - (self.tpm or used))
            requests = 0
            begun = begun + 60 if used else None
        return now if begun is None else begun, used, requests

    def used_in(self, date: datetime, form: str) -> int:
        return self.by_window.get(date.strftime(form), 0)

    def may_enter(self, now: float, date: datetime) -> str:
        """Which limit keeps it out; "" for none."""
        _, used, requests = self.window(now)
        held = sum(self.running)
        sums = [(name, self.used_in(date, form), most) for name, form, most in self.windows]
        sums += [("concurrency", len(self.running), self.concurrency), ("rpm", requests, self.rpm),
                 ("tpm", used + held, self.tpm)]  # fmt: skip
        sums += [(name, reached + held, most) for name, reached, most in sums[:2]]
        return next((name for name, reached, most in sums if most is not None and reached >= most), "")

    def may_count(self, now: float) -> bool:
        return self.rpm is None or self.window(now)[2] < self.rpm

    def count(self, now: float) -> None:
        self.begun, self.used, self.requests = self.window(now)
        self.requests += 1

    def enter(self, now: float, tokens: int) -> None:
        self.count(now)
        self.running.append(tokens)

    def leave(self, held: int, date: datetime, tokens: int) -> None:
        self.running.remove(held)
        self.used += tokens
        for form in ("%Y-%m", "%Y-%m-%d"):
            window = date.strftime(form)
            self.by_window[window] = self.by_window.get(window, 0) + tokens


_limit = st.none() | st.integers(1, 6)
_limits = st.fixed_dictionaries({
    "rpm": _limit, "tpm": st.none() | st.integers(1, 60), "concurrency": _limit,
    "monthly_tokens": st.none() | st.integers(1, 300), "daily_tokens": st.none() | st.integers(1, 150),
})  # fmt: skip
# What happens, with which key, at which worker, with how many tokens, behind how many seconds, and which one
# leaves.
_EVENTS = st.lists(st.tuples(
    st.sampled_from(["enter", "enter", "enter", "leave", "wait", "wait", "look", "count"]),
    st.integers(0, 1), st.integers(0, 2), st.integers(0, 40),
    st.sampled_from([0.0, 0.25, 1.0, 29.5, 59.75, 60.0, 61.0, 185.0, 30_000.0, 20 * 86400.0]),  # exact floats
    st.integers(0, 5),
), max_size=60)  # fmt: skip


@settings(max_examples=300)
@given(_limits, _limits, st.none() | _limits, _EVENTS)
def test_any_sequence_of_two_keys_and_their_group_at_three_workers(one, two, group, events):
    """What is let in is held against its key and its group, and what is refused against neither."""
    limits = [one, two] if group is None else [one, two, group]
    accounts = grouped_of(3, *limits[:2], group=group)
    models = [Model(each) for each in limits]
    running: list[tuple[int, int, Permit]] = []
    now = NOW
    for what, key, worker, tokens, wait_s, turn in events:
        date = datetime.fromtimestamp(unix_s(now), UTC)
        account, its = accounts[worker][key], [models[key], *models[2:]]
        found = [model.may_enter(now, date) for model in its]
        names = {name if model is models[key] else f"group_limits.{name}"
                 for name, model in zip(found, its, strict=True) if name}  # fmt: skip
        if what == "wait":
            now += wait_s
        elif what == "leave" and running:
            which, who, permit = running.pop(turn % len(running))
            accounts[who][which].settle(permit, unix_s(now), tokens, 2 * tokens)
            for model in (models[which], *models[2:]):
                model.leave(permit.tokens, date, tokens)
        elif what in ("enter", "look"):
            if names:
                assert refused(account, now, tokens).param in names
                with pytest.raises(LimitReached):
                    account.look(now, unix_s(now))
            elif what == "look":
                account.look(now, unix_s(now))
            else:
                permit = admit(account, now, tokens)
                running.append((key, worker, permit))
                told = [permit, permit.group] if isinstance(permit, GroupedPermit) else [permit]
                for model in its:
                    model.enter(now, tokens)
                for model, left in zip(its, told, strict=False):
                    assert model.rpm is None or left.requests_left == model.rpm - model.requests
                    if model.tpm is not None:
                        assert left.tokens_left == max(0, model.tpm - model.used - sum(model.running))
                    assert left.ends_at - WINDOW_S == model.begun
        elif what == "count":
            if all(model.may_count(now) for model in its):
                left = account.count(now, unix_s(now)).requests_left
                for model in its:
                    model.count(now)
                assert models[key].rpm is None or left == models[key].rpm - models[key].requests
            else:
                with pytest.raises(LimitReached):
                    account.count(now, unix_s(now))
                assert account.spent_until in [model.window(now)[0] + WINDOW_S for model in its]
        for each in accounts:  # what it goes by to refuse at once is so
            for index, account in enumerate(each):
                is_full = not all(model.may_count(now) for model in (models[index], *models[2:]))
                assert now >= account.spent_until or is_full
        date = datetime.fromtimestamp(unix_s(now), UTC)
        for slot, model in enumerate(models):
            month, day = model.used_in(date, "%Y-%m"), model.used_in(date, "%Y-%m-%d")
            used = accounts[worker][0]._accounts.used(slot, unix_s(now))
            assert (used[:2], used[3:]) == ((month, 2 * month), (day, 2 * day))


@given(st.integers(1, 50), st.lists(st.integers(0, 500), min_size=1, max_size=8), st.integers(0, 59))
def test_retry_after_of_tokens_is_true(tpm, uses, second):
    account = account_of(accounts_of(memory=memory_of(1)), tpm=tpm)
    now = NOW
    for tokens in uses:
        try:
            account.settle(admit(account, now), unix_s(now), tokens, 0)
        except LimitReached:
            pass
        now += second
        try:
            account.look(now, unix_s(now))
        except LimitReached as error:
            wait_s = error.retry_after_s
            assert wait_s is not None
            refused(account, now + wait_s - 1)
            now += wait_s
            account.look(now, unix_s(now))


# ---------------------------------------------------------------------- several processes

# Each is one worker of four. All begin at a word, and go on until each had enough turns. They hold what they
# get until they are refused, and then let one go, so that others look on while there is something to be seen;
# who is let in takes one of so many seats, as a witness that knows nothing of accounts.
BEGIN = """
import fcntl, json, mmap, sys
from collections import deque
from proxy.access.accounts import Accounts, memory_bytes
from proxy.access.group import Group
from proxy.access.key import Key
from proxy.access.limits import Account
from proxy.errors import LimitReached
from proxy.server.file_lock import FileLock
shared, own, limits, *rest = json.loads(sys.argv[1])
accounts = Accounts(memoryview(mmap.mmap(shared, memory_bytes(4))), 4, own, FileLock(shared))
group = limits.pop("group", None)  # then each worker has a key of its own, and all are in the group
shares = None if group is None else Account(accounts, 4, Group(name="g", created=0, **group))
account = Account(accounts, 0 if group is None else own, Key("k", "k", b"", 0, **limits), shares)
most_running = (limits if group is None else group).get("concurrency", 0)
NOW, UNIX_S = 1000.0, 1780315200.0
"""
WORKER = (
    BEGIN
    + """
seats, tokens = rest
running, taken = deque(), set()

def sit():
    for seat in range(most_running):
        if seat in taken:
            continue
        try:
            fcntl.lockf(seats, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, seat)
        except OSError:
            continue
        taken.add(seat)
        return seat
    return None

def end_one():
    permit, seat = running.popleft()
    if seat is not None:
        fcntl.lockf(seats, fcntl.LOCK_UN, 1, seat)
        taken.discard(seat)
    account.settle(permit, UNIX_S, tokens, tokens)

print("ready", flush=True)
sys.stdin.readline()
admitted = refused = without_seat = 0
while refused < 20000 and admitted < 20000:
    try:
        permit = account.admit(NOW, UNIX_S, tokens, tokens)
    except LimitReached:
        refused += 1
        if running:
            end_one()
        continue
    admitted += 1
    seat = sit()
    without_seat += seat is None and most_running > 0
    running.append((permit, seat))
while running:
    end_one()
print(json.dumps([admitted, without_seat]), flush=True)
sys.stdin.readline()
"""
)
# Counted only: there is nothing to settle.
COUNTING = WORKER.replace("account.admit(NOW, UNIX_S, tokens, tokens)", "account.count(NOW, UNIX_S) and None")
assert COUNTING != WORKER
HOLDER = (
    BEGIN
    + """
account.admit(NOW, UNIX_S, 10, 10)
for slot in rest[0]:
    accounts.lock.acquire(slot)
print("in", flush=True)
sys.stdin.read()
"""
)
BUSY = (
    BEGIN
    + """
account.settle(account.admit(NOW, UNIX_S, 10, 10), UNIX_S, 10, 10)
account.admit(NOW, UNIX_S, 10, 10)
print("in", flush=True)
while True:
    account.settle(account.admit(NOW, UNIX_S, 10, 10), UNIX_S, 0, 0)
"""
)
Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def shared() -> Iterator[int]:
    descriptor = os.memfd_create("accounts")
    os.ftruncate(descriptor, memory_bytes(4))
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def begin(shared: int) -> Iterator[Begin]:
    """``begin(text, *arguments)``: a process, which has said that it is there."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(text: str, *arguments: object, also: int | None = None) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", text, json.dumps([shared, *arguments])], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, pass_fds=[shared, *([] if also is None else [also])],
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() in (b"ready\n", b"in\n")
        return process

    yield make
    for process in processes:
        process.kill()
        process.communicate()


def opened(shared: int) -> Accounts:
    accounts = Accounts(memoryview(mmap.mmap(shared, memory_bytes(4))), 4, None)
    for slot in range(5):
        accounts.open(slot, UNIX_S, Month(0, 0, 0.0))
    return accounts


def slot_of_four(accounts: Accounts, shared: int, slot: int, **limits: int) -> Account:
    """An account as one of these processes has it: this one."""
    return Account(Accounts(accounts.memory, 4, 0, FileLock(shared)), slot, key_of(**limits))


def first_of_four(accounts: Accounts, shared: int, **limits: int) -> Account:
    return slot_of_four(accounts, shared, 0, **limits)


def results_of(begin: Begin, texts: list[str], limits: dict[str, int], tokens: int) -> list[list[int]]:
    """What processes that all begin at a word have counted."""
    with open(os.memfd_create("seats"), "r+b") as seats:
        number = seats.fileno()
        processes = [begin(text, own, limits, number, tokens, also=number) for own, text in enumerate(texts)]
        for process in processes:
            process.stdin.write(b"\n")
            process.stdin.flush()
        return [json.loads(process.stdout.readline()) for process in processes]


@pytest.mark.parametrize(("limits", "tokens", "expected"), [
    ({"rpm": 500}, 0, 500), ({"tpm": 4000}, 10, 400), ({"monthly_tokens": 4000}, 10, 400),
    ({"monthly_nusd": 4000}, 10, 400), ({"concurrency": 9}, 0, None),
    ({"rpm": 700, "tpm": 10**6, "concurrency": 9, "monthly_tokens": 10**6}, 1, 700),
    ({"daily_tokens": 4000}, 10, 400), ({"group": {"rpm": 500}}, 0, 500),
    ({"group": {"concurrency": 9}}, 0, None), ({"group": {"daily_nusd": 4000}}, 10, 400),
    ({"rpm": 300, "tpm": 10**6, "group": {"rpm": 700, "tpm": 10**6, "daily_tokens": 10**6}}, 1, 700),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value))  # fmt: skip
def test_exact_over_processes(shared, begin, limits, tokens, expected):
    accounts = opened(shared)
    results = results_of(begin, [WORKER] * 4, limits, tokens)
    admitted = sum(each for each, _ in results)
    assert sum(without for _, without in results) == 0
    if expected is not None:
        # Tokens are settled without the lock: each of the others may be one estimate late.
        has_rpm = "rpm" in limits or "rpm" in limits.get("group", {})
        assert expected <= admitted <= expected + (3 if tokens and not has_rpm else 0)
    # Those of keys are those of the group: who is refused by one has taken nothing of the other.
    of_keys, of_group = (
        [slot_of_four(accounts, shared, slot, concurrency=1, rpm=10**6) for slot in range(4)],
        [],
    )
    if "group" in limits:
        of_group = [slot_of_four(accounts, shared, 4, concurrency=1, rpm=10**6)]
    for each in (of_keys, of_group):
        if each:
            sums = [accounts.used(account._slot, UNIX_S) for account in each]
            assert [sum(used[kind] for used in sums) for kind in (0, 1, 3, 4)] == [admitted * tokens] * 4
            # Nothing is left behind: who comes next finds nobody there.
            assert sum(10**6 - 1 - admit(account).requests_left for account in each) == admitted


def test_refusals_are_exact_over_processes_too(shared, begin):
    """Of four workers, two let requests in, and two count what they refuse."""
    opened(shared)
    results = results_of(begin, [WORKER, COUNTING] * 2, {"rpm": 700, "tpm": 10**6}, 0)
    assert sum(each for each, _ in results) == 700


def test_what_another_writes_is_never_seen_half(shared, begin):
    accounts = opened(shared)
    begin(BUSY, 1, {"concurrency": 9, "tpm": 10**12})
    # Of which one request runs all the time, and ten tokens were used.
    by_running = Account(Accounts(accounts.memory, 4, 0), 0, key_of(concurrency=1))
    by_use = Account(Accounts(accounts.memory, 4, 0), 0, key_of(monthly_tokens=10))
    for _ in range(50_000):
        for account, param in ((by_running, "concurrency"), (by_use, "monthly_tokens")):
            with pytest.raises(LimitReached) as caught:
                account.look(NOW, UNIX_S)
            assert caught.value.param == param
        assert accounts.used(0, UNIX_S)[:2] == (10, 10)


def test_a_process_killed_while_it_holds_the_lock(shared, begin):
    accounts = opened(shared)
    process = begin(HOLDER, 1, {"concurrency": 3}, [0])
    with pytest.raises(OSError):
        fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 0)  # nobody gets in now
    process.kill()
    alive = first_of_four(accounts, shared, concurrency=3)
    admit(alive)
    admit(alive)
    refused(alive)  # what it held is held until somebody says that it is gone
    accounts.clear(1)
    admit(alive)
    refused(alive)


def test_a_process_killed_while_it_holds_the_locks_of_key_and_group(shared, begin):
    accounts = opened(shared)
    process = begin(HOLDER, 1, {"group": {"concurrency": 2}}, [1, 4])
    process.kill()
    process.communicate()
    both = Accounts(accounts.memory, 4, 0, FileLock(shared))
    group = Account(both, 4, Group(name="g", created=0, concurrency=2))
    alive = Account(both, 0, key_of(), group)
    admit(alive)
    assert refused(alive).param == "group_limits.concurrency"
    accounts.clear(1)
    admit(alive)
    refused(alive)


def test_killed_at_any_moment_nothing_is_held_by_one_of_key_and_group(shared, begin):
    """What was counted of a request that died is at most one of the group's, which is entered first."""
    accounts = opened(shared)
    for turn in range(1, 7):
        process = begin(BUSY, 1, {"concurrency": 9, "rpm": 10**9, "group": {"concurrency": 9, "rpm": 10**9}})
        process.kill()
        process.communicate()
        accounts.clear(1)
        counted = []
        for slot in (1, 4):
            account = slot_of_four(accounts, shared, slot, concurrency=1, rpm=10**9)  # nobody is there
            permit = admit(account)
            counted.append(10**9 - permit.requests_left)
            account.settle(permit, UNIX_S, 0, 0)
            assert account._accounts.used(slot, UNIX_S)[:2] == (10 * turn, 10 * turn)
        assert 0 <= counted[1] - counted[0] <= turn


def test_a_process_killed_with_requests_running(shared, begin):
    accounts = opened(shared)
    limits = {"concurrency": 2, "tpm": 20, "rpm": 5}
    gone = [begin(HOLDER, own, limits, []) for own in (1, 2)]
    alive = first_of_four(accounts, shared, **limits)
    refused(alive)
    for own, process in enumerate(gone, 1):
        process.kill()
        process.communicate()
        accounts.clear(own)
    permit = admit(alive, tokens=5)
    assert (permit.requests_left, permit.tokens_left) == (2, 15)  # they were let in, and have used nothing
