"""The recorded mutants are found in the source, and are other code. tests/support/mutants.py runs them."""

from __future__ import annotations

import ast
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from tests.support.mutant_places import (
    COUNT,
    MOST_PER_MODULE,
    ROOT,
    Mutant,
    compiled,
    draw,
    mutants_of,
    mutated,
)
from tests.support.mutant_runs import STEPS, Outcome, Verdict, groups, hunt, hunt_on, nearest, outcome_of
from tests.support.mutants import REDRAW, load, lost

# Edits remove places. The next draw can wait until fewer are left than this.
LEAST_FOUND = 50


def turned(source: str) -> set[tuple[str, str]]:
    """Before and after of all mutants of a source."""
    return {(mutant.before, mutant.after) for mutant in mutants_of("a.py", source)}


@pytest.fixture(scope="module")
def found() -> list[Mutant]:
    """The mutants of the record that are found in the source."""
    record = list(load())
    assert len(record) == COUNT
    gone = lost(record)
    return [mutant for mutant in record if mutant not in gone]


def test_most_mutants_of_the_record_are_found_in_the_source(found):
    assert len(found) >= LEAST_FOUND, f"only {len(found)} of {COUNT} mutants are left: {REDRAW}"


def test_each_mutant_of_the_record_is_other_code_that_compiles(found):
    for mutant in found:
        source = (ROOT / mutant.path).read_text()
        made = mutated(mutant, source)
        assert made is not None, mutant
        compile(made, mutant.path, "exec")
        assert made != ast.unparse(ast.parse(source)), mutant


def test_the_draw_is_the_same_each_time_and_spread_over_the_compiled_modules():
    drawn = draw()
    assert drawn == draw() and len(set(drawn)) == COUNT
    per_module = Counter(mutant.path for mutant in drawn)
    assert max(per_module.values()) <= MOST_PER_MODULE
    assert set(per_module) <= set(compiled()) and "proxy/wire/sse.py" in compiled()


@pytest.mark.parametrize(
    ("source", "before", "after"),
    [
        ("a < b", "a < b", "a <= b"),
        ("a <= b < c", "a <= b < c", "a <= b <= c"),
        ("a == b", "a == b", "a != b"),
        ("a is not b", "a is not b", "a is b"),
        ("a not in b", "a not in b", "a in b"),
        ("a and b", "a and b", "a or b"),
        ("not a", "not a", "a"),
        ("a - b", "a - b", "a + b"),
        ("a // b", "a // b", "a * b"),
        ("a[3]", "3", "4"),
        ("f(a=True)", "True", "False"),
        ("def f():\n  return a", "return a", "return None"),
        ("if a:\n  b\nelse:\n  c", "a", "True"),
        ("if a:\n  b\nelse:\n  c", "a", "False"),
        ("f(a)", "f(a)", "pass"),
        ("async def f():\n  await a()", "await a()", "pass"),
        ("a += b", "a += b", "pass"),
        ("while a:\n  break", "break", "continue"),
        ("while a:\n  continue", "continue", "break"),
    ],
)
def test_a_place_is_turned_by_its_operator(source, before, after):
    [mutant] = [one for one in mutants_of("a.py", source) if (one.before, one.after) == (before, after)]
    made = mutated(mutant, source)
    assert made is not None and ast.dump(ast.parse(made)) != ast.dump(ast.parse(source))
    assert after in made


@pytest.mark.parametrize(
    "source",
    [
        '"""Less than: 1 < 2."""',
        "a: Literal[1, 2]",
        "def f(a: 'x < 1' = b) -> Literal[True]: ...",
        "if TYPE_CHECKING:\n  a = 1",
        "log.info('%d', 1)",
        "@dataclass(frozen=True)\nclass A: ...",
        "assert a < 1",
        "a = f'{b}' + c",
        "a = b'x' * c",
        "Kind = Literal[1, 2]",
        "def f():\n  return None",
        "def f():\n  return",
    ],
)
def test_code_that_no_test_needs_to_show_is_left_alone(source):
    assert turned(source) == set()


def test_a_mutant_is_found_again_when_other_lines_change():
    source = "class A:\n  def f(self):\n    return 1 < a, 1 < a\n"
    mutant = Mutant("a.py", "A.f", "comparison", "1 < a", "1 <= a", 2)
    made = mutated(mutant, "import b\n\ndef g():\n  return 1 < a\n\n" + source)
    assert made is not None and "return (1 < a, 1 <= a)" in made
    assert mutated(mutant, source.replace("1 < a", "2 < a")) is None


def test_a_mutant_whose_module_is_gone_is_lost():
    found = load()
    [first, *_] = found
    changed = [first._replace(path="proxy/gone.py"), first._replace(before="gone"), first]
    assert lost(changed) == changed[: 3 if first in lost([first]) else 2]


@pytest.mark.parametrize(
    ("path", "module", "package", "wide"),
    [
        (
            "proxy/relay/exchange/hedge.py",
            ["tests/relay/exchange/test_hedge.py"],
            ["tests/relay/exchange"],
            ["tests/relay", "tests/system"],
        ),
        ("proxy/errors.py", ["tests/test_errors.py"], [], ["tests/relay", "tests/system"]),
    ],
)
def test_the_nearest_tests_run_first(path, module, package, wide):
    assert [nearest(path, step) for step in STEPS] == [module, package, wide]


ONE, TWO, THREE = (Mutant(f"proxy/wire/{name}.py", "f", "break", "a", "b", 1) for name in "abc")
SAME_MODULE = ONE._replace(function="g")
ELSEWHERE = ONE._replace(path="proxy/usage/a.py")


