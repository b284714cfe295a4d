"""``tokenhub usage``, against a gateway that runs and against its database alone."""

from __future__ import annotations

import csv
import io

import pytest

from tests.storage.test_ledger_ingest import line
from tests.support.terminal import check_refused, write_ledger


@pytest.fixture
def ledger(state_folder):
    """Two keys of the same name, and requests without one."""
    day = 1764028800.0  # 2025-11-25
    write_ledger(
        state_folder,
        line(t=day, key="key_1", model="p/big", input=1000, output=20, nusd=1_234_567_891, cached=7),
        line(t=day, key="key_2", model="p/small", input=1, output=2, nusd=150, source="estimated"),
        line(t=day + 86400, key=None, model="p/small", input=5, status=500),
    )


async def test_usage_by_model_is_the_default(terminal, ledger):
    lines = (await terminal.out("usage")).splitlines()
    head = "MODEL REQUESTS ERRORS INPUT CACHED CACHE WRITE OUTPUT REASONING ESTIMATED USD"
    assert lines[0].split() == head.split()
    assert [text.split() for text in lines[1:]] == [
        ["p/big", "1", "0", "1,000", "7", "0", "20", "0", "0", "1.234567891"],
        ["p/small", "2", "1", "6", "0", "0", "2", "0", "1", "0.000000150"],
        ["total", "3", "1", "1,006", "7", "0", "22", "0", "1", "1.234568041"],
    ]
    assert len({len(text) for text in lines}) == 1  # numbers end under each other
    assert await terminal.out("usage", "--by", "model") == "\n".join(lines) + "\n"


async def test_usage_by_what_is_asked(terminal, ledger):
    lines = (await terminal.out("usage", "--by", "day,model", "--since", "2025-11-26")).splitlines()
    assert [text.split()[:3] for text in lines[1:]] == [["2025-11-26", "p/small", "1"], ["total", "1", "1"]]
    [_, only] = (await terminal.out("usage", "--by", "")).splitlines()
    assert only.split()[0] == "3"
    lines = (await terminal.out("usage", "--by", "key", "--until", "2025-11-26")).splitlines()
    assert [text.split()[0] for text in lines[1:]] == ["-", "key_1", "key_2", "total"]
    assert (await terminal.out("usage", "--since", "1d")).splitlines()[1].split()[:2] == ["total", "0"]
    assert "nothing was used" in terminal.said[0]


async def test_keys_of_the_same_name_are_told_apart(terminal, state_folder):
    ids = []
    for name in ("a", "a", "b"):  # a name is free again when its key is revoked
        ids.append((await terminal.json("keys", "create", "--name", name))["id"])
        await terminal.out("keys", "revoke", ids[-1])
    write_ledger(state_folder, *(line(key=id, input=1) for id in ids))
    out = await terminal.out("usage", "--by", "key")
    for text in (f"a ({ids[0]})  ", f"a ({ids[1]})  ", "\nb  "):
        assert text in out


async def test_usage_for_programs(terminal, ledger):
    rows = await terminal.rows("usage", "--by", "day,key")
    assert [(row["day"], row["key_id"], row["requests"]) for row in rows] == [
        ("2025-11-25", "key_1", 1), ("2025-11-25", "key_2", 1), ("2025-11-26", None, 1),
    ]  # fmt: skip
    text = await terminal.out("usage", "--csv", "--by", "day,key")
    assert terminal.said == []
    lines = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [entry["usd"] for entry in lines] == ["1.234567891", "0.000000150", "0.000000000"]
    assert [entry["key_id"] for entry in lines] == ["key_1", "key_2", ""]
    assert text.startswith("day,key,key_id,requests,")


# ---------------------------------------------------------------------- wrong usage
@pytest.mark.parametrize(("argv", "said"), [
    ("usage --by models", "--by can't be 'models': choose from key, group, alias, endpoint,"),
    ("usage --by day,day", "--by names day more than once"),
    ("usage --since yesterday", "--since is not a day: 'yesterday'"),
    ("usage --since 2026-02-02 --until 2026-02-01", "--since 2026-02-02 is after until 2026-02-01"),
])  # fmt: skip
def test_wrong_usage(argv, said, capsys, state_folder):
    check_refused(argv, said, capsys, state_folder)


async def test_tags_and_filters(terminal, state_folder):
    day = {"t": 1764028800.0, "key": None, "model": "p/big"}
    cases = (("ads", "best"), ("search", "best"), ("search", None))
    lines = [line(**day, tags={"team": team}, alias=alias) for team, alias in cases]
    write_ledger(state_folder, *lines, line(**day, client_tags={"app": "x"}))

    async def table(*options: str) -> list[list[str]]:
        return [text.split()[:3] for text in (await terminal.out("usage", *options)).splitlines()[1:-1]]

    assert await table("--by", "team,alias") == [
        ["-", "-", "1"], ["ads", "best", "1"], ["search", "-", "1"], ["search", "best", "1"],
    ]  # fmt: skip
    assert await table("--by", "team,app", "--tag", "team=search", "--alias", "best") == [
        ["search", "-", "1"]
    ]
    assert await table("--by", "app", "--tag", "app=x", "--tag", "team=a") == []
    text = await terminal.out("usage", "--csv", "--by", "team", "--alias", "best")
    assert [entry.split(",")[:2] for entry in text.splitlines()] == [
        ["team", "requests"], ["ads", "1"], ["search", "1"],
    ]  # fmt: skip
    assert "here is no key 'nobody'" in await terminal.failure("usage", "--key", "nobody")


async def test_saved_forecast_and_repriced(terminal, state_folder):
    used = {"input": 10**6, "cached": 10, "nusd": 5 * 10**9, "saved": 2 * 10**9}
    write_ledger(state_folder, line(t=1764028800.0, key=None, model="p/big", **used))
    lines = (await terminal.out("usage", "--saved")).splitlines()
    assert lines[0].split() == ["MODEL", "REQUESTS", "INPUT", "CACHED", "USD", "SAVED"]
    assert lines[1].split() == ["p/big", "1", "1,000,000", "10", "5.0000", "2.0000"]
    lines = (await terminal.out("usage", "--forecast", "month", "--by", "")).splitlines()
    assert lines[0].split() == ["REQUESTS", "USD", "USD", "AT", "END", "TOKENS", "AT", "END"]
    assert lines[1].split()[0] == "0"  # that was another month
    [row] = await terminal.rows("usage", "--forecast", "day", "--by", "")
    assert row["forecast_tokens"] in (None, 0)
    lines = (await terminal.out("usage", "--reprice")).splitlines()
    assert lines[0].split()[-2:] == ["CHARGED", "USD"]
    assert lines[1].split()[-2:] == ["5.0000", "5.0000"]  # without a price it stays as it was
    assert "at the prices of now" in "".join(terminal.said)
