"""Asking for the usage of a stream, and the answer as if nobody had: for every split and every line end."""

from __future__ import annotations

import json
import time

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.server.single import Server
from proxy.wire import include_usage
from proxy.wire.include_usage import (
    MAX_EVENT_BYTES,
    MAX_OPTIONS_BYTES,
    Edit,
    NoEdit,
    UsageFilter,
    ask_for_usage,
)
from proxy.wire.json_body import value_of
from proxy.wire.outline import keys_of
from tests.support.fakes import Call, RawClient, answers, post
from tests.support.json_texts import bodies, bytewise, pieces_of, text, values, white
from tests.support.two_providers import rows

ENDS = [b"\n", b"\r\n", b"\r"]
WITH_ENDS = pytest.mark.parametrize("end", ENDS, ids=["LF", "CRLF", "CR"])


def ask(body: bytes) -> Edit | NoEdit:
    return ask_for_usage([body], body.index(b"{"), keys_of(body))


def edited(body: bytes) -> bytes:
    edit = ask(body)
    assert isinstance(edit, Edit), edit
    return body[: edit.start] + edit.replacement + body[edit.end :]


# ------------------------------------------------------------------ the request


@pytest.mark.parametrize(("body", "asking"), [
    (b'{"a":1}', b'{"stream_options":{"include_usage":true},"a":1}'),
    (b' {\n "a":1}', b' {"stream_options":{"include_usage":true},\n "a":1}'),
    (b"{}", b'{"stream_options":{"include_usage":true}}'),
    (b" { } ", b' {"stream_options":{"include_usage":true} } '),
    # said, but not for this
    (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
    (b'{"stream_options" : null ,"a":1}', b'{"stream_options" : {"include_usage":true} ,"a":1}'),
    (b'{"a":1,"stream_options":{}}', b'{"a":1,"stream_options":{"include_usage":true}}'),
    (b'{"stream_options": { }}', b'{"stream_options": {"include_usage":true }}'),
    (b'{"stream_options":{"x":[{}]}}', b'{"stream_options":{"include_usage":true,"x":[{}]}}'),
    (b'{"stream_options":{"include_obfuscation":false},"a":"}"}',
     b'{"stream_options":{"include_usage":true,"include_obfuscation":false},"a":"}"}'),
    (b'{"stream_options":{"include_usage":false}}', b'{"stream_options":{"include_usage":true}}'),
    (b'{"stream_options":{"include_usage" :\tnull }}', b'{"stream_options":{"include_usage" :\ttrue }}'),
    (b'{"stream_options":{"x":{"include_usage":1},"include_usage":false}}',
     b'{"stream_options":{"x":{"include_usage":1},"include_usage":true}}'),
    (b'{"stream_options":{"continuous_usage_stats":false}}',
     b'{"stream_options":{"include_usage":true,"continuous_usage_stats":false}}'),
    # said elsewhere
    *((b"{" + rest, b'{"stream_options":{"include_usage":true},' + rest) for rest in (
        b'"a":{"stream_options":1},"b":"stream_options","c":"\\"stream_options\\":1"}',
        b'"a":"\\"\\u0073tream_options\\":1 \\u00e9 \\u0061"}',
    )),
])  # fmt: skip
def test_asks_once_and_changes_nothing_else(body, asking):
    assert edited(body) == asking
    assert json.loads(asking)["stream_options"]["include_usage"] is True
    assert ask(asking) is NoEdit.ASKED


@pytest.mark.parametrize("options", [
    b'{"include_usage":true}',
    b'{ "include_usage" : true , "include_obfuscation":false}',
    b'{"x":{"include_usage":false},"include_usage":true}',
])  # fmt: skip
def test_a_client_that_asks_itself(options):
    assert ask(b'{"a":1,"stream_options":' + options + b',"b":2}') is NoEdit.ASKED


@pytest.mark.parametrize("body", [
    b'{"stream_options":null,"stream_options":null}',
    b'{"stream_options":{"include_usage":true},"a":1,"stream_options":{}}', b'{"\\u0073tream_options":{}}',
    b'{"a":1,"stream\\u005Foptions":{"include_usage":true}}',
    b'{"stream_options":null,"stre\\u0061m_options":null}', b'{"stream_options":[]}',
    b'{"stream_options":true}', b'{"stream_options":"x"}', b'{"stream_options":1}',
    b'{"stream_options":nullx}', b'{"stream_options":null', b'{"stream_options":',
    b'{"stream_options":{"include_usage":1}}', b'{"stream_options":{"include_usage":"true"}}',
    b'{"stream_options":{"include_usage":{}}}',
    b'{"stream_options":{"include_usage":true,"include_usage":true}}',
    b'{"stream_options":{"include_usage":false,"include_usage":false}}',
    b'{"stream_options":{"include\\u005fusage":true}}',
    b'{"stream_options":{"include_usage":false,"include\\u005fusage":true}}',
    b'{"stream_options":{"continuous_usage_stats":true}}', b'{"stream_options":{"a":}}',
    b'{"stream_options":{"a":"}', b'{"stream_options":{"a":"' + b"x" * MAX_OPTIONS_BYTES + b'"}}',
    b'{"stream_options":{"a":"}' + b"x" * MAX_OPTIONS_BYTES + b'"}}',
])  # fmt: skip
def test_what_is_unclear_is_left_to_the_provider(body):
    assert ask(body) is NoEdit.UNCLEAR


options_members = st.dictionaries(
    st.sampled_from(["include_obfuscation", "x", "stream_options", "usage"]), st.booleans(), max_size=3
)
wishes = st.sampled_from([None, False])
option_values = st.one_of(
    st.none(), options_members,
    st.builds(lambda members, wish: {**members, "include_usage": wish}, options_members, wishes),
)  # fmt: skip


@given(bodies(), st.data())
@settings(max_examples=300)
def test_any_body_with_or_without_options(body, data):
    """The result means the same but for the one option, and every other byte is where it was."""
    if data.draw(st.booleans()):
        gap = lambda: data.draw(white).encode()  # noqa: E731
        style = data.draw(st.sampled_from([(",", ":"), (" , ", "\n: ")]))
        options = json.dumps(data.draw(option_values), separators=style).encode()
        member = gap() + b'"stream_options"' + gap() + b":" + gap() + options + gap()
        is_first = data.draw(st.booleans())
        at = body.index(b"{") + 1 if is_first else body.rindex(b"}")
        body = body[:at] + (member + b"," if is_first else b"," + member) + body[at:]
    before, edit = json.loads(body), ask(body)
    options = {**(before.get("stream_options") or {}), "include_usage": True}
    assert json.loads(edited(body)) == {**before, "stream_options": options}
    assert edit.end - edit.start in (0, 4, 5)
    pieces = pieces_of(body, data.draw(st.lists(st.integers(0, 1 << 16), max_size=6)))
    assert ask_for_usage(pieces, body.index(b"{"), keys_of(body)) == edit
    assert edited(body).count(b'"include_usage"') <= body.count(b'"include_usage"') + 1


@given(st.text('{}[]":, \\nulstream_opi', max_size=40))
def test_whatever_comes_it_never_raises(body):
    ask(b"{" + body.encode())
    ask(b'{"stream_options":' + body.encode())


def test_a_large_body_is_not_parsed():
    body = b'{"messages":["' + b"word \\u00e9 " * 400_000 + b'"],"stream_options":{"a":1},"stream":true}'
    begun = time.perf_counter()
    asking = edited(body)
    assert time.perf_counter() - begun < 1  # 2 ms, on a quiet machine
    at = value_of(asking, keys_of(asking), b'"stream_options"')
    assert asking[at:] == b'{"include_usage":true,"a":1},"stream":true}'


# ------------------------------------------------------------------ the answer


def filtered(*pieces: bytes) -> bytes:
    usage_filter = UsageFilter()
    out = b"".join([usage_filter.feed(piece) for piece in pieces]) + usage_filter.finish()
    assert usage_filter.is_between_events
    return out


def check(stream: bytes, wanted: bytes) -> None:
    """Whole, byte by byte, and cut in two everywhere."""
    for pieces in (
        [stream],
        bytewise(stream),
        *([stream[:at], b"", stream[at:]] for at in range(len(stream))),
    ):
        assert filtered(*pieces) == wanted


OPENAI_HEAD = (
    b'{"id":"chatcmpl-B1","object":"chat.completion.chunk","created":1741570283,'
    b'"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_44709d6fcb",'
)
OPENAI = (
    b"data: " + OPENAI_HEAD + b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
    b'"logprobs":null,"finish_reason":null}]<,"usage":null>,"obfuscation":"dP2"}\n\n'
    b"data: " + OPENAI_HEAD + b'"choices":[{"index":0,"delta":{"content":"say \\"usage\\":null, \\\\"},'
    b'"logprobs":null,"finish_reason":null}]<,"usage":null>}\n\n'
    b"data: " + OPENAI_HEAD + b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]'
    b'<,"usage":null>}\n\n'
    b"<data: " + OPENAI_HEAD + b'"choices":[],"usage":{"prompt_tokens":19,"completion_tokens":10,'
    b'"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0}},"obfuscation":"Wx"}\n\n>'
    b"data: [DONE]\n\n"
)
AZURE = (
    b'data: {"choices":[],"created":0,"id":"","model":"","object":"",'
    b'"prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false}}}]'
    b'<,"usage":null>}\n\n'
    b'data: {"choices":[{"content_filter_results":{},"delta":{"content":"Hi"},"finish_reason":null,'
    b'"index":0}],"created":1,"id":"c","model":"gpt-4o","object":"chat.completion.chunk",'
    b'"system_fingerprint":"fp"<,"usage":null>}\n\n'
    b'<data: {"choices":[],"created":1,"id":"c","model":"gpt-4o","object":"chat.completion.chunk",'
    b'"system_fingerprint":"fp","usage":{"completion_tokens":1,"prompt_tokens":2,"total_tokens":3}}\n\n>'
    b"data: [DONE]\n\n"
)
VLLM = (
    b'data: {"id":"chat-1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}]}\n\n'
    b'<data: {"id":"chat-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],'
    b'"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2}}\n\n>'
    b"data: [DONE]\n\n"
)
PYTHON_STYLE = (
    b': ping\n\nevent: chunk\nid: 4\ndata: {<"usage": null, >"choices": [{"text": "a"}]}\n\n'
    b'<data: {"choices": [], "usage": {"prompt_tokens": 5}}\n\n>'
    b'<id: 5\ndata: {"usage": {"prompt_tokens": 5}, "choices" : [ ]}\n: x\n\n>'
    b'data:{"a" : 1< , "usage" : null> , "b" : 2}\n\n'
    b'data: {<"usage":null>}\n\n'
)
TRANSCRIPTS = {"openai": OPENAI, "azure": AZURE, "vllm": VLLM, "python": PYTHON_STYLE}


