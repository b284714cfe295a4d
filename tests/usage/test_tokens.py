"""Token counts as vendors write them: a table, by what their documentation shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config.settings import ENDPOINTS
from proxy.usage import tokens
from proxy.usage.pricing import PartPrices, Prices, price_nusd
from proxy.usage.response_usage import read_events, read_plain
from proxy.usage.tokens import Usage, merged, of_object
from tests.support.usages import CASES, Case

# USD per million tokens: 3, 0.30 for cached ones, 3.75 for those written to a cache, 15, 10 for sound.
PRICES = Prices(3_000_000, 300_000, 15_000_000, PartPrices(3_750_000, 15_000_000, 10_000_000, 10_000_000))


def wire(answer: Any) -> bytes:
    return json.dumps(answer).encode()


def stream(events: list[Any], end: bytes = b"\n") -> bytes:
    data = [event.encode() if isinstance(event, str) else wire(event) for event in events]
    return b"".join(b"data: %b%b%b" % (one, end, end) for one in data)


def read(case: Case) -> Usage | None:
    if isinstance(case.answer, list):
        return read_events(stream(case.answer), case.endpoint)
    return read_plain(wire(case.answer), case.endpoint)


@pytest.mark.parametrize("name", CASES)
def test_a_vendors_answer_by_its_fields(name):
    assert read(CASES[name]) == CASES[name].usage


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.usage is not None])
def test_it_is_billed_to_the_nano_dollar(name):
    usage = read(CASES[name])
    given, cached, written, output, _, _, heard, said = CASES[name].usage.counts()
    assert price_nusd(usage, PRICES) == (
        3000 * (given - cached - written - heard) + 300 * cached + 3750 * written + 10_000 * heard
        + 15_000 * (output - said) + 10_000 * said
    )  # fmt: skip


def test_each_case_has_a_source():
    assert all(len(case.source) > 10 and case.endpoint in ENDPOINTS for case in CASES.values())


@pytest.mark.parametrize(("written", "expected"), [
    # more in total than anything explains, beside a reasoning that is within the answer
    ({"total_tokens": 999, "reasoning_tokens": 30}, Usage(100, 0, 0, 40, 30)),
    # ... and than what could be within it
    ({"total_tokens": 340, "reasoning_tokens": 90}, Usage(100, 0, 0, 240, 90)),
    ({"total_tokens": 240}, Usage(100, 0, 0, 140)),
    ({"total_tokens": 240, "reasoning_tokens": 100}, Usage(100, 0, 0, 140, 100)),
    # what a cache explains is no reasoning, under whatever name
    ({"total_tokens": 240, "cache_read_input_tokens": 100}, Usage(200, 100, 0, 40)),
    ({"total_tokens": 240, "cached_tokens": 100}, Usage(200, 100, 0, 40)),
    ({"total_tokens": 240, "prompt_tokens_details": {"cached_tokens": 100}}, Usage(200, 100, 0, 40)),
    ({"total_tokens": 240, "cached_tokens": 60}, Usage(100, 60, 0, 140)),
    (
        {"total_tokens": 240, "cache_read_input_tokens": 30, "cache_creation_input_tokens": 70},
        Usage(200, 30, 70, 40),
    ),
    ({"total_tokens": 240, "cache_read_input_tokens": 70, "reasoning_tokens": 30}, Usage(170, 70, 0, 70, 30)),
    ({"total_tokens": 140, "cache_read_input_tokens": 70, "reasoning_tokens": 30}, Usage(100, 70, 0, 40, 30)),
    # more than the prompt can't be within it
    ({"cache_read_input_tokens": 170}, Usage(270, 170, 0, 40)),
    ({"cache_read_input_tokens": 70}, Usage(100, 70, 0, 40)),
    ({"cached_tokens": 170}, Usage(100, 100, 0, 40)),
    # a zero is no figure: another name's is
    ({"input_tokens": 0, "cached_tokens": 0, "prompt_cache_hit_tokens": 9}, Usage(100, 9, 0, 40)),
    ({"prompt_tokens": 0, "input_tokens": 70}, Usage(70, 0, 0, 40)),
    ({"cached_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(100, 9, 0, 40)),
    # seconds of sound explain what the total has more, but none do not
    ({"total_tokens": 240, "prompt_audio_seconds": 8}, Usage(100, 0, 0, 40)),
    ({"total_tokens": 240, "prompt_audio_seconds": None}, Usage(100, 0, 0, 140)),
])  # fmt: skip
def test_what_the_total_explains(written, expected):
    assert of_object({"prompt_tokens": 100, "completion_tokens": 40} | written, "chat") == expected


def test_only_answers_that_write_have_reasoning_inferred():
    usage = {"prompt_tokens": 100, "completion_tokens": 0, "total_tokens": 240}
    assert [of_object(usage, name) for name in ("chat", "embeddings")] == [Usage(100, 0, 0, 140), Usage(100)]


@pytest.mark.parametrize(
    "passes", [[], "x", [1, None, {}], [{"type": "message"}] * 1001, {"type": "message"}]
)
def test_passes_that_are_none_change_nothing(passes):
    usage = {"input_tokens": 5, "output_tokens": 7, "iterations": passes}
    assert of_object(usage, "messages") == Usage(5, 0, 0, 7)


def test_the_last_word_of_a_message_need_not_repeat_the_first():
    start = {"input_tokens": 1000, "cache_read_input_tokens": 500, "output_tokens": 1}
    assert merged(start, {"output_tokens": 20}) == start | {"output_tokens": 20}
    assert merged(start, {"input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 0}) == start
    # the whole prompt at first, and then what a cache did not have of it
    last = {"input_tokens": 0, "cache_read_input_tokens": 1000, "output_tokens": 20}
    assert merged({"input_tokens": 1000}, last) == last
    assert merged({"input_tokens": 1000}, {"cache_read_input_tokens": 9})["input_tokens"] == 1000


COUNTS = {"prompt_tokens": 1336, "completion_tokens": 31, "total_tokens": 1367}
WHOLE = Usage(1336, 0, 0, 31)
CHOICE = {"index": 0, "delta": {}, "finish_reason": "stop"}
PLACES = [
    {"choices": [CHOICE], "usage": COUNTS},
    {"choices": [{**CHOICE, "usage": COUNTS}]},  # Moonshot's streams
    {"choices": [CHOICE], "x_groq": {"id": "req_1", "usage": COUNTS}},  # console.groq.com/docs/api-reference
    {"choices": [CHOICE], "usage": None, "x_groq": {"usage": COUNTS}},
    {"choices": [CHOICE], "usageMetadata": {"promptTokenCount": 1336, "candidatesTokenCount": 31}},
]


@pytest.mark.parametrize("event", PLACES)
def test_wherever_it_stands(event):
    data = json.dumps(event).encode()
    assert read_events(b"data: {}\n\ndata: " + data + b"\n\ndata: [DONE]\n\n", "chat") == WHOLE
    assert read_plain(data, "chat") == WHOLE


@pytest.mark.parametrize(("later", "expected"), [
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, WHOLE),
    ({"prompt_tokens": 0, "completion_tokens": 40}, Usage(1336, 0, 0, 40)),
    ({"prompt_tokens": 1300, "completion_tokens": 0}, Usage(1300, 0, 0, 31)),
    ({"prompt_tokens": 7, "completion_tokens": 2}, Usage(7, 0, 0, 2)), ({}, WHOLE), (None, WHOLE),
])  # fmt: skip
def test_zeros_never_replace_figures(later, expected):
    events = [{"choices": [CHOICE], "usage": COUNTS}, {"choices": [], "usage": later}, {"choices": []}]
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    assert read_events(stream + b"data: [DONE]\n\n", "chat") == expected


counts = st.one_of(
    st.integers(-5, 3000), st.integers(10**8 - 2, 10**8 + 2), st.floats(), st.none(), st.booleans(),
    st.text(max_size=2), st.just(2**70), st.just([1]),
)  # fmt: skip
NAMES = sorted({
    name for names in (
        tokens._GIVEN, tokens._WRITTEN, tokens._TOTAL, tokens._CACHED, tokens._READ, tokens._CREATED,
        tokens._REASONING, ("citation_tokens", "toolUsePromptTokenCount", "prompt_audio_seconds"),
    ) for name in names
})  # fmt: skip
PARTS = sorted(
    {*tokens._READ_WITHIN, *tokens._CREATED_WITHIN, *tokens._REASONING, *tokens._KEPT, "audio_tokens"}
)
fields = st.dictionaries(st.sampled_from(NAMES), counts, max_size=9)
details = st.dictionaries(st.sampled_from(PARTS), counts, max_size=4) | counts
sounds = st.lists(
    st.fixed_dictionaries({"modality": st.just("AUDIO") | counts, "tokenCount": counts}) | counts, max_size=2
)
inner = st.fixed_dictionaries({}, optional={
    **dict.fromkeys((*tokens._DETAILS_IN, *tokens._DETAILS_OUT, "cache_creation"), details),
    **dict.fromkeys(("promptTokensDetails", "candidatesTokensDetails"), sounds | counts),
    **dict.fromkeys(("billed_units", "tokens"), fields | counts),
    "iterations": st.lists(
        counts | st.builds(lambda kind, one: one | {"type": kind}, st.sampled_from(["message", 1]), fields),
        max_size=3,
    ) | counts,
})  # fmt: skip
objects = st.builds(lambda one, two: one | two, fields, inner)


@given(objects, st.sampled_from(["chat", "responses", "messages", "embeddings"]), st.randoms())
def test_parts_never_overlap_and_order_is_no_matter(written, endpoint, rng):
    """Whatever a provider writes in place of counts: nothing raises, and no figure is negative or absurd."""
    usage = of_object(written, endpoint)
    mixed = list(written.items())
    rng.shuffle(mixed)
    assert of_object(dict(mixed), endpoint) == usage
    if usage is None:
        return
    assert all(type(count) is int for count in (*usage.counts()[:5], *usage.counts()[6:]))
    read, created, output, reasoning, is_estimated, heard, spoken = usage.counts()[1:]
    assert min(usage.counts()) >= 0 and not is_estimated
    assert read + created + heard <= usage.input_tokens <= 6 * 10**8
    assert reasoning + spoken <= output <= 3 * 10**8
    assert price_nusd(usage, PRICES) >= 0


@given(
    st.sampled_from([c for c in CASES.values() if c.usage]),
    st.sampled_from([-1, 1.5, "9", True, 10**12, None, [], {}]),
)
def test_a_figure_that_is_none_is_never_billed(case, odd):
    """In place of each of a vendor's figures in turn."""

    def spoilt(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: spoilt(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoilt(one) for one in value]
        return odd if type(value) in (int, float) else value

    usage = read(case._replace(answer=spoilt(case.answer)))
    assert usage is None or usage == Usage()
