"""Positions of keys and values, by example and in documents whose writer knows where it put everything."""

from __future__ import annotations

import json
import string
import tomllib
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.toml_positions import Path, Position, Positions


def place(text: str, offset: int) -> Position:
    """The same as the module's own count, written the slow way."""
    before = text[:offset]
    return Position(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1)


# Each « marks a place; the path and what is asked for stand beside it.
EXAMPLES: list[tuple[str, Path, str]] = [
    ("«a = 1", ("a",), "key"),
    ("a = «1", ("a",), "value"),
    ("a = 1\n«b = 2", ("b",), "key"),
    ("  a   =\t«1 # c", ("a",), "value"),
    ("a = 1\r\nb = «2\r\n", ("b",), "value"),
    ("# a = 0\na = «1", ("a",), "value"),
    ("[«t]\na = 1", ("t",), "key"),
    ("[«t]\na = 1", ("t",), "value"),
    ("[ t . «u ]\na = 1", ("t", "u"), "key"),
    ("[t]\n«a = 1", ("t", "a"), "key"),
    ('[models.«"openai/gpt-4o"]\nweight = 2', ("models", "openai/gpt-4o"), "key"),
    ('[models."openai/gpt-4o"]\nweight = «2', ("models", "openai/gpt-4o", "weight"), "value"),
    ("[models.'openai/gpt-4o']\n«x = 1", ("models", "openai/gpt-4o", "x"), "key"),
    ('models."a/b".weight = «2', ("models", "a/b", "weight"), "value"),
    ('models.«"a/b".weight = 2', ("models", "a/b"), "key"),
    ("«a.b = 1\na.c = 2", ("a",), "key"),
    ("a.b = 1\na.«c = 2", ("a", "c"), "key"),
    ("a = [«1, 2]", ("a", 0), "value"),
    ("a = [1, «2]", ("a", 1), "value"),
    ("a = [1, «2]", ("a", 1), "key"),
    ("a = [\n  1, # one, two]\n  «2,\n]", ("a", 1), "value"),
    ("a = [[1], [2, «3]]", ("a", 1, 1), "value"),
    ("a = { b = «1 }", ("a", "b"), "value"),
    ("a = { b = 1, «c.d = 2 }", ("a", "c"), "key"),
    ("a = { b = 1, c.d = «2 }", ("a", "c", "d"), "value"),
    ("a = [{ b = 1 }, { «b = 2 }]", ("a", 1, "b"), "key"),
    ("a = {}\n«b = 1", ("b",), "key"),
    ("a = []\n«b = 1", ("b",), "key"),
    ('a = "]},#\\""\n«b = 1', ("b",), "key"),
    ("a = ']},#\"'\n«b = 1", ("b",), "key"),
    ('a = """\nx = 1\n[t]\n\\""" ""x"""""\n«b = 1', ("b",), "key"),
    ("a = '''\nx = 1\n''x'''''\n«b = 1", ("b",), "key"),
    ('a = ""\n«b = 1', ("b",), "key"),
    ("a = ''\n«b = 1", ("b",), "key"),
    ('a = """"""\n«b = 1', ("b",), "key"),
    ("a = 1979-05-27 07:32:00\n«b = 1", ("b",), "key"),
    ("a = [1979-05-27 07:32:00, «2]", ("a", 1), "value"),
    ("[[x]]\na = 1\n[[«x]]\na = 2", ("x", 1), "key"),
    ("[[«x]]\na = 1\n[[x]]\na = 2", ("x",), "key"),
    ("[[x]]\na = 1\n[[x]]\na = «2", ("x", 1, "a"), "value"),
    ("[[x]]\n[x.y]\na = 1\n[[x]]\n[x.«y]\na = 2", ("x", 1, "y"), "key"),
    ("[[x]]\n[[x.y]]\n[[x.y]]\na = «2", ("x", 0, "y", 1, "a"), "value"),
    ("[t.u]\na = 1\n[«t]\nb = 1", ("t",), "key"),  # its own header wins over the one that implied it
    ('"\\u0061" = «1', ("a",), "value"),
    ('"é\\t\\"" = «1', ('é\t"',), "value"),
    ("a = 'ü€😀' # ß\n«x = 1", ("x",), "key"),
    ("a = ['ü€😀', «1]", ("a", 1), "value"),
    ("[t]\n«a = 1", ("t", "a", "nowhere"), "key"),
    ("[«t]\na = 1", ("t", "nowhere"), "value"),
    ("«a = 1", ("nowhere",), "key"),
]


@pytest.mark.parametrize(("marked", "path", "of"), EXAMPLES)
def test_example(marked: str, path: Path, of: str) -> None:
    offset = marked.index("«")
    text = marked.replace("«", "")
    tomllib.loads(text)
    positions = Positions(text)
    found = positions.key(path) if of == "key" else positions.value(path)
    assert found == place(text, offset)


def test_empty_document() -> None:
    assert Positions("").key(("a",)) == Position(1, 1)
    assert Positions("# only\n").value(("a", 0)) == Position(1, 1)
    assert repr(Positions("a = [1]")) == "<Positions keys=1 values=2>"
    with pytest.raises((ValueError, IndexError)):  # what tomllib refuses does not hang
        Positions("= 1")


# --- documents whose writer knows every place ---------------------------------------------------------------