def test_mutants_with_the_same_tests_run_together_unless_they_are_of_one_module():
    assert groups([ONE, SAME_MODULE, TWO, ELSEWHERE], "package") == [[ONE, TWO], [SAME_MODULE], [ELSEWHERE]]
    assert groups([ONE, SAME_MODULE, TWO, ELSEWHERE], "wide") == [[ONE, TWO, ELSEWHERE], [SAME_MODULE]]


class Tests:
    """A tree whose tests fail with any of the mutants named, with all of them, or once by chance."""

    __test__ = False

    def __init__(
        self,
        failed_by: dict[str, list[Mutant]],
        by_all: tuple[str, ...] = (),
        by_chance: tuple[str, ...] = (),
    ) -> None:
        self.failed_by = failed_by
        self.by_all = by_all
        self.by_chance = list(by_chance)
        self.mutants: list[Mutant] = []
        self.runs: list[list[Mutant]] = []

    @contextlib.contextmanager
    def made(self, mutants: list[Mutant]) -> Iterator[None]:
        self.mutants = mutants
        yield
        self.mutants = []

    def run(self, arguments: list[str]) -> Outcome:
        self.runs.append(list(self.mutants))
        named = [argument for argument in arguments if argument in self.failed_by]
        failed = [
            test
            for test in named or self.failed_by
            if f"--deselect={test}" not in arguments
            and (
                test in self.by_chance
                or self._enough(test)(one in self.mutants for one in self.failed_by[test])
            )
        ]
        self.by_chance = [test for test in self.by_chance if test not in failed]
        return Outcome("failed", tuple(failed), ("tests/a.py",)) if failed else Outcome("passed")

    def _enough(self, test: str) -> Callable[[Iterable[bool]], bool]:
        return all if test in self.by_all else any


def test_each_of_several_mutants_has_the_test_that_kills_it_alone():
    tree: Any = Tests({"t1": [ONE], "t2": [ONE, TWO]})
    assert hunt(tree, [ONE, TWO, THREE], "wide") == {
        ONE: Verdict("failed", "wide", "t1"),
        TWO: Verdict("failed", "wide", "t2"),
        THREE: Verdict("survived", "wide", None),
    }
    assert tree.runs == [[ONE, TWO, THREE], [ONE], [TWO], [THREE], [THREE]]


def test_mutants_that_fail_a_test_only_together_are_parted():
    tree: Any = Tests({"t1": [ONE, TWO], "t2": [TWO]}, by_all=("t1",))
    assert hunt(tree, [ONE, TWO, THREE], "wide") == {
        ONE: Verdict("survived", "wide", None),
        TWO: Verdict("failed", "wide", "t2"),
        THREE: Verdict("survived", "wide", None),
    }
    tree = Tests({"t1": [ONE, TWO]}, by_all=("t1",))
    assert not any(verdict.is_killed for verdict in hunt(tree, [ONE, TWO, THREE], "wide").values())
    assert [ONE, THREE] in tree.runs and [TWO] in tree.runs


def test_a_test_that_fails_by_chance_kills_nothing():
    tree: Any = Tests({"t1": [], "t2": [TWO]}, by_chance=("t1",))
    assert hunt(tree, [ONE], "wide") == {ONE: Verdict("survived", "wide", None)}
    assert hunt(tree, [TWO], "wide") == {TWO: Verdict("failed", "wide", "t2")}


def test_a_mutant_is_checked_by_the_test_that_killed_it_and_then_by_all():
    tree: Any = Tests({"t1": [], "t2": [ONE]})
    assert hunt_on(tree, ONE, Verdict("failed", "wide", "t2")) == Verdict("failed", "wide", "t2")
    assert len(tree.runs) == 1
    assert hunt_on(tree, ONE, Verdict("failed", "wide", "t1")) == Verdict("failed", "module", "t2")
    assert not hunt_on(tree, TWO, Verdict("failed", "wide", "t2")).is_killed


def test_a_step_is_due_once_and_only_to_survivors():
    assert [step for step in STEPS if Verdict("survived", "module", None).is_due(step)] == ["package", "wide"]
    assert all(Verdict("unfinished", "", None).is_due(step) for step in STEPS)
    assert not any(Verdict("failed", "module", "t1").is_due(step) for step in STEPS)


PASSED = "tests/a.py::test_b[x - y] PASSED                      [ 50%]\n"
FAILED = "tests/c.py::test_c[FAILED x] FAILED                   [100%]\n"
RUNNING = "tests/c.py::test_d[1] "
A, A_AND_C = ("tests/a.py",), ("tests/a.py", "tests/c.py")


@pytest.mark.parametrize(
    ("code", "output", "outcome"),
    [
        (0, PASSED, Outcome("passed", (), A)),
        (5, "", Outcome("passed")),
        (1, PASSED + FAILED, Outcome("failed", ("tests/c.py::test_c[FAILED x]",), A_AND_C)),
        (1, PASSED + PASSED.replace("PASSED", "ERROR"), Outcome("failed", ("tests/a.py::test_b[x - y]",), A)),
        (None, PASSED + RUNNING, Outcome("time", ("tests/c.py::test_d[1]",), A_AND_C)),
        (None, "", Outcome("time")),
        (-11, PASSED + RUNNING, Outcome("failed", ("tests/c.py::test_d[1]",), A_AND_C)),
        (2, "ERROR tests/a.py - SyntaxError", Outcome("collection")),
        (4, "ERROR: not found: /x/tests/a.py::test_e", Outcome("missing")),
    ],
)
def test_the_output_of_pytest_is_read(code, output, outcome):
    assert outcome_of(code, output) == outcome
