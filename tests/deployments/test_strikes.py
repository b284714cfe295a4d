"""Which failures count as strikes, and which refusals."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.deployments.breaker import CLOSED, DUE, OUT, Breaker
from proxy.deployments.record import CONNECT, TIMEOUT
from proxy.deployments.strikes import (
    RECENT_S,
    STRIKE_EVERY_S,
    FailureMarks,
    Recent,
    RefusalRun,
    is_same,
    mark_of,
    packed,
    unpacked,
)
from tests.support.deployments import NOW, deployment, fail, succeed

BODY = b'{"model":"a/m","messages":[}'


def mark(key: str = "", text: bytes = BODY, model: bytes = b'"a/m"', *, held: bool = True) -> int:
    at = max(text.find(model), 0)
    end = at + len(model) if model in text else 0
    return mark_of(key, len(text), at, end, [text] if held else None)


def different(count: int) -> list[int]:
    return [mark(text=b'{"model":"a/m","n":%d}' % number) for number in range(count)]


# ---------------------------------------------------------------------- marks


def test_equal_requests_have_equal_marks_whatever_they_call_the_model():
    assert mark() == mark()
    assert mark() == mark(text=BODY.replace(b"a/m", b"some-alias"), model=b'"some-alias"')
    assert mark("key_1") != mark("key_2") != mark()
    assert mark(text=BODY.replace(b"[}", b"[]")) != mark()  # of the same size
    assert mark(text=BODY + b" ") != mark()
    assert mark(text=b'{"x":1}', model=b"none") == mark(text=b'{"x":1}', model=b"none") != 0


@given(st.binary(max_size=300_000), st.lists(st.integers(0, 300_000), max_size=6))
def test_a_mark_does_not_depend_on_how_a_body_came(text, cuts):
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert mark_of("k", len(text), 0, 0, pieces) == mark_of("k", len(text), 0, 0, [text])


def test_a_body_that_was_not_held_may_be_any_of_its_shape():
    held, unknown = mark(), mark(held=False)
    other = mark(text=BODY.replace(b"[}", b"[]"))
    assert held != unknown
    assert is_same(held, unknown)
    assert is_same(other, unknown)
    assert not is_same(held, other)
    assert not is_same(unknown, mark("key_1", held=False))


@given(st.text(max_size=8), st.integers(0, 1 << 40), st.integers(0, 1 << 30), st.binary(max_size=40))
def test_a_mark_survives_as_two_floats(key, length, at, text):
    for pieces in (None, [text]):
        made = mark_of(key, length, at, at, pieces)
        assert unpacked(*packed(made)) == made < 1 << 104
    assert unpacked(*packed(0)) == 0


# ---------------------------------------------------------------------- runs


def run_of(marks: list[int], limit: int = 5) -> int:
    """After how many of these failures a breaker opens; 0: never."""
    breaker = Breaker(limit, 10.0, 300.0)
    for count, one in enumerate(marks, 1):
        if breaker.failed("500", NOW, 0.5, mark=one):
            return count
    return 0


A, B, C = different(3)


@pytest.mark.parametrize(
    ("marks", "after"),
    [
        (different(9), 5),
        ([0] * 9, 5),  # what no request provokes
        ([A] * 1000, 0),
        ([A, B] * 5, 5),
        ([A, A, A, B, B, B], 5),
        ([A, B, B, A, B], 5),
        ([A] * 50 + [B], 0),
        ([A] * 50 + [B] * 2, 52),
        ([A] * 50 + [0] * 2, 52),
        ([A, A, A, B, C], 5),
        ([mark("key_1"), mark("key_2")] * 3, 5),  # one body, two keys
        ([mark(), mark(held=False)] * 50, 0),  # one body, held or not
    ],
)
def test_five_failures_eject_unless_most_are_of_one_request(marks, after):
    assert run_of(marks) == after


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
def test_one_request_alone_ejects_nobody_and_two_do(limit):
    assert run_of([A] * 100, limit) == 0
    assert run_of([A, B] * 50, limit) == max(limit, 2)
    assert run_of(different(50), limit) == max(limit, 2)
    assert run_of([0] * 50, limit) == limit


@given(st.lists(st.sampled_from([0, A, B, C]), max_size=40))
def test_strikes_never_exceed_failures_nor_twice_what_others_had(history):
    marks = FailureMarks()
    for one in history:
        marks.add(one)
    most = max((history.count(one) for one in (A, B, C)), default=0)
    others = len(history) - most
    strikes = marks.strikes(len(history))
    assert 0 <= strikes <= min(len(history), 2 * others + 1)
    assert (strikes == 0) == (others == 0)
    marks.clear()
    assert (marks.total, marks.count(A)) == (0, 0)


def test_memory_is_bounded():
    marks, recent, refusals = FailureMarks(), Recent(), RefusalRun()
    for one in different(1000):
        marks.add(one)
        recent.counts(one, NOW)
        refusals.add(one, NOW, is_confirmed=False)
    assert len(marks._counts) == len(recent._now._counts) == 64
    assert max(len(refusals._run), len(refusals._struck)) <= 256
    assert marks.strikes(1000) == 1000


def test_a_success_between_begins_a_run_anew():
    breaker = Breaker(5, 10.0, 300.0)
    for _ in range(4):
        for one in (A, B, A, B):
            assert not breaker.failed("500", NOW, 0.5, mark=one)
        breaker.succeeded(NOW, NOW)
    assert not breaker.is_open


def test_on_trial_a_request_that_failed_before_is_no_verdict():
    breaker = Breaker(5, 10.0, 300.0)
    for one in (A, B, A, B, A):
        breaker.failed("500", NOW, 0.5, mark=one)
    later = breaker.until_s
    for _ in range(20):
        assert not breaker.failed("500", later, 0.5, mark=A)
        assert breaker.state(later) == DUE  # the next one may try
    assert breaker.failed("500", later, 0.5, mark=C)
    assert breaker.state(later) == OUT


# ---------------------------------------------------------------------- the success ratio


def test_one_request_is_not_counted_again_until_others_fail_or_two_minutes_are_over():
    recent = Recent()
    assert [recent.counts(A, NOW) for _ in range(5)] == [True, False, False, False, False]
    assert [recent.counts(B, NOW) for _ in range(6)] == [True] * 6
    assert recent.counts(A, NOW + 1.0)
    assert [recent.counts(0, NOW) for _ in range(9)] == [True] * 9
    recent = Recent()
    assert recent.counts(A, NOW)
    assert not recent.counts(A, NOW + 0.9 * RECENT_S)
    assert not recent.counts(A, NOW + 1.5 * RECENT_S)
    assert recent.counts(A, NOW + 4.0 * RECENT_S)


def test_one_bad_body_between_good_ones_ejects_nobody():
    """Never five in a row, but more than half of many: the other way out."""
    member, worse = deployment("a"), deployment("b")
    for number, other in enumerate(different(300)):
        now = NOW + number
        for one, provoked_by in ((member, A), (worse, other)):
            fail(one, "500", now, mark=provoked_by) if number % 4 else succeed(one, now=now)
        assert member.state(now) == CLOSED
    assert member.row("chat", True).read_success(now) > 0.9
    assert worse.breaker.ejected_count  # so much for that: with real traffic it is out


@pytest.mark.parametrize("outcome", ["500", "503", "529", "reset", "error", "408"])
def test_one_request_ejects_nobody_whatever_it_provokes(outcome):
    member = deployment("a")
    assert [fail(member, outcome, NOW + number, mark=A) for number in range(200)] == [None] * 200
    assert (member.state(NOW + 200.0), member.breaker.ejected_count) == (CLOSED, 0)


@pytest.mark.parametrize("outcome", [CONNECT, TIMEOUT])
def test_what_no_request_provokes_counts_from_the_first(outcome):
    member = deployment("a")
    assert [fail(member, outcome) for _ in range(5)] == [None] * 4 + ["deployment"]


@given(st.lists(st.tuples(st.sampled_from("as"), st.floats(0.0, 40.0)), max_size=120), st.integers(1, 6))
def test_no_history_of_one_request_and_successes_ejects(history, limit):
    member = deployment("a")
    member.breaker.limit = limit
    now = NOW
    for kind, wait in history:
        now += wait
        fail(member, "500", now, mark=A) if kind == "a" else succeed(member, now=now)
    assert member.breaker.ejected_count == 0


# ---------------------------------------------------------------------- refusals


def keys(count: int) -> list[int]:
    return [mark(f"key_{number}") for number in range(count)]


def refused(refusals: RefusalRun, *marks: int) -> list[int]:
    """How many strikes each of these makes, none confirmed."""
    return [refusals.add(one, NOW, is_confirmed=False) for one in marks]


def test_three_keys_or_without_keys_three_requests_confirm_each_other():
    refusals = RefusalRun()
    assert refused(refusals, *keys(3)) == [0, 0, 3]
    assert refusals.strikes == 3
    assert refused(RefusalRun(), *[A] * 50, B, C) == [0] * 51 + [3]
    refusals.clear()
    for _ in range(5):
        assert refused(refusals, *keys(2)) == [0, 0]
        refusals.clear()  # a success between begins anew
    assert refusals.strikes == 0


def test_one_key_makes_one_confirmed_strike_a_minute():
    refusals = RefusalRun()
    one = keys(1)[0]
    struck = [refusals.add(one, NOW + second, is_confirmed=True) for second in range(181)]
    assert [second for second, strikes in enumerate(struck) if strikes] == [0, 60, 120, 180]
    refusals.clear()  # nor does a success between make room for more
    assert refusals.add(one, NOW + 181.0, is_confirmed=True) == 0


def test_a_confirmed_refusal_is_a_witness_for_the_others():
    refusals = RefusalRun()
    first, *others = keys(3)
    assert refusals.add(first, NOW, is_confirmed=True) == 1
    assert refused(refusals, *others) == [0, 2]


def test_a_wrong_key_of_the_operators_is_out_within_two_minutes_of_one_client():
    member, one = deployment("a"), keys(1)[0]
    told = [fail(member, "401", NOW + second, mark=one, is_confirmed=True) for second in range(121)]
    assert [second for second, who in enumerate(told) if who] == [2 * STRIKE_EVERY_S]
    assert member.state(NOW + 121.0) == OUT
    later = member.key.until_s
    assert fail(member, "401", later, mark=one, is_confirmed=True) == "key"  # on trial it counts at once


def test_one_client_that_provokes_refusals_ejects_nobody():
    member, one = deployment("a"), keys(1)[0]
    for number in range(500):
        assert fail(member, "401", NOW + number, mark=one) is None
    assert member.state(NOW + 500.0) == CLOSED
    assert member.row("chat", True).read_success(NOW + 500.0) == 1.0
    assert member.key.failures == 500  # but it shows: metrics and alerts go by that


def test_what_another_member_answered_confirms_a_refusal():
    member, row = deployment("a"), deployment("a").row("chat", True)
    for number, one in enumerate(keys(3)):
        fail(member, "401", mark=one) if number < 2 else None
        told = member.confirmed(row, NOW, one, 0.5, "401")
    assert told == "key"
    assert member.key.failures == 2  # confirming is no further refusal


def test_a_trial_that_is_refused_to_a_known_witness_is_no_verdict():
    member = deployment("a")
    for one in keys(3):
        fail(member, "401", mark=one)
    later = member.key.until_s
    assert fail(member, "401", later, mark=keys(1)[0]) is None
    assert member.key.state(later) == DUE
    assert fail(member, "401", later, mark=keys(4)[3]) == "key"
