"""What stores refuse, as errors of the admin API."""

from __future__ import annotations

import pytest

from proxy.access.key import KeySettingsError
from proxy.control.admin.store_errors import refusals
from proxy.control.key_store import NotStored
from proxy.errors import GatewayError
from proxy.storage.group_table import GroupInUse, GroupTaken, UnknownGroup
from proxy.storage.key_table import NameTaken, UnknownKey

IN_USE = GroupInUse("x", ["a"])


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (UnknownKey("x"), 404, "key_not_found", None), (UnknownGroup("x", ()), 404, "group_not_found", None),
        (KeySettingsError("x"), 422, "invalid_thing", None),
        (NameTaken("x", "key_1"), 409, "key_name_taken", "name"),
        (GroupTaken("x"), 409, "group_name_taken", "name"),
        (IN_USE, 409, "group_in_use", "name"),
        (NotStored("x"), 503, "storage_failed", None),
    ],
)  # fmt: skip
def test_each_refusal_is_told(error, status, code, param):
    with pytest.raises(GatewayError) as caught, refusals("invalid_thing"):
        raise error
    told = caught.value
    assert (told.status, told.code, told.param) == (status, code, param)
    assert told.message == str(error)


def test_other_faults_stay_what_they_are():
    with pytest.raises(KeyError), refusals("invalid_thing"):
        raise KeyError
