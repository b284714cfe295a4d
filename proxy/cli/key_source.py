"""The source of keys and totals for commands: a running gateway, or its database if no gateway answers.

The database is for the first key of a gateway that doesn't run yet, and for a gateway without an admin API. A
running gateway need not be stopped for it: it loads what was written beside it within a second, and each line
of the ledger is counted once, whichever process adds it up.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from proxy.access.accounts import MAX_KEYS
from proxy.access.group import Group, read_changes, read_group
from proxy.access.key import Key, KeySettingsError, check_models, check_tags, read_rotation, read_settings
from proxy.access.permits import Month
from proxy.cli.admin_client import Admin, ConsoleError, NoGateway, connect
from proxy.config.listen import is_open
from proxy.config.settings import AdminConfig, Config
from proxy.routing.catalog import AUTO
from proxy.storage.database import IN_MEMORY, check_place, connect_to_read
from proxy.storage.database import connect as open_database
from proxy.storage.group_table import (
    GroupInUse,
    GroupTaken,
    UnknownGroup,
    change_group,
    delete_group,
    find_group,
    load_groups,
    members,
    store_group,
)
from proxy.storage.key_table import (
    NameTaken,
    UnknownKey,
    change_key,
    find_key,
    load_keys,
    make_key,
    make_secret,
    rotate_key,
    store_key,
)
from proxy.storage.ledger_files import directory_of
from proxy.storage.ledger_ingest import ingest, pause
from proxy.storage.recount import known_tags, recounted_rows
from proxy.storage.schema_version import VERSION, OtherVersion, StateError
from proxy.storage.usage_totals import UsageQuery, add_forecast, read_query, to_csv, usage_rows
from proxy.storage.window_totals import used_by_groups, used_by_keys
from proxy.wire.query import QueryError

log = logging.getLogger("tokenhub.keys")

# A gateway reads a whole ledger for it: a GiB takes some 20 s.
_REPRICING_S = 600.0

Row = dict[str, Any]
_T = TypeVar("_T")
_NOTHING = Month(0, 0, 0.0)


class Source(Protocol):
    """Keys, their groups and totals. Rows are those of the admin API; ``wanted`` is an id or a name, of a
    group its name."""

    def all(self) -> list[Row]: ...
    def show(self, wanted: str) -> Row: ...
    def create(self, settings: Mapping[str, Any]) -> Row: ...  # with the clear text as "key"
    def edit(self, wanted: str, settings: Mapping[str, Any]) -> Row: ...
    def rotate(self, wanted: str, given: Mapping[str, Any]) -> Row: ...  # as create
    def revoke(self, wanted: str) -> Row: ...
    def groups(self) -> list[Row]: ...
    def show_group(self, wanted: str) -> Row: ...
    def create_group(self, settings: Mapping[str, Any]) -> Row: ...
    def edit_group(self, wanted: str, settings: Mapping[str, Any]) -> Row: ...
    def delete_group(self, wanted: str) -> Row: ...  # as it was
    def usage(self, query: Mapping[str, str]) -> list[Row]: ...
    def usage_csv(self, query: Mapping[str, str]) -> str: ...


def use(
    work: Callable[[Source], _T],
    say: Callable[[str], object],
    *,
    url: str | None,
    config: Config | None,
    environ: Mapping[str, str],
    writes: bool = False,
    makes: bool = False,
) -> _T:
    """Do ``work`` with the keys of a gateway.

    :param say: gets one line about where the keys are, if no gateway was called.
    :param url: of its admin API; the database is not used then. None: as the configuration says.
    :param config: may be None if there is a ``url``.
    :param environ: holds the admin API's token.
    :param writes: the work changes something.
    :param makes: if there is no database yet, it needs one.
    :raises ConsoleError: it can't be done.
    """
    try:
        admin = connect(url, AdminConfig() if config is None else config.admin, environ)
        return work(_Asked(admin))
    except NoGateway as error:
        if url is not None or config is None:
            raise
        why = error.why
    if config.state.path == IN_MEMORY:
        raise ConsoleError(
            f"{why}, and [state] path is {IN_MEMORY}: the keys are in a running gateway only; start it with "
            "'tokenhub serve', or name a file as path"
        )
    path = Path(config.state.path).absolute()
    with _opened(path, why, say, writes=writes, makes=makes) as (database, version):
        done = work(_Stored(database, config, version))
    if writes:
        say(f"{why}: written to {path}; a running gateway applies it within a second")
    elif version == VERSION:
        say(f"{why}: read from {path}")
    elif version:
        say(
            f"{why}: read from {path}, which stays as it is, of version {version}; 'tokenhub serve' moves it "
            f"to version {VERSION}"
        )
    else:
        say(f"{why}, and there is no {path} yet")
    return done


class _Asked:
    """Keys and totals of a running gateway."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin

    def all(self) -> list[Row]:
        return self._admin.rows("/keys")

    def show(self, wanted: str) -> Row:
        return self._admin.ask("GET", _path(wanted))

    def create(self, settings: Mapping[str, Any]) -> Row:
        return self._admin.ask("POST", "/keys", dict(settings))

    def edit(self, wanted: str, settings: Mapping[str, Any]) -> Row:
        return self._admin.ask("PATCH", _path(wanted), dict(settings))

    def rotate(self, wanted: str, given: Mapping[str, Any]) -> Row:
        return self._admin.ask("POST", f"{_path(wanted)}/rotate", dict(given))

    def revoke(self, wanted: str) -> Row:
        return self._admin.ask("DELETE", _path(wanted))

    def groups(self) -> list[Row]:
        return self._admin.rows("/groups")

    def show_group(self, wanted: str) -> Row:
        return self._admin.ask("GET", _path(wanted, "groups"))

    def create_group(self, settings: Mapping[str, Any]) -> Row:
        return self._admin.ask("POST", "/groups", dict(settings))

    def edit_group(self, wanted: str, settings: Mapping[str, Any]) -> Row:
        return self._admin.ask("PATCH", _path(wanted, "groups"), dict(settings))

    def delete_group(self, wanted: str) -> Row:
        return self._admin.ask("DELETE", _path(wanted, "groups"))

    def usage(self, query: Mapping[str, str]) -> list[Row]:
        self._wait_for(query)
        return self._admin.rows(f"/usage?{urlencode(query)}")

    def _wait_for(self, query: Mapping[str, str]) -> None:
        if query.get("reprice") == "true":
            self._admin.timeout_s = _REPRICING_S

    def usage_csv(self, query: Mapping[str, str]) -> str:
        self._wait_for(query)
        return self._admin.read(f"/usage?{urlencode({**query, 'format': 'csv'})}")


