"""The control plane's answers to what a key asks of itself."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from proxy.control import own_figures as module
from proxy.control.own_figures import KeyFigures
from proxy.relay.downstream.own_figures import REQUEST, USAGE, Told
from proxy.storage.usage_totals import UsageQuery
from tests.storage.test_ledger_ingest import line

ID = "req_" + "0" * 20
# What stands in each line of a gateway.
LINE = line(id=ID, endpoint="chat", stream=False, asked="m", attempts=1, ms=5.0)


class Index:
    """A UsageIndex that notes what it is asked."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.asked: list[object] = []
        self.running = 0
        self.fault = fault

    async def usage(self, query, names, most):
        self.running += 1
        assert self.running == 1
        self.asked.append((query, most))
        await asyncio.sleep(0)
        self.running -= 1
        if self.fault is not None:
            raise self.fault
        return UsageQuery(), [{"key": "", "key_id": "key_a", "requests": 5}]

    async def line(self, id, key):
        self.asked.append(id)
        return LINE if id.endswith("1") else None


async def latest(id: str) -> bytes | None:
    return LINE if id == ID else None


async def test_totals_one_question_at_a_time():
    index = Index()
    figures = KeyFigures(index, latest)
    asked = (figures.answer(USAGE, key, {"by": "day"}) for key in ("key_a", "key_b", "key_a"))
    for told in await asyncio.gather(*asked):
        assert json.loads(told.body) == {"data": [{"requests": 5}]}
    assert index.asked[0] == ({"by": "day", "key": "key_a"}, module.MOST_ROWS)
    refused = await figures.answer(USAGE, "key_a", {"group": "g"})
    assert (refused.param, refused.error[:27]) == ("group", "Unknown parameter 'group': ")
    assert len(index.asked) == 3


@pytest.mark.parametrize("fault", [sqlite3.OperationalError("locked"), OSError("gone")])
async def test_trouble(fault):
    told = await KeyFigures(Index(fault), latest).answer(USAGE, "key_a", {})
    assert told == Told(error=f"The totals can't be read: {fault}.")


@pytest.mark.parametrize(("id", "key", "is_found", "looked"), [
    (ID, "key_a", True, 0), (ID, "key_b", False, 1), (ID[:-1] + "1", "key_a", True, 1),
    (ID[:-1] + "2", "key_a", False, 1), ("req_", "key_a", False, 0), ('req_"' + "0" * 20, "key_a", False, 0),
])  # fmt: skip
async def test_a_request(id, key, is_found, looked):
    index = Index()
    told = await KeyFigures(index, latest).answer(REQUEST, key, {"id": id})
    assert (bool(told.body), told.error, len(index.asked)) == (is_found, "", looked)
    if is_found:
        found = json.loads(told.body)
        assert (found["id"], found["attempts"], "key_id" in found) == (ID, 1, False)
