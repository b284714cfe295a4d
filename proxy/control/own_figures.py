"""Answers what keys ask about themselves: totals and finished requests, of nobody else's."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Awaitable, Callable, Mapping

import orjson

from proxy.control.usage_index import UsageIndex
from proxy.relay.downstream.own_figures import REQUEST, USAGE, Told
from proxy.storage.usage_totals import OWN_PARAMETERS
from proxy.usage.line import row
from proxy.wire.query import QueryError

# Rows of one answer. Their JSON is made in one go.
MOST_ROWS = 1000
_REQUEST_ID = re.compile(r"req_[0-9a-f]{16,40}")
# Of a row, what is not the key's to know, or what it knows anyway.
_LEFT_OUT = ("key", "key_id")

# Finds the line of a request among the latest of all workers, whose ever it is.
FindLatest = Callable[[str], Awaitable[bytes | None]]


class KeyFigures:
    """Answers one question of each kind at a time, so that no number of keys keeps the database from anybody.

    :param find_latest: the line of a request with an id, of those that are kept in memory.
    """

    def __init__(self, usage_index: UsageIndex, find_latest: FindLatest) -> None:
        self._usage_index = usage_index
        self._find_latest = find_latest
        self._one = {USAGE: asyncio.Lock(), REQUEST: asyncio.Lock()}

    async def answer(self, kind: str, key: str, query: Mapping[str, str]) -> Told:
        """Answer a key's question.

        :param kind: of :mod:`proxy.relay.downstream.own_figures`. :param key: its id.
        :param query: as its request has it, or the ``id`` of a request.
        """
        async with self._one[kind]:
            try:
                return await (self._usage(key, query) if kind == USAGE else self._request(key, query["id"]))
            except QueryError as error:
                text = str(error)
                return Told(error=f"{text[0].upper()}{text[1:].removesuffix('.')}.", param=error.param)
            except (sqlite3.Error, OSError) as error:
                return Told(error=f"The totals can't be read: {error}.")

    async def _usage(self, key: str, query: Mapping[str, str]) -> Told:
        for name in query:
            if name not in OWN_PARAMETERS:
                raise QueryError(name, f"unknown parameter {name!r}: there are {', '.join(OWN_PARAMETERS)}")
        names = {key: ""}
        _, rows = await self._usage_index.usage({**query, "key": key}, names, MOST_ROWS)
        return Told(orjson.dumps({"data": [_without(row, _LEFT_OUT) for row in rows]}))

    async def _request(self, key: str, id: str) -> Told:
        if not _REQUEST_ID.fullmatch(id):
            return Told()
        line = await self._find_latest(id)
        if line is None or orjson.loads(line).get("key") != key:
            line = await self._usage_index.line(id, key)
        if line is None:
            return Told()
        found = _without(row(line, lambda _: None), _LEFT_OUT)
        return Told(orjson.dumps(found))


def _without(values: Mapping[str, object], names: tuple[str, ...]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in names}
