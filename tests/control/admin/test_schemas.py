"""The shapes that the admin API is described with: their grammar against the one that is enforced."""

from __future__ import annotations

import jsonschema_rs
import pytest

from proxy.config import header_values, values
from proxy.control.admin.schemas import SCHEMAS, list_of, nullable, object_of, plain, ref

ALIAS = SCHEMAS["AliasSettings"]["properties"]


def test_an_object_has_what_it_has_and_a_list_refers_to_its_rows():
    schema = object_of(
        "A.", {"b": plain("integer", "B."), "c": nullable("string", "C.", enum=["x"])}, optional=["c"]
    )
    check = jsonschema_rs.validator_for(schema).is_valid
    assert check({"b": 1}) and check({"b": 1, "c": None}) and check({"b": 1, "c": "x"})
    assert not check({}) and not check({"b": 1, "d": 1}) and not check({"b": 1, "c": "y"})
    assert not check({"b": None})
    assert list_of("Alias", "All.")["properties"]["data"]["items"] == ref("Alias")
    assert set(SCHEMAS) >= {"Alias", "Aliases", "Route", "Routes", "Error"}


@pytest.mark.parametrize(("name", "read"), [
    ("sticky", header_values.sticky), ("hedge", values.hedge), ("keepalive", values.seconds),
])  # fmt: skip
@pytest.mark.parametrize("value", [
    "key", "header:x-user", "header:", "keys", "p95", "p99", "250ms", "0.5s", "2 m", "1h", "5", "1d", "-1s",
    "", "s",
])  # fmt: skip
def test_what_a_schema_refuses_is_refused(name, read, value):
    """Not the other way round: that a header's name is none, say, is nothing for a pattern."""
    try:
        read(value)
    except ValueError:
        return
    assert jsonschema_rs.validator_for(ALIAS[name]).is_valid(value)


def test_an_alias_needs_members():
    check = jsonschema_rs.validator_for(SCHEMAS["AliasSettings"]).is_valid
    assert check({"models": ["a"]}) and check({"models": "a"}) and check({"split": {"a": 1}, "models": None})
    assert not check({}) and not check({"strategy": "cost"}) and not check({"models": []})
