"""The regression guard's arithmetic and sentences, on made-up counts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import instructions
from instructions import KEPT, TOLERANCE, Record, Row, compare, compiler_of, processor, table, verdict

HERE = {"python": "CPython 3.11.7", "valgrind": "3.19.0"}
MADE_BY = {"mypy": "1.18.0"}


Counts = dict[str, int]


def judged(
    old: Counts, new: Counts, environment: object = HERE, packages: object = MADE_BY
) -> tuple[bool, str]:
    return verdict(compare(old, new), Record(HERE, MADE_BY, old), Record(environment, packages, new))


def test_the_change_is_the_part_by_which_it_is_dearer():
    assert Row("a", 200, 203).change == pytest.approx(0.015)
    assert Row("a", 200, 190).change == pytest.approx(-0.05)
    assert Row("a", None, 203).change == 0


@pytest.mark.parametrize(("new", "is_well"), [(100_000, True), (102_900, True), (103_100, False)])
def test_a_case_fails_beyond_the_tolerance(new, is_well):
    assert TOLERANCE == 0.03
    assert judged({"a": 100_000, "b": 50}, {"a": new, "b": 50})[0] is is_well


def test_a_failure_names_the_dearer_cases_and_says_what_to_do():
    is_well, why = judged({"a": 100, "b": 100, "c": 100}, {"a": 110, "b": 100, "c": 50})
    assert not is_well
    assert "a +10.0%" in why and "b " not in why.partition(": ")[2].partition(".")[0] and "c -" not in why
    assert "say in the commit" in why and why.endswith("python benchmarks/stages.py --record")
    assert "packages" not in why


def test_another_version_of_the_compiler_is_named_and_excuses_nothing():
    is_well, why = judged({"a": 100}, {"a": 110}, packages={"mypy": "1.19.0"})
    assert not is_well and "mypy 1.19.0 instead of 1.18.0" in why
    same = judged({"a": 100}, {"a": 100}, packages={"mypy": "1.19.0"})
    assert same == (True, "All within 3.0% of the record.")


def test_a_gain_passes_and_is_to_be_recorded_and_what_is_not_on_record_fails():
    is_well, why = judged({"a": 100}, {"a": 90})
    assert is_well and "a -10.0%" in why and "--record" in why
    is_well, why = judged({"a": 100}, {"a": 100, "new": 5})
    assert not is_well and why.startswith("Not on record: new.")


def test_another_environment_is_not_judged_and_the_sentence_says_so():
    is_well, why = judged({"a": 100}, {"a": 200}, {"python": "CPython 3.12.1", "C library": "musl"})
    assert is_well and why.startswith("Nothing is judged")
    assert "python CPython 3.12.1 instead of CPython 3.11.7" in why
    assert "valgrind none instead of 3.19.0" in why and "C library musl instead of none" in why


def test_the_table_has_a_line_for_each_case():
    head, first, second = table([Row("pinned", 100_000, 101_500), Row("new", None, 7)]).split("\n")
    assert head.split() == ["case", "recorded", "now", "change"]
    assert first.split() == ["pinned", "100,000", "101,500", "+1.50%"]
    assert second.split() == ["new", "-", "7"]


def test_what_is_written_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(instructions, "RECORD", tmp_path / "instructions.json")
    one = Record(HERE, MADE_BY, {"a": 1})
    one.write()
    assert instructions.read_record() == one


def test_the_repositorys_record_has_every_case_that_is_kept():
    assert set(json.loads(instructions.RECORD.read_text())["instructions"]) == set(KEPT)


def test_two_numbers_of_calls_leave_the_start_out(tmp_path, monkeypatch):
    start, one = 7_000_000, 1_234
    monkeypatch.setattr(instructions, "collected", lambda name, calls, folder: start + calls * one)
    assert dict(instructions.count_all(["pinned", "100k"])) == {"pinned": one, "100k": one}


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (b"\x7fELF..\0GCC: (Debian 12.2.0-14) 12.2.0\0.symtab", "GCC: (Debian 12.2.0-14) 12.2.0"),
        (b"\0Debian clang version 14.0.6\0", "clang version 14.0.6"),
        (b"\0", "unknown"),
    ],
)
def test_a_compiled_module_names_its_compiler(module, name):
    assert compiler_of(module) == name


def test_an_interpreter_is_told_by_its_options_and_not_by_its_places():
    configured = "'--prefix=/a' '--with-lto' '--enable-optimizations' '--libdir=/a/lib' 'CFLAGS=-O2'"
    assert instructions.options_of(configured) == "--enable-optimizations --with-lto"
    assert instructions.options_of("") == "none"


@pytest.mark.parametrize(
    ("flags", "best"), [("fpu sse4_2 avx avx2 avx512f", "avx2"), ("fpu avx sse4_2", "avx"), ("fpu", "")]
)
def test_the_processor_is_told_by_what_valgrind_makes_of_it(flags, best):
    assert processor(f"model name\t: X\nflags\t\t: {flags}\n") == best
    assert processor("Features : fp asimd") == ""
