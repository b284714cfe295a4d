"""The reader of tables, the alias graph, and files that are broken in random ways."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import values
from proxy.config.parse import parse, without_effect
from proxy.config.tables import ConfigError, Mistake, Notes, Table, UsableNames, check_aliases, quoted
from proxy.config.toml_positions import Positions
from tests.support.config import BASE


def test_error_sorts_and_drops_repeats() -> None:
    error = ConfigError([Mistake(2, 1, "b"), Mistake(1, 9, "a"), Mistake(2, 1, "b")], "f.toml")
    assert error.mistakes == (Mistake(1, 9, "a"), Mistake(2, 1, "b"))
    assert str(error) == "f.toml:1:9: a\nf.toml:2:1: b"


def test_table_reads_on_after_a_mistake() -> None:
    notes = Notes(Positions("a = 1\nb = 2\nc = 3"))
    table = Table({"a": "x", "b": 2, "c": 3}, (), notes)
    assert table.take("a", 7, values.whole(0, 9)) == 7
    assert table.take("b", 7, values.whole(0, 9)) == 2
    assert table.take("d", None, values.whole(0, 9)) is None
    table.done()
    assert sorted(notes.mistakes) == [
        Mistake(1, 5, "'a' must be a whole number, not text"),
        Mistake(3, 1, "unknown setting 'c'; known here: a, b, d"),
    ]
    assert notes.changed == [("b",)]


def test_quoted() -> None:
    assert (quoted("a-b_1"), quoted("a/b")) == ("a-b_1", '"a/b"')


def test_names_are_looked_up_as_id_alias_short_name() -> None:
    chat = frozenset({"chat"})
    names = UsableNames({"p/m": chat, "q/m": chat, "q/n": chat}, {"n": [("p/m", ())], "p/m": []})
    assert names.models("p/m") == ("p/m",)
    assert list(names.models("m")) == ["p/m", "q/m"]
    assert not names.models("n")  # the alias hides the short name
    assert names.is_alias("n")
    assert not names.is_alias("p/m")


@given(st.integers(0, 2**32))
def test_alias_graphs_end(seed: int) -> None:
    """Any graph is judged, and called free of cycles only where every alias leads to models alone."""
    rng = random.Random(seed)
    aliases = [f"a{i}" for i in range(rng.randint(1, 8))]
    targets = [*aliases, "p/m", "m"]
    members = {alias: [(rng.choice(targets), ()) for _ in range(rng.randint(1, 3))] for alias in aliases}
    notes = Notes(Positions(""))
    check_aliases(UsableNames({"p/m": frozenset({"chat"})}, members), notes)

    def ends(name: str, above: tuple[str, ...]) -> bool:
        if name in above:
            return False
        return all(ends(inner, (*above, name)) for inner, _ in members.get(name, []))

    assert (not notes.mistakes) == all(ends(alias, ()) for alias in aliases)


def test_a_long_chain_of_aliases_is_no_recursion() -> None:
    chain = "\n".join(f'a{i} = ["a{i + 1}"]' for i in range(1500))
    assert parse(f'[aliases]\n{chain}\na1500 = ["gpt-4o"]\n{BASE}')


FULL = """
[server]
listen = ["127.0.0.1:8080", "unix:/run/t.sock"]
max_body = "64MiB"
[admin]
listen = "127.0.0.1:8081"
[routing]
strategy = "cost"
[routing.eject]
base = "10s"
[timeouts]
connect = "5s"
[providers.x]
base_url = "https://x/v1"
headers = { a = "b" }
endpoints = ["chat"]
[models."x/m"]
input_price = 1.5
capabilities = ["chat", "tools"]
[aliases]
a = ["x/m", "b"]
b = { models = ["m"], hedge = "p95", split = { "x/m" = 1 } }
"""
PIECES = re.findall(r'"[^"\n]*"|[\w.]+|[^\w"]', FULL)
OTHER = [
    "1", "-1", "true", '"x"', "[]", "{}", "[[1]]", "nan", "a.b", "=", "\n", "[", "]", '"', "1979-05-27", "é",
]  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(PIECES) - 1), st.sampled_from([*OTHER, *PIECES])), max_size=4))
def test_any_broken_file_is_a_list_of_places(changes: list[tuple[int, str]]) -> None:
    pieces = list(PIECES)
    for index, piece in changes:
        pieces[index] = piece
    text = "".join(pieces)
    lines = text.split("\n")
    mistakes: tuple[Mistake, ...] = ()
    try:
        parse(text)
        mistakes = without_effect(text)
    except ConfigError as error:
        mistakes = error.mistakes
    for mistake in mistakes:
        assert 1 <= mistake.line <= len(lines)
        assert 1 <= mistake.column <= len(lines[mistake.line - 1]) + 1


@given(st.text())
def test_any_text_is_refused_in_order(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text)
