"""The shapes of rows of usage are those that are made."""

from __future__ import annotations

import jsonschema_rs

from proxy.control.admin.usage_schemas import SCHEMAS
from proxy.storage.usage_totals import DIMENSIONS, UsageQuery, columns, further_columns


def test_rows():
    usage = SCHEMAS["Usage"]
    more = further_columns(UsageQuery(forecast="day", reprices=True))
    assert list(usage["properties"]) == columns(DIMENSIONS, more)
    assert usage["required"] == columns(())
    check = jsonschema_rs.validator_for(usage)
    row = dict.fromkeys(columns(()), 0)
    for tag, is_valid in ((None, True), ("search", True), (["search"], False)):
        assert check.is_valid(row | {"team": tag}) == is_valid
    assert not check.is_valid(row | {"Team": "search"})
