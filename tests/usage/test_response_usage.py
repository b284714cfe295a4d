"""Reading usage from tails: all shapes, any cut, nothing a model writes can pass; exact prices."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.response_usage import partial_usage, read_events, read_plain
from proxy.usage.tokens import Usage

CHAT = {
    "prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 15},
}  # fmt: skip
CHAT_USAGE = Usage(100, 60, 0, 40, 15)
RESPONSES = {
    "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60}, "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 15}, "total_tokens": 140,
}  # fmt: skip
ANTHROPIC = {
    "input_tokens": 10, "cache_creation_input_tokens": 30, "cache_read_input_tokens": 60, "output_tokens": 40,
}  # fmt: skip
ANTHROPIC_USAGE = Usage(100, 60, 30, 40, 0)
FAKE = '", "usage": {"prompt_tokens": 9, "completion_tokens": 9}}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8) | st.sampled_from(["usage", FAKE]),
    lambda inner: (st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["usage", "id", "", "a\\"]) | st.text(max_size=4), inner, max_size=4,
    )),
    max_leaves=12,
)  # fmt: skip
counts = st.integers(-2, 2000) | st.booleans() | st.none() | st.floats(0, 9) | st.just(10**12)
details_in = st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "text_tokens"]), counts
)
details_out = st.dictionaries(st.sampled_from(["reasoning_tokens", "audio_tokens"]), counts)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts, "completion_tokens": counts, "total_tokens": counts, "input_tokens": counts,
        "output_tokens": counts, "cache_read_input_tokens": counts, "cache_creation_input_tokens": counts,
        **dict.fromkeys(("prompt_tokens_details", "input_tokens_details"), st.none() | details_in),
        **dict.fromkeys(("completion_tokens_details", "output_tokens_details"), st.none() | details_out),
    },
)  # fmt: skip
bodies = st.dictionaries(
    st.sampled_from(["id", "choices", "data", "", "x"]), json_values, max_size=4
).flatmap(lambda body: usages.map(lambda usage: {**body, "usage": usage}) | st.just(body))


def plain(usage: Any, **rest: Any) -> bytes:
    return orjson.dumps({"id": "x", "choices": [{"message": {"content": "hi"}}], "usage": usage, **rest})


@pytest.mark.parametrize(("endpoint", "usage", "expected"), [
    ("chat", CHAT, CHAT_USAGE),
    ("responses", RESPONSES, CHAT_USAGE),
    ("messages", ANTHROPIC, ANTHROPIC_USAGE),
    ("embeddings", {"prompt_tokens": 8, "total_tokens": 8}, Usage(8)),
    ("rerank", {"total_tokens": 8}, Usage(8)),
    ("images", {"input_tokens": 5, "output_tokens": 6, "total_tokens": 11}, Usage(5, 0, 0, 6)),
    # Reasoning that only the total tells of.
    ("chat", {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}, Usage(10, 0, 0, 105)),
    # More cached than there was, null details, and everything that is no count.
    ("chat", {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}, Usage(5, 5)),
    ("chat", {"prompt_tokens": 5, "prompt_tokens_details": None, "completion_tokens": True}, Usage(5)),
    ("chat", {"prompt_tokens": 5, "prompt_tokens_details": [9]}, Usage(5)),
    ("chat", {"prompt_tokens": 5, "completion_tokens": -3}, Usage(5)),
    ("chat", {"prompt_tokens": 5, "completion_tokens": 10**10}, Usage(5)),
    ("chat", {"prompt_tokens": 5.0, "completion_tokens": "7"}, Usage(5)),  # a whole number all the same
    ("chat", {"prompt_tokens": "5", "completion_tokens": 7.0}, Usage(output_tokens=7)),
    ("chat", {"prompt_tokens": 5.5, "completion_tokens": None}, None),
    # What one of them doesn't say, the total does, and is of that.
    ("chat", {"prompt_tokens": None, "completion_tokens": 5, "total_tokens": 1005}, Usage(1000, 0, 0, 5)),
    ("chat", {"completion_tokens": 5, "total_tokens": 1005}, Usage(1000, 0, 0, 5)),
    ("chat", {"prompt_tokens": 1000, "total_tokens": 1005}, Usage(1000, 0, 0, 5)),
    ("chat", {"prompt_tokens": -4, "completion_tokens": 50, "total_tokens": 5}, Usage(0, 0, 0, 50)),
    ("chat", {"prompt_tokens": 1000.0, "completion_tokens": 5.0, "total_tokens": 1005}, Usage(1000, 0, 0, 5)),
    ("chat", {"prompt_tokens": False, "completion_tokens": 7}, Usage(output_tokens=7)),
    ("chat", {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 10**10}, Usage(5, 0, 0, 7)),
    ("chat", {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": "99"}, Usage(5, 0, 0, 7)),
    ("messages", {"input_tokens": 5.0, "output_tokens": "7"}, Usage(5)),
    ("messages", {"input_tokens": 5, "output_tokens": True, "cache_read_input_tokens": -1}, Usage(5)),
    ("responses", {"input_tokens": 2**63, "output_tokens": 7}, Usage(output_tokens=7)),
    ("completions", {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, Usage(5, 0, 0, 7)),
    ("chat", {}, None),
    ("chat", None, None),
    ("chat", [1], None),
])  # fmt: skip
def test_shapes(endpoint: str, usage: Any, expected: Usage | None) -> None:
    assert read_plain(plain(usage), endpoint) == expected
    assert read_plain(plain(usage, service_tier="default", after={"usage": 3}), endpoint) == expected


SPEECH = {"cached_tokens": 30, "audio_tokens": 50, "text_tokens": 50}
SPOKEN = {"reasoning_tokens": 10, "audio_tokens": 25, "text_tokens": 5}


@pytest.mark.parametrize("names", [("prompt", "completion"), ("input", "output")])
@pytest.mark.parametrize(("given", "output", "expected"), [
    (SPEECH, SPOKEN, Usage(100, 30, 0, 40, 10, False, 50, 25)),
    # Cache writes: OpenAI's API from GPT-5.6 on, and OpenRouter.
    ({**SPEECH, "cache_write_tokens": 20}, {}, Usage(100, 30, 20, 40, 0, False, 50)),
    ({"cache_write_tokens": 20}, None, Usage(100, 0, 20, 40)),
    # Parts never are more than the whole: cached audio is cached, the rest gives way in order.
    (
        {**SPEECH, "cached_tokens": 80},
        SPOKEN | {"reasoning_tokens": 30},
        Usage(100, 80, 0, 40, 30, False, 20, 10),
    ),
    ({"cached_tokens": 60, "cache_write_tokens": 60, "audio_tokens": 60}, None, Usage(100, 60, 40, 40)),
    ({"audio_tokens": 500}, {"audio_tokens": 500}, Usage(100, 0, 0, 40, 0, False, 100, 40)),
    ({"cached_tokens": 500}, {"reasoning_tokens": 500}, Usage(100, 100, 0, 40, 40)),
    # And are counts or nothing.
    (
        {"cached_tokens": "9", "audio_tokens": -5},
        {"reasoning_tokens": 1.5, "audio_tokens": True},
        Usage(100, 0, 0, 40),
    ),
    ({"cached_tokens": True, "audio_tokens": 10**12}, {"reasoning_tokens": -1}, Usage(100, 0, 0, 40)),
    ([1], "x", Usage(100, 0, 0, 40)),
])  # fmt: skip
def test_parts(names: tuple[str, str], given: Any, output: Any, expected: Usage) -> None:
    usage = {f"{names[0]}_tokens": 100, f"{names[0]}_tokens_details": given, "total_tokens": 140}
    usage |= {f"{names[1]}_tokens": 40, f"{names[1]}_tokens_details": output}
    assert read_plain(plain(usage), "chat") == expected
    assert read_events(stream({"choices": [], "usage": usage}, b"[DONE]"), "chat") == expected


@given(bodies, st.sampled_from(["chat", "responses", "messages", "embeddings"]))
def test_parts_are_no_more_than_the_whole(body: dict[str, Any], endpoint: str) -> None:
    usage = read_plain(orjson.dumps(body), endpoint)
    if usage is not None:
        assert min(usage.counts()) >= 0
        assert usage.cached_tokens + usage.cache_write_tokens + usage.audio_input_tokens <= usage.input_tokens
        assert usage.reasoning_tokens + usage.audio_output_tokens <= usage.output_tokens


def test_cache_writes_are_counted_once_however_long_they_are_kept() -> None:
    kept = {"cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}}
    assert read_plain(plain({**ANTHROPIC, **kept}), "messages") == ANTHROPIC_USAGE
    start = started(**{**ANTHROPIC, **kept, "output_tokens": 1})
    assert read_events(stream(start, ended(output_tokens=40)), "messages") == ANTHROPIC_USAGE


@pytest.mark.parametrize(
    "number", [b"1e999", b"1" + b"0" * 400, b"-0", b"-0.0", b"5E-1", b"NaN", b"0x5", b"05"]
)
def test_numbers_that_python_and_json_see_differently_do_no_harm(number: bytes) -> None:
    for endpoint in ("chat", "messages"):
        name = b"prompt_tokens" if endpoint == "chat" else b"input_tokens"
        usage = b'{"usage": {"%b": %b}}' % (name, number)
        assert read_plain(usage, endpoint) in (None, Usage())
        assert read_events(b"data: " + usage + b"\n\n", endpoint) in (None, Usage())


def test_a_tail_is_enough_once_the_key_is_in_it() -> None:
    body = plain(CHAT, system_fingerprint="fp")
    start = body.index(b'"usage"')
    for cut in range(len(body)):
        assert read_plain(body[cut:], "chat") == (CHAT_USAGE if cut <= start else None)


@pytest.mark.parametrize("body", [
    {"usage": {"prompt_tokens": 1}, "choices": [{"usage": {"prompt_tokens": 9}}]},
    {"usage": {"prompt_tokens": 1}, "choices": [{"message": {"content": FAKE}}]},
    {"usage": {"prompt_tokens": 1}, "choices": ["usage", "\\", '\\"usage":{"prompt_tokens":9}}']},
    {"usage": {"prompt_tokens": 1}, "x": {"usage": {"usage": {"prompt_tokens": 9}}}},
    {"usage": {"prompt_tokens": 1}, "choices": [{"message": {"metadata": {"usage": {"prompt_tokens": 9}}}}]},
    {"usage": {"prompt_tokens": 1},
     "choices": [{"message": {"tool_calls": [{"function": {"arguments": FAKE}}]}}]},
])  # fmt: skip
def test_what_a_model_writes_is_no_usage(body: dict[str, Any]) -> None:
    whole = orjson.dumps(body)
    assert read_plain(whole, "chat") == Usage(1)
    for cut in range(1, len(whole)):
        assert read_plain(whole[cut:], "chat") in (None, Usage(1))


@pytest.mark.parametrize("nested", [{"usage": CHAT}, {"response": {"usage": CHAT}}, [{"usage": CHAT}]])
def test_a_usage_further_down_is_none(nested: Any) -> None:
    body = orjson.dumps({"id": "x", "choices": [{"message": {"content": FAKE, "metadata": nested}}]})
    for endpoint in ("chat", "responses", "messages"):
        for cut in range(len(body)):
            assert read_plain(body[cut:], endpoint) is None


def test_spelled_with_escapes_or_hidden_behind_many_it_is_found_in_a_whole_body() -> None:
    assert read_plain(b'{"us\\u0061ge": {"prompt_tokens": 3}}', "chat") == Usage(3)
    many = orjson.dumps({"usage": {"prompt_tokens": 3}, "x": [{"usage": 1}] * 50})
    assert read_plain(many, "chat") == Usage(3)


@given(bodies, st.integers(0, 400))
def test_plain_equals_the_parser_when_all_is_there_and_never_lies(body: dict[str, Any], cut: int) -> None:
    whole = orjson.dumps(body)
    expected = read_plain(orjson.dumps({"usage": body.get("usage")}), "chat")
    assert read_plain(whole, "chat") == expected
    assert read_plain(whole + b"\r\n", "chat") == expected
    assert read_plain(whole[cut:], "chat") in (None, expected)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":\\usage1, \r\ndt', max_size=200).map(str.encode))
def test_no_bytes_raise(tail: bytes) -> None:
    for endpoint in ("chat", "responses", "messages"):
        read_plain(tail, endpoint)
        read_plain(b'{"usage"' + tail, endpoint)
        read_events(tail, endpoint)
        read_events(b'data: {"usage"' + tail, endpoint, tail)


def stream(*events: Any, end: bytes = b"\n") -> bytes:
    out = b""
    for event in events:
        if isinstance(event, dict) and "type" in event:
            out += b"event: " + event["type"].encode() + end
        out += b"data: " + (event if isinstance(event, bytes) else orjson.dumps(event)) + end + end
    return out


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}], "usage": None}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("choices", [[], [{"delta": {}, "finish_reason": "stop"}]])
def test_chat_streams(end: bytes, choices: list[Any]) -> None:
    events = stream(delta("a"), delta(FAKE), {"choices": choices, "usage": CHAT}, b"[DONE]", end=end)
    assert read_events(events, "chat") == CHAT_USAGE
    start = events.index(b'"usage":{')
    for cut in range(len(events)):
        found = read_events(events[cut:], "chat")
        assert found == (CHAT_USAGE if cut <= start else None)


def test_a_chat_stream_names_its_usage_only_at_the_top() -> None:
    """What a message_start or a Responses event is, no chat chunk is."""
    nested = [
        {"choices": [{"delta": {"content": FAKE, "usage": CHAT}}]},
        {"choices": [{"delta": {}}, {"delta": {}, "usage": CHAT}]},
        {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": FAKE}}]}}]},
        {"choices": [], "metadata": {"usage": CHAT}}, {"response": {"usage": CHAT}},
        {"type": "message_start", "message": {"usage": CHAT}},
    ]  # fmt: skip
    last = {"choices": [], "usage": {"prompt_tokens": 1}}
    for one in nested:
        assert read_events(stream(one, b"[DONE]"), "chat") is None
        for events in (stream(last, one, b"[DONE]"), stream(one, last, b"[DONE]")):
            assert read_events(events, "chat") == Usage(1)
            for cut in range(len(events)):
                assert read_events(events[cut:], "chat") in (None, Usage(1))


@pytest.mark.parametrize("choices", [[], [{"delta": {"content": "x"}}]])
@pytest.mark.parametrize("after", [[], [delta("")], [delta(""), delta("z")], [{"choices": []}, {"usage": 5}]])
def test_usage_in_every_chunk_or_with_chunks_behind_it(choices: list[Any], after: list[Any]) -> None:
    running = [
        {"choices": choices, "usage": {"prompt_tokens": 9, "completion_tokens": n}} for n in range(1, 6)
    ]
    assert read_events(stream(*running, *after, b"[DONE]"), "chat") == Usage(9, 0, 0, 5)
    # The last, not the most.
    assert read_events(stream(*running, running[0], *after), "chat") == Usage(9, 0, 0, 1)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("endpoint", ["chat", "completions"])
def test_comments_and_other_fields_around_the_data(end: bytes, endpoint: str) -> None:
    usage = b'data:{"choices":[],"usage":{"prompt_tokens":4}}'
    lines = [
        b": ping", b"", b": x", b"id: 1", usage, b"id: 2", b"retry: 5", b"", b": \"usage\":", b"", b"",
        b"data: [DONE]", b"",
    ]  # fmt: skip
    events = end.join(lines)
    assert read_events(events, endpoint) == Usage(4)
    start = events.index(b'"usage":{')
    for cut in range(start + 1):
        assert read_events(events[cut:], endpoint) == Usage(4)


@pytest.mark.parametrize("lost", range(3))
def test_the_last_event_without_its_blank_line(lost: int) -> None:
    events = stream(delta("a"), {"choices": [], "usage": CHAT})
    assert read_events(events[: len(events) - lost], "chat") == CHAT_USAGE
    response = {"type": "response.completed", "response": {"usage": RESPONSES}}
    events = stream(response)
    assert read_events(events[: len(events) - lost], "responses") == CHAT_USAGE


def test_an_event_over_several_data_lines_and_one_without_its_end() -> None:
    events = b': hi\n\ndata: {"id": 1,\ndata: "usage":\ndata: {"prompt_tokens": 4}}'
    assert read_events(events, "chat") == Usage(4)
    for cut in range(len(events)):
        assert read_events(events[cut:], "chat") in (None, Usage(4))


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_responses_streams_even_where_the_last_event_is_longer_than_the_tail(kind: str) -> None:
    response = {"id": "r", "output": [{"text": FAKE * 20}], "usage": RESPONSES, "user": None, "metadata": {}}
    events = stream(
        {"type": "response.output_text.delta", "delta": "x"},
        {"type": kind, "response": response, "sequence_number": 9},
    )
    start = events.index(b'"usage":')
    for cut in range(len(events)):
        assert read_events(events[cut:], "responses") == (CHAT_USAGE if cut <= start else None)


def started(**usage: int | None) -> dict[str, Any]:
    return {"type": "message_start", "message": {"id": "m", "usage": usage}}


def ended(**usage: int | None) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}


# A token may end within a surrogate pair; orjson refuses such a string.
HALF = b'{"choices":[{"delta":{"content":"\\ud83d"}}],"usage":{"prompt_tokens":4}}'
HALF_RESPONSE = b'{"type":"response.completed","response":{"a":"\\ud83d","usage":{"input_tokens":4}}}'
CREATED = {"type": "response.created", "response": {"id": "r", "usage": None, "output": [FAKE]}}
ZEROS = started(input_tokens=0, output_tokens=0)
LAST = ended(input_tokens=50, output_tokens=7)
NESTED = {"input": {"usage": ANTHROPIC}, "message": ZEROS}
BILLED = {"billed_units": {"input_tokens": 9, "output_tokens": 5}}  # Cohere's, in its last event alone
BEGUN = started(**{**ANTHROPIC, "output_tokens": 1})
TEXT = {"type": "content_block_delta", "delta": {"text": FAKE}}
TWO = {"prompt_tokens": 1, "completion_tokens": 2}


@pytest.mark.parametrize(("endpoint", "events", "usage"), [
    ("chat", [], None), ("chat", [delta("usage"), b"[DONE]"], None), ("chat", [[{"usage": CHAT}]], None),
    ("chat", [{"usage": {"prompt_tokens": 1}}, {"usage": TWO}, delta("")], Usage(1, 0, 0, 2)),  # the last one
    ("chat", [delta("a"), HALF, b"[DONE]"], Usage(4)),
    ("responses", [{"type": "a"}, HALF_RESPONSE], Usage(4)),
    ("responses", [CREATED], None), ("responses", [{"type": "x", "item": {"usage": RESPONSES}}], None),
    ("responses", [{"response": {"metadata": {"usage": RESPONSES}}}], None),
    ("responses", [{"response": None, "usage": RESPONSES}], None),
    ("responses", [CREATED, {"type": "x", "usage": RESPONSES}], CHAT_USAGE),
    ("speech", [{"type": "speech.audio.delta", "audio": "AA"},
                {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101}}],
     Usage(14, 0, 0, 101)),
    # Some begin with zeros and tell all at the end, or count at each step: the last word stands.
    ("messages", [ZEROS, ended(output_tokens=3), ended(output_tokens=3), LAST, {"type": "message_stop"}],
     Usage(50, 0, 0, 7)),
    ("messages", [ZEROS, LAST, {"type": "content_block_start", "content_block": NESTED}], Usage(50, 0, 0, 7)),
    ("messages", [{"type": "content_block_delta", "message": {"usage": ANTHROPIC},
                   "delta": {"text": "message_start"}}, ZEROS, LAST], Usage(50, 0, 0, 7)),
    # Some of those who speak Anthropic's language send a usage of zeros with the last event.
    ("messages", [started(input_tokens=1000, cache_read_input_tokens=500),
                  ended(input_tokens=0, cache_read_input_tokens=0, output_tokens=20)],
     Usage(1500, 500, 0, 20)),
    ("messages", [BEGUN, TEXT], Usage(100, 60, 30, 1, 0)), ("messages", [TEXT], None),
    ("chat", [{"type": "message-end", "delta": {"usage": BILLED}}], Usage(9, 0, 0, 5)),
    ("chat", [{"type": "content-delta", "delta": {"usage": BILLED}}], None),
    *(("chat", [{"type": "message-end", "delta": odd, "usage": CHAT}], None)
      for odd in (None, [BILLED], FAKE)),
])  # fmt: skip
def test_streams(endpoint: str, events: list[Any], usage: Usage | None) -> None:
    assert read_events(stream(*events), endpoint) == usage


def test_an_answer_with_half_a_character() -> None:
    assert read_plain(HALF, "chat") == Usage(4)


def test_a_stream_whose_input_and_output_stand_at_its_two_ends() -> None:
    last = ended(output_tokens=40)
    events = stream(BEGUN, *[TEXT] * 50, last, {"type": "message_stop"})
    assert read_events(events, "messages") == ANTHROPIC_USAGE
    assert read_events(events[-300:], "messages", head=events[:400]) == ANTHROPIC_USAGE
    assert read_events(events[-300:], "messages") == Usage(output_tokens=40)
    # Newer answers repeat the input; cut short, the start is all there is.
    full = stream({**last, "usage": {**ANTHROPIC, "input_tokens": None}})
    assert read_events(full, "messages", head=stream(BEGUN)) == ANTHROPIC_USAGE


def test_what_was_counted_of_an_answer_that_was_broken_off() -> None:
    events = stream(BEGUN, *[TEXT] * 50)
    for tail, first in ((events[:-9], b""), (events[-300:-9], events[:400])):
        assert partial_usage(tail, first, "messages") == Usage(100, 60, 30, 1)
    for some in (stream(ZEROS, TEXT), stream(TEXT)):
        assert partial_usage(some, b"", "messages") is None

    running = [{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": n}} for n in range(1, 6)]
    events = stream(*running)
    for cut in range(len(events)):
        found = partial_usage(events[:cut], b"", "chat")
        # An event counts as soon as its JSON is whole.
        whole = events[:cut].count(b"}}")
        assert found == (Usage(9, 0, 0, whole) if whole else None)
    # Only the first chunk told it.
    assert partial_usage(stream(*[delta("x" * 50)] * 9), stream(running[0]), "chat") == Usage(9, 0, 0, 1)
    assert partial_usage(stream(*[delta("x")] * 9), stream(delta("y")), "chat") is None
    assert partial_usage(b"", b"", "chat") is None
    assert partial_usage(plain(CHAT)[:-3], b"", "chat") is None  # no stream: its usage comes with its end

    created = stream(CREATED, {"type": "response.output_text.delta"})
    assert partial_usage(created, b"", "responses") is None


@given(st.lists(bodies, min_size=1, max_size=4), st.sampled_from([b"\n", b"\r\n"]), st.integers(0, 400))
def test_events_equal_the_parser_when_all_is_there(
    events: list[dict[str, Any]], end: bytes, cut: int
) -> None:
    whole = stream(*events, end=end)
    told = [
        read_plain(orjson.dumps({"usage": event["usage"]}), "chat")
        for event in events
        if isinstance(event.get("usage"), dict)
    ]
    assert read_events(whole, "chat") == last_figures(told)
    assert read_events(whole[cut:], "chat") in [last_figures(told[at:]) for at in range(len(told) + 1)]


def last_figures(told: list[Usage | None]) -> Usage | None:
    """Of several usages the last input and the last output that are not zero, each with its parts."""
    usages = [usage for usage in told if usage is not None]
    if not usages:
        return None
    given = ([usages[0], *(usage for usage in usages if usage.input_tokens)])[-1]
    written = ([usages[0], *(usage for usage in usages if usage.output_tokens)])[-1]
    return Usage(*given.counts()[:3], *written.counts()[3:5], False, given.counts()[6], written.counts()[7])


tokens = st.integers(0, 10**9) | st.integers(0, 3)
pusd = st.integers(0, 10**11) | st.integers(0, 1000)


INSTEAD = [
    ({"usageMetadata": {"promptTokenCount": 10}}, Usage(10)),
    ({"meta": {"billed_units": {"input_tokens": 10}}}, Usage(10)),
    ({"timings": {"cache_n": 4, "prompt_n": 6, "predicted_n": 3}}, Usage(10, 4, 0, 3)),
]


@pytest.mark.parametrize(("instead", "expected"), INSTEAD)
def test_what_stands_in_place_of_a_usage(instead: dict[str, Any], expected: Usage) -> None:
    """At the top of the answer, in its tail too; never in what a model writes, nor where there is a usage."""
    body = orjson.dumps({"content": [FAKE, {"input": instead}], **instead})
    start = body.rindex(b'"' + next(iter(instead)).encode() + b'"')
    for cut in range(len(body)):
        assert read_plain(body[cut:], "chat") == (expected if cut <= start else None)
    for nested in (
        {"choices": [{"message": instead}]},
        {"metadata": instead},
        {"content": orjson.dumps(instead).decode()},
    ):
        body = orjson.dumps(nested)
        for cut in range(len(body)):
            assert read_plain(body[cut:], "chat") is None
        assert read_events(stream(nested), "chat") is None
    assert read_plain(orjson.dumps({**instead, "usage": {"prompt_tokens": 7}}), "chat") == Usage(7)


def test_a_second_name_that_is_empty_does_no_harm() -> None:
    assert read_events(b'"usage":{"input_tokens":1}},"":5}\n\n', "responses") is None


@pytest.mark.parametrize("spelling", [b'"usage":{', b'"usage": {'])
def test_a_usage_that_stood_before_the_tail(spelling: bytes) -> None:
    """In front of what was written, or with large members behind it."""
    usage = b'"prompt_tokens":20,"completion_tokens":3,"details":{"a":"}"}}'
    aside = spelling + usage + b',"prompt_logprobs":[[0.1,'
    tail = b'0.5]],"id":"x"}'
    assert read_plain(tail, "chat", aside) == Usage(20, 0, 0, 3)
    assert read_plain(tail, "chat") is None
    # What the tail itself says counts more; and what is cut, or no usage, counts for nothing.
    own = b'0.5]],"usage":{"prompt_tokens":7,"completion_tokens":1}}'
    assert read_plain(own, "chat", aside) == Usage(7, 0, 0, 1)
    for odd in (b'"a":' + b"[" * 1000, usage[:30], b'"a":1}', b"}", b"\xff}"):
        assert read_plain(tail, "chat", spelling + odd) is None


@given(st.binary(max_size=60))
def test_any_bytes_aside_will_do(rest: bytes) -> None:
    assert read_plain(b"0]}", "chat", b'"usage":{' + rest) is None or b"tokens" in rest
