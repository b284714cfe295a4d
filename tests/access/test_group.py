"""What a group may be set to, and how it is shown."""

from __future__ import annotations

import pytest

from proxy.access.group import Group, read_changes, read_group
from proxy.access.key import LIMITS, NUSD, KeySettingsError
from proxy.access.permits import Month

NOW = 1_780_315_200.75


def test_a_group_is_read_and_shown():
    given = {"name": "search", "rpm": 3000, "limits": {"monthly_usd": 500, "daily_tokens": 7}, "soft": True}
    group = read_group(given, NOW)
    assert group == Group(
        name="search", created=int(NOW), rpm=3000, monthly_nusd=500 * NUSD, daily_tokens=7, soft=True
    )
    row = group.row(3, Month(12, NUSD, 5.0, 2, 0))
    assert row == {
        "name": "search", "created": int(NOW), "keys": 3, "soft": True, "last_used": 5.0,
        "limits": dict.fromkeys(LIMITS) | {"rpm": 3000, "monthly_usd": 500.0, "daily_tokens": 7},
        "day": {"tokens": 2, "usd": 0.0}, "month": {"tokens": 12, "usd": 1.0},
    }  # fmt: skip
    changes = read_changes({"limits": row["limits"], "soft": None}, NOW)
    assert changes["soft"] is False and Group(name="search", created=int(NOW), **changes).rpm == 3000
    assert read_changes({"rpm": None}, NOW) == {"rpm": None}


@pytest.mark.parametrize("name", [
    None, "", "none", "None", "-a", ".", "a b", "a/b", "\u00e9", "a" * 65, 5, " a", "a\n",
])  # fmt: skip
def test_names_that_cant_be(name):
    with pytest.raises(KeySettingsError, match=r"^'name' must be up to 64 letters, digits, "):
        read_group({} if name is None else {"name": name}, NOW)


@pytest.mark.parametrize(("given", "said"), [
    ({"name": "b"}, "There is no setting 'name'"), ({"models": ["a"]}, "There is no setting 'models'"),
    ({"rpm": 0}, "'rpm' must be a whole number"), ({"limits": {"soft": True}}, "There is no limit 'soft'"),
])  # fmt: skip
def test_what_cant_be_changed(given, said):
    with pytest.raises(KeySettingsError, match=said):
        read_changes(given, NOW)
