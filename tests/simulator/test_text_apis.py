"""The simulated APIs that answer with text: shapes, streams, and no body that breaks them."""

import contextlib
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import BadRequest
from proxy.simulator import text_apis
from proxy.simulator.turns import Conditions

HELLO = [{"role": "user", "content": "hello"}]
NAMES = st.sampled_from(["type", "function", "name", "text", "content"])
WORDS = st.sampled_from(["required", "function"])
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
KEYS = [
    "messages", "input", "prompt", "max_tokens", "max_output_tokens", "stream", "stream_options", "tools",
    "tool_choice", "instructions", "system",
]  # fmt: skip
HANDLERS = [
    text_apis.chat, text_apis.completions, text_apis.responses, text_apis.messages, text_apis.count_tokens,
    text_apis.compact, text_apis.input_tokens,
]  # fmt: skip


def answer(handler, body, seed=1):
    return handler({"model": "gpt-4o"} | body, Conditions(random.Random(seed), 1_700_000_000))


def said(handler, body, seed=1):
    """A whole answer, parsed."""
    return orjson.loads(answer(handler, body, seed).body)


def events(reply):
    """All data of a stream, parsed where it is JSON."""
    raw = [*reply.opening, *reply.deltas, *reply.closing]
    data = [item.rstrip(b"\n").rpartition(b"data: ")[2] for item in raw]
    return [item if item == b"[DONE]" else orjson.loads(item) for item in data]


def test_usage_comes_only_when_asked_for_and_is_null_before():
    chunks = events(answer(text_apis.chat, {"messages": HELLO, "stream": True}))
    assert not any("usage" in chunk for chunk in chunks[:-1])
    asked = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last, done = events(answer(text_apis.chat, asked))
    assert done == b"[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["usage"] == said(text_apis.chat, {"messages": HELLO})["usage"]


@pytest.mark.parametrize("handler", [text_apis.chat, text_apis.responses, text_apis.messages])
def test_the_count_of_a_stream_is_the_number_of_its_deltas(handler):
    body = {"messages": HELLO, "input": "hello", "max_tokens": 1000, "stream": True}
    reply = answer(handler, body)
    assert reply.count == len(list(reply.deltas))
    assert 0 < reply.gap_s < reply.delay_s


def test_a_plain_answer_takes_as_long_as_its_stream():
    plain = answer(text_apis.chat, {"messages": HELLO})
    stream = answer(text_apis.chat, {"messages": HELLO, "stream": True})
    assert plain.delay_s == pytest.approx(stream.delay_s + stream.count * stream.gap_s)


def test_forced_tools():
    schema = {
        "properties": {
            "n": {"type": "integer"}, "x": {"type": "number"}, "b": {"type": "boolean"},
            "l": {"type": "array"}, "o": {"type": "object"}, "e": {"enum": ["first", "second"]},
            "s": {"type": "string"}, "odd": True, "several": {"type": ["string", "null"]},
        }
    }  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    body = {"messages": HELLO, "tools": tools, "tool_choice": "required"}
    choice = said(text_apis.chat, body)["choices"][0]
    assert choice["message"]["content"] is None
    arguments = orjson.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])
    assert arguments == {
        "n": 1, "x": 1.5, "b": True, "l": [], "o": {}, "e": "first", "s": "simulated", "odd": "simulated",
        "several": "simulated",
    }  # fmt: skip
    unforced = said(text_apis.chat, body | {"tool_choice": "auto"})
    assert unforced["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "g"}}, {}])
def test_a_tool_that_is_not_there(choice):
    with pytest.raises(BadRequest) as caught:
        answer(text_apis.chat, {"messages": HELLO, "tool_choice": choice, "tools": [{"type": "web_search"}]})
    assert caught.value.param == "tool_choice"


def test_messages_need_max_tokens_and_report_cached_tokens_apart():
    with pytest.raises(BadRequest) as caught:
        answer(text_apis.messages, {"messages": HELLO})
    assert caught.value.param == "max_tokens"
    body = {"messages": [{"content": "x" * 40_000}], "max_tokens": 5, "system": "s" * 400, "tools": [{}]}
    usages = [said(text_apis.messages, body, seed)["usage"] for seed in range(20)]
    assert {u["input_tokens"] + u["cache_read_input_tokens"] for u in usages} == {10_108}
    assert any(u["cache_read_input_tokens"] for u in usages)


def test_messages_speak_anthropic():
    body = {"messages": HELLO, "max_tokens": 3}
    plain = said(text_apis.messages, body)
    assert plain["content"] == [{"type": "text", "text": "This is a"}]
    assert plain["stop_reason"] == "max_tokens"
    stream = events(answer(text_apis.messages, body | {"stream": True}))
    assert [item["type"] for item in stream] == [
        "message_start", "content_block_start", "ping", *["content_block_delta"] * 3, "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert stream[-2]["usage"] == plain["usage"]
    counted = said(text_apis.count_tokens, {"messages": HELLO})
    assert counted == {"input_tokens": plain["usage"]["input_tokens"]}


def test_responses_are_compacted_and_counted():
    body = {"input": HELLO, "instructions": "Be short."}
    plain = said(text_apis.responses, body)
    compacted = said(text_apis.compact, body)
    assert (compacted["object"], compacted["usage"]) == ("response.compaction", plain["usage"])
    counted = said(text_apis.input_tokens, body)
    assert counted == {"object": "response.input_tokens", "input_tokens": plain["usage"]["input_tokens"]}


def test_completions_default_to_16_tokens():
    assert said(text_apis.completions, {"prompt": ["a", "b"]})["usage"]["completion_tokens"] == 16
    assert said(text_apis.completions, {"prompt": [[1, 2], [3]]})["usage"]["prompt_tokens"] == 3


@settings(max_examples=300)
@given(st.sampled_from(HANDLERS), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_any_body_is_answered_or_refused(handler, body):
    with contextlib.suppress(BadRequest):
        reply = answer(handler, body)
        assert orjson.loads(reply.body) if reply.deltas is None else events(reply)