@WITH_ENDS
@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_transcripts(name, end):
    """What stands between < and > is there because the usage was asked for."""
    transcript = TRANSCRIPTS[name].replace(b"\n", end)
    plain = b"".join(part.split(b">")[-1] for part in transcript.split(b"<"))
    check(transcript.replace(b"<", b"").replace(b">", b""), plain)
    assert filtered(plain) == plain


@pytest.mark.parametrize("event", [
    b'data: {"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}\n\n',  # content
    b'data: {"choices":[{"usage":null}]}\n\n',
    b'data: {"choices":[{"usage":null}],"a":{"usage":null,"b":1}}\n\n',
    b'data: {"choices":[{"delta":{"content":"\\"usage\\":null,"}}]}\n\n',
    b'data: {"choices":["usage"],"x":"\\"usage"}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1},"error":{"message":"x"}}\n\n',
    b'data: {"error":{"message":"x"},"usage":null}\n\n', b'data: {"choices":[],"usage":3}\n\n',
    b'data: {"choices":[],"usage":[]}\n\n', b'data: {"choices":null,"usage":{}}\n\n',
    b'data: {"usage":{"prompt_tokens":1}}\n\n', b'data: {"usage":{"prompt_tokens":1},"x":{"choices":[]}}\n\n',
    b'data: {"choices":[],"us\\u0061ge":null,"x":{"usage":null}}\n\n', b'data: [{"usage":null}]\n\n',
    b'data: "usage":null}\n\n', b'data: {"choices":[,"usage":null}\n\n',
    b'data: {"choices":[]\ndata: ,"usage":null}\n\n', b'data\ndata: {"usage":null}\n\n',
    b'data: {"usage":null}\ndata\n\n', b'id: {"usage":null}\n\n', b'database: {"usage":null}\n\n',
    b': {"usage":null}\n\n', b'event: error\ndata: {"error":"usage","x":"usage"}\n\n',
    b"data: " + b'{"usage":' * 3000 + b"1" + b"}" * 3000 + b"\n\n", b"data: [DONE]\n\n",
    b"\n\n\n\ndata: x\n\n\n\n", b"data", b"",
])  # fmt: skip
@WITH_ENDS
def test_what_stays(event, end):
    event = event.replace(b"\n", end)
    if len(event) < 2000:
        check(event, event)
    assert filtered(event) == event


