"""What the spans of a request say, whatever becomes of it."""

from __future__ import annotations

import asyncio
import json

import pytest
from opentelemetry.trace import StatusCode

from proxy.control.telemetry.spans import provider_name
from tests.support.chats import END, saying
from tests.support.fakes import (
    EVENT_STREAM,
    Call,
    RawClient,
    Script,
    answers,
    chunk,
    dead_url,
    hangs,
    streams,
    until,
)  # fmt: skip
from tests.support.keys import CONFIG, bearer, make
from tests.support.traces import Traced
from tests.support.two_providers import ask, config

USAGE = {
    "prompt_tokens": 40,
    "completion_tokens": 60,
    "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 5},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
ANSWER = json.dumps({"usage": USAGE}).encode()
OK = answers(ANSWER)
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"the secret of life"}}]}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


FINE = None, StatusCode.UNSET, None


async def traced_gateway(start, a, b, **more: str) -> Traced:
    server = await start(config(a, b, **more))
    traced = Traced(server)
    traced.server = server
    return traced


def says(span, *left_out: str) -> dict:
    return {name: value for name, value in span.attributes.items() if name not in left_out}


def error(span) -> tuple:
    return span.attributes.get("error.type"), span.status.status_code, span.status.description


def goes_on(step: asyncio.Event, first: bytes, rest: bytes) -> Script:
    """An answer of which the rest comes when ``step`` is set."""

    async def script(call: Call) -> None:
        await call.request()
        await call.send(first)
        await step.wait()
        await call.send(rest)

    return script


async def begun(traced: Traced, model: bytes, until_seen: bytes = b"") -> RawClient:
    """A client whose stream runs, and that has read so far."""
    client = await RawClient.connect(traced.server)
    await client.post(b'{"model":"%b","stream":true}' % model)
    if until_seen:
        await client.reader.readuntil(until_seen)
    return client


async def test_a_plain_answer(provider, start):
    provider.script = OK
    server = await start(CONFIG.format(url=provider.url, more=""))
    traced = Traced(server)
    key_id, secret = await make(server, name="search")
    client = await RawClient.connect(server)
    await client.post(b'{"model":"m","messages":[{"content":"hush"}]}', extra=bearer(secret))
    status, fields, _ = await client.response()
    assert status == 200
    request, [attempt] = traced.tree()

    assert (request.name, request.status.status_code) == ("chat m", StatusCode.UNSET)
    ttft_ms = request.attributes["tokenhub.ttft_ms"]
    took_ms = (request.end_time - request.start_time) / 1e6
    assert 0 < ttft_ms <= took_ms + 0.01
    assert 0 <= request.attributes["tokenhub.overhead_us"] <= took_ms * 1000
    assert says(request, "tokenhub.ttft_ms", "tokenhub.overhead_us") == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "mock",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 60,
        "gen_ai.usage.cache_read.input_tokens": 10,
        "gen_ai.usage.audio.input_tokens": 5,
        "gen_ai.usage.reasoning.output_tokens": 20,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "tokenhub.attempts": 1,
        "tokenhub.endpoint": "chat",
        "tokenhub.key": "search",
        "tokenhub.model": "mock/m",
        "tokenhub.provider": "mock",
        "tokenhub.request_id": fields[b"x-inferoute-request-id"].decode(),
        "tokenhub.strategy": fields[b"x-inferoute-strategy"].decode(),
        "tokenhub.usage_source": "provider",
        "tokenhub.usd": (40 * 1 + 60 * 2) / 1e6,
    }
    assert (attempt.name, attempt.status.status_code) == ("chat m", StatusCode.UNSET)
    assert says(attempt, "tokenhub.ttft_ms") == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "mock", "gen_ai.request.model": "m",
        "http.response.status_code": 200, "server.address": "127.0.0.1", "server.port": provider.port,
        "tokenhub.attempt": 1, "tokenhub.model": "mock/m", "tokenhub.provider": "mock",
    }  # fmt: skip
    assert 0 < attempt.attributes["tokenhub.ttft_ms"] <= ttft_ms
    text = "".join(span.to_json() for span in traced.spans)
    assert "hush" not in text and secret.decode() not in text and key_id not in text


