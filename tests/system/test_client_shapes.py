"""What the official SDKs of OpenAI and Anthropic make of the gateway's own answers, each in its own shape."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest

from proxy.simulator.server import Simulator
from tests.support.fakes import RawClient, answers, dead_url, hangs, post
from tests.support.keys import admin, make
from tests.support.scripts import answer, says

CONFIG = """
[timeouts]
first_byte = "300ms"
total = "300ms"
client_head = "200ms"
[server]
listen = ["127.0.0.1:0"]
max_body = "2KiB"
[providers.a]
base_url = "{url}"
auth = "none"
endpoints = ["chat", "messages", "responses"]
[models."a/claude"]
input_price = 1
output_price = 2
[models."a/other"]
"""
HI: list[Any] = [{"role": "user", "content": "Hi"}]


@pytest.fixture(name="server")
async def _server(start):
    """A gateway whose provider is not there."""
    return await start(CONFIG.format(url=dead_url()))


@pytest.fixture
async def simulated():
    simulator = Simulator(speed=0)
    simulator.port = await simulator.start()
    yield f"http://127.0.0.1:{simulator.port}/v1"
    await simulator.close()


def claude(server, key: str = "any", **options) -> anthropic.AsyncAnthropic:
    address = server.addresses[0]
    return anthropic.AsyncAnthropic(
        base_url=f"http://{address.host}:{address.port}", api_key=key, max_retries=0, **options
    )


def gpt(server, key: str = "any", **options) -> openai.AsyncOpenAI:
    address = server.addresses[0]
    url = f"http://{address.host}:{address.port}/v1"
    return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, **options)


async def refusal(server, key: str = "any", model: str = "a/claude", text: str = "Hi", **more) -> Any:
    """The exception of a message that is refused."""
    async with claude(server, key) as client:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await client.messages.create(
                model=model, max_tokens=5, messages=[{"role": "user", "content": text}], **more
            )
    return caught.value


def check(error: Any, kind: type[Exception], type: str, code: str | None) -> None:
    """An error in Anthropic's shape, as their SDK has it: its class, its type, and the gateway's id."""
    assert isinstance(error, kind), error
    headers = error.response.headers
    assert error.request_id == headers["x-inferoute-request-id"] == headers["x-request-id"]
    assert error.request_id.startswith("req_")
    assert error.body.keys() == {"type", "error", "request_id"}
    assert (error.body["type"], error.body["request_id"]) == ("error", error.request_id)
    assert (error.type, error.body["error"]["code"]) == (type, code)
    assert error.api_message == error.body["error"]["message"] != ""
    # Strictly, by the SDK's own types of errors.
    if type not in ("request_too_large",):
        from anthropic.types import ErrorResponse

        parsed = ErrorResponse.model_validate(error.body)
        assert parsed.error.type == type


# ---------------------------------------------------------------------- errors, as Anthropic's SDK has them


async def test_an_unknown_model(server):
    error = await refusal(server, model="claude-none")
    check(error, anthropic.NotFoundError, "not_found_error", "model_not_found")
    assert error.body["error"]["param"] == "model"


async def test_a_model_without_the_endpoint(start):
    text = CONFIG.format(url=dead_url()).replace('"chat", "messages", ', '"chat", ')
    error = await refusal(await start(text))
    check(error, anthropic.BadRequestError, "invalid_request_error", "unsupported_endpoint")


async def test_a_body_that_is_too_large(server):
    error = await refusal(server, text="x" * 3000)
    check(error, anthropic.ContentTooLargeError, "request_too_large", "body_too_large")


async def test_refusals_of_a_key(server):
    _, secret = await make(server, models=["a/other"], rpm=2)
    check(
        await refusal(server, "th-x"), anthropic.AuthenticationError, "authentication_error",
        "invalid_api_key",
    )  # fmt: skip
    for _ in range(2):
        error = await refusal(server, secret.decode())
        check(error, anthropic.PermissionDeniedError, "permission_error", "model_not_allowed")
    error = await refusal(server, secret.decode())
    check(error, anthropic.RateLimitError, "rate_limit_error", "rate_limit_exceeded")
    assert int(error.response.headers["retry-after"]) > 0
    assert error.body["error"]["param"] == "rpm"


async def test_a_month_that_is_used_up_and_an_answer_that_is_too_long(start, simulated):
    server = await start(CONFIG.format(url=simulated))
    _, secret = await make(server, monthly_tokens=1)
    async with claude(server, secret.decode()) as client:
        await client.messages.create(model="a/claude", max_tokens=5, messages=HI)
    error = await refusal(server, secret.decode())
    check(error, anthropic.PaymentRequiredError, "billing_error", "monthly_limit_reached")
    _, secret = await make(server, name="short", max_tokens=2)
    error = await refusal(server, secret.decode())
    check(error, anthropic.UnprocessableEntityError, "invalid_request_error", "max_tokens_exceeded")


async def test_attempts_that_fail(provider, start, server):
    error = await refusal(server)
    check(error, anthropic.ServiceUnavailableError, "api_error", "provider_unreachable")
    server = await start(CONFIG.format(url=provider.url))
    for script, kind, type, code in (
        (hangs, anthropic.GatewayTimeoutError, "timeout_error", "provider_timeout"),
        (says(b"nonsense\r\n\r\n"), anthropic.InternalServerError, "api_error", "provider_bad_answer"),
    ):
        provider.script = script
        error = await refusal(server)
        check(error, kind, type, code)
        assert error.response.headers["x-inferoute-provider"] == "a"


@pytest.mark.interpreted
async def test_overload(server, monkeypatch):
    monkeypatch.setattr(server.gateway, "overload", SimpleNamespace(is_on=True, turns_away=lambda _: True))
    error = await refusal(server)
    check(error, anthropic.ServiceUnavailableError, "overloaded_error", "overloaded")


async def test_counting_tokens(server):
    async with claude(server) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.count_tokens(model="none", messages=HI)
    check(caught.value, anthropic.NotFoundError, "not_found_error", "model_not_found")


async def test_paths_below_messages_and_a_base_url_with_a_version(server):
    async with claude(server) as client:
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.batches.list()
        check(caught.value, anthropic.NotFoundError, "not_found_error", "unknown_path")
        client.base_url = str(client.base_url).rstrip("/") + "/v1"
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.messages.create(model="a/claude", max_tokens=5, messages=HI)
        check(caught.value, anthropic.NotFoundError, "not_found_error", "unknown_path")
        assert "/v1 twice" in caught.value.api_message


@pytest.mark.parametrize("path", [b"/v1/messages", b"/messages", b"/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST %b?beta=true HTTP/1.1\r\nHost: g\r\nbad header\r\n\r\n", 400),
        (b"POST http://gateway%b HTTP/1.1\r\nHost: g\r\nbad header\r\n\r\n", 400),
        (b"POST %b HTTP/1.1\r\nHost: g\r\nX: " + b"x" * 40_000, 431),
        (b"POST %b HTTP/1.1\r\nHost: g\r\n", 408),
        (b"POST %b HTTP/1.1\r\nHost: g\r\n\r\n", 411),
        (b"GET %b HTTP/1.1\r\nHost: g\r\n\r\n", 405),
        (b'POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{"', 400),
        (b"POST %b HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ],
    ids=["length", "line", "absolute", "large", "slow", "unframed", "method", "body", "chunks"],
)
async def test_errors_of_heads_and_framing(client, path, head, status):
    await client.send(head.replace(b"%b", path))
    got, fields, body = await client.response()
    said = json.loads(body)
    assert (got, said["type"], said["request_id"]) == (status, "error", fields[b"request-id"].decode())
    assert fields[b"request-id"] == fields[b"x-inferoute-request-id"]
    kind = "timeout_error" if status == 408 else "invalid_request_error"
    assert said["error"]["type"] == kind


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/messagesX HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nbad header\r\n\r\n",
        b"POST /v1/responses HTTP/1.1\r\nHost: g\r\nanthropic-version: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /v1/models/none HTTP/1.1\r\nHost: g\r\n\r\n", b"nonsense\r\n\r\n", b"\x00\r\n\r\n",
    ],
)  # fmt: skip
async def test_elsewhere_errors_are_openais(client, head):
    await client.send(head)
    _, fields, body = await client.response()
    assert json.loads(body).keys() == {"error"}
    assert b"request-id" not in fields


async def test_the_shape_is_that_of_each_request_on_a_connection(client):
    for path, shape in ((b"/v1/messages", 3), (b"/v1/chat/completions", 1), (b"/v1/messages", 3)):
        await client.send(post(b'{"model":"none"}', path))
        status, _, body = await client.response()
        assert (status, len(json.loads(body))) == (404, shape)


@pytest.mark.parametrize(("extra", "told"), [(b"", None), (b"Request-Id: req_theirs\r\n", "req_theirs")])
async def test_passed_answers_have_a_request_id(provider, start, extra, told):
    message = {"id": "m", "type": "message", "role": "assistant", "model": "x", "content": []}
    body = json.dumps(message | {"usage": {"input_tokens": 1}}).encode()
    provider.script = answers(body, extra=extra)
    server = await start(CONFIG.format(url=provider.url))
    async with claude(server) as client:
        for _ in range(2):
            raw = await client.messages.with_raw_response.create(model="a/claude", max_tokens=5, messages=HI)
            own = raw.headers["x-inferoute-request-id"]
            assert raw.headers.get_list("request-id") == [told or own]
    async with gpt(server) as client:  # elsewhere nothing is added
        answer = await client.chat.completions.with_raw_response.create(model="a/claude", messages=HI)
        assert answer.headers.get("request-id") == told


async def test_a_providers_error_passes_as_it_is(provider, start):
    provider.script = says(
        answer(b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', b"529 Busy")
    )
    error = await refusal(await start(CONFIG.format(url=provider.url)))
    assert isinstance(error, anthropic.OverloadedError)
    assert error.request_id == error.response.headers["x-inferoute-request-id"]
    assert "request_id" not in error.body


# ---------------------------------------------------------------------- compaction and counting of responses


@pytest.mark.parametrize("prefix", ["/v1", ""])
async def test_compacting_is_a_response(start, simulated, prefix):
    server = await start(CONFIG.format(url=simulated))
    id, secret = await make(server, monthly_usd=5)
    async with gpt(server, secret.decode()) as client:
        client.base_url = str(client.base_url).removesuffix("/v1/") + prefix
        answer = await client.responses.compact(model="claude", input="Hello there")
    assert answer.object == "response.compaction"
    assert answer.usage.output_tokens > 0
    used = answer.usage
    _, told = await admin(server, "GET", "/requests")
    assert told["data"][0]["endpoint"] == "responses"
    assert told["data"][0]["usage_source"] == "provider"
    assert told["data"][0]["output_tokens"] == used.output_tokens
    cost_usd = (used.input_tokens + 2 * used.output_tokens) * 1e-6
    assert told["data"][0]["usd"] == pytest.approx(cost_usd)
    _, key = await admin(server, "GET", f"/keys/{id}")
    assert key["month"]["usd"] == pytest.approx(cost_usd)


async def test_counting_input_tokens_is_free(start, simulated):
    server = await start(CONFIG.format(url=simulated))
    id, secret = await make(server, monthly_usd=5, tpm=100_000)
    async with gpt(server, secret.decode()) as client:
        answer = await client.responses.input_tokens.count(model="a/claude", input="Hello there")
        assert (answer.object, answer.input_tokens > 0) == ("response.input_tokens", True)
    _, told = await admin(server, "GET", "/requests")
    row = told["data"][0]
    assert (row["endpoint"], row["usd"], row["output_tokens"]) == ("input_tokens", None, None)
    _, key = await admin(server, "GET", f"/keys/{id}")
    assert (key["month"]["tokens"], key["month"]["usd"]) == (0, 0)


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/responses/input_tokens"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
async def test_they_are_posts(client, path, method):
    await client.send(f"{method} {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n".encode())
    answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: POST\r\n" in answer


@pytest.mark.parametrize(("path", "model"), [("compact", "a/claude"), ("input_tokens", "claude")])
async def test_the_path_and_body_that_a_provider_gets(provider, start, path, model):
    server = await start(CONFIG.format(url=provider.url.replace("/v1", "/base/v1")))
    client = await RawClient.connect(server)
    await client.post(b'{"input":"x","model":"%b"}' % model.encode(), b"/v1/responses/" + path.encode())
    assert (await client.response())[0] == 200
    head, body = provider.seen[0]
    assert head.startswith(b"POST /base/v1/responses/%b HTTP/1.1\r\n" % path.encode())
    assert body == b'{"input":"x","model":"claude"}'


# ---------------------------------------------------------------------- models, as Anthropic's SDK has them

MANY = CONFIG + "".join(f'[models."a/m{n}"]\ncontext_window = 1000\n' for n in range(7))


def strict(server, key: str = "any") -> anthropic.AsyncAnthropic:
    return claude(server, key, _strict_response_validation=True)


async def test_models_are_listed_in_pages_that_end(start):
    server = await start(MANY.format(url=dead_url()))
    expected = ["a/claude", "a/other", *(f"a/m{n}" for n in range(7))]
    async with strict(server) as client:
        for limit in (1, 2, 9, 1000, anthropic.omit):
            assert [model.id async for model in client.models.list(limit=limit)] == expected
        page = await client.models.list(limit=2, before_id="a/m3")
        assert [model.id for model in page.data] == ["a/m1", "a/m2"]
        assert (page.has_more, page.first_id, page.last_id) == (True, "a/m1", "a/m2")
        earlier = await page.get_next_page()
        assert [model.id for model in earlier.data] == ["a/other", "a/m0"]
        model = page.data[0]
        assert (model.type, model.display_name, model.max_input_tokens) == ("model", "a/m1", 1000)
        assert model.created_at.tzinfo is not None
        assert int(model.created_at.timestamp()) == server.gateway.catalog.created


async def test_one_model_and_one_that_is_not_there(start):
    server = await start(MANY.format(url=dead_url()))
    async with strict(server) as client:
        assert (await client.models.retrieve("a/claude")).id == "a/claude"
        assert (await client.models.retrieve("claude")).id == "claude"
        with pytest.raises(anthropic.NotFoundError) as caught:
            await client.models.retrieve("a/none")
        check(caught.value, anthropic.NotFoundError, "not_found_error", "model_not_found")
        for query in ({"limit": 0}, {"after_id": "none"}, {"after_id": "a/m1", "before_id": "a/m2"}):
            with pytest.raises(anthropic.BadRequestError) as caught:
                await client.models.list(**query)
            check(caught.value, anthropic.BadRequestError, "invalid_request_error", "invalid_query")


async def test_a_key_sees_its_own_models_in_either_shape(start):
    server = await start(MANY.format(url=dead_url()))
    _, secret = await make(server, models=["a/m*"], rpm=50)
    expected = [f"a/m{n}" for n in range(7)]
    async with strict(server, secret.decode()) as client:
        assert [model.id async for model in client.models.list(limit=3)] == expected
        with pytest.raises(anthropic.NotFoundError):
            await client.models.retrieve("a/claude")
    async with gpt(server, secret.decode(), _strict_response_validation=True) as client:
        assert [model.id async for model in client.models.list()] == expected
        # As Codex asks.
        assert len((await client.models.list(extra_query={"client_version": "1.2.3"})).data) == 7
