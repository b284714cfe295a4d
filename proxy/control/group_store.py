"""The groups of a running gateway: stored with the keys, and passed to the workers with them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from proxy.access.group import Group, read_changes, read_group
from proxy.control.key_store import KeyStore
from proxy.storage.group_table import change_group, delete_group, find_group, store_group

log = logging.getLogger("tokenhub.keys")


class GroupStore:
    """The groups of the keys in a store. A change holds for the next request, once its call returns.

    :param keys: what the groups are about.
    """

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all groups that there are now."""
        return map(self.row, list(self._keys.groups.values()))

    def row(self, group: Group) -> dict[str, Any]:
        """The row of a group, with what it has used."""
        return group.row(*self._keys.used_by_group(group.name))

    def find(self, wanted: str) -> Group:
        """:raises UnknownGroup: there is no such group."""
        return find_group(self._keys.groups.values(), wanted)

    async def create(self, given: Mapping[str, Any]) -> Group:
        """Make a group.

        :raises KeySettingsError: settings that can't be. :raises GroupTaken, NotStored: nothing was changed.
        """
        group = read_group(given, time.time())
        self._keys.check_room()
        await self._keys.change_groups(lambda database: store_group(database, group))
        log.info("group %s is new", group.name)
        return group

    async def edit(self, wanted: str, given: Mapping[str, Any]) -> Group:
        """Change what is given of a group; null lifts a limit.

        :raises UnknownGroup, KeySettingsError, NotStored: nothing was changed.
        """
        settings = read_changes(given, time.time())
        group = await self._keys.change_groups(lambda database: change_group(database, wanted, settings))
        log.info("group %s was changed: %s", group.name, ", ".join(sorted(settings)))
        return group

    async def delete(self, wanted: str) -> dict[str, Any]:
        """Delete a group without keys. Returns its last row.

        :raises UnknownGroup, GroupInUse, NotStored: nothing was changed.
        """
        row = self.row(self.find(wanted))
        group = await self._keys.change_groups(lambda database: delete_group(database, wanted))
        log.info("group %s is deleted", group.name)
        return row
