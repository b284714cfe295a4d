"""Runs tests against mutants, each in a copy of the tree, the nearest tests first."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Literal, NamedTuple, TypeVar

from tests.support.mutant_places import ROOT, Mutant, mutated

STEPS = ["module", "package", "wide"]
# What is not marked as long takes less than ten seconds, and 20 times that where many others work too.
MOST_PER_TEST_S = 240.0
MOST_PER_RUN_S = 2 * 3600.0
# So many failures are looked at before a run with several mutants goes on.
_MOST_FAILED = 4

_COPIED = ("proxy", "tests")
_OPTIONS = ("-vv", "-p", "no:cacheprovider", "-n", "0", "--tb=no", "--no-header")
# As pytest -v writes it: the test when it begins, and behind it how it ended.
_ENDED = re.compile(r"(tests/\S+\.py::.*) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*")
_BEGUN = re.compile(r"tests/\S+\.py::.*")
_NOT_FOUND = re.compile(r"^ERROR: (not found|file or directory not found)", re.M)


T = TypeVar("T")
R = TypeVar("R")


class Outcome(NamedTuple):
    """The end of a run of tests.

    :ivar how: ``collection`` is an error before any test ran, ``missing`` that the tests named don't exist.
    :ivar tests: the tests that failed, or the one that was running when the time was over.
    :ivar files: the files that were begun, in order.
    """

    how: Literal["passed", "failed", "time", "collection", "missing"]
    tests: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Verdict(NamedTuple):
    """The result of a mutant.

    :ivar how: ``failed``, ``time`` and ``collection``: killed by a test that failed or did not end, or by an
        error before any test ran. ``survived``. ``unfinished``: not run yet.
    :ivar step: the last one that was run; "" before the first.
    :ivar killed_by: the test that killed it, if one did.
    """

    how: str
    step: str
    killed_by: str | None

    @property
    def is_killed(self) -> bool:
        return self.how in ("failed", "time", "collection")

    def is_due(self, step: str) -> bool:
        """Return whether a step is still to be run."""
        return not self.is_killed and (not self.step or STEPS.index(step) > STEPS.index(self.step))


def nearest(path: str, step: str) -> list[str]:
    """Return what pytest runs in a step, if anything."""
    folder = Path("tests", *Path(path).parts[1:-1])
    if step == "module":
        return [str(folder / f"test_{Path(path).name}")]
    if step == "package":  # a module beside the packages has none
        return [] if folder == Path("tests") else [str(folder)]
    return ["tests/relay", "tests/system"]


def outcome_of(returncode: int | None, output: str) -> Outcome:
    """Read what pytest -v wrote. ``returncode``: None where the time was over."""
    failed: dict[str, None] = {}
    running: tuple[str, ...] = ()
    files: dict[str, None] = {}
    for line in output.splitlines():
        if _BEGUN.match(line):
            files[line.partition("::")[0]] = None
            running = (line.strip(),)
        if ended := _ENDED.match(line):
            running = ()
            if ended[2] in ("FAILED", "ERROR"):
                failed[ended[1]] = None
    if failed:
        return Outcome("failed", tuple(failed), tuple(files))
    if returncode is None:
        return Outcome("time", running, tuple(files))
    if returncode in (0, 5):  # 5: there was nothing to run
        return Outcome("passed", (), tuple(files))
    if _NOT_FOUND.search(output):
        return Outcome("missing")
    # A process that ends in the middle of a test is that test's failure.
    return Outcome("failed" if running else "collection", running, tuple(files))


class Tree:
    """A copy of the tree, in which one module at a time is a mutant."""

    _changes = count(10**9)

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        folder.mkdir()
        # A compiled module would be imported in place of its source.
        unwanted = shutil.ignore_patterns("__pycache__", "*.so", ".*")
        for path in ROOT.iterdir():
            if path.name in _COPIED:
                shutil.copytree(path, folder / path.name, ignore=unwanted)
            elif not path.name.startswith(".") and path.name not in ("build", "__pycache__"):
                (folder / path.name).symlink_to(path)

    @contextlib.contextmanager
    def made(self, mutants: list[Mutant]) -> Iterator[None]:
        """Have mutants in place of their modules, until the end."""
        for mutant in mutants:
            module = self.folder / mutant.path
            source = mutated(mutant, (ROOT / mutant.path).read_text())
            assert source is not None, mutant
            module.write_text(source)
            # Python takes a cached module for current if its source is as old and as long as noted there.
            os.utime(module, (changed := next(self._changes), changed))
        try:
            yield
        finally:
            for mutant in mutants:
                shutil.copy2(ROOT / mutant.path, self.folder / mutant.path)
            # hypothesis repeats what failed before, which was another mutant. The rest is tables that take
            # long to make, so that a test without them fails for its slowness.
            shutil.rmtree(self.folder / ".hypothesis" / "examples", ignore_errors=True)

    def run(self, arguments: list[str]) -> Outcome:
        """Run tests. Whatever is left of them when a test takes too long, or at the end, is killed."""
        command = [sys.executable, "-m", "pytest", *_OPTIONS, f"--basetemp={self.folder}/tmp", *arguments]
        log = self.folder / "output"
        if self._is_stopped:
            raise InterruptedError
        with log.open("wb") as output:
            self._process = process = subprocess.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        returncode = None
        try:
            returncode = _ended(process, log)
        finally:
            self._kill(process)
            process.wait()
        return outcome_of(returncode, log.read_text(errors="replace"))

    def stop(self) -> None:
        """End what runs, from another thread; nothing else begins."""
        self._is_stopped = True
        if self._process:
            self._kill(self._process)

    @staticmethod
    def _kill(process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _ended(process: subprocess.Popen[bytes], log: Path) -> int | None:
    """Wait for the end of a run, which writes a line for each test; None where it comes too late."""
    begun_s = moved_s = monotonic()
    size = 0
    while (now_s := monotonic()) - begun_s < MOST_PER_RUN_S and now_s - moved_s < MOST_PER_TEST_S:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(0.5)
        if (grown := log.stat().st_size) != size:
            size, moved_s = grown, now_s
    return None


def failure(tree: Tree, mutants: list[Mutant], tests: tuple[str, ...]) -> Outcome | None:
    """Run some tests up to the first that fails; None where all pass, or are not there."""
    with tree.made(mutants):
        found = tree.run(["-x", *tests])
        if found.how == "missing":  # pytest does not take all parameters back
            found = tree.run(["-x", *{test.partition("[")[0] for test in tests}])
    return None if found.how in ("passed", "missing") else found


def hunt(
    tree: Tree, mutants: list[Mutant], step: str, without: tuple[str, ...] = ()
) -> dict[Mutant, Verdict]:
    """Run the tests of a step against mutants of different modules, which have them in common.

    All mutants are in the tree at once. Then each is alone with the tests that failed. So a step takes little
    longer for many than for one, and a test that failed since the machine is busy kills nothing. Mutants that
    fail a test only together are parted. A mutant whose fault another one hides is missed.
    """
    left = list(mutants)
    verdicts = {mutant: Verdict("survived", step, None) for mutant in left}
    while left and (tests := nearest(left[0].path, step)):
        with tree.made(left):
            found = tree.run([f"--maxfail={1 if len(left) == 1 else _MOST_FAILED}", *tests, *without])
        if found.how in ("passed", "missing"):
            break
        if not found.tests and len(left) == 1:
            return {left[0]: Verdict(found.how, step, None)}
        killed = {}
        for mutant in left if found.tests else ():
            if again := failure(tree, [mutant], found.tests):
                killed[mutant] = Verdict(again.how, step, (again.tests or found.tests)[0])
        verdicts |= killed
        if not killed and len(left) > 1 and (not found.tests or failure(tree, left, found.tests)):
            for part in (left[::2], left[1::2]):
                verdicts |= hunt(tree, part, step, without)
            break
        left = [mutant for mutant in left if mutant not in killed]
        # Those left have passed all that was run until here.
        without += tuple(f"--deselect={test}" for test in found.tests)
        without += tuple(f"--ignore={file}" for file in found.files[:-1])
    return verdicts


def hunt_on(tree: Tree, mutant: Mutant, then: Verdict) -> Verdict:
    """Run the test that killed a mutant, and if it does not any more, all steps."""
    if then.killed_by and (found := failure(tree, [mutant], (then.killed_by,))):
        return Verdict(found.how, then.step, then.killed_by)
    verdict = then
    for step in STEPS:
        verdict = hunt(tree, [mutant], step)[mutant]
        if verdict.is_killed:
            break
    return verdict


def groups(mutants: list[Mutant], step: str) -> list[list[Mutant]]:
    """Return the mutants that are run together: their tests are the same, and their modules differ."""
    found: dict[tuple[object, ...], list[Mutant]] = {}
    per_module: Counter[str] = Counter()
    for mutant in mutants:
        per_module[mutant.path] += 1
        found.setdefault((per_module[mutant.path], *nearest(mutant.path, step)), []).append(mutant)
    return list(found.values())


class Runs:
    """As many copies of the tree as there are jobs."""

    def __init__(self, folder: Path, jobs: int) -> None:
        self._all = [Tree(folder / str(number)) for number in range(jobs)]
        self._free: SimpleQueue[Tree] = SimpleQueue()
        for tree in self._all:
            self._free.put(tree)

    def each(self, items: list[T], work: Callable[[Tree, T], R]) -> Iterator[R]:
        """Do some work on each item, with a tree."""

        def one(item: T) -> R:
            tree = self._free.get()
            try:
                return work(tree, item)
            finally:
                self._free.put(tree)

        with ThreadPoolExecutor(len(self._all)) as threads:
            try:
                yield from threads.map(one, items)
            except BaseException:  # the keyboard's, for one; a step may take half an hour
                for tree in self._all:
                    tree.stop()
                raise


def failing(tree: Tree, tests: list[str]) -> set[str]:
    """Return those of the tests that fail twice without any mutant."""
    found = tree.run(tests)
    suspects = tests if found.how in ("missing", "time", "collection") else found.tests
    return {test for test in suspects if failure(tree, [], (test,))}