def _path(wanted: str, what: str = "keys") -> str:
    return f"/{what}/{quote(wanted, safe='')}"


@contextmanager
def _opened(
    path: Path, why: str, say: Callable[[str], object], *, writes: bool, makes: bool
) -> Iterator[tuple[sqlite3.Connection, int]]:
    """Open the database. Yields it, and the version of its file; 0: the file does not exist.

    :param why: no gateway was called. :param say: gets a line if the file was moved to this version.
    :raises ConsoleError: it can't be used, or not in that way.
    """
    # Lines of a ledger whose database has gone are counted into a new one, not thrown away with their files.
    is_kept = makes or os.path.lexists(path) or directory_of(str(path)).exists()
    try:
        check_place(str(path))
        if not is_kept:
            database, version = open_database(IN_MEMORY), 0
        elif writes:
            database, version = open_database(str(path), say), VERSION
        else:
            database, version = connect_to_read(str(path))
        with closing(database):
            yield database, version
    except (
        KeySettingsError,
        NameTaken,
        QueryError,
        UnknownKey,
        GroupInUse,
        GroupTaken,
        UnknownGroup,
    ) as error:
        raise ConsoleError(f"{str(error).removesuffix('.')} ({why}: looked at {path})") from None
    except (StateError, sqlite3.Error, OSError, ValueError) as error:
        way_out = "run this as the user that the gateway runs as"
        if isinstance(error, OtherVersion):
            way_out = error.way_out
        elif isinstance(error, StateError) and error.way_out:
            way_out = f"{error.way_out}; or {way_out}"
        else:
            way_out += ", and see that the disk has room and nobody locks the file"
        raise ConsoleError(
            f"[state] path {path} can't be used: {error}. {way_out[0].upper()}{way_out[1:]}"
        ) from None


