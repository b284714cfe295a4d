"""Tables: what becomes of them in much room, in little, and in none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.cli import tables
from proxy.cli.tables import BAD, FAINT, HEAD, PLAIN, Column, TextTable, cells, clean, cut, fit, fold, plain

COLUMNS = (Column("NAME"), Column("N", is_number=True, rank=1), Column("LIST", rank=2, least=6), Column(
    "ERROR", rank=3, least=6, is_cut=True, tone=lambda text: BAD,
))  # fmt: skip
TABLE = TextTable(COLUMNS, [("long-name", "1", "aaa,bbb,ccc", "went wrong"), ("b", "22", "", "")])


def test_without_a_width_or_with_room_each_row_is_one_line_and_whole():
    assert plain(TABLE).splitlines() == [
        "NAME        N  LIST         ERROR",
        "long-name   1  aaa,bbb,ccc  went wrong",
        "b          22",
    ]  # fmt: skip
    assert plain(TABLE, 38) == plain(TABLE)


def test_what_can_be_folded_or_cut_is_and_then_columns_leave_and_are_named():
    assert plain(TABLE, 30).splitlines() == [
        "NAME        N  LIST    ERROR",
        "long-name   1  aaa,    went w…",
        "               bbb,",
        "               ccc",
        "b          22",
    ]  # fmt: skip
    assert plain(TABLE, 22).splitlines() == [
        "NAME        N  LIST",
        "long-name   1  aaa,",
        "               bbb,ccc",
        "b          22",
        "(too narrow for ERROR)",
    ]  # fmt: skip
    assert plain(TABLE, 14).splitlines()[:3] == ["NAME        N", "long-name   1", "b          22"]
    assert plain(TABLE, 6).splitlines()[:4] == ["NAME", "long-n", "ame", "b"]
    assert plain(TABLE, 1)  # no window is so narrow; it is no fault either


def test_a_column_with_nothing_in_it_is_the_first_to_leave_and_tables_of_nothing():
    table = TextTable(COLUMNS, [("long-name", "1", "", "went wrong")])
    assert plain(table, 25).splitlines() == ["NAME       N  ERROR", "long-name  1  went wrong"]
    assert plain(TextTable(COLUMNS, [])) == "NAME  N  LIST  ERROR"
    assert plain(TextTable((Column(""), Column("")), [("a", "1"), ("bb", "2")])) == "a   1\nbb  2"


def test_tones():
    head, first, second = tables.lay_out(TextTable(COLUMNS, [("x", "-", "y", "bad"), ("x", "1", "", "")]))
    assert {tone for text, tone in head if text.strip()} == {HEAD}
    assert [tone for text, tone in first if text.strip()] == [PLAIN, FAINT, PLAIN, BAD]
    assert [text for text, _ in second][-1] == "1"


def test_what_others_wrote_steers_no_terminal():
    assert clean("a\x1b[2J\nb\u202e\udc80") == "a [2J b  "
    assert clean("größer 数") == "größer 数"
    assert plain(TextTable((Column("A"),), [("x\ny\x1b[1m",)])).splitlines() == ["A", "x y [1m"]


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("数据", 4), ("e\u0301", 1), ("", 0), ("→", 1)])
def test_cells(text, width):
    assert cells(text) == width


def test_wide_characters_are_under_each_other():
    assert plain(TextTable((Column("A"), Column("B")), [("数据", "x"), ("abcd", "y")])).splitlines() == [
        "A     B", "数据  x", "abcd  y",
    ]  # fmt: skip


@pytest.mark.parametrize(("text", "width", "found"), [
    ("abcdef", 6, "abcdef"), ("abcdef", 5, "abcd…"), ("数据数据", 5, "数据…"), ("数据", 2, "…"),
    ("ab", 1, "…"),
])  # fmt: skip
def test_cut(text, width, found):
    assert cut(text, width) == found


@pytest.mark.parametrize(("text", "width", "lines"), [
    ("", 5, [""]), ("one two three", 7, ["one two", "three"]), ("a,b,c", 3, ["a,", "b,c"]),
    ("abcdefgh", 3, ["abc", "def", "gh"]), ("ab cdefgh", 3, ["ab", "cde", "fgh"]),
    ("数据数据", 3, ["数", "据", "数", "据"]), ("数", 1, ["数"]),
])  # fmt: skip
def test_fold(text, width, lines):
    assert fold(text, width) == lines


@given(st.text(alphabet="ab ,/-数é", max_size=60), st.integers(2, 20))
def test_folding_loses_nothing_but_spaces(text, width):
    lines = fold(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


COLUMN = st.builds(
    Column, st.just("T"), st.booleans(), st.integers(0, 3), st.sampled_from([0, 4, 9]), st.booleans()
)


@given(st.lists(st.tuples(COLUMN, st.integers(1, 40)), min_size=1, max_size=8), st.integers(1, 120))
def test_it_fits_as_long_as_each_column_has_a_character(given_columns, width):
    columns = [column for column, _ in given_columns]
    needed = [wide for _, wide in given_columns]
    shown = fit(columns, needed, width)
    assert all(index in shown for index, column in enumerate(columns) if not column.rank)
    assert list(shown) == sorted(shown)
    stay = len(shown)
    if width >= 3 * stay - 2:
        assert sum(shown.values()) + 2 * (stay - 1) <= width
    for index, wide in shown.items():
        assert 1 <= wide <= needed[index]
    dropped = [columns[index].rank for index in range(len(columns)) if index not in shown]
    if dropped:
        assert min(dropped) >= max((columns[index].rank for index in shown), default=0)


@given(
    st.lists(st.tuples(*[st.text(alphabet="abc -,\n\x1b数", max_size=30)] * 4), max_size=5),
    st.integers(8, 60),
)
def test_no_line_is_wider_than_the_terminal(rows, width):
    for line in plain(TextTable(COLUMNS, rows), width).splitlines():
        assert cells(line) <= width
        assert line == line.rstrip()