Leaf = bool | int | float | str
Tree = Leaf | list["Tree"] | dict[str, "Tree"]

names = st.one_of(
    st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=4),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4),
    st.sampled_from(["openai/gpt-4o", "a.b", "a b", "#", "]", '"', "\\", "é"]),
)
leaves = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(-1e6, 1e6, allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8),
    st.sampled_from(["]", "}", ",", "#", '"', "'", "\\", "a\nb", '""', "= 1", "[x]"]),
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(names, trees, max_size=4)


@dataclass
class Writer:
    """Writes a document with random spelling and notes where it puts what."""

    draw: st.DrawFn
    text: str = ""
    keys: dict[Path, int] = field(default_factory=dict)
    values: dict[Path, int] = field(default_factory=dict)

    def any_of(self, *options: str) -> None:
        self.text += self.draw(st.sampled_from(options))

    def blank(self) -> None:
        self.any_of("", " ", "\t ")

    def filler(self) -> None:
        self.any_of("", " ", "\n", "\r\n", ' # ] } " = 1 \n', "\n\n  ")

    def key(self, path: Path) -> None:
        name = str(path[-1])
        # TOML knows no surrogates.
        escape = self.draw(st.booleans()) and all(char <= "\uffff" for char in name)
        spellings = [json.dumps(name, ensure_ascii=escape)]
        if name and all(char in string.ascii_letters + string.digits + "-_" for char in name):
            spellings.append(name)
        if "'" not in name and name.isprintable():
            spellings.append(f"'{name}'")
        self.keys.setdefault(path, len(self.text))
        self.any_of(*spellings)

    def string(self, value: str) -> None:
        plain = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        spellings = [plain, f'"""{plain[1:-1]}"""']
        if "\\\\" not in plain:  # then every \\n is a line break
            spellings.append('"""\n' + plain[1:-1].replace("\\n", "\n") + '"""')
        if "'" not in value and value.isprintable():
            spellings += [f"'{value}'", f"'''{value}'''"]
            if value:
                spellings.append(f"'''\n{value}'''")
        self.any_of(*spellings)

    def value(self, path: Path, value: Tree) -> None:
        self.values[path] = len(self.text)
        if isinstance(value, bool):
            self.text += "true" if value else "false"
        elif isinstance(value, str):
            self.string(value)
        elif isinstance(value, int | float):
            self.text += repr(value)
        elif isinstance(value, list):
            self.text += "["
            self.filler()
            for index, element in enumerate(value):
                self.value((*path, index), element)
                self.filler()
                if index < len(value) - 1 or self.draw(st.booleans()):
                    self.text += ","
                    self.filler()
            self.text += "]"
        else:
            self.text += "{"
            self.blank()
            for index, (name, inner) in enumerate(value.items()):
                self.pair(path, name, inner)
                self.blank()
                if index < len(value) - 1:
                    self.text += ","
                    self.blank()
            self.text += "}"

    def pair(self, table: Path, name: str, value: Tree) -> None:
        path = (*table, name)
        self.key(path)
        while isinstance(value, dict) and len(value) == 1 and self.draw(st.booleans()):  # dotted
            self.values[path] = self.keys[path]
            self.blank()
            self.text += "."
            self.blank()
            ((name, value),) = value.items()
            path = (*path, name)
            self.key(path)
        self.blank()
        self.text += "="
        self.blank()
        self.value(path, value)

    def table(self, path: Path, content: dict[str, Tree]) -> None:
        """The pairs of a table; some of the tables in it get a header behind them."""
        headers = []
        for name, value in content.items():
            inner = (*path, name)
            many = isinstance(value, list) and value and all(isinstance(element, dict) for element in value)
            if (isinstance(value, dict) or many) and self.draw(st.booleans()):
                headers.append((inner, value))
            else:
                self.blank()
                self.pair(path, name, value)
                self.end_line()
        for inner, value in headers:
            if isinstance(value, dict):
                self.header(inner, "[", "]")
                self.table(inner, value)
            else:
                for index, element in enumerate(value):
                    self.header(inner, "[[", "]]", index)
                    self.table((*inner, index), element)

    def header(self, path: Path, opening: str, closing: str, index: int | None = None) -> None:
        self.blank()
        self.text += opening
        for depth, part in enumerate(path, 1):
            if isinstance(part, int):
                continue
            if depth > 1:
                self.text += "."
            self.blank()
            offset = len(self.text)
            self.key(path[:depth])
            self.values.setdefault(path[:depth], offset)
            self.blank()
        if index is not None:
            self.keys[(*path, index)] = self.values[(*path, index)] = offset
        self.text += closing
        self.end_line()

    def end_line(self) -> None:
        self.blank()
        self.any_of("\n", "\r\n", "# x = [\n", "\n\n# y\n")


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Tree], Writer]:
    content = draw(documents)
    writer = Writer(draw)
    writer.table((), content)
    return content, writer


@settings(max_examples=300)
@given(written())
def test_every_place_of_a_written_document(case: tuple[dict[str, Tree], Writer]) -> None:
    content, writer = case
    text = writer.text
    assert tomllib.loads(text) == content
    positions = Positions(text)
    for path, offset in writer.keys.items():
        assert positions.key(path) == place(text, offset), path
    for path, offset in writer.values.items():
        assert positions.value(path) == place(text, offset), path
