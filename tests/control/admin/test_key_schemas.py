"""The shapes of keys, usage and requests: against what reads and makes them."""

from __future__ import annotations

import jsonschema_rs
import pytest

from proxy.access.key import FIELDS, LIMITS, KeySettingsError, read_settings
from proxy.access.permits import Month
from proxy.control.admin.key_schemas import SCHEMAS
from tests.support.keys import UNIX_S, key_of

CHANGES = jsonschema_rs.validator_for(SCHEMAS["KeyChanges"])
USD = ("daily_usd", "monthly_usd")
COUNTS = sorted({*LIMITS} - {*USD})
GOOD = {
    "name": ["x", " ü ", "x" * 100],
    **{name: [1, 10**12, 5.0, None] for name in COUNTS},
    **{name: [0.01, 1, 10**9, None] for name in USD},
    "soft": [True, False, None],
    "group": ["search", " a.B-1_ ", "x" * 64, None],
    "models": [["openai/*"], ["a"] * 200, "a,b", None],
    "expires": ["2127-01-31", "2127-01-31T18:00:00Z", "90d", 4_102_444_800, None],
    "on_disconnect": ["cancel", "drain", None],
    "tags": [{"team": "a b"}, {}, "team=a, app=b", None],
}
BAD = {
    "name": ["", " ", "x" * 101, None, 5, "key_0123456789abcdef", " key_0123456789ABCDEF "],
    **{name: [0, -1, 10**12 + 1, 1.5, "5", True, [], {}] for name in COUNTS},
    **{name: [0, -0.5, 10**9 + 1, "5", True] for name in USD},
    "soft": [0, 1, "true"],
    "group": ["", " ", "-a", "a b", "x" * 65, 5, True],
    "models": [[], ["a"] * 201, ["a b"], ["ü"], [1], [None], 5, "", {}],
    "expires": [-1, 253_402_300_800, True, [], {}],
    "on_disconnect": ["", "wait", 1],
    "tags": [{"Team": "a"}, {"team": ""}, {"team": 5}, {"team": "a,b"}, {"team": " a"}, [], 5, "", "team"],
}


def is_taken(settings: dict) -> bool:
    try:
        read_settings(settings, UNIX_S)
    except KeySettingsError:
        return False
    return True


@pytest.mark.parametrize("name", FIELDS)
def test_settings(name):
    """What is described as right is taken, and what is described as wrong is not."""
    for values, is_right in ((GOOD[name], True), (BAD[name], False)):
        for value in values:
            settings = {name: value}
            assert (CHANGES.is_valid(settings), is_taken(settings)) == (is_right, is_right), settings
            if name in LIMITS:
                assert CHANGES.is_valid({"limits": settings}) is is_right
                assert is_taken({"limits": settings}) is is_right


def test_what_is_no_setting_and_that_only_a_new_key_needs_a_name():
    for settings in ({"rps": 5}, {"limits": {"rps": 5}}, {"limits": None}, {"id": "key_1"}, {"limits": []}):
        assert (CHANGES.is_valid(settings), is_taken(settings)) == (False, False)
    assert (SCHEMAS["KeySettings"]["required"], SCHEMAS["KeyChanges"]["required"]) == (["name"], [])


def test_rows():
    row = key_of(rpm=5, models=("a/*",), monthly_nusd=10**9, group="g").row(Month(5, 10**9, UNIX_S))
    check = jsonschema_rs.validator_for(SCHEMAS["Key"])
    check.validate(row)
    assert not check.is_valid(row | {"key": "th-"})  # the clear key is in no row
