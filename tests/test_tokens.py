"""Token counts as vendors write them: a table, by what their documentation shows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.tokens import Usage, of_object
from proxy.usage import Prices, price_nusd, read_events, read_plain

# USD per million tokens: 3, 0.30 for cached ones, 15.
PRICES = Prices(3_000_000, 300_000, 15_000_000)

# Who writes it so (where that is documented), the usage, and what it means.
SHAPES: dict[str, tuple[dict[str, Any], Usage]] = {
    # platform.openai.com/docs/api-reference/chat/object
    "openai": (
        {
            "prompt_tokens": 2006, "completion_tokens": 300, "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 200, "audio_tokens": 0},
        },
        Usage(2006, 1920, 0, 300, 200),
    ),
    # platform.openai.com/docs/api-reference/responses/object
    "openai responses": (
        {
            "input_tokens": 36, "input_tokens_details": {"cached_tokens": 30}, "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 123,
        },
        Usage(36, 30, 0, 87, 7),
    ),
    # api-docs.deepseek.com/guides/kv_cache: hits and misses make the prompt
    "deepseek": (
        {
            "prompt_tokens": 2989, "completion_tokens": 31, "total_tokens": 3020,
            "prompt_cache_hit_tokens": 2944, "prompt_cache_miss_tokens": 45,
        },
        Usage(2989, 2944, 0, 31),
    ),
    # platform.moonshot.ai/docs/api/chat: beside, not in the details
    "moonshot": (
        {"prompt_tokens": 2989, "completion_tokens": 31, "total_tokens": 3020, "cached_tokens": 2989},
        Usage(2989, 2989, 0, 31),
    ),
    # docs.anthropic.com/en/docs/build-with-claude/prompt-caching: input_tokens are those that come after
    "anthropic": (
        {
            "input_tokens": 50, "cache_read_input_tokens": 100_000, "cache_creation_input_tokens": 200,
            "output_tokens": 393,
        },
        Usage(100_250, 100_000, 200, 393),
    ),
    # the same behind chat's names, not within the prompt: the total tells
    "cache beside the prompt": (
        {
            "prompt_tokens": 368, "completion_tokens": 19, "total_tokens": 10_923,
            "cache_read_input_tokens": 10_536,
        },
        Usage(10_904, 10_536, 0, 19),
    ),
    # ... and within it, as docs.litellm.ai/docs/completion/prompt_caching has it, twice
    "cache within the prompt": (
        {
            "prompt_tokens": 10_904, "completion_tokens": 19, "total_tokens": 10_923,
            "cache_read_input_tokens": 10_536, "cache_creation_input_tokens": 100,
            "prompt_tokens_details": {"cached_tokens": 10_536},
        },
        Usage(10_904, 10_536, 100, 19),
    ),
    # more than the prompt can't be within it
    "cache beside the prompt, no total": (
        {"prompt_tokens": 368, "completion_tokens": 19, "cache_read_input_tokens": 10_536},
        Usage(10_904, 10_536, 0, 19),
    ),
    # docs.x.ai/docs/guides/reasoning: reasoning is not within completion_tokens, the total has it
    "xai": (
        {
            "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135,
            "prompt_tokens_details": {"cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage(32, 6, 0, 103, 94),
    ),
    # ai.google.dev/gemini-api/docs/openai: no word of the thoughts but in the total
    "gemini": (
        {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 118},
        Usage(7, 0, 0, 111),
    ),
    # ai.google.dev/api/generate-content#UsageMetadata
    "gemini, its own": (
        {
            "promptTokenCount": 1000, "candidatesTokenCount": 20, "thoughtsTokenCount": 80,
            "cachedContentTokenCount": 900, "totalTokenCount": 1100,
        },
        Usage(1000, 900, 0, 100, 80),
    ),
    # openrouter.ai/docs/use-cases/usage-accounting
    "openrouter": (
        {
            "prompt_tokens": 194, "completion_tokens": 2, "total_tokens": 196, "cost": 0.95,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage(194, 100, 50, 2),
    ),
    # docs.perplexity.ai/api-reference/chat-completions: reasoning at the top, within the answer
    "perplexity": (
        {
            "prompt_tokens": 33, "completion_tokens": 7163, "total_tokens": 7196, "citation_tokens": 20_016,
            "num_search_queries": 30, "reasoning_tokens": 5000,
        },
        Usage(33, 0, 0, 7163, 5000),
    ),
    # docs.mistral.ai/api: numbers alone
    "mistral": (
        {"prompt_tokens": 16, "completion_tokens": 34, "total_tokens": 50},
        Usage(16, 0, 0, 34),
    ),
    # docs.vllm.ai: details may be null
    "vllm": (
        {"prompt_tokens": 5, "total_tokens": 12, "completion_tokens": 7, "prompt_tokens_details": None},
        Usage(5, 0, 0, 7),
    ),
    # docs.ollama.com/api, where somebody passes its own names on
    "ollama": ({"prompt_eval_count": 26, "eval_count": 298}, Usage(26, 0, 0, 298)),
    # docs.voyageai.com/reference/embeddings-api
    "voyage": ({"total_tokens": 10}, Usage(10)),
    # more in total than anything explains, beside a reasoning that is within the answer
    "an odd total": (
        {
            "prompt_tokens": 10, "completion_tokens": 50, "total_tokens": 999,
            "completion_tokens_details": {"reasoning_tokens": 20},
        },
        Usage(10, 0, 0, 50, 20),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_a_usage_by_its_fields(name):
    written, expected = SHAPES[name]
    assert of_object(written, "chat") == expected
    answer = {"id": "x", "choices": [{"message": {"content": "a"}}], "usage": written}
    assert read_plain(json.dumps(answer).encode(), "chat") == expected


@pytest.mark.parametrize("name", SHAPES)
def test_it_is_billed_to_the_nano_dollar(name):
    usage = SHAPES[name][1]
    fresh = usage.input_tokens - usage.cached_tokens
    assert (
        price_nusd(usage, PRICES) == 3000 * fresh + 300 * usage.cached_tokens + 15_000 * usage.output_tokens
    )


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


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, WHOLE),
        ({"prompt_tokens": 0, "completion_tokens": 40}, Usage(1336, 0, 0, 40)),
        ({"prompt_tokens": 1300, "completion_tokens": 0}, Usage(1300, 0, 0, 31)),
        ({"prompt_tokens": 7, "completion_tokens": 2}, Usage(7, 0, 0, 2)),
        ({}, WHOLE),
        (None, WHOLE),
    ],
)
def test_zeros_never_replace_figures(later, expected):
    events = [{"choices": [CHOICE], "usage": COUNTS}, {"choices": [], "usage": later}, {"choices": []}]
    stream = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    assert read_events(stream + b"data: [DONE]\n\n", "chat") == expected


counts = st.one_of(
    st.integers(-5, 3000), st.integers(10**8 - 2, 10**8 + 2), st.floats(allow_nan=False), st.none(),
    st.booleans(), st.text(max_size=2),
)  # fmt: skip
fields = st.sampled_from([
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens",
    "prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "reasoning_tokens",
    "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount",
])  # fmt: skip
details = st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens"]), counts
)
objects = st.tuples(
    st.dictionaries(fields, counts),
    st.dictionaries(
        st.sampled_from([
            "prompt_tokens_details", "input_tokens_details", "completion_tokens_details",
            "output_tokens_details",
        ]),
        st.one_of(details, counts),
    ),
).map(lambda parts: parts[0] | parts[1])  # fmt: skip


@given(objects, st.sampled_from(["chat", "responses", "messages", "embeddings"]), st.randoms())
def test_parts_never_overlap_and_order_is_no_matter(written, endpoint, rng):
    usage = of_object(written, endpoint)
    mixed = list(written.items())
    rng.shuffle(mixed)
    assert of_object(dict(mixed), endpoint) == usage
    if usage is None:
        return
    given, cached, created, output, reasoning, is_estimated, heard, spoken = usage
    assert min(usage) >= 0 and not is_estimated
    assert cached + created + heard <= given <= 3 * 10**8
    assert reasoning + spoken <= output <= 2 * 10**8
