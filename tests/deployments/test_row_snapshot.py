"""What a row has learned, taken out and put into another."""

from __future__ import annotations

from random import Random

import orjson
import pytest

from proxy.deployments.row import Row
from proxy.deployments.row_snapshot import dump, restore
from proxy.usage.tokens import Usage


def learned(seed: int = 1) -> Row:
    row, rng = Row(30.0), Random(seed)
    for number in range(50):
        now = 1000.0 + number
        row.sent(now - 0.5)
        row.asked(number, now - rng.random())
        row.first_byte(number, now, 2)
        row.finished(now, rng.random() < 0.9)
        row.charged(now, 4000, Usage(1000, 200, 0, 300), 0.01, 2.0, f"key{number % 3}")
        row.paced(now, 50.0 + number, f"key{number % 3}")
    return row


def test_a_row_comes_back_through_json_as_it_was():
    row = learned()
    state = orjson.loads(orjson.dumps(dump(row)))
    back = Row(30.0)
    restore(back, state)
    assert dump(back) == dump(row)
    assert back.snapshot(2000.0) | {"last_error": None} == row.snapshot(2000.0) | {"last_error": None}
    for now in (1050.0, 5000.0):
        assert back.speed.doubt_at(now) == row.speed.doubt_at(now)
        assert back.charges.read(now, (0.25, 0.0, 300.0)) == row.charges.read(now, (0.25, 0.0, 300.0))
        assert back.read_success(now) == row.read_success(now)
    back.speed.add(0.3, 1060.0, 1)
    row.speed.add(0.3, 1060.0, 1)
    assert back.speed.mean_s == row.speed.mean_s


def test_clocks_may_differ():
    """Unix seconds on the disk, and another start of the machine afterwards."""
    row, back = learned(), Row(30.0)
    restore(back, dump(row, 1e9), -1e9 - 900.0)
    assert back.speed.doubt_at(150.0) == pytest.approx(row.speed.doubt_at(1050.0))
    assert back.used_s == pytest.approx(row.used_s - 900.0)
    assert back.speed.lasts_s(200.0) == pytest.approx(row.speed.lasts_s(1100.0))


def test_settings_are_of_the_configuration_and_not_of_the_past():
    back = Row(60.0)
    restore(back, dump(learned()))
    assert back.speed.drift == Row(60.0).speed.drift
    assert back.success.tau_s == Row(60.0).success.tau_s


def test_what_was_never_used_stays_so():
    back = Row(30.0)
    restore(back, orjson.loads(orjson.dumps(dump(Row(30.0)))))
    assert (back.used_s, back.speed.mean_s) == (float("-inf"), 0.0)
    assert back.charges.ratios is None


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("speed"),
        lambda state: state["speed"].pop("level"),
        lambda state: state["speed"].update(level=None),
        lambda state: state["success"].update(total=float("nan")),
        lambda state: state["charges"].update(ratios=[1.0, "x", 2.0]),
        lambda state: state.update(latest_s=["x"]),
        lambda state: state.update(finished="many"),
        lambda state: state.update(own=[]),
    ],
)
def test_another_versions_state_is_refused_and_changes_nothing(change):
    state = dump(learned())
    change(state)
    back = Row(30.0)
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        restore(back, state)
    assert dump(back) == dump(Row(30.0))