@pytest.mark.parametrize(("event", "wanted"), [
    # the usual place holds another one
    (b'{"usage":null,"x":{"usage":null}}', b'{"x":{"usage":null}}'),
    (b'{"x":{"usage":null},"usage":null,"y":"\\"usage"}', b'{"x":{"usage":null},"y":"\\"usage"}'),
    (b'{"x":["usage"],"usage":null,"y":["usage"]}', b'{"x":["usage"],"y":["usage"]}'),
    (b'{ "usage" :\tnull , "a":1 }', b'{ "a":1 }'),
    (b'{ "a":1, "usage":null }', b'{ "a":1 }'),
    # no JSON to orjson: halves of an emoji, minus infinity, bytes that are no UTF-8
    (b'{"c":"\\ud83d","usage":null}', b'{"c":"\\ud83d"}'),
    (b'{"c":-Infinity,"usage":null}', b'{"c":-Infinity}'),
    (b'{"c":"\xf0\x9f","usage":null}', b'{"c":"\xf0\x9f"}'),
])  # fmt: skip
def test_the_null_goes_from_wherever_it_stands(event, wanted):
    check(b"data: " + event + b"\n\n", b"data: " + wanted + b"\n\n")


USAGE = b'data: {"choices":[],"usage":{}}'


@pytest.mark.parametrize("end", [*ENDS, b""], ids=["LF", "CRLF", "CR", "none"])
def test_a_last_event_without_its_empty_line(end):
    check(b"data: 1\n\n" + USAGE + end, b"data: 1\n\n")
    check(b'data: {"usage":null}' + end, b"data: {}" + end)
    check(b"data: [DO" + end, b"data: [DO" + end)
    check(USAGE[:-1] + end, USAGE[:-1] + end)