class _Stored:
    """Keys and totals of a database, by the rules of :mod:`proxy.control.key_store`."""

    def __init__(self, database: sqlite3.Connection, config: Config, version: int) -> None:
        self._database = database
        self._config = config
        self._version = version  # of the file; 0: there is none

    def all(self) -> list[Row]:
        return self._rows(load_keys(self._database))

    def show(self, wanted: str) -> Row:
        return self._row(self._find(wanted))

    def create(self, settings: Mapping[str, Any]) -> Row:
        now = datetime.now(UTC).timestamp()
        read = read_settings(settings, now)
        check_models(read.get("models") or (), _names(self._config))
        check_tags(read.get("tags", ()), dict(self._config.usage.tags))
        count = len(load_keys(self._database))
        if count >= MAX_KEYS:
            raise KeySettingsError(f"There are {MAX_KEYS} keys already, which is all a gateway can have.")
        key, secret = make_key(read, now)
        store_key(self._database, key)
        closes = is_open(self._config, has_keys=count > 0) and not is_open(self._config, has_keys=True)
        return {**key.row(_NOTHING), "key": secret, "closes_gateway": closes}

    def edit(self, wanted: str, settings: Mapping[str, Any]) -> Row:
        read = read_settings(settings, datetime.now(UTC).timestamp())
        key = self._find(wanted)
        fresh = set(read.get("models") or ()) - set(key.models or ())  # the rest may have left since
        check_models(sorted(fresh), _names(self._config))
        check_tags(set(read.get("tags", ())) - set(key.tags), dict(self._config.usage.tags))
        return self._change(key, **read)

    def rotate(self, wanted: str, given: Mapping[str, Any]) -> Row:
        overlap_s = read_rotation(given)
        secret, digest = make_secret()
        key = self._find(wanted)
        now = datetime.now(UTC).timestamp()
        return {**self._row(rotate_key(self._database, key.id, digest, overlap_s, now)), "key": secret}

    def revoke(self, wanted: str) -> Row:
        key = self._find(wanted)
        if key.revoked is None:
            return self._change(key, revoked=int(datetime.now(UTC).timestamp()))
        return self._row(key)

    def _change(self, key: Key, **settings: Any) -> Row:
        return self._row(change_key(self._database, key.id, settings, datetime.now(UTC).timestamp()))

    def _find(self, wanted: str) -> Key:
        return find_key(load_keys(self._database), wanted, datetime.now(UTC).timestamp())

    def _row(self, key: Key) -> Row:
        return self._rows([key])[0]

    def _rows(self, keys: list[Key]) -> list[Row]:
        used = self._used(used_by_keys)
        return [key.row(used.get(key.id, _NOTHING)) for key in keys]

    def _used(self, by: Callable[[sqlite3.Connection, float], dict[str, Month]]) -> dict[str, Month]:
        try:
            self._ingest()
        except (sqlite3.Error, OSError) as error:  # keys are to be seen, and revoked, on a full disk too
            log.warning("the ledger can't be added up (%s): what keys used may be more than is shown", error)
        return by(self._database, datetime.now(UTC).timestamp())

    def groups(self) -> list[Row]:
        return self._group_rows(load_groups(self._database))

    def show_group(self, wanted: str) -> Row:
        return self._group_rows([find_group(load_groups(self._database), wanted)])[0]

    def create_group(self, settings: Mapping[str, Any]) -> Row:
        group = read_group(settings, datetime.now(UTC).timestamp())
        return self._group_rows([store_group(self._database, group)])[0]

    def edit_group(self, wanted: str, settings: Mapping[str, Any]) -> Row:
        read = read_changes(settings, datetime.now(UTC).timestamp())
        return self._group_rows([change_group(self._database, wanted, read)])[0]

    def delete_group(self, wanted: str) -> Row:
        row = self.show_group(wanted)
        delete_group(self._database, wanted)
        return row

    def _group_rows(self, groups: list[Group]) -> list[Row]:
        used = self._used(used_by_groups)
        return [
            group.row(len(members(self._database, group.name)), used.get(group.name, _NOTHING))
            for group in groups
        ]

    def _ingest(self) -> None:
        if self._version:
            state = self._config.state
            # What is counted into a copy of an earlier version's file is not counted: its lines have to stay.
            keep_bytes = state.ledger_keep_bytes if self._version == VERSION else sys.maxsize
            tag_values = self._config.usage.tag_values
            ingest(self._database, directory_of(state.path), keep_bytes, tag_values=tag_values)

    def usage(self, query: Mapping[str, str]) -> list[Row]:
        asked = self._read(query)
        names = {key.id: key.name for key in load_keys(self._database)}
        if asked.reprices:
            place, tags = directory_of(self._config.state.path), known_tags(self._database)
            return recounted_rows(place, self._config, tags, asked, names, pause)
        self._ingest()
        rows = usage_rows(self._database, asked, names)
        if asked.forecast:
            add_forecast(rows, asked, datetime.now(UTC).timestamp())
        return rows

    def usage_csv(self, query: Mapping[str, str]) -> str:
        return to_csv(self.usage(query), self._read(query))

    def _read(self, query: Mapping[str, str]) -> UsageQuery:
        return read_query(query, datetime.now(UTC).date(), dict(self._config.usage.tags))


def _names(config: Config) -> set[str]:
    """The names that a key's ``models`` may have, as :meth:`proxy.routing.catalog.Catalog.names`."""
    short = {id.partition("/")[2] for id in config.models}
    return {*config.models, *config.aliases, *short, AUTO}
