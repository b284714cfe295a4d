"""The project's style, as far as a program can check it. Each rule says why it stands."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROXY = Path(__file__).parents[1] / "proxy"
TESTS = Path(__file__).parent
MODULES = sorted(PROXY.glob("*.py"))
TREES = {path.stem: ast.parse(path.read_text()) for path in MODULES}

MAX_FILE_LINES = 400  # what one can hold in mind; above it, a file has two subjects
MAX_FUNCTION_LINES = 70  # a screen

# Decides purely: no clock, no socket, no file, no log. Time and chance are arguments, so that a test can
# give them, and a thousand cases run in the time of one socket.
CORE = frozenset(
    ["errors", "decay", "scanner", "body", "framing", "lines", "headers", "answer", "settings", "values",
     "validate", "positions", "sections", "routes", "config", "catalog", "listing", "modelpages",
     "meters", "strategy", "usage", "options", "overload", "intake", "accounting", "changes", "edit",
     "explain", "views", "breaker", "budget", "record", "candidates", "deployment", "pool", "retry",
     "patience", "peek", "recent", "latency", "cost", "speed", "charges", "lessons", "decode", "mapping",
     "knowledge", "rowstate", "tally", "streamusage", "keys", "limits", "access", "admission", "asked",
     "closing", "endpoints", "error_response", "media", "outline", "schemas", "counters", "cors",
     "metrics", "samples", "tables", "benchstats", "alerts", "hints", "limiterrors", "refusals",
     "passing", "query", "content_type", "header_settings", "forwarding", "sse", "strikes", "jsonslices",
     "steps", "head_cache", "limitlines", "permits", "pictures", "places", "references", "strings", "tokens",
     "written", "broken", "default_models", "streamends", "figures", "votes"]
)  # fmt: skip
SHELL_LIBRARIES = frozenset(["asyncio", "socket", "time", "os", "logging", "aiohttp", "uvloop"])
PRINTING = frozenset(
    ("cli", "chat", "keycommands", "localcommands", "simulator", "terminal", "usagecommands")
)  # commands of people at a terminal

# call -> why not, and what to write in its place
BANNED = {
    "time.sleep": "blocks every connection of the loop: use asyncio.sleep, or a time the tick looks at",
    "asyncio.get_event_loop": "may make a second loop: use asyncio.get_running_loop",
    "asyncio.ensure_future": "says neither what nor where: use loop.create_task and keep the task",
    "time.time": "jumps with the clock of the machine: use time.monotonic (dates of people excepted)",
}
# `created`, `date`, `ejected_until`, Retry-After, `expires`, months: dates of people, or of other machines.
ALLOWED = {
    (name, "time.time")
    for name in (
        "server",
        "simulator",
        "admin",
        "console",
        "attempt",
        "control",
        "state",
        "keystore",
        "keycommands",
        "keysource",
        "app",
        "gateway",
        "worker",
        "live",
        "monitor",
        "webhook",
    )
}
# In a thread beside the loop, to let the loop have the interpreter.
ALLOWED.add(("folding", "time.sleep"))

each_module = pytest.mark.parametrize("name", TREES)


def imports(tree: ast.Module) -> set[str]:
    """Modules a file imports when it is loaded, and those inside its functions; not those for types only."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.update(f"proxy.{alias.name}" for alias in node.names) if module == "proxy" else found.add(
                module
            )
    return found


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


@each_module
def test_each_module_has_its_tests(name):
    if name.startswith("__"):
        return
    assert (TESTS / f"test_{name}.py").exists(), f"proxy/{name}.py needs tests/test_{name}.py"


def test_the_core_is_there():
    assert set(TREES) >= CORE


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_knows_nothing_of_the_shell(name):
    for module in imports(ast.parse((PROXY / f"{name}.py").read_text())):
        top, _, below = module.partition(".")
        assert top not in SHELL_LIBRARIES, (
            f"proxy/{name}.py is core and imports {module}: take it as an argument"
        )
        if top == "proxy":
            assert below in CORE or below == "_outline", (
                f"proxy/{name}.py is core and imports {module}, which is shell"
            )


def test_imports_go_in_no_circle():
    """But for types: two modules that need each other to be loaded are one module."""
    graph = {
        name: {m.partition(".")[2] for m in imports(ast.parse(path.read_text())) if m.startswith("proxy.")}
        for name, path in ((path.stem, path) for path in MODULES)
    }
    while graph:
        free = [name for name, needed in graph.items() if not needed & graph.keys() - {name}]
        assert free, f"these import each other in a circle: {sorted(graph)}"
        for name in free:
            del graph[name]


@each_module
def test_files_are_short(name):
    lines = len((PROXY / f"{name}.py").read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"proxy/{name}.py has {lines} lines: split it by subject"


@each_module
def test_functions_are_short(name):
    long = [
        f"{node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long, f"proxy/{name}.py: {', '.join(long)}"


@each_module
def test_each_module_says_what_it_is_for(name):
    tree = TREES[name]
    assert ast.get_docstring(tree), f"proxy/{name}.py has no docstring"


@each_module
def test_no_banned_calls(name):
    found = [
        f"line {call.lineno}: {ast.unparse(call.func)}: {BANNED[ast.unparse(call.func)]}"
        for call in calls(TREES[name])
        if ast.unparse(call.func) in BANNED and (name, ast.unparse(call.func)) not in ALLOWED
    ]
    assert not found, f"proxy/{name}.py: {'; '.join(found)}"


@each_module
def test_tasks_are_kept(name):
    """The loop holds tasks weakly: one that nobody keeps can vanish in the middle of its work."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            assert not called.endswith("create_task"), (
                f"proxy/{name}.py line {node.lineno}: keep the task (in a set, discarded by a done callback)"
            )


@each_module
def test_only_commands_print(name):
    if name in PRINTING:
        return
    found = [call.lineno for call in calls(TREES[name]) if ast.unparse(call.func) == "print"]
    assert not found, f"proxy/{name}.py prints in lines {found}: use its logger"


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
            assert not composed, f"proxy/{name}.py line {call.lineno}: {function}('%s …', value)"


@each_module
def test_nothing_is_caught_in_silence(name):
    """A bare except, or `except Exception: pass`, hides the faults nobody thought of."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            empty = all(isinstance(line, ast.Pass | ast.Continue) for line in node.body)
            assert not (node.type is None or (broad and empty)), f"proxy/{name}.py line {node.lineno}"