@pytest.mark.parametrize("first", ENDS)
@pytest.mark.parametrize("second", ENDS)
def test_line_ends_are_no_less_and_no_more_than_the_events(first, second):
    if first + second == b"\r\n":
        return
    check(b"data: 1\n\n" + USAGE + first + second + b"data: 2\n\n", b"data: 1\n\ndata: 2\n\n")
    if second != b"\r":
        check(USAGE + first + second + b"\n\ndata: 2" + first + second, b"\n\ndata: 2" + first + second)
    check(b"data: 1" + first + second + b"\ndata: 2\n\n", b"data: 1" + first + second + b"\ndata: 2\n\n")


@WITH_ENDS
def test_whole_events_go_out_at_once(end):
    usage_filter = UsageFilter()
    for start in (b"data: 1", b'data: {"usage":1}', b": x"):
        event = start + end * 2
        assert usage_filter.feed(event) == event
        assert usage_filter.feed(event + event[:3]) == event
        assert not usage_filter.is_between_events
        assert usage_filter.feed(event[3:] + event) == event + event
        assert usage_filter.is_between_events
    assert usage_filter.feed(b'data: {"usage":null}' + end * 2 + USAGE + end * 2) == b"data: {}" + end * 2
    assert usage_filter.finish() == b""


# --- whatever stream, whatever split

STYLES = [(",", ":"), (", ", ": "), (" , ", " : ")]
usages = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens"]), st.integers(0, 99), max_size=2
)
decoys = st.sampled_from([
    '"usage":null', ',"usage":null}', '"usage"', "\\", '\\"usage":null', "usage", "\ud83d",
])  # fmt: skip
contents = st.lists(st.one_of(decoys, text), max_size=4).map("".join)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(st.fixed_dictionaries({"delta": contents, "usage": st.none()}), max_size=2),
        "usages": contents, "x": st.one_of(values, st.just({"usage": None}), st.just(["usage"])),
        "error": st.none(), "model": text,
    },
)  # fmt: skip
surroundings = st.sampled_from(["", ": usage\n", "event: chunk\n", 'id: {"usage":null}\n', "database: 1\n"])
others = st.sampled_from([
    "data: [DONE]\n\n", ': "usage":null\n\n', 'data: {"error":{"message":"x"},"usage":{},"choices":[]}\n\n',
    'data: {"choices":[{"text":"x"}],"usage":{"prompt_tokens":1}}\n\n',
    'data: {"a":1\ndata: ,"usage":null}\n\n', "\n", "data: x\n\n",
])  # fmt: skip