async def test_a_stream(provider, other, start):
    provider.script = streams(EVENT, LAST, DONE)
    traced = await traced_gateway(start, provider, other)
    reply = await ask(traced.server, "a/m", more=b',"stream":true')
    assert reply.body.endswith(DONE)
    request, [attempt] = traced.tree()
    assert request.attributes["gen_ai.request.stream"] is True
    assert request.attributes["gen_ai.usage.output_tokens"] == 4
    for span in (request, attempt):
        first_s = span.attributes["gen_ai.response.time_to_first_chunk"]
        assert 0 < first_s * 1e9 <= span.end_time - span.start_time + 1e4
        assert abs(first_s * 1000 - span.attributes["tokenhub.ttft_ms"]) < 0.001
    assert "secret" not in "".join(span.to_json() for span in traced.spans)


async def test_a_failover(provider, other, start):
    provider.script, other.script = answers(status=b"503 Busy"), OK
    traced = await traced_gateway(start, provider, other)
    assert (await ask(traced.server)).story == "a:503, b:200"
    request, [first, second] = traced.tree()
    assert first.end_time <= second.start_time
    assert error(first) == ("503", StatusCode.ERROR, "answered 503")
    assert (first.attributes["tokenhub.outcome"], first.attributes["http.response.status_code"]) == (
        "503",
        503,
    )
    assert (first.attributes["tokenhub.attempt"], second.attributes["tokenhub.attempt"]) == (1, 2)
    assert (first.attributes["server.port"], second.attributes["server.port"]) == (provider.port, other.port)
    assert error(second) == error(request) == FINE
    assert request.attributes["tokenhub.failed_attempts"].startswith("a:503:")
    assert request.attributes.items() >= {
        "tokenhub.attempts": 2, "tokenhub.provider": "b", "tokenhub.strategy": "cost",
        "gen_ai.usage.input_tokens": 40,
    }.items()  # fmt: skip


async def test_where_all_fail(other, start):
    other.script = answers(status=b"500 No")
    traced = await traced_gateway(start, dead_url(), other)
    assert (await ask(traced.server)).status == 503
    request, [first, second] = traced.tree()
    assert first.attributes["error.type"] == "connect"
    assert first.status.description.startswith("could not be reached (")
    assert "http.response.status_code" not in first.attributes
    assert second.attributes["error.type"] == "500"
    assert error(request)[:2] == ("503", StatusCode.ERROR)
    assert "tokenhub.usd" not in request.attributes and "gen_ai.response.model" not in request.attributes


