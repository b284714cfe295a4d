"""Edits of the file's text: what is meant is changed, and nothing else, not a comment, not a space."""

from __future__ import annotations

import difflib
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.alias_edit import EditError, remove_alias, set_alias
from tests.e2e import ROOT

TEXT = """\
# head

[aliases]
# the good ones
premium = ["a/x", "b/y"]  # both
many = [
  "a/x",  # first
  "b/y",  # second
]
dotted.models = ["a/x"]
dotted.strategy = "cost"  # cheap
inline = { models = ["a/x"], strategy = "cost" }

# by itself
[aliases.table]
# inside
models = ["a/x"]  # m
strategy = "cost"  # s

[server]
listen = ["127.0.0.1:1"]  # here
"""


def difference(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in lines if line[0] in "+-"]


@pytest.mark.parametrize(
    ("name", "settings", "changed"),
    [
        ("premium", {"models": ["a/x", "b/y"]}, []),
        ("premium", {"models": ["b/y", "a/x"]}, [
            '- premium = ["a/x", "b/y"]  # both', '+ premium = ["b/y", "a/x"]  # both',
        ]),
        ("premium", {"models": ["c"], "strategy": "cost"}, [
            '- premium = ["a/x", "b/y"]  # both', '+ premium = {models = ["c"], strategy = "cost"}  # both',
        ]),
        ("many", {"models": ["b/y", "c/z"]}, ['-   "a/x",  # first', '+   "c/z",']),
        ("dotted", {"models": ["a/x"], "strategy": "latency"}, [
            '- dotted.strategy = "cost"  # cheap', '+ dotted.strategy = "latency"  # cheap',
        ]),
        ("inline", {"models": ["a/x"]}, [
            '- inline = { models = ["a/x"], strategy = "cost" }', '+ inline = ["a/x"]',
        ]),
        ("inline", {"models": ["a/x"], "strategy": "latency"}, [
            '- inline = { models = ["a/x"], strategy = "cost" }',
            '+ inline = { models = ["a/x"], strategy = "latency" }',
        ]),
        ("table", {"models": ["a/x"]}, ['- strategy = "cost"  # s']),
        ("table", {"models": ["a/x", "b"], "strategy": "cost", "peek": True}, [
            '- models = ["a/x"]  # m', '+ models = ["a/x", "b"]  # m', "+ peek = true",
        ]),
        ("new", {"models": ["a/x"]}, ['+ new = ["a/x"]']),
        ("a/b.c", {"models": "a/x"}, ['+ "a/b.c" = "a/x"']),
        ("ab", {"split": {"a/x": 90, "b/y": 10}, "sticky": "key"}, [
            '+ ab = {split = {"a/x" = 90, "b/y" = 10}, sticky = "key"}',
        ]),
    ],
)  # fmt: skip
def test_only_what_is_meant_is_changed(name, settings, changed):
    assert sorted(difference(TEXT, set_alias(TEXT, name, settings))) == sorted(changed)


def test_a_long_list_gets_a_line_a_member():
    models = [f"provider/model-{number}" for number in range(9)]
    added = difference(TEXT, set_alias(TEXT, "long", {"models": models}))
    assert len(added) == 11
    assert added[1] == '+     "provider/model-0",'


@pytest.mark.parametrize(
    "text",
    [
        "", "x = 1\n", "x = 1", 'aliases = { a = ["x"] }\n[p]\ny = 1\n', 'aliases.b = ["x"]\n[p]\ny = 1\n',
        '[aliases.t]\nmodels = ["a"]\n[server]\nx = 1\n[aliases]\nq = ["x"]\n',
        '[aliases.t]\nmodels = ["a"]\n[server]\nx = 1\n[aliases.u]\nmodels = ["x"]\n',
        '\ufeff[aliases]\na = ["x"]\n',
    ],
)  # fmt: skip
def test_however_the_aliases_are_written(text):
    after = set_alias(text, "n", {"models": ["z"]})
    found = tomllib.loads(after.removeprefix("\ufeff"))
    before = tomllib.loads(text.removeprefix("\ufeff"))
    assert found["aliases"].pop("n") == ["z"]
    assert found == {"aliases": {}} | before
    assert after.startswith("\ufeff") is text.startswith("\ufeff")


def test_ends_of_lines_stay():
    text = TEXT.replace("\n", "\r\n")
    after = set_alias(text, "new", {"models": ["z"], "strategy": "cost"})
    assert after.count("\n") == after.count("\r\n") == text.count("\n") + 1
    assert remove_alias(after, "new") == text


WRITTEN = ["premium", "many", "dotted", "inline", "table"]


@pytest.mark.parametrize("name", WRITTEN)
def test_removing(name):
    after = remove_alias(TEXT, name)
    assert all(line.startswith("-") for line in difference(TEXT, after))
    assert name not in tomllib.loads(after)["aliases"]
    with pytest.raises(KeyError):
        remove_alias(after, name)
    with pytest.raises(EditError, match="'a'"):  # what TOML has not
        set_alias(TEXT, "a", {"models": [None]})


def test_the_products_own_file():
    text = (ROOT / "routes.toml").read_text()
    after = set_alias(text, "mine", {"models": ["openai/gpt-4o"], "strategy": "cost"})
    assert difference(text, after) == ['+ mine = {models = ["openai/gpt-4o"], strategy = "cost"}']
    assert remove_alias(after, "mine") == text
    cheaper = set_alias(text, "economy", {"models": ["openai/gpt-4o-mini"], "strategy": "cost"})
    assert len(difference(text, cheaper)) == 2


names = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","), min_size=1)
lists = st.lists(names, min_size=1, max_size=5)


@given(names, lists, st.sampled_from([None, "cost"]), st.dictionaries(names, st.integers(1, 99)))
def test_whatever_is_set_is_what_is_read(name, models, strategy, split):
    settings = {"models": models}
    settings |= {"strategy": strategy} if strategy else {}
    settings |= {"split": split} if split else {}
    found = tomllib.loads(set_alias(TEXT, name, settings))["aliases"][name]
    assert (found if isinstance(found, dict) else {"models": found}) == settings


@given(st.sampled_from(WRITTEN), st.lists(lists, max_size=4))
def test_one_edit_after_another(name, edits):
    text = TEXT
    for models in edits:
        text = set_alias(text, name, {"models": models})
    found = tomllib.loads(text)
    assert found["server"] == tomllib.loads(TEXT)["server"]
    alias = found["aliases"][name]
    if edits:
        assert (alias["models"] if isinstance(alias, dict) else alias) == edits[-1]