@st.composite
def streams(draw):
    """A stream as it is when nobody asks for the usage, and as it is when somebody does."""
    style = draw(st.sampled_from(STYLES))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    ascii_only = draw(st.booleans())
    plain, asked = [], []
    for kind in draw(st.lists(st.sampled_from(["chunk", "chunk", "usage", "other"]), max_size=6)):
        if kind == "other":
            plain.append(draw(others))
            asked.append(plain[-1])
            continue
        members = list(draw(chunks).items())
        if kind == "usage":
            members = [(k, v) for k, v in members if k != "choices"] + [("choices", [])]
        with_usage = list(members)
        usage = draw(usages) if kind == "usage" else None
        with_usage.insert(draw(st.integers(0, len(members))), ("usage", usage))
        before, behind = draw(surroundings), draw(surroundings)
        wrap = lambda m: (  # noqa: E731
            f"{before}data: {json.dumps(dict(m), separators=style, ensure_ascii=ascii_only)}\n{behind}\n"  # noqa: B023
        )
        if kind == "chunk":
            plain.append(wrap(members))
        asked.append(wrap(with_usage if kind == "usage" or draw(st.booleans()) else members))
    return tuple("".join(s).replace("\n", end).encode("utf-8", "surrogatepass") for s in (plain, asked))


cuts = st.lists(st.integers(0, 1 << 16), max_size=8)


@given(streams(), cuts)
@settings(max_examples=600)
def test_the_client_gets_what_it_would_have_got(pair, cuts):
    plain, asked = pair
    for pieces in ([asked], pieces_of(asked, cuts), bytewise(asked), [plain]):
        assert filtered(*pieces) == plain


fragments = st.sampled_from([
    b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"data", b"x", b'{"usage":null}', USAGE, USAGE + b"\n\n",
    b'"usage"',
])  # fmt: skip


