"""The project's style, as far as a program can check it. Each rule says why it stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROXY = ROOT / "proxy"
TESTS = ROOT / "tests"
PATHS = {str(path.relative_to(PROXY)): path for path in sorted(PROXY.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in PATHS.items()}

MAX_FILE_LINES = 400  # what one can hold in mind; above it, a file has two subjects
MAX_FUNCTION_LINES = 70  # a screen

# Commands of people at a terminal.
PRINTING = {f"cli/{name}.py" for name in ("chat", "groups", "keys", "local", "main", "terminal", "usage")}
PRINTING.add("simulator/server.py")

# call -> why not, and what to write in its place
BANNED = {
    "time.sleep": "blocks every connection of the loop: use asyncio.sleep, or a time the tick looks at",
    "asyncio.get_event_loop": "may make a second loop: use asyncio.get_running_loop",
    "asyncio.ensure_future": "says neither what nor where: use loop.create_task and keep the task",
    "time.time": "jumps with the clock of the machine: use time.monotonic (dates of people excepted)",
}
# The only ones who may: `created`, `date`, `ejected_until`, Retry-After, `expires`, months are dates of
# people, or of other machines. A thread beside the loop sleeps to let the loop have the interpreter.
ALLOWED = {
    "time.time": {
        "cli/key_source.py", "cli/keys.py", "cli/routes.py", "control/admin/app.py",
        "control/admin/monitoring.py", "control/group_store.py", "control/key_store.py",
        "control/live_feed.py", "control/webhook.py",
        "relay/downstream/gateway.py", "relay/exchange/hold.py", "relay/exchange/context.py",
        "server/control_plane.py",
        "server/single.py", "server/worker.py", "simulator/server.py", "storage/database.py",
    },
    "time.sleep": {"storage/ledger_ingest.py"},
}  # fmt: skip

each_module = pytest.mark.parametrize("name", TREES)


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@each_module
def test_each_module_has_its_tests(name):
    """The tests mirror the packages."""
    if Path(name).name.startswith("__"):
        return
    test = Path("tests", name).with_name(f"test_{Path(name).name}")
    assert (ROOT / test).exists(), f"proxy/{name} needs {test}"


@each_module
def test_files_are_short(name):
    lines = len(PATHS[name].read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"proxy/{name} has {lines} lines: split it by subject"


@each_module
def test_functions_are_short(name):
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long, f"proxy/{name}: {', '.join(long)}"


@each_module
def test_each_module_says_what_it_is_for(name):
    tree = TREES[name]
    assert ast.get_docstring(tree), f"proxy/{name} has no docstring"


@each_module
def test_no_banned_calls(name):
    found = [
        f"line {call.lineno}: {ast.unparse(call.func)}: {BANNED[ast.unparse(call.func)]}"
        for call in calls(TREES[name])
        if ast.unparse(call.func) in BANNED and name not in ALLOWED.get(ast.unparse(call.func), ())
    ]
    assert not found, f"proxy/{name}: {'; '.join(found)}"


@each_module
def test_tasks_are_kept(name):
    """The loop holds tasks weakly: one that nobody keeps can vanish in the middle of its work."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            assert not called.endswith("create_task"), (
                f"proxy/{name} line {node.lineno}: keep the task (in a set, discarded by a done callback)"
            )


@each_module
def test_only_commands_print(name):
    if name in PRINTING:
        return
    found = [call.lineno for call in calls(TREES[name]) if ast.unparse(call.func) == "print"]
    assert not found, f"proxy/{name} prints in lines {found}: use its logger"


@each_module
def test_log_calls_leave_the_formatting_to_logging(name):
    """So that a message that is not wanted costs nothing, and all of one kind have one text to look for."""
    for call in calls(TREES[name]):
        function = ast.unparse(call.func)
        if function.startswith(("log.", "logger.", "logging.getLogger(")) and call.args:
            first = call.args[0]
            composed = isinstance(first, ast.JoinedStr | ast.BinOp) or (
                isinstance(first, ast.Call) and ast.unparse(first.func).endswith(".format")
            )
            assert not composed, f"proxy/{name} line {call.lineno}: {function}('%s …', value)"


@each_module
def test_nothing_is_caught_in_silence(name):
    """A bare except, or `except Exception: pass`, hides the faults nobody thought of."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            empty = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
            assert not (node.type is None or (broad and empty)), f"proxy/{name} line {node.lineno}"


def test_no_exception_is_out_of_date():
    for names in (PRINTING, *ALLOWED.values()):
        assert names <= TREES.keys()


def test_each_class_has_a_name_of_its_own():
    """Two classes of one name are one too many to look up."""
    found: dict[str, list[str]] = {}
    for name, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found.setdefault(node.name, []).append(name)
    assert {name: modules for name, modules in found.items() if len(modules) > 1} == {}


@each_module
def test_prose_in_the_code_keeps_to_its_rules(name):
    """docs/words.md bans these words, which name no thing."""
    text = PATHS[name].read_text()
    assert re.findall(r"(?<!\bhow )\b(?:so many|so long|so much|whoever)\b", text, re.IGNORECASE) == []
