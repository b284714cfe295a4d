"""What a stream's first events are: nothing yet, output, a reason for its end, an error, or its end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.lead_in import EMPTY, ENDED, ERROR, LEAD_IN, MOST_BYTES, OUTPUT, LeadIn

VERDICTS = {"nothing": LEAD_IN, "output": OUTPUT, "ended": ENDED, "error": ERROR, "empty": EMPTY}
# Endpoint, verdict, and the last event's data, as the APIs' references and users' reports have it.
EVENTS = """
chat       nothing  {"choices":[]}
chat       nothing  {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}
chat       nothing  {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}
chat       nothing  {"choices":[{"delta":{"role":"assistant","content":null,"tool_calls":[]}}]}
chat       nothing  {"choices":[],"usage":{"prompt_tokens":3}}
chat       nothing  {"error":null,"choices":[{"delta":{}}]}
chat       nothing  {"choices":[{"delta":{"conte
chat       nothing  {"x":"\\"delta\\":{\\"content\\":\\"no\\"}"}
chat       output   {"choices":[{"delta":{"content":"Hi"}}]}
chat       output   {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}]}
chat       output   {"choices": [{"delta": {"reasoning_content": "hm"}}]}
chat       output   {"choices":[{"delta":{"reasoning_details":[{"text":"hm"}]}}]}
chat       output   {"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1"}]}}]}
chat       output   {"choices":[{"delta":{"refusal":"No."}}]}
chat       output   {"choices":[{"delta":{"audio":{"id":"a"}}}]}
chat       output   {"choices":[{"message":{"content":"whole"}}]}
chat       ended    {"choices":[{"delta":{},"finish_reason":"stop"}]}
chat       ended    {"choices":[{"delta":{"content":""},"finish_reason":"content_filter"}]}
chat       error    {"error":{"message":"overloaded","code":503}}
chat       error    {"error":"out of memory"}
chat       error    {"type":"error","error":{"type":"overloaded_error"}}
chat       error    [{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]
chat       empty    [DONE]
completions nothing {"choices":[{"text":""}]}
completions output  {"choices":[{"text":" a"}]}
completions ended   {"choices":[{"text":"","finish_reason":"length"}]}
messages   nothing  {"type":"message_start","message":{"content":[],"usage":{"input_tokens":3}}}
messages   nothing  {"type":"ping"}
messages   nothing  {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
messages   nothing  {"type":"content_block_start","content_block":{"type":"thinking","thinking":""}}
messages   nothing  {"type":"content_block_delta","delta":{"type":"text_delta","text":""}}
messages   nothing  {"type":"content_block_stop","index":0}
messages   output   {"type":"content_block_start","content_block":{"type":"tool_use","id":"t","input":{}}}
messages   output   {"type":"content_block_start","content_block":{"type":"server_tool_use","id":"s"}}
messages   output   {"type":"content_block_start","content_block":{"type":"redacted_thinking","data":"xx"}}
messages   output   {"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}
messages   output   {"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}}
messages   output   {"type":"of_tomorrow"}
messages   ended    {"type":"message_delta","delta":{"stop_reason":"end_turn"}}
messages   error    {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}
messages   empty    {"type":"message_stop"}
responses  nothing  {"type":"response.created","response":{"instructions":"text","output":[],"error":null}}
responses  nothing  {"type":"response.in_progress","response":{}}
responses  nothing  {"type":"response.queued","response":{}}
responses  nothing  {"type":"response.output_item.added","item":{"type":"message"}}
responses  nothing  {"type":"response.content_part.added","part":{"type":"output_text","text":""}}
responses  nothing  {"type":"response.output_text.delta","delta":""}
responses  output   {"type":"response.output_text.delta","delta":"Hi"}
responses  output   {"type":"response.function_call_arguments.delta","delta":"{"}
responses  output   {"type":"response.reasoning_summary_text.delta","delta":"hm"}
responses  output   {"type":"response.web_search_call.in_progress","item_id":"ws"}
responses  output   {"type":"response.mcp_list_tools.in_progress"}
responses  ended    {"type":"response.completed","response":{"output":[]}}
responses  ended    {"type":"response.incomplete","response":{}}
responses  error    {"type":"response.failed","response":{"error":{"code":"server_error"}}}
responses  error    {"type":"error","code":"server_error","message":"no"}
speech     output   {"type":"speech.audio.delta","audio":"AAAA"}
speech     error    {"error":{"message":"no"}}
"""
CASES = [line.split(None, 2) for line in EVENTS.strip().splitlines()]
PRELUDE = b": comment\n\nevent: ping\ndata: {}\n\n: OPENROUTER PROCESSING\n\n"


def verdict_of(endpoint: str, *pieces: bytes) -> int:
    lead_in = LeadIn(endpoint)
    for piece in pieces:
        if lead_in.feed(piece) != LEAD_IN:
            break
    return lead_in.verdict


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("endpoint", "verdict", "data"), CASES)
def test_events(endpoint, verdict, data, line_end):
    event = b"data: %b\n\n" % data.encode()
    before = PRELUDE if endpoint != "speech" else b": comment\n\n"
    for text in (event, before + event):
        stream = text.replace(b"\n", line_end)
        assert verdict_of(endpoint, stream) == VERDICTS[verdict]
        assert verdict_of(endpoint, *(stream[at : at + 1] for at in range(len(stream)))) == VERDICTS[verdict]
    lead_in = LeadIn(endpoint)
    lead_in.feed(event.rstrip())  # the empty line behind it is missing
    assert lead_in.finish() == (VERDICTS[verdict] or EMPTY)


def test_the_name_of_an_event_tells_as_much():
    assert verdict_of("chat", b'event: error\ndata: {"message":"no"}\n\n') == ERROR
    assert verdict_of("responses", b'event: response.created\ndata: {"response":{}}\n\n') == LEAD_IN
    assert verdict_of("responses", b'event: response.output_text.delta\ndata: {"delta":"x"}\n\n') == OUTPUT


@given(st.lists(st.sampled_from([*CASES, ["chat", "nothing", 'no JSON, "error"']]), max_size=8), st.data())
def test_any_split_says_the_same(chosen, data):
    stream = b"".join(b"data: %b\n\n" % event.encode() for _, _, event in chosen)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    for endpoint in ("chat", "messages", "responses"):
        assert verdict_of(endpoint, *pieces) == verdict_of(endpoint, stream)


@pytest.mark.parametrize(
    "stream",
    [b"data: " + b"x" * MOST_BYTES, b": comment\n\n" * (MOST_BYTES // 11 + 1), b"\n\n" * 600,
     b'data: {"choices":[]}\n\n' * 4000],
)  # fmt: skip
def test_what_is_longer_than_any_lead_in_is_none(stream):
    assert verdict_of("chat", *(stream[at : at + 1000] for at in range(0, len(stream), 1000))) == OUTPUT
    assert verdict_of("chat", stream) == OUTPUT