@given(st.lists(fragments, max_size=12).map(b"".join), cuts, st.sampled_from([8, 20, 40, 1 << 20]))
@settings(max_examples=600)
def test_any_split_same_answer(stream, cuts, limit):
    """However odd the stream, and with events that are too large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(include_usage, "MAX_EVENT_BYTES", limit)
        whole = filtered(stream)
        assert filtered(*pieces_of(stream, cuts)) == whole
        assert filtered(*bytewise(stream)) == whole
    assert len(whole) <= len(stream)
    if b"usage" not in stream:
        assert whole == stream


# --- bounds


@WITH_ENDS
def test_an_event_that_is_too_large_passes_as_it_is(end):
    def event(size: int) -> bytes:
        return b'data: {"x":"' + b"x" * (size - 27) + b'","usage":null}' + end * 2

    fits, large = event(MAX_EVENT_BYTES), event(MAX_EVENT_BYTES + 1)
    assert len(large) == MAX_EVENT_BYTES + 1 + 2 * len(end)
    usage_filter = UsageFilter()
    assert usage_filter.feed(fits) == fits.replace(b',"usage":null', b"")
    assert usage_filter.feed(large) == large
    # in pieces: from the moment on it is
    assert usage_filter.feed(large[:MAX_EVENT_BYTES]) == b""
    at = MAX_EVENT_BYTES + 1
    assert usage_filter.feed(large[MAX_EVENT_BYTES:at]) == large[:at]
    assert not usage_filter.is_between_events
    assert [usage_filter.feed(byte) for byte in bytewise(large[at:])] == bytewise(large[at:])
    assert usage_filter.is_between_events
    # and the next is judged again
    assert usage_filter.feed(USAGE + end * 2) == b""
    assert usage_filter.feed(large[:at]) == large[:at]
    assert usage_filter.feed(b"more" + end) == b"more" + end
    assert usage_filter.finish() == b""
    assert usage_filter.feed(USAGE + end * 2) == b""


def test_tiny_pieces_take_linear_time():
    events = (b'data: {"x":"' + b"x" * 60_000 + b'","usage":null}\n\n') * 15
    begun = time.process_time()
    found = filtered(*(events[at : at + 3] for at in range(0, len(events), 3)))
    assert found == events.replace(b',"usage":null', b"")
    assert time.process_time() - begun < 5  # 0.3 s; with a join for each piece, minutes


# ---------------------------------------------------------------------- over sockets

TEXT = """
[providers.a]
base_url = "{url}"
auth = "none"
request_stream_usage = true
[providers.b]
base_url = "{other}"
auth = "none"
[models."a/m"]
upstream = "longer-name"
input_price = 1
output_price = 2
[models."b/m"]
[aliases]
both = {{ models = ["a/m", "b/m"], strategy = "round-robin" }}
"""
_TEXT_EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"x"}}]%b}\n\n'
_LAST = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":100,"completion_tokens":50}}\n\n'
_DONE = b"data: [DONE]\n\n"


async def as_openai(call: Call) -> None:
    """Tells usage where it was asked to, and only there."""
    while True:
        _, body = await call.request()
        asked = (orjson.loads(body).get("stream_options") or {}).get("include_usage")
        null = b',"usage":null' if asked else b""
        events = [_TEXT_EVENT % null] * 3 + ([_LAST] if asked else []) + [_DONE]
        await call.stream(*events)


async def opened(start, provider, other=None) -> tuple[Server, RawClient]:
    """A gateway that asks the one provider for usage, and not the other; and a client of it."""
    server = await start(TEXT.format(url=provider.url, other=(other or provider).url))
    return server, await RawClient.connect(server)


@pytest.mark.parametrize(("more", "sees_usage"), [
    (b"", False),
    (b',"stream_options":{"include_obfuscation":false}', False),
    (b',"stream_options":{"include_usage":true}', True),
])  # fmt: skip
@pytest.mark.parametrize("order", [b'{"model":"a/m","stream":true%b}', b'{"stream":true%b,"model":"a/m"}'])
async def test_usage_is_asked_for_and_taken_out(provider, start, more, sees_usage, order):
    provider.script = as_openai
    server, client = await opened(start, provider)
    await client.post(order % more)
    status, fields, body = await client.response()
    assert (status, fields[b"transfer-encoding"]) == (200, b"chunked")
    assert (b"usage" in body) is sees_usage
    if not sees_usage:
        assert body == _TEXT_EVENT % b"" * 3 + _DONE
    sent = orjson.loads(provider.seen[0][1])
    assert sent["model"] == "longer-name"
    assert sent["stream_options"]["include_usage"] is True
    [row] = rows(server)
    figures = row["input_tokens"], row["output_tokens"], row["usage_source"], row["usd"]
    assert figures == (100, 50, "provider", 0.0002)
    await client.post(order % more)  # the connections are good for more
    assert (await client.response())[2] == body
    assert provider.connections == 1


async def test_a_body_that_asks_for_no_stream_is_left_alone(provider, start):
    _, client = await opened(start, provider)
    await client.post(b'{"model":"a/m","stream":false}')
    assert (await client.response())[2] == b'{"model":"longer-name","stream":false}'


async def test_another_provider_gets_the_body_as_it_came(provider, other, start):
    provider.script, other.script = answers(status=b"503 Busy"), as_openai
    _, client = await opened(start, provider, other)
    for _ in range(2):  # by turns, so that one of them begins at the provider that is asked for usage
        await client.post(b'{"model":"both","stream":true}')
        assert (await client.response())[2] == _TEXT_EVENT % b"" * 3 + _DONE
    assert provider.seen
    assert {body for _, body in other.seen} == {b'{"model":"m","stream":true}'}


async def test_an_old_client_gets_the_stream_unwrapped(provider, start):
    provider.script = as_openai
    _, client = await opened(start, provider)
    await client.send(post(b'{"model":"a/m","stream":true}').replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await client.rest()).partition(b"\r\n\r\n")[2] == _TEXT_EVENT % b"" * 3 + _DONE


async def test_a_stream_that_breaks_off_between_events_says_so(provider, start):
    async def breaks(call: Call) -> None:
        await call.request()
        await call.stream(_TEXT_EVENT % b',"usage":null', end=False)
        call.reset()

    provider.script = breaks
    _, client = await opened(start, provider)
    await client.post(b'{"model":"a/m","stream":true}')
    _, _, body = await client.response()
    assert body.startswith(_TEXT_EVENT % b"")
    assert b'"error"' in body
