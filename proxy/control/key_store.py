"""The keys of a running gateway: stored in SQLite, held in memory, and passed to the workers.

A change is stored first; then it takes effect at every worker; then the call for it returns. Known keys stay
known if the storage fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from proxy.access.accounts import MAX_KEYS, Accounts
from proxy.access.group import Group
from proxy.access.key import Key, KeySettingsError, check_models, check_tags, read_rotation, read_settings
from proxy.access.permits import Month
from proxy.config.listen import is_open
from proxy.config.settings import Config
from proxy.control.usage_index import UsedBefore
from proxy.errors import StartError
from proxy.storage.database import Database
from proxy.storage.group_table import load_groups
from proxy.storage.key_table import (
    UnknownKey,
    change_key,
    check_rotation,
    find_key,
    load_keys,
    make_key,
    make_secret,
    rotate_key,
    shared_names,
    store_key,
    version_of,
)
from proxy.storage.transaction import transaction

log = logging.getLogger("tokenhub.keys")

_P = ParamSpec("_P")
_T = TypeVar("_T")
# How many names that several keys have are logged.
_NAMES_SAID = 10


class NotStored(Exception):
    """The storage fails; the text is a sentence."""


@dataclass(frozen=True, slots=True)
class Keyring:
    """The keys and their groups, as a data plane needs them: each with the number of its account.
    ``is_open``: requests without a key are served too."""

    keys: tuple[tuple[Key, int], ...] = ()
    is_open: bool = True
    groups: tuple[tuple[Group, int], ...] = ()


class KeyStore:
    """The keys of a running gateway, and their groups, by name (:mod:`proxy.control.group_store`).

    :param accounts: what they use.
    """

    def __init__(self, database: Database, accounts: Accounts, config: Config) -> None:
        self._database = database
        self._accounts = accounts
        self._config = config
        self._keys: dict[str, Key] = {}
        self.groups: dict[str, Group] = {}
        self._slots: dict[str, int] = {}  # of keys, by id
        self._group_slots: dict[str, int] = {}  # by name; a group that is made again goes on with its own
        self._before, self._opened_at = UsedBefore(), 0.0
        self._spread: Callable[[Keyring], Awaitable[None]] | None = None
        self._version = 0
        self._lock = asyncio.Lock()
        self._is_faulty = False
        self._file: tuple[int, int] | None = None  # which file it is; None: nothing is kept
        self._turn = 0
        self._unstored: dict[str, int] = {}  # revocations that hold in memory only: when, by id

    async def open(self, used: UsedBefore) -> None:
        """Read the keys and groups.

        :param used: usage of this month and this day.
        :raises StartError: they can't be read. Missing keys must not mean open access.
        """
        try:
            self._file = _identity(self._database.path) if self._database.is_kept else None
            self._version = await self._database.run(version_of)
            keys, groups = await self._database.run(_load)
        except (sqlite3.Error, ValueError) as error:
            raise StartError(
                f"the keys can't be read from [state] path {self._database.path}: {error}"
            ) from None
        now = time.time()
        self._before, self._opened_at = used, now
        self._set(keys, groups)
        if shared := shared_names(keys, now):
            names = "; ".join(f"'{name}': {', '.join(ids)}" for name, ids in [*shared.items()][:_NAMES_SAID])
            log.warning(
                "%d names belong to several keys in use (%s): metrics and totals tell these apart by key_id; "
                "'tokenhub keys edit ID --name NAME' gives one another name", len(shared), names,
            )  # fmt: skip

    def _set(self, keys: Iterable[Key], groups: Iterable[Group]) -> None:
        self.groups = {group.name: group for group in groups}
        self._keys = {key.id: key for key in keys}
        # Groups first: a new key must not be without the limits of its group.
        self._open(self._group_slots, self.groups, self._before.groups)
        self._open(self._slots, self._keys, self._before.keys)
        count = len(self._keys) + len(self.groups)
        if count > MAX_KEYS:
            log.error(
                "there are %d keys and groups, and room for %d: the latest are not known", count, MAX_KEYS
            )

    def _open(self, slots: dict[str, int], ids: Iterable[str], used: Mapping[str, Month]) -> None:
        """Give accounts to those that have none."""
        for id in ids:
            count = len(self._slots) + len(self._group_slots)
            if id not in slots and count < MAX_KEYS:
                slots[id] = count
                self._accounts.open(count, self._opened_at, used.get(id, Month(0, 0, 0.0)))

    @property
    def keyring(self) -> Keyring:
        """The keys that are in effect now."""
        keys = tuple((key, self._slots[id]) for id, key in self._keys.items() if id in self._slots)
        slots = self._group_slots
        groups = tuple((group, slots[name]) for name, group in self.groups.items() if name in slots)
        return Keyring(keys, self.is_open, groups)

    @property
    def is_open(self) -> bool:
        """True: requests without a key are served now."""
        return is_open(self._config, has_keys=bool(self._keys))

    async def serve(self, spread: Callable[[Keyring], Awaitable[None]]) -> None:
        """Pass each change to ``spread`` from now on, which returns when it is in effect."""
        self._spread = spread
        now = time.time()
        if self.is_open:
            if self._config.auth.required is None:
                log.info("no keys exist yet: anyone who can reach this gateway can use it")
        elif not self._keys:
            log.warning("no keys exist yet, and requests need one: make it with 'tokenhub keys create'")
        elif not any(key.is_in_use(now) for key in self._keys.values()):
            log.warning(
                "all %d keys are revoked or expired, and requests need one, so all are refused: make "
                "another ('tokenhub keys create'), or extend one ('tokenhub keys edit KEY --expires 90d')",
                len(self._keys),
            )

    async def configure(self, config: Config) -> None:
        """Another configuration is in effect."""
        async with self._lock:
            was_open, self._config = self.is_open, config
            if self.is_open != was_open:
                await self._pass_on()

    async def _pass_on(self) -> None:
        if self._spread is not None:
            await self._spread(self.keyring)

    # ------------------------------------------------------------------ what people ask for

    def used_in_turn(self, count: int) -> list[tuple[Key | Group, Month]]:
        """The next keys and groups with a limit of a day or a month, and their usage. Repeated calls go
        through all of them."""
        limited: list[tuple[Key | Group, int]] = [*self.keyring.keys, *self.keyring.groups]
        limited = [(holder, slot) for holder, slot in limited if holder.has_windows()]
        begin = self._turn if self._turn < len(limited) else 0
        self._turn = begin + count
        return [(holder, self._used(slot)) for holder, slot in limited[begin : self._turn]]

    def used_by_group(self, name: str) -> tuple[int, Month]:
        """The number of keys in a group that are not revoked, and what the group has used."""
        count = sum(key.group == name and key.revoked is None for key in self._keys.values())
        return count, self._used(self._group_slots.get(name))

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of all keys that there are now."""
        return map(self.row, list(self._keys.values()))

    def find(self, wanted: str) -> Key:
        """:raises UnknownKey: as :func:`proxy.storage.key_table.find_key`."""
        return find_key(list(self._keys.values()), wanted, time.time())

    def row(self, key: Key) -> dict[str, Any]:
        """The row of a key, with what it has used."""
        return key.row(self._used(self._slots.get(key.id)))

    def _used(self, slot: int | None) -> Month:
        return Month(0, 0, 0.0) if slot is None else self._accounts.used(slot, time.time())

    def names(self) -> dict[str, str]:
        """The names of all keys, by id."""
        return {id: key.name for id, key in self._keys.items()}

    async def create(self, given: Mapping[str, Any], known: Iterable[str]) -> tuple[Key, str]:
        """Make a key; its clear text comes with it, and never again.

        :param known: the names that ``models`` may hold.
        :raises KeySettingsError: settings that can't be. :raises NameTaken, NotStored: nothing was changed.
        """
        now = time.time()
        settings = read_settings(given, now)
        check_models(settings.get("models") or (), known)
        check_tags(settings.get("tags", ()), dict(self._config.usage.tags))
        key, secret = make_key(settings, now)
        async with self._lock:
            await self._load_changes()
            self.check_room()
            await self._store(_store_new, key)
        log.info("key %s (%s) is new", key.id, key.name)
        return key, secret

    async def edit(self, wanted: str, given: Mapping[str, Any], known: Iterable[str]) -> Key:
        """Change what is given of a key; null lifts a limit.

        :raises UnknownKey, KeySettingsError, NameTaken, NotStored: nothing was changed.
        """
        now = time.time()
        async with self._lock:
            await self._load_changes()
            key = self.find(wanted)
            settings = read_settings(given, now)
            fresh = set(settings.get("models") or ()) - set(key.models or ())  # the rest may have left since
            check_models(sorted(fresh), known)
            check_tags(set(settings.get("tags", ())) - set(key.tags), dict(self._config.usage.tags))
            changed = dataclasses.replace(key, **settings)
            if changed != key:
                if key.id in self._unstored:
                    settings["revoked"] = self._unstored[key.id]
                changed = await self._store(change_key, key.id, settings, now)
                log.info("key %s (%s) was changed: %s", key.id, key.name, ", ".join(sorted(settings)))
            return changed

    async def rotate(self, wanted: str, given: Mapping[str, Any]) -> tuple[Key, str]:
        """Give a key another secret, which comes with it, and never again. The former one may work on.

        :param given: as :func:`proxy.access.key.read_rotation` takes it.
        :raises UnknownKey, KeySettingsError, NotStored: nothing was changed.
        """
        overlap_s = read_rotation(given)
        secret, digest = make_secret()
        async with self._lock:
            await self._load_changes()
            key = self.find(wanted)
            now = time.time()
            check_rotation(key, now)  # that it was revoked may hold in memory only
            key = await self._store(rotate_key, key.id, digest, overlap_s, now)
        log.info("key %s (%s) has a new secret; the former one works for %d s", key.id, key.name, overlap_s)
        return key, secret

    async def revoke(self, wanted: str) -> Key:
        """Revoke a key from the next request on, even if that can't be stored.

        :raises UnknownKey: there is no such key. :raises NotStored: it is revoked only until the next start.
        """
        async with self._lock:
            await self._load_changes()
            key = self.find(wanted)
            if key.revoked is not None and key.id not in self._unstored:
                return key
            at = key.revoked or int(time.time())
            try:
                revoked = await self._store(change_key, key.id, {"revoked": at}, at)
            except NotStored as error:
                self._unstored[key.id] = at
                self._keys[key.id] = dataclasses.replace(key, revoked=at)
                await self._pass_on()
                text = f"{error} The key is revoked, but only until the gateway is restarted."
                raise NotStored(text) from None
            log.info("key %s (%s) is revoked", key.id, key.name)
            return revoked

    async def change_groups(self, work: Callable[[sqlite3.Connection], Group]) -> Group:
        """Write a group, or delete it, and put the change in effect.

        :raises NotStored: nothing was changed. It raises what ``work`` does.
        """
        async with self._lock:
            await self._load_changes()
            group, groups = await self._write("group", _then_load, work)
            self._set(self._keys.values(), groups)
            await self._pass_on()
        return group

    def check_room(self) -> None:
        """:raises KeySettingsError: there is no account for another key or group."""
        if len(self._slots) + len(self._group_slots) >= MAX_KEYS:
            raise KeySettingsError(
                f"There are {MAX_KEYS} keys and groups already; a restart makes room for those that were "
                "deleted."
            )

    async def _store(
        self, work: Callable[Concatenate[sqlite3.Connection, _P], Key], *args: _P.args, **kwargs: _P.kwargs
    ) -> Key:
        """Write a key and put it in effect."""
        key = await self._write("key", work, *args, **kwargs)
        self._unstored.pop(key.id, None)
        self._set({**self._keys, key.id: key}.values(), self.groups.values())
        await self._pass_on()
        return key

    async def _write(
        self, what: str, work: Callable[Concatenate[sqlite3.Connection, _P], _T],
        *args: _P.args, **kwargs: _P.kwargs,
    ) -> _T:  # fmt: skip
        try:
            await self._database.run(self._has_file)
            return await self._database.run(work, *args, **kwargs)
        except KeySettingsError:
            raise
        except (sqlite3.Error, ValueError, UnknownKey) as error:
            raise NotStored(f"The {what} can't be stored in {self._database.path}: {error}.") from None

    # ------------------------------------------------------------------ what others write

    async def check(self) -> None:
        """Load what a command has written to the file while the gateway runs."""
        async with self._lock:
            await self._load_changes()

    async def _load_changes(self) -> None:
        """Load changed keys. Trouble with the storage is logged, and known keys stay."""
        try:
            await self._database.run(self._has_file)
            for id, at in list(self._unstored.items()):
                with contextlib.suppress(UnknownKey):  # a deleted key grants nothing
                    await self._database.run(change_key, id, {"revoked": at}, at)
                del self._unstored[id]
                log.info("key %s: its revocation is stored now", id)
            version = await self._database.run(version_of)
            if version == self._version:
                return
            keys, groups = await self._database.run(_load)
        except (sqlite3.Error, ValueError) as error:
            if not self._is_faulty:
                log.error(
                    "the keys can't be read from %s (%s): those that are known stay",
                    self._database.path,
                    error,
                )
            self._is_faulty = True
            return
        self._version, self._is_faulty = version, False
        keys = [self._as_revoked(key) for key in keys]
        if {key.id: key for key in keys} != self._keys or {g.name: g for g in groups} != self.groups:
            self._set(keys, groups)
            log.info("the keys were changed by a command")
            await self._pass_on()

    def _as_revoked(self, key: Key) -> Key:
        at = self._unstored.get(key.id)
        return key if at is None or key.revoked is not None else dataclasses.replace(key, revoked=at)

    def _has_file(self, _database: sqlite3.Connection) -> None:
        """Check that the file is still there: SQLite goes on writing to a deleted one without an error.

        :raises sqlite3.OperationalError: it was deleted or replaced.
        """
        if self._file is not None and _identity(self._database.path) != self._file:
            raise sqlite3.OperationalError("the file was deleted or replaced, which needs a restart")


def _load(database: sqlite3.Connection) -> tuple[list[Key], list[Group]]:
    """Read all as it was at one moment: a key must not be without its group."""
    with transaction(database, "DEFERRED"):
        return load_keys(database), load_groups(database)


def _then_load(
    database: sqlite3.Connection, work: Callable[[sqlite3.Connection], Group]
) -> tuple[Group, list[Group]]:
    return work(database), load_groups(database)


def _store_new(database: sqlite3.Connection, key: Key) -> Key:
    store_key(database, key)
    return key


def _identity(path: str) -> tuple[int, int] | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
