"""Places in the compiled modules where one small change makes a mutant, and a draw among all of them.

A mutant is known by what is changed and where, without line numbers: an edit elsewhere in the module does
not lose it. The draw takes the places whose digest with the seed is lowest. So each place has the same
chance, and an edit changes the draw only where it adds or removes a place.
"""

from __future__ import annotations

import ast
import copy
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]

SEED = 20250614
COUNT = 60
MOST_PER_MODULE = 2

# Each comparison with the one that differs least.
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
}  # fmt: skip
# Annotations do nothing at run time; a decorator such as @dataclass(frozen=True) is for the compiler.
_UNREAD_FIELDS = {"annotation", "returns", "decorator_list"}


class Mutant(NamedTuple):
    """One change.

    :ivar function: the qualified name of the function around it, or ``<module>``.
    :ivar before: the expression or statement, as ``ast.unparse`` writes it.
    :ivar occurrence: from 1, among equal changes in that function.
    """

    path: str
    function: str
    operator: str
    before: str
    after: str
    occurrence: int


class _Change(NamedTuple):
    operator: str
    before: ast.AST
    after: ast.AST


def compiled() -> list[str]:
    """The paths of what setup.py compiles, by its own function: to import it would run it."""
    parts: list[ast.stmt] = [
        node
        for node in ast.parse((ROOT / "setup.py").read_text()).body
        if (isinstance(node, ast.FunctionDef) and node.name == "compiled") or isinstance(node, ast.Assign)
    ]
    names: dict[str, Any] = {"Path": ROOT.joinpath, "os": __import__("os")}
    exec(compile(ast.Module(parts, []), "setup.py", "exec"), names)
    return [str(Path(path).relative_to(ROOT)) for path in names["compiled"]()]


def mutants_of(path: str, source: str) -> list[Mutant]:
    """All mutants of a module."""
    return [mutant for mutant, _ in _places(path, ast.parse(source))]


def mutated(mutant: Mutant, source: str) -> str | None:
    """The module with that change; None where the place is not found. Comments are lost."""
    tree = ast.parse(source)
    for found, make in _places(mutant.path, tree):
        if found == mutant:
            make()
            return ast.unparse(ast.fix_missing_locations(tree))
    return None


def draw() -> list[Mutant]:
    """COUNT mutants of the compiled modules, in the order of their paths."""
    every = [mutant for path in compiled() for mutant in mutants_of(path, (ROOT / path).read_text())]
    every.sort(key=lambda mutant: sha256(json.dumps([SEED, *mutant]).encode()).digest())
    per_module: Counter[str] = Counter()
    drawn = []
    for mutant in every:
        per_module[mutant.path] += 1
        if per_module[mutant.path] <= MOST_PER_MODULE:
            drawn.append(mutant)
    return sorted(drawn[:COUNT])


def _places(path: str, tree: ast.AST) -> Iterator[tuple[Mutant, Callable[[], None]]]:
    """All mutants, each with a function that makes its change in the tree."""
    seen: Counter[tuple[str, ...]] = Counter()
    for function, change, make in _walk(tree, "<module>"):
        before, after = (ast.unparse(node) for node in (change.before, change.after))
        key = (function, change.operator, before, after)
        seen[key] += 1
        yield Mutant(path, *key, seen[key]), make


def _walk(node: ast.AST, function: str) -> Iterator[tuple[str, _Change, Callable[[], None]]]:
    for field, value in ast.iter_fields(node):
        if field in _UNREAD_FIELDS:
            continue
        for index, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or _is_left_alone(child):
                continue
            for change in _changes(child):
                put = partial(_put, node, field, index if isinstance(value, list) else None, change.after)
                # An `if` is known by its condition alone, without its body.
                if isinstance(child, ast.If):
                    put = partial(_put, child, "test", None, change.after)
                yield function, change, put
            inner = function
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                inner = child.name if function == "<module>" else f"{function}.{child.name}"
            yield from _walk(child, inner)


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _is_left_alone(node: ast.AST) -> bool:
    match node:
        # An assertion states what can't be otherwise, so no test can show that one is weaker.
        case ast.Assert():
            return True
        case ast.If(test=ast.Name("TYPE_CHECKING")):
            return True
        case ast.Subscript(value=ast.Name("Literal")):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name("log")))):
            return True
    return False


def _changes(node: ast.AST) -> Iterator[_Change]:
    match node:
        case ast.expr():
            yield from _changes_of_expression(node)
        case ast.If():
            yield _Change("if always", node.test, ast.Constant(True))
            yield _Change("if never", node.test, ast.Constant(False))
        # None in place of False is the same to callers.
        case ast.Return(value=ast.expr()) if not _is_constant(node.value, None, False):
            yield _Change("return None", node, ast.Return(ast.Constant(None)))
        case ast.Break():
            yield _Change("break", node, ast.Continue())
        case ast.Continue():
            yield _Change("break", node, ast.Break())
        case ast.AugAssign() | ast.Expr(value=ast.Call() | ast.Await(value=ast.Call())):
            yield _Change("left out", node, ast.Pass())


def _changes_of_expression(node: ast.expr) -> Iterator[_Change]:
    match node:
        case ast.Compare():
            for index, op in enumerate(node.ops):
                ops = [*node.ops[:index], _COMPARISONS[type(op)](), *node.ops[index + 1 :]]
                yield _Change("comparison", node, _with(node, ops=ops))
        case ast.BoolOp():
            turned = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
            yield _Change("and/or", node, _with(node, op=turned))
        case ast.UnaryOp(op=ast.Not()):
            yield _Change("not", node, node.operand)
        # Text is only joined: any other operator is a type error, which every test would show.
        case ast.BinOp() if type(node.op) in _ARITHMETIC and not (
            _is_text(node.left) or _is_text(node.right)
        ):
            yield _Change("arithmetic", node, _with(node, op=_ARITHMETIC[type(node.op)]()))
        case ast.Constant(value=bool(value)):
            yield _Change("boolean", node, ast.Constant(not value))
        case ast.Constant(value=int(value)):
            yield _Change("one more", node, ast.Constant(value + 1))


def _with(node: ast.expr, **fields: Any) -> ast.expr:
    made = copy.copy(node)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _is_constant(node: ast.expr | None, *values: object) -> bool:
    return isinstance(node, ast.Constant) and any(node.value is value for value in values)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )
