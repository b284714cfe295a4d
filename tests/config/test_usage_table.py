"""``[usage]``: both forms of its tags, and every mistake at its place."""

from __future__ import annotations

import pytest

from proxy.config.parse import parse
from proxy.config.settings import UsageConfig
from proxy.config.usage_table import is_tag_value
from tests.support.config import BASE, check_mistake


@pytest.mark.parametrize(("text", "found"), [
    ("", UsageConfig()), ("tags = []", UsageConfig()),
    ('tags = ["team", "app"]\ntag_values = 5\nmetric_tags = ["app"]',
     UsageConfig((("team", ()), ("app", ())), 5, ("app",))),
    ('tags = { team = ["a", "b c"], app = [] }', UsageConfig((("team", ("a", "b c")), ("app", ())))),
    ('[usage.tags]\nteam = "a"', UsageConfig((("team", ("a",)),))),
])  # fmt: skip
def test_usage(text, found):
    assert parse(f"[usage]\n{text}\n{BASE}").usage == found


@pytest.mark.parametrize(("case", "message"), [
    ("tags = [«'Team']", "has a tag 'Team': names have up to 32 lower-case letters"),
    ("tags = [«'model']", "can't have a tag 'model': totals have something else by this name"),
    ("tags = «['a', 'a']", "must name up to 10 tags, each once"),
    (f"tags = «{[f't{number}' for number in range(11)]}", "must name up to 10 tags"),
    ("tags = { «day = [] }", "can't have a tag 'day'"),
    ("tags = { team = [«'a,b'] }", "has a value 'a,b'"),
    ("tags = { team = [«''] }", "has a value ''"),
    ("tags = «7", "must be a list, not a number"),
    ("tag_values = «0", "must be"),
    ("tags = ['team']\nmetric_tags = [«'teem']", "did you mean 'team'?"),
    ("metric_tags = [«'team']", "'tags' has none: list it there first"),
    ("«tagz = []", "did you mean 'tags'?"),
])  # fmt: skip
def test_mistakes(case, message):
    check_mistake(f"[usage]\n{case}", message)


def test_values():
    assert [is_tag_value(text) for text in ("a", "a b", "Büro", "x" * 64)] == [True] * 4
    assert [is_tag_value(text) for text in ("", " a", "a,b", "a\n", "x" * 65)] == [False] * 5
