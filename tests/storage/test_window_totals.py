"""What keys and groups have used in a month and on a day, by the totals."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime

import pytest

from proxy.access.permits import Month
from proxy.storage.database import IN_MEMORY, connect
from proxy.storage.window_totals import used_by_groups, used_by_keys

# day, key, group, input, output, nusd, last_at
ROWS = [
    ("2026-05-31", "key_a", "g", 1000, 1000, 1000, 1.0), ("2026-06-01", "key_a", "g", 1, 2, 3, 2.0),
    ("2026-06-15", "key_a", "g", 10, 20, 30, 3.0), ("2026-06-15", "key_b", "", 100, 200, 300, 4.0),
    # It has moved to another group: what it used before stays the first one's.
    ("2026-06-15", "key_a", "h", 5, 5, 7, 5.0), ("2026-07-01", "key_a", "h", 9, 9, 9, 6.0),
    ("2026-06-15", "", "", 7, 7, 7, 7.0),
]  # fmt: skip


@pytest.fixture
def database():
    with closing(connect(IN_MEMORY)) as database:
        columns = [column[1] for column in database.execute("PRAGMA table_info(usage)")]
        if "key_group" not in columns:
            database.execute("ALTER TABLE usage ADD COLUMN key_group TEXT NOT NULL DEFAULT ''")
            columns.append("key_group")
        for number, (day, key, group, inputs, outputs, nusd, last_at) in enumerate(ROWS):
            known = {
                "day": (date.fromisoformat(day) - date(1970, 1, 1)).days, "key": key, "key_group": group,
                "model": f"m{number}", "provider": "p", "input_tokens": inputs, "output_tokens": outputs,
                "nusd": nusd, "last_at": last_at,
            }  # fmt: skip
            values = [known.get(column, 0) for column in columns]
            marks = ", ".join("?" * len(columns))
            database.execute(f"INSERT INTO usage ({', '.join(columns)}) VALUES ({marks})", values)
        yield database


@pytest.mark.parametrize(("moment", "keys", "groups"), [
    ("2026-06-15T12:00", {"key_a": Month(43, 40, 5.0, 40, 37), "key_b": Month(300, 300, 4.0, 300, 300)},
     {"g": Month(33, 33, 3.0, 30, 30), "h": Month(10, 7, 5.0, 10, 7)}),
    ("2026-06-30T23:59:59", {"key_a": Month(43, 40, 5.0), "key_b": Month(300, 300, 4.0)},
     {"g": Month(33, 33, 3.0), "h": Month(10, 7, 5.0)}),
    ("2026-07-01T00:00", {"key_a": Month(18, 9, 6.0, 18, 9), "key_b": Month(0, 0, 4.0)},
     {"g": Month(0, 0, 3.0), "h": Month(18, 9, 6.0, 18, 9)}),
    ("2026-12-31T23:00", {"key_a": Month(0, 0, 6.0), "key_b": Month(0, 0, 4.0)},  # the year turns
     {"g": Month(0, 0, 3.0), "h": Month(0, 0, 6.0)}),
])  # fmt: skip
def test_sums_of_the_month_and_the_day(database, moment, keys, groups):
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
    assert used_by_keys(database, at) == keys
    assert used_by_groups(database, at) == groups
