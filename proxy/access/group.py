"""Groups of keys: limits that several keys share.

A group is called by its name, which stays: the ledger has it, and so a group that is made again under the
name of a deleted one goes on with what that one had used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.access.key import GROUP_NAME, LIMIT_READERS, LIMITS, KeyLimits, read_fields, used_members
from proxy.access.permits import Month

FIELDS = ("name", *LIMITS, "soft")
# The word with which commands take a key out of its group.
NO_GROUP = "none"


@dataclass(frozen=True, slots=True)
class Group(KeyLimits):
    """A group as it is kept. ``created``: Unix seconds."""

    name: str
    created: int

    def row(self, keys: int, used: Month) -> dict[str, Any]:
        """The row of ``/admin/v1/groups``.

        :param keys: how many keys that are not revoked are in it.
        :param used: what they have used since they were in it, in this month and on this day, UTC.
        """
        return {
            "name": self.name,
            "created": self.created,
            "limits": self.limits(),
            "soft": self.soft,
            "keys": keys,
            **used_members(used),
        }


def read_group(given: Mapping[str, Any], now: float) -> Group:
    """A new group of settings from outside.

    :param given: by :data:`FIELDS`; the limits may also stand together below ``limits``.
    :param now: Unix seconds.
    :raises KeySettingsError: as :func:`proxy.access.key.read_settings`.
    """
    settings = read_fields({"name": None, **given}, now, {"name": _name, **LIMIT_READERS})
    return Group(created=int(now), **settings)


def read_changes(given: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The fields of a :class:`Group` that settings from outside change; null lifts a limit.

    :raises KeySettingsError: as :func:`proxy.access.key.read_settings`; a name can't be changed.
    """
    return read_fields(given, now, LIMIT_READERS)


def _name(value: Any, _now: float) -> str:
    if not isinstance(value, str) or not GROUP_NAME.fullmatch(value) or value.lower() == NO_GROUP:
        raise ValueError(
            "must be up to 64 letters, digits, '.', '_' and '-', with a letter or digit first, and not 'none'"
        )
    return value
