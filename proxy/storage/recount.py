"""Totals at other prices than those that were charged, counted anew from the lines that the ledger still has.

Nothing that is stored changes, and no limit goes by it.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from proxy.config.settings import Config
from proxy.storage.ledger_ingest import TABLES, ingest
from proxy.storage.usage_totals import UsageQuery, usage_rows
from proxy.usage.pricing import Prices, prices_of

# Larger than any ledger: nothing is deleted.
_KEEP_ALL = 2**60


def prices_in(config: Config) -> dict[str, Prices]:
    """The prices of a configuration, by the model's id."""
    return {id: prices_of(model) for id, model in config.models.items()}


def known_tags(database: sqlite3.Connection) -> list[tuple[Any, ...]]:
    """The values of tags that totals tell apart, so that a recount tells the same ones apart."""
    return database.execute("SELECT name, value, key, day FROM tag_values").fetchall()


def recounted_rows(
    directory: Path, config: Config, tags: Iterable[tuple[Any, ...]], query: UsageQuery,
    names: Mapping[str, str], pause: Callable[[], object],
) -> list[dict[str, Any]]:  # fmt: skip
    """The rows of :func:`proxy.storage.usage_totals.usage_rows`, at the prices of ``config``.

    :param directory: of the ledger's files. :param tags: of :func:`known_tags`.
    :param pause: as of :func:`proxy.storage.ledger_ingest.ingest`.
    :raises QueryError: as that. :raises OSError, sqlite3.Error: the lines can't be counted.
    """
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(
            TABLES + "ALTER TABLE usage ADD COLUMN charged_nusd INTEGER NOT NULL DEFAULT 0;"
        )
        database.executemany("INSERT INTO tag_values VALUES (?, ?, ?, ?)", tags)
        tag_values = config.usage.tag_values
        ingest(
            database, directory, _KEEP_ALL, pause=pause, tag_values=tag_values, prices=prices_in(config)
        )  # fmt: skip
        return usage_rows(database, query, names)
