"""Reading usage from tails: all shapes, any cut, nothing a model writes can pass; exact prices."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.config import ModelConfig
from proxy.usage import Prices, Usage, estimate, price_nusd, prices_of, read_events, read_plain

CHAT = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 15},
}
CHAT_USAGE = Usage(100, 60, 0, 40, 15)
RESPONSES = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 60},
    "output_tokens": 40,
    "output_tokens_details": {"reasoning_tokens": 15},
    "total_tokens": 140,
}
ANTHROPIC = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 30,
    "cache_read_input_tokens": 60,
    "output_tokens": 40,
}
ANTHROPIC_USAGE = Usage(100, 60, 30, 40, 0)
FAKE = '", "usage": {"prompt_tokens": 9, "completion_tokens": 9}}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8) | st.sampled_from(["usage", FAKE]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "id", "", "a\\"]) | st.text(max_size=4), inner, max_size=4
        )
    ),
    max_leaves=12,
)
counts = st.integers(-2, 2000) | st.booleans() | st.none() | st.floats(0, 9) | st.just(10**12)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": counts,
        "completion_tokens": counts,
        "total_tokens": counts,
        "input_tokens": counts,
        "output_tokens": counts,
        "cache_read_input_tokens": counts,
        "cache_creation_input_tokens": counts,
        "prompt_tokens_details": st.none() | st.fixed_dictionaries({"cached_tokens": counts}),
        "input_tokens_details": st.none() | st.fixed_dictionaries({"cached_tokens": counts}),
    },
)
bodies = st.dictionaries(
    st.sampled_from(["id", "choices", "data", "", "x"]), json_values, max_size=4
).flatmap(lambda body: usages.map(lambda usage: {**body, "usage": usage}) | st.just(body))


def plain(usage: Any, **rest: Any) -> bytes:
    return orjson.dumps({"id": "x", "choices": [{"message": {"content": "hi"}}], "usage": usage, **rest})


@pytest.mark.parametrize(
    ("endpoint", "usage", "expected"),
    [
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
        ("chat", {"prompt_tokens": 5, "completion_tokens": -3}, Usage(5)),
        ("chat", {"prompt_tokens": 5, "completion_tokens": 10**10}, Usage(5)),
        ("chat", {"prompt_tokens": 5.0, "completion_tokens": "7"}, None),
        ("chat", {}, None),
        ("chat", None, None),
        ("chat", [1], None),
    ],
)
def test_shapes(endpoint: str, usage: Any, expected: Usage | None) -> None:
    assert read_plain(plain(usage), endpoint) == expected
    assert read_plain(plain(usage, service_tier="default", after={"usage": 3}), endpoint) == expected


def test_a_tail_is_enough_once_the_key_is_in_it() -> None:
    body = plain(CHAT, system_fingerprint="fp")
    start = body.index(b'"usage"')
    for cut in range(len(body)):
        assert read_plain(body[cut:], "chat") == (CHAT_USAGE if cut <= start else None)


@pytest.mark.parametrize(
    "body",
    [
        {"usage": {"prompt_tokens": 1}, "choices": [{"usage": {"prompt_tokens": 9}}]},
        {"usage": {"prompt_tokens": 1}, "choices": [{"message": {"content": FAKE}}]},
        {"usage": {"prompt_tokens": 1}, "choices": ["usage", "\\", '\\"usage":{"prompt_tokens":9}}']},
        {"usage": {"prompt_tokens": 1}, "x": {"usage": {"usage": {"prompt_tokens": 9}}}},
    ],
)
def test_what_a_model_writes_is_no_usage(body: dict[str, Any]) -> None:
    whole = orjson.dumps(body)
    assert read_plain(whole, "chat") == Usage(1)
    for cut in range(1, len(whole)):
        assert read_plain(whole[cut:], "chat") in (None, Usage(1))


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


def test_the_last_event_with_a_usage_wins() -> None:
    first, second = {"prompt_tokens": 1}, {"prompt_tokens": 1, "completion_tokens": 2}
    events = stream({"usage": first}, {"usage": second}, delta(""))
    assert read_events(events, "chat") == Usage(1, 0, 0, 2)


def test_an_event_over_several_data_lines_and_one_without_its_end() -> None:
    assert read_events(b': hi\n\ndata: {"usage":\ndata: {"prompt_tokens": 4}}', "chat") == Usage(4)


def test_a_stream_without_usage_has_none() -> None:
    assert read_events(stream(delta("usage"), b"[DONE]"), "chat") is None
    assert read_events(b"", "chat") is None
    assert read_events(stream([{"usage": CHAT}]), "chat") is None


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete"])
def test_responses_streams_even_where_the_last_event_is_longer_than_the_tail(kind: str) -> None:
    response = {"id": "r", "output": [{"text": FAKE * 20}], "usage": RESPONSES, "user": None, "metadata": {}}
    events = stream(
        {"type": "response.output_text.delta", "delta": "x"},
        {"type": kind, "response": response, "sequence_number": 9},
    )
    start = events.index(b'"usage":')
    for cut in range(len(events)):
        assert read_events(events[cut:], "responses") == (CHAT_USAGE if cut <= start else None)


def test_messages_streams() -> None:
    start = {"type": "message_start", "message": {"id": "m", "usage": {**ANTHROPIC, "output_tokens": 1}}}
    text = {"type": "content_block_delta", "delta": {"text": FAKE}}
    last = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}}
    events = stream(start, *[text] * 50, last, {"type": "message_stop"})
    assert read_events(events, "messages") == ANTHROPIC_USAGE
    # Input and output stand at the two ends.
    assert read_events(events[-300:], "messages", head=events[:400]) == ANTHROPIC_USAGE
    assert read_events(events[-300:], "messages") == Usage(output_tokens=40)
    # Newer answers repeat the input; cut short, the start is all there is.
    full = stream({**last, "usage": {**ANTHROPIC, "input_tokens": None}})
    assert read_events(full, "messages", head=stream(start)) == ANTHROPIC_USAGE
    assert read_events(stream(start, text), "messages") == Usage(100, 60, 30, 1, 0)
    assert read_events(stream(text), "messages") is None


@given(st.lists(bodies, min_size=1, max_size=4), st.sampled_from([b"\n", b"\r\n"]), st.integers(0, 400))
def test_events_equal_the_parser_when_all_is_there(
    events: list[dict[str, Any]], end: bytes, cut: int
) -> None:
    whole = stream(*events, end=end)
    holders = [event["usage"] for event in events if isinstance(event.get("usage"), dict)]
    expected = read_plain(orjson.dumps({"usage": holders[-1]}), "chat") if holders else None
    assert read_events(whole, "chat") == expected
    later = read_events(whole[cut:], "chat")
    assert later in (None, expected)


def test_prices_are_exact() -> None:
    model = ModelConfig(
        "a/b", "a", "b", input_price_usd_per_mtok=0.075, cached_input_price_usd_per_mtok=0.01875,
        output_price_usd_per_mtok=0.3,
    )  # fmt: skip
    prices = prices_of(model)
    assert prices == Prices(75_000, 18_750, 300_000)
    assert price_nusd(Usage(1000, 400, 0, 10, 0), prices) == 600 * 75 + 400 * 18.75 + 10 * 300
    assert price_nusd(Usage(1, 1), prices) == 19  # 18.75 nano-USD


def test_cached_tokens_cost_the_input_price_where_no_other_is_given() -> None:
    prices = prices_of(ModelConfig("a/b", "a", "b", input_price_usd_per_mtok=2.0))
    assert price_nusd(Usage(1000, 400), prices) == 2_000_000
    assert price_nusd(Usage(1000, 400, 0, 1), prices) is None  # what output costs is unknown
    assert price_nusd(Usage(1000), prices_of(ModelConfig("a/b", "a", "b"))) is None
    free = prices_of(ModelConfig("a/b", "a", "b", input_price_usd_per_mtok=0, output_price_usd_per_mtok=0.0))
    assert price_nusd(Usage(1000, 0, 0, 500), free) == 0


@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9),
    st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9),
)  # fmt: skip
def test_a_price_is_the_exact_fraction_rounded(i: int, c: int, o: int, pi: int, pc: int, po: int) -> None:
    c = min(c, i)
    exact = Fraction((i - c) * pi + c * pc + o * po, 1000)
    found = price_nusd(Usage(i, c, 0, o, 0), Prices(pi, pc, po))
    assert found is not None
    assert abs(found - exact) <= Fraction(1, 2)


def test_estimates_say_so() -> None:
    assert estimate(1000, 0.25, 400) == Usage(250, 0, 0, 100, 0, estimated=True)
    assert estimate(0, 0.25, 0) == Usage(estimated=True)
    assert estimate(1000, 0.3, 1600, streamed=True).output_tokens == 10
