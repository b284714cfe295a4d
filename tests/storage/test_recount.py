"""Totals at the prices of now, from the lines that are there."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.storage.recount import prices_in, recounted_rows
from proxy.storage.usage_totals import UsageQuery, columns, further_columns
from tests.storage.test_ledger_ingest import append, line, name_of, nothing

CONFIG = parse(
    '[providers.p]\nbase_url = "http://p/v1"\n[models."p/m"]\ninput_price = 2\ncached_input_price = 1\n'
    'output_price = 4\n[models."p/free"]\n[usage]\ntags = ["team"]\n'
)


def test_a_recount(tmp_path):
    parts = {"input": 1000, "cached": 400, "output": 10, "nusd": 5, "tags": {"team": "a"}}
    append(tmp_path / name_of(), line(model="p/m", **parts), line(model="p/m", **parts), b"{torn\n")
    append(tmp_path / name_of(2), line(model="p/gone", nusd=7), line(model="p/free", nusd=9))
    query = UsageQuery(("model", "team"), reprices=True)
    before = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
    rows = recounted_rows(tmp_path, CONFIG, [("team", "b", None, 0)], query, {}, nothing)
    assert list(rows[0]) == columns(query.by, further_columns(query))
    found = {(row["model"], row["team"]): (row["usd"], row["charged_usd"], row["saved_usd"]) for row in rows}
    assert found == {
        ("p/m", "a"): (pytest.approx(2 * (600 * 2 + 400 + 40) / 1e6), 1e-8, pytest.approx(2 * 400 / 1e6)),
        ("p/gone", None): (7e-9, 7e-9, 0.0), ("p/free", None): (9e-9, 9e-9, 0.0),
    }  # fmt: skip
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == before
    assert set(prices_in(CONFIG)) == {"p/m", "p/free"}


def test_an_empty_ledger(tmp_path):
    [row] = recounted_rows(tmp_path / "none", CONFIG, [], UsageQuery(reprices=True), {}, nothing)
    assert (row["requests"], row["usd"], row["charged_usd"]) == (0, 0.0, 0.0)
