"""Every parameter that is taken is described."""

from __future__ import annotations

import jsonschema_rs
import pytest

from proxy.control.admin.inputs import QUERIES
from proxy.control.admin.query_parameters import query_parameter


@pytest.mark.parametrize("name", sorted({name for names in QUERIES.values() for name in names}))
def test_it_has_a_meaning_and_an_example_that_is_valid(name):
    found = query_parameter(name)
    assert found["description"].endswith(".")
    jsonschema_rs.validator_for(found["schema"]).validate(found["example"])
