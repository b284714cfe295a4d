"""Ejection, trial and cool-down, with a clock and dice that the test holds."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.deployments.breaker import (
    CLOSED,
    COOLING,
    DUE,
    EASING,
    MAX_COOL_DOWN_S,
    OUT,
    STATES,
    TRIAL,
    Breaker,
)

ANY, LONGEST, AT_ONCE = 0.7, 1.0, 0.0


def breaker() -> Breaker:
    return Breaker(5, 10.0, 300.0)


def ejected(now: float = 0.0) -> Breaker:
    """Out from ``now`` for 10 seconds."""
    made = breaker()
    for _ in range(5):
        made.failed("500", now, LONGEST)
    return made


def test_failures_in_a_row_eject_and_a_success_between_starts_anew():
    made = breaker()
    for _ in range(3):
        assert [made.failed("500", 1.0, ANY) for _ in range(4)] == [False] * 4
        assert made.state(1.0) == CLOSED
        made.succeeded(1.0, 1.0)
    assert [made.failed("500", 1.0, ANY) for _ in range(5)] == [False] * 4 + [True]
    assert (made.is_open, made.state(1.0), made.reason) == (True, OUT, "500")
    made = breaker()  # one that mostly fails is out with the next
    assert made.failed("500", 1.0, ANY, mostly=True)
    assert made.state(1.0) == OUT


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 29, 2000])
def test_equal_jitter_of_a_span_that_doubles_up_to_its_maximum(n):
    whole = min(10.0 * 2 ** min(n, 30), 300.0)
    spans = []
    for seed in range(300):
        made = breaker()
        made.failures, made.ejections = 4, n
        assert made.failed("500", 100.0, Random(seed).random())
        spans.append(made.until_s - 100.0)
    assert whole / 2 <= min(spans) < whole * 0.52
    assert whole * 0.98 < max(spans) <= whole
    assert made.ejections == n + 1


def test_failures_while_it_is_out_change_nothing():
    made = ejected()
    before = repr(made), made.until_s
    assert not any(made.failed("503", now, LONGEST) for now in (0.0, 5.0, 9.99))
    assert (made.until_s, made.ejections, made.reason) == (before[1], 1, "500")


def test_one_trial_at_a_time_and_its_success_closes():
    made = ejected()
    assert [made.state(now) for now in (0.0, 9.99, 10.0, 1e6)] == [OUT, OUT, DUE, DUE]
    made.begin_trial()
    assert made.state(10.0) == TRIAL
    made.end_trial()
    made.succeeded(10.0, 11.0)
    assert (made.state(11.0), made.is_open, made.ejections, made.failures) == (CLOSED, False, 0, 0)
    assert made.reason is None
    assert not made.failed("500", 12.0, LONGEST)  # five in a row again


def test_a_failed_trial_doubles_the_time():
    made = ejected()
    now = 10.0
    for span_s in (20.0, 40.0, 80.0, 160.0, 300.0, 300.0):
        made.begin_trial()
        made.end_trial()
        assert made.failed("still", now, LONGEST)
        assert made.until_s == now + span_s
        assert made.state(now) == OUT
        now = made.until_s
        assert made.state(now) == DUE
    made.succeeded(now, now + 1.0)
    for _ in range(5):
        made.failed("again", now, LONGEST)
    assert made.until_s == now + 10.0  # the ejections before are forgotten
    made = ejected()  # without a verdict the next one may try
    made.begin_trial()
    made.end_trial()
    assert made.state(10.0) == DUE
    assert made.ejections == 1


@pytest.mark.parametrize("now", [5.0, 15.0])
def test_a_success_that_began_before_the_ejection_proves_nothing(now):
    made = ejected(now=1.0)
    state = made.state(now)
    made.succeeded(0.99, now)
    assert (made.state(now), made.ejections) == (state, 1)
    made.succeeded(1.0, now)
    assert made.state(now) == CLOSED


def test_a_cool_down_is_no_strike_and_ends_by_itself():
    made = breaker()
    made.cool_down(7.0, 1.0, AT_ONCE)
    assert (made.state(1.0), made.state(7.99), made.state(8.0)) == (COOLING, COOLING, CLOSED)
    assert (made.failures, made.ejections, made.reason) == (0, 0, None)
    assert made.is_open  # what is only looked at changes nothing
    made.succeeded(8.0, 8.5)
    assert not made.is_open


def test_a_cool_down_ends_with_proof_and_has_a_limit():
    made = breaker()
    made.cool_down(7.0, 1.0, AT_ONCE)
    made.succeeded(0.9, 2.0)
    assert made.state(2.0) == COOLING  # what began before proves nothing
    for asked_s in (1e9, 1.0):  # it is capped, and never shortened
        made.cool_down(asked_s, 1.0, AT_ONCE)
        assert made.cooling_until_s == 1.0 + MAX_COOL_DOWN_S == 1801.0
    assert (made.may_probe(1.9), made.may_probe(2.0)) == (False, True)  # after a second at the soonest
    made.cool_down(50.0, 1.0, AT_ONCE)
    assert (made.may_probe(5.9), made.may_probe(6.0)) == (False, True)  # a tenth of what it asked last
    made.cool_down(1e9, 1.0, AT_ONCE)
    assert (made.may_probe(60.9), made.may_probe(61.0)) == (False, True)
    made.probes(61.0)
    assert (made.may_probe(120.9), made.may_probe(121.0)) == (False, True)
    made.succeeded(61.0, 62.0)
    assert (made.state(62.0), made.is_open) == (CLOSED, False)


def test_429s_that_name_no_time_let_others_go_first_for_longer_each_time():
    made = breaker()
    made.ease(1.0, 1.5)
    made.ease(1.2, 1.6)  # was on its way
    assert (made.state(6.49), made.state(6.5), made.failures) == (EASING, CLOSED, 0)
    spans, now = [], 7.0
    for _ in range(5):
        made.ease(now, now)
        spans.append(made.easing_until_s - now)
        assert made.state(now) == EASING
        now = made.easing_until_s + 100.0
    assert spans == [10.0, 20.0, 40.0, 60.0, 60.0]
    made.succeeded(1.0, now)  # begun before
    made.ease(now, now)
    assert made.state(now) == EASING
    made.succeeded(now, now + 61.0)
    made.ease(now + 62.0, now + 62.0)
    assert made.easing_until_s == now + 67.0  # the first of a new run


def test_after_a_cool_down_others_go_first_for_up_to_as_long_again():
    made = breaker()
    made.cool_down(10.0, 0.0, LONGEST)
    states = [made.state(now) for now in (9.99, 10.0, 19.99, 20.0)]
    assert states == [COOLING, EASING, EASING, CLOSED]
    assert made.free_at(12.0) == 12.0  # it may be asked
    made.succeeded(11.0, 12.0)
    assert made.state(12.0) == EASING
    made.succeeded(20.0, 21.0)
    assert not made.is_open
    for _ in range(5):
        made.failed("500", 22.0, LONGEST)
    made.cool_down(10.0, 22.0, LONGEST)
    assert made.state(33.0) == DUE  # a trial is a trial
    made = breaker()
    made.cool_down(2.0, 0.0, LONGEST)  # who says in a moment means that
    assert (made.state(1.9), made.state(2.0)) == (COOLING, CLOSED)


@pytest.mark.parametrize(
    ("took_s", "outage_s", "span_s"),
    [
        (0.02, 600.0, 20.0),  # cheap: twice base_s
        (0.02, 86_400.0, 34.8),
        (2.0, 600.0, 29.0),
        (60.0, 600.0, 158.7),
        (60.0, 86_400.0, 300.0),  # never above max_s
    ],
)
def test_trials_are_as_rare_as_they_are_dear(took_s, outage_s, span_s):
    made = ejected()
    made.ejections = 10
    assert made.failed("still", outage_s, LONGEST, took_s=took_s)
    assert made.until_s - outage_s == pytest.approx(span_s, rel=1e-3)  # from when the attempt ended


def test_a_cool_down_lies_over_an_ejection():
    made = ejected()
    made.cool_down(15.0, 1.0, AT_ONCE)
    assert [made.state(now) for now in (9.0, 12.0, 16.0)] == [COOLING, COOLING, DUE]
    made.succeeded(2.0, 3.0)  # proves both wrong
    assert made.state(3.0) == CLOSED


def test_free_at():
    made = breaker()
    assert made.free_at(3.0) == 3.0
    made.cool_down(2.0, 3.0, AT_ONCE)
    assert made.free_at(3.0) == 5.0
    assert made.free_at(6.0) == 6.0
    made = ejected()
    assert (made.free_at(3.0), made.free_at(12.0)) == (10.0, 12.0)
    made.cool_down(20.0, 0.0, AT_ONCE)
    assert made.free_at(3.0) == 20.0


def test_a_changed_configuration_holds_from_the_next_failure_on():
    made = ejected()
    made.retune(1, 2.0, 3.0)
    assert made.state(9.0) == OUT
    made.succeeded(9.0, 10.0)
    assert made.failed("500", 10.0, LONGEST)
    assert made.until_s == 12.0


def test_repr_and_names_of_the_states():
    assert "ejections=1" in repr(ejected())
    assert "on trial" not in repr(breaker())
    made = breaker()
    made.begin_trial()
    assert repr(made).endswith(" on trial>")
    named = [STATES[state] for state in (CLOSED, OUT, DUE, TRIAL, COOLING, EASING)]
    assert named == ["ok", "ejected", "ejected", "trial", "cooling down", "easing in"]


@given(st.integers(0, 5000), st.floats(0.001, 1e6), st.floats(0.001, 1e6), st.floats(0, 1, exclude_max=True))
def test_no_number_of_ejections_overflows(ejections, base_s, max_s, roll):
    made = Breaker(1, base_s, max_s)
    made.ejections = ejections
    assert made.failed("500", 0.0, roll)
    assert 0.0 < made.until_s <= max_s


class Life(RuleBasedStateMachine):
    """Anything may happen in any order; a model of what must hold whatever did."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(3, 10.0, 100.0)
        self.rng = Random(0)
        self.now = 0.0
        self.cooling_until = 0.0

    @rule(seconds=st.floats(0.0, 200.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(mostly=st.booleans())
    def fail(self, mostly: bool) -> None:
        was = self.breaker.state(self.now)
        before = self.breaker.until_s
        is_ejected = self.breaker.failed("500", self.now, self.rng.random(), mostly=mostly)
        if is_ejected:
            assert self.breaker.state(self.now) in (OUT, COOLING)
            assert 5.0 <= self.breaker.until_s - self.now <= 100.0
        else:
            assert self.breaker.until_s == before
        if was == OUT:
            assert not is_ejected
        if was in (DUE, TRIAL):
            assert is_ejected

    @rule(age=st.floats(0.0, 100.0))
    def succeed(self, age: float) -> None:
        proves = self.now - age >= self.breaker.ejected_at_s
        before = self.breaker.ejections
        if self.now < self.cooling_until and self.now - age >= self.breaker.cooled_at_s:
            self.cooling_until = self.now
        self.breaker.succeeded(self.now - age, self.now)
        assert self.breaker.failures == 0
        assert self.breaker.ejections == (0 if proves else before)

    @rule(seconds=st.floats(0.001, 1e5))
    def cool_down(self, seconds: float) -> None:
        self.breaker.cool_down(seconds, self.now, self.rng.random())
        self.cooling_until = max(self.cooling_until, self.now + min(seconds, 1800.0))
        assert self.breaker.state(self.now) == COOLING

    @precondition(lambda self: self.breaker.state(self.now) == DUE)
    @rule()
    def begin_trial(self) -> None:
        self.breaker.begin_trial()
        assert self.breaker.state(self.now) == TRIAL

    @precondition(lambda self: self.breaker.on_trial)
    @rule()
    def end_trial(self) -> None:
        self.breaker.end_trial()
        assert self.breaker.state(self.now) != TRIAL

    @invariant()
    def what_is_not_open_is_closed(self) -> None:
        if not self.breaker.is_open:
            assert self.breaker.state(self.now) == CLOSED
            assert self.breaker.ejections == 0

    @invariant()
    def it_is_free_when_it_says_so(self) -> None:
        free_at, state = self.breaker.free_at(self.now), self.breaker.state(self.now)
        assert (free_at > self.now) == (state in (OUT, COOLING))
        assert self.breaker.state(free_at) in (CLOSED, DUE, TRIAL, EASING)
        assert free_at <= self.now + 3600.0

    @invariant()
    def cooling_is_what_was_asked_for(self) -> None:
        assert (self.breaker.state(self.now) == COOLING) == (self.now < self.cooling_until)

    @invariant()
    def who_is_out_has_a_reason(self) -> None:
        assert (self.breaker.reason is not None) == (self.breaker.ejections > 0)


TestLife = Life.TestCase


def test_trials_are_rarer_where_requests_are():
    """One that hangs for a minute at each trial: of few requests a trial is a larger share."""
    spans = []
    for per_s in (20.0, 1.0, 0.05, 0.0001):
        breaker = Breaker(5, 10.0, 10_000.0)
        for now in (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0):
            breaker.until_s = now
            own = per_s if now == 100.0 else 1.0  # what it gets while it is out says nothing
            breaker.failed("timeout", now, 1.0, mostly=True, took_s=60.0, per_s=own)
        spans.append(breaker.until_s - 6400.0)
    assert spans[0] == spans[1] < 600.0
    assert spans[2] == spans[3] == 640.0  # doubling goes no further
