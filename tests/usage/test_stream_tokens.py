"""Tokens of a stream by the events at its end."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.usage.stream_tokens import stream_tokens


def event(data: object, name: str = "") -> bytes:
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: %b\n\n" % json.dumps(data).encode()


def chat(**delta: object) -> bytes:
    return event({"id": "x" * 40, "choices": [{"index": 0, "delta": delta}]})


def responses(text: str) -> bytes:
    return event({"type": "response.output_text.delta", "delta": text}, "response.output_text.delta")


def messages(**delta: object) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")


DONE = b"data: [DONE]\n\n"
CALL = {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}


@pytest.mark.parametrize(("stream", "tokens"), [
    (b"", 0),
    (DONE, 1),  # nothing that can be read: by its size
    (chat(role="assistant", content="") + chat(content="Hel") + chat(content="lo") + DONE, 2),
    (chat(reasoning_content="Hm") + chat(reasoning="Hm") + chat(refusal="no") + chat(**CALL), 4),
    (event({"choices": [{"text": "Hello"}, {"text": " all"}]}), 1),
    (responses("Hel") + responses("lo") + event({"type": "response.completed", "response": {}}), 2),
    (messages(text="a" * 40) + messages(thinking="b" * 17) + messages(partial_json="{}"), 10 + 5 + 1),
    (b": comment\n\n" + chat(content="a"), 1),
    (b"data: nonsense\n\ndata: 5\n\n" + chat(content="a") + b"data: {}\n\n", 1),
    (chat(content="a").replace(b"\n", b"\r\n"), 1),
    (chat(content="\u6f22\u5b57") * 10 + chat(content="\u304b "), 20 + 1),
    (chat(content="\u6f22\u5b57 and more"), 2 + 2),
    (chat(content="na\u00efve"), 1),
    (chat(content="word ") * 10, 10),
    (chat(content="word word word ") * 10, 30),
])  # fmt: skip
def test_a_stream_that_is_all_there(stream, tokens):
    assert stream_tokens(stream, len(stream)) == tokens


@given(st.integers(60, 2000), st.integers(0, 200))
def test_of_a_long_one_the_end_stands_for_all(count, noise):
    stream = b"".join(chat(content="tok" + "k" * (n % 3)) for n in range(count)) + chat(x="y" * noise) + DONE
    found = stream_tokens(stream[-8192:], len(stream))
    assert found == pytest.approx(count, rel=0.1, abs=3)


@given(st.binary(max_size=300), st.integers(0, 10**6))
def test_any_bytes(tail, more):
    assert stream_tokens(tail, len(tail) + more) >= 0
