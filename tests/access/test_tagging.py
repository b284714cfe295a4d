"""The tags of a request: those of its key, those that are listed, and what its client says."""

from __future__ import annotations

import json

import pytest

from proxy.access import tagging as tagging_module
from proxy.access.grants import Grant
from proxy.access.tagging import Tagging, tagging_of
from proxy.config.settings import UsageConfig
from proxy.control.steps import done
from proxy.errors import BadRequest
from proxy.usage.counters import Counters
from tests.support.keys import grant_of

CONFIG = UsageConfig(tags=(("team", ("a", "b")), ("app", ())), tag_values=3, metric_tags=("app",))
HEADER = b"x-inferoute-tags"


def told(*lines: bytes, counters: Counters | None = None, **settings: object) -> dict | None:
    grant = grant_of(**settings) if settings else None
    tagging = Tagging(CONFIG, counters or Counters())
    given = [(b"x-inferoute-strategy", b"cost"), *((HEADER, line) for line in lines)]
    found = tagging.tagged(given, grant, 0.0)
    return None if found is None else json.loads(b'{"key":%b}' % found.members)


@pytest.mark.parametrize(("lines", "own", "found"), [
    ([], {}, None), ([b"other=x"], {}, None), ([], {"tags": ()}, None),
    ([b"team=a, app=x"], {}, {"key": None, "tags": {"team": "a"}, "client_tags": {"app": "x"}}),
    ([b"team=z"], {}, {"key": None, "client_tags": {"team": "z"}}),
    ([b"team=b", b"app=x"], {"tags": (("app", "own"),)},
     {"key": "key_1", "tags": {"team": "b", "app": "own"}}),
    ([], {"tags": (("app", "own"), ("gone", "x"))}, {"key": "key_1", "tags": {"app": "own"}}),
])  # fmt: skip
def test_the_members_of_a_line(lines, own, found):
    assert told(*lines, **own) == found


def test_what_cant_be_read_is_refused():
    for lines in ([b"team"], [b"team=a", b"team=b"]):
        with pytest.raises(BadRequest, match="X-Inferoute-Tags can't be read") as caught:
            told(*lines)
        assert (caught.value.status, caught.value.code) == (400, "invalid_tags")
        assert caught.value.param == "X-Inferoute-Tags"


def test_metrics_have_listed_names_and_bounded_values():
    counters = Counters()
    tagging = Tagging(CONFIG, counters)
    for number in range(5):
        found = tagging.tagged([(HEADER, b"team=a,app=%d" % number)], None, 0.0)
        assert found is not None
        [counter] = found.counters
        counter.requests += 1
    sums = done(counters.read())
    assert {labels[1:]: numbers[0] for labels, numbers in sums.items() if labels[0] == "tagged"} == {
        ("app", "0"): 1, ("app", "1"): 1, ("app", "2"): 1, ("app", "other"): 2,
    }  # fmt: skip


@pytest.mark.interpreted
def test_tags_are_remembered_for_a_grant_and_a_day(monkeypatch):
    tagging, grant = Tagging(CONFIG, Counters()), grant_of()

    def found(text: bytes, unix_s: float = 0.0, of: Grant | None = grant) -> object:
        return tagging.tagged([(HEADER, text)], of, unix_s)

    first = found(b"app=x")
    assert found(b"app=x") is first
    assert found(b"x=y") is found(b"x=y") is None
    for other in (
        found(b"app=x", 86_400.0),
        found(b"app=x", 86_400.0, grant_of()),
        found(b"app=x", 86_400.0, None),
    ):
        assert other is not first
    long = b"app=" + b" " * 600 + b"x"
    assert found(long) is not found(long)
    monkeypatch.setattr(tagging_module, "_MOST_KNOWN", 2)
    before = found(b"app=x", 86_400.0)
    found(b"app=y", 86_400.0)
    assert found(b"app=x", 86_400.0) is not before


def test_without_tags_nothing_looks_for_any():
    assert tagging_of(UsageConfig(), Counters()) is None
    assert tagging_of(CONFIG, Counters()) is not None
