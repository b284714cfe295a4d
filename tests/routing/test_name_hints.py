"""Which known name an unknown one was meant to be, and what finding it may cost."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.routing import name_hints
from proxy.routing.name_hints import MAX_CHARS, NearNames, TokenBucket

SHORT = [
    "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "Llama-3.1-8B-Instruct", "o1", "text-embedding-3-small",
]  # fmt: skip
LONGER = {
    "gpt-4o": ["openai/gpt-4o", "azure/gpt-4o"],
    "claude-sonnet-4-5": ["anthropic/claude-sonnet-4-5"],
    "Llama-3.1-8B-Instruct": ["groq/Llama-3.1-8B-Instruct"],
}
NAMES = NearNames([*SHORT, "premium", "economy", "best", "mine"], LONGER)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gtp-4o", "gpt-4o"),
        ("gpt4o", "gpt-4o"),
        ("gpt-4o-mni", "gpt-4o-mini"),
        ("GPT-4O", "gpt-4o"),
        ("OpenAI/GPT-4o", "openai/gpt-4o"),
        ("opnai/gpt-4o", "openai/gpt-4o"),
        ("azure/gpt-4", "azure/gpt-4o"),
        ("claude-sonet-4-5", "claude-sonnet-4-5"),
        ("antropic/claude-sonnet-45", "anthropic/claude-sonnet-4-5"),
        ("llama-3.1-8b-instruct", "Llama-3.1-8B-Instruct"),
        ("llama-3.1-8b", "Llama-3.1-8B-Instruct"),
        ("Premum", "premium"),
        ("O1", "o1"),
        ("bset", "best"),
        ("mien", "mine"),
        ("", None),
        ("x", None),
        ("whisper", None),
        ("gpt-4o" * 17, None),  # longer than any typing slip
    ],
)
def test_the_nearest_name(name, expected):
    assert NAMES.nearest(name) == expected


def test_what_differs_by_case_alone_is_the_first_of_its_kind():
    names = NearNames(["a-model", "A-Model"], {"a-model": ["P/a-model"]})
    assert names.nearest("A-MODEL") == "a-model"
    assert names.nearest("p/A-model") == "P/a-model"
    assert NearNames([], {}).nearest("gpt-4o") is None


def slips(name: str) -> list[str]:
    """Each way to leave out a character, to type it twice, and to swap two."""
    found = []
    for at in range(len(name)):
        found += [name[:at] + name[at + 1 :], name[:at] + name[at] + name[at:]]
        found.append(name[:at] + name[at : at + 2][::-1] + name[at + 2 :])
    return [slip for slip in found if slip != name]


FAMILIES = ("gpt", "llama-instruct", "qwen2.5-coder")
MANY = [f"{family}-{number}" for number in range(700) for family in FAMILIES]
CROWD = NearNames(MANY, {name: [f"{p}/{name}" for p in ("a", "b", "c")] for name in MANY})


@pytest.mark.parametrize("name", ["llama-instruct-77", "b/qwen2.5-coder-512", "gpt-699"])
def test_among_thousands_a_slip_finds_a_name_as_near_as_any(name):
    """Held against difflib over all names, which is what takes too long."""
    everything = [*MANY, *(f"{p}/{known}" for p in ("a", "b", "c") for known in MANY)]
    for slip in slips(name)[::7]:
        found = CROWD.nearest(slip)
        best = difflib.get_close_matches(slip, everything, 1)
        assert found is not None, slip
        ratios = [difflib.SequenceMatcher(None, known, slip).ratio() for known in (found, best[0])]
        assert ratios[0] >= ratios[1] - 0.1, (slip, found, best)


@given(st.text(max_size=MAX_CHARS + 5) | st.sampled_from(MANY).map(lambda name: name * 5))
def test_whatever_is_asked_few_names_are_compared(name):
    assert len(CROWD.candidates(name.lower())) <= 20
    found = CROWD.nearest(name)
    assert found is None or found.rpartition("/")[2] in MANY


def test_how_many_names_are_counted_and_compared(monkeypatch):
    """The work for one name, in the things that are done, whatever the machine's pace."""
    counted, compared = [], []

    class Counting(name_hints.Counter):  # type: ignore[type-arg]
        def update(self, indices=()):
            counted.append(len(indices or ()))
            super().update(indices)

    def matches(word, names, n, cutoff):
        compared.append(len(names))
        return difflib.get_close_matches(word, names, n, cutoff)

    monkeypatch.setattr(name_hints, "Counter", Counting)
    monkeypatch.setattr(name_hints, "difflib", type("", (), {"get_close_matches": staticmethod(matches)}))
    for name in ("llama-instruct-" * 6, "gpt-", "a/qwen2.5-coder-1234567890", "x" * 100):
        counted.clear()
        CROWD.nearest(name)
        assert sum(counted) <= 2000, name
    assert len(compared) == 4 and max(compared) <= 20


def test_a_bucket_lets_some_through_at_once_and_others_at_its_pace():
    bucket = TokenBucket(5.0, 10)
    assert [bucket.take(100.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not bucket.take(100.125)
    assert bucket.take(100.25)
    assert not bucket.take(100.25)
    assert [bucket.take(1000.0) for _ in range(11)] == [True] * 10 + [False]
    bucket = TokenBucket(1.0, 1)  # a clock that goes back gives nothing
    assert [bucket.take(now) for now in (10.0, 5.0, 5.5)] == [True, False, False]


@given(st.lists(st.floats(0, 20), max_size=100))
def test_a_bucket_never_lets_more_through_than_its_pace(waits):
    bucket, now, taken = TokenBucket(2.0, 3), 50.0, 0
    for wait_s in waits:
        now += wait_s
        taken += bucket.take(now)
        assert taken <= 3 + 2.0 * (now - 50.0) + 1e-6