async def test_an_error_that_is_passed_on_ends_with_the_answer(provider, other, start):
    go_on = asyncio.Event()
    provider.script = goes_on(go_on, b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nno", b"no")
    traced = await traced_gateway(start, provider, other)
    client = await begun(traced, b"a/m", b"\r\n\r\nno")
    assert not traced.spans
    go_on.set()
    await client.reader.readexactly(2)
    request, [attempt] = traced.tree()
    assert attempt.end_time == request.end_time
    assert error(attempt)[:2] == error(request)[:2] == ("500", StatusCode.ERROR)


async def test_a_mistake_of_the_clients_is_an_error_of_the_attempt_only(provider, other, start):
    provider.script = answers(status=b"400 Bad Request")
    traced = await traced_gateway(start, provider, other)
    assert (await ask(traced.server, "a/m")).status == 400
    request, [attempt] = traced.tree()
    assert error(attempt)[:2] == ("400", StatusCode.ERROR)
    assert error(request) == FINE and request.attributes["http.response.status_code"] == 400


async def test_a_fallback_from_a_provider_without_a_key(other, start):
    other.script = OK
    traced = await traced_gateway(start, dead_url(), other, a_more='api_key_env = "NONE"')
    reply = await ask(traced.server, "a/m", "X-Inferoute-Fallback: b/m")
    assert reply.story == "a:no-key, b:200"
    _, [first, second] = traced.tree()
    assert error(first) == ("no-key", StatusCode.ERROR, "has no key: set NONE")
    assert second.attributes["tokenhub.provider"] == "b"


async def test_a_hedge_shows_both(provider, other, start):
    provider.script, other.script = hangs, OK
    traced = await traced_gateway(start, provider, other, alias='hedge = "20ms"')
    assert (await ask(traced.server)).story == "a:hedged, b:200"
    request, [slow, fast] = traced.tree()
    assert (slow.attributes["tokenhub.outcome"], error(slow)) == ("hedged", FINE)
    assert slow.start_time < fast.start_time < slow.end_time <= fast.end_time
    assert (request.attributes["tokenhub.provider"], request.attributes["tokenhub.attempts"]) == ("b", 2)
    # Who was slower is charged for too, by an estimate.
    assert request.attributes["tokenhub.usd"] > (40 + 60) * 100 / 1e6
    assert "tokenhub.client_left" not in request.attributes


async def test_a_redialled_connection_is_one_attempt(provider, other, start):
    async def once(call: Call) -> None:
        await call.request()
        await call.answer(ANSWER)
        await call.request()
        if call.number == 0:
            call.reset()
        else:
            await call.answer(ANSWER)

    provider.script = once
    traced = await traced_gateway(start, provider, other)
    client = await RawClient.connect(traced.server)
    for _ in range(2):
        await client.post(b'{"model":"a/m"}')
        assert (await client.response())[0] == 200
    attempts = [span for span in traced.spans if "tokenhub.attempt" in span.attributes]
    assert [span.attributes.get("tokenhub.redialled") for span in attempts] == [None, True]


async def test_a_stream_that_is_cut(provider, other, start):
    provider.script = saying(EVENT_STREAM + chunk(EVENT), stays=False)
    traced = await traced_gateway(start, provider, other)
    reply = await ask(traced.server, "a/m", more=b',"stream":true')
    assert b"broke its answer off" in reply.body
    request, [attempt] = traced.tree()
    for span in (request, attempt):
        assert error(span) == ("reset", StatusCode.ERROR, "broke its answer off (closed)")
        assert span.attributes["http.response.status_code"] == 200
    assert request.attributes["tokenhub.usage_source"] == "estimated"


def sends(*events: bytes):
    """These events, and nothing behind them."""

    async def script(call: Call) -> None:
        await call.request()
        if events:
            await call.stream(*events, end=False)
        await call.gone()

    return script


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_client_that_leaves(provider, other, start, has_begun):
    provider.script = sends(*([EVENT] if has_begun else []))
    traced = await traced_gateway(start, provider, other)
    client = await begun(traced, b"a/m", EVENT if has_begun else b"")
    await until(lambda: provider.seen)
    client.close()
    await until(lambda: traced.spans)
    request, [attempt] = traced.tree()
    assert attempt.attributes["tokenhub.outcome"] == "left"
    assert request.attributes["tokenhub.client_left"] is True
    for span in (request, attempt):
        assert span.attributes.get("http.response.status_code") == (200 if has_begun else None)
        assert error(span) == FINE


async def test_a_client_that_has_seen_the_last_event_has_not_left(provider, other, start):
    provider.script = sends(EVENT, LAST, DONE)
    traced = await traced_gateway(start, provider, other)
    (await begun(traced, b"a/m", DONE)).close()
    await until(lambda: traced.spans)
    request, [attempt] = traced.tree()
    assert "tokenhub.client_left" not in request.attributes
    assert "tokenhub.outcome" not in attempt.attributes
    assert request.attributes["gen_ai.usage.output_tokens"] == 4


async def test_an_answer_that_is_read_on_for_a_client_that_left(provider, other, start):
    go_on = asyncio.Event()
    provider.script = goes_on(go_on, EVENT_STREAM + chunk(EVENT), chunk(LAST) + chunk(DONE) + END)
    traced = await traced_gateway(start, provider, other, alias='on_disconnect = "drain"')
    (await begun(traced, b"two", EVENT)).close()
    await until(lambda: traced.gateway.detached)
    assert not traced.spans
    go_on.set()
    await until(lambda: traced.spans)
    request, [attempt] = traced.tree()
    assert request.attributes["tokenhub.client_left"] is True
    assert request.attributes["gen_ai.usage.output_tokens"] == 4
    assert "tokenhub.outcome" not in attempt.attributes


async def test_what_is_refused_before_anybody_is_asked(provider, other, start):
    traced = await traced_gateway(start, provider, other)
    for name in ("nobody/knows", "x" * 1000):
        assert (await ask(traced.server, name)).status == 404
    unknown, cut = traced.spans
    assert unknown.name == cut.name == "chat"  # names that clients make up are no names of spans
    assert unknown.attributes["gen_ai.request.model"] == "nobody/knows"
    assert cut.attributes["gen_ai.request.model"] == "x" * 200
    assert unknown.attributes["http.response.status_code"] == 404
    assert (unknown.attributes["tokenhub.attempts"], error(unknown)) == (0, FINE)
    assert "gen_ai.provider.name" not in unknown.attributes


async def test_keys_that_are_wrong_or_used_up(provider, start):
    provider.script = OK
    server = await start(CONFIG.format(url=provider.url, more=""))
    traced = Traced(server)
    _, secret = await make(server, name="small", rpm=1)
    client = await RawClient.connect(server)
    for key, status in ((secret, 200), (secret, 429), (b"th-wrong", 401)):
        await client.post(b'{"model":"mock/m"}', extra=bearer(key))
        assert (await client.response())[0] == status
    requests = [span for span in traced.spans if "http.route" in span.attributes]
    assert [span.attributes["http.response.status_code"] for span in requests] == [200, 429, 401]
    assert [span.attributes.get("tokenhub.key") for span in requests] == ["small", "small", None]
    assert [span.attributes["tokenhub.attempts"] for span in requests] == [1, 0, 0]
    assert [span.name for span in requests] == ["chat mock/m", "chat mock/m", "chat"]


MANY = """
[providers.a]
base_url = "{url}"
auth = "none"
endpoints = ["chat", "completions", "embeddings", "messages", "responses", "images", "rerank"]
[models."a/m"]
capabilities = ["chat", "completions", "embeddings", "messages", "responses", "images", "rerank"]
"""


@pytest.mark.parametrize(("path", "operation", "output"), [
    ("/chat/completions", "chat", None), ("/v1/completions", "text_completion", None),
    ("/v1/embeddings", "embeddings", None), ("/v1/messages", "chat", None),
    ("/v1/messages/count_tokens", "count_tokens", None), ("/v1/responses/compact", "chat", None),
    ("/v1/responses/input_tokens", "input_tokens", None),
    ("/v1/images/generations", "generate_content", "image"), ("/v1/rerank", "rerank", None),
])  # fmt: skip
async def test_operations(provider, start, path, operation, output):
    provider.script = OK
    server = await start(MANY.format(url=provider.url))
    traced = Traced(server)
    assert (await ask(server, "m", path=path.encode())).status == 200
    request, [attempt] = traced.tree()
    assert request.name == attempt.name == f"{operation} m"
    for span in (request, attempt):
        assert span.attributes["gen_ai.operation.name"] == operation
    assert (request.attributes["http.route"], request.attributes.get("gen_ai.output.type")) == (path, output)


@pytest.mark.parametrize(("host", "name"), [
    ("api.openai.com", "openai"), ("eu.api.openai.com", "openai"), ("API.Anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("us-central1-aiplatform.googleapis.com", "gcp.vertex_ai"), ("name.openai.azure.com", "azure.ai.openai"),
    ("bedrock-runtime.us-east-1.amazonaws.com", "aws.bedrock"), ("ec2-1-2-3-4.compute.amazonaws.com", "mine"),
    ("api.mistral.ai", "mistral_ai"), ("api.openai.com.example", "mine"), ("127.0.0.1", "mine"),
])  # fmt: skip
def test_the_names_of_providers(host, name):
    assert provider_name("mine", host) == name
