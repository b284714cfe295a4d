"""The shapes of limits; that settings are read as they say is in test_key_schemas.py."""

from __future__ import annotations

import jsonschema_rs
import pytest

from proxy.access.key import LIMITS, Key, used_members
from proxy.access.permits import Month
from proxy.control.admin.limit_schemas import BELOW_LIMITS, LIMIT_SCHEMAS, SOFT_SETTING, USED
from proxy.control.admin.schemas import object_of


def test_rows_are_as_they_say():
    assert tuple(LIMIT_SCHEMAS) == LIMITS
    limits = Key(id="k", name="k", digest=b"", created=1, rpm=1, daily_nusd=1).limits()
    jsonschema_rs.validator_for(object_of("x", LIMIT_SCHEMAS)).validate(limits)
    for used in (Month(0, 0, 0.0), Month(1, 2, 3.5, 4, 5)):
        jsonschema_rs.validator_for(object_of("x", USED)).validate(used_members(used))


@pytest.mark.parametrize(("schema", "value", "is_right"), [
    (SOFT_SETTING, True, True), (SOFT_SETTING, None, True), (SOFT_SETTING, 1, False),
    (BELOW_LIMITS, {}, True), (BELOW_LIMITS, {"daily_usd": 0.1}, True), (BELOW_LIMITS, {"soft": True}, False),
])  # fmt: skip
def test_settings(schema, value, is_right):
    assert jsonschema_rs.validator_for(schema).is_valid(value) is is_right
