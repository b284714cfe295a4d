"""Moves modules into packages as moves.txt says, with everything that names them.

A module, a test or a helper of tests that has no place in moves.txt is an error, before anything is touched.
Imports are rewritten by name: what ``proxy.config`` re-exported comes from where it is defined.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (".py", ".pyi", ".md", ".toml", ".cfg", ".sh", ".yaml", ".yml", ".c", ".js", ".html", ".json", ".mjs", "")
UNTOUCHED = ("CHANGELOG.md", "moves/", "tests/fuzz/corpus", "tests/readers/pins", "docs/dashboard/")


def git(*args: str) -> str:
    return subprocess.run(["git", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def read_moves() -> dict[str, str]:
    lines = (line.split() for line in (ROOT / "moves/moves.txt").read_text().splitlines())
    moves = {words[0]: words[1] for words in lines if words and not words[0].startswith("#")}
    for old, new in list(moves.items()):
        if old.startswith("proxy/") and old.endswith(".py"):
            test = f"tests/test_{Path(old).stem}.py"
            if (ROOT / test).exists() and test not in moves:
                target = Path("tests", *Path(new).parts[1:])
                moves[test] = str(target.with_name(f"test_{target.name}"))
    return moves


def check(moves: dict[str, str]) -> None:
    found = {str(path.relative_to(ROOT)) for folder in ("proxy", "tests") for path in (ROOT / folder).glob("*.py")}
    usual = {"proxy/__init__.py", "proxy/__main__.py", "tests/__init__.py", "tests/conftest.py"}
    if unplaced := sorted(found - usual - moves.keys()):
        sys.exit(f"without a place in moves.txt: {', '.join(unplaced)}")
    if missing := sorted(old for old in moves if not (ROOT / old).exists()):
        sys.exit(f"not there: {', '.join(missing)}")
    if len(set(moves.values())) != len(moves):
        sys.exit("two files move to one place")


def dotted(path: str) -> str:
    return path.removesuffix(".pyi").removesuffix(".py").removesuffix(".c").replace("/", ".")


class Rewriter:
    def __init__(self, moves: dict[str, str]) -> None:
        self.moves = moves
        self.modules = {dotted(o): dotted(n) for o, n in moves.items() if o.endswith((".py", ".c"))}
        # Where what proxy.config exports is defined.
        tree = ast.parse((ROOT / "proxy/config.py").read_text())
        self.defined = {
            alias.asname or alias.name: self.modules[node.module]
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("proxy.")
            for alias in node.names
        }
        names = "|".join(sorted((re.escape(old) for old in self.modules), key=len, reverse=True))
        self.any_module = re.compile(rf"(?<![\w./-])({names})\b(?!/|\.py\b|\.md|=)")
        paths = "|".join(sorted((re.escape(old) for old in moves), key=len, reverse=True))
        self.any_path = re.compile(rf"(?<![\w./-])({paths})(?![\w])")
        files = {Path(o).name: n for o, n in moves.items() if o.endswith(".py")}
        self.by_file = {name: new.removeprefix("proxy/") for name, new in files.items()}
        bare = "|".join(sorted((re.escape(name) for name in self.by_file), key=len, reverse=True))
        self.any_file = re.compile(rf"(?<=`)({bare})(?=`|::)")

    def text(self, text: str, is_python: bool) -> str:
        if is_python:
            text = self.imports(text)
        text = self.any_module.sub(lambda found: self.modules[found[1]], text)
        text = self.any_path.sub(lambda found: self.moves[found[1]], text)
        return text if is_python else self.any_file.sub(lambda found: self.by_file[found[1]], text)

    def imports(self, text: str) -> str:
        """``from proxy import x`` and ``from proxy.config import X``, which change by name."""
        tree = ast.parse(text)
        lines = text.splitlines(keepends=True)
        renamed: dict[str, str] = {}
        bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        bound |= {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        for node in sorted(nodes, key=lambda node: -node.lineno):
            if node.module not in ("proxy", "tests", "proxy.config"):
                continue
            parts: dict[str, list[str]] = {}
            for alias in node.names:
                old = f"{node.module}.{alias.name}"
                if node.module == "proxy.config":
                    module, name, local = self.defined.get(alias.name, "proxy.config.parse"), alias.name, alias.asname
                elif old in self.modules:
                    module, _, name = self.modules[old].rpartition(".")
                    local = alias.asname
                    if local is None and name != alias.name:
                        if name in bound or "_" not in name:
                            local = alias.name
                        else:
                            renamed[alias.name] = name
                else:
                    module, name, local = node.module, alias.name, alias.asname
                parts.setdefault(module, []).append(name if local is None else f"{name} as {local}")
            indent = " " * node.col_offset
            new = [f"{indent}from {module} import {', '.join(names)}\n" for module, names in parts.items()]
            lines[node.lineno - 1 : node.end_lineno] = ["".join(new), *[""] * (node.end_lineno - node.lineno)]
        text = "".join(lines)
        if renamed:
            tree = ast.parse(text)
            lines = [line.encode() for line in text.splitlines(keepends=True)]
            names = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n.id in renamed]
            for node in sorted(names, key=lambda node: (-node.lineno, -node.col_offset)):
                line = lines[node.lineno - 1]
                lines[node.lineno - 1] = (
                    line[: node.col_offset] + renamed[node.id].encode() + line[node.end_col_offset :]
                )
            text = b"".join(lines).decode()
        return text


def main() -> None:
    moves = read_moves()
    check(moves)
    if "--check" in sys.argv:
        return
    rewriter = Rewriter(moves)
    for name in git("ls-files").splitlines():
        path = ROOT / name
        if path.suffix in TEXT and not name.startswith(UNTOUCHED) and path.is_file():
            try:
                before = path.read_text()
            except UnicodeDecodeError:
                continue
            after = rewriter.text(before, path.suffix in (".py", ".pyi"))
            if after != before:
                path.write_text(after)
    for old, new in moves.items():
        folder = ROOT / new
        if not folder.parent.exists():
            folder.parent.mkdir(parents=True)
        for parent in Path(new).parents:
            front = ROOT / parent / "__init__.py"
            if parent.parts and not front.exists() and parent.parts[-1] != "dashboard":
                front.write_text("")
                git("add", str(front))
        if (ROOT / old).suffix == ".py" and (ROOT / new).exists():
            sys.exit(f"{new} is there already")
        git("mv", old, new)


if __name__ == "__main__":
    main()
