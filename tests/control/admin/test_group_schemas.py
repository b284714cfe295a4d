"""The shapes of groups: against what reads and makes them."""

from __future__ import annotations

import jsonschema_rs
import pytest

from proxy.access.group import Group, read_changes, read_group
from proxy.access.key import KeySettingsError
from proxy.access.permits import Month
from proxy.control.admin.group_schemas import SCHEMAS
from tests.support.keys import UNIX_S

SETTINGS, CHANGES = (jsonschema_rs.validator_for(SCHEMAS[name]) for name in ("GroupSettings", "GroupChanges"))


def is_taken(read, given: dict) -> bool:
    try:
        read(given, UNIX_S)
    except KeySettingsError:
        return False
    return True


@pytest.mark.parametrize(("given", "is_right"), [
    ({}, True), ({"rpm": 5, "daily_usd": 0.5, "soft": True}, True), ({"limits": {"tpm": None}}, True),
    ({"rpm": 0}, False), ({"models": ["a"]}, False), ({"soft": 1}, False),
    ({"limits": {"soft": True}}, False),
])  # fmt: skip
def test_what_is_described_as_right_is_taken(given, is_right):
    assert (CHANGES.is_valid(given), is_taken(read_changes, given)) == (is_right, is_right)
    for name in ("search", "a.B-1_", "none", "None", "-a", "a b", "x" * 65, 5, None):
        settings = {"name": name, **given}
        expected = is_right and name in ("search", "a.B-1_")
        assert (SETTINGS.is_valid(settings), is_taken(read_group, settings)) == (expected, expected)
    assert not CHANGES.is_valid({"name": "x"}) and not SETTINGS.is_valid({})


def test_rows():
    row = Group(name="search", created=1, rpm=5).row(2, Month(5, 10**9, UNIX_S))
    jsonschema_rs.validator_for(SCHEMAS["Group"]).validate(row)
