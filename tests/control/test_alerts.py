"""What is told of what changes in the tables; the clock is the test's."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.access.group import Group
from proxy.access.key import NUSD
from proxy.access.permits import Month
from proxy.config.parse import parse
from proxy.control.alerts import (
    BACK,
    EJECTED,
    GROUP_LIMIT,
    KEY_LIMIT,
    QUIET_S,
    REFUSED,
    Alert,
    Watch,
    moment,
    payload,
)
from proxy.control.steps import done
from proxy.routing.catalog import Catalog
from tests.support.deployments import attempt, fail, succeed
from tests.support.keys import UNIX_S, key_of

TEXT = """
[providers.a]
base_url = "http://a/v1"
[providers.b]
base_url = "http://b/v1"
[models."a/m"]
[models."a/n"]
[models."b/m"]
"""
BEGIN = 1000.0


class Watched:
    """A catalog and a watch on it; ``now`` is monotonic seconds."""

    def __init__(self, *keys: Any) -> None:
        self.catalog = Catalog(parse(TEXT), {"a": True, "b": True}, 0)
        self.watch = Watch()
        self.keys = keys
        self.used: dict[str, Month] = {}
        self.now = BEGIN

    def __getitem__(self, id: str) -> Any:
        return self.catalog.deployments[id]

    def look(self, after_s: float = 1.0) -> list[Alert]:
        self.now += after_s
        used = [(key, self.used.get(getattr(key, "id", key.name), Month(0, 0, 0.0))) for key in self.keys]
        return done(self.watch.steps(self.catalog, used, self.now, UNIX_S + self.now))

    def events(self, after_s: float = 1.0) -> list[str]:
        return [alert.event for alert in self.look(after_s)]

    def eject(self, id: str = "a/m") -> None:
        for _ in range(5):
            fail(self[id], "500", self.now, what="answered 500")

    def bring_back(self, id: str = "a/m") -> None:
        self.now = max(self.now, self[id].breaker.until_s)
        succeed(self[id], 0.01, self.now + 0.02)
        assert not self[id].breaker.ejections


@pytest.fixture
def watched():
    return Watched()


def test_nothing_to_tell():
    watched = Watched(key_of(monthly_tokens=100))
    succeed(watched["a/m"], now=watched.now)
    fail(watched["b/m"], now=watched.now)
    assert watched.look() == watched.look() == []


# ---------------------------------------------------------------------- ejections
def test_an_ejection_and_the_way_back_are_told_also_between_two_looks(watched):
    watched.eject()
    until = moment(UNIX_S + watched["a/m"].breaker.until_s)
    [alert] = watched.look()
    text = f"a/m is ejected until {until} at least: 500: answered 500."
    fields = {"model": "a/m", "provider": "a", "reason": "500: answered 500", "until": until}
    assert alert == Alert(EJECTED, text, fields)
    assert watched.look() == []
    watched.bring_back()
    [alert] = watched.look()
    assert alert == Alert(BACK, "a/m is back: it is no longer ejected.", {"model": "a/m", "provider": "a"})
    assert watched.look() == []
    watched = Watched()
    watched.look()
    watched.eject()
    watched.bring_back()
    ejected, back = watched.look()
    assert (ejected.event, back.event) == (EJECTED, BACK)
    assert ejected.fields["reason"] == "500: answered 500"  # though the breaker has forgotten it


def test_before_the_first_look_only_what_still_holds_counts(watched):
    watched.eject("a/m")
    watched.eject("a/n")
    watched.bring_back("a/m")
    assert [(alert.event, alert.fields["model"]) for alert in watched.look()] == [(EJECTED, "a/n")]


def test_a_failed_trial_is_no_news(watched):
    watched.eject()
    assert watched.events() == [EJECTED]
    for _ in range(5):
        watched.now = watched["a/m"].breaker.until_s
        fail(watched["a/m"], now=watched.now + 0.01)
        assert watched["a/m"].breaker.ejections > 1
        assert watched.events() == []


def test_at_most_once_an_hour_and_then_what_is_so(watched):
    """It swings: in the end the last that was told is true again."""
    watched.eject()
    assert watched.events() == [EJECTED]
    watched.bring_back()
    assert watched.events() == [BACK]
    back_at = watched.now
    watched.eject()
    assert watched.events() == []
    assert watched.events(QUIET_S - (watched.now - BEGIN)) == []
    assert watched.events() == [EJECTED]  # an hour after the first, as it is still out
    watched.bring_back()
    assert watched.events() == []
    assert watched.now < back_at + QUIET_S
    assert watched.events(back_at + QUIET_S - watched.now) == [BACK]
    watched = Watched()
    watched.eject()
    watched.look()
    watched.bring_back()
    watched.look()
    watched.eject()
    watched.bring_back()
    assert watched.events(1.0) == watched.events(2 * QUIET_S) == []


def test_a_deployment_that_leaves_is_forgotten_and_one_that_moved_is_back(watched):
    watched.eject("a/m")
    watched.eject("b/m")
    told = [(alert.event, alert.fields["model"]) for alert in watched.look()]
    assert told == [(EJECTED, "a/m"), (EJECTED, "b/m")]  # each is a cause of its own
    moved = TEXT.replace("http://a/v1", "http://c/v1").replace('[models."b/m"]', "")
    watched.catalog = Catalog(parse(moved), {"a": True, "b": True}, 0, watched.catalog)
    assert [(alert.event, alert.fields["model"]) for alert in watched.look()] == [(BACK, "a/m")]
    assert watched.look() == []


@given(st.lists(st.tuples(st.sampled_from(["eject", "back", "wait"]), st.floats(0.1, 900.0)), max_size=60))
def test_whatever_happens_each_cause_is_told_once_an_hour_and_the_truth_in_the_end(steps):
    watched = Watched()
    told: list[tuple[float, str]] = []

    def look(after_s: float) -> None:
        events = watched.events(after_s)
        told.extend((watched.now, event) for event in events)

    for step, after_s in steps:
        if step == "eject" and not watched["a/m"].breaker.ejections:
            watched.eject()
        elif step == "back" and watched["a/m"].breaker.ejections:
            watched.bring_back()
        look(after_s)
    is_out = watched["a/m"].breaker.ejections > 0
    for _ in range(2):
        look(QUIET_S)
    for event in (EJECTED, BACK):
        times = [at for at, what in told if what == event]
        assert all(later - at >= QUIET_S for at, later in itertools.pairwise(times))
    assert [event for _, event in told] == [(EJECTED, BACK)[n % 2] for n in range(len(told))]
    assert (bool(told) and told[-1][1] == EJECTED) == is_out


# ---------------------------------------------------------------------- the operator's keys at providers
def test_the_first_refusal_of_a_providers_key(watched):
    watched.look()
    fail(watched["a/m"], "401", watched.now, what="refused the gateway's key")
    [alert] = watched.look()
    assert (alert.event, alert.fields) == (REFUSED, {"provider": "a", "reason": "it answered 401"})
    assert "Provider a refuses the gateway's key (401)" in alert.text
    for _ in range(5):  # now the key's breaker opens, of which there is nothing new to tell
        fail(watched["a/n"], "401", watched.now)
    assert watched["a/m"].key.is_open
    assert watched.look() == []
    fail(watched["b/m"], "401", watched.now)
    assert [alert.fields["provider"] for alert in watched.look()] == ["b"]


def test_a_refusal_is_told_whatever_follows_it_and_another_one_after_an_hour(watched):
    watched.look()
    fail(watched["a/m"], "401", watched.now + 0.1)
    succeed(watched["a/n"], 0.01, watched.now + 0.2)
    assert not watched["a/m"].key.failures
    assert watched.events() == [REFUSED]
    watched = Watched()
    fail(watched["a/m"], "401", watched.now)
    assert watched.events() == [REFUSED]
    assert watched.events(2 * QUIET_S) == []
    fail(watched["a/m"], "401", watched.now)
    assert watched.events() == [REFUSED]


def test_other_failures_are_no_refusals(watched):
    watched.look()
    for outcome in ("403", "429", "500", "502", "connect", "timeout"):
        fail(watched["a/m"], outcome, watched.now)
    attempt(watched["a/n"], watched.now).left(watched.now)
    assert watched.events() == [EJECTED]  # for five in a row: a 429 is none of them


def test_an_old_refusal_is_no_news_for_a_new_webhook(watched):
    fail(watched["a/m"], "401", watched.now)
    succeed(watched["a/m"], 0.01, watched.now + 0.1)
    fail(watched["b/m"], "401", watched.now)
    assert [alert.fields["provider"] for alert in watched.look(60.0)] == ["b"]  # of a nothing good came since


# ---------------------------------------------------------------------- keys of clients
@pytest.mark.parametrize(("tokens", "told", "over"), [
    (0, [], {}), (79, [], {}), (80, [80], {}), (99, [80], {}), (100, [100], {}), (150, [100], {}),
    (100, [], {"revoked": 5}), (100, [], {"expires": 5}),  # of no use any more, and no concern
])  # fmt: skip
@pytest.mark.parametrize("limit", ["monthly_tokens", "daily_tokens", "monthly_nusd", "daily_nusd"])
def test_thresholds(tokens, told, over, limit):
    used = {
        "monthly_tokens": Month(tokens, 0, 1.0), "monthly_nusd": Month(0, tokens, 1.0),
        "daily_tokens": Month(0, 0, 1.0, tokens, 0), "daily_nusd": Month(0, 0, 1.0, 0, tokens),
    }  # fmt: skip
    for holder in (key_of(**{limit: 100}, **over), key_of(**{limit: 100}, **over, soft=True)):
        watched = Watched(holder)
        watched.used["key_1"] = used[limit]
        assert [alert.fields["percent"] for alert in watched.look()] == told
        assert watched.look() == []


def test_what_is_told_of_a_key():
    watched = Watched(key_of(name="prod", monthly_tokens=1000, monthly_nusd=50 * NUSD))
    watched.used["key_1"] = Month(900, 40 * NUSD, 1.0)
    tokens, usd = watched.look()
    assert tokens.event == usd.event == KEY_LIMIT
    assert tokens.text == "Key prod has used 80 % of its monthly limit: 900 of 1,000 tokens."
    common = {"key": "prod", "key_id": "key_1", "percent": 80, "month": "2026-06", "soft": False}
    assert tokens.fields == {**common, "limit": "monthly_tokens", "used": 900, "of": 1000}
    assert usd.text == "Key prod has used 80 % of its monthly limit: $40.00 of $50.00."
    assert usd.fields == {**common, "limit": "monthly_usd", "used": 40.0, "of": 50.0}
    watched.used["key_1"] = Month(1000, 40 * NUSD, 1.0)
    [over] = watched.look()
    assert over.text == (
        "Key prod has reached its monthly limit: 1,000 of 1,000 tokens. Its requests are answered with 402 "
        "until the month ends."
    )


def test_what_is_told_of_a_group_and_of_soft_limits():
    watched = Watched(Group(name="search", created=1, daily_nusd=NUSD), key_of(daily_tokens=10, soft=True))
    watched.used = {"search": Month(0, 0, 1.0, 5, NUSD), "key_1": Month(0, 0, 1.0, 12, 0)}
    of_group, of_key = watched.look()
    assert (of_group.event, of_key.event) == (GROUP_LIMIT, KEY_LIMIT)
    text = "Group search has reached its daily limit: $1.00 of $1.00."
    assert of_group.text == f"{text} Its requests are answered with 402 until the day ends."
    assert of_group.fields == {
        "group": "search", "limit": "daily_usd", "soft": False, "percent": 100, "used": 1.0, "of": 1.0,
        "day": "2026-06-01",
    }  # fmt: skip
    text = "Key key_1 has reached its soft daily limit: 12 of 10 tokens. Its requests are served on."
    assert (of_key.text, of_key.fields["soft"]) == (text, True)


def test_each_threshold_once_a_window_and_anew_in_the_next_one():
    """Also where no look saw the new day with less."""
    watched = Watched(key_of(daily_tokens=100, monthly_tokens=1000))
    told = []
    for after_s, day_tokens in ((1, 85), (9, 100), (7200, 120), (40_000, 85), (60, 90), (3600, 100)):
        watched.used["key_1"] = Month(130, 0, 1.0, day_tokens, 0)
        told += [(alert.fields["day"], alert.fields["percent"]) for alert in watched.look(after_s)]
    assert told == [("2026-06-01", 80), ("2026-06-01", 100), ("2026-06-02", 80), ("2026-06-02", 100)]


def test_another_month_begins_anew_and_another_limit_after_the_hour():
    watched = Watched(key_of(monthly_tokens=100))
    watched.used["key_1"] = Month(100, 0, 1.0)
    assert watched.events() == [KEY_LIMIT]
    watched.used["key_1"] = Month(0, 0, 1.0)
    assert watched.look(QUIET_S) == []
    watched.used["key_1"] = Month(80, 0, 1.0)
    assert [alert.fields["percent"] for alert in watched.look()] == [80]
    watched = Watched(key_of(monthly_tokens=100))
    watched.used["key_1"] = Month(90, 0, 1.0)
    assert watched.events() == [KEY_LIMIT]
    watched.keys = (key_of(monthly_tokens=1000),)
    assert watched.look() == []
    watched.keys = (key_of(monthly_tokens=110),)
    assert watched.look() == []
    assert watched.events(QUIET_S) == [KEY_LIMIT]
    watched.keys = (key_of(),)
    assert watched.look() == []


# ---------------------------------------------------------------------- what is sent
def test_the_payload():
    alert = Alert(BACK, "a/m is back.", {"model": "a/m", "provider": "a"})
    assert payload(alert, UNIX_S + 0.25, "gw-1", "1.2") == {
        "event": "deployment_back", "text": "TokenHub at gw-1: a/m is back.",
        "time": "2026-06-01T12:00:00.250Z", "gateway": {"host": "gw-1", "version": "1.2"}, "model": "a/m",
        "provider": "a",
    }  # fmt: skip
