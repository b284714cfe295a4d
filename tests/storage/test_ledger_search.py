"""A request's line, found from the newest on, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from proxy.storage import ledger_search
from proxy.storage.ledger_search import find_line, is_of
from tests.storage.test_ledger_ingest import aged, append, line, name_of, nothing


def found(ledger: Path, id: str, key: str = "key_a") -> int | None:
    text = find_line(ledger, id, key, nothing)
    return None if text is None else orjson.loads(text)["input"]


@pytest.mark.parametrize("slice_bytes", [1, 7, 100, 256, 1 << 18])
def test_a_line_is_found_however_the_file_is_cut(tmp_path, monkeypatch, slice_bytes):
    monkeypatch.setattr(ledger_search, "SLICE_BYTES", slice_bytes)
    lines = [line(id=f"req_{number}", input=number) for number in range(6)]
    append(tmp_path / name_of(), *lines, line(id="req_6", key="key_b"), b'{"id":"req_7","t":5', b"")
    assert [found(tmp_path, f"req_{number}") for number in range(9)] == [0, 1, 2, 3, 4, 5, None, None, None]
    assert found(tmp_path, "req_") is None


def test_the_newest_files_come_first_and_there_is_an_end(tmp_path, monkeypatch):
    size = len(line(id="req_1", input=1))
    for number in (1, 2, 3):
        append(
            tmp_path / name_of(number),
            line(id="req_1", input=number),
            line(id=f"req_0{number}", input=number),
        )
    aged(tmp_path, name_of(1), name_of(3), name_of(2))
    assert found(tmp_path, "req_1") == 2
    read = []
    assert find_line(tmp_path, "req_none", "key_a", lambda: read.append(1)) is None
    assert len(read) == 3
    monkeypatch.setattr(ledger_search, "SEARCHED_BYTES", size)
    assert (found(tmp_path, "req_02"), found(tmp_path, "req_01")) == (2, None)
    assert found(tmp_path / "none", "req_1") is None


def test_a_line_of_a_key():
    assert [is_of(text, "key_a") for text in (line(), line(key="key_b"), line(key=None), b"{", b"7")] == [
        True, False, False, False, False,
    ]  # fmt: skip
